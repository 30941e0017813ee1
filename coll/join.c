/* SPDX-License-Identifier: Apache-2.0 */
/* How a rank joins the others, and what they then agree on. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/hash.h"
#include "base/log.h"
#include "coll/comm.h"
#include "coll/engine.h"
#include "coll/gpu_peer.h"
#include "coll/inforce.h"
#include "coll/nccl/inner.h"
#include "coll/report.h"
#include "coll/watch.h"
#include "transports/monitor.h"

/* What a rank sees of the others' memory; the least that any rank sees is what is used. */
typedef struct view {
    cpu_set_t cpus;                                      /* on which it may run */
    uint8_t windows, heaps, asked, nccl, homed, without; /* without: it finds no NCCL */
    uint8_t home[CINCH_DEVICE_ID];                       /* the GPU, where homed */
    uint64_t card;                                       /* see cinch_gpu_peers_offer */
    uint16_t first;                                      /* the first rank of its host */
    uint64_t site;                                       /* a hash of CINCH_SITEID */
    char site_name[48];                                  /* as much of it as goes into a sentence */
    uint8_t address[CINCH_ADDRESS_BYTES];                /* where it can be met if all else fails */
    cinch_process process;
} view;

/* Where all ranks share a host its unix sockets do. CINCH_HOSTID may say so of ranks that do not
 * reach each other by them. */
static bool meets_by_address(const struct cinchComm *comm) {
    bool one_host = true;
    for (int q = 0; q < comm->nranks; q++) one_host &= comm->net->local[q] != 0;
    return !one_host || comm->settings.hostid[0];
}

/* Hosts are numbered by their first ranks. */
static cinchResult_t number_hosts(struct cinchComm *comm, const view *all) {
    int n = comm->nranks;
    comm->hosts = 0;
    comm->host = calloc((size_t)n, sizeof *comm->host);
    int *here = calloc((size_t)n, sizeof *here);
    if (!comm->host || !here) {
        free(here);
        return cinch_fail(cinchSystemError, "out of memory for %d ranks", n);
    }
    for (int q = 0; q < n; q++) { /* a first rank comes before the others of its host */
        int first = all[q].first < q ? all[q].first : q;
        comm->host[q] = first == q ? (uint16_t)comm->hosts++ : comm->host[first];
        here[comm->host[q]]++;
    }
    comm->per_host = here[0];
    for (int h = 1; h < comm->hosts; h++)
        if (here[h] != here[0]) comm->per_host = 0;
    free(here);
    return cinchSuccess;
}

/* A host is at one site. */
static cinchResult_t check_sites(const struct cinchComm *comm, const view *all) {
    for (int q = 0; q < comm->nranks; q++) {
        const view *mine = &all[q], *first = &all[mine->first];
        if (mine->first > q || mine->site == first->site) continue;
        return cinch_fail(cinchInvalidUsage,
                          "ranks %d and %d share a host, and name two sites: CINCH_SITEID=%s and "
                          "%s; the ranks of a host name the same",
                          mine->first, q, first->site_name, mine->site_name);
    }
    return cinchSuccess;
}

/* Sites are numbered by their first hosts, as those are by their first ranks. */
static cinchResult_t number_sites(struct cinchComm *comm, const view *all) {
    comm->sites = 0;
    comm->site = calloc((size_t)comm->hosts, sizeof *comm->site);
    uint64_t *named = calloc((size_t)comm->hosts, sizeof *named);
    if (!comm->site || !named) {
        free(named);
        return cinch_fail(cinchSystemError, "out of memory for %d hosts", comm->hosts);
    }
    for (int q = 0, h = 0; q < comm->nranks; q++) {
        if (comm->host[q] != h) continue; /* no first rank of a host */
        int s = 0;
        while (s < comm->sites && named[s] != all[q].site) s++;
        if (s == comm->sites) named[comm->sites++] = all[q].site;
        comm->site[h++] = (uint16_t)s;
    }
    free(named);
    return cinchSuccess;
}

/* What keeps calls on device memory from NCCL and is known by now, so that the ranks need not meet
 * for it at the first of them. */
static void join_homes(struct cinchComm *comm, const view *all) {
    for (int q = 0; q < comm->nranks && comm->may_nccl; q++) {
        if (all[q].without && comm->rank == 0)
            cinch_info("device memory does not go by NCCL: rank %d finds none (`cinch info` there "
                       "says where it looks)",
                       q);
        comm->may_nccl = !all[q].without;
        for (int p = 0; p < q && all[q].homed && comm->may_nccl; p++) {
            if (!all[p].homed || memcmp(all[p].home, all[q].home, sizeof all[q].home) != 0)
                continue;
            comm->may_nccl = false;
            if (comm->rank == 0)
                cinch_info("device memory does not go by NCCL: ranks %d and %d are on one GPU", p,
                           q);
        }
    }
}

