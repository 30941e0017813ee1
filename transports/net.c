/* SPDX-License-Identifier: Apache-2.0 */
/* Who is on which host, and a link to every rank by the first transport that carries it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "transports/names.h"
#include "transports/region.h"
#include "transports/steady.h"
#include "transports/tcp.h"

/* Whether a rank can use a transport. ASKED: it could, where it were asked for by name; LACKING:
 * its build has not even the function to open it, in which all ranks must take part. */
enum { NO, YES, ASKED, LACKING };

/* What every rank tells all others first. */
typedef struct hello {
    uint64_t host;
    uint8_t order[CINCH_TRANSPORTS];
    uint8_t count;
    uint8_t checksum;
    char why[300]; /* not empty: this rank cannot go on */
} hello;

typedef struct netting {
    const cinch_settings *settings;
    cinch_rendezvous *rendezvous;
    const cinch_net_options *options;
    cinch_net *net;
    cinch_transport_list list;
    hello *hellos;   /* [nranks] */
    uint8_t *want;   /* [nranks] */
    uint8_t *linked; /* [nranks]: 1 where there is a link */
    uint8_t *matrix; /* [nranks][nranks]: all ranks' `linked` */
    uint8_t *usable; /* [CINCH_TRANSPORTS][nranks]: NO, YES or ASKED, of those that were tried */
    bool common;     /* the failure is one that every rank has found */
} netting;

static uint64_t hash_text(uint64_t hash, const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        hash = (hash ^ *p) * UINT64_C(0x100000001b3);
    return (hash ^ 0xff) * UINT64_C(0x100000001b3); /* the end counts too */
}

/* A network namespace has its host's boot id and name, and yet is another place. */
uint64_t cinch_net_host(const cinch_settings *settings) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    if (settings->hostid[0]) return hash_text(hash, settings->hostid);
    char boot[64] = "", name[256] = "", place[80];
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file) {
        if (!fgets(boot, sizeof boot, file)) boot[0] = '\0';
        fclose(file);
    }
    gethostname(name, sizeof name - 1);
    struct stat network = {0};
    stat("/proc/self/ns/net", &network);
    snprintf(place, sizeof place, "%llu:%llu uid %u", (unsigned long long)network.st_dev,
             (unsigned long long)network.st_ino, (unsigned)geteuid());
    return hash_text(hash_text(hash_text(hash, boot), name), place);
}

static cinchResult_t allocate(netting *g, int rank, int nranks) {
    size_t n = (size_t)nranks;
    cinch_net *net = calloc(1, sizeof *net);
    g->net = net;
    if (net) {
        net->rank = rank;
        net->nranks = nranks;
        net->link = calloc(n, sizeof(cinch_link *));
        net->local = calloc(n, 1);
    }
    g->hellos = calloc(n, sizeof *g->hellos);
    g->want = calloc(n, 1);
    g->linked = calloc(n, 1);
    g->matrix = calloc(n, n);
    g->usable = calloc(CINCH_TRANSPORTS, n);
    if (!net || !net->link || !net->local || !g->hellos || !g->want || !g->linked || !g->matrix ||
        !g->usable)
        return cinch_fail(cinchSystemError, "rank %d is out of memory while connecting", rank);
    return cinchSuccess;
}

/* The same sentence on every rank where one has a bad list, or two differ. */
static cinchResult_t compare(const netting *g) {
    const hello *all = g->hellos;
    for (int r = 0; r < g->net->nranks; r++)
        if (all[r].why[0])
            return cinch_fail(cinchInvalidUsage, "rank %d: %.*s", r, (int)sizeof all[r].why - 1,
                              all[r].why);
    for (int r = 1; r < g->net->nranks; r++) {
        if (all[r].count != all[0].count ||
            memcmp(all[r].order, all[0].order, sizeof all[0].order) != 0)
            return cinch_fail(cinchInvalidUsage,
                              "ranks 0 and %d have different values of CINCH_TRANSPORT", r);
        if (all[r].checksum != all[0].checksum)
            return cinch_fail(cinchInvalidUsage,
                              "ranks 0 and %d have different values of CINCH_CHECKSUM", r);
    }
    return cinchSuccess;
}

/* Whether this rank can use the transport. tcp without libsodium is the user's choice. */
static uint8_t usable(const netting *g, const cinch_transport *transport) {
    bool asks = transport->open && transport->unwanted && !g->list.named;
    const char *reason = asks ? transport->unwanted() : NULL;
    if (reason) { /* asked first: it may cost less than to see whether it could be used */
        cinch_info("transport %s is passed by: %s", transport->name, reason);
        return ASKED;
    }
    reason = transport->unusable();
    if (transport == &cinch_transport_tcp && g->settings->allow_unauthenticated) return YES;
    if (reason) {
        cinch_info("transport %s is not usable: %s", transport->name, reason);
        return transport->open ? NO : LACKING;
    }
    return YES;
}

static cinchResult_t introduce(netting *g) {
    hello mine = {.host = cinch_net_host(g->settings), .checksum = g->options->checksum};
    char why[sizeof mine.why - 64];
    if (cinch_transport_list_parse(g->settings->transport, &g->list, why, sizeof why)) {
        mine.count = (uint8_t)g->list.count;
        for (int i = 0; i < g->list.count; i++) mine.order[i] = (uint8_t)g->list.index[i];
    } else {
        snprintf(mine.why, sizeof mine.why, "CINCH_TRANSPORT: %s", why);
    }
    CINCH_TRY(cinch_rendezvous_allgather(g->rendezvous, &mine, sizeof mine, g->hellos));
    g->common = true;
    CINCH_TRY(compare(g));
    g->common = false;
    for (int r = 0; r < g->net->nranks; r++) g->net->local[r] = g->hellos[r].host == mine.host;
    return cinchSuccess;
}

