/* SPDX-License-Identifier: Apache-2.0 */
/* The cinch program: a table of subcommands. */
#include <stdio.h>
#include <string.h>

#include "cinch/cinch.h"
#include "perf/commands.h"
#include "perf/train.h"

typedef struct subcommand {
    const char *name;
    int (*main)(int argc, char **argv); /* NULL: known, not in this version */
    const char *help;
} subcommand;

static const subcommand subcommands[] = {
    {"run", cinch_run_main, "start N ranks of a program on this host"},
    {"perf", cinch_perf_main, "measure and check a collective"},
    {"train", cinch_train_main, "train a small language model, exact and compressed"},
    {"info", cinch_info_main, "what this build and this machine offer, and every setting"},
    {"topo", cinch_topo_main, "what a machine is made of, and plans for it"},
    {"tune", cinch_tune_main, "measure this machine, and write a plan file"},
};

static void print_help(FILE *file) {
    fputs("usage: cinch COMMAND [OPTION]...\n\n", file);
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        if (subcommands[i].main)
            fprintf(file, "  %-8s %s\n", subcommands[i].name, subcommands[i].help);
    fputs("\ncinch COMMAND --help says more.\n", file);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fputs("cinch: no command is given; cinch --help lists them\n", stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("cinch " CINCH_RELEASE);
        return 0;
    }
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++) {
        if (strcmp(argv[1], subcommands[i].name) != 0) continue;
        if (subcommands[i].main) return subcommands[i].main(argc - 1, argv + 1);
        fprintf(stderr, "cinch %s: known, not in this version\n", argv[1]);
        return 2;
    }
    fprintf(stderr, "cinch: unknown command \"%s\"; cinch --help lists them\n", argv[1]);
    return 2;
}
