/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of trees that a plan is packed from: answers to prices, and what they load. */
#include "topo/pack.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 1 << 10 };

static cinchResult_t out_of_memory(void) {
    return cinch_fail(cinchSystemError, "out of memory for a plan's trees");
}

/* Arcs that share a link are one row, each taking of it what its own bandwidth says. */
static cinchResult_t share_rows(const cinch_pack_net *net, cinch_pack *pack) {
    int most = 0;
    for (int a = 0; a < net->arcs; a++)
        if (net->shared[a] > most) most = net->shared[a];
    int *row = malloc(((size_t)most + 1) * sizeof(int));
    if (!row) return out_of_memory();
    for (int i = 0; i <= most; i++) row[i] = -1;
    for (int a = 0; a < net->arcs; a++) {
        int group = net->shared[a], r = group > 0 ? row[group] : -1;
        if (r < 0) pack->room[r = pack->rows++] = net->cap[a];
        if (group > 0) row[group] = r;
        if (net->cap[a] < pack->room[r]) pack->room[r] = net->cap[a];
        pack->row_of[a] = r;
    }
    for (int a = 0; a < net->arcs; a++) pack->scale[a] = pack->room[pack->row_of[a]] / net->cap[a];
    free(row);
    return cinchSuccess;
}

static cinchResult_t make_rows(const cinch_pack_net *net, cinch_pack *pack) {
    size_t arcs = (size_t)net->arcs + 1;
    pack->row_of = malloc(arcs * sizeof(int));
    pack->room = malloc(arcs * sizeof(double));
    pack->scale = malloc(arcs * sizeof(double));
    pack->best = calloc(arcs, sizeof(double));
    pack->dense = calloc(arcs, sizeof(double));
    pack->arc_price = malloc(arcs * sizeof(double));
    pack->bucket = malloc(FIRST_BUCKETS * sizeof(int));
    if (!pack->row_of || !pack->room || !pack->scale || !pack->best || !pack->dense ||
        !pack->arc_price || !pack->bucket)
        return out_of_memory();
    pack->buckets = FIRST_BUCKETS;
    for (int i = 0; i < pack->buckets; i++) pack->bucket[i] = -1;
    if (net->shares) return share_rows(net, pack);
    for (int a = 0; a < net->arcs; a++) {
        bool first = pack->mode != CINCH_PACK_BOTH || net->twin[a] > a;
        pack->row_of[a] = first ? pack->rows : pack->row_of[net->twin[a]];
        if (first) pack->room[pack->rows++] = net->cap[a];
        pack->scale[a] = 1;
    }
    return cinchSuccess;
}

cinchResult_t cinch_pack_make(const cinch_pack_net *net, cinch_pack_mode mode, int root,
                              cinch_pack *pack) {
    *pack =
        (cinch_pack){.net = net, .mode = mode, .root = root, .bound = HUGE_VAL, .cut = HUGE_VAL};
    pack->groups = mode == CINCH_PACK_ALL ? net->ranks : 1;
    CINCH_TRY(make_rows(net, pack));
    if (mode == CINCH_PACK_BOTH) CINCH_TRY(cinch_pack_search_make(net, &pack->search));
    if (mode != CINCH_PACK_BOTH) CINCH_TRY(cinch_pack_arbor_make(net, false, &pack->outward));
    if (mode == CINCH_PACK_PAIR) CINCH_TRY(cinch_pack_arbor_make(net, true, &pack->inward));
    return cinchSuccess;
}

static void free_tree(cinch_pack_tree *tree) {
    cinch_pack_half_free(&tree->down);
    cinch_pack_half_free(&tree->up);
    free(tree->use); /* and row, behind it */
    *tree = (cinch_pack_tree){0};
}

void cinch_pack_free(cinch_pack *pack) {
    for (int t = 0; t < pack->trees; t++) free_tree(&pack->tree[t]);
    free(pack->tree);
    free(pack->row_of);
    free(pack->room);
    free(pack->scale);
    free(pack->best);
    free(pack->dense);
    free(pack->arc_price);
    free(pack->bucket);
    free(pack->next);
    cinch_pack_search_free(pack->search);
    cinch_pack_arbor_free(pack->outward);
    cinch_pack_arbor_free(pack->inward);
    *pack = (cinch_pack){0};
}

/* ---- loads ---- */

