/* SPDX-License-Identifier: Apache-2.0 */
/* The first all-reduce of a communicator: its ranks show each other their settings and hosts, by
 * an all-gather of the real library, so that all decide alike from then on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "base/log.h"
#include "coll/nccl/steps.h"
#include "transports/transport.h"

/* What each rank shows. */
typedef struct card {
    char magic[8];
    char release[24];
    uint64_t host;
    uint64_t hash;   /* of the whole text, where that is cut off here; else 0 */
    char text[2000]; /* as cinch_settings_agreed has it */
} card;
static const char magic[8] = {'C', 'I', 'N', 'C', 'H', 'F', 'W', '1'};

/* Of one communicator, while it lasts. What it allocates stays: freeing may wait for the device. */
typedef struct meeting {
    cinch_side *side;
    card *device, *pinned; /* [nranks] and this rank's own */
    cinch_event *over;
} meeting;

cinchResult_t cinch_side_open(cinch_side *side) {
    const cinch_device_work *work = side->forward->work;
    int device = side->device;
    void *counts, *seen;
    if (side->seen) return cinchSuccess;
    if (!side->net) CINCH_TRY(work->stream_open(device, &side->net));
    cinch_event **events[] = {&side->done, &side->joined, &side->kernels, &side->moved[0],
                              &side->moved[1]};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (!*events[i]) CINCH_TRY(work->event_open(device, events[i]));
    if (!side->counts) {
        CINCH_TRY(work->alloc(device, sizeof *side->counts, &counts));
        side->counts = counts;
        CINCH_TRY(work->fill(device, side->net, counts, 0, sizeof *side->counts));
    }
    CINCH_TRY(work->alloc_pinned(device, sizeof *side->seen, &seen));
    memset(seen, 0, sizeof *side->seen);
    side->seen = seen;
    return cinchSuccess;
}

static cinchResult_t write_card(const cinch_settings *settings, card *mine) {
    memset(mine, 0, sizeof *mine);
    memcpy(mine->magic, magic, sizeof magic);
    strncpy(mine->release, CINCH_RELEASE, sizeof mine->release - 1);
    mine->host = cinch_net_host(settings);
    size_t length = cinch_settings_agreed(settings, mine->text, sizeof mine->text);
    if (length <= sizeof mine->text) return cinchSuccess;
    char *whole = malloc(length);
    if (!whole) return cinch_fail(cinchSystemError, "out of memory for the settings' text");
    cinch_settings_agreed(settings, whole, length);
    mine->hash = cinch_hash(whole, length);
    free(whole);
    return cinchSuccess;
}

static cinchResult_t begin(meeting *m, cinch_side *side) {
    const cinch_device_work *work = side->forward->work;
    size_t bytes = ((size_t)side->nranks + 1) * sizeof(card);
    m->side = side;
    CINCH_TRY(cinch_side_open(side));
    CINCH_TRY(work->event_open(side->device, &m->over));
    if (!side->cards) CINCH_TRY(work->alloc(side->device, bytes, &side->cards));
    if (!side->shown) CINCH_TRY(work->alloc_pinned(side->device, bytes, &side->shown));
    m->device = side->cards;
    m->pinned = side->shown;
    CINCH_TRY(write_card(&side->forward->settings, &m->pinned[side->nranks]));
    return work->copy(side->device, side->net, &m->device[side->nranks], &m->pinned[side->nranks],
                      sizeof(card));
}

static cinchResult_t exchange(meeting *list, int count, bool *ours) {
    const cinch_real *real = &list[0].side->forward->real;
    *ours = false;
    CINCH_TRY(real->GroupStart());
    cinchResult_t result = cinchSuccess;
    for (int i = 0; i < count && result == cinchSuccess; i++) {
        meeting *m = &list[i];
        result = real->AllGather(&m->device[m->side->nranks], m->device, sizeof(card), cinchUint8,
                                 m->side->comm, m->side->net);
        if (result == cinchInProgress) result = cinchSuccess;
    }
    cinchResult_t ended = real->GroupEnd(), was = result == cinchSuccess ? ended : result;
    result = was;
    for (int i = 0; i < count; i++) cinch_side_settle_into(list[i].side, was, &result);
    return result;
}

