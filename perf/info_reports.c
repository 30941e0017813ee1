/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the ranks' reports. */
#include "perf/info_reports.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if CINCH_HAS_JANSSON

#include <jansson.h>

/* A string of the object, what is not ASCII or a control as "?"; "" where there is none. False: it
 * is something else. What does not fit is cut off. */
static bool take_text(const json_t *object, const char *key, char *text, size_t room) {
    const json_t *value = json_object_get(object, key);
    const char *string = json_string_value(value);
    text[0] = '\0';
    if (!value) return true;
    if (!string) return false;
    size_t length = json_string_length(value);
    if (length >= room) length = room - 1;
    for (size_t i = 0; i < length; i++)
        text[i] = string[i] < 32 || string[i] > 126 ? '?' : string[i];
    text[length] = '\0';
    return true;
}

/* A whole number from least to most. */
static bool take_number(const json_t *object, const char *key, int64_t least, int64_t most,
                        int64_t *number) {
    const json_t *value = json_object_get(object, key);
    *number = json_integer_value(value);
    return json_is_integer(value) && *number >= least && *number <= most;
}

static bool take_past(const json_t *value, cinch_report_past *past) {
    past->pairs = json_is_true(json_object_get(value, "pairs"));
    return take_number(value, "number", 0, INT64_MAX, &past->number) &&
           take_text(value, "state", past->state, sizeof past->state) &&
           take_text(value, "call", past->call, sizeof past->call);
}

static bool take_calls(const json_t *root, cinch_rank_report *r) {
    const json_t *calls = json_object_get(root, "calls");
    const size_t count = json_array_size(calls);
    if (!json_is_array(calls) || count > CINCH_REPORT_CALLS) return false;
    for (size_t i = 0; i < count; i++)
        if (!take_past(json_array_get(calls, i), &r->past[r->calls++])) return false;
    return true;
}

static bool take_wait(const json_t *root, cinch_rank_report *r) {
    const json_t *wait = json_object_get(root, "wait"), *items = json_object_get(wait, "items");
    int64_t peer;
    char state[16];
    if (!json_is_object(wait) || !take_number(wait, "peer", -1, r->ranks - 1, &peer) ||
        !take_text(wait, "call", r->wait_call, sizeof r->wait_call) ||
        !take_text(wait, "for", r->wait_for, sizeof r->wait_for))
        return false;
    r->peer = peer == r->rank ? -1 : (int)peer;
    if (!take_number(wait, "ms", 0, INT64_MAX, &r->wait_ms)) r->wait_ms = 0;
    for (size_t i = 0; i < json_array_size(items); i++) {
        if (!take_text(json_array_get(items, i), "state", state, sizeof state)) return false;
        r->items_open += !strcmp(state, "under way") || !strcmp(state, "waits");
    }
    return true;
}

static bool take_peers(const json_t *root, cinch_rank_report *r) {
    const json_t *peers = json_object_get(root, "peers");
    int64_t bytes;
    if (!json_is_array(peers)) return false;
    for (size_t i = 0; i < json_array_size(peers); i++) {
        if (!take_number(json_array_get(peers, i), "wire_bytes", 0, INT64_MAX, &bytes))
            return false;
        r->wire_bytes += (uint64_t)bytes;
    }
    return true;
}

static bool take_all(const json_t *root, cinch_rank_report *r) {
    int64_t ranks, rank, failed;
    if (!take_number(root, "ranks", 1, CINCH_REPORT_MOST_RANKS, &ranks) ||
        !take_number(root, "rank", 0, ranks - 1, &rank) ||
        !take_number(root, "failed", 0, 100, &failed) ||
        !take_number(root, "pid", 0, INT32_MAX, &r->pid) ||
        !take_number(root, "time_ms", 0, INT64_MAX, &r->time_ms) ||
        !take_number(root, "collectives", 0, INT64_MAX, &r->collectives))
        return false;
    r->rank = (int)rank;
    r->ranks = (int)ranks;
    r->failed = (int)failed;
    r->inside = json_is_true(json_object_get(root, "inside"));
    return take_text(root, "comm", r->comm, sizeof r->comm) &&
           take_text(root, "name", r->name, sizeof r->name) &&
           take_text(root, "host", r->host, sizeof r->host) &&
           take_text(root, "reason", r->reason, sizeof r->reason) &&
           take_text(root, "cause", r->cause, sizeof r->cause) &&
           take_text(root, "doing", r->doing, sizeof r->doing) && take_calls(root, r) &&
           take_wait(root, r) && take_peers(root, r);
}

