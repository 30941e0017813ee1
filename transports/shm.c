/* SPDX-License-Identifier: Apache-2.0 */
/* The shared memory of one host's ranks: each makes a region, all map each other's, and what they
 * could map decides which links and windows there are, alike on all of them. */
#include "transports/shm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "transports/region.h"

/* What every rank tells all others before memory changes hands. */
typedef struct offer {
    uint64_t proof; /* the random number in the region's header; 0: there is no region */
    uint64_t stage_bytes;
    uint64_t heap_bytes; /* 0: no heap */
} offer;

enum { MAPPED_REGION = 1, MAPPED_HEAP = 2 };

/* One rank's state while the transport opens. */
typedef struct opening {
    cinch_rendezvous *rendezvous;
    const cinch_net_options *options;
    const uint8_t *want;
    int rank, nranks;
    int region_fd;
    offer *offers;           /* [nranks] */
    uint8_t *share;          /* [nranks]: wanted, and both sides have a region */
    int *fds;                /* [nranks] */
    uint8_t *mapped;         /* [nranks]: what we mapped of each rank, ourselves included */
    uint8_t *matrix;         /* [nranks][nranks]: all ranks' `mapped` */
    cinch_mapping **regions; /* [nranks] */
    cinch_mapping **heaps;   /* [nranks]; NULL where a rank has our own process's heap */
} opening;

/* The windows, and what keeps them mapped. */
typedef struct windows {
    cinch_shm shm; /* first */
    int nranks;
    cinch_mapping **regions, **heaps; /* [nranks] each */
} windows;

static const char *shm_unusable(void) {
    int fd = cinch_memfd_create("cinch-probe", 4096);
    if (fd < 0) return "the system does not make sealed memory files";
    close(fd);
    return NULL;
}

static cinchResult_t allocate(opening *o) {
    size_t n = (size_t)o->nranks;
    o->offers = calloc(n, sizeof *o->offers);
    o->share = calloc(n, 1);
    o->fds = calloc(n, sizeof *o->fds);
    o->mapped = calloc(n, 1);
    o->matrix = calloc(n, n);
    o->regions = calloc(n, sizeof *o->regions);
    o->heaps = calloc(n, sizeof *o->heaps);
    o->region_fd = -1;
    for (size_t i = 0; o->fds && i < n; i++) o->fds[i] = -1;
    if (!o->offers || !o->share || !o->fds || !o->mapped || !o->matrix || !o->regions || !o->heaps)
        return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting", o->rank);
    return cinchSuccess;
}

static void close_fds(opening *o) {
    for (int i = 0; o->fds && i < o->nranks; i++) {
        if (o->fds[i] >= 0) close(o->fds[i]);
        o->fds[i] = -1;
    }
}

static void release(opening *o) {
    close_fds(o);
    if (o->region_fd >= 0) close(o->region_fd);
    for (int i = 0; i < o->nranks; i++) {
        if (o->regions) cinch_mapping_drop(o->regions[i]);
        if (o->heaps) cinch_mapping_drop(o->heaps[i]);
    }
    free(o->offers);
    free(o->share);
    free(o->fds);
    free(o->mapped);
    free(o->matrix);
    free(o->regions);
    free(o->heaps);
}

/* Makes our region. A rank that cannot still takes part, and has nothing to offer. */
static void make_region(opening *o, offer *mine) {
    uint64_t proof = 0;
    size_t bytes = cinch_region_bytes(o->options->stage_bytes, o->nranks);
    if (cinch_random(&proof, sizeof proof) != cinchSuccess || proof == 0) return;
    o->region_fd = cinch_memfd_create("cinch-region", bytes);
    cinch_mapping *region = o->region_fd < 0 ? NULL : cinch_mapping_open(o->region_fd, bytes);
    if (!region) {
        cinch_info("no shared memory for rank %d: %s", o->rank, strerror(errno));
        return;
    }
    *(cinch_region_header *)(void *)region->data =
        (cinch_region_header){CINCH_REGION_MAGIC, proof, bytes};
    o->regions[o->rank] = region;
    o->mapped[o->rank] = MAPPED_REGION;
    mine->proof = proof;
    if (o->options->heap && o->options->heap_fd >= 0) {
        o->mapped[o->rank] |= MAPPED_HEAP;
        mine->heap_bytes = o->options->heap_bytes;
    }
}

