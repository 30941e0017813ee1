/* SPDX-License-Identifier: Apache-2.0 */
/* What the variables of torchrun, Open MPI, MPICH and Slurm say of this process.
 *
 * The variables are those that the launchers' manuals name: mpirun(1) of Open MPI, srun(1) of Slurm
 * ("output environment variables"), torchrun's documentation; Hydra's are seen in its processes. */
#include "perf/launcher.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/settings.h"
#include "perf/launch.h"

/* Steps of Slurm's own, such as a batch script's, have numbers from here on. */
#define SLURM_OWN_STEPS INT64_C(0xfffffff0)

/* A whole number; -1: not set, or none. */
static int64_t count_of(const char *variable) {
    const char *text = cinch_environment(variable);
    int64_t value;
    return text && cinch_parse_count(text, &value) ? value : -1;
}

/* Appends NAME=value where the variable is set; true where it is. */
static bool job_has(cinch_launcher *l, const char *variable) {
    const char *text = cinch_environment(variable);
    size_t used = strlen(l->job);
    if (!text || !text[0]) return false;
    snprintf(l->job + used, sizeof l->job - used, "%s=%s\n", variable, text);
    return true;
}

/* A namespace names the job among those of a mpirun, whose pid, host and port are in the others.
 * The last is a random number, of Open MPI 4. */
static void job_of_open_mpi(cinch_launcher *l) {
    static const char *const servers[] = {"PMIX_SERVER_URI41", "PMIX_SERVER_URI4",
                                          "PMIX_SERVER_URI3", "PMIX_SERVER_URI21",
                                          "PMIX_SERVER_URI2"};
    if (!job_has(l, "PMIX_NAMESPACE")) return;
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++)
        if (job_has(l, servers[i])) break;
    job_has(l, "PMIX_SERVER_TMPDIR");
    job_has(l, "OMPI_MCA_orte_precondition_transports");
}

/* When a process began, in ticks since boot: field 22 of /proc/PID/stat. The second field is a name
 * in parentheses, which may hold anything. 0: unknown. */
static unsigned long long started_at(int pid) {
    char path[40], text[1024];
    unsigned long long ticks = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[got] = '\0';
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    if (at) sscanf(at, " %llu", &ticks);
    return ticks;
}

/* Hydra tells a process nothing of its job but a socket to its proxy, or, asked for that, a port of
 * the proxy. The proxy serves one job, and one only. */
static void job_of_hydra(cinch_launcher *l) {
    struct ucred peer = {0};
    socklen_t room = sizeof peer;
    int64_t fd = count_of("PMI_FD");
    if (job_has(l, "PMI_PORT") || fd < 0 || fd > 1 << 20) return;
    if (getsockopt((int)fd, SOL_SOCKET, SO_PEERCRED, &peer, &room) != 0 || peer.pid <= 0) return;
    snprintf(l->job, sizeof l->job, "hydra %d %llu\n", (int)peer.pid, started_at((int)peer.pid));
}

/* srun listens at a port for its step; a job that was queued again has the old numbers. */
static void job_of_slurm(cinch_launcher *l) {
    static const char *const more[] = {"SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT",
                                       "SLURM_SRUN_COMM_HOST", "SLURM_SRUN_COMM_PORT"};
    if (!job_has(l, "SLURM_JOB_ID") || !job_has(l, "SLURM_STEP_ID")) {
        l->job[0] = '\0';
        return;
    }
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) job_has(l, more[i]);
}

static bool in_slurm_step(void) {
    int64_t step = count_of("SLURM_STEP_ID");
    return step >= 0 && step < SLURM_OWN_STEPS && count_of("SLURM_STEP_NUM_TASKS") > 1;
}

static const struct known {
    const char *name, *rank, *size;
    const char *local; /* how many of them are here */
    void (*job)(cinch_launcher *);
} known[] = {
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE",
     job_of_open_mpi},
    {"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", job_of_hydra},
    {"Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", NULL, job_of_slurm},
};

/* Slurm speaks PMI too, and there says no more than how many ranks there are. */
static bool applies(const struct known *k) {
    if (!k->local) return in_slurm_step();
    if (count_of(k->size) < 2) return false;
    return k->job != job_of_hydra || cinch_environment(k->local) || !in_slurm_step();
}

static int read_known(const cinch_command *command, const struct known *k, cinch_launcher *l) {
    const char *rank = cinch_environment(k->rank);
    int64_t size = count_of(k->size), at = count_of(k->rank);
    if (size > CINCH_LAUNCH_MOST)
        return cinch_usage(command, "%s=%lld: at most %d ranks are accepted", k->size,
                           (long long)size, CINCH_LAUNCH_MOST);
    if (at < 0 || at >= size)
        return cinch_usage(command, "%s=%s beside %s=%lld: accepted is 0 to %lld", k->rank,
                           rank ? rank : "(not set)", k->size, (long long)size,
                           (long long)size - 1);
    l->name = k->name;
    l->rank = (int)at;
    l->size = (int)size;
    l->one_host = k->local ? count_of(k->local) == size : count_of("SLURM_STEP_NUM_NODES") == 1;
    k->job(l);
    return 1;
}

/* Ranks of torchrun meet at MASTER_PORT + 1: torchrun itself uses the port. */
static int read_torchrun(const cinch_command *command, cinch_launcher *l) {
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
    snprintf(l->meet, sizeof l->meet, "%s:%d", text[3], (int)value[2] + 1);
    l->name = "torchrun";
    l->rank = (int)value[1];
    l->size = (int)value[0];
    return 1;
}

int cinch_launcher_find(const cinch_command *command, cinch_launcher *launcher) {
    memset(launcher, 0, sizeof *launcher);
    /* Batch scripts like to export WORLD_SIZE for programs that make a rank of srun's or mpirun's
     * variables: RANK is what torchrun alone sets. */
    if (cinch_environment("RANK")) {
        int found = read_torchrun(command, launcher);
        if (found) return found;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (applies(&known[i])) return read_known(command, &known[i], launcher);
    return read_torchrun(command, launcher);
}