/* asked: by any rank, for the machine's graph. */
static cinchResult_t join_views(struct cinchComm *comm, const view *all, bool *asked) {
    cpu_set_t cpus; /* of all ranks on this host together: each may be bound to one */
    int here = 0;
    CPU_ZERO(&cpus);
    comm->one_host = comm->all_local = comm->heaps = comm->may_nccl = true;
    for (int q = 0; q < comm->nranks; q++) {
        comm->all_local &= all[q].windows;
        comm->heaps &= all[q].heaps;
        comm->may_nccl &= all[q].nccl;
        comm->one_host &= comm->net->local[q] != 0;
        *asked |= all[q].asked;
        if (!comm->net->local[q]) continue;
        CPU_OR(&cpus, &cpus, &all[q].cpus);
        here++;
    }
    join_homes(comm, all);
    for (int q = 0; q < comm->nranks; q++) cinch_gpu_peers_meet(comm, q, all[q].card);
    CINCH_TRY(check_sites(comm, all));
    if (!comm->one_host) CINCH_TRY(number_hosts(comm, all));
    if (!comm->one_host) CINCH_TRY(number_sites(comm, all));
    comm->heaps &= comm->all_local;
    comm->crowded = here > CPU_COUNT(&cpus);
    for (int q = 0; q < comm->nranks && meets_by_address(comm); q++)
        CINCH_TRY(cinch_rendezvous_met_at(comm->meeting, q, all[q].address));
    return cinchSuccess;
}

/* Whose number is of this host's: a process may end while a child of it keeps its connections. */
static void watch_neighbours(const struct cinchComm *comm, const view *all) {
    cinch_process *here = malloc((size_t)comm->nranks * sizeof *here);
    for (int q = 0; here && q < comm->nranks; q++)
        here[q] = comm->net->local[q] ? all[q].process : (cinch_process){0};
    if (here) cinch_monitor_processes(comm->meeting, here, comm->nranks);
    free(here);
}

static cinchResult_t agree_on_views(struct cinchComm *comm) {
    bool asked = false;
    view mine = {.windows = comm->net->shm != NULL,
                 .heaps = comm->net->shm != NULL,
                 .asked = cinch_atlas_asked(comm),
                 .nccl = cinch_inner_possible(comm),
                 .homed = comm->homed,
                 .without = cinch_inner_without(comm),
                 .process = cinch_process_self()};
    memcpy(mine.home, comm->home, sizeof mine.home);
    if (sched_getaffinity(0, sizeof mine.cpus, &mine.cpus) != 0)
        memset(&mine.cpus, 0xff, sizeof mine.cpus);
    while (!comm->net->local[mine.first]) mine.first++;
    mine.site = cinch_hash(comm->settings.siteid, strlen(comm->settings.siteid));
    snprintf(mine.site_name, sizeof mine.site_name, "%s", comm->settings.siteid);
    for (int q = 0; comm->net->shm && q < comm->nranks; q++) {
        mine.windows &= comm->net->shm->window[q].flag != NULL;
        mine.heaps &= comm->net->shm->window[q].heap != NULL;
    }
    if (meets_by_address(comm))
        CINCH_TRY(cinch_rendezvous_stand_by(comm->meeting, &comm->settings, mine.address));
    cinch_gpu_peers_offer(comm, &mine.card);
    view *all = malloc((size_t)comm->nranks * sizeof *all);
    if (!all) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    cinchResult_t result = cinch_rendezvous_allgather(comm->meeting, &mine, sizeof mine, all);
    if (result == cinchSuccess) result = join_views(comm, all, &asked);
    if (result == cinchSuccess) watch_neighbours(comm, all);
    free(all);
    if (result == cinchSuccess && asked) result = cinch_atlas_join(comm);
    return result;
}

static bool chooses_oneshot(const struct cinchComm *comm, size_t bytes) {
    const cinch_algo *algo;
    cinch_cut cut;
    cinch_call call = cinch_op_call(comm, CINCH_ALLREDUCE, 0, bytes);
    call.mapped = comm->heaps && !cinch_choice_knows(comm->choice, CINCH_ALLREDUCE, false);
    return cinch_op_choose(comm, &call, cinchFloat32, &algo, &cut) == cinchSuccess &&
           algo == &cinch_algo_oneshot && cut.rounds == 1;
}

/* Up to which size, of at most `most`, one-shot is chosen for all-reduce. */
static size_t find_oneshot(const struct cinchComm *comm, size_t most) {
    size_t below = 0, above = most / 64 + 1;
    if (cinch_choice_knows(comm->choice, CINCH_ALLREDUCE, false)) { /* class by class */
        size_t upto = 0;
        for (uint64_t at = 4; at <= most && chooses_oneshot(comm, at);) {
            at = cinch_choice_next(at);
            upto = at - 1 < most ? at - 1 : most;
        }
        return upto;
    }
    while (below + 1 < above) { /* by the guesses it is chosen up to some size, and not beyond */
        size_t middle = (below + above) / 2;
        if (chooses_oneshot(comm, middle * 64))
            below = middle;
        else
            above = middle;
    }
    return below * 64;
}

