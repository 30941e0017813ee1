/* SPDX-License-Identifier: Apache-2.0 */
/* Topology texts made to hurt: nested, multiplied, enormous, each of which must end in an error or
 * a machine within bounded time and memory; and graphs that NCCL's XML cannot hold. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/log.h"
#include "topo/readers.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOST_SECONDS 20.0
#define MOST_KBYTES (4L << 20)
#else
#define MOST_SECONDS 3.0
#define MOST_KBYTES (512L << 10)
#endif

/* ---- texts of `count` pieces between two ends ---- */

typedef struct {
    char *text;
    size_t length;
} made;

static made make(const char *begin, const char *piece, int count, const char *end) {
    made m;
    FILE *to = open_memstream(&m.text, &m.length);
    fputs(begin, to);
    for (int i = 0; i < count; i++)
        for (const char *at = piece; *at; at++) {
            if (*at == '#') /* the piece's number */
                fprintf(to, "%d", i);
            else
                fputc(*at, to);
        }
    fputs(end, to);
    fclose(to);
    return m;
}

#define CPU "<system><cpu numaid=\"0\">"
#define END "</cpu></system>"
#define BOMB                                                                                       \
    "<!DOCTYPE system [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">"         \
    "<!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;&c;&c;\">]>"           \
    "<system>&d;&d;&d;&d;</system>"
#define MACHINE "<topology version=\"2.0\"><object type=\"Machine\">"

/* says NULL: it is read. */
static const struct {
    const char *begin, *piece;
    int count;
    const char *end, *says;
} hostile[] = {
    {"", "<cpu>", 1000000, "", "nested deeper than 64"},
    {"<system>", "<a><b/></a>", 400000, "</system>", "there are more elements than 200000"},
    {"<system><cpu ", "a#=\"\" ", 65, "/></system>", "an element has more attributes than 64"},
    {"<system><cpu ", "a#=\"\" ", 600000, "/></system>", "an element has more attributes than 64"},
    {BOMB, "", 0, "", "it declares an entity"},
    {"<!DOCTYPE system [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><system>&a;", "", 0, "</system>",
     "it declares an entity"},
    {"<!DOCTYPE system [<!ENTITY % a \"b\">]><system/>", "", 0, "", "it declares an entity"},
    {"<!DOCTYPE system SYSTEM \"/dev/zero\"><system>", "", 0, "</system>", "has no <cpu>"},
    {"<system>&amp;&#60;&undefined;", "", 0, "</system>", "undefined entity"},
    {CPU, "text ", 2000000, END, NULL},
    {CPU "<!--", "comment ", 1250000, "-->" END, NULL},
    {CPU "<pci busid=\"", "0123456789", 1000000, "\" class=\"0x030200\"/>" END, NULL},
    {CPU, "<pci busid=\"#\" class=\"0x030200\"/>", 5000, END, "f has more than 4096 parts"},
    {CPU, "<pci busid=\"#\" class=\"0x030200\"/>", 4000, END, NULL},
    {CPU, "<pci busid=\"1\" class=\"0x030200\"/>", 4000, END, NULL},
    {CPU, "<pci busid=\"1\"><gpu rank=\"7\"/></pci>", 4000, END, NULL},
    {CPU, "<nic><net name=\"a#\" speed=\"1000\"/></nic>", 2000, END, NULL},
    {CPU, "<nic><net name=\"a\" speed=\"1000\"/></nic>", 60000, END, NULL},
    {CPU, "<pci busid=\"#\"><nic><net name=\"a\" speed=\"1000\"/></nic></pci>", 2000, END, NULL},
    {"<system>", "<cpu numaid=\"0\"/>", 257, "</system>", "f has more than 256 CPUs"},
    {"<system>", "<cpu numaid=\"0\"/>", 256, "</system>", NULL},
    {"<system>", "<cpu numaid=\"0\" host_hash=\"#\"/>", 200000, "</system>", "more elements"},
    {"<system>", "<cpu numaid=\"0\" host_hash=\"#\"/>", 100000, "</system>", "more than 256 CPUs"},
    {CPU "<pci busid=\"1\"><gpu>", "<nvlink target=\"2\" count=\"1\"/>", 150000, "</gpu></pci>" END,
     NULL},
    {CPU "<pci busid=\"1\"><gpu>", "<nvlink target=\"1\" count=\"1\"/>", 16385, "</gpu></pci>" END,
     "f has more than 16384 links"},
    {CPU "<pci busid=\"1\"><gpu>", "<c2c bw=\"1e9\" count=\"1024\"/>", 100000, "</gpu></pci>" END,
     NULL},
    {CPU "<pci busid=\"1\"><gpu>", "<nvlink target=\"2\" count=\"1\" gbps=\"1e308\"/>", 9,
     "</gpu></pci><pci busid=\"2\"><gpu><nvlink target=\"1\" count=\"1\" gbps=\"1e308\"/>"
     "<nvlink target=\"1\" count=\"1\" gbps=\"1e308\"/></gpu></pci>" END,
     NULL},
    {"<topology version=\"2.0\">", "<object type=\"Machine\">", 1000, "", "nested deeper than 64"},
    {MACHINE, "<object type=\"Package\"/>", 300, "</object></topology>", "more than 256 CPUs"},
    {MACHINE, "<object type=\"PCIDev\" pci_type=\"0302\"/>", 5000, "</object></topology>",
     "more than 4096 parts"},
    {MACHINE, "<object type=\"PCIDev\" subtype=\"NVSwitch\"/>", 150000, "</object></topology>",
     NULL},
    {MACHINE "<object type=\"PCIDev\" pci_type=\"0302\">",
     "<object type=\"OSDev\" gp_index=\"#\"/>", 150000, "</object></object></topology>", NULL},
    {MACHINE "</object>",
     "<distances2 name=\"NVLinkBandwidth\" nbobjs=\"512\"><indexes>1</indexes></distances2>", 60000,
     "</topology>", "has 1 indexes and needs 512"},
    {MACHINE "</object><distances2 name=\"NVLinkBandwidth\" nbobjs=\"2\"><indexes>1 2</indexes>"
             "<u64values>",
     "1", 400, " 2 3 4</u64values></distances2></topology>", "<u64values> of NVLinkBandwidth has"},
    {"\t", "GPU#\t", 257, "\nGPU0\t X \n", "more than 256 GPUs and NICs"},
    {"\tGPU0\n", "GPU0\t X \tX\n", 500000, "", "a second row of GPU0"},
    {"\tGPU0\nGPU0\t X \n", "\n", 10000000, "", NULL},
    {"\tGPU0\nGPU0\t X \n", "NIC0: mlx5_0\n", 800000, "", NULL},
    {"", "\n", 10000000, "\tGPU0\nGPU0\t X \n", NULL},
    {"", "x GPU0\n", 1400000, "\tGPU0\nGPU0\t X \n", NULL},
    {"\tGPU0\n", "\033[0", 3000000, "\nGPU0\t X \n", NULL},
    {"\tGPU0\t", "long", 2500000, "\nGPU0\t X \t X \n", "f, line 2"},
    {"\tGPU0\nGPU0\t X \n", "x", 17000000, "", "at most 16777216 are read"},
    {"", "link a b 1\n", 900000, "", "f, line 1"},
};

