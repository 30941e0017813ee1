/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_probe: what CUDA does here in places that its documentation leaves open, and that the library
 * is built around. Nothing is judged but that the probes end.
 *
 * A stream waits for a value that nobody writes for a while (cuStreamWaitValue32). Meanwhile: which
 * calls return at once, and which only when the stream goes on; and from how many such streams on
 * work on another stream waits too, because streams share hardware queues
 * (CUDA_DEVICE_MAX_CONNECTIONS).
 *
 * Status 0: the probes are through; 1: CUDA failed; 2: bad usage; 77: there is no GPU. */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/settings.h"
#include "perf/gpu.h"
#include "perf/json.h"

enum { BYTES = 4 << 20, STREAMS = 40, PATIENCE_MS = 400 };

/* cuStreamWaitValue32, whose header is the driver's; 1 is "greater or equal". */
typedef int (*wait_value_fn)(cudaStream_t stream, unsigned long long at, uint32_t value,
                             unsigned flags);

typedef struct probe {
    wait_value_fn wait_value;
    cudaStream_t waiting, other;
    volatile uint32_t *value; /* pinned; streams wait until it is 1 */
    void *memory;
    cudaIpcMemHandle_t handle; /* of another process's memory */
    bool foreign;
    /* what the calls gave */
    void *opened, *allocated, *shared, *pinned;
    cudaStream_t stream;
    cudaEvent_t event;
} probe;

static void must(cudaError_t err, const char *what) {
    if (err == cudaSuccess) return;
    fprintf(stderr, "gpu_probe: %s: %s\n", what, cudaGetErrorString(err));
    fflush(NULL);
    _exit(1);
}

/* Should a call block this very thread, the streams go on all the same. */
enum { STUCK_S = 10 };
static volatile uint32_t *gate;
static void let_go(int number) {
    (void)number;
    *gate = 1;
}

static void sleep_ms(int ms) {
    usleep((useconds_t)ms * 1000);
}

/* ---- calls behind a waiting stream ---- */

typedef cudaError_t (*call_fn)(probe *p);

static cudaError_t call_ipc_open(probe *p) {
    return p->foreign ? cudaIpcOpenMemHandle(&p->opened, p->handle, cudaIpcMemLazyEnablePeerAccess)
                      : cudaErrorInvalidValue;
}
static cudaError_t call_malloc(probe *p) {
    return cudaMalloc(&p->allocated, BYTES);
}
static cudaError_t call_free(probe *p) {
    cudaError_t err = cudaFree(p->memory);
    p->memory = NULL;
    return err;
}
static cudaError_t call_pinned(probe *p) {
    return cudaHostAlloc(&p->pinned, BYTES, cudaHostAllocPortable);
}
static cudaError_t call_stream(probe *p) {
    return cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking);
}
static cudaError_t call_event(probe *p) {
    return cudaEventCreateWithFlags(&p->event, cudaEventDisableTiming);
}
static cudaError_t call_handle(probe *p) {
    cudaIpcMemHandle_t handle;
    cudaError_t err = cudaMalloc(&p->shared, BYTES);
    return err == cudaSuccess ? cudaIpcGetMemHandle(&handle, p->shared) : err;
}
/* Work on another stream of the same priority, and its end. */
static cudaError_t call_memset(probe *p) {
    cudaError_t err = cudaMemsetAsync(p->memory, 1, BYTES, p->other);
    return err == cudaSuccess ? cudaStreamSynchronize(p->other) : err;
}

static const struct {
    const char *name;
    call_fn call;
} calls[] = {{"cudaIpcOpenMemHandle", call_ipc_open},
             {"cudaIpcGetMemHandle", call_handle},
             {"cudaMalloc", call_malloc},
             {"cudaHostAlloc", call_pinned},
             {"cudaStreamCreate", call_stream},
             {"cudaEventCreate", call_event},
             {"work on another stream", call_memset},
             {"cudaFree", call_free}}; /* last: it takes the memory */

enum { CALLS = sizeof calls / sizeof *calls };

typedef struct attempt {
    probe *p;
    call_fn call;
    cudaError_t err;
    double ms;
    volatile bool done;
} attempt;