/* Whether two ranks could try the transport: NULL, or why not. All ranks see the same. */
static const char *hindrance(const netting *g, int transport, int a, int b) {
    const uint8_t *usable_by = g->usable + (size_t)transport * (size_t)g->net->nranks;
    if (cinch_transport_at(transport) == &cinch_transport_shm &&
        g->hellos[a].host != g->hellos[b].host)
        return "they are on different hosts";
    if (usable_by[a] == NO || usable_by[b] == NO) return "not usable there";
    if (usable_by[a] == ASKED || usable_by[b] == ASKED)
        return "used only where CINCH_TRANSPORT names it";
    return NULL;
}

static bool linked(const netting *g, int a, int b) {
    return g->matrix[(size_t)a * (size_t)g->net->nranks + (size_t)b];
}

static bool eligible(const netting *g, int transport, int a, int b) {
    return a != b && !linked(g, a, b) && !hindrance(g, transport, a, b);
}

static bool complete(const netting *g) {
    for (int a = 0; a < g->net->nranks; a++)
        for (int b = 0; b < a; b++)
            if (!linked(g, a, b)) return false;
    return true;
}

static bool anybody(const netting *g, int transport) {
    for (int a = 0; a < g->net->nranks; a++)
        for (int b = 0; b < a; b++)
            if (eligible(g, transport, a, b)) return true;
    return false;
}

/* Asks what a transport needs, which may take long, only where there is something left to do. */
static cinchResult_t try_transport(netting *g, int transport) {
    cinch_net *net = g->net;
    if (complete(g)) return cinchSuccess;
    uint8_t mine = usable(g, cinch_transport_at(transport));
    CINCH_TRY(cinch_rendezvous_allgather(g->rendezvous, &mine, 1,
                                         g->usable + (size_t)transport * (size_t)net->nranks));
    uint8_t *all = g->usable + (size_t)transport * (size_t)net->nranks;
    if (memchr(all, LACKING, (size_t)net->nranks)) memset(all, NO, (size_t)net->nranks);
    if (!anybody(g, transport)) return cinchSuccess;
    for (int r = 0; r < net->nranks; r++) g->want[r] = eligible(g, transport, net->rank, r);
    const cinch_opening job = {g->settings, g->rendezvous, g->options, net,
                               net->rank,   net->nranks,   g->want};
    CINCH_TRY(cinch_transport_at(transport)->open(&job));
    for (int r = 0; r < net->nranks; r++) g->linked[r] = net->link[r] != NULL;
    return cinch_rendezvous_allgather(g->rendezvous, g->linked, (size_t)net->nranks, g->matrix);
}

/* Names the pair, and why each transport did not carry it. */
static cinchResult_t none_left(const netting *g, int a, int b) {
    char reasons[300] = "";
    for (int i = 0; i < CINCH_TRANSPORTS; i++) {
        bool listed = false;
        for (int k = 0; k < g->list.count; k++) listed |= g->list.index[k] == i;
        const char *reason = listed ? hindrance(g, i, a, b) : "left out by CINCH_TRANSPORT";
        size_t used = strlen(reasons);
        snprintf(reasons + used, sizeof reasons - used, "%s%s: %s", used ? "; " : "",
                 cinch_transport_at(i)->name, reason ? reason : "the memory could not be mapped");
    }
    return cinch_fail(cinchInvalidUsage, "ranks %d and %d have no transport between them (%s)", a,
                      b, reasons);
}

static cinchResult_t check_complete(const netting *g) {
    for (int b = 0; b < g->net->nranks; b++)
        for (int a = 0; a < b; a++)
            if (!linked(g, a, b)) return none_left(g, a, b);
    return cinchSuccess;
}

static cinchResult_t connect_all(netting *g, int rank, int nranks) {
    CINCH_TRY(allocate(g, rank, nranks));
    CINCH_TRY(introduce(g));
    for (int i = 0; i < g->list.count; i++) CINCH_TRY(try_transport(g, g->list.index[i]));
    g->common = true;
    return check_complete(g);
}

cinchResult_t cinch_net_open(const cinch_settings *settings, cinch_rendezvous *rendezvous, int rank,
                             int nranks, const cinch_net_options *options, cinch_net **out) {
    netting g = {.settings = settings, .rendezvous = rendezvous, .options = options};
    cinchResult_t result = connect_all(&g, rank, nranks);
    free(g.hellos);
    free(g.want);
    free(g.linked);
    free(g.matrix);
    free(g.usable);
    if (result == cinchSuccess) {
        for (int r = 0; r < nranks; r++)
            if (g.net->link[r]) g.net->link[r]->finished = &g.net->finished;
        *out = g.net;
    } else {
        if (!g.common) cinch_rendezvous_abort(rendezvous, cinch_last_error());
        cinch_net_close(g.net);
    }
    return result;
}

void cinch_net_close(cinch_net *net) {
    if (!net) return;
    for (int r = 0; net->link && r < net->nranks; r++)
        if (net->link[r]) net->link[r]->ops->close(net->link[r]);
    cinch_shm_close(net->shm);
    cinch_net_forget_steady(net);
    free(net->link);
    free(net->local);
    free(net);
}
