/* SPDX-License-Identifier: Apache-2.0 */
/* Connects the pairs of ranks that talk over verbs. What ranks tell each other of their ports and
 * queue pairs goes through the rendezvous, which has proved who they are. A rank that cannot go on
 * says so, and the pairs with it are left to the next transport. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "transports/verbs_link.h"

enum { SLOT_MOST = 16384, SLOT_LEAST = 4096, BLOCK_WANTED = 64 << 20 };

typedef struct opening {
    const cinch_opening *job;
    cinch_verbs *verbs;
    cinch_verbs_card *cards; /* [nranks] */
    cinch_verbs_end *mine;   /* [nranks]: our ends */
    cinch_verbs_end *theirs; /* [nranks][nranks]: everybody's */
    uint8_t *good;           /* [nranks]: pairs that we could connect */
    uint8_t *matrix;         /* [nranks][nranks]: everybody's */
} opening;

/* Before anything is registered: a forked child must not take our pages with it. */
static void prepare_forks(void) {
    int err = ibv_fork_init();
    if (err) cinch_info("verbs: processes that fork may harm messages: %s", strerror(err));
}

static cinchResult_t within(const char *name, int64_t value, int64_t most) {
    if (value >= 0 && value <= most) return cinchSuccess;
    return cinch_fail_quiet(cinchInvalidUsage, "%s=%lld: 0 to %lld is accepted", name,
                            (long long)value, (long long)most);
}

static cinchResult_t check_settings(const cinch_settings *s) {
    CINCH_TRY(within("CINCH_IB_TIMEOUT", s->ib_timeout, 31));
    CINCH_TRY(within("CINCH_IB_RETRY_CNT", s->ib_retry_cnt, 7));
    CINCH_TRY(within("CINCH_IB_PKEY", s->ib_pkey, 0xffff));
    CINCH_TRY(within("CINCH_IB_SL", s->ib_sl, 15));
    CINCH_TRY(within("CINCH_IB_TC", s->ib_tc, 255));
    if (s->ib_disable) return cinch_fail_quiet(cinchInvalidUsage, "CINCH_IB_DISABLE=1");
    return cinchSuccess;
}

/* With many peers slots are smaller, so that the memory that is pinned stays in bounds; all ranks
 * have the same. */
static size_t slot_bytes(int nranks) {
    size_t bytes = SLOT_MOST;
    while (bytes > SLOT_LEAST && 2 * CINCH_VERBS_SLOTS * bytes * (size_t)nranks > BLOCK_WANTED)
        bytes /= 2;
    return bytes;
}

