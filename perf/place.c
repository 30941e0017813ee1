/* SPDX-License-Identifier: Apache-2.0 */
/* Which rank of how many this process is: from -n, or from the launcher that started it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/settings.h"
#include "perf/launch.h"

/* Tells a rank that we started from a command that merely finds itself inside a `cinch run`: the
 * value is the starter's pid, so that it does not hold for what the rank may start in turn. */
#define MARK "_CINCH_STARTED_BY"

static bool started_by_us(void) {
    const char *mark = cinch_environment(MARK);
    return mark && strtol(mark, NULL, 10) == (long)getppid();
}

static int start_here(const cinch_command *command, int ranks, char **argv) {
    char mark[64], why[CINCH_ERROR_TEXT];
    char *set[] = {mark};
    cinch_settings settings;
    bool good = cinch_settings_load(&settings, why);
    cinch_settings_free(&settings);
    if (!good) return cinch_usage(command, "%s", why);
    snprintf(mark, sizeof mark, MARK "=%ld", (long)getpid());
    int argc = 0;
    while (argv[argc]) argc++;
    char **whole = calloc((size_t)argc + 2, sizeof *whole);
    if (!whole) return cinch_usage(command, "out of memory") - 1;
    whole[0] = (char[]){"cinch"};
    memcpy(whole + 1, argv, (size_t)argc * sizeof *argv);
    cinch_launch launch = {command->name, ranks, "/proc/self/exe", whole, set, 1, true};
    int signalled, status = cinch_launch_run(&launch, &signalled);
    free(whole);
    /* A rank that was killed is a failure of the communication, not the user's signal. */
    return status > 2 && !signalled ? 1 : status;
}

/* CINCH_RANK and CINCH_SIZE, out of which `least` ranks make a job. 1: found; 0: no; 2: wrong. */
static int place_from_cinch(const cinch_command *command, int least, cinch_place *place) {
    cinch_settings settings;
    char why[CINCH_ERROR_TEXT];
    cinch_settings_load(&settings, why); /* what is wrong, the communicator's init says to all */
    int64_t rank = settings.rank, size = settings.size;
    cinch_settings_free(&settings);
    if (size < least) return 0;
    if (size > CINCH_LAUNCH_MOST)
        return cinch_usage(command, "CINCH_SIZE=%lld: at most %d ranks are accepted",
                           (long long)size, CINCH_LAUNCH_MOST);
    if (rank < 0 || rank >= size)
        return cinch_usage(
            command, "CINCH_SIZE=%lld needs a CINCH_RANK from 0 to %lld beside it, which is %s",
            (long long)size, (long long)size - 1, rank < 0 ? "not set" : "out of range");
    *place = (cinch_place){(int)rank, (int)size};
    return 1;
}

/* torchrun's variables; results as above. */
static int place_from_torchrun(const cinch_command *command, cinch_place *place) {
    const char *text[4];
    static const char *const name[4] = {"WORLD_SIZE", "RANK", "MASTER_PORT", "MASTER_ADDR"};
    int64_t value[3];
    for (int i = 0; i < 4; i++) text[i] = cinch_environment(name[i]);
    if (!text[0] || !cinch_parse_count(text[0], &value[0]) || value[0] < 2) return 0;
    const int64_t most[3] = {CINCH_LAUNCH_MOST, value[0] - 1, 65534};
    for (int i = 0; i < 3; i++)
        if (!text[i] || !cinch_parse_count(text[i], &value[i]) || value[i] > most[i])
            return cinch_usage(command, "%s=%s beside WORLD_SIZE=%s: accepted is 0 to %lld",
                               name[i], text[i] ? text[i] : "(not set)", text[0],
                               (long long)most[i]);
    if (!text[3] || !text[3][0])
        return cinch_usage(command, "WORLD_SIZE=%s needs a MASTER_ADDR beside it", text[0]);
    char id[300];
    snprintf(id, sizeof id, "%s:%d", text[3], (int)value[2] + 1);
    if (!cinch_environment("NCCL_COMM_ID")) setenv("CINCH_COMM_ID", id, 0);
    *place = (cinch_place){(int)value[1], (int)value[0]};
    return 1;
}

/* Ranks under one of these would each start a job of their own: better to say so. */
static int refuse_launchers(const cinch_command *command) {
    static const struct {
        const char *variable, *name;
    } later[] = {{"OMPI_COMM_WORLD_SIZE", "Open MPI"},
                 {"PMI_SIZE", "MPICH"},
                 {"SLURM_STEP_NUM_TASKS", "Slurm"}};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        const char *text = cinch_environment(later[i].variable);
        int64_t size;
        if (text && cinch_parse_count(text, &size) && size > 1)
            return cinch_usage(command,
                               "started by %s (%s=%s): known, not in this version; give -n, or "
                               "start the ranks with cinch run or torchrun",
                               later[i].name, later[i].variable, text);
    }
    return 0;
}

int cinch_place_find(const cinch_command *command, int asked, int fallback, char **argv,
                     int (*ready)(void *), void *arg, cinch_place *place) {
    if (started_by_us()) {
        int found = place_from_cinch(command, 1, place);
        if (found) return found == 1 ? -1 : found;
    } else if (!asked) {
        int found = place_from_cinch(command, 2, place);
        if (!found) found = place_from_torchrun(command, place);
        if (!found) found = refuse_launchers(command);
        if (found) return found == 1 ? -1 : found;
    }
    int status = ready ? ready(arg) : 0;
    return status ? status : start_here(command, asked ? asked : fallback, argv);
}
