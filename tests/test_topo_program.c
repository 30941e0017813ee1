/* SPDX-License-Identifier: Apache-2.0 */
/* cinch topo, as a user runs it: each option, its JSON, its picture, its sentences and statuses. */
#include <check.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "tests/fake_sys.h"
#include "tests/run_program.h"
#include "topo/readers.h"

static program p;
static char folder[] = "/tmp/cinch-topo-XXXXXX";

/* Two hosts of two GPUs with an NV switch and a NIC each; one NIC sends faster than it receives. */
static const char two_hosts[] = "# two hosts\n"
                                "gpu b0g0\ngpu b0g1\ngpu b1g0\ngpu b1g1\n"
                                "switch b0nvs\nswitch b1nvs\nswitch b0nic\nswitch b1nic\n"
                                "switch rail\n"
                                "link b0g0 b0nvs 300\nlink b0g1 b0nvs 300\n"
                                "link b1g0 b1nvs 300\nlink b1g1 b1nvs 300\n"
                                "link b0g0 b0nic 25\nlink b1g1 b1nic 25\n"
                                "link b0nic rail 25\nlink b1nic rail 25 12.5\n";

/* Two GPUs and a NIC below a PCI switch, and a CPU that has none: in NCCL's words. */
static const char nccl_xml[] =
    "<system version=\"1\">\n"
    "  <cpu numaid=\"0\" affinity=\"0000ffff\" arch=\"x86_64\" vendor=\"GenuineIntel\" "
    "familyid=\"6\" modelid=\"85\">\n"
    "    <pci busid=\"0000:05:00.0\" class=\"0x060400\" link_speed=\"16.0 GT/s PCIe\" "
    "link_width=\"16\">\n"
    "      <pci busid=\"0000:07:00.0\" class=\"0x030200\" link_speed=\"16.0 GT/s PCIe\" "
    "link_width=\"16\"><gpu dev=\"0\" sm=\"80\" rank=\"0\" gdr=\"1\">"
    "<nvlink target=\"0000:08:00.0\" count=\"4\" tclass=\"0x030200\"/></gpu></pci>\n"
    "      <pci busid=\"0000:08:00.0\" class=\"0x030200\" link_speed=\"16.0 GT/s PCIe\" "
    "link_width=\"16\"><gpu dev=\"1\" sm=\"80\" rank=\"1\" gdr=\"1\">"
    "<nvlink target=\"0000:07:00.0\" count=\"4\" tclass=\"0x030200\"/></gpu></pci>\n"
    "      <pci busid=\"0000:09:00.0\" class=\"0x020700\" link_speed=\"16.0 GT/s PCIe\" "
    "link_width=\"16\"><nic><net name=\"mlx5_0\" dev=\"0\" speed=\"200000\" port=\"1\" "
    "guid=\"0x1\" maxconn=\"1000\" gdr=\"1\"/></nic></pci>\n"
    "    </pci>\n  </cpu>\n</system>\n";

static const char *path(const char *name) {
    static char paths[4][256];
    static int next;
    char *text = paths[next++ % 4];
    snprintf(text, sizeof paths[0], "%s/%s", folder, name);
    return text;
}

