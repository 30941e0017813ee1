/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks' machines and plan files, told over the rendezvous. */
#include "coll/inforce_share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/hash.h"
#include "coll/planfile.h"

/* What a rank says first. */
typedef struct word {
    enum { NO_FILE, HAS_FILE, BAD_FILE } file;
    uint64_t length, hash;
    char cpu[96], inside[8], between[8];
    char why[224];
} word;

/* ---- machines ---- */

/* The text behind "model name : " of the first CPU. */
static bool find_model(char *model, size_t room) {
    char line[256];
    bool found = false;
    FILE *from = fopen("/proc/cpuinfo", "re");
    if (!from) return false;
    while (!found && fgets(line, sizeof line, from)) {
        const char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!colon) continue;
        found = true;
        snprintf(model, room, "%s", colon + 1 + strspn(colon + 1, " \t"));
        model[strcspn(model, "\n")] = '\0';
    }
    fclose(from);
    return found && model[0];
}

static void describe_cpu(char *text, size_t room) {
    struct utsname name;
    char model[72];
    if (!find_model(model, sizeof model))
        snprintf(model, sizeof model, "%.60s", uname(&name) == 0 ? name.machine : "unknown");
    for (char *c = model; *c; c++)
        if (*c < 0x20 || *c > 0x7e || *c == '"' || *c == '\\') *c = '?';
    snprintf(text, room, "%s, %ld CPUs", model, sysconf(_SC_NPROCESSORS_ONLN));
}

static void describe_links(const struct cinchComm *comm, word *w) {
    for (int q = 0; q < comm->nranks; q++)
        if (comm->net->link[q]) {
            char *name = comm->net->local[q] ? w->inside : w->between;
            snprintf(name, sizeof w->inside, "%.7s", comm->net->link[q]->ops->name);
        }
}

static int host_of(const struct cinchComm *comm, int rank) {
    return comm->host ? comm->host[rank] : 0;
}

/* "2 x 4 ranks on CPU; shm inside, tcp between". Hosts follow each other by their first ranks.
 * Where there is more than one site: "; sites 0,1", each host's. */
static void describe(const struct cinchComm *comm, const word *all, FILE *to) {
    const char *inside = "", *between = "", *cpu = "";
    int hosts = comm->host ? comm->hosts : 1, alike = 0, ranks = 0, parts = 0;
    for (int h = 0; h <= hosts; h++) {
        int here = 0;
        const char *this_cpu = "";
        for (int q = comm->nranks - 1; q >= 0; q--)
            if (host_of(comm, q) == h) here++, this_cpu = all[q].cpu;
        if (alike && (here != ranks || strcmp(this_cpu, cpu) != 0)) {
            fprintf(to, parts++ ? " + " : "");
            if (alike > 1) fprintf(to, "%d x ", alike);
            fprintf(to, "%d rank%s on %s", ranks, ranks > 1 ? "s" : "", cpu);
            alike = 0;
        }
        alike++;
        ranks = here;
        cpu = this_cpu;
    }
    for (int q = comm->nranks - 1; q >= 0; q--) {
        if (all[q].inside[0]) inside = all[q].inside;
        if (all[q].between[0]) between = all[q].between;
    }
    if (inside[0]) fprintf(to, "; %s inside", inside);
    if (between[0]) fprintf(to, "%s %s between", inside[0] ? "," : ";", between);
    for (int h = 0; h < hosts && comm->sites > 1; h++)
        fprintf(to, "%s%d", h ? "," : "; sites ", comm->site[h]);
}

/* A long description ends with a number for all of it. */
static cinchResult_t name_machine(struct cinchComm *comm, const word *all) {
    char *text = NULL;
    size_t length = 0, room = sizeof comm->machine, tail = 20;
    FILE *to = open_memstream(&text, &length);
    if (!to) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    describe(comm, all, to);
    if (fclose(to) != 0) {
        free(text);
        return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    }
    if (length < room)
        memcpy(comm->machine, text, length + 1);
    else
        snprintf(comm->machine, room, "%.*s... %016llx", (int)(room - 1 - tail), text,
                 (unsigned long long)cinch_hash(text, length));
    free(text);
    return cinchSuccess;
}

/* ---- files ---- */

static char *read_own(const struct cinchComm *comm, word *w) {
    const char *path = comm->settings.plan_file;
    char why[160] = "";
    size_t length = 0;
    if (!path[0]) return NULL;
    char *text = cinch_planfile_load(path, &length, why, sizeof why);
    if (text) {
        w->file = HAS_FILE;
        w->length = length;
        w->hash = cinch_hash(text, length);
    } else if (comm->rank == 0 || access(path, F_OK) == 0 || errno != ENOENT) {
        w->file = BAD_FILE; /* one that is not there is rank 0's alone */
        snprintf(w->why, sizeof w->why, "%.140s: %.70s", path, why);
    }
    return text;
}

