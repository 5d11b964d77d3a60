#include "scan.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2")))
#define INLINE TARGET static inline __attribute__((always_inline))
typedef __m256i vec;

INLINE vec splat(uint16_t x)
{
    return _mm256_set1_epi16((short)x);
}

/* The vectors of a row: lanes 0 to 15 of the even indices, of the odd ones; lanes 16 to 31 likewise; the rest. */
#define VECTORS 5
enum { REST = 4 };

INLINE vec words(const uint8_t *at, int j)
{
    if (j == REST) {
        vec even = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i_u *)(at + 63)));
        return _mm256_inserti128_si256(even, _mm_loadu_si128((const __m128i_u *)(at + 64)), 1);
    }
    return _mm256_loadu_si256((const __m256i_u *)(at - 1 + j % 2 + j / 2 * 32));
}

INLINE vec linear(const uint8_t *at, int j, vec k1, vec k2)
{
    return _mm256_add_epi16(_mm256_mullo_epi16(words(at, j), k1), _mm256_mullo_epi16(words(at - 2, j), k2));
}

INLINE vec step(vec v, vec u)
{
    return _mm256_xor_si256(_mm256_srli_epi16(v, 2), u);
}

INLINE vec equal(vec v, vec mask, vec want)
{
    return _mm256_cmpeq_epi16(_mm256_and_si256(v, mask), want);
}

INLINE vec either(vec a, vec b)
{
    return _mm256_or_si256(a, b);
}

INLINE int none(vec v)
{
    return _mm256_testz_si256(v, v);
}

INLINE uint64_t interleave(vec even, vec odd)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_blendv_epi8(odd, even, splat(0x00FF)));
}

INLINE void gather(const vec *hits, uint64_t *bits)
{
    vec rest = hits[REST];
    bits[0] = interleave(hits[0], hits[1]) | interleave(hits[2], hits[3]) << 32;
    bits[1] = interleave(rest, _mm256_permute2x128_si256(rest, rest, 1)) & 0xFFFF;
}

#include "rows.h"

static int runs_here(void)
{
    return __builtin_cpu_supports("avx2");
}

const struct fg_kernel fg_avx2 = {"avx2", scan_rows, runs_here};
#endif
