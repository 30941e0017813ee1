/* SPDX-License-Identifier: Apache-2.0 */
/* How fast messages travel between hosts, and inside one: pairs, then all that a host can take. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "coll/engine.h"
#include "coll/tune.h"

enum {
    HOSTS_IN_TURN = 16, /* up to so many, pairs are measured one after the other */
    PING_BYTES = 8,
    WARM_PINGS = 5,
    LEAST_PINGS = 5,
    MOST_PINGS = 200,
    PING_US = 50000, /* of all pings of a pair */
    LEAST_US = 100000,
    MOST_US = 1000000,
    ATTEMPTS = 3,
    FIRST_BYTES = 256 << 10,
    MOST_BYTES = 64 << 20,
    PIECE = 256 << 10, /* of a stream: a message, as collectives send them */
    TOTAL_US = 300000,
    MOST_PEERS = 4, /* at once */
    MOST_PIECES = 2 * (MOST_BYTES / PIECE + MOST_PEERS)
};

typedef struct meter {
    struct cinchComm *comm;
    unsigned char *out, *in; /* MOST_BYTES each */
    size_t filled;           /* of out */
    int *rank;               /* [hosts] the one that measures */
    cinch_p2p *piece;        /* [MOST_PIECES] */
    cinch_tune_net *net;
} meter;

/* What one rank has seen; every rank gets everyone's. */
typedef struct seen {
    double gbps, alpha_us, us;
} seen;

/* Bytes to and from a peer, and when they had come: a part of them, and all. */
typedef struct lane {
    int peer;
    size_t send, receive;
    uint64_t part_ns, end_ns;
    size_t part;
    const cinch_p2p *first; /* of the receives */
    int receives;
} lane;

cinchResult_t cinch_tune_net_make(cinch_tune_net *net, int hosts) {
    size_t n = (size_t)hosts;
    *net = (cinch_tune_net){.hosts = hosts};
    net->gbps = calloc(n * n, sizeof *net->gbps);
    net->alpha_us = calloc(n * n, sizeof *net->alpha_us);
    net->out = calloc(n, sizeof *net->out);
    net->in = calloc(n, sizeof *net->in);
    if (net->gbps && net->alpha_us && net->out && net->in) return cinchSuccess;
    cinch_tune_net_free(net);
    return cinch_fail(cinchSystemError, "out of memory for a matrix of %d hosts", hosts);
}

void cinch_tune_net_free(cinch_tune_net *net) {
    free(net->gbps);
    free(net->alpha_us);
    free(net->out);
    free(net->in);
    *net = (cinch_tune_net){0};
}

/* ---- messages ---- */

/* The first quarter is left out of a rate: by then a connection has found its speed, and what a
 * shaper lets pass at once is used up. */
static void look(lane *l) {
    if (l->end_ns) return;
    size_t got = 0;
    for (int i = 0; i < l->receives; i++) {
        if (!l->first[i].msg.moved) break;
        got += l->first[i].msg.moved;
    }
    if (got < l->receive / 4) return;
    uint64_t now = cinch_now_ns();
    if (!l->part_ns) {
        l->part_ns = now;
        l->part = got;
    }
    if (l->first[l->receives - 1].msg.done) l->end_ns = now;
}

/* Runs messages to their end; nothing else runs on the communicator. */
static cinchResult_t run_messages(const meter *m, cinch_p2p *list, lane *lanes, int count) {
    struct cinchComm *comm = m->comm;
    cinch_op op = {.call = {.comm = comm, .collective = CINCH_SENDRECV},
                   .number = atomic_load(&comm->turn),
                   .p2p = list};
    cinch_idle idle = {0};
    cinchResult_t result = cinch_p2p_begin(&op);
    while (result == cinchSuccess && op.state != CINCH_OP_DONE) {
        bool moved = false;
        result = cinch_p2p_progress(&op, &moved);
        for (int i = 0; i < count; i++) look(&lanes[i]);
        if (moved) {
            idle = (cinch_idle){0};
        } else if (result == cinchSuccess) {
            cinch_idle_step(&idle, &op);
            result = op.result;
        }
    }
    return result == cinchSuccess ? result : cinch_comm_first_cause(comm, result);
}

static cinch_p2p message(void *data, size_t bytes, int peer, bool receives) {
    return (cinch_p2p){
        .data = data, .bytes = bytes, .dtype = cinchUint8, .peer = peer, .receives = receives};
}

