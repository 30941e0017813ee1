/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL's topology XML as it is written: small machines read, written and read again, graphs that it
 * cannot hold, a full disk; and the bandwidths behind both directions. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "topo/read_machine.h"

/* ---- bandwidths, each from the table that NCCL or RCCL has ---- */

START_TEST(bandwidths) {
    static const double lanes16[] = {3, 6, 12, 24, 48, 96}, gts[] = {2.5, 5, 8, 16, 32, 64};
    for (int i = 0; i < 6; i++) {
        ck_assert(cinch_pci_gbps(gts[i], 16) == lanes16[i]);
        ck_assert(cinch_pci_gbps(gts[i], 1) == lanes16[i] / 16);
    }
    ck_assert(cinch_pci_gbps(7, 16) == 0 && cinch_pci_gbps(8, 0) == 0);
    /* What hwloc writes for these links. */
    static const double raw[] = {4, 8, 15.753846, 31.507692, 63.015385};
    for (int i = 0; i < 5; i++) {
        ck_assert_double_eq_tol(cinch_pci_gbps_of_raw(raw[i]), lanes16[i], 1e-5);
        ck_assert_int_eq(cinch_pci_raw_is_old(raw[i]), i < 2);
    }
    ck_assert(cinch_pci_gbps_of_raw(0.25) == 0.1875);
    static const struct {
        int sm;
        double gbps;
    } nvlink[] = {{60, 18}, {70, 20},   {75, 20},    {80, 20},    {86, 12},
                  {89, 20}, {90, 20.6}, {100, 40.1}, {103, 40.1}, {120, 40.1}};
    for (size_t i = 0; i < sizeof nvlink / sizeof *nvlink; i++)
        ck_assert(cinch_nvlink_gbps(nvlink[i].sm) == nvlink[i].gbps);
    static const struct {
        const char *gcn;
        double gbps;
    } xgmi[] = {{"906", 24},    {"gfx908", 24}, {"910", 36},
                {"gfx90a", 36}, {"gfx942", 48}, {"950", 48}};
    for (size_t i = 0; i < sizeof xgmi / sizeof *xgmi; i++)
        ck_assert(cinch_xgmi_gbps(xgmi[i].gcn) == xgmi[i].gbps);
    static const struct {
        const char *arch, *vendor;
        int family, model;
        double gbps;
    } cpu[] = {{"x86_64", "GenuineIntel", 6, 79, 6},
               {"x86_64", "GenuineIntel", 6, 85, 10},
               {"x86_64", "GenuineIntel", 6, 106, 10},
               {"x86_64", "GenuineIntel", 6, 143, 22},
               {"x86_64", "GenuineIntel", 6, 207, 40},
               {"x86_64", "AuthenticAMD", 25, 1, 16},
               {"arm64", "", 0, 0, 6},
               {"aarch64", "", 0, 0, 6},
               {"ppc64le", "", 0, 0, 32},
               {"", "", 0, 0, 10}};
    for (size_t i = 0; i < sizeof cpu / sizeof *cpu; i++)
        ck_assert(cinch_cpu_gbps(cpu[i].arch, cpu[i].vendor, cpu[i].family, cpu[i].model) ==
                  cpu[i].gbps);
}
END_TEST

/* ---- written and read again ---- */

#define GEN5 "link_speed=\"32.0 GT/s PCIe\" link_width=\"16\""
#define PAIR                                                                                       \
    "<pci busid=\"0000:01:00.0\" " GEN5 "><gpu sm=\"86\"><nvlink target=\"0000:02:00.0\" "         \
    "count=\"4\" tclass=\"0x030200\"/></gpu></pci><pci busid=\"0000:02:00.0\" " GEN5 ">"           \
    "<gpu sm=\"86\"><nvlink target=\"0000:01:00.0\" count=\"4\" tclass=\"0x030200\"/></gpu></pci>"

