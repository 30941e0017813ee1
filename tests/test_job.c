/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: hosts' graphs and ranks' places to one graph, and its text, which keeps everything. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/bounds.h"
#include "topo/job.h"

static uint64_t seed;

static int upto(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (unsigned)n);
}

/* ---- words ---- */

static int add(cinch_graph *g, const char *name, cinch_node_kind kind, cinch_part part) {
    int node;
    ck_assert_int_eq(cinch_graph_add_node(g, name, kind, part, 0, &node), cinchSuccess);
    return node;
}

static void join(cinch_graph *g, int a, int b, double gbps, cinch_link_class link) {
    ck_assert_int_eq(cinch_graph_add_link(g, a, b, gbps, gbps, link), cinchSuccess);
}

/* A host of `cpus` CPUs with `gpus` GPUs spread over them, all to all by NVLink, and `nics` NICs.
 */
static void make_host(cinch_graph *g, int cpus, int gpus, int nics) {
    char name[32];
    int cpu[8], gpu[8];
    *g = (cinch_graph){0};
    for (int i = 0; i < gpus; i++) {
        snprintf(name, sizeof name, "gpu%d", i);
        gpu[i] = add(g, name, CINCH_NODE_GPU, CINCH_PART_OTHER);
    }
    for (int i = 0; i < cpus; i++) {
        snprintf(name, sizeof name, "cpu%d", i);
        cpu[i] = add(g, name, CINCH_NODE_SWITCH, CINCH_PART_CPU);
        for (int j = 0; j < i; j++) join(g, cpu[i], cpu[j], 20, CINCH_LINK_SYS);
    }
    for (int i = 0; i < gpus; i++) {
        if (cpus > 0) join(g, gpu[i], cpu[i % cpus], 24, CINCH_LINK_PCI);
        for (int j = 0; j < i; j++) join(g, gpu[i], gpu[j], 30 + i, CINCH_LINK_NVLINK);
    }
    for (int i = 0; i < nics; i++) {
        snprintf(name, sizeof name, "mlx%d", i);
        int nic = add(g, name, CINCH_NODE_SWITCH, CINCH_PART_NIC);
        snprintf(name, sizeof name, "net:mlx%d", i);
        int net = add(g, name, CINCH_NODE_SWITCH, CINCH_PART_NET);
        join(g, nic, cpu[i % cpus], 12, CINCH_LINK_PCI);
        join(g, nic, net, 10 + i, CINCH_LINK_NET);
    }
}

static double gbps(const cinch_graph *g, const char *a, const char *b) {
    int arc = cinch_graph_find_arc(g, cinch_graph_find(g, a), cinch_graph_find(g, b));
    return arc < 0 ? 0 : g->arc[arc].gbps;
}

static cinch_link_class class_of(const cinch_graph *g, const char *a, const char *b) {
    int arc = cinch_graph_find_arc(g, cinch_graph_find(g, a), cinch_graph_find(g, b));
    ck_assert_msg(arc >= 0, "no link %s %s", a, b);
    return g->arc[arc].link;
}

static void make_job(const cinch_graph *const *host, int hosts, const cinch_job_rank *rank,
                     int ranks, cinch_graph *job) {
    *job = (cinch_graph){0};
    ck_assert_msg(cinch_job_graph(host, hosts, rank, ranks, job) == cinchSuccess, "%s",
                  cinch_last_error());
    ck_assert_int_eq(job->gpus, ranks);
    for (int r = 0; r < ranks; r++) {
        char name[16];
        snprintf(name, sizeof name, "rank%d", r);
        const cinch_node *node = &job->node[cinch_graph_gpu(job, r)];
        ck_assert_str_eq(node->name, name);
        ck_assert_int_eq(node->host, rank[r].host);
    }
}

static char *text_of(const cinch_graph *g) {
    char *text;
    size_t length;
    ck_assert_int_eq(cinch_job_text(g, &text, &length), cinchSuccess);
    ck_assert_uint_eq(strlen(text), length);
    return text;
}

/* ---- jobs ---- */

