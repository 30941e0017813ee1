/* SPDX-License-Identifier: Apache-2.0 */
/* cinch perf and cinch info, as a user runs them: exit status, JSON, sentences, files. */
#include <check.h>
#include <stdbool.h>

#include "tests/run_program.h"

static program p;

/* The text of a key's value on a line of JSON, up to the comma or brace behind it. */
static const char *value_of(const char *line, const char *key) {
    static char value[256];
    char pattern[64];
    snprintf(pattern, sizeof pattern, "\"%s\":", key);
    const char *found = strstr(line, pattern);
    ck_assert_msg(found != NULL, "no %s in %s", key, line);
    found += strlen(pattern);
    snprintf(value, sizeof value, "%.*s", (int)strcspn(found, ",}\n"), found);
    return value;
}

#define ck_value(line, key, wanted) ck_assert_str_eq(value_of(line, key), wanted)

/* The k-th line of text. */
static const char *line_at(const char *text, int k) {
    for (; k > 0; k--) text = strchr(text, '\n') + 1;
    return text;
}

/* Runs a measurement that must pass, with its JSON on stdout; returns the number of lines. same:
 * every rank gets the same result. */
static int measure_operation(const char *operation, bool same, const char *environment,
                             const char *options) {
    char line[512];
    snprintf(line, sizeof line, "perf %s -w 1 -N 1 --json - %s", operation, options);
    program_run(&p, environment, line);
    ck_assert_msg(p.status == 0, "%s: %d, %s%s", line, p.status, p.text[ERR], p.text[OUT]);
    int lines = lines_in(p.text[OUT]);
    for (int i = 0; i < lines; i++) {
        const char *row = line_at(p.text[OUT], i);
        ck_value(row, "ranks_identical", same ? "true" : "null");
        ck_value(row, "repeatable", "true");
        ck_assert_msg(strstr("0null", value_of(row, "wrong")) != NULL, "%.300s", row);
    }
    return lines;
}

static int measure(const char *environment, const char *options) {
    return measure_operation("allreduce", true, environment, options);
}

static void check_keys(const char *row) {
    static const char *const keys[] = {"op",
                                       "bytes",
                                       "count",
                                       "dtype",
                                       "redop",
                                       "ranks",
                                       "codec",
                                       "algo",
                                       "transport",
                                       "device",
                                       "in_place",
                                       "time_us",
                                       "time_min_us",
                                       "algbw_GBps",
                                       "busbw_GBps",
                                       "wire_bytes",
                                       "wrong",
                                       "rel_l2",
                                       "max_abs_err",
                                       "ranks_identical",
                                       "repeatable",
                                       "result_hash",
                                       "predicted_us",
                                       "hidden_frac",
                                       "mem",
                                       "root",
                                       "overlap_comm_us",
                                       "overlap_compute_us",
                                       "overlap_together_us",
                                       "compute_slowed"};
    size_t commas = 0, nkeys = sizeof keys / sizeof *keys;
    for (size_t i = 0; i < nkeys; i++) value_of(row, keys[i]);
    for (const char *c = row; *c && *c != '\n'; c++) commas += *c == ',';
    ck_assert_uint_eq(commas, nkeys - 1);
}

START_TEST(json_has_the_agreed_keys) {
    ck_assert_int_eq(measure("", "-n 3 -b 1000 -e 1000"), 1);
    const char *row = p.text[OUT];
    check_keys(row);
    ck_value(row, "op", "\"allreduce\"");
    ck_value(row, "redop", "\"sum\"");
    ck_value(row, "root", "null");
    ck_value(row, "bytes", "1000");
    ck_value(row, "count", "250");
    ck_value(row, "dtype", "\"float\"");
    ck_value(row, "ranks", "3");
    ck_value(row, "codec", "\"none\"");
    ck_value(row, "device", "\"host\"");
    ck_value(row, "in_place", "false");
    ck_value(row, "wrong", "0");
    ck_value(row, "rel_l2", "0");
    ck_assert(atof(value_of(row, "predicted_us")) > 0);
    ck_value(row, "hidden_frac", "null");
    ck_value(row, "mem", "\"malloc\"");
    double time = atof(value_of(row, "time_us")), busbw = atof(value_of(row, "busbw_GBps"));
    ck_assert(time > 0 && atof(value_of(row, "time_min_us")) <= time);
    ck_assert_double_eq_tol(busbw, 1000 / (time * 1e3) * 4 / 3, 1e-6 * busbw);
    ck_assert_ptr_nonnull(strstr(p.text[ERR], "all 1 lines passed")); /* the table is there */
}
END_TEST

