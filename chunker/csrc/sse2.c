#include "scan.h"

#if defined(__x86_64__)
#include <emmintrin.h>

#define TARGET __attribute__((target("sse2")))
#define INLINE TARGET static inline __attribute__((always_inline))
typedef __m128i vec;

INLINE vec splat(uint16_t x)
{
    return _mm_set1_epi16((short)x);
}

/* The vectors of a row: eight lanes of the even indices, eight of the odd ones, the next eight of the even ... */
#define VECTORS 10

INLINE vec words(const uint8_t *at, int j)
{
    return _mm_loadu_si128((const __m128i_u *)(at - 1 + j % 2 + j / 2 * 16));
}

INLINE vec linear(const uint8_t *at, int j, vec k1, vec k2)
{
    return _mm_add_epi16(_mm_mullo_epi16(words(at, j), k1), _mm_mullo_epi16(words(at - 2, j), k2));
}

INLINE vec step(vec v, vec u)
{
    return _mm_xor_si128(_mm_srli_epi16(v, 2), u);
}

INLINE vec equal(vec v, vec mask, vec want)
{
    return _mm_cmpeq_epi16(_mm_and_si128(v, mask), want);
}

INLINE vec either(vec a, vec b)
{
    return _mm_or_si128(a, b);
}

INLINE int none(vec v)
{
    return _mm_movemask_epi8(v) == 0;
}

INLINE uint64_t interleave(vec even, vec odd)
{
    return (uint64_t)((_mm_movemask_epi8(even) & 0x5555) | (_mm_movemask_epi8(odd) & 0xAAAA));
}

INLINE void gather(const vec *hits, uint64_t *bits)
{
    bits[0] = bits[1] = 0;
    for (int j = 0; j < VECTORS; j += 2)
        bits[j / 8] |= interleave(hits[j], hits[j + 1]) << j % 8 * 8;
}

#include "rows.h"

static int runs_here(void)
{
    return 1; /* part of every x86-64 */
}

const struct fg_kernel fg_sse2 = {"sse2", scan_rows, runs_here};
#endif
