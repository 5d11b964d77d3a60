/*
 * Runs a kernel outside Python: under a sanitizer, or for another architecture under an emulator.
 *
 *   driver               prints the names of the kernels that run here, best first, one per line
 *   driver KERNEL        reads cases from standard input, writes results to standard output
 *
 * A case is the 96 bytes of struct fg_chunker, u64 final, u64 scanned, u64 length and that many bytes; a result is
 * u64 count, u64 scanned and count u64 offsets. Numbers are in host order, which scan.h demands to be little-endian.
 * Buffers are allocated at their exact sizes, so that a sanitizer sees every access outside.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"

struct head {
    struct fg_chunker chunker;
    uint64_t final, scanned, length;
};

static void *exactly(size_t size)
{
    void *memory = malloc(size);
    if (memory == NULL && size != 0)
        exit(3);
    return memory;
}

static void answer(const struct fg_kernel *kernel, const struct head *head)
{
    size_t length = head->length, scanned = head->scanned;
    uint8_t *bytes = exactly(length);
    uint64_t *cuts = exactly(fg_room(&head->chunker, length) * sizeof *cuts);

    if (fread(bytes, 1, length, stdin) != length)
        exit(4);
    size_t count = fg_cuts(&head->chunker, kernel, bytes, length, head->final != 0, &scanned, cuts);
    const uint64_t numbers[2] = {count, scanned};
    if (fwrite(numbers, sizeof numbers, 1, stdout) != 1 || fwrite(cuts, sizeof *cuts, count, stdout) != count)
        exit(5);
    free(cuts);
    free(bytes);
}

int main(int argc, char **argv)
{
    const struct fg_kernel *kernel;
    struct head head;

    for (size_t rank = 0; (kernel = fg_kernel(rank)) != NULL; rank++)
        if (argc < 2)
            puts(kernel->name);
        else if (strcmp(kernel->name, argv[1]) == 0)
            break;
    if (argc < 2)
        return 0;
    if (kernel == NULL)
        return 2;
    while (fread(&head, sizeof head, 1, stdin) == 1) {
        if (!fg_valid(&head.chunker))
            return 6;
        answer(kernel, &head);
    }
    return 0;
}
