/* SPDX-License-Identifier: Apache-2.0 */
/* Readers and writers of topology files, on small files of its own: what is read from each format,
 * what is warned about, every complaint, hostile texts, and what is written read again.
 *
 * With `--corpus DIR` the same files are written to DIR, for tests/fuzz. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "topo/readers.h"

static cinchResult_t read_text(const char *text, cinch_topology_format format, cinch_topology *t) {
    return cinch_topology_read(text, strlen(text), format, "f", t);
}

static double gbps_of(const cinch_graph *g, const char *from, const char *to,
                      cinch_link_class *link) {
    int a = cinch_graph_find(g, from), b = cinch_graph_find(g, to);
    ck_assert_msg(a >= 0, "no node %s", from);
    ck_assert_msg(b >= 0, "no node %s", to);
    int arc = cinch_graph_find_arc(g, a, b);
    if (arc >= 0 && link) *link = g->arc[arc].link;
    return arc >= 0 ? g->arc[arc].gbps : 0;
}

/* ---- what is read: nodes in their order, then links with one bandwidth both ways ---- */

#define HEAD_AMD                                                                                   \
    "<cpu numaid=\"0\" arch=\"x86_64\" vendor=\"AuthenticAMD\" familyid=\"25\" modelid=\"1\">"
#define GEN4 "link_speed=\"16.0 GT/s PCIe\" link_width=\"16\""

#define TWO_SOCKETS                                                                                \
    "<system version=\"1\">\n"                                                                     \
    "<cpu numaid=\"0\" arch=\"x86_64\" vendor=\"GenuineIntel\" familyid=\"6\" modelid=\"143\">\n"  \
    "<pci busid=\"0000:10:00.0\" class=\"0x060400\" link_speed=\"8 GT/s\" link_width=\"16\">\n"    \
    "<pci busid=\"0000:11:00.0\" class=\"0x030200\" link_speed=\"8 GT/s\" link_width=\"8\">\n"     \
    "<gpu dev=\"0\" sm=\"70\" rank=\"1\"><nvlink target=\"0000:21:00.0\" count=\"2\" "             \
    "tclass=\"0x030200\"/></gpu></pci>\n"                                                          \
    "<pci busid=\"0000:12:00.0\" class=\"0x020700\" link_speed=\"16.0 GT/s PCIe\" "                \
    "link_width=\"4\"><nic><net name=\"mlx5_0\" dev=\"0\" speed=\"50000\" port=\"1\"/>"            \
    "<net name=\"mlx5_1\" dev=\"1\" speed=\"25000\" port=\"2\"/></nic></pci>\n"                    \
    "</pci></cpu>\n"                                                                               \
    "<cpu numaid=\"1\" arch=\"x86_64\" vendor=\"GenuineIntel\" familyid=\"6\" modelid=\"207\">\n"  \
    "<pci busid=\"0000:21:00.0\" class=\"0x030200\" link_speed=\"2.5 GT/s\" link_width=\"16\">\n"  \
    "<gpu dev=\"1\" sm=\"70\" rank=\"0\"><nvlink target=\"0000:11:00.0\" count=\"2\" "             \
    "tclass=\"0x030200\"/></gpu></pci>\n"                                                          \
    "<nic><net name=\"eth0\" dev=\"2\" speed=\"10000\"/></nic></cpu></system>\n"

#define RCCL_PAIR                                                                                  \
    "<system version=\"2\">" HEAD_AMD "<pci busid=\"a:00.0\" class=\"0x038000\" " GEN4 ">"         \
    "<gpu dev=\"0\" sm=\"104\" gcn=\"910\" rank=\"0\"><xgmi target=\"B:00.0\" count=\"4\" "        \
    "tclass=\"0x038000\"/></gpu></pci><pci busid=\"b:00.0\" class=\"0x038000\" " GEN4 ">"          \
    "<gpu dev=\"1\" sm=\"104\" gcn=\"gfx90a\" rank=\"1\"><xgmi target=\"a:00.0\" count=\"4\" "     \
    "tclass=\"0x038000\"/></gpu></pci></cpu></system>"

/* Two hosts of one NVLink domain; on the second, two ranks on one PCI function. */
#define TWO_HOSTS                                                                                  \
    "<system><cpu numaid=\"0\" arch=\"arm64\" host_hash=\"0xa\"><pci busid=\"1:0\" " GEN4 ">"      \
    "<gpu dev=\"0\" sm=\"103\" rank=\"0\"><nvlink target=\"fffffff:ff:ff.0\" count=\"18\"/>"       \
    "<c2c bw=\"40000\" count=\"5\"/></gpu></pci>"                                                  \
    "<pci busid=\"2:0\" " GEN4 "><nic><net name=\"n0\" speed=\"400000\"/></nic></pci></cpu>"       \
    "<cpu numaid=\"0\" arch=\"arm64\" host_hash=\"0xb\"><pci busid=\"1:0\" " GEN4 ">"              \
    "<gpu dev=\"0\" sm=\"90\" rank=\"1\"><nvlink target=\"0:7\" count=\"18\" "                     \
    "tclass=\"0x068000\"/></gpu><gpu dev=\"0\" sm=\"90\" rank=\"2\"><nvlink target=\"0:8\" "       \
    "count=\"18\" tclass=\"0x068000\"/></gpu></pci>"                                               \
    "<pci busid=\"2:0\" " GEN4 "><nic><net name=\"n0\" speed=\"200000\"/></nic></pci></cpu>"       \
    "</system>"

