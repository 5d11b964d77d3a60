/* What all kernels share: the constants of stage 1, and stage 2, which judges the candidates it leaves. */
#ifndef CHUNKER_JUDGE_H
#define CHUNKER_JUDGE_H

#include <string.h>

#include "scan.h"

enum {
    FG_STRIDE = 76, /* 64 + 12: walks all offsets of 8- to 64-byte records, where 64 starves the filter */
    FG_WARM = 7 * FG_STRIDE, /* how far before `first` V must begin for its eight terms to be there; older ones
                                have been shifted out */
};

__extension__ typedef unsigned __int128 fg_u128;

static inline uint64_t fg_load64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Does the candidate at index i end the chunk? */
static inline int fg_is_cut(const struct fg_chunker *c, const uint8_t *chunk, size_t i)
{
    const uint8_t *window = chunk + i - 63;
    fg_u128 sum = 0;
    for (int j = 0; j < 8; j += 2) {
        uint64_t even = fg_load64(window + 8 * j) + c->words[j];
        uint64_t odd = fg_load64(window + 8 * j + 8) + c->words[j + 1];
        sum += (fg_u128)even * odd;
    }
    uint64_t hash = (((uint64_t)sum ^ (uint64_t)(sum >> 64)) * (c->words[8] | 1)) >> 32;
    uint64_t threshold = ((i + 1 - c->minimum) * c->ramp) >> 16;
    return hash < (threshold < UINT32_MAX ? threshold : UINT32_MAX);
}

#endif
