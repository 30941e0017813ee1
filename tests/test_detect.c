/* SPDX-License-Identifier: Apache-2.0 */
/* Detection, on machines that each test describes by a folder as /sys and a fake NVML: what is
 * found, how fast it is said to be, and a warning for each thing that is wrong or cannot be seen.
 */
#include <check.h>
#include <math.h>

#include "tests/detect_words.h"

START_TEST(test_parts) {
    four_gpus();
    detect("");
    ck_assert_int_eq(t.format, CINCH_TOPOLOGY_DETECTED);
    ck_assert_int_eq(t.gpus, 4);
    ck_assert_int_eq(t.nics, 1);
    ck_gbps("gpu0", "pci:0000:01:00.0", 24);
    ck_gbps("gpu1", "pci:0000:01:00.0", 24);
    ck_gbps("eth0", "pci:0000:01:00.0", 24);
    ck_gbps("pci:0000:01:00.0", "cpu0", 24);
    ck_gbps("gpu2", "cpu1", 24);
    ck_gbps("gpu3", "cpu1", 24);
    ck_gbps("cpu0", "cpu1", 22); /* family 6, model 143 */
    ck_gbps("eth0", "net:eth0", 12.5);
    ck_assert_int_eq(t.graph.nodes, 4 + 2 + 1 + 1 + 1);
    int nic = cinch_graph_find(&t.graph, "eth0"), net = cinch_graph_find(&t.graph, "net:eth0");
    int cpu = cinch_graph_find(&t.graph, "cpu1"), pci = cinch_graph_find(&t.graph, "gpu2");
    ck_assert_int_eq(t.graph.node[nic].part, CINCH_PART_NIC);
    ck_assert_int_eq(t.graph.node[net].part, CINCH_PART_NET);
    ck_assert_int_eq(t.graph.node[cpu].part, CINCH_PART_CPU);
    ck_assert_int_eq(t.graph.arc[cinch_graph_find_arc(&t.graph, pci, cpu)].link, CINCH_LINK_PCI);
    ck_assert_int_eq(t.warnings, 1);
    ck_warned("what NVLinks 4 NVIDIA GPUs have cannot be seen");
    finish();
}
END_TEST

/* What a link can, not what it does while it idles; the slower of its ends. */
START_TEST(test_speed_is_the_most) {
    sys_begin(1);
    const char *root = sys_bridge("pci0000:00", "0000:00:01.0", GEN5, "8", 0);
    const char *gpu = sys_gpu(root, "0000:01:00.0", GEN4, "16", 0);
    char path[600];
    snprintf(path, sizeof path, "sys/devices/%s", gpu);
    sys_put_in(path, "current_link_speed", "2.5 GT/s PCIe");
    sys_put_in(path, "current_link_width", "8");
    root = sys_bridge("pci0000:00", "0000:00:02.0", GEN4, "16", 0);
    gpu = sys_gpu(root, "0000:02:00.0", GEN4, "16", 0);
    snprintf(path, sizeof path, "sys/devices/%s", gpu);
    sys_put_in(path, "current_link_speed", "2.5 GT/s PCIe");
    sys_put_in(path, "current_link_width", "4");
    detect("");
    ck_gbps("gpu0", "cpu0", 12); /* x8 of generation 4 */
    ck_gbps("gpu1", "cpu0", 24);
    ck_warned("of 0000:02:00.0 runs x4 now and can x16");
    ck_assert_int_eq(t.warnings, 2);
    finish();
}
END_TEST

START_TEST(test_speed_unknown) {
    sys_begin(1);
    sys_gpu("pci0000:00", "0000:00:05.0", "Unknown", "255", 0);
    sys_gpu("pci0000:00", "0000:00:06.0", NULL, NULL, 0);
    sys_gpu("pci0000:00", "0000:00:07.0", "17.0 GT/s", "16", 0);
    detect("");
    ck_assert_int_eq(t.gpus, 3);
    ck_gbps("gpu0", "cpu0", 12);
    ck_gbps("gpu1", "cpu0", 12);
    ck_gbps("gpu2", "cpu0", 12);
    ck_warned("without a readable speed and width: 3, the first of them that of 0000:00:05.0");
    finish();
}
END_TEST

