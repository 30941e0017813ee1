/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks' reports (coll/report.h) of a folder: read, and merged into a page that names who is to
 * blame. Files are read as if anybody could have written them. */
#ifndef CINCH_PERF_INFO_REPORTS_H_
#define CINCH_PERF_INFO_REPORTS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CINCH_REPORTS_MOST = 4096,           /* files; more are left out */
    CINCH_REPORT_MOST_BYTES = 512 << 10, /* of a file */
    CINCH_REPORT_MOST_RANKS = 65536,
    CINCH_REPORT_CALLS = 32
};

typedef struct cinch_report_past {
    int64_t number; /* of a collective call, the same on all ranks */
    bool pairs;     /* messages between pairs, which have none */
    char state[8];  /* "inside", "left", "failed" */
    char call[120];
} cinch_report_past;

/* What is used of one file. All texts are printable. */
typedef struct cinch_rank_report {
    char comm[20], name[64], host[64], reason[16], cause[512], doing[320];
    char wait_call[112], wait_for[32];
    int rank, ranks, failed;
    int64_t pid, time_ms;
    int64_t collectives; /* begun */
    bool inside;
    int peer; /* that it waits for, or -1 */
    int64_t wait_ms;
    uint64_t wire_bytes; /* to all peers */
    int items_open;      /* items and messages of the call that are under way or wait */
    int calls;
    cinch_report_past past[CINCH_REPORT_CALLS];
} cinch_rank_report;

#define CINCH_REPORT_WHY 256

/* One report out of a file's bytes. False with a clause in why. */
bool cinch_rank_report_parse(const char *data, size_t bytes, cinch_rank_report *out,
                             char why[CINCH_REPORT_WHY]);

typedef struct cinch_reports {
    cinch_rank_report *report;
    int count;
    int left_out; /* files, each after a sentence on stderr */
} cinch_reports;

/* Reads the reports of the folder; none is no failure. False: out of memory. */
bool cinch_reports_load(const char *folder, cinch_reports *out);
void cinch_reports_free(cinch_reports *reports);

/* The page; false where the file could not take it. */
bool cinch_reports_page(FILE *file, cinch_reports *reports, bool json);

#endif
