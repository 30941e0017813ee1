/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of calls alone, of products alone, and of both. */
#include "perf/overlap.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"

enum { SAMPLES = 7, TRIES = 5, MOST = 1 << 20 };

#define ROUND_US 20000.0
/* Between a half and all, where both ends have as much room. */
#define SHARE 0.75

enum { COMM, COMPUTE, ALL, TIMES };

typedef struct bench {
    const cinch_overlap_calls *calls;
    cinch_product *product;
} bench;

static double since(uint64_t start) {
    return (double)(cinch_now_ns() - start) / 1e3;
}

/* The slowest rank's times. The all-reduce before makes all begin together. */
static cinchResult_t play(const bench *b, int calls, int products, double us[TIMES]) {
    const cinch_overlap_calls *c = b->calls;
    us[COMM] = us[COMPUTE] = us[ALL] = 0;
    CINCH_TRY(cinchAllReduce(us, us, 1, cinchFloat64, cinchMax, c->exact, NULL));
    uint64_t start = cinch_now_ns();
    for (int i = 0; i < calls; i++) CINCH_TRY(c->start(c->arg));
    if (products) {
        CINCH_TRY(cinch_product_start(b->product, products));
        CINCH_TRY(cinch_product_finish(b->product));
        us[COMPUTE] = since(start);
    }
    if (calls) {
        CINCH_TRY(c->finish(c->arg));
        us[COMM] = since(start); /* with products: not before those */
    }
    us[ALL] = since(start);
    return cinchAllReduce(us, us, TIMES, cinchFloat64, cinchMax, c->exact, NULL);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of each time, after a round that does not count. */
static cinchResult_t rounds(const bench *b, int calls, int products, double us[TIMES]) {
    double one[TIMES], seen[TIMES][SAMPLES];
    CINCH_TRY(play(b, calls, products, one));
    for (int i = 0; i < SAMPLES; i++) {
        CINCH_TRY(play(b, calls, products, one));
        for (int t = 0; t < TIMES; t++) seen[t][i] = one[t];
    }
    for (int t = 0; t < TIMES; t++) {
        qsort(seen[t], SAMPLES, sizeof seen[t][0], ascending);
        us[t] = seen[t][SAMPLES / 2];
    }
    return cinchSuccess;
}

/* That makes the time a `wanted` of what it is with `now`. */
static int scaled(int now, double wanted) {
    double n = rint(now * wanted);
    return n < 1 ? 1 : n > MOST ? MOST : (int)n;
}

/* All ranks see the same times, so all take the same numbers. */
static cinchResult_t find_sizes(const bench *b, cinch_overlap *o) {
    double us[TIMES];
    CINCH_TRY(play(b, 1, 0, us)); /* the first of each may load and connect */
    CINCH_TRY(play(b, 0, 1, us));
    o->calls = o->products = 1;
    CINCH_TRY(rounds(b, 1, 0, us));
    o->calls = scaled(1, ceil(ROUND_US / fmax(us[COMM], 0.01)));
    CINCH_TRY(rounds(b, 0, 1, us));
    /* A product longer than a round, as where it is emulated, wants more calls beside it. */
    if (us[COMPUTE] > ROUND_US) o->calls = scaled(o->calls, SHARE * us[COMPUTE] / ROUND_US);
    o->compute_us = us[COMPUTE];
    for (int i = 0; i < TRIES && !o->sized; i++) {
        CINCH_TRY(rounds(b, o->calls, 0, us));
        o->comm_us = us[COMM];
        o->products = scaled(o->products, o->comm_us / SHARE / o->compute_us);
        CINCH_TRY(rounds(b, 0, o->products, us));
        o->compute_us = us[COMPUTE];
        o->sized = o->comm_us >= 0.5 * o->compute_us && o->comm_us <= o->compute_us;
        if (!o->sized && o->products == 1)
            o->calls = scaled(o->calls, SHARE * o->compute_us / o->comm_us);
    }
    return cinchSuccess;
}

cinchResult_t cinch_overlap_measure(const cinch_overlap_calls *calls, cinch_product *product,
                                    cinch_overlap *out) {
    const bench b = {calls, product};
    double us[TIMES];
    *out = (cinch_overlap){.sized = false};
    CINCH_TRY(find_sizes(&b, out));
    CINCH_TRY(rounds(&b, out->calls, out->products, us));
    out->together_us = us[ALL];
    out->beside_us = us[COMPUTE];
    out->hidden = (out->comm_us + out->compute_us - out->together_us) / out->comm_us;
    out->slowed = out->beside_us / out->compute_us - 1;
    int wrong;
    CINCH_TRY(cinch_product_check(product, &out->right));
    wrong = !out->right;
    CINCH_TRY(cinchAllReduce(&wrong, &wrong, 1, cinchInt32, cinchMax, calls->exact, NULL));
    out->right = !wrong;
    return cinchSuccess;
}