#define HINTS                                                                                      \
    "<!-- slots by class --><system version=\"1\"><cpu numaid=\"0\">"                              \
    "<pci busid=\"1:0\" class=\"0x030200\" link_speed=\"32.0 GT/s PCIe\" link_width=\"16\"/>"      \
    "<pci busid=\"2:0\" class=\"0x120000\" link_speed=\"64 GT/s\" link_width=\"16\"/>"             \
    "<pci busid=\"3:0\" class=\"0x020000\" link_speed=\"5 GT/s\" link_width=\"8\"/>"               \
    "<pci busid=\"4:0\" class=\"0x060400\" link_speed=\"5 GT/s\" link_width=\"8\"/>"               \
    "<pci busid=\"5:0\" class=\"0x010802\"/></cpu></system>"

#define POWER                                                                                      \
    "<system><cpu numaid=\"0\" arch=\"ppc64\"><pci busid=\"1:0\" " GEN4 "><gpu sm=\"70\">"         \
    "<nvlink target=\"9:0\" count=\"3\" tclass=\"0x068001\"/></gpu></pci></cpu>"                   \
    "<cpu numaid=\"8\" arch=\"ppc64\"/></system>"

#define PCIDEV(gp, bus, type, speed)                                                               \
    "<object type=\"PCIDev\" gp_index=\"" gp "\" pci_busid=\"" bus "\" pci_type=\"" type           \
    "\" pci_link_speed=\"" speed "\">"
#define OSDEV(gp, name, type)                                                                      \
    "<object type=\"OSDev\" gp_index=\"" gp "\" name=\"" name "\" osdev_type=\"" type "\"/>"

/* Two GPUs that a pair of NVLink switches joins, one with a link to its package; an OpenFabrics NIC
 * and an Ethernet one; a function without a name. */
#define HWLOC                                                                                      \
    "<?xml version=\"1.0\"?><!DOCTYPE topology SYSTEM \"hwloc2.dtd\"><topology version=\"2.0\">"   \
    "<object type=\"Machine\"><info name=\"Architecture\" value=\"x86_64\"/>"                      \
    "<object type=\"Package\" os_index=\"0\" gp_index=\"3\"><info name=\"CPUVendor\" "             \
    "value=\"AuthenticAMD\"/><object type=\"Bridge\" bridge_type=\"0-1\" gp_index=\"4\">"          \
    "<object type=\"Bridge\" bridge_type=\"1-1\" gp_index=\"5\" pci_busid=\"0000:00:01.0\" "       \
    "pci_link_speed=\"31.507692\">" PCIDEV("6", "0000:01:00.0", "0302 [10de:1]", "15.753846")      \
        OSDEV(                                                                                     \
            "7", "nvml0",                                                                          \
            "1") "</object></object>"                                                              \
                 "<object type=\"Bridge\" bridge_type=\"1-1\" gp_index=\"8\" "                     \
                 "pci_busid=\"0000:00:02.0\" "                                                     \
                 "pci_link_speed=\"1.0\">" PCIDEV(                                                 \
                     "9", "0000:02:00.0", "0108 [1:1]",                                            \
                     "1.0") "</object></object>" PCIDEV("10", "0000:03:00.0", "0207 [15b3:1]",     \
                                                        "7.876923") OSDEV("11", "ib0", "2")        \
                     OSDEV("12", "mlx5_0", "3") "</object>" PCIDEV("13", "0000:04:00.0",           \
                                                                   "0200 [1:1]", "1.0")            \
                         OSDEV("14", "eth0", "2") "</object>" PCIDEV(                              \
                             "15", "0000:04:00.1", "0200 [1:1]",                                   \
                             "1.0") "</object></object></object><object type=\"Package\" "         \
                                    "os_index=\"1\" gp_index=\"20\">" PCIDEV(                      \
                                        "21", "0000:81:00.0", "0300 [10de:1]", "0.0")              \
                                        OSDEV(                                                     \
                                            "22", "cuda1",                                         \
                                            "5") "</object>"                                       \
                                                 "<object type=\"PCIDev\" gp_index=\"23\" "        \
                                                 "subtype=\"NVSwitch\" pci_type=\"0680 [1:1]\"/>"  \
                                                 "<object type=\"PCIDev\" gp_index=\"24\" "        \
                                                 "subtype=\"NVSwitch\" pci_type=\"0680 [1:1]\"/>"  \
                                                 "</object></object><distances2 type=\"OSDev\" "   \
                                                 "nbobjs=\"2\" name=\"XGMIHops\"/>"                \
                                                 "<distances2hetero nbobjs=\"5\" "                 \
                                                 "name=\"NVLinkBandwidth\">"                       \
                                                 "<indexes>OSDev:7 OSDev:22 "                      \
                                                 "</indexes><indexes>PCIDev:23 PCIDev:24 "         \
                                                 "Package:3</indexes>"                             \
                                                 "<u64values>1000000 0 25000 25000 50000 0 "       \
                                                 "1000000 25000 25000 0 </u64values>"              \
                                                 "<u64values>25000 25000 0 75000 0 25000 25000 "   \
                                                 "75000 0 0 50000 0 0 0 0</u64values>"             \
                                                 "</distances2hetero></topology>"