/* A short message each way. */
static cinchResult_t swap(const meter *m, int peer, void *out, void *in, size_t bytes) {
    cinch_p2p pair[2] = {message(in, bytes, peer, true), message(out, bytes, peer, false)};
    pair[0].next = &pair[1];
    return run_messages(m, pair, NULL, 0);
}

static cinchResult_t one_way(const meter *m, int peer, void *data, size_t bytes, bool receives) {
    cinch_p2p p = message(data, bytes, peer, receives);
    return run_messages(m, &p, NULL, 0);
}

/* Appends the pieces of bytes; how many. */
static int cut(const meter *m, int used, unsigned char *data, size_t bytes, int peer,
               bool receives) {
    int count = 0;
    for (size_t at = 0; at < bytes; at += PIECE, count++)
        m->piece[used + count] =
            message(data + at, bytes - at < PIECE ? bytes - at : PIECE, peer, receives);
    return count;
}

static void fill(meter *m, size_t bytes) {
    if (bytes > m->filled) memset(m->out + m->filled, 0x5a, bytes - m->filled);
    if (bytes > m->filled) m->filled = bytes;
}

/* All lanes at once. *us: until everything had come. */
static cinchResult_t run_lanes(meter *m, lane *lanes, int count, double *us) {
    int used = 0;
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        lane *l = &lanes[i];
        fill(m, l->send);
        l->first = &m->piece[used];
        used += l->receives = cut(m, used, m->in + at, l->receive, l->peer, true);
        used += cut(m, used, m->out, l->send, l->peer, false);
        at += l->receive;
    }
    for (int i = 0; i + 1 < used; i++) m->piece[i].next = &m->piece[i + 1];
    uint64_t start = cinch_now_ns(), end = start;
    CINCH_TRY(run_messages(m, m->piece, lanes, count));
    for (int i = 0; i < count; i++)
        if (lanes[i].end_ns > end) end = lanes[i].end_ns;
    *us = (double)(end - start) / 1e3;
    return cinchSuccess;
}

/* ---- pairs ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A ping tells how many come after it; the first few find out how many there is time for. */
static cinchResult_t ping(const meter *m, int peer, double *alpha_us) {
    double took[MOST_PINGS + 1];
    uint64_t began = cinch_now_ns(), left = 0;
    int count = 0, most = MOST_PINGS;
    for (int i = 0; i < WARM_PINGS + most; i++) {
        if (i == WARM_PINGS) {
            double us = (double)(cinch_now_ns() - began) / 1e3 / WARM_PINGS;
            most = us * MOST_PINGS > PING_US ? (int)(PING_US / us) : MOST_PINGS;
            if (most < LEAST_PINGS) most = LEAST_PINGS;
        }
        uint64_t answer, start = cinch_now_ns();
        left = i < WARM_PINGS ? 1 : (uint64_t)(WARM_PINGS + most - 1 - i);
        CINCH_TRY(swap(m, peer, &left, &answer, PING_BYTES));
        if (i >= WARM_PINGS) took[count++] = (double)(cinch_now_ns() - start) / 2e3;
    }
    qsort(took, (size_t)count, sizeof *took, ascending);
    *alpha_us = took[count / 2];
    return cinchSuccess;
}

static cinchResult_t pong(const meter *m, int peer) {
    for (uint64_t left = 1; left;) {
        CINCH_TRY(one_way(m, peer, &left, PING_BYTES, true));
        CINCH_TRY(one_way(m, peer, &left, PING_BYTES, false));
    }
    return cinchSuccess;
}

/* GB/s of what came in a lane that took so long in all. Where most of it came before the first
 * look, by that. */
static double rate_of(const lane *l, double us) {
    double ns = (double)(l->end_ns - l->part_ns);
    if (l->part <= l->receive / 2 && ns > 0) return (double)(l->receive - l->part) / ns;
    return (double)l->receive / (us > 0.001 ? us * 1e3 : 1);
}

/* Longer and longer streams, until the faster direction took long enough; then the best of a few,
 * as a lost packet may cost more than all that is measured. */