/* Beside a computation: the figures fit each other, also where nothing is hidden. */
START_TEST(overlap) {
    const char *row = p.text[OUT];
    ck_assert_int_eq(measure("", "-n 2 -b 60000 -e 60000 -w 1 -N 2 --overlap"), 1);
    check_keys(row);
    double comm = atof(value_of(row, "overlap_comm_us"));
    double compute = atof(value_of(row, "overlap_compute_us"));
    double together = atof(value_of(row, "overlap_together_us"));
    double hidden = atof(value_of(row, "hidden_frac"));
    ck_assert(comm > 0 && compute > 0 && together > 0);
    ck_assert_double_eq_tol(hidden, (comm + compute - together) / comm, 1e-6);
    ck_assert(atof(value_of(row, "compute_slowed")) > -1);
    ck_assert_ptr_nonnull(strstr(p.text[ERR], "beside a computation: hidden "));
    ck_assert_ptr_null(strstr(p.text[ERR], "WRONG"));
    ck_assert_int_eq(measure("", "-b 100 -e 100"), 1);
    ck_value(p.text[OUT], "compute_slowed", "null");
}
END_TEST

START_TEST(sizes) {
    ck_assert_int_eq(measure("", "-b 1 -e 70 -f 3 -d double -c 1"), 4); /* 1 3 9 27 */
    ck_value(line_at(p.text[OUT], 0), "bytes", "8");
    ck_value(line_at(p.text[OUT], 2), "bytes", "8");
    ck_value(line_at(p.text[OUT], 3), "bytes", "24");
    ck_assert_int_eq(measure("", "-b 1K -e 3K -i 1K"), 3);
    ck_value(line_at(p.text[OUT], 2), "bytes", "3072");
}
END_TEST

