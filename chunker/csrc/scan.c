#include "scan.h"

#include <string.h>

enum {
    STRIDE = 76,             /* 64 + 12: walks all offsets of 8- to 64-byte records, where 64 starves the filter */
    STEPS = 8,               /* after eight shifts by two bits, nothing of a 16-bit value is left */
    HALF = STRIDE / 2,       /* STRIDE in lanes of one row */
    WARM = STRIDE * (STEPS - 1), /* bytes before `first` at which V must begin */
    GROUP = 64,              /* lanes searched for a candidate at a time */
    LANES = 16 * GROUP,      /* lanes of one row in one block: 2 KiB of input, all work arrays stay in L1 */
};

__extension__ typedef unsigned __int128 u128;

static uint64_t load64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Stage 2: does the candidate at index i end the chunk? */
static int is_cut(const struct fg_chunker *c, const uint8_t *chunk, size_t i)
{
    const uint8_t *window = chunk + i - 63;
    u128 sum = 0;
    for (int j = 0; j < 8; j += 2) {
        uint64_t even = load64(window + 8 * j) + c->words[j];
        uint64_t odd = load64(window + 8 * j + 8) + c->words[j + 1];
        sum += (u128)even * odd;
    }
    uint64_t hash = (((uint64_t)sum ^ (uint64_t)(sum >> 64)) * (c->words[8] | 1)) >> 32;
    uint64_t threshold = ((i + 1 - c->minimum) * c->ramp) >> 16;
    return hash < (threshold < UINT32_MAX ? threshold : UINT32_MAX);
}

/*
 * Stage 1 for one row: V(i) = (V(i-76) >> 2) ^ u(i), which is the eight-step sum once warmed up.
 * v[0..HALF) are the values of the HALF lanes before; w[j] = w(i-2) and w[j+1] = w(i) of lane j.
 * The distance of HALF lanes between read and write is what lets the compiler vectorise the loop.
 */
static void roll(uint16_t *restrict v, const uint16_t *restrict w, uint16_t k1, uint16_t k2, size_t lanes)
{
    for (size_t j = 0; j < lanes; j++) {
        uint16_t u = (uint16_t)((uint32_t)k1 * w[j + 1] + (uint32_t)k2 * w[j]);
        v[HALF + j] = (uint16_t)(v[j] >> 2) ^ u;
    }
}

/* Whether any of GROUP lanes of the two rows is a candidate. */
static int any_candidate(const uint16_t *even, const uint16_t *odd, uint16_t mask, uint16_t want)
{
    uint16_t any = 0;
    for (int j = 0; j < GROUP; j++) {
        any |= (uint16_t)-((even[j] & mask) == want);
        any |= (uint16_t)-((odd[j] & mask) == want);
    }
    return any != 0;
}

/*
 * The plain kernel. The indices of a block are split into two rows, those at an even and those at an odd
 * distance from its start: in one row neighbouring w do not overlap, so that w is the input itself read as
 * 16-bit words, and i-2 and i-76 are the lanes 1 and HALF before, in the same row.
 */
static size_t scan_portable(const struct fg_chunker *c, const uint8_t *chunk, size_t first, size_t end)
{
    uint16_t w[2][LANES + 1];
    uint16_t v[2][HALF + LANES] = {{0}}; /* zero: what lies before the warm-up has been shifted out */
    const uint16_t mask = c->mask, want = c->t & mask;

    for (size_t at = first - WARM; at < end; at += 2 * LANES) {
        size_t span = end - at < 2 * LANES ? end - at : 2 * LANES;
        for (size_t row = 0; row < 2; row++) {
            size_t lanes = (span + 1 - row) / 2; /* lane j of a row is index at + row + 2j */
            memcpy(w[row], chunk + at + row - 3, (lanes + 1) * sizeof w[0][0]);
            roll(v[row], w[row], c->k1, c->k2, lanes);
        }
        for (size_t group = 0; 2 * group < span; group += GROUP) {
            const uint16_t *even = v[0] + HALF + group, *odd = v[1] + HALF + group;
            if (!any_candidate(even, odd, mask, want))
                continue;
            for (size_t lane = 0; lane < 2 * GROUP; lane++) {
                size_t i = at + 2 * group + lane;
                uint16_t value = lane % 2 ? odd[lane / 2] : even[lane / 2];
                /* lanes outside [first, end) belong to the warm-up or to an earlier block */
                if ((value & mask) == want && i >= first && i < end && is_cut(c, chunk, i))
                    return i;
            }
        }
        memmove(v[0], v[0] + LANES, HALF * sizeof v[0][0]);
        memmove(v[1], v[1] + LANES, HALF * sizeof v[1][0]);
    }
    return FG_NONE;
}

const struct fg_kernel fg_kernels[] = {
    {"portable", scan_portable},
    {NULL, NULL},
};

int fg_valid(const struct fg_chunker *c)
{
    return c->minimum >= FG_MINIMUM_FLOOR && c->minimum < c->maximum && c->maximum <= FG_MAXIMUM_CEILING &&
           c->ramp <= UINT64_MAX / (c->maximum - c->minimum);
}

size_t fg_room(const struct fg_chunker *c, size_t n)
{
    return n / c->minimum + 1; /* only the last chunk can be shorter than the minimum */
}

size_t fg_cuts(const struct fg_chunker *c, const struct fg_kernel *kernel, const uint8_t *bytes, size_t n, int final,
               size_t *scanned, uint64_t *cuts)
{
    size_t count = 0, start = 0, done = *scanned;

    *scanned = 0;
    while (start < n) {
        size_t left = n - start;
        size_t end = left < c->maximum ? left : c->maximum;
        size_t first = done < c->minimum ? c->minimum - 1 : done;
        size_t cut = FG_NONE;

        /* T(minimum) is 0: a chunk of exactly the minimum is never cut by the hash */
        if (left > c->minimum && first < end)
            cut = kernel->scan(c, bytes + start, first, end);
        if (cut != FG_NONE) {
            start += cut + 1;
        } else if (end == c->maximum) {
            start += end;
        } else if (final) {
            start = n;
        } else {
            *scanned = left;
            break;
        }
        cuts[count++] = start;
        done = 0;
    }
    return count;
}
