/*
 * Stage 1 of scan.h in vectors: the one loop of all vector kernels. An includer defines, for its instructions,
 *
 *   TARGET                     the attribute that lets a function use them
 *   INLINE                     that, for functions that must vanish into their callers
 *   vec                        a vector of 16-bit lanes
 *   VECTORS                    how many of them make a row
 *   splat(x)                   x in every lane
 *   linear(at, j, k1, k2)      u in the lanes of vector j of the row at `at`; reads [at - 3, at + SPAN)
 *   step(v, u)                 (v >> 2) ^ u in every lane
 *   equal(v, mask, want)       all ones in the lanes where (v & mask) == want, else zero
 *   either(a, b)               a | b
 *   none(v)                    whether no lane of a result of `equal` or `either` is set
 *   gather(hits, bits)         the lanes of a row, set or not, to SPAN bits in order of their indices
 *
 * and gets scan_rows, an fg_scan.
 *
 * A row is the SPAN indices from p on, and the next row begins at p + 76: so V(i - 76) stands in the same lane of
 * the row before, and nothing ever moves between lanes. For the indices at an even distance from p, neighbouring
 * words do not overlap: they are the input itself, read from p - 1 on; likewise those at an odd distance, read
 * from p on. As 76 is no whole number of vectors, the last four indices of a row are also the first four of the
 * next. Their V is the same in both, so it does no harm that both look at them.
 */
#include "judge.h"

enum { SPAN = 80 };

struct row {
    vec v[VECTORS];
};

INLINE void next_row(struct row *row, const uint8_t *at, vec k1, vec k2)
{
#pragma GCC unroll 10
    for (int j = 0; j < VECTORS; j++)
        row->v[j] = step(row->v[j], linear(at, j, k1, k2));
}

/* The first cut among the indices [at, at + count) of a row, or FG_NONE. */
INLINE size_t row_cut(const struct row *row, vec mask, vec want, const struct fg_chunker *c, const uint8_t *chunk,
                      size_t at, size_t count)
{
    vec hits[VECTORS];
    vec any = hits[0] = equal(row->v[0], mask, want);
#pragma GCC unroll 10
    for (int j = 1; j < VECTORS; j++)
        any = either(any, hits[j] = equal(row->v[j], mask, want));
    if (__builtin_expect(none(any), 1))
        return FG_NONE;

    uint64_t bits[2]; /* of indices 0 to 63 and 64 to SPAN - 1 of the row */
    gather(hits, bits);
    for (size_t part = 0; part < 2; part++)
        for (uint64_t left = bits[part]; left != 0; left &= left - 1) {
            size_t offset = 64 * part + (size_t)__builtin_ctzll(left);
            if (offset < count && fg_is_cut(c, chunk, at + offset))
                return at + offset;
        }
    return FG_NONE;
}

TARGET static size_t scan_rows(const struct fg_chunker *c, const uint8_t *chunk, size_t first, size_t end)
{
    const vec k1 = splat(c->k1), k2 = splat(c->k2), mask = splat(c->mask), want = splat(c->t & c->mask);
    struct row row;
    uint8_t copy[3 + SPAN] = {0};
    size_t cut;

    for (int j = 0; j < VECTORS; j++)
        row.v[j] = splat(0); /* what lies before the warm-up has been shifted out */
    for (size_t at = first - FG_WARM; at < end; at += FG_STRIDE) {
        const uint8_t *from = chunk + at;
        size_t count = SPAN;
        if (end - at < SPAN) { /* less than a row is left: read it from where a whole one can be read */
            count = end - at;
            memcpy(copy + 3, from, count);
            memcpy(copy, from - 3, 3);
            from = copy + 3;
        }
        next_row(&row, from, k1, k2);
        /* the rows before `first` are the warm-up */
        if (at >= first && (cut = row_cut(&row, mask, want, c, chunk, at, count)) != FG_NONE)
            return cut;
    }
    return FG_NONE;
}