static int load_arcs(cinch_pack *pack, const int *arc, int arcs, double amount, int *row,
                     int rows) {
    for (int i = 0; i < arcs; i++) {
        int r = pack->row_of[arc[i]];
        if (pack->dense[r] == 0) row[rows++] = r;
        pack->dense[r] += amount * pack->scale[arc[i]];
    }
    return rows;
}

static cinchResult_t load_tree(cinch_pack *pack, cinch_pack_tree *tree) {
    int ranks = pack->net->ranks, rows = 0;
    int *row = malloc(((size_t)pack->rows + 1) * sizeof(int));
    if (!row) return out_of_memory();
    rows = load_arcs(pack, tree->down.arc, tree->down.first[ranks], 1, row, rows);
    if (tree->up.parent) rows = load_arcs(pack, tree->up.arc, tree->up.first[ranks], 1, row, rows);
    /* The doubles first, for their alignment. */
    tree->use = malloc(((size_t)rows + 1) * (sizeof(double) + sizeof(int)));
    if (tree->use) {
        tree->row = (int *)(tree->use + rows);
        tree->uses = rows;
    }
    for (int i = 0; i < rows; i++) {
        if (tree->use) {
            tree->row[i] = row[i];
            tree->use[i] = pack->dense[row[i]] / pack->room[row[i]];
        }
        pack->dense[row[i]] = 0;
    }
    free(row);
    return tree->use ? cinchSuccess : out_of_memory();
}

double cinch_pack_bound(const cinch_pack *pack) {
    return pack->cut < pack->bound ? pack->cut : pack->bound;
}

double cinch_pack_load(const cinch_pack *pack, double *load) {
    double most = 0;
    memset(load, 0, (size_t)pack->rows * sizeof *load);
    for (int t = 0; t < pack->trees; t++) {
        const cinch_pack_tree *tree = &pack->tree[t];
        if (tree->weight <= 0) continue;
        for (int i = 0; i < tree->uses; i++) load[tree->row[i]] += tree->weight * tree->use[i];
    }
    for (int r = 0; r < pack->rows; r++)
        if (load[r] > most) most = load[r];
    return most;
}

/* ---- the pool ---- */

static bool same_half(const cinch_pack_half *a, const cinch_pack_half *b, int ranks) {
    if (!a->parent || !b->parent) return !a->parent && !b->parent;
    size_t head = (2 * (size_t)ranks + 1) * sizeof(int);
    if (memcmp(a->parent, b->parent, head) != 0) return false;
    return memcmp(a->arc, b->arc, (size_t)a->first[ranks] * sizeof(int)) == 0;
}