static void write_file(const char *name, const char *text) {
    FILE *f = fopen(path(name), "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
}

static char *read_file(const char *name) {
    static char text[TEXT_ROOM];
    FILE *f = fopen(path(name), "r");
    ck_assert_msg(f != NULL, "no %s", name);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* Runs `cinch topo --file folder/name options`. */
static void topo(const char *name, const char *options) {
    char line[1024];
    snprintf(line, sizeof line, "topo --file %s/%s %s", folder, name, options);
    program_run(&p, "", line);
}

static void topo_passes(const char *name, const char *options) {
    topo(name, options);
    ck_assert_msg(p.status == 0, "%s: %d, %s%s", options, p.status, p.text[ERR], p.text[OUT]);
    ck_assert_str_eq(p.text[ERR], "");
}

#define ck_has(text, part)                                                                         \
    ck_assert_msg(strstr(text, part) != NULL, "no %s in:\n%.1500s", part, text)
#define ck_has_not(text, part) ck_assert_msg(!strstr(text, part), "%s in:\n%.1500s", part, text)

/* ---- a small parser of JSON: enough to say that a text is one value, and to find numbers ---- */

static const char *skip_value(const char *at);

static const char *skip_string(const char *at) {
    for (at++; *at && *at != '"'; at++) {
        ck_assert_msg((unsigned char)*at >= 0x20, "a control character in a string: %.40s", at);
        if (*at == '\\') at++;
    }
    ck_assert_msg(*at == '"', "a string has no end");
    return at + 1;
}

static const char *skip_list(const char *at, char end, bool keys) {
    bool first = true;
    for (at++; *at != end; first = false) {
        if (!first) ck_assert_msg(*at++ == ',', "no comma at %.40s", at - 1);
        if (keys) {
            ck_assert_msg(*at == '"', "no key at %.40s", at);
            at = skip_string(at);
            ck_assert_msg(*at++ == ':', "no colon at %.40s", at - 1);
        }
        at = skip_value(at);
    }
    return at + 1;
}

static const char *skip_value(const char *at) {
    static const char *const words[] = {"null", "true", "false"};
    char *end;
    if (*at == '{') return skip_list(at, '}', true);
    if (*at == '[') return skip_list(at, ']', false);
    if (*at == '"') return skip_string(at);
    for (int i = 0; i < 3; i++)
        if (!strncmp(at, words[i], strlen(words[i]))) return at + strlen(words[i]);
    ck_assert_msg(*at == '-' || (*at >= '0' && *at <= '9'), "no value at %.40s", at);
    strtod(at, &end);
    return end;
}

/* The value behind the first such key from `at` on. */
static const char *value_at(const char *at, const char *key) {
    char pattern[64];
    snprintf(pattern, sizeof pattern, "\"%s\":", key);
    const char *found = strstr(at, pattern);
    ck_assert_msg(found != NULL, "no %s in %s", key, at);
    return found + strlen(pattern);
}

static double number_at(const char *at, const char *key) {
    return atof(value_at(at, key));
}

/* One line, one object, with the agreed keys in their order. */
static const char *json_of(const char *name, const char *options) {
    static const char *const keys[] = {"ranks", "gpus", "nics", "warnings", "optimum", "plan"};
    char line[512];
    snprintf(line, sizeof line, "--json %s", options);
    topo_passes(name, line);
    const char *text = p.text[OUT], *at = text;
    ck_assert_int_eq(*text, '{');
    ck_assert_str_eq(skip_value(text), "\n");
    for (int i = 0; i < 6; i++) at = value_at(at, keys[i]);
    return text;
}

START_TEST(text_is_a_tree) {
    topo_passes("two.graph", "");
    const char *text = p.text[OUT];
    ck_has(text, "two.graph (graph): 4 GPUs, 2 NICs, 2 hosts");
    ck_has(text, "host 0: 2 GPUs, 1 NIC\n  NV switch b0nvs\n    GPU b0g0, rank 0: 300\n"
                 "      NIC b0nic: 25  -- rail: 25\n    GPU b0g1, rank 1: 300\n");
    ck_has(text, "NIC b1nic: 25  -- rail: 25 (back 12.5)");
    ck_has(text, "network rail  -- b0nic: 25; b1nic: 12.5 (back 25)");
    ck_has_not(text, "at most");
    ck_has_not(text, "warning");
}
END_TEST

START_TEST(optimum) {
    /* All that enters host 1 are 25 GB/s and all that leaves it are 25 down to its rail, and 12.5
     * back: its two ranks' half of the result has to leave and the other half to enter. */
    topo_passes("two.graph", "--optimum");
    ck_has(p.text[OUT], "broadcast from rank 0     12.5 GB/s");
    const char *json = json_of("two.graph", "--optimum");
    ck_assert_double_eq_tol(number_at(json, "broadcast"), 12.5, 1e-6);
    ck_assert_double_eq_tol(number_at(json, "allgather"), 25, 1e-6);
    ck_assert_double_eq_tol(number_at(json, "allreduce_bound"), 12.5, 1e-6);
    ck_assert_ptr_eq(strstr(json, "\"plan\":{"), NULL);
}
END_TEST

/* The fields of a plan, for every operation; 1e9 bytes at algbw take 1e6 / algbw microseconds. */
START_TEST(plans) {
    static const char *const ops[] = {"allreduce", "allgather", "reducescatter", "broadcast",
                                      "reduce"};
    for (int i = 0; i < 5; i++) {
        char options[128], name[64];
        snprintf(options, sizeof options, "--plan %s --bytes 1000000000", ops[i]);
        const char *json = json_of("two.graph", options), *plan = value_at(json, "plan");
        double sum = 0, algbw = number_at(plan, "algbw_GBps");
        snprintf(name, sizeof name, "\"%s\"", ops[i]);
        ck_has(value_at(plan, "op"), name);
        ck_assert_msg(!strncmp(value_at(plan, "kind"), "\"forest\"", 8), "%.300s", plan);
        ck_assert(algbw > 5);
        ck_assert(algbw <= number_at(plan, "bound_GBps") * (1 + 1e-9));
        ck_assert_double_eq_tol(number_at(plan, "predicted_us"), 1e6 / algbw, 1e-3 / algbw * 1e6);
        ck_assert(number_at(plan, "plan_ms") > 0);
        const char *tree = value_at(plan, "trees");
        for (; (tree = strstr(tree, "\"weight\":")) != NULL; tree++)
            sum += number_at(tree, "weight");
        ck_assert_double_eq_tol(sum, 1, 1e-6);
        topo_passes("two.graph", options);
        ck_has(p.text[OUT], "GB/s");
        ck_has(p.text[OUT], " %  ");
    }
    topo_passes("two.graph", "--plan allreduce --bytes 64M");
    ck_has(p.text[OUT], "allreduce of 64 MiB: forest");
    topo_passes("two.graph", "--plan allreduce");
    ck_has(p.text[OUT], "allreduce of 1 GiB: forest");
}
END_TEST

/* Parents, and ways between them by the names of parts. */
START_TEST(trees_in_json) {
    write_file("chain.graph", "gpu a\ngpu b\nswitch s\nlink a s 10\nlink s b 10\n");
    const char *json = json_of("chain.graph", "--plan broadcast --bytes 1000");
    ck_has(json, "\"trees\":[{\"weight\":1,\"root\":0,\"down\":{\"parents\":[null,0],"
                 "\"paths\":[[],[\"a\",\"s\",\"b\"]]},\"up\":null}]");
    ck_assert_double_eq_tol(number_at(json, "predicted_us"), 0.1, 1e-9);
    topo_passes("chain.graph", "--plan broadcast");
    ck_has(p.text[OUT], "100.0 %  down  0 -- 1\n");
}
END_TEST

static int count(const char *text, const char *part) {
    int n = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part)) n++;
    return n;
}

