/* SPDX-License-Identifier: Apache-2.0 */
/* An imitation of libnccl.so.2 that writes down how it was called. VERSION is its release. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/nccl/few.h"

#pragma GCC visibility push(default)

static char last_error[256];

/* A call that is made while the library is being loaded. */
static int born = -1;
__attribute__((constructor)) static void call_early(void) {
    int version;
    born = ncclGetVersion(&version);
}

int ncclGetVersion(int *version) {
    *version = VERSION;
    return 0;
}

int ncclGetUniqueId(ncclUniqueId *id) {
    for (int i = 0; i < 128; i++) id->internal[i] = (char)(3 * i + 1);
    return 0;
}

static int is_whole(const ncclUniqueId *id) {
    ncclUniqueId want;
    ncclGetUniqueId(&want);
    return memcmp(id, &want, sizeof want) == 0;
}

int ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId id, int rank) {
    printf("fake: init %d of %d, id %s\n", rank, nranks, is_whole(&id) ? "whole" : "damaged");
    *comm = (ncclComm_t)(uintptr_t)0x1234;
    return 0;
}

int ncclCommGetAsyncError(ncclComm_t comm, int *code) {
    printf("fake: state of %p\n", (void *)comm);
    *code = 6;
    return 0;
}

static int all_reduce(const char *name, const void *send, const void *recv, size_t count, int dtype,
                      int op, ncclComm_t comm, const void *stream) {
    printf("fake: %s %p %p %zu %d %d %p %p\n", name, send, recv, count, dtype, op, (void *)comm,
           stream);
    if (count != 13 && count != 17) return 0;
    snprintf(last_error, sizeof last_error, "fake: %zu brings bad luck", count);
    return 4;
}

int ncclAllReduce(const void *send, void *recv, size_t count, int dtype, int op, ncclComm_t comm,
                  void *stream) {
    return all_reduce("all-reduce", send, recv, count, dtype, op, comm, stream);
}

int pncclAllReduce(const void *send, void *recv, size_t count, int dtype, int op, ncclComm_t comm,
                   void *stream) {
    return all_reduce("p all-reduce", send, recv, count, dtype, op, comm, stream);
}

int ncclGroupStart(void) {
    puts("fake: {");
    return 0;
}

int ncclGroupEnd(void) {
    puts("fake: }");
    return 0;
}

/* Says whose function it would call by its own name. */
int ncclBcast(void *buff, size_t count, int dtype, int root, ncclComm_t comm, void *stream) {
    (void)buff, (void)count, (void)dtype, (void)root, (void)comm, (void)stream;
    Dl_info me, other;
    dladdr(last_error, &me);
    dladdr((void *)(uintptr_t)ncclGetVersion, &other);
    char *text = strdup(me.dli_fbase == other.dli_fbase ? "itself" : "another library");
    printf("fake: calls %s, and got %d when it was loaded\n", text ? text : "nobody", born);
    free(text); /* by whom it was allocated */
    return 0;
}

const char *ncclGetErrorString(int code) {
    (void)code;
    return "fake: an error";
}

const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return last_error;
}

void ncclResetDebugInit(void) {
    puts("fake: reset");
}

ncclTeam_t ncclTeamWorld(ncclComm_t comm) {
    (void)comm;
    return (ncclTeam_t){8, 3, 1};
}

int ncclTeamRankToWorld(ncclComm_t comm, ncclTeam_t team, int rank) {
    (void)comm;
    return 1000 * team.nRanks + 100 * team.rank + 10 * team.stride + rank;
}

double ncclSignal(long a, long b, long c, long d, long e, long f, double s, double t, double u,
                  double v, double w, double x, double y, double z, ncclUniqueId id, long g,
                  double h) {
    printf("fake: %ld %ld %ld %ld %ld %ld %g %g %g %g %g %g %g %g %ld %g id %s\n", a, b, c, d, e, f,
           s, t, u, v, w, x, y, z, g, h, is_whole(&id) ? "whole" : "damaged");
    return 0.5;
}

int ncclPutSignal(char *text, size_t room, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, room, format, args);
    va_end(args);
    return length;
}