START_TEST(test_gpus_of_a_host) {
    cinch_graph host, job;
    const cinch_graph *hosts[] = {&host};
    const cinch_job_rank rank[] = {{0, "gpu3"}, {0, "gpu0"}};
    make_host(&host, 2, 4, 1);
    make_job(hosts, 1, rank, 2, &job);
    ck_assert(gbps(&job, "rank0", "rank1") == 33);
    ck_assert_int_eq(class_of(&job, "rank0", "rank1"), CINCH_LINK_NVLINK);
    ck_assert(gbps(&job, "rank0", "cpu1") == 24);
    ck_assert(gbps(&job, "rank1", "cpu0") == 24);
    ck_assert(gbps(&job, "cpu0", "cpu1") == 20);
    ck_assert(gbps(&job, "mlx0", "net:mlx0") == 10);
    ck_assert_int_eq(cinch_graph_find(&job, "gpu1"), -1);
    ck_assert_int_eq(job.nodes, 2 + 2 + 2);
    cinch_graph_free(&host), cinch_graph_free(&job);
}
END_TEST

START_TEST(test_ranks_on_cpus) {
    cinch_graph host, job;
    const cinch_graph *hosts[] = {&host};
    const cinch_job_rank rank[] = {{0, "cpu1"}, {0, ""}, {0, "cpu1"}, {0, "gpu0"}};
    cinch_bounds bounds;
    make_host(&host, 2, 1, 0);
    make_job(hosts, 1, rank, 4, &job);
    ck_assert(gbps(&job, "rank0", "cpu1") == CINCH_JOB_SHM_GBPS);
    ck_assert(gbps(&job, "rank1", "cpu0") == CINCH_JOB_SHM_GBPS);
    ck_assert(gbps(&job, "rank2", "cpu1") == CINCH_JOB_SHM_GBPS);
    ck_assert_int_eq(class_of(&job, "rank2", "cpu1"), CINCH_LINK_SHM);
    ck_assert(gbps(&job, "rank3", "cpu0") == 24);
    ck_assert_int_eq(cinch_bounds_find(&job, 0, &bounds), cinchSuccess);
    ck_assert_double_eq_tol(bounds.broadcast, CINCH_JOB_SHM_GBPS, 1e-6);
    cinch_graph_free(&host), cinch_graph_free(&job);
}
END_TEST

START_TEST(test_shared_gpu) {
    cinch_graph host, job;
    const cinch_graph *hosts[] = {&host};
    const cinch_job_rank rank[] = {{0, "gpu1"}, {0, "gpu0"}, {0, "gpu1"}, {0, "gpu1"}};
    make_host(&host, 1, 2, 0);
    make_job(hosts, 1, rank, 4, &job);
    for (int r = 0; r < 4; r++) {
        char name[16];
        snprintf(name, sizeof name, "rank%d", r);
        ck_assert(gbps(&job, name, "gpu1") == (r == 1 ? 31 : CINCH_JOB_DEVICE_GBPS));
    }
    ck_assert_int_eq(job.node[cinch_graph_find(&job, "gpu1")].kind, CINCH_NODE_SWITCH);
    ck_assert(gbps(&job, "gpu1", "cpu0") == 24);
    ck_assert_int_eq(class_of(&job, "rank0", "gpu1"), CINCH_LINK_SHM);
    cinch_graph_free(&host), cinch_graph_free(&job);
}
END_TEST

