/* SPDX-License-Identifier: Apache-2.0 */
/* Which rank of how many this process is: from -n, or from the launcher that started it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/settings.h"
#include "perf/launch.h"
#include "perf/launcher.h"
#include "transports/rendezvous_wire.h"

/* Tells a rank that we started from a command that merely finds itself inside a `cinch run`: the
 * value is the starter's pid, so that it does not hold for what the rank may start in turn. */
#define MARK "_CINCH_STARTED_BY"

static bool started_by_us(void) {
    const char *mark = cinch_environment(MARK);
    return mark && strtol(mark, NULL, 10) == (long)getppid();
}

static int start_here(const cinch_command *command, int ranks, const cinch_place *place,
                      char **argv) {
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
    cinch_launch launch = {command->name,  ranks, "/proc/self/exe", whole, set, 1, !place->unbound,
                           place->survive, true};
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
    place->rank = (int)rank;
    place->size = (int)size;
    return 1;
}

/* Where the launcher says which ranks have ended. */
static void see_board(cinch_place *place) {
    const char *number = cinch_environment(CINCH_LAUNCH_BOARD);
    const int fd = number ? (int)strtol(number, NULL, 10) : -1;
    if (fd < 3) return;
    void *board = mmap(NULL, (size_t)place->size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    unsetenv(CINCH_LAUNCH_BOARD); /* not for what this rank may start */
    if (board != MAP_FAILED) place->ended = board;
}

/* What tells the job from all others becomes the secret of a meeting point on this host only.
 * Others may come to know it, so it is no secret to rely on: there the peer's uid is checked, and
 * the ranks get a random one. */
static void meet_by_job(const char *job) {
    uint8_t hash[CINCH_SECRET_BYTES];
    char text[32 + 2 * sizeof hash], *t = text;
    cinch_meeting_hash(hash, sizeof hash, "cinch job", job, strlen(job), NULL, 0);
    t += sprintf(t, "127.0.0.1:0#");
    for (size_t i = 0; i < sizeof hash; i++) t += sprintf(t, "%02x", hash[i]);
    setenv("CINCH_COMM_ID", text, 1);
}

/* Launchers end all ranks when the first has failed: rank 0 gets the time to say why. */
static int nowhere_to_meet(const cinch_command *command, const cinch_launcher *l) {
    if (l->rank != 0) {
        nanosleep(&(struct timespec){0, 300000000}, NULL);
        return 2;
    }
    return cinch_usage(command,
                       "%s started %d ranks, %s: set CINCH_COMM_ID=HOST:PORT#HEXSECRET for all of "
                       "them, HOST being rank 0's and HEXSECRET 32 hex digits or more",
                       l->name, l->size,
                       l->one_host ? "and nothing in their environment tells this job from others"
                                   : "not all on one machine");
}

static int place_from_launcher(const cinch_command *command, cinch_place *place) {
    cinch_launcher l;
    int found = cinch_launcher_find(command, &l);
    if (found != 1) return found;
    const char *id = cinch_environment("CINCH_COMM_ID"), *twin = cinch_environment("NCCL_COMM_ID");
    place->rank = l.rank;
    place->size = l.size;
    if ((id && id[0]) || (twin && twin[0])) return 1;
    if (l.meet[0])
        setenv("CINCH_COMM_ID", l.meet, 1);
    else if (l.one_host && l.job[0])
        meet_by_job(l.job);
    else
        return nowhere_to_meet(command, &l);
    return 1;
}

int cinch_place_given(const cinch_command *command, cinch_place *place) {
    int found = place_from_cinch(command, 2, place);
    return found ? found : place_from_launcher(command, place);
}

int cinch_place_find(const cinch_command *command, int asked, int fallback, char **argv,
                     int (*ready)(void *), void *arg, cinch_place *place) {
    bool ours = started_by_us();
    int found = ours    ? place_from_cinch(command, 1, place)
                : asked ? 0
                        : cinch_place_given(command, place);
    if (found == 1 && ours && place->survive) see_board(place);
    if (found) return found == 1 ? -1 : found;
    int status = ready ? ready(arg) : 0;
    return status ? status : start_here(command, asked ? asked : fallback, place, argv);
}
