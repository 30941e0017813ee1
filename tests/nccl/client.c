/* SPDX-License-Identifier: Apache-2.0 */
/* A program for NCCL, on host memory: client RANKS. Every rank is a process, makes every kind of
 * call, and prints what came of it; the parent prints that in the order of the ranks. */
#include <nccl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 8, TEXT = 8192, COUNT = 5000, IDS = 4 };

typedef struct {
    ncclUniqueId id[IDS];
    _Atomic int ready;
    char text[MOST][TEXT];
} shared;

static shared *all;
static int rank, size;
static ncclComm_t comm;
static float *in, *out; /* COUNT elements of every rank */
static int32_t *whole_in, *whole_out;

static void say(const char *format, ...) {
    char *text = all->text[rank];
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, TEXT - used, format, args);
    va_end(args);
}

/* A small whole number, other on every rank and at every place. */
static int value(int of, size_t i) {
    return (int)((size_t)of * 31 + i * 7) % 97 + 1;
}

static void fill(void) {
    for (size_t i = 0; i < (size_t)size * COUNT; i++) {
        in[i] = (float)value(rank, i);
        whole_in[i] = value(rank, i);
        out[i] = -1;
        whole_out[i] = -1;
    }
}

static long sum_of(size_t i) {
    long sum = 0;
    for (int r = 0; r < size; r++) sum += value(r, i);
    return sum;
}

/* How many of the first `count` are not what `want` says; the code goes before. */
#define TELL(name, code, count, got, want)                                                         \
    do {                                                                                           \
        int code_ = (code), wrong_ = 0;                                                            \
        for (size_t i = 0; i < (size_t)(count); i++) wrong_ += (double)(got)[i] != (double)(want); \
        say("%s: %d, wrong %d\n", name, code_, wrong_);                                            \
        fill();                                                                                    \
    } while (0)

static void reductions(void) {
    size_t n = COUNT;
    fill();
    TELL("all-reduce", ncclAllReduce(in, out, n, ncclFloat, ncclSum, comm, NULL), n, out,
         sum_of(i));
    TELL("of one", ncclAllReduce(in, out, 1, ncclFloat32, ncclSum, comm, NULL), 1, out, sum_of(i));
    TELL("in place", ncclAllReduce(in, in, n, ncclFloat, ncclSum, comm, NULL), n, in, sum_of(i));
    say("average: %d", ncclAllReduce(in, out, n, ncclFloat, ncclAvg, comm, NULL));
    float average = (float)sum_of(9) / (float)size;
    say(" %d\n", out[9] > average * 0.99999f && out[9] < average * 1.00001f);
    fill();
    TELL("whole", ncclAllReduce(whole_in, whole_out, n, ncclInt32, ncclSum, comm, NULL), n,
         whole_out, sum_of(i));
    TELL("whole average", ncclAllReduce(whole_in, whole_out, n, ncclInt, ncclAvg, comm, NULL), n,
         whole_out, sum_of(i) / size);
    TELL("of none", ncclAllReduce(in, out, 0, ncclFloat, ncclSum, comm, NULL), 1, out, -1);
    TELL("reduce", ncclReduce(in, out, n, ncclFloat, ncclSum, size - 1, comm, NULL), n, out,
         rank == size - 1 ? sum_of(i) : -1);
    TELL("reduce-scatter", ncclReduceScatter(in, out, n, ncclFloat, ncclSum, comm, NULL), n, out,
         sum_of(i + (size_t)rank * n));
    float *mine = in + (size_t)rank * n;
    TELL("in place", ncclReduceScatter(in, mine, n, ncclFloat, ncclSum, comm, NULL), n, mine,
         sum_of(i + (size_t)rank * n));

    ncclRedOp_t op;
    float scale = (float)(rank + 1);
    int code = ncclRedOpCreatePreMulSum(&op, &scale, ncclFloat, ncclScalarHostImmediate, comm);
    code += ncclAllReduce(in, out, n, ncclFloat, op, comm, NULL);
    long scaled = 0;
    for (int r = 0; r < size; r++) scaled += (r + 1) * value(r, n - 1);
    say("scaled: %d %d\n", code + ncclRedOpDestroy(op, comm), out[n - 1] == (float)scaled);
}