START_TEST(test_hosts) {
    cinch_graph host[3], job;
    const cinch_graph *hosts[] = {&host[0], &host[1], &host[2]};
    const cinch_job_rank rank[] = {{2, "cpu0"}, {0, "gpu1"}, {1, "gpu0"}, {0, "gpu0"}};
    make_host(&host[0], 2, 2, 2);
    make_host(&host[1], 1, 1, 1);
    make_host(&host[2], 1, 0, 0);
    make_job(hosts, 3, rank, 4, &job);
    ck_assert(gbps(&job, "h0/mlx0", "network") == 10);
    ck_assert(gbps(&job, "h0/mlx1", "network") == 11);
    ck_assert(gbps(&job, "h1/mlx0", "network") == 10);
    ck_assert(gbps(&job, "h2/nic", "network") == CINCH_JOB_NIC_GBPS);
    ck_assert(gbps(&job, "h2/cpu0", "h2/nic") == CINCH_JOB_NIC_GBPS);
    ck_assert(gbps(&job, "rank3", "h0/cpu0") == 24);
    ck_assert(gbps(&job, "rank2", "h1/cpu0") == 24);
    ck_assert_int_eq(class_of(&job, "network", "h0/mlx0"), CINCH_LINK_NET);
    ck_assert_int_eq(cinch_graph_find(&job, "h0/nic"), -1);
    ck_assert_int_eq(cinch_graph_find(&job, "h0/net:mlx0"), -1);
    ck_assert_int_eq(job.node[cinch_graph_find(&job, "h2/cpu0")].host, 2);
    ck_assert_int_eq(job.node[cinch_graph_find(&job, "network")].part, CINCH_PART_NET);
    for (int i = 0; i < 3; i++) cinch_graph_free(&host[i]);
    cinch_graph_free(&job);
}
END_TEST

/* A .graph that tells no parts: its GPUs are ranks all the same, and get the assumed NIC. */
START_TEST(test_host_without_parts) {
    static const char text[] =
        "gpu rank1\ngpu b\nswitch rank0\nlink rank1 rank0 9\nlink b rank0 9\n";
    cinch_graph host = {0}, job;
    const cinch_graph *hosts[] = {&host, &host};
    const cinch_job_rank rank[] = {{0, "b"}, {0, "rank1"}, {1, "b"}};
    ck_assert_int_eq(cinch_graph_read(&host, text, strlen(text), "text"), cinchSuccess);
    make_job(hosts, 1, rank, 2, &job);
    ck_assert_int_eq(job.nodes, 3);
    ck_assert(job.arc[cinch_graph_find_arc(&job, 0, 2)].gbps == 9);
    cinch_graph_free(&job);
    make_job(hosts, 2, rank, 3, &job);
    ck_assert(gbps(&job, "rank2", "h1/nic") == CINCH_JOB_NIC_GBPS);
    ck_assert(gbps(&job, "rank1", "h0/nic") == CINCH_JOB_NIC_GBPS);
    cinch_graph_free(&job);
    cinch_graph_free(&host);
}
END_TEST

static void ck_refused(const cinch_graph *const *host, int hosts, const cinch_job_rank *rank,
                       int ranks, const char *words) {
    cinch_graph job = {0};
    ck_assert_int_eq(cinch_job_graph(host, hosts, rank, ranks, &job), cinchInvalidArgument);
    ck_assert_msg(strstr(cinch_last_error(), words) != NULL, "%s", cinch_last_error());
    ck_assert_int_eq(job.nodes + job.arcs + job.gpus, 0);
}

START_TEST(test_refused) {
    cinch_graph host, parts = {0};
    const cinch_graph *hosts[] = {&host}, *apart[] = {&parts};
    const cinch_job_rank rank[] = {{0, "gpu0"}, {1, "gpu1"}, {-1, ""}, {0, "gpu9"}};
    const cinch_job_rank far[] = {{0, "a"}, {0, "b"}}, cpu[] = {{0, ""}};
    make_host(&host, 1, 2, 0);
    ck_refused(hosts, 1, rank, 2, "rank 1 is on host 1 of 1");
    ck_refused(hosts, 1, &rank[2], 1, "rank 0 is on host -1 of 1");
    ck_refused(hosts, 1, &rank[3], 1, "rank 0 is at \"gpu9\", which host 0 has not");
    ck_refused(hosts, 1, rank, 0, "a job of 0 ranks");
    add(&parts, "a", CINCH_NODE_GPU, CINCH_PART_OTHER);
    add(&parts, "b", CINCH_NODE_GPU, CINCH_PART_OTHER);
    ck_refused(apart, 1, far, 2, "no way leads from rank 0 to rank 1, at \"b\" of host 0");
    ck_refused(apart, 1, cpu, 1, "rank 0 is at \"a CPU\"");
    ck_assert_int_eq(cinch_graph_add_link(&parts, 0, 1, 5, 0, CINCH_LINK_OTHER), cinchSuccess);
    ck_refused(apart, 1, far, 2, "no way leads from rank 1 to rank 0");
    cinch_graph_free(&host), cinch_graph_free(&parts);
}
END_TEST

