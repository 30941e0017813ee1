/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap for shortest paths: the smallest key first, and the smaller id among equal ones, so
 * that the order never depends on chance. Whoever owns it gives it enough room. */
#ifndef CINCH_TOPO_PACK_HEAP_H_
#define CINCH_TOPO_PACK_HEAP_H_

#include <stdbool.h>

typedef struct {
    double key;
    int id;
} cinch_pack_item;

typedef struct {
    cinch_pack_item *item;
    int count;
} cinch_pack_heap;

static inline bool cinch_pack_heap_less(cinch_pack_item a, cinch_pack_item b) {
    return a.key < b.key || (a.key == b.key && a.id < b.id);
}

static inline void cinch_pack_heap_push(cinch_pack_heap *heap, double key, int id) {
    cinch_pack_item new = {key, id};
    int i = heap->count++;
    while (i > 0 && cinch_pack_heap_less(new, heap->item[(i - 1) / 2])) {
        heap->item[i] = heap->item[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->item[i] = new;
}

static inline cinch_pack_item cinch_pack_heap_pop(cinch_pack_heap *heap) {
    cinch_pack_item top = heap->item[0], last = heap->item[--heap->count];
    int i = 0;
    for (int child = 1; child < heap->count; child = 2 * i + 1) {
        if (child + 1 < heap->count &&
            cinch_pack_heap_less(heap->item[child + 1], heap->item[child]))
            child++;
        if (!cinch_pack_heap_less(heap->item[child], last)) break;
        heap->item[i] = heap->item[child];
        i = child;
    }
    heap->item[i] = last;
    return top;
}

#endif