static void *attempt_main(void *arg) {
    attempt *a = arg;
    uint64_t start = cinch_now_ns();
    cudaSetDevice(0);
    a->err = a->call(a->p);
    a->ms = (double)(cinch_now_ns() - start) / 1e6;
    __atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void wait_for_value(probe *p, cudaStream_t stream) {
    if (p->wait_value(stream, (unsigned long long)(uintptr_t)p->value, 1, 0) != 0) {
        fprintf(stderr, "gpu_probe: cuStreamWaitValue32 failed\n");
        _exit(1);
    }
}

/* Whether the call comes back while the stream waits. */
static bool comes_back(probe *p, call_fn call, attempt *a) {
    pthread_t thread;
    *a = (attempt){.p = p, .call = call};
    *p->value = 0;
    alarm(STUCK_S);
    wait_for_value(p, p->waiting);
    if (pthread_create(&thread, NULL, attempt_main, a) != 0) _exit(1);
    for (int ms = 0; ms < PATIENCE_MS && !__atomic_load_n(&a->done, __ATOMIC_ACQUIRE); ms++)
        sleep_ms(1);
    bool back = __atomic_load_n(&a->done, __ATOMIC_ACQUIRE);
    *p->value = 1;
    pthread_join(thread, NULL);
    must(cudaStreamSynchronize(p->waiting), "the waiting stream");
    return back;
}

/* ---- streams that share a queue ---- */

/* How many streams may wait until work on one more waits too; STREAMS: more than were tried. */
static int streams_apart(probe *p, int priority) {
    cudaStream_t stream[STREAMS];
    int most = STREAMS;
    for (int i = 0; i < STREAMS; i++)
        must(cudaStreamCreateWithPriority(&stream[i], cudaStreamNonBlocking, priority), "a stream");
    *p->value = 0;
    alarm(STUCK_S);
    for (int i = 0; i + 1 < STREAMS; i++) {
        wait_for_value(p, stream[i]);
        must(cudaMemsetAsync(p->memory, i, 64, stream[i + 1]), "work");
        cudaError_t state = cudaErrorNotReady;
        for (int ms = 0; ms < PATIENCE_MS / 4 && state == cudaErrorNotReady; ms++) {
            sleep_ms(1);
            state = cudaStreamQuery(stream[i + 1]);
        }
        if (state == cudaSuccess) continue;
        most = i;
        break;
    }
    *p->value = 1;
    for (int i = 0; i < STREAMS; i++) {
        must(cudaStreamSynchronize(stream[i]), "a stream");
        cudaStreamDestroy(stream[i]);
    }
    return most;
}

/* ---- the other process ---- */

/* Shares memory until the pipe is closed. Begun before this process has called CUDA. */
static pid_t start_neighbour(int from[2], int hold[2]) {
    if (pipe(from) != 0 || pipe(hold) != 0) return -1;
    pid_t pid = fork();
    if (pid != 0) {
        close(from[1]);
        close(hold[0]);
        return pid;
    }
    close(from[0]);
    close(hold[1]);
    void *memory;
    char end;
    cudaIpcMemHandle_t handle;
    if (cudaMalloc(&memory, BYTES) != cudaSuccess ||
        cudaIpcGetMemHandle(&handle, memory) != cudaSuccess)
        _exit(1);
    if (write(from[1], &handle, sizeof handle) != (ssize_t)sizeof handle) _exit(1);
    _exit(read(hold[0], &end, 1) < 0);
}

/* Where a call failed there is nothing of it. */
static void give_back(const probe *p) {
    if (p->opened) must(cudaIpcCloseMemHandle(p->opened), "the other's memory");
    if (p->allocated) must(cudaFree(p->allocated), "memory");
    if (p->shared) must(cudaFree(p->shared), "memory");
    if (p->pinned) must(cudaFreeHost(p->pinned), "pinned memory");
    if (p->stream) must(cudaStreamDestroy(p->stream), "a stream");
    if (p->event) must(cudaEventDestroy(p->event), "an event");
    must(cudaStreamDestroy(p->waiting), "a stream");
    must(cudaStreamDestroy(p->other), "a stream");
    must(cudaFreeHost((void *)(uintptr_t)p->value), "pinned memory");
}

static int run(probe *p, const char *json) {
    int least = 0, greatest = 0, apart[2];
    attempt a[CALLS];
    bool back[CALLS];
    must(cudaSetDevice(0), "the GPU");
    must(cudaMalloc(&p->memory, BYTES), "memory");
    must(cudaHostAlloc((void **)(uintptr_t)&p->value, 64, cudaHostAllocMapped), "pinned memory");
    gate = p->value;
    if (signal(SIGALRM, let_go) == SIG_ERR) return 1;
    must(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities");
    must(cudaStreamCreateWithPriority(&p->waiting, cudaStreamNonBlocking, greatest), "a stream");
    must(cudaStreamCreateWithFlags(&p->other, cudaStreamNonBlocking), "a stream");
    must(call_memset(p), "the first work");
    apart[0] = streams_apart(p, least);
    apart[1] = streams_apart(p, greatest);
    const char *connections = cinch_environment("CUDA_DEVICE_MAX_CONNECTIONS");
    printf(
        "CUDA_DEVICE_MAX_CONNECTIONS %s: streams that wait before work on one more waits too: %d, "
        "of the highest priority %d (%d: more than were tried)\n",
        connections ? connections : "not set", apart[0], apart[1], STREAMS);
    for (int i = 0; i < CALLS; i++) {
        back[i] = comes_back(p, calls[i].call, &a[i]);
        printf("%-24s behind a waiting stream: %s after %.2f ms%s%s\n", calls[i].name,
               back[i] ? "returns" : "BLOCKS, returned", a[i].ms,
               a[i].err == cudaSuccess ? "" : ": ",
               a[i].err == cudaSuccess ? "" : cudaGetErrorString(a[i].err));
    }
    alarm(0);
    give_back(p);
    if (!json) return 0;
    FILE *file = fopen(json, "we");
    cinch_json j = {0};
    if (!file) {
        fprintf(stderr, "gpu_probe: %s cannot be written\n", json);
        return 1;
    }
    cinch_json_begin(&j, file);
    cinch_json_text(&j, "connections", connections);
    cinch_json_count(&j, "streams_apart", (uint64_t)apart[0]);
    cinch_json_count(&j, "streams_apart_highest", (uint64_t)apart[1]);
    cinch_json_open(&j, "calls", '[');
    for (int i = 0; i < CALLS; i++) {
        cinch_json_open(&j, NULL, '{');
        cinch_json_text(&j, "call", calls[i].name);
        cinch_json_bool(&j, "blocks", !back[i]);
        cinch_json_number(&j, "ms", a[i].ms);
        cinch_json_text(&j, "error", a[i].err == cudaSuccess ? NULL : cudaGetErrorString(a[i].err));
        cinch_json_close(&j, '}');
    }
    cinch_json_close(&j, ']');
    bool written = cinch_json_end(&j);
    return fclose(file) == 0 && written ? 0 : 1;
}

static int look_only(void) {
    void *memory;
    must(cudaMalloc(&memory, BYTES), "memory");
    must(cudaFree(memory), "memory");
    return 0;
}

int main(int argc, char **argv) {
    const char *json = NULL;
    static const struct option known[] = {{"json", required_argument, NULL, 'j'},
                                          {NULL, 0, NULL, 0}};
    int which, devices, from[2], hold[2];
    bool look = false;
    while ((which = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (which == 'j') json = optarg;
        if (which == 'l') look = true;
        if (which == '?') optind = argc + 1;
    }
    if (optind != argc) {
        fprintf(stderr, "usage: gpu_probe [--json FILE] [--look]\n"
                        "--look: only whether the GPU gives memory\n");
        return 2;
    }
    if (look) return look_only();
    static probe p;
    pid_t neighbour = start_neighbour(from, hold);
    if (neighbour < 0) return 1;
    if (!cinch_perf_gpu_there(&devices)) {
        printf("gpu_probe: there is no GPU: %s\n", cinch_last_error());
        return 77;
    }
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *at = NULL;
    if (driver) at = dlsym(driver, "cuStreamWaitValue32_v2");
    memcpy(&p.wait_value, &at, sizeof at);
    p.foreign = read(from[0], &p.handle, sizeof p.handle) == (ssize_t)sizeof p.handle;
    if (!at) {
        printf("gpu_probe: the driver has no cuStreamWaitValue32_v2\n");
        return 77;
    }
    int status = run(&p, json);
    close(hold[1]);
    waitpid(neighbour, NULL, 0);
    return status;
}