static cinchResult_t exchange_offers(opening *o) {
    offer mine = {0, o->options->stage_bytes, 0};
    for (int r = 0; r < o->nranks; r++)
        if (o->want[r] && o->regions[o->rank] == NULL) make_region(o, &mine);
    CINCH_TRY(cinch_rendezvous_allgather(o->rendezvous, &mine, sizeof mine, o->offers));
    for (int r = 0; r < o->nranks; r++) {
        if (o->offers[r].stage_bytes != o->offers[0].stage_bytes)
            return cinch_fail(cinchInvalidUsage,
                              "rank 0 has a stage of %llu bytes, rank %d one of %llu",
                              (unsigned long long)o->offers[0].stage_bytes, r,
                              (unsigned long long)o->offers[r].stage_bytes);
        o->share[r] = o->want[r] && mine.proof && o->offers[r].proof;
    }
    return cinchSuccess;
}

static void map_region(opening *o, int r) {
    size_t bytes = cinch_region_bytes(o->options->stage_bytes, o->nranks);
    if (o->fds[r] < 0 || !cinch_memfd_holds(o->fds[r], bytes)) return;
    cinch_mapping *region = cinch_mapping_open(o->fds[r], bytes);
    if (!region) return;
    const cinch_region_header *header = (const void *)region->data;
    if (header->magic == CINCH_REGION_MAGIC && header->proof == o->offers[r].proof &&
        header->bytes == bytes) {
        o->regions[r] = region;
        o->mapped[r] |= MAPPED_REGION;
    } else {
        cinch_mapping_drop(region);
    }
}

