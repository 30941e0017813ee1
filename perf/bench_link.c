/* SPDX-License-Identifier: Apache-2.0 */
/* Latency and bandwidth of one link between two processes: bench_link [TRANSPORT...]. With
 * CINCH_RANK=0 or 1 and CINCH_COMM_ID set it is one of the two, perhaps on another host. Half a
 * round trip, and bytes per second of a stream of messages one way and both ways: the median of
 * batches, and the best, which other programs disturb least. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "transports/transport.h"

enum { BATCHES = 41, STREAM = 8 << 20, WINDOW = 4, SPINS_BEFORE_YIELD = 2000 };

typedef struct bench {
    cinch_link *link;
    int rank;
    char *out, *in;
} bench;

static void wait_for(bench *b, cinch_msg *msg) {
    for (int spins = 1; !msg->done; spins++) {
        if (b->link->ops->progress(b->link) != cinchSuccess) exit(1);
        if (spins % SPINS_BEFORE_YIELD == 0) sched_yield();
    }
}

static void send_one(bench *b, size_t bytes) {
    cinch_msg msg = {.data = b->out, .bytes = bytes};
    b->link->ops->send(b->link, &msg);
    wait_for(b, &msg);
}

static void recv_one(bench *b, size_t bytes) {
    cinch_msg msg = {.data = b->in, .bytes = bytes};
    b->link->ops->recv(b->link, &msg);
    wait_for(b, &msg);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct result {
    double median, least;
} result;

static result summarize(double *times) {
    qsort(times, BATCHES, sizeof *times, ascending);
    return (result){times[BATCHES / 2], times[0]};
}

/* Microseconds of half a round trip. */
static result latency(bench *b, size_t bytes) {
    double times[BATCHES];
    int trips = bytes <= 4096 ? 400 : 40;
    for (int i = 0; i < BATCHES; i++) {
        uint64_t start = cinch_now_ns();
        for (int k = 0; k < trips; k++) {
            if (b->rank == 0) send_one(b, bytes);
            recv_one(b, bytes);
            if (b->rank == 1) send_one(b, bytes);
        }
        times[i] = (double)(cinch_now_ns() - start) / 2e3 / trips;
    }
    return summarize(times);
}

/* Nanoseconds per byte of each direction that carries. */
static result bandwidth(bench *b, size_t bytes, bool both) {
    double times[BATCHES];
    int count = (int)(STREAM / bytes);
    bool sends = b->rank == 0 || both, recvs = b->rank == 1 || both;
    cinch_msg out[WINDOW], in[WINDOW];
    for (int i = 0; i < BATCHES; i++) {
        uint64_t start = cinch_now_ns();
        for (int k = 0; k < count + WINDOW; k++) {
            cinch_msg *o = &out[k % WINDOW], *n = &in[k % WINDOW];
            if (k >= WINDOW && recvs) wait_for(b, n);
            if (k >= WINDOW && sends) wait_for(b, o);
            if (k >= count) continue;
            *n = (cinch_msg){.data = b->in + (size_t)(k % WINDOW) * bytes, .bytes = bytes};
            *o = (cinch_msg){.data = b->out + (size_t)(k % WINDOW) * bytes, .bytes = bytes};
            if (recvs) b->link->ops->recv(b->link, n);
            if (sends) b->link->ops->send(b->link, o);
        }
        if (!both && b->rank == 0) recv_one(b, 1); /* the other has it all */
        if (!both && b->rank == 1) send_one(b, 1);
        times[i] = (double)(cinch_now_ns() - start) / ((double)bytes * count);
    }
    return summarize(times);
}

static void measure(bench *b, bool checksum) {
    static const size_t small[] = {0, 8, 32, 64, 256, 1024, 4096, 16384, 65536};
    static const size_t large[] = {4096, 65536, 262144, 1048576};
    if (b->rank == 0)
        printf("%s%s, half a round trip, us\n%10s %10s %10s\n", b->link->ops->name,
               checksum ? " with checksums" : "", "bytes", "median", "best");
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        result r = latency(b, small[i]);
        if (b->rank == 0) printf("%10zu %10.3f %10.3f\n", small[i], r.median, r.least);
    }
    if (b->rank == 0)
        printf("GB/s per direction\n%10s %10s %10s %10s %10s\n", "bytes", "one way", "best",
               "both ways", "best");
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        result one = bandwidth(b, large[i], false), both = bandwidth(b, large[i], true);
        if (b->rank == 0)
            printf("%10zu %10.3f %10.3f %10.3f %10.3f\n", large[i], 1 / one.median, 1 / one.least,
                   1 / both.median, 1 / both.least);
    }
    fflush(stdout);
}

/* Each process on a CPU of its own, where there are two. */
static void pin(int rank) {
    cpu_set_t allowed, mine;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && seen++ == rank) CPU_SET(cpu, &mine);
    sched_setaffinity(0, sizeof mine, &mine);
}

static int run(const cinch_settings *settings, const cinchUniqueId *id, int rank, bool checksum) {
    cinch_rendezvous *rendezvous;
    cinch_net *net;
    cinch_net_options options = {.stage_bytes = 4096, .checksum = checksum, .heap_fd = -1};
    if (cinch_rendezvous_join(settings, id, rank, 2, NULL, &rendezvous) != cinchSuccess) return 1;
    pin(rank);
    int status = 1;
    if (cinch_net_open(settings, rendezvous, rank, 2, &options, &net) == cinchSuccess) {
        size_t room = (size_t)WINDOW << 20;
        bench b = {net->link[1 - rank], rank, malloc(room), malloc(room)};
        if (b.out && b.in) {
            memset(b.out, 1, room);
            memset(b.in, 1, room);
            measure(&b, checksum);
            status = 0;
        }
        free(b.out);
        free(b.in);
        cinch_net_close(net);
    }
    cinch_rendezvous_leave(rendezvous);
    return status;
}

static int bench_one(cinch_settings *settings, const char *transport, bool checksum) {
    cinchUniqueId id;
    free(settings->transport);
    settings->transport = strdup(transport);
    if (!settings->transport || cinch_rendezvous_id(settings, &id) != cinchSuccess) return 1;
    if (settings->rank >= 0) return run(settings, &id, settings->rank != 0, checksum);
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) _exit(run(settings, &id, 1, checksum));
    int mine = run(settings, &id, 0, checksum), status = 0;
    waitpid(child, &status, 0);
    return mine || status;
}

int main(int argc, char **argv) {
    cpu_set_t allowed; /* pin is undone between transports */
    sched_getaffinity(0, sizeof allowed, &allowed);
    cinch_settings settings;
    char why[CINCH_ERROR_TEXT];
    if (!cinch_settings_load(&settings, why)) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    static const char *all[] = {"shm", "tcp"};
    int failed = 0;
    for (int i = 0; i < (argc > 1 ? argc - 1 : 2); i++) {
        failed |= bench_one(&settings, argc > 1 ? argv[i + 1] : all[i], settings.checksum);
        sched_setaffinity(0, sizeof allowed, &allowed);
    }
    cinch_settings_free(&settings);
    return failed;
}