/* Until all cards are here. The real library may say that they never come. */
static cinchResult_t await(meeting *m, bool *ours) {
    const struct timespec nap = {.tv_nsec = 20000};
    const cinch_forward *f = m->side->forward;
    int device = m->side->device;
    *ours = true;
    CINCH_TRY(f->work->copy(device, m->side->net, m->pinned, m->device,
                            (size_t)m->side->nranks * sizeof(card)));
    CINCH_TRY(f->work->record(m->over, m->side->net));
    for (;;) {
        *ours = true;
        cinchResult_t passed = f->work->passed(m->over), state = cinchSuccess;
        if (passed != cinchInProgress) return passed;
        if (atomic_load(&m->side->leaving))
            return cinch_fail(cinchInvalidUsage, "the communicator was ended during its first "
                                                 "all-reduce");
        *ours = false;
        CINCH_TRY(f->real.CommGetAsyncError(m->side->comm, &state));
        if (state != cinchSuccess && state != cinchInProgress) return state;
        nanosleep(&nap, NULL);
    }
}

/* ---- what follows from the cards ---- */

static bool differs(card *cards, int nranks, char why[CINCH_ERROR_TEXT]) {
    for (int q = 0; q < nranks; q++) {
        cards[q].text[sizeof cards[q].text - 1] = cards[q].release[sizeof cards[q].release - 1] = 0;
        if (memcmp(cards[q].magic, magic, sizeof magic) != 0)
            snprintf(why, CINCH_ERROR_TEXT, "rank %d has no cinch that compresses before its NCCL",
                     q);
        else if (strcmp(cards[q].release, cards[0].release) != 0)
            snprintf(why, CINCH_ERROR_TEXT, "rank 0 has cinch %s, rank %d has %s", cards[0].release,
                     q, cards[q].release);
        else if (!cinch_settings_compare(cards[0].text, 0, cards[q].text, q, why))
            return true;
        else if (cards[q].hash != cards[0].hash)
            snprintf(why, CINCH_ERROR_TEXT, "the settings of ranks 0 and %d differ", q);
        else
            continue;
        return true;
    }
    return false;
}

static cinch_places look_at(const card *cards, int rank, int nranks) {
    cinch_places p = {0};
    for (int q = 0; q < nranks; q++) {
        int first = 0, members = 0, before = 0, number = 0;
        while (cards[first].host != cards[q].host) first++;
        for (int k = 0; k < nranks; k++) {
            members += cards[k].host == cards[q].host;
            before += k < q && cards[k].host == cards[q].host;
        }
        if (first == q) {
            p.per_host = p.hosts == 0 || p.per_host == members ? members : 0;
            p.hosts++;
        }
        if (q != rank) continue;
        for (int k = 0; k < first; k++) { /* hosts that begin before this one */
            int j = 0;
            while (cards[j].host != cards[k].host) j++;
            number += j == k;
        }
        p.host = number;
        p.local = before;
    }
    return p;
}

static bool same_codec(const cinch_codec *a, const cinch_codec *b) {
    return a->vt == b->vt && a->ef == b->ef && memcmp(a->params, b->params, sizeof a->params) == 0;
}

static void warn_alone(const cinch_side *side) {
    const cinch_settings *s = &side->forward->settings;
    if (side->rank == 0)
        cinch_warn("CINCH_CODEC%s=%s has nothing to compress: all %d ranks share one host "
                   "(CINCH_CODEC_INTRA compresses inside a host)",
                   s->codec_inter[0] ? "_INTER" : "", s->codec_inter[0] ? s->codec_inter : s->codec,
                   side->nranks);
}

/* Which ranks exchange encoded messages, and by which codec. */
static void decide(cinch_side *side, const cinch_places *p, bool *splits) {
    cinch_policy *policy = &side->policy;
    const cinch_codec *intra = &policy->intra, *inter = &policy->inter;
    bool both = same_codec(intra, inter), one = p->hosts == side->nranks;
    *splits = false;
    side->state = CINCH_SIDE_EXACT;
    policy->codec = p->hosts == 1 ? *intra : *inter;
    if (!policy->codec.vt) {
        if (p->hosts == 1) warn_alone(side);
        return;
    }
    bool inside = p->hosts > 1 && !one && !both; /* several ranks on a host, which stay exact */
    const char *lack = NULL;
    if (inside && intra->vt)
        lack = "CINCH_CODEC_INTRA and CINCH_CODEC_INTER are different codecs";
    else if (inside && !p->per_host)
        lack = "hosts have different numbers of ranks";
    else if (inside && !side->forward->real.CommSplit)
        lack = "the real library has no ncclCommSplit";
    else if ((inside ? p->hosts : side->nranks) > CINCH_WANTED_RANKS)
        lack = "there are too many";
    if (lack && side->rank == 0)
        cinch_warn("nothing is compressed between %d ranks on %d hosts: %s", side->nranks, p->hosts,
                   lack);
    if (lack) return;
    side->state = CINCH_SIDE_COMPRESSES;
    *splits = inside;
}

