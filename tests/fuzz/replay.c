/* SPDX-License-Identifier: Apache-2.0 */
/* A main for a fuzz target without a fuzzer: runs it once on each file that it is given. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
    static uint8_t data[1 << 20];
    for (int i = 1; i < argc; i++) {
        FILE *from = fopen(argv[i], "rb");
        if (!from) {
            perror(argv[i]);
            return 2;
        }
        size_t size = fread(data, 1, sizeof data, from);
        fclose(from);
        /* A copy of its exact size, so that a sanitizer sees a read beyond it. */
        uint8_t *exact = malloc(size ? size : 1);
        for (size_t k = 0; k < size; k++) exact[k] = data[k];
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%d files\n", argc - 1);
    return argc > 1 ? 0 : 2;
}