bool cinch_rank_report_parse(const char *data, size_t bytes, cinch_rank_report *out,
                             char why[CINCH_REPORT_WHY]) {
    json_error_t error;
    int64_t version;
    memset(out, 0, sizeof *out);
    json_t *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &error);
    bool good = false;
    if (!root)
        snprintf(why, CINCH_REPORT_WHY, "no JSON: line %d: %.150s", error.line, error.text);
    else if (!take_number(root, "cinch_report", 1, 1, &version))
        snprintf(why, CINCH_REPORT_WHY, "no report of a rank: \"cinch_report\" is not 1");
    else if (!(good = take_all(root, out)))
        snprintf(why, CINCH_REPORT_WHY, "a field of the report is missing or out of range");
    json_decref(root);
    return good;
}

#else

bool cinch_rank_report_parse(const char *data, size_t bytes, cinch_rank_report *out,
                             char why[CINCH_REPORT_WHY]) {
    (void)data;
    (void)bytes;
    memset(out, 0, sizeof *out);
    snprintf(why, CINCH_REPORT_WHY, "this build has no jansson to read it with");
    return false;
}

#endif

/* ---- the folder ---- */

static int is_report(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name);
    return !strncmp(entry->d_name, "cinch-rank-", 11) && length > 16 &&
           !strcmp(entry->d_name + length - 5, ".json");
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The file into data, which has room for CINCH_REPORT_MOST_BYTES. */
static bool read_file(int dir, const char *name, char *data, size_t *bytes,
                      char why[CINCH_REPORT_WHY]) {
    struct stat about;
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    *bytes = 0;
    if (fd < 0 || fstat(fd, &about) != 0) {
        snprintf(why, CINCH_REPORT_WHY, "%s", errno == ELOOP ? "a link" : strerror(errno));
        if (fd >= 0) close(fd);
        return false;
    }
    bool good = S_ISREG(about.st_mode) && about.st_size <= CINCH_REPORT_MOST_BYTES;
    if (!good)
        snprintf(why, CINCH_REPORT_WHY, "%s",
                 S_ISREG(about.st_mode) ? "too large for a report" : "no file");
    ssize_t got = 1;
    while (good && *bytes < CINCH_REPORT_MOST_BYTES && got > 0) {
        got = read(fd, data + *bytes, CINCH_REPORT_MOST_BYTES - *bytes);
        if (got > 0) *bytes += (size_t)got;
    }
    if (good && got < 0) {
        snprintf(why, CINCH_REPORT_WHY, "%s", strerror(errno));
        good = false;
    }
    close(fd);
    return good;
}

static void leave_out(cinch_reports *out, const char *name, const char *why) {
    char shown[256];
    snprintf(shown, sizeof shown, "%s", name);
    for (char *c = shown; *c; c++)
        if (*c < 32 || *c > 126) *c = '?';
    fprintf(stderr, "cinch info: %s is left out: %s\n", shown, why);
    out->left_out++;
}

bool cinch_reports_load(const char *folder, cinch_reports *out) {
    struct dirent **entry = NULL;
    char why[CINCH_REPORT_WHY];
    *out = (cinch_reports){0};
    const int found = scandir(folder, &entry, is_report, by_name);
    if (found <= 0) {
        free(entry);
        return true;
    }
    const int most = found < CINCH_REPORTS_MOST ? found : CINCH_REPORTS_MOST;
    const int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *data = malloc(CINCH_REPORT_MOST_BYTES);
    int room = 0;
    bool good = data && dir >= 0;
    for (int i = 0; i < found; i++) {
        size_t bytes;
        if (good && i < most && out->count == room) {
            room = room ? 2 * room : 16;
            cinch_rank_report *more = realloc(out->report, (size_t)room * sizeof *more);
            good = more != NULL;
            if (more) out->report = more;
        }
        if (good && i < most) {
            if (read_file(dir, entry[i]->d_name, data, &bytes, why) &&
                cinch_rank_report_parse(data, bytes, &out->report[out->count], why))
                out->count++;
            else
                leave_out(out, entry[i]->d_name, why);
        }
        free(entry[i]);
    }
    if (found > most) {
        fprintf(stderr, "cinch info: %d more reports are left out: at most %d are read\n",
                found - most, most);
        out->left_out += found - most;
    }
    free(entry);
    free(data);
    if (dir >= 0) close(dir);
    if (!good) cinch_reports_free(out);
    return good;
}

void cinch_reports_free(cinch_reports *reports) {
    free(reports->report);
    *reports = (cinch_reports){0};
}
