/* SPDX-License-Identifier: Apache-2.0 */
/* A program that needs libnccl.so.2 and calls it: caller CASE. It prints what it got. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/nccl/few.h"

static ncclComm_t comm_at(uintptr_t address) {
    return (ncclComm_t)address;
}

static void *at(uintptr_t address) {
    return (void *)address;
}

/* A name that the imitation lacks, so that it cannot be linked. */
static void *lacking(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (found) return found;
    printf("%s: nowhere\n", name);
    exit(1);
}

static void version(void) {
    int number = -1;
    int code = ncclGetVersion(&number);
    printf("version: %d %d\n", code, number);
    printf("error string: %s\n", ncclGetErrorString(5));
    printf("last error: %s\n", ncclGetLastError(NULL));
}

static void registers(void) {
    ncclUniqueId id;
    for (int i = 0; i < 128; i++) id.internal[i] = (char)(3 * i + 1);
    double got = ncclSignal(1, 2, 3, 4, 5, 6, .5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, id, 7, 8.5);
    printf("%g\n", got);
}

static void variadic(void) {
    char text[64];
    int length = ncclPutSignal(text, sizeof text, "%d %g %g %s", 1, 2.5, 3.5, "four");
    printf("%d: %s\n", length, text);
}

static void init(void) {
    ncclUniqueId id;
    ncclComm_t comm = NULL;
    for (int i = 0; i < 128; i++) id.internal[i] = (char)(3 * i + 1);
    int first = ncclCommInitRank(&comm, 7, id, 5);
    printf("%d, comm %p\n", first, (void *)comm);
    memset(&id, 0, sizeof id);
    ncclGetUniqueId(&id);
    ncclCommInitRank(&comm, 2, id, 1);
}

static void group(void) {
    int sum = ncclGroupStart();
    sum += ncclAllReduce(at(16), at(32), (size_t)1 << 40, 7, 2, comm_at(0x1234), at(0x99));
    sum += ncclGroupStart();
    sum += pncclAllReduce(NULL, at(48), 3, 1, 4, comm_at(0x5678), NULL);
    sum += ncclGroupEnd() + ncclGroupEnd();
    printf("%d\n", sum);
}

static void async(void) {
    int code = 0, got = ncclCommGetAsyncError(comm_at(0x1234), &code);
    printf("%d, state %d\n", got, code);
}

static void missing(void) {
    int (*shrink)(void) = NULL, (*twin)(void) = NULL, (*to_lsa)(void) = NULL, (*slots)(void) = NULL;
    ncclTeam_t (*rail)(ncclComm_t) = NULL;
    void (*dump)(void) = NULL;
    *(void **)&shrink = lacking("ncclCommShrink");
    *(void **)&twin = lacking("pncclCommShrink");
    *(void **)&rail = lacking("ncclTeamRail");
    *(void **)&to_lsa = lacking("ncclTeamRankToLsa");
    *(void **)&slots = lacking("ncclLLA2ACalcSlots");
    *(void **)&dump = lacking("ncclParamDumpAll");
    printf("shrink: %d\n", shrink());
    printf("last error: %s\n", ncclGetLastError(NULL));
    printf("all-reduce: %d\n", ncclAllReduce(NULL, NULL, 13, 0, 0, NULL, NULL));
    printf("last error: %s\n", ncclGetLastError(NULL));
    printf("shrink: %d\n", twin());
    printf("last error: %s\n", ncclGetLastError(NULL));
    ncclAllReduce(NULL, NULL, 17, 0, 0, NULL, NULL);
    printf("last error: %s\n", ncclGetLastError(NULL));
    ncclAllReduce(NULL, NULL, 13, 0, 0, NULL, NULL);
    printf("last error: %s\n", ncclGetLastError(NULL));
    ncclTeam_t team = rail(NULL);
    printf("team: %d %d %d, rank %d, slots %d\n", team.nRanks, team.rank, team.stride, to_lsa(),
           slots());
    dump();
}

static void team(void) {
    ncclTeam_t world = ncclTeamWorld(NULL);
    printf("team: %d %d %d\n", world.nRanks, world.rank, world.stride);
    printf("rank: %d\n", ncclTeamRankToWorld(NULL, world, 7));
    ncclResetDebugInit();
}

static void itself(void) {
    ncclBcast(NULL, 0, 0, 0, NULL, NULL);
}

enum { THREADS = 16 };
static pthread_barrier_t start;

/* Every thread makes its first call when all others do. */
static void *thread(void *arg) {
    intptr_t wrong = 0, i = (intptr_t)arg;
    int number = 0;
    pthread_barrier_wait(&start);
    switch (i % 4) {
    case 0:
        wrong = ncclGetVersion(&number) != 0;
        break;
    case 1:
        wrong = !ncclGetErrorString(4);
        break;
    case 2:
        wrong = !ncclGetLastError(NULL);
        break;
    default:
        wrong = ncclGroupStart() != 0 || ncclGroupEnd() != 0;
    }
    return (void *)(wrong || ncclGetVersion(&number) != 0 || number < 20000 ? (intptr_t)1 : 0);
}

static void threads(void) {
    pthread_t id[THREADS];
    int wrong = 0;
    pthread_barrier_init(&start, NULL, THREADS);
    for (intptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&id[i], NULL, thread, (void *)i) != 0) exit(1);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(id[i], &result);
        wrong += result != NULL;
    }
    pthread_barrier_destroy(&start);
    printf("wrong: %d\n", wrong);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"version", version}, {"registers", registers}, {"variadic", variadic},
                 {"init", init},       {"group", group},         {"async", async},
                 {"missing", missing}, {"team", team},           {"itself", itself},
                 {"threads", threads}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (argc == 2 && strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            return 0;
        }
    return 2;
}