/* GPU0 and NIC0 on one switch, GPU1 behind a further one, GPU2 on the same CPU, GPU3 on another;
 * the head underlined as on a terminal, no rows for NICs, and the NICs' names in the legend. */
#define NVSMI                                                                                      \
    "# taken by hand\n\t\033[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tNIC1\tCPU Affinity\tNUMA "            \
    "Affinity\033[0m\n"                                                                            \
    "GPU0\t X \tPXB\tNV4\tSYS\tPIX\tSYS\t0-7\t0\nGPU1\tPXB\t X \tPHB\tSYS\tPXB\tSYS\t0-7\t0\n"     \
    "GPU2\tNV4\tPHB\t X \tSYS\tNODE\tSYS\t0-7\t0\nGPU3\tSYS\tSYS\tSYS\t X \tSYS\tNODE\t8-15\t1\n"  \
    "\nLegend:\n\n  X    = Self\n\nNIC Legend:\n\n  NIC0: mlx5_0\n  NIC1: mlx5_1\n"

/* The same as people paste it: blanks for tabs, and no NICs. Three GPUs on an NVLink switch. */
#define NVSMI_BLANKS                                                                               \
    "        GPU0  GPU1  GPU2  CPU Affinity  NUMA Affinity\n"                                      \
    "GPU0     X    NV12  NV12  0-15          0\nGPU1    NV12   X    NV12  0-15          0\n"       \
    "GPU2    NV12  NV12   X    16-31         1\n"

#define GRAPH "gpu a\ngpu b\nswitch s\nlink a s 10 5\nlink b s 7\n"

static const struct {
    const char *text;
    cinch_topology_format format;
    int gpus, nics, warnings;
    const char *nodes;
    struct {
        const char *a, *b;
        double gbps;
        cinch_link_class link;
    } links[12];
} files[] = {
    {TWO_SOCKETS,
     CINCH_TOPOLOGY_NCCL,
     2,
     3,
     0,
     "gpu0 gpu1 cpu0 pci:0000:10:00.0 mlx5_0 cpu1 eth0 net:mlx5_0 net:mlx5_1 net:eth0 ",
     {{"gpu1", "pci:0000:10:00.0", 6, CINCH_LINK_PCI},
      {"pci:0000:10:00.0", "cpu0", 12, CINCH_LINK_PCI},
      {"gpu0", "cpu1", 3, CINCH_LINK_PCI},
      {"gpu0", "gpu1", 40, CINCH_LINK_NVLINK},
      {"cpu0", "cpu1", 22, CINCH_LINK_SYS},
      {"mlx5_0", "pci:0000:10:00.0", 6, CINCH_LINK_PCI},
      {"mlx5_0", "net:mlx5_0", 6.25, CINCH_LINK_NET},
      {"mlx5_0", "net:mlx5_1", 3.125, CINCH_LINK_NET},
      {"eth0", "cpu1", 12, CINCH_LINK_PCI},
      {"eth0", "net:eth0", 1.25, CINCH_LINK_NET}}},
    {RCCL_PAIR,
     CINCH_TOPOLOGY_NCCL,
     2,
     0,
     0,
     "gpu0 gpu1 cpu0 ",
     {{"gpu0", "gpu1", 144, CINCH_LINK_NVLINK},
      {"gpu0", "cpu0", 24, CINCH_LINK_PCI},
      {"gpu1", "cpu0", 24, CINCH_LINK_PCI}}},
    {TWO_HOSTS,
     CINCH_TOPOLOGY_NCCL,
     3,
     2,
     0,
     "gpu0 gpu1 gpu2 h0/cpu0 n0 h1/cpu0 pci:1:0 n0~8 nvswitch network ",
     {{"gpu0", "nvswitch", 721.8, CINCH_LINK_NVLINK},
      {"gpu1", "nvswitch", 370.8, CINCH_LINK_NVLINK},
      {"gpu2", "nvswitch", 370.8, CINCH_LINK_NVLINK},
      {"gpu0", "h0/cpu0", 24 + 200, CINCH_LINK_PCI},
      {"gpu2", "pci:1:0", 24, CINCH_LINK_PCI},
      {"pci:1:0", "h1/cpu0", 24, CINCH_LINK_PCI},
      {"n0", "network", 50, CINCH_LINK_NET},
      {"n0~8", "network", 25, CINCH_LINK_NET}}},
    {HINTS,
     CINCH_TOPOLOGY_NCCL,
     2,
     1,
     1,
     "gpu0 gpu1 cpu0 3:0 net:3:0 ",
     {{"gpu0", "cpu0", 48, CINCH_LINK_PCI},
      {"gpu1", "cpu0", 96, CINCH_LINK_PCI},
      {"3:0", "cpu0", 3, CINCH_LINK_PCI},
      {"3:0", "net:3:0", 3, CINCH_LINK_NET}}},
    {POWER,
     CINCH_TOPOLOGY_NCCL,
     1,
     0,
     0,
     "gpu0 cpu0 cpu8 ",
     {{"gpu0", "cpu0", 24 + 60, CINCH_LINK_PCI}, {"cpu0", "cpu8", 32, CINCH_LINK_SYS}}},
    {HWLOC,
     CINCH_TOPOLOGY_HWLOC,
     2,
     1,
     3,
     "gpu0 gpu1 cpu0 cpu1 pci:0000:00:01.0 mlx5_0 nvswitch net:mlx5_0 ",
     {{"gpu0", "pci:0000:00:01.0", 12, CINCH_LINK_PCI},
      {"pci:0000:00:01.0", "cpu0", 24, CINCH_LINK_PCI},
      {"gpu1", "cpu1", 12, CINCH_LINK_PCI},
      {"gpu0", "nvswitch", 40, CINCH_LINK_NVLINK},
      {"gpu1", "nvswitch", 40, CINCH_LINK_NVLINK},
      {"gpu0", "cpu0", 40, CINCH_LINK_NVLINK},
      {"mlx5_0", "cpu0", 6, CINCH_LINK_PCI},
      {"cpu0", "cpu1", 10, CINCH_LINK_SYS}}},
    {NVSMI,
     CINCH_TOPOLOGY_NVSMI,
     4,
     2,
     1,
     "gpu0 gpu1 gpu2 gpu3 cpu0 pci0 pci1 cpu1 mlx5_0 mlx5_1 net:mlx5_0 net:mlx5_1 ",
     {{"gpu0", "pci1", 12, CINCH_LINK_PCI},
      {"mlx5_0", "pci1", 12, CINCH_LINK_PCI},
      {"pci1", "pci0", 12, CINCH_LINK_PCI},
      {"gpu1", "pci0", 12, CINCH_LINK_PCI},
      {"pci0", "cpu0", 12, CINCH_LINK_PCI},
      {"gpu2", "cpu0", 12, CINCH_LINK_PCI},
      {"gpu3", "cpu1", 12, CINCH_LINK_PCI},
      {"mlx5_1", "cpu1", 12, CINCH_LINK_PCI},
      {"gpu0", "gpu2", 80, CINCH_LINK_NVLINK},
      {"cpu0", "cpu1", 10, CINCH_LINK_SYS},
      {"mlx5_0", "net:mlx5_0", 12.5, CINCH_LINK_NET}}},
    {NVSMI_BLANKS,
     CINCH_TOPOLOGY_NVSMI,
     3,
     0,
     1,
     "gpu0 gpu1 gpu2 cpu0 cpu1 nvswitch ",
     {{"gpu0", "nvswitch", 240, CINCH_LINK_NVLINK},
      {"gpu1", "cpu0", 12, CINCH_LINK_PCI},
      {"gpu2", "cpu1", 12, CINCH_LINK_PCI}}},
    {GRAPH, CINCH_TOPOLOGY_GRAPH, 2, 0, 0, "a b s ", {{"b", "s", 7, CINCH_LINK_OTHER}}},
};
enum { FILES = sizeof files / sizeof *files };

