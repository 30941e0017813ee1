/* SPDX-License-Identifier: Apache-2.0 */
/* How a rank reaches its meeting point: in memory, by unix socket, by TCP, again and again. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/io.h"
#include "transports/rendezvous.h"
#include "transports/rendezvous_wire.h"

cinch_rendezvous_tuning cinch_rendezvous_tune = {
    .stranger_ms = 5000, .linger_ms = 2000, .settle_ms = 300};

#define MS ((uint64_t)1000000)
enum { PATIENCE_FIRST_MS = 400, PATIENCE_MAX_MS = 5000, RESOLVE_MS = 1000, BACKOFF_MAX_MS = 50 };

typedef struct attempt {
    const cinch_settings *settings;
    cinch_meeting *meeting;
    int rank;
    uint64_t deadline_ns;
    uint64_t patience_ms; /* with what neither answers nor refuses; grows, as the better way may be
                             another one that opens in the meantime */
    bool slow;            /* some way of the last round used all of that */
    bool fatal;           /* trying again cannot help; the sentence stands */
    char note[CINCH_NOTE_TEXT];  /* why the last try did not get there */
    char setup[CINCH_NOTE_TEXT]; /* what keeps TCP from being tried at all */
} attempt;

static const uint8_t preface_magic[8] = {'c', 'i', 'n', 'c', 'h', 'R', 'v', '1'};

void cinch_preface_make(const uint8_t token[CINCH_TOKEN_BYTES],
                        uint8_t preface[CINCH_PREFACE_BYTES]) {
    memcpy(preface, preface_magic, sizeof preface_magic);
    memcpy(preface + sizeof preface_magic, token, CINCH_TOKEN_BYTES);
}

bool cinch_preface_read(const uint8_t preface[CINCH_PREFACE_BYTES],
                        uint8_t token[CINCH_TOKEN_BYTES]) {
    memcpy(token, preface + sizeof preface_magic, CINCH_TOKEN_BYTES);
    return memcmp(preface, preface_magic, sizeof preface_magic) == 0;
}