static void movements(void) {
    size_t n = COUNT, me = (size_t)rank;
    fill();
    TELL("broadcast", ncclBroadcast(in, out, n, ncclFloat, 1 % size, comm, NULL), n, out,
         value(1 % size, i));
    TELL("bcast", ncclBcast(in, n, ncclFloat, 0, comm, NULL), n, in, value(0, i));
    TELL("all-gather", ncclAllGather(in, out, n, ncclFloat, comm, NULL), n * (size_t)size, out,
         value((int)(i / n), i % n));
    TELL("in place", ncclAllGather(in + me * n, in, n, ncclFloat, comm, NULL), n * (size_t)size, in,
         value((int)(i / n), i));
    TELL("all-to-all", ncclAlltoAll(in, out, n, ncclFloat, comm, NULL), n * (size_t)size, out,
         value((int)(i / n), i % n + me * n));
    TELL("gather", ncclGather(in, out, n, ncclFloat, 0, comm, NULL), n * (size_t)size, out,
         rank == 0 ? value((int)(i / n), i % n) : -1);
    TELL("scatter", ncclScatter(in, out, n, ncclFloat, 0, comm, NULL), n, out,
         value(0, i + me * n));

    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    int code = ncclGroupStart();
    code += ncclSend(in, n, ncclFloat, next, comm, NULL);
    code += ncclRecv(out, n, ncclFloat, before, comm, NULL);
    TELL("ring", code + ncclGroupEnd(), n, out, value(before, i));
}

static void groups(void) {
    size_t n = COUNT;
    fill();
    int code = ncclGroupStart();
    code += ncclAllReduce(in, out, n, ncclFloat, ncclSum, comm, NULL);
    code += ncclGroupStart();
    code += ncclAllReduce(whole_in, whole_out, n, ncclInt32, ncclMax, comm, NULL);
    code += ncclGroupEnd();
    int nothing_yet = out[0] == -1 && whole_out[0] == -1;
    code += ncclGroupEnd();
    int most = 0;
    for (int r = 0; r < size; r++) most = value(r, 3) > most ? value(r, 3) : most;
    say("group: %d %d %d %d\n", code, nothing_yet, out[3] == (float)sum_of(3),
        whole_out[3] == most);

    ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
    fill();
    code = ncclGroupStart();
    code += ncclAllReduce(in, out, n, ncclFloat, ncclSum, comm, NULL);
    code += ncclGroupSimulateEnd(&info);
    say("simulated: %d %d %d\n", code, out[0] == -1, info.estimatedTime > 0);
}

static void others(void) {
    ncclComm_t part = NULL, none = comm;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    int count = -1, place = -1, state = -1;
    config.commName = "half";
    int code = ncclCommSplit(comm, rank % 2, -rank, &part, &config);
    code += ncclCommCount(part, &count);
    code += ncclCommUserRank(part, &place);
    float one = 1, sum = 0;
    code += ncclAllReduce(&one, &sum, 1, ncclFloat, ncclSum, part, NULL);
    say("split: %d, rank %d of %d, sum %g\n", code, place, count, sum);
    say("destroyed: %d\n", ncclCommDestroy(part));
    code = ncclCommSplit(comm, rank == 0 ? NCCL_SPLIT_NOCOLOR : 0, rank, &none, NULL);
    say("split off: %d %d\n", code, none == NULL);
    if (none) say("aborted: %d\n", ncclCommAbort(none));

    if (rank != size - 1) {
        int out_of_it[] = {size - 1};
        code = ncclCommShrink(comm, out_of_it, 1, &part, NULL, NCCL_SHRINK_DEFAULT);
        code += ncclCommCount(part, &count);
        code += ncclAllReduce(&one, &sum, 1, ncclFloat, ncclSum, part, NULL);
        say("shrunk: %d to %d, sum %g\n", code, count, sum);
        say("destroyed: %d\n", ncclCommDestroy(part));
    }

    ncclConfig_t waits = NCCL_CONFIG_INITIALIZER;
    waits.blocking = 0;
    part = NULL;
    ncclCommInitRankConfig(&part, size, all->id[1], rank, &waits);
    do code = ncclCommGetAsyncError(part, (ncclResult_t *)&state);
    while (code == 0 && state == ncclInProgress && usleep(1000) == 0);
    say("without waiting: %d %d\n", code, state);
    ncclCommFinalize(part);
    do code = ncclCommGetAsyncError(part, (ncclResult_t *)&state);
    while (code == 0 && state == ncclInProgress && usleep(1000) == 0);
    say("finalized: %d %d, destroyed: %d\n", code, state, ncclCommDestroy(part));

    code = ncclCommInitRankScalable(&part, size, rank, 2, &all->id[2], NULL);
    say("of two ids: %d\n", code);
    code = ncclCommRevoke(part, NCCL_REVOKE_DEFAULT);
    int after = ncclAllReduce(&one, &sum, 1, ncclFloat, ncclSum, part, NULL);
    say("revoked: %d, then %d, destroyed: %d\n", code, after, ncclCommDestroy(part));
}