static const struct operation {
    const char *name;
    bool same;     /* every rank gets the same result */
    bool reduces;  /* so that there is a redop */
    bool rooted;   /* so that there is a root */
    bool in_place; /* it may be called so */
    int blocks;    /* that `bytes` counts, of three ranks */
    double factor; /* of the bus, likewise */
} operations[] = {
    {"allreduce", true, true, false, true, 1, 4.0 / 3},
    {"reducescatter", false, true, false, true, 3, 2.0 / 3},
    {"allgather", true, false, false, true, 3, 2.0 / 3},
    {"broadcast", true, false, true, true, 1, 1},
    {"reduce", false, true, true, true, 1, 1},
    {"alltoall", false, false, false, false, 3, 2.0 / 3},
    {"gather", false, false, true, true, 3, 2.0 / 3},
    {"scatter", false, false, true, true, 3, 2.0 / 3},
    {"sendrecv", false, false, false, false, 1, 1},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

START_TEST(every_operation) {
    for (const struct operation *o = operations; o < operations + OPERATIONS; o++) {
        ck_assert_int_eq(measure_operation(o->name, o->same, "", "-n 3 -b 4 -e 64K -f 128"), 3);
        for (int i = 0; i < 3; i++) {
            const char *row = line_at(p.text[OUT], i);
            int wanted = i == 0 ? 4 : i == 1 ? 512 : 65536;
            int count = wanted / o->blocks / 4 ? wanted / o->blocks / 4 : 1;
            double bytes = atof(value_of(row, "bytes")), time = atof(value_of(row, "time_us"));
            check_keys(row);
            ck_assert_int_eq(atoi(value_of(row, "count")), count);
            ck_assert_int_eq((int)bytes, count * o->blocks * 4);
            ck_assert_double_eq_tol(atof(value_of(row, "busbw_GBps")),
                                    bytes / (time * 1e3) * o->factor, 1e-6 * bytes / (time * 1e3));
            char name[32];
            snprintf(name, sizeof name, "\"%s\"", o->name);
            ck_value(row, "op", name);
            ck_value(row, "redop", o->reduces ? "\"sum\"" : "null");
            ck_value(row, "root", o->rooted ? "0" : "null");
            ck_value(row, "wrong", "0");
            ck_value(row, "rel_l2", "0");
        }
        ck_assert_ptr_nonnull(strstr(p.text[ERR], o->name)); /* the table's head */
        ck_assert_ptr_nonnull(strstr(p.text[ERR], "all 3 lines passed"));
    }
}
END_TEST

/* In place, every type, every root, over TCP; operators only where there is something to reduce. */
START_TEST(operations_in_place) {
    for (const struct operation *o = operations; o < operations + OPERATIONS; o++) {
        char options[200];
        snprintf(options, sizeof options, "-n 2 -b 1000 -e 1000 -d all -o all%s%s",
                 o->in_place ? " -p 1" : "", o->rooted ? " -r all --transport tcp" : "");
        ck_assert_int_eq(measure_operation(o->name, o->same, "", options),
                         12 * (o->reduces ? 6 : 1) * (o->rooted ? 2 : 1));
        ck_value(line_at(p.text[OUT], 1), "in_place", o->in_place ? "true" : "false");
        ck_value(line_at(p.text[OUT], 1), "root", o->rooted ? "1" : "null");
    }
}
END_TEST

START_TEST(every_type_and_operator) {
    static const char *const options[] = {"-n 2 -d all -o all -b 4 -e 4K -f 32",
                                          "-n 5 -d all -o all -b 300 -e 300 -p 1",
                                          "-n 3 -d all -o all -b 1K -e 1K --transport tcp"};
    for (int i = 0; i < 3; i++) {
        int lines = measure("", options[i]);
        ck_assert_int_eq(lines % (12 * 6), 0);
        ck_assert_int_gt(lines, 0);
    }
}
END_TEST

START_TEST(other_data) {
    static const char *const kinds[] = {"gauss", "heavy", "nonfinite"};
    for (int i = 0; i < 3; i++) {
        char options[100];
        snprintf(options, sizeof options, "-n 3 -d all -o all -b 16K -e 16K --data %s", kinds[i]);
        ck_assert_int_eq(measure("", options), 72);
    }
}
END_TEST

START_TEST(codecs) {
    measure("", "-n 3 -b 1M -e 1M --codec int8 -d float,half,bfloat16 -o sum,avg,max");
    for (int i = 0; i < 9; i++) {
        const char *row = line_at(p.text[OUT], i);
        bool max = strcmp(value_of(row, "redop"), "\"max\"") == 0;
        ck_value(row, "codec", max ? "\"none\"" : "\"int8\"");
        double error = atof(value_of(row, "rel_l2"));
        ck_assert_msg(max ? error == 0 : error > 0.004 && error < 0.011, "%.200s", row);
    }
    measure_operation("reducescatter", false, "",
                      "-n 3 -b 3M -e 3M --codec int8 -d float,half,bfloat16 -o sum,avg");
    for (int i = 0; i < 6; i++) {
        ck_value(line_at(p.text[OUT], i), "codec", "\"int8\"");
        double error = atof(value_of(line_at(p.text[OUT], i), "rel_l2"));
        ck_assert_msg(error > 0.003 && error <= 0.0075, "%.200s", line_at(p.text[OUT], i));
    }
    ck_value(line_at(p.text[OUT], 2), "dtype", "\"float\"");
    ck_assert(atof(value_of(line_at(p.text[OUT], 2), "wire_bytes")) < 0.256 * (3 << 20) * 2 / 3);
    measure_operation("allgather", true, "", "-n 3 -b 3M -e 3M --codec int8");
    ck_value(p.text[OUT], "codec", "\"int8\"");
    double gathered = atof(value_of(p.text[OUT], "rel_l2"));
    ck_assert(gathered > 0.003 && gathered <= 0.0075);
    ck_assert(atof(value_of(p.text[OUT], "wire_bytes")) < 0.256 * (3 << 20) * 2 / 3);
    /* in place it stays exact unless that is asked for */
    measure_operation("allgather", true, "", "-n 3 -b 3M -e 3M --codec int8 -p 1");
    ck_value(p.text[OUT], "codec", "\"none\"");
    ck_value(p.text[OUT], "rel_l2", "0");
    measure("", "-n 2 -b 1M -e 1M --codec int8:block=64,round=stochastic");
    ck_assert(atof(value_of(p.text[OUT], "rel_l2")) < 0.011);
    measure("", "-n 4 -b 1M -e 1M --codec topk:ratio=0.01");
    ck_value(p.text[OUT], "wrong", "null");
    ck_assert(atof(value_of(p.text[OUT], "wire_bytes")) < 0.05 * 1.5 * (1 << 20));
    measure("", "-n 2 -b 1M -e 1M --codec bf16 --data nonfinite");
    ck_value(p.text[OUT], "wrong", "0");
    /* too small to be compressed; and a variable works as the option does */
    measure("CINCH_CODEC_MIN_BYTES=512", "-n 2 -b 256 -e 512 -f 2 --codec int8");
    ck_value(line_at(p.text[OUT], 0), "codec", "\"none\"");
    ck_value(line_at(p.text[OUT], 1), "codec", "\"int8\"");
}
END_TEST

START_TEST(buffers) {
    measure("", "-n 2 -b 4K -e 64K --mem cinch");
    ck_value(p.text[OUT], "mem", "\"cinch\"");
    measure("", "-n 2 -b 64K -e 64K -p 1");
    ck_value(p.text[OUT], "in_place", "true");
    measure("", "-n 1 -b 4 -e 64K -d all -o all");
}
END_TEST

START_TEST(unchecked_is_null) {
    program_run(&p, "", "perf allreduce -n 2 --settle 20 -c 0 -b 4 -e 4 -N 1 --json -");
    ck_assert_int_eq(p.status, 0);
    static const char *const keys[] = {"wrong",           "rel_l2",     "max_abs_err",
                                       "ranks_identical", "repeatable", "result_hash"};
    for (int i = 0; i < 6; i++) ck_value(p.text[OUT], keys[i], "null");
}
END_TEST

START_TEST(input_and_files) {
    char dir[] = "/tmp/cinch-program-XXXXXX", line[512];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    for (int r = 0; r < 3; r++) {
        char path[64];
        snprintf(path, sizeof path, "%s/in.%d", dir, r);
        FILE *f = fopen(path, "w");
        for (int i = 0; i < 1000; i++) {
            float v = (float)(i * (r + 1)) / 7;
            fwrite(&v, sizeof v, 1, f);
        }
        fclose(f);
    }
    snprintf(line, sizeof line,
             "%s perf allreduce -n 3 -b 10K -e 10K -o sum,max -N 1 --input '%s/in.%%r' --json %s/j "
             "--plot %s/p.svg && cat %s/j %s/p.svg",
             CINCH_PROGRAM, dir, dir, dir, dir, dir);
    program_run_script(&p, line);
    ck_assert_msg(p.status == 0, "%s", p.text[ERR]);
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "\"wrong\":0,"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "all 2 lines passed"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "<svg "));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "</svg>"));
    snprintf(line, sizeof line, "perf allreduce -n 4 -e 10K --input '%s/in.%%r'", dir);
    program_run(&p, "", line); /* the fourth file is missing */
    ck_assert_int_eq(p.status, 2);
    ck_assert_int_eq(lines_in(p.text[ERR]), 1);
    snprintf(line, sizeof line,
             "CINCH_COMM_ID=h:1#5ec2e7 %s info --report %s/report >%s/out; ls %s/report; "
             "grep -r 5ec2e7 %s; rm -r %s",
             CINCH_PROGRAM, dir, dir, dir, dir, dir);
    program_run_script(&p, line);
    ck_assert_ptr_null(strstr(p.text[OUT], "5ec2e7"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "info.json"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "cpuinfo"));
}
END_TEST