START_TEST(reads) {
    for (int told = 0; told < 2; told++) { /* the format found, then told */
        cinch_topology t;
        char nodes[1024] = "";
        ck_assert_msg(read_text(files[_i].text, told ? files[_i].format : CINCH_TOPOLOGY_AUTO,
                                &t) == cinchSuccess,
                      "%s", cinch_last_error());
        ck_assert_int_eq(t.format, files[_i].format);
        ck_assert_int_eq(t.gpus, files[_i].gpus);
        ck_assert_int_eq(t.graph.gpus, files[_i].gpus);
        ck_assert_int_eq(t.nics, files[_i].nics);
        ck_assert_msg(t.warnings == files[_i].warnings, "%d warnings, the last: %s", t.warnings,
                      t.warnings ? t.warning[t.warnings - 1] : "");
        for (int i = 0; i < t.graph.nodes; i++) strcat(strcat(nodes, t.graph.node[i].name), " ");
        char want[1024];
        strcpy(want, files[_i].nodes);
        for (char *name = strtok(want, " "); name; name = strtok(NULL, " "))
            ck_assert_msg(cinch_graph_find(&t.graph, name) >= 0, "no %s in %s", name, nodes);
        ck_assert_int_eq(strlen(nodes), strlen(files[_i].nodes));
        for (int i = 0; i < 12 && files[_i].links[i].a; i++) {
            const char *a = files[_i].links[i].a, *b = files[_i].links[i].b;
            cinch_link_class there = 0, back = 0;
            ck_assert_double_eq_tol(gbps_of(&t.graph, a, b, &there), files[_i].links[i].gbps, 1e-6);
            ck_assert_double_eq_tol(gbps_of(&t.graph, b, a, &back), files[_i].links[i].gbps, 1e-6);
            ck_assert_int_eq(there, files[_i].links[i].link);
            ck_assert_int_eq(back, files[_i].links[i].link);
        }
        cinch_topology_free(&t);
    }
}
END_TEST

START_TEST(parts) {
    cinch_topology t;
    ck_assert_int_eq(read_text(TWO_HOSTS, CINCH_TOPOLOGY_AUTO, &t), cinchSuccess);
    static const struct {
        const char *name;
        cinch_part part;
        int host;
    } want[] = {{"h0/cpu0", CINCH_PART_CPU, 0}, {"h1/cpu0", CINCH_PART_CPU, 1},
                {"pci:1:0", CINCH_PART_PCI, 1}, {"n0", CINCH_PART_NIC, 0},
                {"n0~8", CINCH_PART_NIC, 1},    {"nvswitch", CINCH_PART_NVSWITCH, 0},
                {"gpu2", CINCH_PART_OTHER, 1},  {"network", CINCH_PART_NET, 0}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        int node = cinch_graph_find(&t.graph, want[i].name);
        ck_assert_int_ge(node, 0);
        ck_assert_int_eq(t.graph.node[node].part, want[i].part);
        ck_assert_int_eq(t.graph.node[node].host, want[i].host);
    }
    cinch_topology_free(&t);
}
END_TEST