/* Well-formed by expat, where python3 is there; what stands in it anyway. */
static void check_svg(const char *name) {
    char script[512];
    const char *svg = read_file(name);
    ck_assert(!strncmp(svg, "<svg xmlns=", 11));
    ck_has(svg, "</svg>\n");
    ck_has_not(svg, "<script");
    ck_has_not(svg, "nan");
    ck_has_not(svg, "inf");
    snprintf(script, sizeof script,
             "command -v python3 >/dev/null || exit 0; python3 -c 'import sys, "
             "xml.parsers.expat as e\ne.ParserCreate().ParseFile(open(sys.argv[1], \"rb\"))' %s",
             path(name));
    program_run_script(&p, script);
    ck_assert_msg(p.status == 0, "%s: %s", name, p.text[ERR]);
}

/* Other kinds: a ring goes round, once by each rank. Without --kind it is a forest. */
START_TEST(kinds) {
    static const char *const names[] = {"ring", "rings", "double_tree"};
    write_file("star.graph", "gpu a\ngpu b\ngpu c\nswitch s\nlink a s 9\nlink b s 9\nlink c s 9\n");
    for (int i = 0; i < 3; i++) {
        char options[256], name[64];
        snprintf(options, sizeof options, "--plan allreduce --kind %s --svg %s", names[i],
                 path("kind.svg"));
        snprintf(name, sizeof name, "\"kind\":\"%s\"", names[i]);
        ck_has(json_of("star.graph", options), name);
        ck_has(p.text[OUT], i < 2 ? "\"rings\":[{" : "\"trees\":[{");
        check_svg("kind.svg");
        ck_has(read_file("kind.svg"), i < 2 ? "ring 1: " : "tree 1: ");
    }
    for (int most = 1; most < 4; most++) {
        char line[64];
        snprintf(line, sizeof line, "--plan allreduce --trees %d", most);
        ck_assert_int_le(count(json_of("star.graph", line), "\"weight\":"), most);
    }
    topo_passes("star.graph", "--plan allreduce --kind ring");
    ck_has(p.text[OUT], "allreduce of 1 GiB: 1 ring, 6.75 GB/s");
    ck_assert(strstr(p.text[OUT], "  100.0 %  0 -> 1 -> 2 -> 0\n") ||
              strstr(p.text[OUT], "  100.0 %  0 -> 2 -> 1 -> 0\n"));
}
END_TEST

