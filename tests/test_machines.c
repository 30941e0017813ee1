/* SPDX-License-Identifier: Apache-2.0 */
/* Topology files of real machines, read where they are at hand: counts of GPUs and NICs against
 * their INDEX.md, refusals for the reason that it gives, what is written read again, and files with
 * bytes changed. They are in the folder that $CINCH_TEST_TOPOLOGIES names, else in
 * ../shared/topologies beside the tree.
 *
 * With `--table FILE` the table of these machines is written into FILE between its two marks. */
#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "topo/readers.h"

static char root[2048];

/* ---- the files ---- */

enum { MOST_FILES = 400 };
static char *files[MOST_FILES]; /* relative to root, sorted */
static int file_count;

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *folder, const char *ending) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, folder);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t length = strlen(e->d_name), end = strlen(ending);
        if (length <= end || strcmp(e->d_name + length - end, ending) != 0) continue;
        snprintf(path, sizeof path, "%s/%.250s", folder, e->d_name);
        if (file_count < MOST_FILES) files[file_count++] = strdup(path);
    }
    if (dir) closedir(dir);
}

/* The text of a file below root, NUL at its end; the caller frees it. NULL: none. */
static char *load(const char *file, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, file);
    FILE *from = fopen(path, "rb");
    if (!from) return NULL;
    fseek(from, 0, SEEK_END);
    *length = (size_t)ftell(from);
    rewind(from);
    char *text = calloc(1, *length + 1);
    if (fread(text, 1, *length, from) != *length) abort();
    fclose(from);
    return text;
}

/* Under its name below root, so that sentences are the same everywhere. */
static cinchResult_t read_machine(const char *file, cinch_topology *t) {
    size_t length;
    char *text = load(file, &length);
    cinchResult_t result = cinch_topology_read(text, length, CINCH_TOPOLOGY_AUTO, file, t);
    free(text);
    return result;
}

/* ---- what INDEX.md says ---- */

static char *index_text;

/* The row whose first cell begins with a file's name. */
static const char *row_of(const char *file) {
    char start[512];
    snprintf(start, sizeof start, "\n| %s ", file);
    const char *row = strstr(index_text, start);
    return row ? row + 1 : NULL;
}

/* A cell as a number, -1: it is none. */
static int cell_of(const char *row, int cell) {
    for (int i = 0; i <= cell; i++) row = strchr(row, '|') + 1;
    char *end;
    long value = strtol(row, &end, 10);
    return end == row ? -1 : (int)value;
}

/* hwloc's rows have no columns for counts: they say in words what is there. */
static const struct {
    const char *file, *words;
    int gpus, nics; /* -1: not told */
} told[] = {
    {"hwloc/v2/nvidiaDGX2.xml", "DGX-2H: 16 nvml", 16, 0},
    {"hwloc/v2/24em64t-2n6c2t-pci.xml", "mlx4 IB + GPU", -1, 1},
    {"hwloc/mpibind-coral-lassen.xml", "4xV100, 4 CUDA + 4 NVML, 4 mlx5 ports", 4, 4},
    {"hwloc/mpibind-epyc-corona-p2.xml", "EPYC Rome + 8 MI50", 8, -1},
    {"hwloc/mpibind-eas-tioga.xml", "8 RSMI GCDs", 8, -1},
    {"hwloc/mpibind-eas-tioga.xml", "4 hsi NICs", -1, 4},
    {"hwloc/mpibind-g4dnmetal.xml", "8xT4, 1 EFA", 8, 1},
};

/* Why INDEX.md has a file refused; NULL: it is to be read. */
static const char *refusal(const char *file) {
    if (strncmp(file, "hwloc/hwloc-", 12) == 0) return "version 3.0: version 2 is read";
    if (strstr(file, "hwloc1.xml")) return "version 1: version 2 is read";
    if (strncmp(file, "nccl-graphs/", 12) == 0) return "holds NCCL's plans";
    if (strncmp(file, "nvsmi/", 6) == 0 && row_of(file) && cell_of(row_of(file), 2) < 0)
        return strstr(file, "rocm_smi") ? "rocm-smi --showtopo" : "nvidia-smi nvlink -s";
    return NULL;
}