START_TEST(ranks_of_a_launcher) {
    program_run(&p, "", "run -n 3 -- " CINCH_PROGRAM " perf allreduce -e 4 -N 1 --json -");
    ck_assert_int_eq(p.status, 0);
    ck_assert_int_eq(lines_in(p.text[OUT]), 1); /* rank 0 alone prints */
    ck_value(p.text[OUT], "ranks", "3");
    /* -n inside a rank starts ranks of its own */
    program_run(&p, "", "run -n 1 -- " CINCH_PROGRAM " perf allreduce -n 4 -e 4 -N 1 --json -");
    ck_value(p.text[OUT], "ranks", "4");
    program_run(&p, "", "run -n 1 -- " CINCH_PROGRAM " perf allreduce -e 4 -N 1 --json -");
    ck_value(p.text[OUT], "ranks", "2");
}
END_TEST

/* As torchrun starts them. The port is drawn from the pid, to keep two runs of the test apart. */
START_TEST(ranks_of_torchrun) {
    char line[512];
    int port = 20000 + (int)getpid() % 10000;
    snprintf(
        line, sizeof line,
        "export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=%d CINCH_INIT_TIMEOUT_MS=20000; "
        "for r in 0 1; do RANK=$r %s perf allreduce -e 4 -N 1 --json - & done; wait",
        port, CINCH_PROGRAM);
    program_run_script(&p, line);
    ck_assert_int_eq(lines_in(p.text[OUT]), 1);
    ck_value(p.text[OUT], "ranks", "2");
}
END_TEST

