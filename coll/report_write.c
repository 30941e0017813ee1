/* SPDX-License-Identifier: Apache-2.0 */
/* A report as a file: JSON, under another name until it is whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "coll/introspect.h"
#include "coll/report.h"
#include "transports/rendezvous_wire.h"

typedef struct page {
    char *text;
    size_t used;
    bool comma; /* a value stands before, at this depth */
} page;

static void put(page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(page *p, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const size_t room = CINCH_REPORT_BYTES - p->used;
    const int wrote = vsnprintf(p->text + p->used, room, format, arguments);
    va_end(arguments);
    p->used += wrote > 0 && (size_t)wrote < room ? (size_t)wrote : 0;
}

static void key(page *p, const char *name) {
    if (p->comma) put(p, ",");
    if (name) put(p, "\"%s\":", name);
    p->comma = true;
}

static void open_at(page *p, const char *name, char bracket) {
    key(p, name);
    put(p, "%c", bracket);
    p->comma = false;
}

static void close_at(page *p, char bracket) {
    put(p, "%c", bracket);
    p->comma = true;
}

/* ASCII alone: what is behind that, and controls, become "?". */
static void text(page *p, const char *name, const char *value) {
    key(p, name);
    put(p, "\"");
    for (const char *c = value; *c; c++) {
        if (*c == '"' || *c == '\\')
            put(p, "\\%c", *c);
        else
            put(p, "%c", *c < 32 || *c > 126 ? '?' : *c);
    }
    put(p, "\"");
}

static void number(page *p, const char *name, long long value) {
    key(p, name);
    put(p, "%lld", value);
}

static void truth(page *p, const char *name, bool value) {
    key(p, name);
    put(p, value ? "true" : "false");
}

/* Counters that another thread may be raising: for people, who do not mind. */
__attribute__((no_sanitize("thread"))) static uint64_t glance(const volatile uint64_t *counter) {
    return *counter;
}
__attribute__((no_sanitize("thread"))) static int glance_int(const volatile int *counter) {
    return *counter;
}

/* Tells communicators apart, the same on all ranks, and follows from the secret only in one
 * direction. */
static void put_identity(page *p, const struct cinchComm *comm) {
    uint8_t hash[8] = {0};
    char hex[2 * sizeof hash + 1];
    cinch_rendezvous *meeting = comm->meeting;
    if (meeting)
        cinch_meeting_hash(hash, sizeof hash, "cinch report", cinch_rendezvous_secret(meeting),
                           CINCH_SECRET_BYTES, NULL, 0);
    for (size_t i = 0; i < sizeof hash; i++) snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    text(p, "comm", hex);
    text(p, "name", comm->name);
    number(p, "rank", comm->rank);
    number(p, "ranks", comm->nranks);
}

static void put_calls(page *p, const struct cinchComm *comm) {
    static const char *const states[] = {"?", "inside", "left", "failed"};
    cinch_past_call calls[CINCH_RECORD_CALLS];
    char what[CINCH_PAST_TEXT];
    const int count = cinch_record_read(&comm->record, calls);
    long long collective = 0;
    for (int i = 0; i < count; i++)
        if (calls[i].kind != CINCH_SENDRECV) collective = (long long)calls[i].number + 1;
    number(p, "collectives", collective);
    open_at(p, "calls", '[');
    for (int i = 0; i < count; i++) {
        open_at(p, NULL, '{');
        number(p, "order", (long long)calls[i].order);
        number(p, "number", (long long)calls[i].number);
        truth(p, "pairs", calls[i].kind == CINCH_SENDRECV);
        text(p, "state", states[calls[i].state]);
        text(p, "call", cinch_past_text(&calls[i], false, what));
        close_at(p, '}');
    }
    close_at(p, ']');
}

/* What the last call waits for, in its own words or, where those are of another one, in those of
 * the record. */
static void put_wait(page *p, const cinch_report *report) {
    const struct cinchComm *comm = report->comm;
    const cinch_report_call *call = &report->call;
    cinch_past_call calls[CINCH_RECORD_CALLS];
    cinch_past_wait wait;
    char doing[CINCH_DOING_TEXT];
    bool inside;
    text(p, "doing", cinch_record_doing(&comm->record, &inside, doing));
    const int count = cinch_record_read(&comm->record, calls);
    const cinch_past_call *last = count ? &calls[count - 1] : NULL;
    const bool own = call->there && (!call->recorded || (last && call->order == last->order)) &&
                     (inside || report->fresh || report->failed);
    truth(p, "inside", inside);
    open_at(p, "wait", '{');
    if (own) {
        number(p, "peer", call->waits_for);
        number(p, "ms",
               (long long)(call->since_ns ? (cinch_now_ns() - call->since_ns) / 1000000 : 0));
        text(p, "for", call->flag ? "a flag in shared memory" : "a message");
        text(p, "call", call->text);
        text(p, "state", call->state);
        if (call->algo) text(p, "algo", call->algo);
        number(p, "iteration", (long long)call->iteration);
        number(p, "iterations", (long long)call->iterations);
        open_at(p, "items", '[');
        for (int i = 0; i < call->items; i++) {
            const cinch_report_item *item = &call->item[i];
            open_at(p, NULL, '{');
            number(p, "item", item->index);
            number(p, "round", (long long)item->round);
            text(p, "kind", item->kind);
            if (item->peer >= 0) number(p, "peer", item->peer);
            text(p, "state", item->state);
            close_at(p, '}');
        }
        close_at(p, ']');
    } else if (last && cinch_record_waits(&comm->record, &wait) && wait.order == last->order &&
               last->state != CINCH_CALL_LEFT) {
        number(p, "peer", wait.peer);
        number(p, "ms",
               (long long)(wait.since_ns ? (cinch_now_ns() - wait.since_ns) / 1000000 : 0));
        text(p, "for", wait.flag ? "a flag in shared memory" : "a message");
        number(p, "iteration", wait.done);
        number(p, "iterations", wait.all);
    } else {
        number(p, "peer", -1);
    }
    close_at(p, '}');
}

static void put_peers(page *p, const struct cinchComm *comm) {
    open_at(p, "peers", '[');
    for (int q = 0; comm->net && q < comm->nranks && q < CINCH_REPORT_PEERS; q++) {
        const cinch_link *link = comm->net->link[q];
        if (!link) continue;
        open_at(p, NULL, '{');
        number(p, "rank", q);
        text(p, "transport", link->ops->name);
        truth(p, "window", comm->net->local[q] && comm->net->shm);
        number(p, "wire_bytes", (long long)glance(&link->wire_bytes));
        number(p, "pending", glance_int(&link->pending));
        close_at(p, '}');
    }
    close_at(p, ']');
    number(p, "window_bytes", (long long)glance(&comm->window_bytes));
}

/* What is not the default; of a meeting point, what stands before its secret. */
static void put_settings(page *p, const cinch_settings *settings) {
    const cinch_setting_row *row;
    open_at(p, "settings", '{');
    for (int i = 0; (row = cinch_setting_at(i)); i++) {
        char value[256];
        if (!strcmp(settings->source[i], "default") || !settings->value[i]) continue;
        snprintf(value, sizeof value, "%s", settings->value[i]);
        if (i == CINCH_SET_comm_id) value[strcspn(value, "#")] = '\0';
        text(p, row->name, value);
    }
    close_at(p, '}');
}

static void put_all(page *p, cinch_report *report, const char *reason) {
    struct cinchComm *comm = report->comm;
    char host[256] = "", cause[CINCH_ERROR_TEXT];
    struct timespec now;
    gethostname(host, sizeof host - 1);
    clock_gettime(CLOCK_REALTIME, &now);
    open_at(p, NULL, '{');
    number(p, "cinch_report", 1);
    text(p, "release", CINCH_RELEASE);
    put_identity(p, comm);
    text(p, "host", host);
    number(p, "pid", (long long)getpid());
    number(p, "time_ms", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    text(p, "reason", reason);
    const int failed = atomic_load(&comm->failed);
    pthread_mutex_lock(&comm->why_lock);
    snprintf(cause, sizeof cause, "%s", failed == cinchSuccess ? "" : comm->why);
    pthread_mutex_unlock(&comm->why_lock);
    number(p, "failed", failed);
    text(p, "cause", cause);
    put_calls(p, comm);
    put_wait(p, report);
    put_peers(p, comm);
    put_settings(p, &comm->settings);
    close_at(p, '}');
    put(p, "\n");
}

static int write_file(int dir, const char *name, const page *p) {
    char working[128];
    snprintf(working, sizeof working, ".%s.unfinished", name);
    if (unlinkat(dir, working, 0) != 0 && errno != ENOENT) return errno;
    const int fd = openat(dir, working, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return errno;
    int err = 0;
    const ssize_t wrote = write(fd, p->text, p->used);
    if (wrote != (ssize_t)p->used) err = wrote < 0 ? errno : ENOSPC;
    if (close(fd) != 0 && !err) err = errno;
    if (!err && renameat(dir, working, dir, name) != 0) err = errno;
    if (err) unlinkat(dir, working, 0);
    return err;
}

void cinch_report_write(cinch_report *report, const char *reason) {
    const struct cinchComm *comm = report->comm;
    char folder[1024], name[96];
    page p = {.text = malloc(CINCH_REPORT_BYTES)};
    int err = p.text ? 0 : ENOMEM;
    cinch_log_path(comm->settings.report_dir, folder, sizeof folder);
    snprintf(name, sizeof name, "cinch-rank-%d-of-%d.%ld.%u.json", comm->rank, comm->nranks,
             (long)getpid(), report->file);
    if (!err && mkdir(folder, 0777) != 0 && errno != EEXIST) err = errno;
    const int dir = err ? -1 : open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!err && dir < 0) err = errno;
    if (!err) {
        put_all(&p, report, reason);
        err = write_file(dir, name, &p);
    }
    if (dir >= 0) close(dir);
    free(p.text);
    if (err)
        cinch_warn("CINCH_REPORT_DIR=%s: no report of rank %d: %s", folder, comm->rank,
                   strerror(err));
}