/* The checks of files hold here as well: an emulated bridge, a GPU that is far slower. */
START_TEST(test_sane) {
    sys_begin(1);
    const char *root = sys_bridge("pci0000:00", "0000:00:01.0", "2.5 GT/s PCIe", "1", 0);
    const char *up = sys_bridge(root, "0000:01:00.0", "2.5 GT/s PCIe", "1", 0);
    const char *down = sys_bridge(up, "0000:02:00.0", GEN4, "16", 0);
    sys_gpu(down, "0000:03:00.0", GEN4, "16", 0);
    root = sys_bridge("pci0000:00", "0000:00:02.0", GEN4, "16", 0);
    sys_gpu(root, "0000:04:00.0", GEN4, "16", 0);
    root = sys_bridge("pci0000:00", "0000:00:03.0", "2.5 GT/s PCIe", "1", 0);
    sys_gpu(root, "0000:05:00.0", GEN4, "16", 0);
    detect("");
    ck_warned("the PCI link of pci:0000:01:00.0, x1 of 2.5 GT/s, is far slower than that of the "
              "GPU below it, as when it is idle or emulated: 24 GB/s");
    ck_warned("the PCI link of GPU 0000:05:00.0, x1 of 2.5 GT/s, is far slower than a peer's");
    ck_gbps("pci:0000:01:00.0", "cpu0", 24);
    ck_gbps("gpu2", "cpu0", 24);
    finish();
}
END_TEST

/* Which CPU: by number, by the CPUs that are near, by nothing. Nodes of memory alone are none. */
START_TEST(test_near) {
    sys_begin(3);
    sys_put("sys/devices/system/node/node7/cpulist", "%s", "");
    const char *gpu = sys_gpu("pci0000:00", "0000:00:05.0", GEN4, "16", 2);
    char path[600];
    gpu = sys_gpu("pci0000:00", "0000:00:06.0", GEN4, "16", -1);
    snprintf(path, sizeof path, "sys/devices/%s", gpu);
    sys_put_in(path, "local_cpulist", "2-3");
    gpu = sys_gpu("pci0000:00", "0000:00:07.0", GEN4, "16", -1);
    snprintf(path, sizeof path, "sys/devices/%s", gpu);
    sys_put_in(path, "local_cpulist", "0-5"); /* all of them */
    gpu = sys_gpu("pci0000:00", "0000:00:08.0", GEN4, "16", 7);
    snprintf(path, sizeof path, "sys/devices/%s", gpu);
    sys_put_in(path, "local_cpulist", "4");
    detect("");
    ck_gbps("gpu0", "cpu2", 24);
    ck_gbps("gpu1", "cpu1", 24);
    ck_gbps("gpu2", "cpu0", 24);
    ck_gbps("gpu3", "cpu2", 24);
    ck_assert_int_eq(cinch_graph_find(&t.graph, "cpu7"), -1);
    ck_warned("PCI parts that do not tell which CPU they are at: 1");
    finish();
}
END_TEST

START_TEST(test_kinds_of_cpus) {
    static const struct {
        const char *text;
        double gbps;
    } cpus[] = {{"vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1", 16},
                {"vendor_id : GenuineIntel\ncpu family : 6\nmodel name : x\nmodel : 85", 10},
                {"processor : 0\nCPU implementer\t: 0x41", 6},
                {"processor : 0\ncpu : POWER9, altivec supported", 32},
                {"", 10}};
    sys_begin(2);
    sys_put("proc/cpuinfo", "%s", cpus[_i].text);
    detect("");
    ck_gbps("cpu0", "cpu1", cpus[_i].gbps);
    ck_quiet();
    finish();
}
END_TEST

START_TEST(test_kinds_of_gpus) {
    sys_begin(1);
    sys_pci("pci0000:00", "0000:00:01.0", "0x030000", "0x1a03", NULL, NULL, 0); /* a BMC's */
    sys_pci("pci0000:00", "0000:00:02.0", "0x030000", "0x10de", GEN4, "16", 0);
    sys_pci("pci0000:00", "0000:00:03.0", "0x040300", "0x10de", GEN4, "16", 0); /* its sound */
    sys_pci("pci0000:00", "0000:00:04.0", "0x068000", "0x10de", GEN3, "2", 0);  /* NV switch */
    sys_pci("pci0000:00", "0000:00:05.0", "0x038000", "0x1002", GEN4, "16", 0);
    sys_pci("pci0000:00", "0000:00:06.0", "0x120000", "0x1002", GEN5, "16", 0);
    const char *gpu = sys_pci("pci0000:00", "0000:00:06.1", "0x120000", "0x1002", GEN5, "16", 0);
    char path[600], to[600];
    snprintf(path, sizeof path, "sys/devices/%s/physfn", gpu);
    snprintf(to, sizeof to, "sys/devices/pci0000:00/0000:00:06.0");
    sys_link(path, to);
    detect("");
    ck_assert_int_eq(t.gpus, 3);
    ck_gbps("gpu1", "cpu0", 24);
    ck_gbps("gpu2", "cpu0", 48);
    ck_warned("what NVLinks 1 NVIDIA GPUs have");
    finish();
}
END_TEST

