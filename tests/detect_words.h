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

/* Two CPUs; below the first a PCI switch with GPUs at 03 and 04 and a NIC, below the second GPUs at
 * 83 and 84 at its root ports. All of generation 4 with 16 lanes. */
static inline void four_gpus(void) {
    sys_begin(2);
    const char *root = sys_bridge("pci0000:00", "0000:00:01.0", GEN4, "16", 0);
    const char *up = sys_bridge(root, "0000:01:00.0", GEN4, "16", 0);
    const char *down = sys_bridge(up, "0000:02:00.0", GEN4, "16", 0);
    sys_gpu(down, "0000:03:00.0", GEN4, "16", 0);
    down = sys_bridge(up, "0000:02:01.0", GEN4, "16", 0);
    sys_gpu(down, "0000:04:00.0", GEN4, "16", 0);
    down = sys_bridge(up, "0000:02:02.0", GEN4, "16", 0);
    const char *nic = sys_pci(down, "0000:05:00.0", "0x020000", "0x15b3", GEN4, "16", 0);
    sys_net(nic, "eth0", "100000", "up");
    root = sys_bridge("pci0000:80", "0000:80:01.0", GEN4, "16", 1);
    sys_gpu(root, "0000:83:00.0", GEN4, "16", 1);
    root = sys_bridge("pci0000:80", "0000:80:02.0", GEN4, "16", 1);
    sys_gpu(root, "0000:84:00.0", GEN4, "16", 1);
}

#endif
