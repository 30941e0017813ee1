/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_dropin: what the drop-in adds to a call that it hands on to the real NCCL, with no codec set.
 *
 * Calls by the drop-in's libnccl.so.2 and by the real one alternate in batches, on one communicator
 * of one rank, which one GPU is enough for: both have the same handles. Timed is the host, until a
 * call returns; the difference of the medians is judged.
 *
 * Status 0: all is well; 1: something is wrong or too slow; 2: bad usage; 77: it cannot run here,
 * and why. */
#include <dlfcn.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "coll/nccl/find.h"
#include "perf/gpu.h"
#include "perf/json.h"

enum { BATCH = 64, ROUNDS = 400, WARM = 20, FEW = 40, COUNT = 256 };

#define TARGET_US 2.0

/* What is called of either library. */
typedef struct library {
    void *handle;
    cinchResult_t (*unique_id)(cinchUniqueId *id);
    cinchResult_t (*init)(cinchComm_t *comm, int nranks, cinchUniqueId id, int rank);
    cinchResult_t (*all_reduce)(const void *send, void *recv, size_t count, cinchDataType_t dtype,
                                cinchRedOp_t op, cinchComm_t comm, cinchStream_t stream);
    cinchResult_t (*begin)(void);
    cinchResult_t (*end)(void);
} library;

enum { REAL, DROPIN, LIBRARIES };

/* What a batch is of. */
typedef enum { IN_PLACE, APART, GROUPED, KINDS } kind;
static const char *const kind_names[] = {"all-reduce in place", "all-reduce",
                                         "all-reduce in a group"};

typedef struct bench {
    library lib[LIBRARIES];
    cinchComm_t comm;
    cinch_perf_gpu gpu; /* work NULL: none, for a try above an imitation of NCCL */
    void *memory[2];
    bool refused; /* a call failed */
} bench;

static bool find(void *handle, const char *name, void *function) {
    void *at = dlsym(handle, name);
    memcpy(function, &at, sizeof at);
    if (!at) fprintf(stderr, "gpu_dropin: %s is not there\n", name);
    return at != NULL;
}

static bool open_library(library *lib, void *handle) {
    lib->handle = handle;
    return find(handle, "ncclGetUniqueId", &lib->unique_id) &&
           find(handle, "ncclCommInitRank", &lib->init) &&
           find(handle, "ncclAllReduce", &lib->all_reduce) &&
           find(handle, "ncclGroupStart", &lib->begin) && find(handle, "ncclGroupEnd", &lib->end);
}

