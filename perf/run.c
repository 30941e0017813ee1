/* SPDX-License-Identifier: Apache-2.0 */
/* cinch run: starts N ranks of a program on this host. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/commands.h"
#include "perf/launch.h"

enum { OPT_RANKS, OPT_SET };
static const cinch_option table[] = {
    [OPT_RANKS] = {'n', NULL, "N", "how many ranks; not where another launcher has started them"},
    [OPT_SET] = {'x', NULL, "VAR=VALUE", "set a variable for the ranks; may be repeated"},
    {0},
};
static const cinch_command command = {
    "cinch run", "[-n N] [-x VAR=VALUE] [--] PROGRAM [ARGUMENT]...",
    "Starts N ranks of PROGRAM here, each with CINCH_RANK, CINCH_SIZE and a CINCH_COMM_ID that "
    "only\n"
    "they know. The exit status is that of the first rank that fails, 128 + signal where a signal\n"
    "ended it; the others then get TERM, and 2 s later KILL.\n"
    "Without -n, under mpirun, srun or torchrun: becomes PROGRAM, with the same variables.\n",
    table, true};

/* Whether text is VAR=VALUE, for a VAR that is not ours to set. */
static bool good_setting(const char *text) {
    size_t name = strcspn(text, "=");
    if (name == 0 || !text[name]) {
        cinch_usage(&command, "-x \"%s\": accepted is VAR=VALUE", text);
        return false;
    }
    if (!strncmp(text, "CINCH_RANK=", name + 1) || !strncmp(text, "CINCH_SIZE=", name + 1)) {
        cinch_usage(&command,
                    "-x %s: CINCH_RANK and CINCH_SIZE differ by rank and are set by "
                    "cinch run itself",
                    text);
        return false;
    }
    return true;
}

/* One rank of another launcher's: becomes the program; returns the exit status where it cannot. */
static int become(char *const *argv, char *const *set, int nset) {
    cinch_place place = {0};
    char number[16];
    for (int i = 0; i < nset; i++) putenv(set[i]);
    int found = cinch_place_given(&command, &place);
    if (!found) return cinch_usage(&command, "how many ranks? -n N is required");
    if (found != 1) return found;
    snprintf(number, sizeof number, "%d", place.rank);
    setenv("CINCH_RANK", number, 1);
    snprintf(number, sizeof number, "%d", place.size);
    setenv("CINCH_SIZE", number, 1);
    execvp(argv[0], argv);
    int err = errno;
    cinch_usage(&command, "cannot execute \"%s\": %s", argv[0], strerror(err));
    return err == ENOENT ? 127 : 126;
}

int cinch_run_main(int argc, char **argv) {
    int64_t ranks = 0;
    const char *value;
    int nset = 0, option, status = 2, signalled;
    char **set = calloc((size_t)argc, sizeof *set);
    if (!set) return 1;
    optind = 0;
    while ((option = cinch_option_next(&command, argc, argv, &value)) >= 0) {
        if (option == OPT_RANKS &&
            !cinch_option_count(&command, "-n", value, 1, CINCH_LAUNCH_MOST, &ranks))
            goto out;
        if (option == OPT_SET) {
            if (!good_setting(value)) goto out;
            set[nset++] = (char *)value;
        }
    }
    if (option == CINCH_OPTION_HELP) status = 0;
    if (option != CINCH_OPTION_END) goto out;
    if (optind == argc) {
        cinch_usage(&command, "no program is given to run");
    } else if (!ranks) {
        status = become(argv + optind, set, nset);
    } else {
        cinch_launch launch = {command.name, (int)ranks, NULL, argv + optind, set, nset, false};
        status = cinch_launch_run(&launch, &signalled);
    }
out:
    free(set);
    return status;
}