/* ---- what is warned about, and what is planned with then ---- */

#define SYSTEM(inside) "<system>" HEAD_AMD inside "</cpu></system>"
#define GPU(bus, speed, links)                                                                     \
    "<pci busid=\"" bus "\" " speed "><gpu sm=\"80\">" links "</gpu></pci>"
#define NVLINK(to, count) "<nvlink target=\"" to "\" count=\"" count "\" tclass=\"0x030200\"/>"
#define NVS(count) "<nvlink target=\"9:0\" count=\"" count "\" tclass=\"0x068000\"/>"
#define NET(name, mbits) "<nic><net name=\"" name "\" speed=\"" mbits "\"/></nic>"
#define X1GEN1 "link_speed=\"2.5 GT/s\" link_width=\"1\""

static const struct {
    const char *text, *says, *a, *b;
    double gbps;
} odd[] = {
    {SYSTEM(GPU("1:0", GEN4, NVLINK("1:0", "12")) GPU("2:0", GEN4, "")),
     "GPU 1:0 has links to itself: left out", "gpu0", "cpu0", 24},
    {SYSTEM(GPU("1:0", GEN4, NVLINK("2:0", "4")) GPU("2:0", GEN4, NVLINK("1:0", "2"))),
     "from GPU 1:0 to GPU 2:0 there are 80 GB/s of links and back 40", "gpu0", "gpu1", 40},
    {SYSTEM(GPU("1:0", GEN4, NVLINK("2:0", "4")) GPU("2:0", GEN4, "")),
     "only GPU 1:0 tells of its links to GPU 2:0", "gpu0", "gpu1", 0},
    {SYSTEM(GPU("1:0", GEN4, NVLINK("7:0", "4")) GPU("2:0", GEN4, "")),
     "the GPU at 1:0 has 4 links to 7:0, which is not there", "gpu0", "gpu1", 0},
    {SYSTEM(GPU("1:0", GEN4, NVS("12")) GPU("2:0", GEN4, NVS("12")) GPU("3:0", GEN4, "")),
     "GPU 3:0 has no NVLink or xGMI, which 2 of its peers have", "gpu2", "cpu0", 24},
    {SYSTEM(GPU("1:0", GEN4, NVS("12")) GPU("2:0", GEN4, NVS("10"))),
     "GPU 2:0 has 10 links to the switch, its peers up to 12", "gpu1", "nvswitch", 200},
    {SYSTEM(GPU("1:0", GEN4, "") GPU("2:0", X1GEN1, "")),
     "the PCI link of GPU 2:0, x1 of 2.5 GT/s, is far slower than a peer's", "gpu1", "cpu0", 24},
    {SYSTEM(GPU("1:0", GEN4, "") GPU("2:0", "link_speed=\"2.5 GT/s\" link_width=\"16\"", "")),
     "the PCI link of GPU 2:0, x16 of 2.5 GT/s, is far slower", "gpu1", "cpu0", 24},
    {SYSTEM(GPU("1:0", GEN4, "") GPU("2:0", "link_speed=\"16 GT/s\" link_width=\"4\"", "")),
     "x4 of 16 GT/s, is far slower than a peer's: 6 GB/s is planned with all the same", "gpu1",
     "cpu0", 6},
    {SYSTEM(GPU("1:0", GEN4, "") GPU("2:0", "link_speed=\"16 GT/s\" link_width=\"1\"", "")),
     "x1 of 16 GT/s, is far slower than a peer's, as when", "gpu1", "cpu0", 24},
    {SYSTEM("<pci busid=\"1:0\" " X1GEN1 ">" GPU("2:0", GEN4, "") "</pci>"),
     "the PCI link of pci:1:0, x1 of 2.5 GT/s, is far slower than that of the GPU below it",
     "pci:1:0", "cpu0", 24},
    {SYSTEM(GPU("1:0", "link_speed=\"Unknown\" link_width=\"16\"", "")),
     "1 PCI links have no readable speed and width, the first of them that of pci:1:0", "gpu0",
     "cpu0", 12},
    {SYSTEM(GPU("1:0", "link_speed=\"\" link_width=\"0\"", "")), "no readable speed", "gpu0",
     "cpu0", 12},
    {SYSTEM(GPU("1:0", GEN4, "") "<pci busid=\"2:0\" " GEN4 ">" NET("a", "200000000") "</pci>"),
     "the NIC a says 2.5e+04 GB/s, 1.04e+03 times its bus", "a", "net:a", 24},
    {SYSTEM(GPU("1:0", GEN4, "") "<pci busid=\"2:0\" " GEN4 ">" NET("a", "fast") "</pci>"),
     "the NIC a has no readable speed: 10 Gb/s", "a", "net:a", 1.25},
    {SYSTEM(GPU("1:0", GEN4, "") "<pci busid=\"2:0\" " GEN4
                                 ">" NET("mlx5_bond_0", "25000") "</pci>"),
     "the NIC mlx5_bond_0 is a bond", "mlx5_bond_0", "net:mlx5_bond_0", 3.125},
    {SYSTEM(GPU("1:0", GEN4, "") NET("eth0", "10000")), "no NIC is on a PCI bus, as in a virtual",
     "eth0", "net:eth0", 1.25},
    {SYSTEM(GPU("1:0", GEN4, "") NET("e th#0", "10000") NET("e th#0", "10000")),
     "the NIC e_th_0 is listed more than once", "e_th_0", "cpu0", 12},
    {SYSTEM(GPU("1:0", GEN4, "") "<pci busid=\"2:0\"/><pci busid=\"3:0\"/>"),
     "2 PCI parts have no class", "gpu0", "cpu0", 24},
    {HINTS, "2 GPUs are told of by their PCI class only", "gpu0", "cpu0", 48},
    {SYSTEM(""), "there is no GPU in it", NULL, NULL, 0},
    {"\tGPU0\tGPU1\tmlx5 0\nGPU0\t X \tPIX\tSYS\nGPU1\tPIX\t X \tSYS\n",
     "the column \"mlx5 0\" is neither a GPU nor a NIC", "gpu0", "pci0", 12},
    {"\tGPU0\tGPU1\nGPU0\t X \tNV2\nGPU1\tNV1\t X \n",
     "from GPU0 to GPU1 there are 40 GB/s of links and back 20", "gpu0", "gpu1", 20},
    {"\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tSYS\t X \n", "GPU1 and GPU0 disagree on how near", "cpu0",
     "cpu1", 10},
    {"GPU0 is idle\n\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tPIX\t X \n",
     "tells no models and speeds: 20 GB/s per NVLink", "gpu0", "pci0", 12},
};
enum { ODD = sizeof odd / sizeof *odd };