static void memory(void) {
    void *block = NULL, *handle = NULL;
    ncclWindow_t window = NULL;
    int code = ncclMemAlloc(&block, 65536);
    code += ncclCommRegister(comm, block, 65536, &handle);
    code += ncclCommWindowRegister(comm, block, 65536, &window, NCCL_WIN_COLL_SYMMETRIC);
    float *mine = block;
    for (int i = 0; i < 1000; i++) mine[i] = (float)value(rank, (size_t)i);
    code += ncclAllReduce(mine, mine, 1000, ncclFloat, ncclSum, comm, NULL);
    int right = mine[999] == (float)sum_of(999);
    code += ncclCommWindowDeregister(comm, window);
    code += ncclCommDeregister(comm, handle);
    say("memory: %d %d\n", code + ncclMemFree(block), right);
}

/* What is wrong gets its code and a sentence. */
static void mistakes(void) {
    int device = -1;
    struct {
        const char *name;
        int code;
    } tries[] = {
        {"no buffer", ncclAllReduce(NULL, out, 1, ncclFloat, ncclSum, comm, NULL)},
        {"no type", ncclAllReduce(in, out, 1, ncclNumTypes, ncclSum, comm, NULL)},
        {"no operator", ncclAllReduce(in, out, 1, ncclFloat, (ncclRedOp_t)77, comm, NULL)},
        {"no communicator", ncclAllReduce(in, out, 1, ncclFloat, ncclSum, NULL, NULL)},
        {"no such root", ncclBroadcast(in, out, 1, ncclFloat, size, comm, NULL)},
        {"no such peer", ncclSend(in, 1, ncclFloat, -1, comm, NULL)},
        {"no group", ncclGroupEnd()},
        {"no device", ncclCommCuDevice(comm, &device)},
        {"no such flag", ncclCommRevoke(comm, 99)},
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++)
        say("%s: %d (%s)\n", tries[i].name, tries[i].code,
            ncclGetErrorString((ncclResult_t)tries[i].code));
    say("the last: %s\n", ncclGetLastError(comm)[0] ? "said" : "unsaid");
}

/* Both ranks of a communicator in one thread. */
static void pair(void) {
    ncclComm_t both[2];
    int state = -1, code = ncclCommInitAll(both, 2, NULL);
    float one[2] = {1, 2}, sum[2] = {0, 0};
    code += ncclGroupStart();
    for (int i = 0; i < 2; i++)
        code += ncclAllReduce(&one[i], &sum[i], 1, ncclFloat, ncclSum, both[i], NULL);
    code += ncclGroupEnd();
    code += ncclCommGetAsyncError(both[0], (ncclResult_t *)&state);
    for (int i = 0; i < 2; i++) code += ncclCommDestroy(both[i]);
    say("pair: %d %d, sums %g %g\n", code, state, sum[0], sum[1]);
}

static int run_rank(void) {
    int version = 0, count = -1, place = -1;
    size_t bytes = (size_t)size * COUNT * sizeof *in;
    alarm(100);
    in = malloc(bytes), out = malloc(bytes);
    whole_in = malloc(bytes), whole_out = malloc(bytes);
    if (!in || !out || !whole_in || !whole_out) return 1;
    if (rank == 0) {
        for (int i = 0; i < IDS; i++)
            if (ncclGetUniqueId(&all->id[i]) != ncclSuccess) return 1;
        atomic_store(&all->ready, 1);
    }
    while (!atomic_load(&all->ready)) usleep(1000);
    int code = ncclGetVersion(&version);
    say("version: %d %d\n", code, version >= 22800);
    code = ncclCommInitRank(&comm, size, all->id[0], rank);
    say("init: %d %s\n", code, code ? ncclGetLastError(NULL) : "");
    if (code) return 1;
    ncclCommCount(comm, &count);
    ncclCommUserRank(comm, &place);
    say("rank %d of %d\n", place, count);
    reductions();
    movements();
    groups();
    memory();
    others();
    mistakes();
    if (rank == 0) pair();
    code = ncclCommFinalize(comm);
    say("finalized: %d, destroyed: %d\n", code, ncclCommDestroy(comm));
    free(in), free(out), free(whole_in), free(whole_out);
    return 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    size = argc > 1 ? atoi(argv[1]) : 2;
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || size < 2 || size > MOST) return 2;
    for (rank = 0; rank < size; rank++) {
        pid_t pid = fork();
        if (pid < 0) return 2;
        if (pid == 0) {
            int status = run_rank();
            exit(status);
        }
    }
    for (int status = 0; wait(&status) > 0;) failed += status != 0;
    for (int r = 0; r < size; r++) printf("-- rank %d\n%s", r, all->text[r]);
    printf("failed: %d\n", failed);
    munmap(all, sizeof *all);
    return failed != 0;
}