/* Two splits of the caller's communicator: those of this rank's place on each host, and this host's
 * ranks. */
static cinchResult_t split(cinch_side *const *sides, const cinch_places *p, const bool *splits,
                           int count, bool *ours) {
    const cinch_real *real = &sides[0]->forward->real;
    for (int level = 0; level < 2; level++) {
        cinchResult_t result = cinchSuccess;
        *ours = false;
        CINCH_TRY(real->GroupStart());
        for (int i = 0; i < count && result == cinchSuccess; i++) {
            cinch_side *s = sides[i];
            if (!splits[i]) continue;
            int color = level ? p[i].host : p[i].local, key = level ? p[i].local : p[i].host;
            result = real->CommSplit(s->comm, color, key, &s->split[level].comm, NULL);
            if (result == cinchInProgress) result = cinchSuccess;
        }
        cinchResult_t ended = real->GroupEnd();
        if (result == cinchSuccess) result = ended;
        for (int i = 0; i < count; i++) /* what was made, too */
            if (splits[i]) cinch_side_settle_into(sides[i], cinchInProgress, &result);
        CINCH_TRY(result);
    }
    for (int i = 0; i < count; i++) {
        if (!splits[i]) continue;
        sides[i]->split[0] = (cinch_level){sides[i]->split[0].comm, p[i].host, p[i].hosts};
        sides[i]->split[1] = (cinch_level){sides[i]->split[1].comm, p[i].local, p[i].per_host};
        sides[i]->splits = true;
    }
    return cinchSuccess;
}

cinchResult_t cinch_side_decide(cinch_side *const *sides, const cinch_places *places, int count,
                                bool *ours) {
    bool *divides = calloc((size_t)count, sizeof *divides);
    bool *splits = calloc((size_t)count, sizeof *splits), any = false;
    cinchResult_t result = cinchSuccess;
    *ours = true;
    if (!divides || !splits)
        result = cinch_fail(cinchSystemError, "out of memory for %d ranks", count);
    for (int i = 0; i < count && result == cinchSuccess; i++) {
        if (sides[i]->state != CINCH_SIDE_NEW) continue;
        decide(sides[i], &places[i], &divides[i]);
        splits[i] = divides[i] && !sides[i]->splits; /* else they are there from an earlier codec */
        any |= splits[i];
    }
    if (result == cinchSuccess && any) result = split(sides, places, splits, count, ours);
    for (int i = 0; i < count && result == cinchSuccess; i++) {
        cinch_side *s = sides[i];
        s->flat = divides[i] ? s->split[0] : (cinch_level){s->comm, s->rank, s->nranks};
        s->inside = divides[i] ? s->split[1] : (cinch_level){NULL, 0, 1};
    }
    free(divides);
    free(splits);
    return result;
}

static cinchResult_t judge(meeting *list, cinch_side *const *sides, int count, bool *ours) {
    cinch_places *p = calloc((size_t)count, sizeof *p);
    *ours = true;
    if (!p) return cinch_fail(cinchSystemError, "out of memory for %d ranks", count);
    for (int i = 0; i < count; i++) {
        cinch_side *side = sides[i];
        char why[CINCH_ERROR_TEXT];
        if (differs(list[i].pinned, side->nranks, why)) {
            side->state = CINCH_SIDE_REFUSED;
            cinch_side_fail(side, cinch_fail(cinchInvalidUsage, "%s", why));
        } else {
            p[i] = look_at(list[i].pinned, side->rank, side->nranks);
        }
    }
    cinchResult_t result = cinch_side_decide(sides, p, count, ours);
    free(p);
    return result;
}

cinchResult_t cinch_side_agree(cinch_side *const *sides, int count, bool *ours) {
    meeting *list = calloc((size_t)count, sizeof *list);
    cinchResult_t result = cinchSuccess;
    *ours = true;
    if (!list) return cinch_fail(cinchSystemError, "out of memory for %d ranks", count);
    for (int i = 0; i < count && result == cinchSuccess; i++) result = begin(&list[i], sides[i]);
    if (result == cinchSuccess) result = exchange(list, count, ours);
    for (int i = 0; i < count && result == cinchSuccess; i++) result = await(&list[i], ours);
    if (result == cinchSuccess) result = judge(list, sides, count, ours);
    for (int i = 0; i < count; i++) {
        if (result != cinchSuccess && *ours) {
            sides[i]->state = CINCH_SIDE_REFUSED;
            cinch_side_fail(sides[i], result);
        }
        if (list[i].over) sides[i]->forward->work->event_close(list[i].over);
    }
    free(list);
    return result;
}