/* Random hosts and places: all ranks reach each other, links between GPUs of one rank each stay as
 * they are, and the same input is the same text. */
START_TEST(test_random_jobs) {
    seed = (uint64_t)_i * 7919 + 1;
    int hosts = 1 + upto(4), ranks = 1 + upto(12), users[4][8] = {{0}}, sits[12];
    cinch_graph host[4], job, again;
    const cinch_graph *list[4];
    cinch_job_rank rank[12];
    for (int h = 0; h < hosts; h++) {
        make_host(&host[h], 1 + upto(3), upto(5), upto(3));
        list[h] = &host[h];
    }
    for (int r = 0; r < ranks; r++) {
        int h = rank[r].host = upto(hosts);
        sits[r] = host[h].gpus && upto(3) ? upto(host[h].gpus) : -1;
        if (sits[r] >= 0) users[h][sits[r]]++;
        snprintf(rank[r].at, sizeof rank[r].at, sits[r] >= 0 ? "gpu%d" : "cpu0", sits[r]);
    }
    make_job(list, hosts, rank, ranks, &job);
    cinch_bounds bounds;
    ck_assert_int_eq(cinch_bounds_find(&job, 0, &bounds), cinchSuccess);
    ck_assert_msg(bounds.allgather > 0 && bounds.allreduce > 0 && bounds.broadcast > 0, "%d", _i);
    for (int a = 0; a < ranks; a++)
        for (int b = 0; b < ranks; b++) {
            int h = rank[a].host;
            bool own = h == rank[b].host && sits[a] >= 0 && sits[b] >= 0 && a != b &&
                       users[h][sits[a]] == 1 && users[h][sits[b]] == 1;
            int arc = cinch_graph_find_arc(&job, a, b);
            ck_assert_int_eq(arc >= 0, own);
            if (own) ck_assert(job.arc[arc].gbps == 30 + fmax(sits[a], sits[b]));
        }
    make_job(list, hosts, rank, ranks, &again);
    char *one = text_of(&job), *two = text_of(&again);
    ck_assert_str_eq(one, two);
    free(one), free(two);
    for (int h = 0; h < hosts; h++) cinch_graph_free(&host[h]);
    cinch_graph_free(&job), cinch_graph_free(&again);
}
END_TEST

/* ---- text ---- */

static void ck_same(const cinch_graph *a, const cinch_graph *b) {
    ck_assert_int_eq(a->nodes, b->nodes);
    ck_assert_int_eq(a->arcs, b->arcs);
    ck_assert_int_eq(a->gpus, b->gpus);
    for (int i = 0; i < a->nodes; i++) {
        ck_assert_str_eq(a->node[i].name, b->node[i].name);
        ck_assert_int_eq(a->node[i].kind, b->node[i].kind);
        ck_assert_int_eq(a->node[i].part, b->node[i].part);
        ck_assert_int_eq(a->node[i].host, b->node[i].host);
    }
    for (int i = 0; i < a->arcs; i++) {
        int same = cinch_graph_find_arc(b, a->arc[i].from, a->arc[i].to);
        ck_assert_int_ge(same, 0);
        ck_assert(a->arc[i].gbps == b->arc[same].gbps);
        ck_assert_int_eq(a->arc[i].link, b->arc[same].link);
    }
}