START_TEST(counts) {
    int read = 0, refused = 0, compared = 0;
    for (int i = 0; i < file_count; i++) {
        const char *file = files[i], *why = refusal(file), *row = row_of(file);
        cinch_topology t;
        cinchResult_t result = read_machine(file, &t);
        if (why) {
            ck_assert_msg(result == cinchInvalidArgument && strstr(cinch_last_error(), why),
                          "%s: %s", file, result ? cinch_last_error() : "read");
            refused++;
            continue;
        }
        ck_assert_msg(result == cinchSuccess, "%s", cinch_last_error());
        ck_assert_int_eq(t.graph.gpus, t.gpus);
        read++;
        bool nccl = strncmp(file, "nccl-xml/", 9) == 0;
        if (nccl || strncmp(file, "nvsmi/", 6) == 0) {
            ck_assert_msg(row != NULL, "%s is not in INDEX.md", file);
            ck_assert_msg(t.gpus == cell_of(row, nccl ? 4 : 2), "%s: %d GPUs", file, t.gpus);
            ck_assert_msg(t.nics == cell_of(row, nccl ? 5 : 3), "%s: %d NICs", file, t.nics);
            compared++;
        }
        for (size_t k = 0; k < sizeof told / sizeof *told; k++) {
            if (strcmp(told[k].file, file) != 0) continue;
            ck_assert_msg(strstr(index_text, told[k].words) != NULL, "%s", told[k].words);
            if (told[k].gpus >= 0) ck_assert_int_eq(t.gpus, told[k].gpus);
            if (told[k].nics >= 0) ck_assert_int_eq(t.nics, told[k].nics);
            compared++;
        }
        cinch_topology_free(&t);
    }
    printf("%d files: %d read, %d refused, %d counts compared\n", file_count, read, refused,
           compared);
    ck_assert_int_ge(compared, 50);
}
END_TEST

/* Faults that INDEX.md and the files' own notes name. */
START_TEST(faults) {
    static const struct {
        const char *file, *says;
    } want[] = {
        {"nccl-xml/azure/ncv4-topo.xml", "GPU 0003:00:00.0 has links to itself: left out"},
        {"nccl-xml/aws/g5.48xl-topo.xml", "9 PCI parts have no class"},
        {"nccl-xml/captured/vastai_hgx_b200x8_container.xml", "eth0 is listed more than once"},
        {"nccl-xml/rccl/topo_8p_90a_1.xml", "the NIC bond0 is a bond"},
        {"nvsmi/hgx_b200_x8_gpu2_no_nvlink.txt", "GPU2 has no NVLink or xGMI, which 7 of its"},
        {"hwloc/mpibind-eas-tioga.xml", "XGMIBandwidth gives a GPU 700 GB/s in all"},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        cinch_topology t;
        bool said = false;
        ck_assert_int_eq(read_machine(want[i].file, &t), cinchSuccess);
        for (int k = 0; k < t.warnings; k++) said = said || strstr(t.warning[k], want[i].says);
        ck_assert_msg(said, "%s: no \"%s\"", want[i].file, want[i].says);
        cinch_topology_free(&t);
    }
}
END_TEST

/* ---- written and read again ---- */

static cinchResult_t written(const cinch_graph *graph, char **text, size_t *length) {
    FILE *to = open_memstream(text, length);
    cinchResult_t result = cinch_topology_write_nccl(graph, to);
    fclose(to);
    return result;
}

/* The same parts in the same order, joined the same way. Names are the same where the text was
 * NCCL's; the parts of others get addresses of their own. */