static double call(bench *b, int which, kind k) {
    const library *lib = &b->lib[which];
    void *to = b->memory[k == APART];
    int failed = 0;
    uint64_t start = cinch_now_ns();
    for (int i = 0; i < BATCH; i++) {
        if (k == GROUPED) failed |= lib->begin();
        failed |= lib->all_reduce(b->memory[0], to, COUNT, cinchFloat32, cinchSum, b->comm,
                                  b->gpu.stream);
        if (k == GROUPED) failed |= lib->end();
    }
    double us = (double)(cinch_now_ns() - start) / 1e3 / BATCH;
    b->refused |= failed != 0;
    if (b->gpu.work) cinchStreamSynchronize(b->gpu.stream);
    return us;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The medians of both. Who is first changes from round to round. */
static void measure(bench *b, kind k, int rounds, double us[LIBRARIES]) {
    static double sample[LIBRARIES][ROUNDS];
    for (int i = -WARM; i < rounds; i++)
        for (int turn = 0; turn < LIBRARIES; turn++) {
            int which = (turn + i) & 1;
            double one = call(b, which, k);
            if (i >= 0) sample[which][i] = one;
        }
    for (int w = 0; w < LIBRARIES; w++) {
        qsort(sample[w], (size_t)rounds, sizeof sample[w][0], ascending);
        us[w] = sample[w][rounds / 2];
    }
}

static cinchResult_t open_memory(bench *b, bool host) {
    static float here[2][COUNT];
    for (int i = 0; i < 2; i++) b->memory[i] = here[i];
    if (host) return cinchSuccess;
    CINCH_TRY(cinch_perf_gpu_open(&b->gpu, 0));
    for (int i = 0; i < 2; i++)
        CINCH_TRY(b->gpu.work->alloc(b->gpu.device, COUNT * sizeof(float), &b->memory[i]));
    return cinchSuccess;
}

static bool write_json(const char *path, const double us[KINDS][LIBRARIES], const char *real,
                       int version, bool pass) {
    FILE *file = fopen(path, "we");
    cinch_json j = {0};
    if (!file) {
        fprintf(stderr, "gpu_dropin: %s cannot be written\n", path);
        return false;
    }
    cinch_json_begin(&j, file);
    cinch_json_text(&j, "nccl", real);
    cinch_json_count(&j, "nccl_version", (uint64_t)version);
    cinch_json_number(&j, "target_us", TARGET_US);
    cinch_json_open(&j, "calls", '[');
    for (int k = 0; k < KINDS; k++) {
        cinch_json_open(&j, NULL, '{');
        cinch_json_text(&j, "call", kind_names[k]);
        cinch_json_number(&j, "nccl_us", us[k][REAL]);
        cinch_json_number(&j, "dropin_us", us[k][DROPIN]);
        cinch_json_number(&j, "adds_us", us[k][DROPIN] - us[k][REAL]);
        cinch_json_close(&j, '}');
    }
    cinch_json_close(&j, ']');
    cinch_json_bool(&j, "pass", pass);
    bool written = cinch_json_end(&j);
    return fclose(file) == 0 && written;
}

static int usage(void) {
    fprintf(stderr,
            "usage: gpu_dropin --library DROPIN [--json FILE] [--host]\n"
            "CINCH_NCCL_PATH names the real NCCL, where it is not where the loader looks.\n"
            "--host: no GPU, above an imitation of NCCL; nothing is judged but that calls come "
            "through\n");
    return 2;
}

/* The drop-in in forward mode above the very library that is called beside it. */
static int open_libraries(bench *b, const char *dropin, cinch_nccl_library *real) {
    char why[CINCH_ERROR_TEXT];
    const char *chosen = cinch_environment("CINCH_NCCL_PATH");
    if (!cinch_nccl_load(chosen ? chosen : "", real, why)) {
        printf("skipped: the real NCCL was not found: %s\n", why);
        return 77;
    }
    setenv("CINCH_NCCL_PATH", real->path, 1);
    setenv("CINCH_NCCL_MODE", "forward", 1);
    for (const char *const *name =
             (const char *const[]){"CINCH_CODEC", "CINCH_CODEC_INTRA", "CINCH_CODEC_INTER", NULL};
         *name; name++)
        unsetenv(*name);
    void *handle = dlopen(dropin, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "gpu_dropin: %s\n", dlerror());
        return 1;
    }
    return open_library(&b->lib[REAL], real->handle) && open_library(&b->lib[DROPIN], handle) ? 0
                                                                                              : 1;
}

/* Everything behind the libraries. */
static int run(bench *b, bool host, const cinch_nccl_library *real, const char *json) {
    double us[KINDS][LIBRARIES];
    cinchUniqueId id;
    cinchResult_t (*destroy)(cinchComm_t comm);
    if (open_memory(b, host) != cinchSuccess) {
        fprintf(stderr, "gpu_dropin: %s\n", cinch_last_error());
        return 1;
    }
    if (b->lib[DROPIN].unique_id(&id) || b->lib[DROPIN].init(&b->comm, 1, id, 0)) {
        fprintf(stderr, "gpu_dropin: no communicator of the real NCCL, by way of the drop-in\n");
        return 1;
    }
    bool pass = true;
    for (int k = 0; k < KINDS; k++) {
        measure(b, (kind)k, host ? FEW : ROUNDS, us[k]);
        double adds = us[k][DROPIN] - us[k][REAL];
        bool good = host || adds <= TARGET_US;
        pass &= good;
        printf("%-24s NCCL %6.2f us, by the drop-in %6.2f us: adds %5.2f us (at most %.0f)  %s\n",
               kind_names[k], us[k][REAL], us[k][DROPIN], adds, TARGET_US,
               host   ? "not judged"
               : good ? "pass"
                      : "FAIL");
    }
    pass &= !b->refused;
    if (b->refused) printf("gpu_dropin: a call failed\n");
    if (!host && find(b->lib[REAL].handle, "ncclCommDestroy", &destroy)) destroy(b->comm);
    if (json && !write_json(json, us, real->path, real->version, pass)) return 1;
    return pass ? 0 : 1;
}

int main(int argc, char **argv) {
    static const struct option known[] = {{"library", required_argument, NULL, 'l'},
                                          {"json", required_argument, NULL, 'j'},
                                          {"host", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const char *json = NULL, *dropin = NULL;
    bool host = false;
    int which, devices;
    while ((which = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (which == 'l') dropin = optarg;
        if (which == 'j') json = optarg;
        if (which == 'h') host = true;
        if (which == '?') return usage();
    }
    if (optind != argc || !dropin) return usage();
    if (!host && !cinch_perf_gpu_there(&devices)) {
        printf("skipped: there is no GPU: %s\n", cinch_last_error());
        return 77;
    }
    static bench b;
    cinch_nccl_library real = {0};
    int status = open_libraries(&b, dropin, &real);
    return status ? status : run(&b, host, &real, json);
}