START_TEST(warns) {
    cinch_topology t;
    ck_assert_msg(read_text(odd[_i].text, CINCH_TOPOLOGY_AUTO, &t) == cinchSuccess, "%s",
                  cinch_last_error());
    bool said = false;
    for (int i = 0; i < t.warnings; i++) said = said || strstr(t.warning[i], odd[_i].says);
    ck_assert_msg(said, "no \"%s\"; the first of %d: %s", odd[_i].says, t.warnings,
                  t.warnings ? t.warning[0] : "");
    if (odd[_i].a) {
        ck_assert_double_eq_tol(gbps_of(&t.graph, odd[_i].a, odd[_i].b, NULL), odd[_i].gbps, 1e-9);
        ck_assert_double_eq_tol(gbps_of(&t.graph, odd[_i].b, odd[_i].a, NULL), odd[_i].gbps, 1e-9);
    }
    cinch_topology_free(&t);
}
END_TEST

/* More than are kept: the last says so. */
START_TEST(many_warnings) {
    char text[20000] = "<system>" HEAD_AMD;
    for (int i = 0; i < 100; i++)
        sprintf(text + strlen(text),
                "<pci busid=\"%d\" " GEN4 "><gpu>" NVLINK("none", "1") "</gpu></pci>", i);
    strcat(text, "</cpu></system>");
    cinch_topology t;
    ck_assert_int_eq(read_text(text, CINCH_TOPOLOGY_AUTO, &t), cinchSuccess);
    ck_assert_int_eq(t.gpus, 100);
    ck_assert_int_eq(t.warnings, CINCH_TOPOLOGY_MOST_WARNINGS + 1);
    ck_assert_str_eq(t.warning[t.warnings - 1], "there are more warnings than are kept");
    cinch_topology_free(&t);
}
END_TEST

/* A matrix in which GPUs that are no neighbours have a bandwidth too. */
START_TEST(xgmi) {
    char text[8000] = "<topology version=\"2.5\"><object type=\"Machine\">";
    for (int i = 0; i < 8; i++)
        sprintf(text + strlen(text), PCIDEV("%d", "%d", "0380 [1002:1]", "31.507692") "</object>",
                i, i);
    strcat(text, "</object><distances2 name=\"XGMIBandwidth\" nbobjs=\"8\"><indexes>0 1 2 3 4 5 6 "
                 "7</indexes><u64values>");
    for (int i = 0; i < 64; i++) strcat(text, "100000 ");
    strcat(text, "</u64values></distances2></topology>");
    cinch_topology t;
    ck_assert_msg(read_text(text, CINCH_TOPOLOGY_AUTO, &t) == cinchSuccess, "%s",
                  cinch_last_error());
    ck_assert_ptr_nonnull(strstr(t.warning[0], "gives a GPU 700 GB/s in all"));
    ck_assert_double_eq_tol(gbps_of(&t.graph, "gpu0", "gpu7", NULL), 64 * 0.8, 1e-9);
    cinch_topology_free(&t);
}
END_TEST

/* ---- complaints ---- */

#define MATRIX(inside)                                                                             \
    "<topology version=\"2.0\"><object type=\"Machine\"/><distances2 "                             \
    "name=\"NVLinkBandwidth\" " inside "</distances2></topology>"

