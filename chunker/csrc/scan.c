#include "scan.h"

/* Best first. */
static const struct fg_kernel *const kernels[] = {
#if defined(__x86_64__)
    &fg_avx2,
    &fg_sse2,
#endif
#if defined(__aarch64__)
    &fg_neon,
#endif
    &fg_portable,
};

const struct fg_kernel *fg_kernel(size_t rank)
{
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        if (kernels[i]->runs_here() && rank-- == 0)
            return kernels[i];
    return NULL;
}

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
