/* SPDX-License-Identifier: Apache-2.0 */
/* The capacity graph: its text format with every complaint and its line, limits, look-ups. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "topo/graph.h"

static uint64_t rng = 1;

static unsigned random_below(unsigned bound) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(rng >> 33) % bound;
}

static cinchResult_t read_text(cinch_graph *graph, const char *text) {
    return cinch_graph_read(graph, text, strlen(text), "g.graph");
}

/* What cinch_graph_write writes; the caller frees it. */
static char *written(const cinch_graph *graph) {
    char *text = NULL;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    ck_assert_int_eq(cinch_graph_write(graph, to), cinchSuccess);
    fclose(to);
    return text;
}

START_TEST(reads) {
    cinch_graph g = {0};
    /* A link before its nodes, comments, tabs, CRLF, no newline at the end, parallel links. */
    ck_assert_int_eq(read_text(&g, "# c\r\nlink a\tsw 12.5 # both\r\n\n gpu a\r\nswitch sw\ngpu b\n"
                                   "link b sw 3 1e1\nlink sw a .5\nlink a b 7. 0\nlink b a 0 1\n"
                                   "link a b 0000.25E+1 0.0"),
                     cinchSuccess);
    ck_assert_int_eq(g.nodes, 3);
    ck_assert_int_eq(g.gpus, 2);
    ck_assert_int_eq(g.arcs, 5);
    static const struct {
        const char *from, *to;
        double gbps;
    } want[] = {
        {"a", "sw", 13}, {"sw", "a", 13}, {"b", "sw", 3}, {"sw", "b", 10}, {"a", "b", 10.5}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        int from = cinch_graph_find(&g, want[i].from), to = cinch_graph_find(&g, want[i].to);
        int arc = cinch_graph_find_arc(&g, from, to);
        ck_assert_int_ge(arc, 0);
        ck_assert(g.arc[arc].gbps == want[i].gbps);
        ck_assert_int_eq(g.arc[arc].from, from);
        ck_assert_int_eq(g.arc[arc].to, to);
    }
    ck_assert_int_eq(cinch_graph_gpu(&g, 0), cinch_graph_find(&g, "a"));
    ck_assert_int_eq(cinch_graph_gpu(&g, 1), cinch_graph_find(&g, "b"));
    ck_assert_int_eq(cinch_graph_find(&g, "s"), -1);
    ck_assert_int_eq(cinch_graph_find(&g, ""), -1);
    ck_assert_int_eq(cinch_graph_find_arc(&g, 2, 0), -1);
    ck_assert_int_eq(cinch_graph_find_arc(&g, -1, 3), -1);
    cinch_graph_free(&g);
    ck_assert_int_eq(read_text(&g, ""), cinchSuccess);
    ck_assert_int_eq(g.nodes, 0);
    cinch_graph_free(&g);
}
END_TEST

static const struct {
    const char *text, *line, *says;
} complaints[] = {
    {"gpu", "line 1:", "gpu NAME"},
    {"\nswitch a b", "line 2:", "switch NAME"},
    {"gpu a\n#\nswitch a", "line 3:", "\"a\" was there before"},
    {"GPU a", "line 1:", "\"GPU\" is not known"},
    {"gpu a\nnode", "line 2:", "gpu NAME, switch NAME, link A B GBPS [GBPS_BACK]"},
    {"gpu a\001b", "line 1:", "control character (0x01)"},
    {"link a b", "line 1:", "two names and one or two bandwidths"},
    {"gpu a\nlink", "line 2:", "two names"},
    {"gpu a\ngpu b\nlink a b 1 2 3", "line 3:", "link A B GBPS [GBPS_BACK]"},
    {"gpu a\ngpu b\nlink a b 1 2 3 4 5 6 7 8", "line 3:", "link A B GBPS [GBPS_BACK]"},
    {"gpu a\nlink a b 1", "line 2:", "no node is called \"b\""},
    {"gpu a\nlink c a 1", "line 2:", "no node is called \"c\""},
    {"gpu a\nlink a a 1", "line 2:", "from \"a\" to itself"},
    {"gpu a\ngpu b\nlink a b 0", "line 3:", "above 0 in at least one direction"},
    {"gpu a\ngpu b\nlink a b 0 0.00e5", "line 3:", "above 0 in at least one direction"},
};