static uint64_t sooner(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void wrong_secret(attempt *a, const char *where) {
    char name[600];
    a->fatal = true;
    if (a->meeting->kind == CINCH_MEET_HOST)
        cinch_fail(cinchInvalidUsage,
                   "the secret of this rank (%d) is not that of rank 0, which answers at %s: set "
                   "the same CINCH_COMM_ID=HOST:PORT#HEXSECRET, or CINCH_SECRET_FILE, for every "
                   "rank",
                   a->rank, where);
    else
        cinch_fail(cinchInvalidUsage, "what answers at %s did not prove the secret of %s", where,
                   cinch_meeting_name(a->meeting, name, sizeof name));
}

/* Shows the token and proves the secret on a fresh connection; false closes it. */
static bool introduce(attempt *a, int fd, const char *where) {
    uint8_t preface[CINCH_PREFACE_BYTES];
    uint64_t until = sooner(a->deadline_ns, cinch_now_ns() + a->patience_ms * MS);
    cinch_preface_make(a->meeting->token, preface);
    int err = cinch_send_all(fd, preface, sizeof preface, until);
    cinchResult_t result = err ? cinchSystemError : cinchSuccess;
    if (!err && cinch_handshake_available())
        result = cinch_handshake(fd, true, a->meeting->secret, a->meeting->token, CINCH_TOKEN_BYTES,
                                 until);
    if (result == cinchSuccess) return true;
    cinch_close(fd);
    a->slow |= cinch_now_ns() >= until;
    if (result == cinchRemoteError)
        wrong_secret(a, where);
    else if (result == cinchInvalidUsage)
        snprintf(a->note, sizeof a->note, "what listens at %s is no meeting point of cinch", where);
    else
        snprintf(a->note, sizeof a->note, "%s hung up during the handshake", where);
    return false;
}

static bool try_unix(attempt *a, int *fd) {
    struct sockaddr_un address;
    socklen_t length = cinch_meeting_unix(a->meeting->token, &address);
    if (cinch_socket(AF_UNIX, SOCK_STREAM, fd)) return false;
    int err = connect(*fd, (struct sockaddr *)&address, length) ? errno : cinch_peer_is_us(*fd);
    if (err) {
        cinch_close(*fd);
        snprintf(a->note, sizeof a->note, "its unix socket: %s", strerror(err));
        return false;
    }
    return introduce(a, *fd, "this host's unix socket");
}

static bool try_tcp(attempt *a, const cinch_address *address, int *fd) {
    char text[CINCH_ADDRESS_TEXT];
    cinch_address_format(address, text);
    int err =
        cinch_connect(address, sooner(a->deadline_ns, cinch_now_ns() + a->patience_ms * MS), fd);
    if (!err) return introduce(a, *fd, text);
    a->slow |= err == ETIMEDOUT;
    snprintf(a->note, sizeof a->note, "%s: %s", text, strerror(err));
    return false;
}

static bool try_all(attempt *a, int *fd, cinch_server **server) {
    *server = NULL;
    if (cinch_rendezvous_tune.hide < 2 && cinch_server_enter(a->meeting->token, fd, server))
        return true;
    if (a->meeting->kind == CINCH_MEET_OWN && cinch_server_is_over(a->meeting->token)) {
        a->fatal = true;
        cinch_fail(cinchInvalidUsage, "the unique id was used before, or its ranks never came: "
                                      "cinchGetUniqueId gives a fresh one");
        return false;
    }
    if (cinch_rendezvous_tune.hide < 1 && try_unix(a, fd)) return true;
    if (!cinch_handshake_available()) return false;
    for (int i = 0; i < a->meeting->addresses && !a->fatal; i++)
        if (try_tcp(a, &a->meeting->address[i], fd)) return true;
    return false;
}

/* A file or name that appears later is part of the waiting. False: nothing to try yet. */
static bool prepare(attempt *a, uint64_t *resolve_ns) {
    cinch_meeting *meeting = a->meeting;
    bool found = true;
    if (meeting->kind == CINCH_MEET_FILE) {
        a->fatal = cinch_meeting_read(meeting, &found) != cinchSuccess;
        if (!found) snprintf(a->note, sizeof a->note, "the file is not there");
    } else if (meeting->kind == CINCH_MEET_HOST && !meeting->addresses &&
               cinch_now_ns() >= *resolve_ns) {
        cinch_meeting_resolve(a->settings, meeting, false, a->setup);
        *resolve_ns = cinch_now_ns() + RESOLVE_MS * MS;
    }
    return found && !a->fatal;
}

static cinchResult_t not_reached(const attempt *a) {
    char name[600];
    bool own = a->meeting->kind == CINCH_MEET_OWN;
    return cinch_fail(
        cinchRemoteError, "%s%.300s%s was not reached within %lld ms (%s)",
        own ? "" : "rank 0 is missing: ", cinch_meeting_name(a->meeting, name, sizeof name),
        own ? " (rank 0's, as a rule)" : "", (long long)a->settings->init_timeout_ms,
        a->setup[0]  ? a->setup
        : a->note[0] ? a->note
                     : "nothing answers");
}

cinchResult_t cinch_meeting_cancelled(void) {
    return cinch_fail_quiet(cinchInvalidUsage, "the communicator was aborted");
}

cinchResult_t cinch_meeting_reach(const cinch_settings *settings, cinch_meeting *meeting, int rank,
                                  uint64_t deadline_ns, const cinch_rendezvous *seat, int *fd,
                                  cinch_server **server) {
    attempt a = {.settings = settings,
                 .meeting = meeting,
                 .rank = rank,
                 .deadline_ns = deadline_ns,
                 .patience_ms = PATIENCE_FIRST_MS};
    uint64_t resolve_ns = 0, backoff_ms = 1;
    for (;;) {
        if (seat) CINCH_TRY(cinch_rendezvous_cancelled(seat));
        if (prepare(&a, &resolve_ns) && try_all(&a, fd, server)) return cinchSuccess;
        if (a.fatal) return cinchInvalidUsage;
        uint64_t now = cinch_now_ns();
        if (now >= deadline_ns) return not_reached(&a);
        uint64_t pause = sooner(backoff_ms * MS, deadline_ns - now);
        struct timespec rest = {.tv_sec = (time_t)(pause / 1000000000u),
                                .tv_nsec = (long)(pause % 1000000000u)};
        nanosleep(&rest, NULL);
        backoff_ms = sooner(backoff_ms * 2, BACKOFF_MAX_MS);
        if (a.slow) a.patience_ms = sooner(a.patience_ms * 2, PATIENCE_MAX_MS);
        a.slow = false;
    }
}
