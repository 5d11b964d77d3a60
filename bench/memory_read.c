/* The limit that cutting is measured against: all of a buffer read once, with as little done as possible. */
#include <stddef.h>
#include <stdint.h>

enum { BLOCK = 64 }; /* independent sums, so that none waits for the one before */

uint64_t memory_read(const uint64_t *words, size_t count)
{
    uint64_t sums[BLOCK] = {0}, sum = 0;
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK)
        for (size_t j = 0; j < BLOCK; j++)
            sums[j] += words[i + j];
    for (size_t j = 0; j < BLOCK; j++)
        sum += sums[j];
    return sum;
}