START_TEST(test_text_is_exact) {
    cinch_graph g = {0}, back = {0}, plain = {0};
    char name[32];
    seed = (uint64_t)_i + 99;
    int nodes = 1 + upto(30);
    for (int i = 0; i < nodes; i++) {
        snprintf(name, sizeof name, "%s%d", upto(2) ? "host=" : "cpu", i);
        ck_assert_int_eq(cinch_graph_add_node(&g, name,
                                              upto(2) ? CINCH_NODE_GPU : CINCH_NODE_SWITCH,
                                              (cinch_part)upto(CINCH_PART_NET + 1),
                                              upto(3) ? upto(CINCH_GRAPH_MOST_NODES) : 0, NULL),
                         cinchSuccess);
    }
    for (int i = 0; i < 60; i++) {
        int a = upto(nodes), b = upto(nodes);
        double rate = ldexp(1 + upto(1 << 20) / 1048576.0, upto(20) - 10) / 3;
        if (a != b && cinch_graph_find_arc(&g, a, b) < 0)
            ck_assert_int_eq(
                cinch_graph_add_arc(&g, a, b, rate, (cinch_link_class)upto(CINCH_LINK_SHM + 1)),
                cinchSuccess);
    }
    char *text = text_of(&g);
    ck_assert_int_eq(cinch_graph_read(&back, text, strlen(text), "text"), cinchSuccess);
    ck_same(&g, &back);
    ck_same(&back, &g);
    char *again = text_of(&back);
    ck_assert_str_eq(text, again);
    /* Without its comments it is what every reader of .graph knows. */
    for (char *at = text; (at = strchr(at, '#'));)
        while (*at && *at != '\n') *at++ = ' ';
    ck_assert_int_eq(cinch_graph_read(&plain, text, strlen(text), "text"), cinchSuccess);
    ck_assert_int_eq(plain.nodes, g.nodes);
    ck_assert_int_eq(plain.arcs, g.arcs);
    for (int i = 0; i < plain.nodes; i++) {
        ck_assert_int_eq(plain.node[i].part, CINCH_PART_OTHER);
        ck_assert_int_eq(plain.node[i].host, 0);
    }
    free(text), free(again);
    cinch_graph_free(&g), cinch_graph_free(&back), cinch_graph_free(&plain);
}
END_TEST

/* What stands in a comment and is not known there is a comment. */
START_TEST(test_notes) {
    static const char text[] = "gpu a # cpu host=3\n"
                               "gpu b #: unheard of host=x host= host=-1 host=99999999999 pcie\n"
                               "switch c #:cpu host=7\r\n"
                               "switch d#: host=2 nic more\n"
                               "switch e #:\n"
                               "link a b 5 #: cpu\n"
                               "link b c 5 3 #: nvlink pci\n"
                               "link c d 1 # : shm\n"
                               "link d e 2 #:\tnet\n"
                               "#: cpu host=5\n";
    cinch_graph g = {0};
    ck_assert_msg(cinch_graph_read(&g, text, strlen(text), "text") == cinchSuccess, "%s",
                  cinch_last_error());
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(g.node[i].part, CINCH_PART_OTHER);
        ck_assert_int_eq(g.node[i].host, 0);
    }
    ck_assert_int_eq(g.node[2].part, CINCH_PART_CPU);
    ck_assert_int_eq(g.node[2].host, 7);
    ck_assert_int_eq(g.node[3].part, CINCH_PART_NIC);
    ck_assert_int_eq(g.node[3].host, 2);
    ck_assert_int_eq(g.node[4].part, CINCH_PART_OTHER);
    ck_assert_int_eq(class_of(&g, "a", "b"), CINCH_LINK_OTHER);
    ck_assert_int_eq(class_of(&g, "c", "b"), CINCH_LINK_NVLINK);
    ck_assert_int_eq(class_of(&g, "c", "d"), CINCH_LINK_OTHER);
    ck_assert_int_eq(class_of(&g, "d", "e"), CINCH_LINK_NET);
    cinch_graph_free(&g);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("job");
    TCase *all = tcase_create("all");
    tcase_add_test(all, test_gpus_of_a_host);
    tcase_add_test(all, test_ranks_on_cpus);
    tcase_add_test(all, test_shared_gpu);
    tcase_add_test(all, test_hosts);
    tcase_add_test(all, test_host_without_parts);
    tcase_add_test(all, test_refused);
    tcase_add_loop_test(all, test_random_jobs, 0, 200);
    tcase_add_loop_test(all, test_text_is_exact, 0, 200);
    tcase_add_test(all, test_notes);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