void cinch_comm_use_inside(struct cinchComm *comm, const cinch_codec *codec, bool automatic) {
    bool inside = comm->hosts > 1 && comm->nranks > comm->hosts && !automatic;
    comm->policy.inside = inside ? *codec : (cinch_codec){0};
}

cinchResult_t cinch_comm_use_codec(struct cinchComm *comm, const cinch_codec *codec,
                                   bool automatic) {
    comm->policy.codec = *codec;
    comm->policy.automatic = automatic;
    comm->oneshot_most = 0;
    cinch_choice_free(comm->choice);
    comm->choice = NULL;
    CINCH_TRY(cinch_choice_make(comm->tuned, codec, &comm->choice));
    /* The short way is one that waits, and that knows nothing of graphs. */
    if (comm->worker || comm->graphs) return cinchSuccess;
    const char *wanted = comm->policy.algo[CINCH_ALLREDUCE];
    bool possible = !wanted[0] || strcmp(wanted, cinch_algo_oneshot.name) == 0;
    if (!possible || !comm->all_local || comm->nranks > 64 || comm->nranks < 2) return cinchSuccess;
    size_t most = CINCH_SMALL_SLOT, min = (size_t)comm->settings.codec_min_bytes;
    if (codec->vt && min <= most) most = min ? min - 1 : 0;
    comm->oneshot_most = find_oneshot(comm, most);
    return cinchSuccess;
}

static cinchResult_t connect_ranks(struct cinchComm *comm) {
    cinch_net_options options = {
        .stage_bytes = CINCH_STAGE_BYTES, .checksum = comm->settings.checksum, .heap_fd = -1};
    cinch_heap heap;
    if (cinch_heap_get(&heap) == cinchSuccess) {
        options.heap = heap.data;
        options.heap_bytes = heap.bytes;
        options.heap_fd = heap.fd;
    }
    CINCH_TRY(cinch_net_open(&comm->settings, comm->meeting, comm->rank, comm->nranks, &options,
                             &comm->net));
    CINCH_TRY(cinch_watch_begin(comm));
    CINCH_TRY(agree_on_views(comm));
    comm->llc_bytes = cinch_cpu_llc_bytes();
    if (comm->policy.auto_intra && comm->rank == 0 && comm->hosts > 1 && comm->nranks > comm->hosts)
        cinch_warn("CINCH_CODEC_INTRA=auto compresses nothing inside the %d hosts of one "
                   "communicator: name a codec for that",
                   comm->hosts);
    if (comm->one_host && comm->rank == 0 && comm->policy.inter.vt && !comm->policy.intra.vt &&
        !comm->policy.auto_inter)
        cinch_warn("CINCH_CODEC%s=%s has nothing to compress: all %d ranks share one host "
                   "(CINCH_CODEC_INTRA compresses inside a host)",
                   comm->settings.codec_inter[0] ? "_INTER" : "",
                   comm->settings.codec_inter[0] ? comm->settings.codec_inter
                                                 : comm->settings.codec,
                   comm->nranks);
    cinch_comm_use_inside(comm, &comm->policy.intra, comm->policy.auto_intra);
    return cinch_inforce_join(comm);
}

void cinch_comm_joined(struct cinchComm *comm, cinchResult_t result) {
    if (result != cinchSuccess) cinch_comm_fail(comm, result);
    atomic_store(&comm->unsized, false);
    atomic_store(&comm->turn, 0);
    atomic_store(&comm->joining, false);
}

cinchResult_t cinch_comm_join(struct cinchComm *comm, const cinchUniqueId *id,
                              const cinch_reunion *reunion, cinch_rendezvous *parent,
                              const cinch_refusal *refusal) {
    cinch_rendezvous *meeting = NULL;
    bool refused = refusal->why[0] != '\0';
    cinch_joining joining = {.settings = &comm->settings,
                             .id = id,
                             .rank = comm->rank,
                             .nranks = comm->nranks,
                             .refusal = refused ? refusal->why : NULL,
                             .cancel = &comm->aborted,
                             .reunion = reunion,
                             .parent = parent};
    cinchResult_t result = cinch_rendezvous_join_as(&joining, &meeting);
    if (result == cinchInvalidUsage && refused) result = refusal->code;
    atomic_store(&comm->meeting, meeting);
    if (result == cinchSuccess && comm->nranks > 1) {
        result = connect_ranks(comm);
        if (result != cinchSuccess) result = cinch_comm_first_cause(comm, result);
    }
    if (meeting) cinch_rendezvous_weaned(meeting);
    if (result == cinchSuccess) cinch_report_join(comm);
    cinch_comm_joined(comm, result);
    return result;
}