START_TEST(complains) {
    cinch_graph g = {0};
    ck_assert_int_eq(read_text(&g, complaints[_i].text), cinchInvalidArgument);
    const char *said = cinch_last_error();
    ck_assert_msg(strncmp(said, "g.graph, ", 9) == 0, "%s", said);
    ck_assert_msg(strstr(said, complaints[_i].line) != NULL, "%s", said);
    ck_assert_msg(strstr(said, complaints[_i].says) != NULL, "%s", said);
    ck_assert_int_eq(g.nodes, 0);
    ck_assert_ptr_null(g.node);
}
END_TEST

START_TEST(numbers) {
    static const char *const bad[] = {
        "-1",    "+1",  "1x",   "x",     ".",    "1e",    "e5",    "1e+",    "0x10",
        "inf",   "nan", "1,5",  "1_000", "1e13", "1e999", "1e-10", "1e-400", "0.0000000000001",
        "1.2.3", "--1", "1e5.0"};
    cinch_graph g = {0};
    char text[200];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (int back = 0; back < 2; back++) {
            snprintf(text, sizeof text, "gpu a\ngpu b\nlink a b %s%s", back ? "1 " : "", bad[i]);
            ck_assert_msg(read_text(&g, text) == cinchInvalidArgument, "%s", bad[i]);
            ck_assert_ptr_nonnull(strstr(cinch_last_error(), "line 3:"));
            ck_assert_ptr_nonnull(strstr(cinch_last_error(), "is no bandwidth"));
        }
    }
    /* 63 characters are a number, 64 are not. */
    for (int length = 63; length <= 64; length++) {
        snprintf(text, sizeof text, "gpu a\ngpu b\nlink a b %0*d", length, 5);
        ck_assert_int_eq(read_text(&g, text), length == 63 ? cinchSuccess : cinchInvalidArgument);
        cinch_graph_free(&g);
    }
    static const double ends[] = {1e-9, 1e12};
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "gpu a\ngpu b\nlink a b %.17g", ends[i]);
        ck_assert_int_eq(read_text(&g, text), cinchSuccess);
        ck_assert(g.arc[0].gbps == ends[i]);
        cinch_graph_free(&g);
    }
}
END_TEST

/* A NUL in the text, and a name one byte too long. */
START_TEST(bytes) {
    cinch_graph g = {0};
    static const char nul[] = "gpu a\ngpu b\0c\n";
    ck_assert_int_eq(cinch_graph_read(&g, nul, sizeof nul - 1, "n"), cinchInvalidArgument);
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "n, line 2: a name has a control character"));
    for (int length = 255; length <= 256; length++) {
        char text[300];
        snprintf(text, sizeof text, "switch x\ngpu %0*d\n", length, 1);
        ck_assert_int_eq(read_text(&g, text), length == 255 ? cinchSuccess : cinchInvalidArgument);
        if (length == 255) cinch_graph_free(&g);
    }
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "line 2:"));
    ck_assert_ptr_nonnull(strstr(cinch_last_error(), "longer than 255 bytes"));
    /* What a terminal would obey does not come out again. */
    ck_assert_int_eq(read_text(&g, "\033[2J a"), cinchInvalidArgument);
    ck_assert_ptr_null(strchr(cinch_last_error(), '\033'));
}
END_TEST