static cinchResult_t make_block(cinch_verbs *verbs, int nranks) {
    verbs->slot_bytes = slot_bytes(nranks);
    verbs->link_bytes = CINCH_VERBS_PAGE + 2 * CINCH_VERBS_SLOTS * verbs->slot_bytes;
    verbs->block_bytes = (size_t)verbs->links * verbs->link_bytes;
    void *block =
        mmap(NULL, verbs->block_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return cinch_fail_quiet(cinchSystemError, "no %zu bytes for rings", verbs->block_bytes);
    verbs->block = block;
    for (int r = 0; r < verbs->rails; r++) {
        cinch_verbs_rail *rail = &verbs->rail[r];
        rail->mr = ibv_reg_mr(rail->pd, block, verbs->block_bytes,
                              IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        if (!rail->mr)
            return cinch_fail_quiet(cinchSystemError, "%s: no %zu bytes could be registered: %s",
                                    rail->name, verbs->block_bytes, cinch_verbs_advice(errno));
    }
    return cinchSuccess;
}

static cinchResult_t make_completions(cinch_verbs *verbs) {
    int entries = verbs->links * (CINCH_VERBS_SENDS + CINCH_VERBS_RECEIVES);
    for (int r = 0; r < verbs->rails; r++) {
        cinch_verbs_rail *rail = &verbs->rail[r];
        rail->cq = ibv_create_cq(rail->context, entries, NULL, rail->channel, 0);
        if (!rail->cq)
            return cinch_fail_quiet(cinchSystemError,
                                    "%s: no completion queue of %d entries for %d peers: %s",
                                    rail->name, entries, verbs->links, cinch_verbs_advice(errno));
    }
    return cinchSuccess;
}

static cinchResult_t make_links(opening *o) {
    cinch_verbs *verbs = o->verbs;
    int place = 0;
    for (int q = 0; q < o->job->nranks; q++) {
        if (!o->job->want[q]) continue;
        verbs->link[place] = cinch_verbs_link_new(verbs, o->job->settings, place, q,
                                                  o->job->options->checksum, &o->mine[q]);
        if (!verbs->link[place++]) return cinchSystemError;
    }
    return cinchSuccess;
}

/* All that needs nobody else. */
static cinchResult_t prepare(opening *o) {
    cinch_verbs *verbs = o->verbs;
    int index = 0, sharers = 0;
    for (int q = 0; q < o->job->nranks; q++) {
        verbs->links += o->job->want[q];
        index += o->job->net->local[q] && q < o->job->rank;
        sharers += o->job->net->local[q];
    }
    if (verbs->links == 0) return cinchSuccess;
    CINCH_TRY(check_settings(o->job->settings));
    verbs->link = calloc((size_t)verbs->links, sizeof(cinch_verbs_link *));
    if (!verbs->link) return cinch_fail_quiet(cinchSystemError, "out of memory");
    CINCH_TRY(cinch_verbs_open_rails(verbs, o->job->settings, index, sharers));
    CINCH_TRY(make_completions(verbs));
    CINCH_TRY(make_block(verbs, o->job->nranks));
    return make_links(o);
}

static void fill_card(const cinch_verbs *verbs, cinch_verbs_card *card) {
    card->block = (uintptr_t)verbs->block;
    card->link_bytes = (uint32_t)verbs->link_bytes;
    card->rails = (uint8_t)verbs->rails;
    for (int r = 0; r < verbs->rails; r++) {
        const cinch_verbs_rail *rail = &verbs->rail[r];
        card->rail[r].key = rail->mr->rkey;
        card->rail[r].max_message = rail->about.max_msg_sz;
        card->rail[r].lid = rail->about.lid;
        card->rail[r].mtu = (uint8_t)rail->about.active_mtu;
        card->rail[r].ethernet = rail->about.link_layer == IBV_LINK_LAYER_ETHERNET;
        card->rail[r].gid = rail->gid;
        cinch_info("rank %d uses %s, address %d, MTU %d", verbs->rank, rail->name, rail->gid_index,
                   128 << rail->about.active_mtu);
    }
}

static cinchResult_t exchange_cards(opening *o) {
    cinch_verbs_card mine;
    memset(&mine, 0, sizeof mine);
    cinchResult_t result = prepare(o);
    if (result == cinchSuccess && o->verbs->links > 0) {
        fill_card(o->verbs, &mine);
    } else if (o->verbs->links > 0) {
        cinch_warn("rank %d leaves verbs aside: %s", o->job->rank, cinch_last_error());
        strncpy(mine.why, cinch_last_error(), sizeof mine.why - 1);
    }
    return cinch_rendezvous_allgather(o->job->rendezvous, &mine, sizeof mine, o->cards);
}

static bool can(const opening *o, int q) {
    const cinch_verbs_card *card = &o->cards[q];
    return o->job->want[q] && card->rails > 0 && card->rails <= CINCH_VERBS_RAILS &&
           o->cards[o->job->rank].rails > 0 && card->link_bytes == o->verbs->link_bytes;
}

static void connect_pairs(opening *o) {
    for (int q = 0, place = 0; q < o->job->nranks; q++) {
        if (!o->job->want[q]) continue;
        cinch_verbs_link *link = o->verbs->link ? o->verbs->link[place] : NULL;
        place++;
        if (!link || !can(o, q)) continue;
        const cinch_verbs_end *theirs =
            &o->theirs[(size_t)q * (size_t)o->job->nranks + (size_t)o->job->rank];
        o->good[q] =
            cinch_verbs_link_connect(link, o->job->settings, &o->cards[q], &o->mine[q], theirs);
        if (!o->good[q]) cinch_warn("%s", cinch_last_error());
    }
}

/* Pairs of which both sides are connected have a link. */
static void keep_links(opening *o) {
    cinch_verbs *verbs = o->verbs;
    for (int q = 0, place = 0; q < o->job->nranks; q++) {
        if (!o->job->want[q]) continue;
        cinch_verbs_link *link = verbs->link ? verbs->link[place] : NULL;
        place++;
        if (!link) continue;
        bool back = o->matrix[(size_t)q * (size_t)o->job->nranks + (size_t)o->job->rank];
        if (o->good[q] && back) {
            o->job->net->link[q] = cinch_verbs_link_head(link);
            verbs->open++;
        } else {
            cinch_verbs_link_free(link);
        }
    }
}

static cinchResult_t connect_all(opening *o) {
    size_t n = (size_t)o->job->nranks;
    CINCH_TRY(exchange_cards(o));
    CINCH_TRY(
        cinch_rendezvous_allgather(o->job->rendezvous, o->mine, n * sizeof *o->mine, o->theirs));
    connect_pairs(o);
    CINCH_TRY(cinch_rendezvous_allgather(o->job->rendezvous, o->good, n, o->matrix));
    keep_links(o);
    return cinchSuccess;
}

static cinchResult_t verbs_open(const cinch_opening *job) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t n = (size_t)job->nranks;
    opening o = {.job = job,
                 .verbs = calloc(1, sizeof *o.verbs),
                 .cards = calloc(n, sizeof *o.cards),
                 .mine = calloc(n, sizeof *o.mine),
                 .theirs = calloc(n * n, sizeof *o.theirs),
                 .good = calloc(n, 1),
                 .matrix = calloc(n, n)};
    cinchResult_t result;
    pthread_once(&once, prepare_forks);
    if (!o.verbs || !o.cards || !o.mine || !o.theirs || !o.good || !o.matrix) {
        result = cinch_fail(cinchSystemError, "job->rank %d is out of memory while connecting",
                            job->rank);
    } else {
        o.verbs->net = job->net;
        o.verbs->process = getpid();
        o.verbs->rank = job->rank;
        o.verbs->fd = -1;
        result = connect_all(&o);
    }
    if (o.verbs && o.verbs->open == 0) cinch_verbs_free(o.verbs);
    free(o.cards);
    free(o.mine);
    free(o.theirs);
    free(o.good);
    free(o.matrix);
    return result;
}

const cinch_transport cinch_transport_verbs = {"verbs", cinch_verbs_unusable, verbs_open, NULL};
