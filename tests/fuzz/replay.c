/* SPDX-License-Identifier: Apache-2.0 */
/* A main for a fuzz target without a fuzzer: runs it once on each file that it is given; or, with
 * --seeds N, on its own seeds and N changed ones of each; --corpus FOLDER writes the seeds. */
#include "tests/fuzz/fuzz.h"

/* Targets whose corpus somebody else writes have none. */
size_t __attribute__((weak)) fuzz_seed(int k, uint8_t *out);

static void run(const uint8_t *data, size_t size) {
    fuzz_input all = {data, size};
    uint8_t *exact = fuzz_copy(&all, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static int run_files(int count, char **names) {
    static uint8_t data[1 << 20];
    for (int i = 0; i < count; i++) {
        FILE *from = fopen(names[i], "rb");
        if (!from) {
            perror(names[i]);
            return 2;
        }
        size_t size = fread(data, 1, sizeof data, from);
        fclose(from);
        run(data, size);
    }
    printf("%d files\n", count);
    return count > 0 ? 0 : 2;
}

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* A few bytes changed, dropped, or repeated. */
static size_t change(uint8_t *data, size_t size, uint32_t *state) {
    for (unsigned n = next_random(state) % 4 + 1; n-- > 0 && size > 1;) {
        size_t at = next_random(state) % size, length = next_random(state) % 16 + 1;
        if (length > size - at) length = size - at;
        switch (next_random(state) % 4) {
        case 0:
            data[at] ^= (uint8_t)(1u << next_random(state) % 8);
            break;
        case 1:
            data[at] = (uint8_t)next_random(state);
            break;
        case 2:
            memmove(data + at, data + at + length, size - at - length);
            size -= length;
            break;
        default:
            if (size + length > FUZZ_SEED_MOST) break;
            memmove(data + at + length, data + at, size - at);
            size += length;
        }
    }
    return size;
}

static int run_seeds(int changed) {
    static uint8_t seed[FUZZ_SEED_MOST], data[FUZZ_SEED_MOST];
    uint32_t state = 2463534242u;
    int seeds = 0;
    for (size_t size; fuzz_seed && (size = fuzz_seed(seeds, seed)); seeds++) {
        run(seed, size);
        for (int i = 0; i < changed; i++) {
            memcpy(data, seed, size);
            run(data, change(data, size, &state));
        }
    }
    printf("%d seeds, %d changed ones of each\n", seeds, changed);
    return seeds > 0 ? 0 : 2;
}

static int write_seeds(const char *folder) {
    static uint8_t seed[FUZZ_SEED_MOST];
    char path[4096];
    size_t size;
    for (int k = 0; fuzz_seed && (size = fuzz_seed(k, seed)); k++) {
        snprintf(path, sizeof path, "%s/seed-%d", folder, k);
        FILE *to = fopen(path, "wb");
        if (!to || fwrite(seed, 1, size, to) != size || fclose(to)) {
            perror(path);
            return 2;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) return run_seeds(atoi(argv[2]));
    if (argc == 3 && strcmp(argv[1], "--corpus") == 0) return write_seeds(argv[2]);
    return run_files(argc - 1, argv + 1);
}