START_TEST(a_file_in_the_environment) {
    char set[512];
    snprintf(set, sizeof set, "CINCH_TOPO_FILE=%s", path("two.graph"));
    program_run(&p, set, "topo");
    ck_has(p.text[OUT], "two.graph (graph)");
}
END_TEST

START_TEST(pictures) {
    char options[256];
    snprintf(options, sizeof options, "--svg %s", path("a.svg"));
    topo_passes("two.graph", options);
    check_svg("a.svg");
    const char *svg = read_file("a.svg");
    ck_assert_int_eq(count(svg, "class=\"frame\""), 2);
    ck_assert_int_eq(count(svg, "class=\"rank\""), 4);
    ck_assert_int_eq(count(svg, "<circle"), 0);
    ck_has(svg, "300 GB/s");
    ck_has(svg, "<title>b1nic - rail: 25 GB/s, back 12.5 GB/s</title>");
    snprintf(options, sizeof options, "--plan allreduce --svg %s --json", path("b.svg"));
    topo_passes("two.graph", options);
    int trees = count(p.text[OUT], "\"weight\":"), shown = trees < 16 ? trees : 16;
    check_svg("b.svg");
    svg = read_file("b.svg");
    ck_assert_int_eq(count(svg, "<circle"), 4 * shown);
    ck_has(svg, "tree 1: ");
    ck_has(svg, "allreduce of 1 GiB: forest");
}
END_TEST

/* Names that mean something to XML or JSON, or are no UTF-8; a picture of nothing; and of a link
 * that goes one way only, of very different speeds, and of a part that nothing joins. */