START_TEST(calls) {
    cinch_graph g = {0};
    int a, b;
    static const char *const names[] = {"", "a b", "a#", "a\n", "\177"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_int_eq(
            cinch_graph_add_node(&g, names[i], CINCH_NODE_GPU, CINCH_PART_OTHER, 0, NULL),
            cinchInvalidArgument);
    ck_assert_int_eq(g.nodes + g.gpus, 0);
    ck_assert_int_eq(cinch_graph_add_node(&g, "a", CINCH_NODE_SWITCH, CINCH_PART_CPU, 3, &a), 0);
    ck_assert_int_eq(cinch_graph_add_node(&g, "b", CINCH_NODE_GPU, CINCH_PART_OTHER, 4, &b), 0);
    ck_assert_int_eq(cinch_graph_add_node(&g, "a", CINCH_NODE_GPU, CINCH_PART_CPU, 3, NULL),
                     cinchInvalidArgument);
    ck_assert_int_eq(g.nodes, 2);
    ck_assert_int_eq(g.node[a].part, CINCH_PART_CPU);
    ck_assert_int_eq(g.node[a].host, 3);
    ck_assert_int_eq(g.gpus, 1);
    ck_assert_int_eq(cinch_graph_gpu(&g, 0), b);
    static const double bad[] = {0, -1, 0.0 / 0.0, 1 / 0.0};
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(cinch_graph_add_arc(&g, a, b, bad[i], CINCH_LINK_PCI),
                         cinchInvalidArgument);
        ck_assert_int_eq(cinch_graph_add_link(&g, a, b, bad[i], bad[i], CINCH_LINK_PCI),
                         cinchInvalidArgument);
        if (i > 0)
            ck_assert_int_eq(cinch_graph_add_link(&g, a, b, 1, bad[i], CINCH_LINK_PCI),
                             cinchInvalidArgument);
    }
    ck_assert_int_eq(cinch_graph_add_arc(&g, a, a, 1, CINCH_LINK_PCI), cinchInvalidArgument);
    ck_assert_int_eq(cinch_graph_add_arc(&g, a, 2, 1, CINCH_LINK_PCI), cinchInvalidArgument);
    ck_assert_int_eq(cinch_graph_add_arc(&g, -1, b, 1, CINCH_LINK_PCI), cinchInvalidArgument);
    ck_assert_int_eq(g.arcs, 0);
    ck_assert_int_eq(cinch_graph_add_arc(&g, a, b, 1e308, CINCH_LINK_PCI), cinchSuccess);
    ck_assert_int_eq(cinch_graph_add_arc(&g, a, b, 1e308, CINCH_LINK_SYS), cinchInvalidArgument);
    ck_assert(g.arc[0].gbps == 1e308 && g.arc[0].link == CINCH_LINK_PCI);
    cinch_graph_free(&g);
    ck_assert_ptr_null(g.names.fork);
}
END_TEST

static void assert_same(const cinch_graph *a, const cinch_graph *b) {
    ck_assert_int_eq(a->nodes, b->nodes);
    ck_assert_int_eq(a->arcs, b->arcs);
    for (int i = 0; i < a->nodes; i++) {
        ck_assert_str_eq(a->node[i].name, b->node[i].name);
        ck_assert_int_eq(a->node[i].kind, b->node[i].kind);
        ck_assert_int_eq(cinch_graph_find(b, a->node[i].name), i);
    }
    for (int i = 0; i < a->arcs; i++) {
        int j = cinch_graph_find_arc(b, a->arc[i].from, a->arc[i].to);
        ck_assert_int_ge(j, 0);
        ck_assert(a->arc[i].gbps == b->arc[j].gbps);
    }
}

/* Names that are each other's beginnings, bandwidths of any form, links of one and two ways. */
START_TEST(round_trip) {
    for (int round = 0; round < 300; round++) {
        cinch_graph g = {0}, again = {0};
        int nodes = 2 + (int)random_below(40);
        for (int i = 0; i < nodes; i++) {
            char name[40];
            snprintf(name, sizeof name, "%.*s%s%d", (int)random_below(12), "xxxxxxxxxxxx",
                     random_below(4) ? "" : "\xc3\xa9", i);
            ck_assert_int_eq(
                cinch_graph_add_node(&g, name, random_below(2) ? CINCH_NODE_GPU : CINCH_NODE_SWITCH,
                                     CINCH_PART_OTHER, 0, NULL),
                cinchSuccess);
        }
        for (int i = (int)random_below(100); i > 0; i--) {
            int from = (int)random_below((unsigned)nodes), to = (int)random_below((unsigned)nodes);
            double gbps = (1 + random_below(1000000)) / (double)(1 + random_below(300));
            double back = random_below(3) ? gbps : random_below(2) ? 0 : gbps / 3;
            if (from != to)
                ck_assert_int_eq(cinch_graph_add_link(&g, from, to, gbps, back, CINCH_LINK_OTHER),
                                 cinchSuccess);
        }
        char *text = written(&g);
        ck_assert_int_eq(read_text(&again, text), cinchSuccess);
        assert_same(&g, &again);
        char *twice = written(&again);
        ck_assert_str_eq(text, twice);
        free(text);
        free(twice);
        cinch_graph_free(&g);
        cinch_graph_free(&again);
    }
}
END_TEST