static void expect_same(const char *file, const cinch_topology *a, const cinch_topology *b) {
    bool named = a->format == CINCH_TOPOLOGY_NCCL;
    ck_assert_msg(a->gpus == b->gpus && a->nics == b->nics, "%s", file);
    ck_assert_msg(a->graph.nodes == b->graph.nodes, "%s: %d nodes, %d", file, a->graph.nodes,
                  b->graph.nodes);
    ck_assert_msg(a->graph.arcs == b->graph.arcs, "%s: %d arcs, %d", file, a->graph.arcs,
                  b->graph.arcs);
    double sum_a = 0, sum_b = 0;
    for (int i = 0; i < a->graph.arcs; i++) {
        const cinch_arc *arc = &a->graph.arc[i];
        sum_a += arc->gbps, sum_b += b->graph.arc[i].gbps;
        if (!named) continue;
        int from = cinch_graph_find(&b->graph, a->graph.node[arc->from].name);
        int to = cinch_graph_find(&b->graph, a->graph.node[arc->to].name);
        int other = from >= 0 && to >= 0 ? cinch_graph_find_arc(&b->graph, from, to) : -1;
        ck_assert_msg(other >= 0, "%s: no link from %s to %s", file, a->graph.node[arc->from].name,
                      a->graph.node[arc->to].name);
        ck_assert_double_eq_tol(b->graph.arc[other].gbps, arc->gbps, 1e-9 * arc->gbps);
        ck_assert_int_eq(b->graph.arc[other].link, arc->link);
    }
    ck_assert_double_eq_tol(sum_a, sum_b, 1e-9 * sum_a);
}

START_TEST(again) {
    for (int i = 0; i < file_count; i++) {
        cinch_topology t, back;
        char *text;
        size_t length;
        if (read_machine(files[i], &t) != cinchSuccess) continue;
        ck_assert_msg(written(&t.graph, &text, &length) == cinchSuccess, "%s: %s", files[i],
                      cinch_last_error());
        ck_assert_msg(cinch_topology_read(text, length, CINCH_TOPOLOGY_NCCL, files[i], &back) ==
                          cinchSuccess,
                      "%s", cinch_last_error());
        expect_same(files[i], &t, &back);
        free(text);
        cinch_topology_free(&back);
        cinch_topology_free(&t);
    }
}
END_TEST

/* ---- changed bytes ---- */

static uint64_t rng;

static size_t random_below(size_t bound) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(rng >> 33) % bound;
}

/* Some bytes changed, a piece doubled or left out, or the end cut off. */
static size_t change(char *text, size_t length) {
    static const char spice[] = "<>\"'&/= \t\n0123456789-.xNVGPU\0\xff";
    size_t at = random_below(length), piece = random_below(64);
    if (piece > length - at) piece = length - at;
    switch (random_below(4)) {
    case 0:
        for (int i = 0; i < 8; i++)
            text[random_below(length)] = spice[random_below(sizeof spice - 1)];
        return length;
    case 1:
        memmove(text + at, text + at + piece, length - at - piece);
        return length - piece;
    case 2:
        memmove(text + random_below(length - piece + 1), text + at, piece);
        return length;
    default:
        return random_below(8) ? length - 1 : at;
    }
}

START_TEST(changed) {
    int read = 0, refused = 0;
    for (int i = 0; i < file_count; i++) {
        size_t length;
        char *text = load(files[i], &length), *copy = malloc(length + 1);
        rng = (uint64_t)i + 1;
        int times = length < 20000 ? 40 : 10;
        for (int k = 0; k < times && length > 0; k++) {
            cinch_topology t;
            memcpy(copy, text, length);
            size_t left = change(copy, length);
            if (cinch_topology_read(copy, left, CINCH_TOPOLOGY_AUTO, files[i], &t)) {
                ck_assert_msg(*cinch_last_error() != '\0', "%s: no sentence", files[i]);
                refused++;
                continue;
            }
            for (int a = 0; a < t.graph.arcs; a++)
                ck_assert(isfinite(t.graph.arc[a].gbps) && t.graph.arc[a].gbps > 0);
            char *xml;
            size_t bytes;
            cinchResult_t result = written(&t.graph, &xml, &bytes);
            ck_assert(result == cinchSuccess || result == cinchInvalidArgument);
            free(xml);
            cinch_topology_free(&t);
            read++;
        }
        free(text);
        free(copy);
    }
    printf("%d changed files were read, %d refused\n", read, refused);
    ck_assert_int_gt(read, 100);
    ck_assert_int_gt(refused, 100);
}
END_TEST

/* ---- the table ---- */