START_TEST(pictures_of_odd_machines) {
    static const char *const texts[] = {
        "gpu <&>\"'\ngpu \xff\xfe\xc3\nswitch \xe2\x82\xac\xed\xa0\x80\xef\xbf\xbe\n"
        "link <&>\"' \xff\xfe\xc3 5\nlink <&>\"' \xe2\x82\xac\xed\xa0\x80\xef\xbf\xbe 5\n",
        "gpu a\n", "switch only\n",
        "gpu a\ngpu b\ngpu c\nswitch alone\nlink a b 1e-9\nlink b c 5 0\nlink c a 1e9 7\n"
        "link b a 3\nlink c b 11\n",
        "switch c0cpu\nswitch c1cpu\nswitch c2cpu\nswitch c3cpu\nlink c0cpu c1cpu 1\n"
        "link c0cpu c2cpu 2\nlink c0cpu c3cpu 3\nlink c1cpu c2cpu 4\nlink c1cpu c3cpu 5\n"
        "link c2cpu c3cpu 6\ngpu g\nlink g c0cpu 7\nlink g c1cpu 8\nlink g c3cpu 9\n"};
    char options[256];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        snprintf(options, sizeof options, "--format graph --svg %s", path("odd.svg"));
        write_file("odd.graph", texts[i]);
        topo_passes("odd.graph", options);
        check_svg("odd.svg");
        json_of("odd.graph", "--format graph --optimum");
    }
    write_file("odd.graph", "gpu a\ngpu b\nswitch s\nlink a s 5 0\nlink a b 0 7\n");
    snprintf(options, sizeof options, "--svg %s", path("odd.svg"));
    topo_passes("odd.graph", options);
    ck_has(p.text[OUT], "GPU b, rank 1  -- a: 7 (back 0)");
    ck_has(read_file("odd.svg"), "<title>a -&gt; s: 5 GB/s</title>");
    ck_has(read_file("odd.svg"), "<title>a &lt;- b: 7 GB/s</title>");
    write_file("odd.graph", texts[0]);
    json_of("odd.graph", "--plan allreduce");
    ck_has(p.text[OUT], "\"???\"");
    ck_has(p.text[OUT], "\"<&>\\\"'\"");
    snprintf(options, sizeof options, "--plan allreduce --svg %s", path("odd.svg"));
    topo_passes("odd.graph", options);
    check_svg("odd.svg");
    ck_has(read_file("odd.svg"), "&lt;&amp;&gt;&quot;'");
}
END_TEST

/* Sixteen GPUs of a host, no two at the same place, and all on the page. */
START_TEST(sixteen_ranks) {
    char text[8192] = "", options[256];
    for (int i = 0; i < 16; i++)
        sprintf(text + strlen(text), "gpu g%d\nswitch psw%d\nlink g%d psw%d 24\n", i, i, i, i);
    for (int i = 0; i < 16; i++)
        sprintf(text + strlen(text), "link psw%d cpu%d 24\nlink g%d g%d %d\n", i, i / 8, i,
                (i + 5) % 16, 20 + i);
    strcat(text, "switch cpu0\nswitch cpu1\nlink cpu0 cpu1 10\n");
    write_file("sixteen.graph", text);
    snprintf(options, sizeof options, "--plan allreduce --svg %s", path("sixteen.svg"));
    topo_passes("sixteen.graph", options);
    check_svg("sixteen.svg");
    const char *svg = read_file("sixteen.svg");
    double width = atof(strstr(svg, " width=\"") + 8), last = -1e9;
    int gpus = 0;
    for (const char *at = svg; (at = strstr(at, "class=\"gpu\" x=\"")) != NULL; at++) {
        double x = atof(at + 15), w = atof(strstr(at, " width=\"") + 8);
        if (w < 20) continue; /* the legend's */
        ck_assert_msg(x >= last, "at %g, before %g", x, last);
        ck_assert(x >= 0 && x + w <= width);
        last = x + w;
        gpus++;
    }
    ck_assert_int_eq(gpus, 16);
    ck_has(svg, "psw15");
    for (const char *at = svg; (at = strstr(at, "class=\"frame\" x=\"")) != NULL; at++)
        ck_assert(atof(at + 17) + atof(strstr(at, " width=\"") + 8) <= width);
}
END_TEST

