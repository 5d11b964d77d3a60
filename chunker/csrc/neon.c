#include "scan.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define TARGET
#define INLINE static inline __attribute__((always_inline))
typedef uint16x8_t vec;

INLINE vec splat(uint16_t x)
{
    return vdupq_n_u16(x);
}

/* The vectors of a row: eight lanes of the even indices, eight of the odd ones, the next eight of the even ... */
#define VECTORS 10

INLINE vec words(const uint8_t *at, int j)
{
    return vreinterpretq_u16_u8(vld1q_u8(at - 1 + j % 2 + j / 2 * 16));
}

INLINE vec linear(const uint8_t *at, int j, vec k1, vec k2)
{
    return vmlaq_u16(vmulq_u16(words(at, j), k1), words(at - 2, j), k2);
}

INLINE vec step(vec v, vec u)
{
    return veorq_u16(vshrq_n_u16(v, 2), u);
}

INLINE vec equal(vec v, vec mask, vec want)
{
    return vceqq_u16(vandq_u16(v, mask), want);
}

INLINE vec either(vec a, vec b)
{
    return vorrq_u16(a, b);
}

INLINE int none(vec v)
{
    return vmaxvq_u32(vreinterpretq_u32_u16(v)) == 0;
}

INLINE uint64_t interleave(vec even, vec odd)
{
    const uint8x16_t weights = vreinterpretq_u8_u64(vdupq_n_u64(UINT64_C(0x8040201008040201)));
    vec both = vbslq_u16(splat(0x00FF), even, odd);
    uint8x16_t bits = vandq_u8(vreinterpretq_u8_u16(both), weights);
    return vaddv_u8(vget_low_u8(bits)) | (uint64_t)vaddv_u8(vget_high_u8(bits)) << 8;
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
    return 1; /* part of every aarch64 that runs Linux */
}

const struct fg_kernel fg_neon = {"neon", scan_rows, runs_here};
#endif
