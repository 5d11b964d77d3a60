/* The kernel in plain C, shaped so that compilers vectorise it. */
#include <string.h>

#include "scan.h"
#include "judge.h"

enum {
    HALF = FG_STRIDE / 2, /* the stride in lanes of one row */
    GROUP = 64,           /* lanes searched for a candidate at a time */
    LANES = 16 * GROUP,   /* lanes of one row in one block: 2 KiB of input, all work arrays stay in L1 */
};

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
 * The indices of a block are split into two rows, those at an even and those at an odd distance from its
 * start: in one row neighbouring w do not overlap, so that w is the input itself read as 16-bit words, and
 * i-2 and i-76 are the lanes 1 and HALF before, in the same row.
 */
static size_t scan_portable(const struct fg_chunker *c, const uint8_t *chunk, size_t first, size_t end)
{
    uint16_t w[2][LANES + 1];
    uint16_t v[2][HALF + LANES] = {{0}}; /* zero: what lies before the warm-up has been shifted out */
    const uint16_t mask = c->mask, want = c->t & mask;

    for (size_t at = first - FG_WARM; at < end; at += 2 * LANES) {
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
                if ((value & mask) == want && i >= first && i < end && fg_is_cut(c, chunk, i))
                    return i;
            }
        }
        memmove(v[0], v[0] + LANES, HALF * sizeof v[0][0]);
        memmove(v[1], v[1] + LANES, HALF * sizeof v[1][0]);
    }
    return FG_NONE;
}

static int runs_here(void)
{
    return 1;
}

const struct fg_kernel fg_portable = {"portable", scan_portable, runs_here};