static const struct {
    const char *text;
    cinch_topology_format format;
    const char *says;
} wrong[] = {
    {"", CINCH_TOPOLOGY_AUTO,
     "f is in none of the formats that are read: NCCL's topology XML, hwl"},
    {"hello", CINCH_TOPOLOGY_AUTO, "none of the formats"},
    {"# only a comment\n", CINCH_TOPOLOGY_AUTO, "none of the formats"},
    {"== Weight between two GPUs ==\n  GPU0 GPU1\nGPU0 0 52\n", CINCH_TOPOLOGY_AUTO,
     "rocm-smi --showtopo prints, which has weights and no bandwidths"},
    {"GPU 3: V100\n  Link 0: 25.781 GB/s\n", CINCH_TOPOLOGY_AUTO,
     "nvidia-smi nvlink -s prints, which does not tell where the links go"},
    {"<graphs version=\"1\"/>", CINCH_TOPOLOGY_AUTO,
     "holds NCCL's plans (<graphs>) and no topology"},
    {"<html>\n</html>", CINCH_TOPOLOGY_AUTO,
     "f, line 1: <html> is neither NCCL's topology, <system>"},
    {"<system>", CINCH_TOPOLOGY_AUTO, "f, line 1: not well-formed XML: no element found"},
    {"<system>\n<cpu></system>", CINCH_TOPOLOGY_AUTO, "f, line 2: not well-formed XML: mismatched"},
    {"hello", CINCH_TOPOLOGY_NCCL, "not well-formed XML"},
    {"<topology version=\"2.0\"/>", CINCH_TOPOLOGY_NCCL, "<topology> where NCCL's topology has"},
    {"<system/>", CINCH_TOPOLOGY_HWLOC, "<system> where hwloc's XML has <topology>"},
    {"<system/>", CINCH_TOPOLOGY_NCCL, "f has no <cpu> in its <system>"},
    {"<system>\n<cpu/></system>", CINCH_TOPOLOGY_NCCL, "f, line 2: <cpu> has no numaid"},
    {"<system><cpu numaid=\"x\"/></system>", CINCH_TOPOLOGY_NCCL,
     "numaid=\"x\" of <cpu> is not a whole number from -1"},
    {"<system><cpu numaid=\"99999999999999999999\"/></system>", CINCH_TOPOLOGY_NCCL,
     "of <cpu> is not a whole number from -1"},
    {"<system><cpu numaid=\"0\" familyid=\"six\"/></system>", CINCH_TOPOLOGY_NCCL,
     "familyid=\"six\" of <cpu> is not"},
    {SYSTEM("<pci/>"), CINCH_TOPOLOGY_NCCL, "<pci> has no busid"},
    {SYSTEM("<pci busid=\"1\"><gpu rank=\"-3\"/></pci>"), CINCH_TOPOLOGY_NCCL,
     "rank=\"-3\" of <gpu>"},
    {SYSTEM("<pci busid=\"1\"><gpu sm=\"1e9\"/></pci>"), CINCH_TOPOLOGY_NCCL,
     "sm=\"1e9\" of <gpu>"},
    {SYSTEM(GPU("1", GEN4, "<nvlink count=\"1\"/>")), CINCH_TOPOLOGY_NCCL,
     "<nvlink> has no target"},
    {SYSTEM(GPU("1", GEN4, NVLINK("2", "0"))), CINCH_TOPOLOGY_NCCL,
     "count=\"0\" of <nvlink> is not a whole number from 1 to 1024"},
    {SYSTEM(GPU("1", GEN4, "<nvlink target=\"2\" count=\"1\" tclass=\"gpu\"/>")),
     CINCH_TOPOLOGY_NCCL, "tclass=\"gpu\" of <nvlink> is not a PCI class such as"},
    {SYSTEM(GPU("1", GEN4, "<c2c bw=\"nan\" count=\"1\"/>")), CINCH_TOPOLOGY_NCCL,
     "bw=\"nan\" of <c2c>"},
    {SYSTEM(GPU("1", GEN4, "<c2c bw=\"1\" count=\"4096\"/>")), CINCH_TOPOLOGY_NCCL,
     "count=\"4096\" of <c2c>"},
    {"<topology><object type=\"Machine\"/></topology>", CINCH_TOPOLOGY_AUTO,
     "f is hwloc's XML of version 1: version 2 is read, which lstopo of hwloc 2 writes"},
    {"<topology version=\"3.0\"/>", CINCH_TOPOLOGY_AUTO,
     "f is hwloc's XML of version 3.0: version 2 is"},
    {"<topology version=\"2.0\"/>", CINCH_TOPOLOGY_AUTO, "f has no <object type=\"Machine\">"},
    {MATRIX("nbobjs=\"0\">"), CINCH_TOPOLOGY_AUTO, "NVLinkBandwidth has nbobjs=\"0\": 1 to 512"},
    {MATRIX("nbobjs=\"1000\">"), CINCH_TOPOLOGY_AUTO, "has nbobjs=\"1000\""},
    {MATRIX("nbobjs=\"2\"><indexes>1</indexes>"), CINCH_TOPOLOGY_AUTO,
     "NVLinkBandwidth has 1 indexes and needs 2"},
    {MATRIX("nbobjs=\"1\"><indexes>1 2</indexes>"), CINCH_TOPOLOGY_AUTO,
     "<indexes> of NVLinkBandwidth has \"2"},
    {MATRIX("nbobjs=\"1\"><indexes>1</indexes><u64values>x</u64values>"), CINCH_TOPOLOGY_AUTO,
     "<u64values> of NVLinkBandwidth has \"x"},
    {"x", CINCH_TOPOLOGY_NVSMI, "f has no line of columns GPU0, GPU1, ..., as nvidia-smi topo -m"},
    {"\tGPU0\tGPU0\n", CINCH_TOPOLOGY_NVSMI, "f, line 1: GPU0 is in the head twice"},
    {"\tGPU0\tGPU1\nGPU0\t X \tPIX\n", CINCH_TOPOLOGY_NVSMI, "f has no row of GPU1"},
    {"\tGPU0\tGPU1\nGPU0\t X \n", CINCH_TOPOLOGY_NVSMI,
     "f, line 2: the row of GPU0 has 1 cells, the head has 2"},
    {"\tGPU0\tGPU1\nGPU0\t X \tFAR\n", CINCH_TOPOLOGY_NVSMI,
     "f, line 2: \"FAR\" between GPU0 and GPU1: X with itself, NV1 to NV64, PIX, PXB, PHB, NODE "
     "and "
     "SYS are accepted"},
    {"\tGPU0\tGPU1\nGPU0\tPIX\tPIX\n", CINCH_TOPOLOGY_NVSMI, NULL},
    {"\tGPU0\tGPU1\nGPU0\t X \tX\n", CINCH_TOPOLOGY_NVSMI, "\"X\" between GPU0 and GPU1"},
    {"\tGPU0\tGPU1\nGPU0\t X \tNV65\n", CINCH_TOPOLOGY_NVSMI, "\"NV65\" between"},
    {"\tGPU0\nGPU0\t X \nGPU0\t X \n", CINCH_TOPOLOGY_NVSMI, "f, line 3: a second row of GPU0"},
    {"gpu a\nlink a b 1\n", CINCH_TOPOLOGY_AUTO, "f, line 2"},
};
enum { WRONG = sizeof wrong / sizeof *wrong };