static bool same_file(int a, int b) {
    struct stat one, other;
    return fstat(a, &one) == 0 && fstat(b, &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

/* Ranks of this process have its heap mapped already, and should see it where it is. */
static void map_heap(opening *o, int r) {
    size_t bytes = o->offers[r].heap_bytes;
    if (o->fds[r] < 0 || bytes == 0) return;
    if (o->options->heap && o->options->heap_fd >= 0 && same_file(o->fds[r], o->options->heap_fd)) {
        o->mapped[r] |= MAPPED_HEAP;
    } else if (cinch_memfd_holds(o->fds[r], bytes)) {
        o->heaps[r] = cinch_mapping_open(o->fds[r], bytes);
        if (o->heaps[r]) o->mapped[r] |= MAPPED_HEAP;
    }
}

static cinchResult_t exchange_memory(opening *o) {
    CINCH_TRY(cinch_rendezvous_share_fd(o->rendezvous, o->share, o->region_fd, o->fds));
    bool heaps = false;
    for (int r = 0; r < o->nranks; r++) {
        heaps |= o->offers[r].heap_bytes != 0;
        if (o->share[r]) map_region(o, r);
    }
    close_fds(o);
    if (heaps) {
        /* A rank without a heap hands out something that nobody will map. */
        int fd = o->offers[o->rank].heap_bytes ? o->options->heap_fd : o->region_fd;
        CINCH_TRY(cinch_rendezvous_share_fd(o->rendezvous, o->share, fd, o->fds));
        for (int r = 0; r < o->nranks; r++)
            if (o->share[r]) map_heap(o, r);
        close_fds(o);
    }
    return cinch_rendezvous_allgather(o->rendezvous, o->mapped, (size_t)o->nranks, o->matrix);
}

/* Whether a has mapped `what` of b. */
static bool has_mapped(const opening *o, int a, int b, uint8_t what) {
    return o->matrix[(size_t)a * (size_t)o->nranks + (size_t)b] & what;
}

static cinchResult_t open_links(const opening *o, cinch_net *net) {
    for (int r = 0; r < o->nranks; r++) {
        if (!o->want[r]) continue;
        if (!has_mapped(o, o->rank, r, MAPPED_REGION) ||
            !has_mapped(o, r, o->rank, MAPPED_REGION)) {
            cinch_info("ranks %d and %d are on one host but cannot share memory", o->rank, r);
            continue;
        }
        size_t stage = o->options->stage_bytes;
        net->link[r] =
            cinch_shm_link_new(o->rank, r, o->options->checksum, o->regions[o->rank],
                               cinch_region_channel(o->regions[o->rank], stage, r), o->regions[r],
                               cinch_region_channel(o->regions[r], stage, o->rank));
        if (!net->link[r])
            return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting",
                              o->rank);
    }
    return cinchSuccess;
}

static bool in_group(const opening *o, int r) {
    return r == o->rank || o->want[r];
}

/* Whether everybody on this host has mapped it of r. All of the host come to the same answer. */
static bool all_mapped(const opening *o, int r, uint8_t what) {
    for (int a = 0; a < o->nranks; a++)
        if (in_group(o, a) && !has_mapped(o, a, r, what)) return false;
    return true;
}

static void fill_window(const opening *o, windows *w, int r) {
    cinch_mapping *region = o->regions[r];
    w->regions[r] = cinch_mapping_keep(region);
    w->shm.window[r].flag = (cinch_flag *)(void *)(region->data + CINCH_REGION_FLAGS);
    w->shm.window[r].stage = region->data + CINCH_REGION_STAGE;
    if (!all_mapped(o, r, MAPPED_HEAP)) return;
    if (o->heaps[r]) w->heaps[r] = cinch_mapping_keep(o->heaps[r]);
    w->shm.window[r].heap = o->heaps[r] ? o->heaps[r]->data : o->options->heap;
    w->shm.window[r].heap_bytes = o->offers[r].heap_bytes;
}

/* Windows are for algorithms over all ranks of a host, so there are all of them or none. */
static cinchResult_t open_windows(const opening *o, cinch_net *net) {
    int size = 0;
    for (int r = 0; r < o->nranks; r++) {
        if (!in_group(o, r)) continue;
        if (!all_mapped(o, r, MAPPED_REGION)) return cinchSuccess;
        size++;
    }
    if (size < 2) return cinchSuccess;
    size_t n = (size_t)o->nranks;
    windows *w = calloc(1, sizeof *w);
    if (w) {
        *w = (windows){{o->options->stage_bytes, calloc(n, sizeof(cinch_window))},
                       o->nranks,
                       calloc(n, sizeof(cinch_mapping *)),
                       calloc(n, sizeof(cinch_mapping *))};
        net->shm = &w->shm;
    }
    if (!w || !w->shm.window || !w->regions || !w->heaps)
        return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting", o->rank);
    for (int r = 0; r < o->nranks; r++)
        if (in_group(o, r)) fill_window(o, w, r);
    return cinchSuccess;
}

void cinch_shm_close(cinch_shm *shm) {
    if (!shm) return;
    windows *w = (windows *)shm;
    for (int r = 0; r < w->nranks; r++) {
        if (w->regions) cinch_mapping_drop(w->regions[r]);
        if (w->heaps) cinch_mapping_drop(w->heaps[r]);
    }
    free(w->shm.window);
    free(w->regions);
    free(w->heaps);
    free(w);
}

static cinchResult_t shm_open_links(const cinch_opening *job) {
    cinch_net *net = job->net;
    opening o = {.rendezvous = job->rendezvous,
                 .options = job->options,
                 .want = job->want,
                 .rank = job->rank,
                 .nranks = job->nranks};
    cinchResult_t result = allocate(&o);
    if (result == cinchSuccess) result = exchange_offers(&o);
    if (result == cinchSuccess) result = exchange_memory(&o);
    if (result == cinchSuccess) result = open_links(&o, net);
    if (result == cinchSuccess) result = open_windows(&o, net);
    release(&o);
    return result;
}

const cinch_transport cinch_transport_shm = {"shm", shm_unusable, shm_open_links};