/* More ranks than text draws; the picture has one column of at most four panels. */
START_TEST(many_ranks) {
    char text[8192] = "switch s\n", options[256];
    for (int i = 0; i < 40; i++) sprintf(text + strlen(text), "gpu g%d\nlink g%d s 5\n", i, i);
    write_file("many.graph", text);
    snprintf(options, sizeof options, "--plan allgather --svg %s", path("many.svg"));
    topo_passes("many.graph", options);
    ck_has(p.text[OUT], "\n  more than 32 ranks are not drawn as text\n");
    check_svg("many.svg");
    ck_assert_int_eq(count(read_file("many.svg"), "<circle"), 4 * 40);
    ck_has(read_file("many.svg"), "and 36 more");
}
END_TEST

START_TEST(dumps) {
    char options[256];
    snprintf(options, sizeof options, "--json --dump %s", path("copy.graph"));
    topo_passes("two.graph", options);
    ck_has(read_file("copy.graph"), "gpu b0g0\n");
    topo_passes("two.graph", "--optimum");
    char *first = strdup(strchr(p.text[OUT], ':'));
    topo_passes("copy.graph", "--optimum");
    ck_assert_str_eq(strchr(p.text[OUT], ':'), first);
    free(first);
    if (!cinch_topology_reads_xml()) return;
    snprintf(options, sizeof options, "--dump %s", path("copy.xml"));
    topo_passes("machine.xml", options);
    topo_passes("copy.xml", "");
    ck_has(p.text[OUT], "copy.xml (nccl): 2 GPUs, 1 NIC, 1 host");
}
END_TEST

START_TEST(formats) {
    topo_passes("two.graph", "--format graph");
    topo("two.graph", "--format nccl");
    ck_assert_int_eq(p.status, 2);
    ck_assert_int_eq(lines_in(p.text[ERR]), 1);
    ck_assert_str_eq(p.text[OUT], "");
    if (!cinch_topology_reads_xml()) return;
    topo_passes("machine.xml", "");
    ck_has(p.text[OUT], "machine.xml (nccl): 2 GPUs, 1 NIC, 1 host");
    ck_has(p.text[OUT], "PCI switch");
    const char *json = json_of("machine.xml", "--format nccl --plan allreduce --optimum");
    ck_assert_int_eq((int)number_at(json, "ranks"), 2);
    ck_assert_int_eq((int)number_at(json, "gpus"), 2);
    ck_assert_int_eq((int)number_at(json, "nics"), 1);
}
END_TEST

/* A warning stands in the text and in the JSON: one end of a link says four lanes, the other two.
 */
START_TEST(warnings) {
    if (!cinch_topology_reads_xml()) return;
    char text[sizeof nccl_xml];
    memcpy(text, nccl_xml, sizeof text);
    memcpy(strstr(text, "08:00.0\" count"), "07:00.0\" count", 14); /* a link to itself */
    write_file("odd.xml", text);
    topo_passes("odd.xml", "");
    ck_has(p.text[OUT], "\nwarning: ");
    const char *json = json_of("odd.xml", "");
    ck_has(json, "\"warnings\":[\"");
    ck_has_not(json, "\nwarning");
    ck_has(json_of("machine.xml", ""), "\"warnings\":[]");
}
END_TEST

