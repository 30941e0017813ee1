/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of detection have in common: the machine at sys_root as it is detected, and what
 * they ask of it. */
#ifndef CINCH_TESTS_DETECT_WORDS_H_
#define CINCH_TESTS_DETECT_WORDS_H_

#include <check.h>
#include <math.h>

#include "tests/fake_sys.h"
#include "topo/detect.h"

static cinch_topology t;

/* The machine at sys_root, with that NVML ("" none). */
static inline void detect(const char *library) {
    cinch_detect_options options = {.root = sys_root, .nvml = library};
    cinch_topology_free(&t);
    ck_assert_msg(cinch_detect(&options, &t) == cinchSuccess, "%s", cinch_last_error());
}

static inline void finish(void) {
    cinch_topology_free(&t);
    sys_end();
}

static inline double gbps(const char *a, const char *b) {
    int from = cinch_graph_find(&t.graph, a), to = cinch_graph_find(&t.graph, b);
    int arc = cinch_graph_find_arc(&t.graph, from, to);
    int back = cinch_graph_find_arc(&t.graph, to, from);
    ck_assert_int_eq(arc < 0, back < 0);
    if (arc < 0) return 0;
    ck_assert(t.graph.arc[arc].gbps == t.graph.arc[back].gbps);
    return t.graph.arc[arc].gbps;
}

#define ck_gbps(a, b, want) ck_assert_double_eq_tol(gbps(a, b), want, 1e-9)

/* Warnings that say so. */
static inline int warned(const char *words) {
    int count = 0;
    for (int i = 0; i < t.warnings; i++) count += strstr(t.warning[i], words) != NULL;
    return count;
}

static inline void show_warnings(void) {
    for (int i = 0; i < t.warnings; i++) fprintf(stderr, "  %s\n", t.warning[i]);
}

#define ck_warned(words)                                                                           \
    do {                                                                                           \
        if (warned(words) != 1) show_warnings();                                                   \
        ck_assert_msg(warned(words) == 1, "%d warnings say \"%s\"", warned(words), words);         \
    } while (0)
#define ck_quiet()                                                                                 \
    do {                                                                                           \
        show_warnings();                                                                           \
        ck_assert_int_eq(t.warnings, 0);                                                           \
    } while (0)

#endif