/* Any bytes: an answer, no more memory than it took, and, where it is read, a round trip. */
START_TEST(hostile) {
    static const char seed[] =
        "gpu g0\ngpu g1\nswitch s\nlink g0 s 12.5\nlink g1 s 3.125 1e2 # c\n";
    static const char alphabet[] = "gpuswitchlink 019.e-+#\n\t\r\0\xff";
    int read = 0;
    for (int round = 0; round < 20000; round++) {
        char text[sizeof seed];
        cinch_graph g = {0}, again = {0};
        memcpy(text, seed, sizeof seed);
        for (unsigned i = 1 + random_below(6); i > 0; i--)
            text[random_below(sizeof seed - 1)] = alphabet[random_below(sizeof alphabet - 1)];
        size_t length = random_below(4) ? sizeof seed - 1 : random_below(sizeof seed);
        char *exact = malloc(length + 1); /* so that a sanitizer sees one byte too far */
        exact = realloc(exact, length ? length : 1);
        memcpy(exact, text, length);
        if (cinch_graph_read(&g, exact, length, "h") == cinchSuccess) {
            char *out = written(&g);
            ck_assert_int_eq(read_text(&again, out), cinchSuccess);
            assert_same(&g, &again);
            free(out);
            read++;
        } else {
            ck_assert_ptr_null(g.node);
            ck_assert_ptr_nonnull(strstr(cinch_last_error(), "h, line "));
        }
        free(exact);
        cinch_graph_free(&g);
        cinch_graph_free(&again);
    }
    ck_assert_int_gt(read, 100);
    ck_assert_int_lt(read, 19000);
}
END_TEST

/* As many nodes and arcs as there may be, in a few seconds; and one more. */
START_TEST(limits) {
    char *text = NULL;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    const int nodes = CINCH_GRAPH_MOST_NODES;
    for (int i = 0; i < nodes; i++) fprintf(to, "gpu n%d\n", i);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < nodes; j++) fprintf(to, "link n%d n%d 25\n", j, (j + 1 + i) % nodes);
    fclose(to);
    cinch_graph g = {0};
    ck_assert_int_eq(cinch_graph_read(&g, text, length, "big"), cinchSuccess);
    ck_assert_int_eq(g.nodes, nodes);
    ck_assert_int_eq(g.arcs, CINCH_GRAPH_MOST_ARCS);
    for (int i = 0; i < nodes; i += 7) ck_assert_int_eq(cinch_graph_find(&g, g.node[i].name), i);
    for (int i = 0; i < g.arcs; i += 11)
        ck_assert_int_eq(cinch_graph_find_arc(&g, g.arc[i].from, g.arc[i].to), i);
    /* A link that is there takes no room; a new one has none, nor a node. */
    ck_assert_int_eq(cinch_graph_add_arc(&g, 0, 1, 1, CINCH_LINK_OTHER), cinchSuccess);
    ck_assert_int_eq(cinch_graph_add_arc(&g, 0, 1000, 1, CINCH_LINK_OTHER), cinchSystemError);
    ck_assert_int_eq(cinch_graph_add_node(&g, "x", CINCH_NODE_GPU, CINCH_PART_OTHER, 0, NULL),
                     cinchSystemError);
    cinch_graph_free(&g);
    char *more = malloc(length + 100);
    for (int i = 0; i < 2; i++) {
        memcpy(more, text, length);
        size_t added = (size_t)sprintf(more + length, i ? "gpu x\n" : "link n0 n1000 1\n");
        ck_assert_int_eq(cinch_graph_read(&g, more, length + added, "big"), cinchInvalidArgument);
        ck_assert_ptr_nonnull(strstr(cinch_last_error(), "big, line 589825: a graph has at most"));
    }
    free(more);
    free(text);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("graph");
    TCase *text = tcase_create("text"), *large = tcase_create("large");
    tcase_add_test(text, reads);
    tcase_add_loop_test(text, complains, 0, (int)(sizeof complaints / sizeof *complaints));
    tcase_add_test(text, numbers);
    tcase_add_test(text, bytes);
    tcase_add_test(text, calls);
    tcase_add_test(text, round_trip);
    suite_add_tcase(suite, text);
    tcase_set_timeout(large, 120);
    tcase_add_test(large, hostile);
    tcase_add_test(large, limits);
    suite_add_tcase(suite, large);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