static void put_row(FILE *to, const char *file) {
    cinch_topology t;
    if (read_machine(file, &t) != cinchSuccess) {
        const char *why = cinch_last_error();
        if (strncmp(why, file, strlen(file)) == 0) why += strlen(file);
        fprintf(to, "| %s | | | | | | refused: it%s |\n", file, why);
        return;
    }
    int part[CINCH_PART_NET + 1] = {0};
    bool linked = false;
    for (int i = 0; i < t.graph.nodes; i++) part[t.graph.node[i].part]++;
    for (int i = 0; i < t.graph.arcs; i++)
        linked = linked || t.graph.arc[i].link == CINCH_LINK_NVLINK;
    fprintf(to, "| %s | %s | %d | %d | %s | %d / %d / %d |", file,
            cinch_topology_format_name(t.format), t.gpus, t.nics, linked ? "yes" : "no",
            part[CINCH_PART_CPU], part[CINCH_PART_PCI], part[CINCH_PART_NVSWITCH]);
    for (int i = 0; i < t.warnings; i++) fprintf(to, "%s %s", i ? ";" : "", t.warning[i]);
    fprintf(to, " |\n");
    cinch_topology_free(&t);
}

static char *make_table(void) {
    char *text = NULL;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    fputs("| file | format | GPUs | NICs | NVLink, xGMI | CPUs / PCI / NV switches | warnings |\n"
          "|---|---|---|---|---|---|---|\n",
          to);
    for (int i = 0; i < file_count; i++) put_row(to, files[i]);
    fclose(to);
    return text;
}

#define TABLE_BEGIN "<!-- machines: written by test_machines --table -->\n"
#define TABLE_END "<!-- end of machines -->\n"

static int write_table(const char *path) {
    static char text[1 << 20];
    FILE *from = fopen(path, "r");
    size_t length = from ? fread(text, 1, sizeof text - 1, from) : 0;
    if (from) fclose(from);
    text[length] = '\0';
    char *begin = strstr(text, TABLE_BEGIN), *end = strstr(text, TABLE_END);
    if (!begin || !end || file_count == 0) {
        fprintf(stderr, "no marks of the table in %s, or no machines at hand\n", path);
        return 2;
    }
    FILE *to = fopen(path, "w");
    char *table = make_table();
    if (to) fprintf(to, "%.*s%s%s%s", (int)(begin - text), text, TABLE_BEGIN, table, end);
    free(table);
    return to && fclose(to) == 0 ? 0 : 2;
}

/* The table in topo/README.md is of these machines and of this code. */
START_TEST(table) {
    static char text[1 << 20];
    FILE *from = fopen(CINCH_TEST_SOURCE "/topo/README.md", "r");
    ck_assert_ptr_nonnull(from);
    text[fread(text, 1, sizeof text - 1, from)] = '\0';
    fclose(from);
    char *made = make_table();
    ck_assert_msg(strstr(text, made) != NULL,
                  "test_machines --table topo/README.md writes another table");
    free(made);
}
END_TEST

int main(int argc, char **argv) {
    const char *set = getenv("CINCH_TEST_TOPOLOGIES");
    snprintf(root, sizeof root, "%s", set ? set : CINCH_TEST_SOURCE "/../shared/topologies");
    cinch_log_threshold = CINCH_LOG_NONE;
    static const char *const folders[] = {"nccl-xml/aws",  "nccl-xml/azure", "nccl-xml/captured",
                                          "nccl-xml/rccl", "nccl-graphs",    "hwloc",
                                          "hwloc/v2"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) list(folders[i], ".xml");
    list("nvsmi", ".txt");
    qsort(files, (size_t)file_count, sizeof *files, by_name);
    size_t length;
    index_text = load("INDEX.md", &length);
    if (file_count == 0 || !index_text || !cinch_topology_reads_xml()) {
        printf("skipped: %s\n",
               cinch_topology_reads_xml() ? "no recorded machines at hand" : "built without expat");
        return 77;
    }
    if (argc == 3 && strcmp(argv[1], "--table") == 0) return write_table(argv[2]);
    Suite *suite = suite_create("machines");
    TCase *recorded = tcase_create("recorded");
    tcase_set_timeout(recorded, 120);
    tcase_add_test(recorded, counts);
    tcase_add_test(recorded, faults);
    tcase_add_test(recorded, again);
    tcase_add_test(recorded, changed);
    tcase_add_test(recorded, table);
    suite_add_tcase(suite, recorded);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