static cinchResult_t stream(meter *m, int peer, double *gbps) {
    size_t bytes = FIRST_BYTES;
    for (int enough = 0; enough < ATTEMPTS;) {
        lane l = {.peer = peer, .send = bytes, .receive = bytes};
        double mine, theirs;
        CINCH_TRY(run_lanes(m, &l, 1, &mine));
        double rate = rate_of(&l, mine);
        CINCH_TRY(swap(m, peer, &mine, &theirs, sizeof mine));
        double fast = mine < theirs ? mine : theirs, slow = mine < theirs ? theirs : mine;
        if (enough || fast >= LEAST_US || slow >= MOST_US || bytes >= MOST_BYTES) {
            if (enough++ == 0 || rate > *gbps) *gbps = rate;
            continue;
        }
        double more = 1.2 * LEAST_US / fast;
        bytes *= more < 2 ? 2 : more > 16 ? 16 : (size_t)more;
        if (bytes > MOST_BYTES) bytes = MOST_BYTES;
    }
    return cinchSuccess;
}

static cinchResult_t measure_pair(meter *m, int peer, seen *s) {
    if (m->comm->rank < peer)
        CINCH_TRY(ping(m, peer, &s->alpha_us));
    else
        CINCH_TRY(pong(m, peer));
    return stream(m, peer, &s->gbps);
}

/* ---- who with whom ---- */

int cinch_tune_steps(int hosts) {
    if (hosts <= HOSTS_IN_TURN) return hosts * (hosts - 1) / 2;
    return hosts - 1 + hosts % 2;
}

/* Beyond a few hosts, by the circle method: the last one stays, the others turn; with an odd number
 * the last one is nobody. */
int cinch_tune_partner(int hosts, int step, int host) {
    if (hosts <= HOSTS_IN_TURN) {
        int a = 0;
        while (step >= hosts - 1 - a) step -= hosts - 1 - a++;
        int b = a + 1 + step;
        return host == a ? b : host == b ? a : -1;
    }
    int turning = hosts - 1 + hosts % 2;
    int partner = (2 * step - host) % turning;
    if (partner < 0) partner += turning;
    if (host == turning) partner = step;
    if (partner == host) partner = turning;
    return partner < hosts ? partner : -1;
}

static int host_of(const struct cinchComm *comm, int rank) {
    return comm->host ? comm->host[rank] : 0;
}

/* The rank's host, or -1 where another rank measures for it. */
static int speaks_for(const meter *m) {
    int host = host_of(m->comm, m->comm->rank);
    return m->rank[host] == m->comm->rank ? host : -1;
}

static cinchResult_t tell(const meter *m, const seen *mine, seen *all) {
    return cinch_rendezvous_allgather(m->comm->meeting, mine, sizeof *mine, all);
}

static cinchResult_t measure_step(meter *m, int step, seen *all) {
    int hosts = m->net->hosts, me = speaks_for(m);
    int partner = me < 0 ? -1 : cinch_tune_partner(hosts, step, me);
    seen mine = {0};
    if (partner >= 0) CINCH_TRY(measure_pair(m, m->rank[partner], &mine));
    CINCH_TRY(tell(m, &mine, all));
    for (int to = 0; to < hosts; to++) {
        int from = cinch_tune_partner(hosts, step, to);
        if (from < 0) continue;
        const seen *first = &all[m->rank[from < to ? from : to]];
        m->net->gbps[from * hosts + to] = all[m->rank[to]].gbps;
        m->net->alpha_us[from * hosts + to] = first->alpha_us;
    }
    return cinchSuccess;
}

/* The first two ranks of each host, all hosts at once; the slowest counts. */
static cinchResult_t measure_inside(meter *m, seen *all) {
    struct cinchComm *comm = m->comm;
    seen mine = {0};
    int peer = -1, local = 0;
    for (int q = 0; q < comm->nranks; q++) {
        if (host_of(comm, q) != host_of(comm, comm->rank)) continue;
        if (q < comm->rank) local++;
        if (q != comm->rank && peer < 0) peer = q;
    }
    if (peer >= 0 && local < 2) CINCH_TRY(measure_pair(m, peer, &mine));
    CINCH_TRY(tell(m, &mine, all));
    for (int q = 0; q < comm->nranks; q++) {
        cinch_tune_net *net = m->net;
        if (all[q].gbps > 0 && (net->shm_gbps == 0 || all[q].gbps < net->shm_gbps))
            net->shm_gbps = all[q].gbps;
        if (all[q].alpha_us > net->shm_alpha_us) net->shm_alpha_us = all[q].alpha_us;
    }
    return cinchSuccess;
}

/* ---- all that a host can take ---- */