START_TEST(complains) {
    cinch_topology t;
    const char *says = wrong[_i].says ? wrong[_i].says : "\"PIX\" between GPU0 and GPU0";
    ck_assert_int_eq(read_text(wrong[_i].text, wrong[_i].format, &t), cinchInvalidArgument);
    ck_assert_msg(strstr(cinch_last_error(), says) != NULL, "%s", cinch_last_error());
    ck_assert_int_eq(t.warnings + t.gpus + t.nics + t.graph.nodes, 0);
    cinch_topology_free(&t);
}
END_TEST

START_TEST(calls) {
    cinch_topology t;
    cinch_topology_format format;
    for (int i = 0; i < CINCH_TOPOLOGY_FORMATS; i++) {
        const char *name = cinch_topology_format_name((cinch_topology_format)i);
        ck_assert_int_eq(cinch_topology_format_parse(name, &format), cinchSuccess);
        ck_assert_int_eq(format, i);
    }
    ck_assert_int_eq(cinch_topology_format_parse("xml", &format), cinchInvalidArgument);
    ck_assert_str_eq(cinch_last_error(), "\"xml\" is no format of a topology: auto, nccl, hwloc, "
                                         "nvsmi and graph are accepted");
    ck_assert_int_eq(cinch_topology_read_file("/nonexistent/x.xml", CINCH_TOPOLOGY_AUTO, &t),
                     cinchSystemError);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "cannot open /nonexistent/x.xml: No such"));
    ck_assert_int_eq(cinch_topology_read_file("/", CINCH_TOPOLOGY_AUTO, &t), cinchSystemError);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "cannot read /"));
    ck_assert_int_eq(cinch_topology_read_file("/dev/null", CINCH_TOPOLOGY_AUTO, &t),
                     cinchInvalidArgument);
    ck_assert_int_eq(cinch_topology_read_file("/dev/zero", CINCH_TOPOLOGY_AUTO, &t),
                     cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "at most 16777216 are read"));
    ck_assert_int_eq(cinch_topology_read("gpu a\0", 6, CINCH_TOPOLOGY_AUTO, "f", &t),
                     cinchInvalidArgument);
    ck_assert_str_eq(cinch_last_error(), "f has a NUL byte at 5: it is no text");
}
END_TEST

static int write_corpus(const char *folder) {
    for (int i = 0; i < FILES + ODD + WRONG; i++) {
        const char *text = i < FILES         ? files[i].text
                           : i < FILES + ODD ? odd[i - FILES].text
                                             : wrong[i - FILES - ODD].text;
        char path[4096];
        snprintf(path, sizeof path, "%s/%d", folder, i);
        FILE *to = fopen(path, "w");
        if (!to || fputs(text, to) < 0 || fclose(to) != 0) return 2;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--corpus") == 0) return write_corpus(argv[2]);
    cinch_log_threshold = CINCH_LOG_NONE;
    Suite *suite = suite_create("readers");
    TCase *read = tcase_create("read");
    tcase_add_test(read, calls);
    if (cinch_topology_reads_xml()) {
        tcase_add_loop_test(read, reads, 0, FILES);
        tcase_add_test(read, parts);
        tcase_add_loop_test(read, warns, 0, ODD);
        tcase_add_test(read, many_warnings);
        tcase_add_test(read, xgmi);
        tcase_add_loop_test(read, complains, 0, WRONG);
    }
    suite_add_tcase(suite, read);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