static const char *const machines[] = {
    /* Two hosts whose parts have the same addresses: a link stays inside its host. */
    "<system><cpu numaid=\"0\" arch=\"arm64\" host_hash=\"1\">" PAIR "</cpu>"
    "<cpu numaid=\"0\" arch=\"arm64\" host_hash=\"2\">" PAIR "</cpu></system>",
    /* NVLinks to CPUs; two CPUs. */
    "<system><cpu numaid=\"0\" arch=\"ppc64\"><pci busid=\"a:0\" " GEN5 "><pci busid=\"b:0\" " GEN5
    "><gpu sm=\"70\"><nvlink target=\"c:0\" count=\"3\" "
    "tclass=\"0x068001\"/></gpu></pci></pci></cpu>"
    "<cpu numaid=\"8\" arch=\"ppc64\"/></system>",
    /* A coherent link beside PCI, a switch of NVLinks, a NIC with two ports and an odd name. */
    "<system><cpu numaid=\"3\" arch=\"arm64\"><pci busid=\"s:0\" " GEN5 ">"
    "<pci busid=\"g:0\" " GEN5 "><gpu sm=\"100\"><nvlink target=\"0:0\" count=\"18\" "
    "tclass=\"0x068000\"/><c2c bw=\"41000\" count=\"3\"/></gpu></pci></pci>"
    "<pci busid=\"n:0\" " GEN5 "><nic><net name=\"a&amp;&lt;b\" speed=\"400000\"/><net name=\"c\" "
    "speed=\"1000\"/></nic></pci></cpu></system>",
};

START_TEST(again) {
    cinch_topology t, back;
    char *text = NULL;
    size_t length = 0;
    ck_assert_int_eq(
        cinch_topology_read(machines[_i], strlen(machines[_i]), CINCH_TOPOLOGY_NCCL, "f", &t),
        cinchSuccess);
    ck_assert_msg(t.warnings == 0, "%s", t.warning ? t.warning[0] : "");
    FILE *to = open_memstream(&text, &length);
    ck_assert_int_eq(cinch_topology_write_nccl(&t.graph, to), cinchSuccess);
    fclose(to);
    ck_assert_msg(cinch_topology_read(text, length, CINCH_TOPOLOGY_AUTO, "g", &back) ==
                      cinchSuccess,
                  "%s", cinch_last_error());
    ck_assert_msg(back.warnings == 0, "%s", back.warning ? back.warning[0] : "");
    ck_assert_int_eq(back.graph.nodes, t.graph.nodes);
    ck_assert_int_eq(back.graph.arcs, t.graph.arcs);
    ck_assert_int_eq(back.nics, t.nics);
    for (int i = 0; i < t.graph.nodes; i++) {
        ck_assert_int_eq(back.graph.node[i].part, t.graph.node[i].part);
        ck_assert_int_eq(back.graph.node[i].host, t.graph.node[i].host);
    }
    for (int i = 0; i < t.graph.arcs; i++) {
        const cinch_arc *a = &t.graph.arc[i];
        int same = cinch_graph_find_arc(&back.graph, a->from, a->to);
        ck_assert_msg(same >= 0, "%s to %s", t.graph.node[a->from].name, t.graph.node[a->to].name);
        ck_assert_double_eq_tol(back.graph.arc[same].gbps, a->gbps, 1e-9 * a->gbps);
    }
    free(text);
    cinch_topology_free(&back);
    cinch_topology_free(&t);
}
END_TEST

/* Each pair has its own link, and none leads to the other host. */
START_TEST(hosts_apart) {
    cinch_topology t;
    ck_assert_int_eq(
        cinch_topology_read(machines[0], strlen(machines[0]), CINCH_TOPOLOGY_NCCL, "f", &t),
        cinchSuccess);
    ck_assert_int_eq(t.gpus, 4);
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            int arc = cinch_graph_find_arc(&t.graph, cinch_graph_gpu(&t.graph, a),
                                           cinch_graph_gpu(&t.graph, b));
            ck_assert_int_eq(arc >= 0, a != b && a / 2 == b / 2);
            if (arc >= 0) ck_assert(t.graph.arc[arc].gbps == 48);
        }
    cinch_topology_free(&t);
}
END_TEST

/* ---- graphs that the XML cannot hold ---- */

/* Nodes: g a GPU, c a CPU, p a PCI switch, n a NIC, w a network; links by PCI but for a network's.
 */