/* One sentence, status 2, and nothing on stdout. */
START_TEST(bad_usage) {
    static const struct {
        const char *line, *culprit;
    } cases[] = {
        {"topo --format nccl", "--format is for --file"},
        {"topo --file two.graph -n 2", "-n is for a machine without --file"},
        {"topo --file two.graph --root .", "--root is for a machine without --file"},
        {"topo --root /no/such/root", "/no/such/root"},
        {"topo -n 0", "-n \"0\""},
        {"topo -n 4 --dump kept.xml", "rank0"},
        {"topo --file two.graph --simulate", "--simulate is for --plan"},
        {"topo --file /no/such/file", "/no/such/file"},
        {"topo --file /", "/"},
        {"topo --file two.graph --format yaml",
         "\"yaml\": accepted is one of auto, nccl, hwloc, nvsmi, graph"},
        {"topo --file two.graph --plan alltoall", "alltoall: known, not in this version"},
        {"topo --file two.graph --plan bcast", "\"bcast\": accepted is one of allreduce"},
        {"topo --file two.graph --plan allreduce --bytes 3x", "--bytes \"3x\""},
        {"topo --file two.graph --bytes 3", "--bytes is for --plan"},
        {"topo --file two.graph --kind ring", "--kind is for --plan"},
        {"topo --file two.graph --plan allreduce --trees 0", "--trees \"0\""},
        {"topo --file two.graph --plan allreduce --kind star", "\"star\": accepted is one of"},
        {"topo --file two.graph --dump x.png", "x.png"},
        {"topo --file two.graph --dump /no/such/x.graph", "/no/such/x.graph"},
        {"topo --file two.graph --dump kept.xml", "b0g0"},
        {"topo --file two.graph --svg /no/such/x.svg", "/no/such/x.svg"},
        {"topo --file two.graph extra", "extra"},
        {"topo --file", "--file"},
        {"topo --what", "--what"},
        {"topo --file bad.graph --format graph", "2"},
        {"topo --file bad.graph", "bad.graph"},
    };
    write_file("bad.graph", "gpu a\nfrobnicate\n");
    write_file("kept.xml", "kept");
    ck_assert_int_eq(chdir(folder), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        program_run(&p, "", cases[i].line);
        ck_assert_msg(p.status == 2, "%s: %d", cases[i].line, p.status);
        ck_assert_msg(lines_in(p.text[ERR]) == 1, "%s: %s", cases[i].line, p.text[ERR]);
        ck_assert_msg(strstr(p.text[ERR], cases[i].culprit) != NULL, "%s: %s", cases[i].line,
                      p.text[ERR]);
        ck_assert_str_eq(p.text[OUT], "");
    }
    ck_assert_str_eq(read_file("kept.xml"), "kept"); /* what could not be written left it alone */
    program_run(&p, "CINCH_CHUNK=zz", "topo --file two.graph");
    ck_assert_int_eq(p.status, 2);
    ck_has(p.text[ERR], "CINCH_CHUNK");
}
END_TEST

/* What can be read and not be planned: status 1. */
START_TEST(failed_planning) {
    static const char *const texts[] = {"switch s\n", "gpu a\ngpu b\n",
                                        "gpu a\ngpu b\nlink a b 5 0\n"};
    for (int i = 0; i < 3; i++) {
        write_file("none.graph", texts[i]);
        topo("none.graph", "--plan allreduce");
        ck_assert_msg(p.status == 1, "%s: %d", texts[i], p.status);
        ck_assert_msg(lines_in(p.text[ERR]) == 1, "%s: %s", texts[i], p.text[ERR]);
        ck_assert_str_eq(p.text[OUT], "");
        topo_passes("none.graph", "");
    }
}
END_TEST

/* Without a file: this machine, which has a CPU at least. */
START_TEST(this_machine) {
    program_run(&p, "", "topo");
    ck_assert_msg(p.status == 0, "%s", p.text[ERR]);
    ck_has(p.text[OUT], "this machine (detected): ");
    ck_has(p.text[OUT], "\n  CPU cpu");
    program_run(&p, "", "topo -n 4 --plan allreduce --optimum --json");
    ck_assert_msg(p.status == 0, "%s", p.text[ERR]);
    ck_assert_int_eq((int)number_at(p.text[OUT], "ranks"), 4);
    ck_assert(number_at(p.text[OUT], "algbw_GBps") > 0);
    program_run(&p, "", "topo --plan broadcast -n 1");
    ck_assert_int_eq(p.status, 1);
}
END_TEST