/* The hosts that are the fastest together with this one; how many. */
static int fastest_peers(const cinch_tune_net *net, int host, int peer[MOST_PEERS]) {
    int n = net->hosts, count = 0;
    double rate[MOST_PEERS + 1];
    for (int q = 0; q < n; q++) {
        if (q == host) continue;
        double both = net->gbps[host * n + q] + net->gbps[q * n + host];
        int at = count;
        while (at > 0 && rate[at - 1] < both) at--;
        if (at == MOST_PEERS) continue;
        if (count < MOST_PEERS) count++;
        for (int i = count - 1; i > at; i--) rate[i] = rate[i - 1], peer[i] = peer[i - 1];
        rate[at] = both;
        peer[at] = q;
    }
    return count;
}

/* Bytes from one host to another: as much as they alone carry in the same time, so that all would
 * end together if none were in the way of another; and not more than there is room for. */
static size_t share(const cinch_tune_net *net, int from, int to, int host, const int *peer,
                    int peers) {
    double all = 0, bytes = net->gbps[from * net->hosts + to] * 1e3 * TOTAL_US;
    for (int i = 0; i < peers; i++) {
        double out = net->gbps[host * net->hosts + peer[i]];
        double in = net->gbps[peer[i] * net->hosts + host];
        all += (out > in ? out : in) * 1e3 * TOTAL_US;
    }
    if (all > MOST_BYTES - PIECE) bytes *= (MOST_BYTES - PIECE) / all; /* and what is rounded up */
    return (size_t)bytes + 1;
}

static cinchResult_t one_total(meter *m, int host, seen *all) {
    cinch_tune_net *net = m->net;
    int peer[MOST_PEERS], peers = fastest_peers(net, host, peer), me = speaks_for(m), count = 0;
    lane lanes[MOST_PEERS];
    seen mine = {0};
    size_t in = 0, out = 0;
    for (int i = 0; i < peers; i++) {
        size_t to = share(net, host, peer[i], host, peer, peers);
        size_t from = share(net, peer[i], host, host, peer, peers);
        in += from;
        out += to;
        if (me == host)
            lanes[count++] = (lane){.peer = m->rank[peer[i]], .send = to, .receive = from};
        else if (me == peer[i])
            lanes[count++] = (lane){.peer = m->rank[host], .send = from, .receive = to};
    }
    if (count) CINCH_TRY(run_lanes(m, lanes, count, &mine.us));
    CINCH_TRY(tell(m, &mine, all));
    double in_us = all[m->rank[host]].us, out_us = 0;
    for (int i = 0; i < peers; i++)
        if (all[m->rank[peer[i]]].us > out_us) out_us = all[m->rank[peer[i]]].us;
    net->in[host] = in_us > 0 ? (double)in / in_us / 1e3 : 0;
    net->out[host] = out_us > 0 ? (double)out / out_us / 1e3 : 0;
    return cinchSuccess;
}

/* ---- all of it ---- */

static cinchResult_t measure_all(meter *m, seen *all) {
    CINCH_TRY(measure_inside(m, all));
    for (int s = 0; s < cinch_tune_steps(m->net->hosts); s++) CINCH_TRY(measure_step(m, s, all));
    for (int h = 0; h < m->net->hosts && m->net->hosts > 2; h++) CINCH_TRY(one_total(m, h, all));
    return cinchSuccess;
}

static cinchResult_t measure(struct cinchComm *comm, cinch_tune_net *net) {
    meter m = {.comm = comm, .net = net};
    m.out = malloc(MOST_BYTES);
    m.in = malloc(MOST_BYTES);
    m.piece = malloc(MOST_PIECES * sizeof *m.piece);
    m.rank = calloc((size_t)net->hosts, sizeof *m.rank);
    seen *all = malloc((size_t)comm->nranks * sizeof *all);
    cinchResult_t result = cinchSuccess;
    if (m.out && m.in && m.piece && m.rank && all) {
        for (int q = comm->nranks - 1; q >= 0; q--) m.rank[host_of(comm, q)] = q;
        result = measure_all(&m, all);
    } else {
        result = cinch_fail(cinchSystemError, "out of memory to measure the network");
    }
    free(m.out);
    free(m.in);
    free(m.piece);
    free(m.rank);
    free(all);
    return result;
}

cinchResult_t cinch_tune_network(struct cinchComm *comm, cinch_tune_net *net) {
    CINCH_TRY(cinch_tune_net_make(net, comm->hosts ? comm->hosts : 1));
    if (comm->nranks == 1) return cinchSuccess;
    cinchResult_t result = measure(comm, net);
    if (result == cinchSuccess) return cinchSuccess;
    cinch_tune_net_free(net);
    return cinch_comm_fail(comm, result);
}
