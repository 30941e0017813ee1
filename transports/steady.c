/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that stays where it is: a list of what callers have registered, then the heap. */
#include "transports/steady.h"

#include <stdlib.h>
#include <string.h>

#include "base/heap.h"

/* Serials of registrations are odd, those of the heap even. */
struct cinch_steady_list {
    cinch_steady *at;
    size_t count, room;
    uint64_t given, changes;
};

cinchResult_t cinch_net_keep(cinch_net *net, void *data, size_t bytes) {
    struct cinch_steady_list *list = net->steady;
    if (!list) net->steady = list = calloc(1, sizeof *list);
    if (list && list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        cinch_steady *grown = realloc(list->at, room * sizeof *grown);
        if (!grown) list = NULL;
        if (list) {
            list->at = grown;
            list->room = room;
        }
    }
    if (!list) return cinch_fail(cinchSystemError, "out of memory for a registration");
    list->at[list->count++] = (cinch_steady){data, bytes, 2 * list->given++ + 1};
    list->changes++; /* a look may say another serial now: it is compared before use, not amid it */
    return cinchSuccess;
}

void cinch_net_release(cinch_net *net, const void *data, size_t bytes) {
    struct cinch_steady_list *list = net->steady;
    for (size_t i = 0; list && i < list->count; i++) {
        if (list->at[i].data != data || list->at[i].bytes != bytes) continue;
        list->at[i] = list->at[--list->count];
        list->changes++;
        return;
    }
}

bool cinch_net_steady(const cinch_net *net, const void *data, size_t bytes, cinch_steady *out) {
    const struct cinch_steady_list *list = net->steady;
    const unsigned char *first = data;
    for (size_t i = 0; list && i < list->count; i++) {
        const cinch_steady *s = &list->at[i];
        size_t at = (size_t)(first - s->data);
        if (first < s->data || at > s->bytes || bytes > s->bytes - at) continue;
        *out = *s;
        return true;
    }
    void *begin;
    if (!cinch_heap_find(data, bytes, &begin, &out->bytes, &out->serial)) return false;
    out->data = begin;
    out->serial *= 2;
    return true;
}

uint64_t cinch_net_steady_changes(const cinch_net *net) {
    return (net->steady ? net->steady->changes : 0) + cinch_heap_releases();
}

void cinch_net_forget_steady(cinch_net *net) {
    if (net->steady) free(net->steady->at);
    free(net->steady);
    net->steady = NULL;
}
