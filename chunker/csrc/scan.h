/*
 * The contract of the cutting kernel, algorithm FG version 1. It knows nothing of Python.
 *
 * All arithmetic is unsigned; w and u are 16 bits wide, products are formed in 32 bits. Bytes b[0..n) are
 * one chunk from its start; i is a byte index in it; a cut "at i" ends the chunk after byte i.
 *
 *   w(i) = b[i-1] + 256*b[i]          u(i) = (k1*w(i) + k2*w(i-2)) mod 2^16
 *   V(i) = XOR over k = 0..7 of (u(i - 76k) >> 2k)
 *   candidate at i   iff  (V(i) & mask) == (t & mask)
 *   W_j  = little-endian 64-bit word at b[i-63+8j], j = 0..7
 *   S    = sum over j = 0,2,4,6 of (W_j + N_j mod 2^64) * (W_{j+1} + N_{j+1} mod 2^64)  mod 2^128
 *   h    = (((low64(S) ^ high64(S)) * (N_8 | 1)) mod 2^64) >> 32
 *   T(len) = min(2^32 - 1, ((len - minimum) * ramp) >> 16)
 *   cut at i         iff  candidate at i, len = i + 1 >= minimum and h < T(len)
 *
 * A chunk of `maximum` bytes is cut there; what is left at the end of the stream is the last chunk. The first
 * index that can be a cut is minimum - 1 >= 1023 and a decision looks at most 536 bytes back, so a decision
 * depends on the chunk's own bytes alone and no state is carried from chunk to chunk.
 *
 * Every kernel must give bit-identical results and must touch only the bytes [0, end) it was given.
 */
#ifndef CHUNKER_SCAN_H
#define CHUNKER_SCAN_H

#include <stddef.h>
#include <stdint.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the C kernel loads words in host order: little-endian hosts only (CHUNKER_KERNEL=python works anywhere)"
#endif
#if !defined(__SIZEOF_INT128__)
#error "the C kernel needs 128-bit products: 64-bit hosts only (CHUNKER_KERNEL=python works anywhere)"
#endif

#define FG_MINIMUM_FLOOR 1024u         /* > 536, so that no decision looks before its chunk */
#define FG_MAXIMUM_CEILING (4u << 20)  /* 4 MiB */
#define FG_NONE SIZE_MAX               /* no cut found */

/*
 * Key and sizes. The layout (96 bytes, no padding) is also how Python hands them over: see kernels.py.
 */
struct fg_chunker {
    uint64_t words[9];          /* N_0 .. N_8 */
    uint64_t ramp;              /* (maximum - minimum) * ramp < 2^64 */
    uint32_t minimum, maximum;  /* FG_MINIMUM_FLOOR <= minimum < maximum <= FG_MAXIMUM_CEILING */
    uint16_t k1, k2, t, mask;   /* mask = 2^filter_bits - 1 */
};

/*
 * The first cut at an index in [first, end) of the chunk that starts at `chunk`, or FG_NONE.
 * Requires first >= minimum - 1. Reads nothing outside [chunk, chunk + end).
 */
typedef size_t fg_scan(const struct fg_chunker *chunker, const uint8_t *chunk, size_t first, size_t end);

struct fg_kernel {
    const char *name;
    fg_scan *scan;
    int (*runs_here)(void); /* whether this host has the instructions */
};

/* Each is defined in the C file of its name, those of other architectures not at all. */
extern const struct fg_kernel fg_avx2, fg_sse2, fg_neon, fg_portable;

/* The kernels that this build has and this host can run, best first: rank 0, 1, ...; NULL after the last. */
const struct fg_kernel *fg_kernel(size_t rank);

/* 1 if the sizes obey the requirements above, so that every scan stays inside its chunk; else 0. */
int fg_valid(const struct fg_chunker *chunker);

/* The greatest number of cuts that fg_cuts can write for n bytes. */
size_t fg_room(const struct fg_chunker *chunker, size_t n);

/*
 * Cuts n bytes that begin at the start of a chunk. Writes exclusive end offsets, ascending, to `cuts` (room
 * for fg_room(n)) and returns how many. With `final` the rest is the last chunk; without it the unfinished
 * last chunk is not written: the caller presents its bytes again at the front of the next buffer.
 * *scanned: in, how many bytes of the first chunk were searched without a cut before; out, the same for the
 * unfinished chunk.
 */
size_t fg_cuts(const struct fg_chunker *chunker, const struct fg_kernel *kernel, const uint8_t *bytes, size_t n,
               int final, size_t *scanned, uint64_t *cuts);

#endif