/* The same sentence on every rank, since all see the same words. */
static cinchResult_t check_words(const struct cinchComm *comm, const word *all) {
    for (int q = 0; q < comm->nranks; q++) {
        if (all[q].file == BAD_FILE)
            return cinch_fail(cinchInvalidUsage, "CINCH_PLAN_FILE=%s (rank %d)", all[q].why, q);
        if (all[q].file == NO_FILE) continue;
        if (all[0].file == NO_FILE)
            return cinch_fail(cinchInvalidUsage,
                              "CINCH_PLAN_FILE: rank %d has a plan file and rank 0, whose counts, "
                              "has none",
                              q);
        if (all[q].length != all[0].length || all[q].hash != all[0].hash)
            return cinch_fail(cinchInvalidUsage,
                              "CINCH_PLAN_FILE: the plan files of rank 0 and rank %d differ: the "
                              "same one, or rank 0's alone, is accepted",
                              q);
    }
    return cinchSuccess;
}

/* Who has the text gives a piece of it, in every round another. */
static cinchResult_t hand_out(struct cinchComm *comm, const word *all, char *text) {
    size_t n = (size_t)comm->nranks, holders = 0, before = 0, length = all[0].length;
    size_t piece = ((size_t)4 << 20) / n;
    piece = piece > 65536 ? 65536 : piece < 512 ? 512 : piece;
    for (size_t q = 0; q < n; q++) {
        before += (int)q < comm->rank && all[q].file == HAS_FILE;
        holders += all[q].file == HAS_FILE;
    }
    bool mine = all[comm->rank].file == HAS_FILE;
    char *item = calloc(1, piece), *items = malloc(n * piece);
    cinchResult_t result =
        item && items
            ? cinchSuccess
            : cinch_fail(cinchSystemError, "out of memory for a plan file of %zu bytes", length);
    for (size_t begin = 0; begin < length && result == cinchSuccess; begin += holders * piece) {
        size_t own = begin + before * piece;
        if (mine && own < length)
            memcpy(item, text + own, length - own < piece ? length - own : piece);
        result = cinch_rendezvous_allgather(comm->meeting, item, piece, items);
        size_t at = begin;
        for (size_t q = 0; q < n && at < length && result == cinchSuccess && !mine; q++) {
            if (all[q].file != HAS_FILE) continue;
            memcpy(text + at, items + q * piece, length - at < piece ? length - at : piece);
            at += piece;
        }
    }
    free(item);
    free(items);
    if (result == cinchSuccess && cinch_hash(text, length) != all[0].hash)
        result = cinch_fail(cinchRemoteError, "rank 0's plan file arrived as something else");
    return result;
}

/* *text: this rank's own file, or NULL. */
static cinchResult_t settle(struct cinchComm *comm, const word *all, char **text) {
    bool complete = true;
    CINCH_TRY(name_machine(comm, all));
    CINCH_TRY(check_words(comm, all));
    for (int q = 0; q < comm->nranks; q++) complete &= all[q].file == all[0].file;
    if (complete) return cinchSuccess;
    if (all[0].length > CINCH_PLANFILE_MOST_BYTES)
        return cinch_fail(cinchRemoteError, "rank 0 shows a plan file of %llu bytes",
                          (unsigned long long)all[0].length);
    if (!*text) *text = calloc(1, all[0].length + 1);
    if (!*text) return cinch_fail(cinchSystemError, "out of memory for a plan file");
    return hand_out(comm, all, *text);
}

cinchResult_t cinch_inforce_share(struct cinchComm *comm, char **text, size_t *length) {
    word mine, *all = calloc((size_t)comm->nranks, sizeof *all);
    *text = NULL;
    if (!all) return cinch_fail(cinchSystemError, "out of memory for %d ranks", comm->nranks);
    memset(&mine, 0, sizeof mine);
    describe_cpu(mine.cpu, sizeof mine.cpu);
    describe_links(comm, &mine);
    *text = read_own(comm, &mine);
    cinchResult_t result = cinch_rendezvous_allgather(comm->meeting, &mine, sizeof mine, all);
    if (result == cinchSuccess) result = settle(comm, all, text);
    *length = all[0].length;
    free(all);
    if (result == cinchSuccess) return cinchSuccess;
    free(*text);
    *text = NULL;
    return result;
}