/* A recorded one: two CPUs, a GPU at the second, a NIC. */
START_TEST(recorded_machine) {
    char line[512];
    sys_begin(2);
    sys_gpu("pci0000:80", "0000:80:05.0", GEN4, "16", 1);
    sys_net(sys_pci("pci0000:00", "0000:00:05.0", "0x020000", "0x15b3", GEN4, "16", 0), "eth0",
            "25000", "up");
    snprintf(line, sizeof line, "topo --root %s --optimum", sys_root);
    program_run(&p, "", line);
    ck_assert_msg(p.status == 0, "%s", p.text[ERR]);
    ck_has(p.text[OUT], "(detected): 1 GPU, 1 NIC, 1 host");
    ck_has(p.text[OUT], "\n  CPU cpu1  -- cpu0: 22\n    GPU gpu0, rank 0: 24\n");
    ck_has(p.text[OUT], "nothing has to move");
    ck_has(p.text[OUT], "\nwarning: what NVLinks 1 NVIDIA GPUs have cannot be seen");
    snprintf(line, sizeof line, "topo --root %s --plan allreduce", sys_root);
    program_run(&p, "", line);
    ck_assert_int_eq(p.status, 1);
    ck_assert_int_eq(lines_in(p.text[ERR]), 1);
    ck_has(p.text[ERR], "a plan needs two GPUs or more");
    ck_has(p.text[ERR], "has 1; -n N plans for N ranks on its CPUs");
    /* The job's file is the same job: two ranks on the first CPU, one on the other. */
    snprintf(line, sizeof line, "topo --root %s -n 3 --plan allreduce --dump %s --svg %s", sys_root,
             path("job.graph"), path("job.svg"));
    program_run(&p, "", line);
    ck_assert_msg(p.status == 0, "%s", p.text[ERR]);
    ck_has(p.text[OUT], "(detected): 3 ranks, 1 GPU, 1 NIC, 1 host");
    ck_has(p.text[OUT], "host 0: 3 ranks, 1 NIC");
    ck_has(p.text[OUT], "  CPU cpu1  -- cpu0: 22\n    rank 2: 12.18\n");
    ck_has(p.text[OUT], "allreduce of 1 GiB: forest, ");
    ck_has(read_file("job.svg"), "</svg>");
    ck_has(read_file("job.graph"), "link rank2 cpu1 12.179 #: shm\n");
    topo_passes("job.graph", "");
    ck_has(p.text[OUT], "host 0: 3 ranks, 1 NIC");
    sys_end();
}
END_TEST

START_TEST(help) {
    static const char *const options[] = {
        "--file", "--format", "--plan", "--kind",     "--bytes", "--svg",   "--optimum",   "--json",
        "--dump", "--root",   "  -n N", "--simulate", "--trees", "--codec", "--codec-gbps"};
    program_run(&p, "", "topo --help");
    ck_assert_int_eq(p.status, 0);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) ck_has(p.text[OUT], options[i]);
    program_run(&p, "", "--help");
    ck_has(p.text[OUT], "  topo ");
}
END_TEST

static void write_machines(void) {
    write_file("two.graph", two_hosts);
    write_file("machine.xml", nccl_xml);
}

int main(void) {
    const TTest *const all[] = {text_is_a_tree,
                                optimum,
                                plans,
                                trees_in_json,
                                kinds,
                                a_file_in_the_environment,
                                pictures,
                                pictures_of_odd_machines,
                                sixteen_ranks,
                                many_ranks,
                                dumps,
                                formats,
                                warnings,
                                bad_usage,
                                failed_planning,
                                this_machine,
                                recorded_machine,
                                help};
    char script[256];
    if (!mkdtemp(folder)) return 1;
    Suite *suite = suite_create("topo_program");
    TCase *tests = tcase_create("topo_program");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, write_machines, NULL);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    snprintf(script, sizeof script, "rm -rf %s", folder);
    return system(script) != 0 || failed ? 1 : 0;
}