START_TEST(bounded) {
    cinch_topology t;
    struct rusage usage;
    int count = hostile[_i].count;
#ifdef __SANITIZE_ADDRESS__
    /* Its string functions look at all of the text at every call. */
    if (!hostile[_i].says && count > 200000) count /= 256;
#endif
    made m = make(hostile[_i].begin, hostile[_i].piece, count, hostile[_i].end);
    clock_t begun = clock();
    cinchResult_t result = cinch_topology_read(m.text, m.length, CINCH_TOPOLOGY_AUTO, "f", &t);
    double seconds = (double)(clock() - begun) / CLOCKS_PER_SEC;
    ck_assert_msg(seconds < MOST_SECONDS, "%g s", seconds);
    getrusage(RUSAGE_SELF, &usage);
    ck_assert_msg(usage.ru_maxrss < MOST_KBYTES, "%ld kB", usage.ru_maxrss);
    if (hostile[_i].says) {
        ck_assert_int_eq(result, cinchInvalidArgument);
        ck_assert_msg(strstr(cinch_last_error(), hostile[_i].says) != NULL, "%s",
                      cinch_last_error());
    } else {
        ck_assert_msg(result == cinchSuccess, "%s", cinch_last_error());
    }
    cinch_topology_free(&t);
    free(m.text);
}
END_TEST

/* A matrix of 256 GPUs whose affinities are all the same and which nothing else joins. */
START_TEST(wide_matrix) {
    for (int sys = 0; sys < 2; sys++) {
        made m = make("\t", "GPU#\t", 256, "CPU Affinity\n");
        char *text = malloc(m.length + 256 * 1400), *at = text;
        at = stpcpy(at, m.text);
        for (int i = 0; i < 256; i++) {
            at += sprintf(at, "GPU%d", i);
            for (int j = 0; j < 256; j++)
                at = stpcpy(at, i == j                      ? "\tX"
                                : sys && i + j == 509       ? "\tSYS"
                                : (i / 16 == j / 16 && sys) ? "\tPHB"
                                                            : "\tNV1");
            at = stpcpy(at, "\t0-7\n");
        }
        cinch_topology t;
        clock_t begun = clock();
        ck_assert_msg(cinch_topology_read(text, (size_t)(at - text), CINCH_TOPOLOGY_AUTO, "f",
                                          &t) == cinchSuccess,
                      "%s", cinch_last_error());
        double seconds = (double)(clock() - begun) / CLOCKS_PER_SEC;
        ck_assert_msg(seconds < MOST_SECONDS, "%g s", seconds);
        ck_assert_int_eq(t.gpus, 256);
        cinch_topology_free(&t);
        free(text);
        free(m.text);
    }
}
END_TEST

int main(void) {
    cinch_log_threshold = CINCH_LOG_NONE;
    Suite *suite = suite_create("readers_hostile");
    TCase *texts = tcase_create("texts");
    tcase_set_timeout(texts, 120);
    tcase_add_test(texts, wide_matrix);
    if (cinch_topology_reads_xml())
        tcase_add_loop_test(texts, bounded, 0, (int)(sizeof hostile / sizeof *hostile));
    suite_add_tcase(suite, texts);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