/* One sentence that names the culprit, status 2, and nothing was started. */
START_TEST(bad_usage) {
    static const struct {
        const char *environment, *line, *culprit;
    } cases[] = {
        {"", "", "no command"},
        {"", "frobnicate", "frobnicate"},
        {"", "topo --plan allreduce -n 0", "-n"},
        {"", "tune --ops frob", "frob"},
        {"", "perf", "which operation"},
        {"", "perf bcast",
         "\"bcast\": accepted is one of allreduce, reducescatter, allgather, broadcast, reduce, "
         "alltoall, gather, scatter, sendrecv"},
        {"", "perf alltoall -p 1", "alltoall is never in place"},
        {"", "perf sendrecv -p 1", "sendrecv is never in place"},
        {"", "perf allgather -r 0", "allgather has no root"},
        {"", "perf reduce -r -1", "-r \"-1\""},
        {"", "perf reduce -n 3 -r 3", "-r 3"},
        {"", "perf reduce -r 2", "-r 2"},
        {"CINCH_SIZE=4 CINCH_RANK=3", "perf reduce -r 4", "-r 4"},
        {"", "perf broadcast --codec int8", "broadcast is never compressed"},
        {"", "perf allreduce extra", "extra"},
        {"", "perf allreduce -n 0", "-n"},
        {"", "perf allreduce --settle -1", "--settle"},
        {"", "perf allreduce -n", "-n"},
        {"", "perf allreduce -b 3x", "3x"},
        {"", "perf allreduce -b 8 -e 4", "-e"},
        {"", "perf allreduce -f 1", "-f"},
        {"", "perf allreduce -f 2 -i 8", "-i"},
        {"", "perf allreduce -N 0", "-N"},
        {"", "perf allreduce -d int9", "int9"},
        {"", "perf allreduce -o summ", "summ"},
        {"", "perf allreduce -c 2", "-c"},
        {"", "perf allreduce --mem registered", "known, not in this version"},
        {"CUDA_VISIBLE_DEVICES=", "perf allreduce --device cuda", "--device cuda: "},
        {"", "perf allreduce --device cuda --mem cinch", "--mem cinch is host memory"},
        {"", "perf allreduce --overlap -n 1", "one rank has no communication to hide"},
        {"", "perf allreduce --codec int8:block=7", "block"},
        {"", "perf allreduce --algo rnig", "rnig"},
        {"", "perf allreduce --algo rnig:ring", "rnig"},
        {"", "perf gather --algo gather:rnig",
         "\"rnig\": accepted is one of auto, oneshot, direct"},
        {"", "perf gather --algo ring", "\"ring\": accepted is one of auto, oneshot, direct"},
        {"", "perf allreduce --transport nccl", "nccl"},
        {"", "perf allreduce --data wild", "wild"},
        {"", "perf allreduce --input /no/such", "/no/such"},
        {"", "perf allreduce --unknown", "--unknown"},
        {"CINCH_CHUNK=zz", "perf allreduce", "CINCH_CHUNK"},
        {"CINCH_CODEC=int9", "perf allreduce", "CINCH_CODEC"},
        {"CINCH_ALGO=rnig", "perf allreduce", "CINCH_ALGO"},
        {"CINCH_TRANSPORT=smoke", "perf allreduce", "CINCH_TRANSPORT"},
        {"CINCH_SIZE=2", "perf allreduce", "CINCH_RANK"},
        {"CINCH_SIZE=2 CINCH_RANK=2", "perf allreduce", "CINCH_RANK"},
        {"WORLD_SIZE=2 RANK=0", "perf allreduce", "MASTER_PORT"},
        {"OMPI_COMM_WORLD_SIZE=2", "perf allreduce", "OMPI_COMM_WORLD_RANK"},
        {"", "info extra", "extra"},
        {"", "info --report /no/such/folder/x >/dev/null", "/no/such/folder"},
        {"CINCH_CHECKSUM=7", "info >/dev/null", "CINCH_CHECKSUM"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        program_run(&p, cases[i].environment, cases[i].line);
        ck_assert_msg(p.status == 2, "%s: %d", cases[i].line, p.status);
        ck_assert_msg(lines_in(p.text[ERR]) == 1, "%s: %s", cases[i].line, p.text[ERR]);
        ck_assert_msg(strstr(p.text[ERR], cases[i].culprit) != NULL, "%s: %s", cases[i].line,
                      p.text[ERR]);
        ck_assert_str_eq(p.text[OUT], "");
    }
}
END_TEST

/* What only the ranks can find out: a sentence from each, and the status. Who has refused may hear
 * of another's end, too, before its own. */
START_TEST(failures_of_ranks) {
    program_run(&p, "", "perf allreduce -n 3 --algo exchange -e 4");
    ck_assert_int_eq(p.status, 2);
    ck_assert_ptr_nonnull(strstr(p.text[ERR], "it is for two ranks"));
    for (int r = 0; r < 3; r++) {
        char says[32];
        snprintf(says, sizeof says, "rank %d error: ", r);
        ck_assert_msg(strstr(p.text[ERR], says) != NULL, "%s: %s", says, p.text[ERR]);
    }
    program_run(&p, "CINCH_DEBUG=none", "perf allreduce -n 3 --algo exchange -e 4");
    ck_assert_int_eq(lines_in(p.text[ERR]), 3);
    program_run(&p, "",
                "run -n 2 -- sh -c 'CINCH_CHUNK=$CINCH_RANK exec " CINCH_PROGRAM
                " perf allreduce -e 4'");
    ck_assert_int_eq(p.status, 2);
    ck_assert_int_eq(lines_in(p.text[ERR]), 2);
    ck_assert_ptr_nonnull(strstr(p.text[ERR], "CINCH_CHUNK"));
    program_run(&p, "CINCH_SIZE=2 CINCH_RANK=1 CINCH_COMM_ID=127.0.0.1:9 CINCH_INIT_TIMEOUT_MS=300",
                "perf allreduce -e 4");
    ck_assert_int_eq(p.status, 1);
    ck_assert_int_eq(lines_in(p.text[ERR]), 1);
}
END_TEST

START_TEST(help_is_honest) {
    static const char *const lines[] = {"--help", "run --help", "perf --help", "perf allreduce -h",
                                        "info --help"};
    static const char *const absent[] = {"registered", "verbs", "ucx"};
    for (int i = 0; i < 5; i++) {
        program_run(&p, "", lines[i]);
        ck_assert_int_eq(p.status, 0);
        ck_assert_ptr_nonnull(strstr(p.text[OUT], "usage: cinch"));
        for (int k = 0; k < 3; k++)
            ck_assert_msg(!strstr(p.text[OUT], absent[k]), "%s: %s", lines[i], absent[k]);
    }
}
END_TEST

START_TEST(info) {
    program_run(&p, "CINCH_COMM_ID=h:1#5ec2e7 CINCH_CHUNK=64K", "info --env");
    ck_assert_int_eq(p.status, 0);
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "CINCH_CHUNK=64K  (environment)"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "CINCH_CODEC=none  (default)"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "CINCH_COMM_ID=h:1#(secret)"));
    ck_assert_ptr_null(strstr(p.text[OUT], "5ec2e7"));
    program_run(&p, "NCCL_COMM_ID=h:1#5ec2e7", "info --json");
    ck_assert_int_eq(p.status, 0);
    ck_assert_int_eq(lines_in(p.text[OUT]), 1);
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "\"source\":\"NCCL_COMM_ID\""));
    ck_assert_ptr_null(strstr(p.text[OUT], "5ec2e7"));
    ck_assert_ptr_nonnull(strstr(p.text[OUT], "\"name\":\"shm\",\"usable\":true"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("program");
    TCase *tcase = tcase_create("perf and info");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, json_has_the_agreed_keys);
    tcase_add_test(tcase, overlap);
    tcase_add_test(tcase, sizes);
    tcase_add_test(tcase, every_operation);
    tcase_add_test(tcase, operations_in_place);
    tcase_add_test(tcase, every_type_and_operator);
    tcase_add_test(tcase, other_data);
    tcase_add_test(tcase, codecs);
    tcase_add_test(tcase, buffers);
    tcase_add_test(tcase, unchecked_is_null);
    tcase_add_test(tcase, input_and_files);
    tcase_add_test(tcase, ranks_of_a_launcher);
    tcase_add_test(tcase, ranks_of_torchrun);
    tcase_add_test(tcase, bad_usage);
    tcase_add_test(tcase, failures_of_ranks);
    tcase_add_test(tcase, help_is_honest);
    tcase_add_test(tcase, info);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