static const struct {
    const char *nodes;
    struct {
        int a, b;
        double back;
        cinch_link_class link;
    } links[4];
    const char *says;
} unfit[] = {
    {"g", {{0}}, "cannot hold x0: no PCI links lead from a CPU to it"},
    {"gg", {{0, 1, 1, CINCH_LINK_NVLINK}}, "cannot hold x0: no PCI links lead from a CPU"},
    {"cg", {{0, 1, 0, CINCH_LINK_PCI}}, "cannot hold x1: its PCI link goes one way only"},
    {"ccg",
     {{0, 1, 1, CINCH_LINK_SYS}, {0, 2, 1, CINCH_LINK_PCI}, {1, 2, 1, CINCH_LINK_PCI}},
     "cannot hold x2: it hangs from two PCI parts"},
    {"cc", {{0, 1, 1, CINCH_LINK_PCI}}, "cannot hold x0: a PCI link from CPU to CPU"},
    {"cc", {{0}}, "CPUs are joined to all others of their host, and to no more"},
    {"cgp",
     {{0, 1, 1, CINCH_LINK_PCI}, {1, 2, 1, CINCH_LINK_PCI}},
     "cannot hold x2: it hangs from a GPU or a NIC"},
    {"cn", {{0, 1, 1, CINCH_LINK_PCI}}, "cannot hold x1: a NIC without a network"},
    {"cng",
     {{0, 1, 1, CINCH_LINK_PCI}, {0, 2, 1, CINCH_LINK_PCI}, {1, 2, 1, CINCH_LINK_NET}},
     "cannot hold x1: a NIC's link that is neither PCI nor to a network"},
    {"cgg",
     {{0, 1, 1, CINCH_LINK_PCI}, {0, 2, 1, CINCH_LINK_PCI}, {1, 2, 1, CINCH_LINK_OTHER}},
     "cannot hold x1: a link that is neither PCI, NVLink nor C2C"},
    {"cgp",
     {{0, 1, 1, CINCH_LINK_PCI}, {0, 2, 1, CINCH_LINK_PCI}, {1, 2, 1, CINCH_LINK_NVLINK}},
     "cannot hold x1: an NVLink to neither a GPU, a switch of NVLinks nor a CPU"},
};
enum { UNFIT = sizeof unfit / sizeof *unfit };

START_TEST(refuses_to_write) {
    cinch_graph g = {0};
    char name[16];
    for (int i = 0; unfit[_i].nodes[i]; i++) {
        char what = unfit[_i].nodes[i];
        cinch_part part = what == 'c'   ? CINCH_PART_CPU
                          : what == 'p' ? CINCH_PART_PCI
                          : what == 'n' ? CINCH_PART_NIC
                                        : CINCH_PART_OTHER;
        sprintf(name, "x%d", i);
        ck_assert_int_eq(cinch_graph_add_node(&g, name,
                                              what == 'g' ? CINCH_NODE_GPU : CINCH_NODE_SWITCH,
                                              part, 0, NULL),
                         cinchSuccess);
    }
    for (int i = 0; i < 4 && unfit[_i].links[i].a != unfit[_i].links[i].b; i++)
        ck_assert_int_eq(cinch_graph_add_link(&g, unfit[_i].links[i].a, unfit[_i].links[i].b, 1,
                                              unfit[_i].links[i].back, unfit[_i].links[i].link),
                         cinchSuccess);
    char *text = NULL;
    size_t length = 0;
    FILE *to = open_memstream(&text, &length);
    ck_assert_int_eq(cinch_topology_write_nccl(&g, to), cinchInvalidArgument);
    ck_assert_msg(strstr(cinch_last_error(), unfit[_i].says) != NULL, "%s", cinch_last_error());
    fclose(to);
    ck_assert_int_eq(length, 0); /* nothing of it */
    free(text);
    cinch_graph_free(&g);
}
END_TEST

START_TEST(full_disk) {
    cinch_graph g = {0};
    FILE *to = fopen("/dev/full", "w");
    if (!to) return;
    ck_assert_int_eq(cinch_topology_write_nccl(&g, to), cinchSystemError);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "cannot write a topology's XML: No space"));
    fclose(to);
}
END_TEST

int main(void) {
    cinch_log_threshold = CINCH_LOG_NONE;
    Suite *suite = suite_create("readers_write");
    TCase *write = tcase_create("write");
    tcase_add_test(write, bandwidths);
    if (cinch_topology_reads_xml()) {
        tcase_add_loop_test(write, again, 0, (int)(sizeof machines / sizeof *machines));
        tcase_add_test(write, hosts_apart);
    }
    tcase_add_loop_test(write, refuses_to_write, 0, UNFIT);
    tcase_add_test(write, full_disk);
    suite_add_tcase(suite, write);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