static uint64_t hash_half(uint64_t h, const cinch_pack_half *half, int ranks) {
    if (!half->parent) return h;
    size_t count = 2 * (size_t)ranks + 1 + (size_t)half->first[ranks];
    for (size_t i = 0; i < count; i++) {
        h = (h ^ (uint64_t)(unsigned)half->parent[i]) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return h;
}

/* Room for one more tree. */
static cinchResult_t grow(cinch_pack *pack) {
    if (pack->trees < pack->tree_room) return cinchSuccess;
    int room = 2 * pack->tree_room + 64;
    cinch_pack_tree *tree = realloc(pack->tree, (size_t)room * sizeof *tree);
    if (!tree) return out_of_memory();
    pack->tree = tree;
    int *next = realloc(pack->next, (size_t)room * sizeof *next);
    if (!next) return out_of_memory();
    pack->next = next;
    pack->tree_room = room;
    return cinchSuccess;
}

static int *bucket_of(cinch_pack *pack, const cinch_pack_tree *tree) {
    int ranks = pack->net->ranks;
    uint64_t h = hash_half((uint64_t)tree->group + 1, &tree->down, ranks);
    return &pack->bucket[hash_half(h, &tree->up, ranks) % (uint64_t)pack->buckets];
}

void cinch_pack_compact(cinch_pack *pack, int *moved) {
    int kept = 0;
    for (int b = 0; b < pack->buckets; b++) pack->bucket[b] = -1;
    for (int t = 0; t < pack->trees; t++) {
        moved[t] = pack->tree[t].weight > 0 ? kept : -1;
        if (moved[t] < 0) {
            free_tree(&pack->tree[t]);
            continue;
        }
        pack->tree[kept] = pack->tree[t];
        int *bucket = bucket_of(pack, &pack->tree[kept]);
        pack->next[kept] = *bucket;
        *bucket = kept++;
    }
    pack->trees = kept;
}

cinchResult_t cinch_pack_add(cinch_pack *pack, cinch_pack_tree tree, int *number) {
    int ranks = pack->net->ranks;
    int *bucket = bucket_of(pack, &tree);
    for (*number = *bucket; *number >= 0; *number = pack->next[*number]) {
        const cinch_pack_tree *old = &pack->tree[*number];
        if (old->group == tree.group && same_half(&old->down, &tree.down, ranks) &&
            same_half(&old->up, &tree.up, ranks)) {
            free_tree(&tree);
            return cinchSuccess;
        }
    }
    cinchResult_t result = grow(pack);
    if (result == cinchSuccess) result = load_tree(pack, &tree);
    if (result != cinchSuccess) {
        free_tree(&tree);
        return result;
    }
    *number = pack->trees++;
    pack->tree[*number] = tree;
    pack->next[*number] = *bucket;
    *bucket = *number;
    return cinchSuccess;
}

/* ---- answers ---- */

static cinchResult_t respond_pair(cinch_pack *pack, cinch_pack_tree *tree) {
    CINCH_TRY(cinch_pack_arbor_contract(pack->outward, pack->arc_price));
    CINCH_TRY(cinch_pack_arbor_contract(pack->inward, pack->arc_price));
    double least = HUGE_VAL;
    for (int r = 0; r < pack->net->ranks; r++) {
        double cost =
            cinch_pack_arbor_cost(pack->outward, r) + cinch_pack_arbor_cost(pack->inward, r);
        if (cost < least) {
            least = cost;
            tree->root = r;
        }
    }
    CINCH_TRY(cinch_pack_arbor_tree(pack->outward, tree->root, &tree->down));
    cinchResult_t result = cinch_pack_arbor_tree(pack->inward, tree->root, &tree->up);
    if (result != cinchSuccess) free_tree(tree);
    return result;
}

static cinchResult_t respond_one(cinch_pack *pack, int group, cinch_pack_tree *tree) {
    double cost;
    *tree = (cinch_pack_tree){.group = group};
    switch (pack->mode) {
    case CINCH_PACK_BOTH:
        CINCH_TRY(cinch_pack_spanning(pack->search, pack->arc_price, &tree->down, &cost));
        if (!tree->down.parent)
            return cinch_fail(cinchInternalError,
                              "GPUs that links join one way only share no tree");
        for (int r = 0; r < pack->net->ranks; r++)
            if (tree->down.parent[r] < 0) tree->root = r;
        return cinchSuccess;
    case CINCH_PACK_PAIR:
        return respond_pair(pack, tree);
    default:
        tree->root = pack->mode == CINCH_PACK_ROOTED ? pack->root : group;
        return cinch_pack_arbor_tree(pack->outward, tree->root, &tree->down);
    }
}

/* What any forest pays at these prices is at least the sum of the cheapest trees, and at most what
 * all links together are worth. */
static void prove(cinch_pack *pack, const double *price, const int *chosen) {
    double worth = 0, cost = 0;
    for (int r = 0; r < pack->rows; r++) worth += price[r];
    for (int g = 0; g < pack->groups; g++) {
        const cinch_pack_tree *tree = &pack->tree[chosen[g]];
        double one = 0;
        for (int i = 0; i < tree->uses; i++) one += tree->use[i] * price[tree->row[i]];
        cost += one / pack->groups;
    }
    if (!(cost > 0) || worth / cost >= pack->bound) return;
    pack->bound = worth / cost;
    for (int r = 0; r < pack->rows; r++) pack->best[r] = price[r] / worth;
}

cinchResult_t cinch_pack_respond(cinch_pack *pack, const double *price, int *chosen) {
    for (int a = 0; a < pack->net->arcs; a++) {
        int r = pack->row_of[a];
        pack->arc_price[a] = price[r] / pack->room[r] * pack->scale[a];
    }
    if (pack->mode == CINCH_PACK_ALL || pack->mode == CINCH_PACK_ROOTED)
        CINCH_TRY(cinch_pack_arbor_contract(pack->outward, pack->arc_price));
    for (int g = 0; g < pack->groups; g++) {
        cinch_pack_tree tree;
        CINCH_TRY(respond_one(pack, g, &tree));
        CINCH_TRY(cinch_pack_add(pack, tree, &chosen[g]));
    }
    prove(pack, price, chosen);
    return cinchSuccess;
}