/* ---- what is missing, and what is hostile ---- */

START_TEST(test_missing) {
    sys_empty();
    detect(NULL);
    ck_warned("/sys cannot be seen: one CPU is assumed");
    ck_assert_int_eq(t.warnings, 1);
    ck_assert_int_eq(t.graph.nodes, 1);
    ck_assert_int_eq(t.graph.node[0].part, CINCH_PART_CPU);
    ck_assert_str_eq(t.graph.node[0].name, "cpu0");
    sys_put("sys/devices/system/cpu/online", "0");
    detect(NULL);
    ck_warned("NUMA nodes cannot be seen: one CPU is assumed");
    finish();
}
END_TEST

START_TEST(test_root_is_no_folder) {
    cinch_detect_options options = {.root = "/nowhere/at/all"};
    cinch_topology_free(&t);
    ck_assert_int_eq(cinch_detect(&options, &t), cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "/nowhere/at/all"));
    ck_assert_int_eq(t.graph.nodes + t.warnings, 0);
}
END_TEST

/* Files that are none, links that lead out, numbers that are none, and folders without end. */
START_TEST(test_hostile) {
    char path[600], text[8192];
    sys_begin(2);
    snprintf(path, sizeof path, "%s/sys/devices/system/node/node0/cpulist", sys_root);
    ck_assert_int_eq(remove(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* would be waited for */
    memset(text, '7', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    const char *gpu = sys_gpu("pci0000:00", "0000:00:05.0", text, text, 0);
    snprintf(path, sizeof path, "sys/devices/%s", gpu);
    sys_put_in(path, "numa_node", "99999999999999999999");
    sys_put_in(path, "current_link_width", "-3");
    sys_put("sys/devices/virtual/net/eth0/speed", "1e400");
    snprintf(path, sizeof path, "%s/sys/class", sys_root);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/sys/class/net", sys_root);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/sys/class/net/eth0", sys_root);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/sys/class/net/eth0/device", sys_root);
    ck_assert_int_eq(symlink("/sys/devices", path), 0); /* of this machine */
    sys_link("sys/class/net/eth1/device", "proc");
    snprintf(path, sizeof path, "%s/sys/bus/pci/devices/0000:00:06.0", sys_root);
    ck_assert_int_eq(symlink("0000:00:06.0", path), 0); /* to itself */
    char deep[500] = "pci0000:01";
    for (int i = 0; i < 35; i++)
        snprintf(deep + strlen(deep), sizeof deep - strlen(deep), "/0001:%02x:00.0", i);
    sys_gpu(deep, "0001:ff:00.0", GEN4, "16", 0);
    detect("");
    ck_assert_int_eq(t.gpus, 2);
    ck_assert_int_eq(t.nics, 0);
    ck_assert_int_lt(t.graph.nodes, 40);
    ck_assert_int_ge(cinch_graph_find(&t.graph, "cpu1"), 0);
    finish();
}
END_TEST

/* ---- properties: random machines ---- */

static uint64_t seed;

static int upto(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (unsigned)n);
}

static const char *const speeds[] = {GEN3, GEN4, GEN5};
static const double lane[] = {0.75, 1.5, 3};
static const char *const widths[] = {"4", "8", "16"};
static const int lanes[] = {4, 8, 16};

/* The least bandwidth on the way from a node to its CPU, and that CPU. The first of a part's arcs
 * is the one up. */
static double way_to_cpu(int node, int *cpu) {
    const cinch_graph *g = &t.graph;
    double least = INFINITY;
    while (g->node[node].part != CINCH_PART_CPU) {
        int up = 0;
        while (up < g->arcs && g->arc[up].from != node) up++;
        ck_assert_int_lt(up, g->arcs);
        least = fmin(least, g->arc[up].gbps);
        node = g->arc[up].to;
    }
    *cpu = node;
    return least;
}

/* GPUs behind chains of bridges, each of random speed: a GPU's way to its CPU is as wide as the
 * narrowest link of the chain, and ends at its node. */
START_TEST(test_random) {
    seed = (uint64_t)_i * 7919 + 1;
    int nodes = 1 + upto(4), gpus = 1 + upto(8), slow = 0;
    double want[8], best = 0;
    int at[8];
    sys_begin(nodes);
    for (int g = 0; g < gpus; g++) {
        char above[16], bus[32];
        int bridges = upto(6), pair[2] = {2, 2};
        at[g] = upto(nodes);
        want[g] = INFINITY;
        snprintf(above, sizeof above, "pci0000:%02x", 16 * g);
        const char *path = above;
        for (int b = 0; b <= bridges; b++) {
            int s = upto(3), w = upto(3);
            snprintf(bus, sizeof bus, "0000:%02x:00.0", 16 * g + b);
            path = b < bridges ? sys_bridge(path, bus, speeds[s], widths[w], at[g])
                               : sys_gpu(path, bus, speeds[s], widths[w], at[g]);
            int slower = b > 0 && pair[0] < s ? pair[0] : s;
            int narrower = b > 0 && pair[1] < w ? pair[1] : w;
            /* The root port's own link is inside the CPU, every other one inside a switch. */
            bool inside = b < bridges && (b == 0 || ((bridges - b) % 2 == 1 && b > 1));
            if (!inside) want[g] = fmin(want[g], lane[slower] * lanes[narrower]);
            pair[0] = s, pair[1] = w;
        }
        best = fmax(best, want[g]);
    }
    for (int g = 0; g < gpus; g++) slow += want[g] * 4 <= best;
    detect("");
    ck_assert_int_eq(t.gpus, gpus);
    for (int g = 0; g < gpus; g++) {
        char cpu[16];
        int end = -1;
        double got = way_to_cpu(cinch_graph_gpu(&t.graph, g), &end);
        snprintf(cpu, sizeof cpu, "cpu%d", at[g]);
        ck_assert_str_eq(t.graph.node[end].name, cpu);
        ck_assert_msg(fabs(got - want[g]) < 1e-9, "seed %d, GPU %d: %g, not %g", _i, g, got,
                      want[g]);
    }
    ck_assert_int_ge(warned("is far slower than a peer's"), slow > 0);
    finish();
}
END_TEST

/* ---- this machine ---- */

START_TEST(test_this_machine) {
    char at[CINCH_GRAPH_MOST_NAME + 1];
    cinch_graph none = {0};
    cinch_topology again;
    cinch_topology_free(&t);
    ck_assert_int_eq(cinch_detect(NULL, &t), cinchSuccess);
    ck_assert_int_eq(cinch_detect(NULL, &again), cinchSuccess);
    ck_assert_int_eq(t.graph.nodes, again.graph.nodes);
    ck_assert_int_eq(t.graph.arcs, again.graph.arcs);
    cinch_detect_place(&t.graph, at);
    int node = cinch_graph_find(&t.graph, at);
    ck_assert_msg(node >= 0, "\"%s\" is no node", at);
    ck_assert_int_eq(t.graph.node[node].part, CINCH_PART_CPU);
    cinch_detect_place(&none, at);
    ck_assert_str_eq(at, "");
    /* Through hwloc or without it, the CPUs are the same. */
    cinch_topology_free(&again);
    cinch_detect_options plain = {.root = "/"};
    ck_assert_int_eq(cinch_detect(&plain, &again), cinchSuccess);
    for (int pass = 0; pass < 2; pass++) {
        const cinch_graph *a = pass ? &again.graph : &t.graph, *b = pass ? &t.graph : &again.graph;
        for (int i = 0; i < a->nodes; i++)
            if (a->node[i].part == CINCH_PART_CPU)
                ck_assert_msg(cinch_graph_find(b, a->node[i].name) >= 0, "%s", a->node[i].name);
    }
    cinch_topology_free(&again);
    finish();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("detect");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_unchecked_fixture(all, NULL, finish);
    tcase_add_test(all, test_parts);
    tcase_add_test(all, test_speed_is_the_most);
    tcase_add_test(all, test_speed_unknown);
    tcase_add_test(all, test_sane);
    tcase_add_test(all, test_near);
    tcase_add_loop_test(all, test_kinds_of_cpus, 0, 5);
    tcase_add_test(all, test_kinds_of_gpus);
    tcase_add_test(all, test_missing);
    tcase_add_test(all, test_root_is_no_folder);
    tcase_add_test(all, test_hostile);
    tcase_add_loop_test(all, test_random, 0, 100);
    tcase_add_test(all, test_this_machine);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
