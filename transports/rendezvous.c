/* SPDX-License-Identifier: Apache-2.0 */
/* A rank's seat: joining, all-gathers, and hearing of failures. */
#include "transports/rendezvous_seat.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/io.h"

#define MS ((uint64_t)1000000)
/* How much longer than its own time a rank waits for the server, which names who is missing. */
enum { GRACE_MS = 3000, ABORT_MS = 1000, LEAVE_MS = 500, SMALL_BYTES = 4096 };
enum { CANCEL_MS = 20, AGAIN_MS = 10 };

cinchResult_t cinch_rendezvous_cancelled(const cinch_rendezvous *seat) {
    bool cancelled =
        (seat->cancel && atomic_load(seat->cancel)) || (seat->also && atomic_load(seat->also));
    if (cancelled) return cinch_meeting_cancelled();
    return seat->parent ? cinch_rendezvous_check(seat->parent) : cinchSuccess;
}

/* Under the lock, as the monitor looks there too, and the parent may be freed afterwards. */
void cinch_rendezvous_weaned(cinch_rendezvous *seat) {
    pthread_mutex_lock(&seat->hear_lock);
    seat->parent = NULL;
    pthread_mutex_unlock(&seat->hear_lock);
}

void cinch_rendezvous_also(cinch_rendezvous *seat, const _Atomic bool *cancel) {
    pthread_mutex_lock(&seat->hear_lock);
    seat->also = cancel;
    pthread_mutex_unlock(&seat->hear_lock);
}

static cinchResult_t failed_before(const cinch_rendezvous *seat) {
    return cinch_fail_quiet(seat->code, "%s", seat->why);
}

/* The first failure stays; it is logged once, and not by who has caused it. */
cinchResult_t cinch_seat_fail(cinch_rendezvous *seat, cinchResult_t code, const char *why) {
    if (seat->failed) return failed_before(seat);
    snprintf(seat->why, sizeof seat->why, "%s", why);
    seat->code = code;
    atomic_store(&seat->failed, true);
    if (atomic_load(&seat->said) || cinch_rendezvous_cancelled(seat) != cinchSuccess)
        cinch_fail_quiet(code, "%s", seat->why);
    else
        cinch_fail(code, "%s", seat->why);
    if (seat->watcher.failed) seat->watcher.failed(seat->watcher.of, code, seat->why);
    return failed_before(seat);
}

/* The connection has ended. Waiting for something: that fails; else only where it is a surprise. */
static cinchResult_t at_end(cinch_rendezvous *seat, bool waiting) {
    char why[CINCH_ERROR_TEXT];
    if (seat->parted) {
        pthread_mutex_lock(&seat->send_lock);
        if (!seat->deaf) seat->deaf = cinch_silence(seat->fd) == 0;
        pthread_mutex_unlock(&seat->send_lock);
        if (!waiting) return cinchSuccess;
        return cinch_seat_fail(
            seat, cinchRemoteError,
            "the meeting point's process has ended: the ranks cannot agree any more");
    }
    if (!seat->joined)
        snprintf(
            why, sizeof why,
            "%s hung up before all ranks had joined: its process ended or the connection broke",
            seat->kind == CINCH_MEET_OWN
                ? "the process that made the unique id (rank 0's, as a rule)"
                : "rank 0's process (the meeting point)");
    else
        snprintf(why, sizeof why,
                 "rank %d's process (the meeting point) is gone: it ended or the connection broke",
                 seat->host_rank);
    return cinch_seat_fail(seat, cinchRemoteError, why);
}

static cinchResult_t makes_no_sense(cinch_rendezvous *seat) {
    return cinch_seat_fail(seat, cinchInternalError,
                           "the meeting point sent what makes no sense here");
}

/* One read towards count bytes: *got grows. True with success: something came. */
static bool take(cinch_rendezvous *seat, void *to, size_t count, size_t *got, bool waiting,
                 cinchResult_t *result) {
    *result = cinchSuccess;
    for (;;) {
        ssize_t n = recv(seat->fd, (char *)to + *got, count - *got, MSG_DONTWAIT);
        if (n > 0) {
            *got += (size_t)n;
            return true;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) *result = at_end(seat, waiting);
        return false;
    }
}

/* Where the body of the frame goes whose head is here; false: it makes no sense. */
static bool place_body(cinch_rendezvous *seat, cinch_frame_type wanted, void *into, size_t bytes,
                       void **to) {
    const cinch_frame *head = &seat->head;
    *to = seat->text;
    if (le32toh(head->magic) != CINCH_FRAME_MAGIC) return false;
    switch (le32toh(head->type)) {
    case CINCH_FRAME_FAILED:
        return le64toh(head->bytes) >= sizeof(uint32_t) && le64toh(head->bytes) < sizeof seat->text;
    case CINCH_FRAME_PARTING:
        return le64toh(head->bytes) == 0;
    case CINCH_FRAME_QUERY:
        return le64toh(head->bytes) == sizeof(uint64_t);
    case CINCH_FRAME_ANSWER:
        return le64toh(head->bytes) < CINCH_ERROR_TEXT;
    case CINCH_FRAME_GO:
    case CINCH_FRAME_GATHERED:
        *to = into;
        return le32toh(head->type) == (uint32_t)wanted && le64toh(head->bytes) == bytes;
    default:
        return false;
    }
}

/* Acts on a whole frame: true where it is the wanted one. */
static bool act(cinch_rendezvous *seat, cinch_frame_type wanted, cinchResult_t *result) {
    cinch_frame_type type = (cinch_frame_type)le32toh(seat->head.type);
    if (type == CINCH_FRAME_PARTING) seat->parted = true;
    if (type == CINCH_FRAME_QUERY || type == CINCH_FRAME_ANSWER) cinch_seat_act(seat, type);
    if (type == CINCH_FRAME_FAILED) {
        uint32_t code;
        memcpy(&code, seat->text, sizeof code);
        seat->text[le64toh(seat->head.bytes)] = 0;
        seat->head_got = seat->body_got = 0;
        if (le32toh(code) == cinchInProgress && !seat->joined) {
            *result = cinchInProgress;
            return false;
        }
        const char *why = seat->text + sizeof code;
        bool known = code && le32toh(code) < cinchNumResults;
        *result = cinch_seat_fail(seat, known ? (cinchResult_t)le32toh(code) : cinchRemoteError,
                                  why[0] ? why : "the meeting point failed and gave no reason");
    }
    seat->head_got = seat->body_got = 0;
    return type == wanted;
}

/* Waits for bytes: 0, ETIMEDOUT, or ECANCELED. */
static int wait_for_bytes(const cinch_rendezvous *seat, uint64_t deadline_ns) {
    for (;;) {
        uint64_t until = cinch_now_ns() + CANCEL_MS * MS;
        bool last = !seat->cancel || until >= deadline_ns;
        int err = cinch_wait(seat->fd, POLLIN, last ? deadline_ns : until);
        if (err && cinch_rendezvous_cancelled(seat) != cinchSuccess) return ECANCELED;
        if (err && atomic_load(&seat->orphaned)) return ECONNRESET;
        if (!err || last) return err;
    }
}

/* Reads until the wanted frame is here (its body of `bytes` goes into `into`), or, with wanted 0,
 * until nothing more comes without waiting. */
static cinchResult_t hear(cinch_rendezvous *seat, cinch_frame_type wanted, void *into, size_t bytes,
                          uint64_t deadline_ns) {
    for (;;) {
        cinchResult_t result;
        void *to = NULL;
        bool came = true;
        if (seat->head_got < sizeof seat->head) {
            came = take(seat, &seat->head, sizeof seat->head, &seat->head_got, wanted, &result);
            if (came && seat->head_got < sizeof seat->head) continue;
        }
        if (came) {
            size_t need = le64toh(seat->head.bytes);
            if (!place_body(seat, wanted, into, bytes, &to)) return makes_no_sense(seat);
            if (seat->body_got < need)
                came = take(seat, to, need, &seat->body_got, wanted, &result);
            if (came && seat->body_got < need) continue;
        }
        if (came) {
            result = cinchSuccess;
            if (act(seat, wanted, &result) || result != cinchSuccess) return result;
            continue;
        }
        if (result != cinchSuccess || !wanted) return result;
        int err = wait_for_bytes(seat, deadline_ns);
        if (err == ECANCELED) return cinch_rendezvous_cancelled(seat);
        if (err == ECONNRESET) return at_end(seat, true);
        if (err)
            return cinch_seat_fail(
                seat, cinchRemoteError,
                "the meeting point does not answer: its host or process is stuck, or "
                "the connection broke");
    }
}

/* 0 or errno. */
static int send_parts(const cinch_rendezvous *seat, cinch_frame_type type, const void *body,
                      size_t bytes, uint64_t deadline_ns) {
    unsigned char small[sizeof(cinch_frame) + SMALL_BYTES];
    cinch_frame head = cinch_frame_make(type, bytes);
    memcpy(small, &head, sizeof head);
    if (bytes > SMALL_BYTES) {
        int err = cinch_send_all(seat->fd, small, sizeof head, deadline_ns);
        return err ? err : cinch_send_all(seat->fd, body, bytes, deadline_ns);
    }
    if (bytes) memcpy(small + sizeof head, body, bytes);
    return cinch_send_all(seat->fd, small, sizeof head + bytes, deadline_ns);
}

/* What was sent to us can still be read, and the reason may stand in it. False: it did not go. */
bool cinch_seat_send(const cinch_rendezvous *seat, cinch_frame_type type, const void *body,
                     size_t bytes, uint64_t deadline_ns) {
    if (!send_parts(seat, type, body, bytes, deadline_ns)) return true;
    shutdown(seat->fd, SHUT_WR);
    return false;
}

cinchResult_t cinch_seat_hear(cinch_rendezvous *seat) {
    return hear(seat, 0, NULL, 0, 0);
}

/* The hello, with what all ranks must agree on. */
static cinchResult_t say_hello(cinch_rendezvous *seat, const cinch_joining *joining,
                               uint64_t deadline_ns) {
    size_t room = 4096, length;
    char *body = NULL;
    const char *refusal = joining->refusal;
    const char *left_out = joining->reunion ? joining->reunion->left_out : "";
    size_t refusal_bytes = refusal ? strnlen(refusal, CINCH_ERROR_TEXT - 32) : 0;
    size_t tail = refusal_bytes + 1 + strlen(left_out) + 1;
    for (;;) {
        char *grown = realloc(body, sizeof(cinch_hello) + room + tail);
        if (!grown) {
            free(body);
            return cinch_fail_errno(ENOMEM, "no memory for the settings");
        }
        body = grown;
        length = cinch_settings_agreed(joining->settings, body + sizeof(cinch_hello), room);
        if (length <= room) break;
        room = length;
    }
    uint64_t now = cinch_now_ns();
    cinch_hello hello = {.protocol = htole32(CINCH_PROTOCOL),
                         .rank = htole32((uint32_t)seat->rank),
                         .nranks = htole32((uint32_t)seat->nranks),
                         .member = htole32(joining->reunion ? joining->reunion->member : 0),
                         .left_ms = htole64(now < deadline_ns ? (deadline_ns - now) / MS : 0),
                         .timeout_ms = htole64(seat->timeout_ms)};
    snprintf(hello.release, sizeof hello.release, "%s", CINCH_RELEASE);
    memcpy(body, &hello, sizeof hello);
    char *end = body + sizeof hello + length;
    if (refusal) memcpy(end, refusal, refusal_bytes);
    end[refusal_bytes] = 0;
    memcpy(end + refusal_bytes + 1, left_out, strlen(left_out) + 1);
    size_t bytes = sizeof hello + length + tail;
    if (bytes <= CINCH_HELLO_MAX_BYTES) /* an error shows up in the answer */
        cinch_seat_send(seat, CINCH_FRAME_HELLO, body, bytes, deadline_ns);
    free(body);
    if (bytes > CINCH_HELLO_MAX_BYTES)
        return cinch_fail(cinchInvalidUsage, "the settings%s are longer than %u bytes in all",
                          joining->reunion ? " and the list of ranks" : "", CINCH_HELLO_MAX_BYTES);
    return cinchSuccess;
}

/* Rank 0 with CINCH_COMM_ID: opens the meeting point. */
static cinchResult_t host(const cinch_settings *settings, cinch_meeting *meeting,
                          uint64_t timeout_ms) {
    char note[CINCH_NOTE_TEXT] = "";
    if (meeting->kind == CINCH_MEET_HOST) {
        cinch_meeting_resolve(settings, meeting, true, note);
        return cinch_server_start(meeting, timeout_ms, note);
    }
    if (meeting->kind == CINCH_MEET_REUNION)
        return cinch_server_start(meeting, timeout_ms,
                                  "ranks are counted as in the new communicator");
    CINCH_TRY(cinch_random(meeting->token, sizeof meeting->token));
    CINCH_TRY(cinch_random(meeting->secret, sizeof meeting->secret));
    if (cinch_handshake_available())
        CINCH_TRY(cinch_addresses_local(settings, meeting->address, CINCH_MEETING_ADDRESSES,
                                        &meeting->addresses));
    else
        snprintf(note, sizeof note,
                 "this build has no libsodium, so that only this host's ranks "
                 "can join");
    CINCH_TRY(cinch_server_start(meeting, timeout_ms, note));
    return cinch_meeting_publish(meeting);
}

static void free_seat(cinch_rendezvous *seat) {
    cinch_close(seat->standby.listener);
    free(seat->standby.address);
    pthread_mutex_destroy(&seat->send_lock);
    pthread_mutex_destroy(&seat->hear_lock);
    pthread_mutex_destroy(&seat->answer_lock);
    explicit_bzero(seat->secret, sizeof seat->secret);
    free(seat);
}

/* Reaches the meeting point and waits there for the others. */
static cinchResult_t take_seat(cinch_rendezvous *seat, const cinch_joining *joining,
                               cinch_meeting *meeting, uint64_t deadline_ns) {
    cinch_go go;
    CINCH_TRY(cinch_meeting_reach(joining->settings, meeting, seat->rank, deadline_ns, seat,
                                  &seat->fd, &seat->server));
    memcpy(seat->secret, meeting->secret, sizeof seat->secret);
    CINCH_TRY(say_hello(seat, joining, deadline_ns));
    seat->spoken = true;
    CINCH_TRY(hear(seat, CINCH_FRAME_GO, &go, sizeof go, deadline_ns + GRACE_MS * MS));
    seat->host_rank = (int32_t)le32toh((uint32_t)go.host_rank);
    seat->parted = seat->host_rank < 0;
    seat->joined = true;
    /* On one host alone (port 0) the secret may be one that a launcher's variables give away. */
    if (meeting->kind == CINCH_MEET_REUNION ||
        (meeting->kind == CINCH_MEET_HOST && meeting->port == 0))
        cinch_meeting_hash(seat->secret, sizeof seat->secret, "cinch salted", meeting->secret,
                           sizeof meeting->secret, go.salt, sizeof go.salt);
    return cinchSuccess;
}

static void leave_seat(cinch_rendezvous *seat) {
    cinchResult_t cancelled = cinch_rendezvous_cancelled(seat);
    if (seat->fd >= 0 && cancelled != cinchSuccess)
        cinch_rendezvous_abort(seat, cancelled == cinchInvalidUsage ? "it called cinchCommAbort"
                                                                    : cinch_last_error());
    cinch_close(seat->fd);
    if (seat->server) cinch_server_exit(seat->server);
    seat->fd = -1;
    seat->server = NULL;
}

/* Again and again where an earlier reunion is about to end at the same place. */
static cinchResult_t find_seat(cinch_rendezvous *seat, const cinch_joining *joining,
                               cinch_meeting *meeting, uint64_t deadline_ns) {
    for (;;) {
        cinchResult_t result = take_seat(seat, joining, meeting, deadline_ns);
        if (result != cinchInProgress) return result;
        leave_seat(seat);
        if (cinch_now_ns() >= deadline_ns)
            return cinch_fail(cinchRemoteError,
                              "rank 0 shrinks the communicator in another way, and was waited for "
                              "in vain for %llu ms",
                              (unsigned long long)seat->timeout_ms);
        struct timespec rest = {.tv_nsec = AGAIN_MS * 1000 * 1000};
        nanosleep(&rest, NULL);
    }
}

cinchResult_t cinch_rendezvous_join(const cinch_settings *settings, const cinchUniqueId *id,
                                    int rank, int nranks, const char *refusal,
                                    cinch_rendezvous **out) {
    cinch_joining joining = {
        .settings = settings, .id = id, .rank = rank, .nranks = nranks, .refusal = refusal};
    return cinch_rendezvous_join_as(&joining, out);
}

cinchResult_t cinch_rendezvous_join_as(const cinch_joining *joining, cinch_rendezvous **out) {
    int rank = joining->rank, nranks = joining->nranks;
    const cinch_settings *settings = joining->settings;
    if (nranks < 1 || nranks > CINCH_RANKS_MAX)
        return cinch_fail(cinchInvalidArgument, "nranks is %d: 1 to %d are accepted", nranks,
                          CINCH_RANKS_MAX);
    if (rank < 0 || rank >= nranks)
        return cinch_fail(cinchInvalidArgument, "rank is %d: 0 to %d are accepted", rank,
                          nranks - 1);
    cinch_meeting meeting;
    CINCH_TRY(cinch_meeting_of(settings, joining->id, &meeting));
    if (joining->reunion) {
        meeting.nranks = nranks;
        meeting.listener = joining->reunion->listener;
        meeting.member = joining->reunion->member;
        meeting.left_out = joining->reunion->left_out;
    }
    cinch_rendezvous *seat = calloc(1, sizeof *seat);
    if (!seat) {
        cinchResult_t result = cinch_fail_errno(ENOMEM, "no memory for a seat at the rendezvous");
        cinch_rendezvous_excuse(joining->id, rank, nranks);
        return result;
    }
    pthread_mutex_init(&seat->send_lock, NULL);
    pthread_mutex_init(&seat->hear_lock, NULL);
    pthread_mutex_init(&seat->answer_lock, NULL);
    seat->fd = seat->host_rank = seat->standby.listener = seat->epoll_fd = -1;
    seat->cancel = joining->cancel;
    seat->parent = joining->parent;
    seat->rank = rank;
    seat->nranks = nranks;
    seat->kind = meeting.kind;
    seat->pid = (int)getpid();
    seat->timeout_ms = cinch_meeting_timeout_ms(settings);
    seat->may_listen = cinch_meeting_may_listen(settings, &meeting);
    uint64_t deadline_ns = cinch_now_ns() + seat->timeout_ms * MS;

    bool hosts = rank == 0 && meeting.kind != CINCH_MEET_OWN;
    cinchResult_t result = hosts ? host(settings, &meeting, seat->timeout_ms) : cinchSuccess;
    if (result == cinchSuccess) result = find_seat(seat, joining, &meeting, deadline_ns);
    if (hosts && meeting.kind == CINCH_MEET_FILE) cinch_meeting_forget(&meeting);
    if (hosts && result != cinchSuccess && !seat->server)
        cinch_server_cancel(meeting.token, NULL, 0);
    explicit_bzero(&meeting, sizeof meeting);
    if (result != cinchSuccess) {
        /* Where it has spoken, leaving tells them that it was aborted. */
        if (!seat->spoken || cinch_rendezvous_cancelled(seat) == cinchSuccess)
            cinch_rendezvous_excuse(joining->id, rank, nranks);
        leave_seat(seat);
        free_seat(seat);
        return result;
    }
    *out = seat;
    return cinchSuccess;
}

cinchResult_t cinch_rendezvous_allgather(cinch_rendezvous *seat, const void *mine, size_t bytes,
                                         void *all) {
    if (bytes > CINCH_GATHER_MAX_BYTES)
        return cinch_fail(cinchInternalError, "an all-gather of %zu bytes: at most %u are accepted",
                          bytes, CINCH_GATHER_MAX_BYTES);
    if (seat->failed) return failed_before(seat);
    if (seat->nranks == 1) {
        if (bytes) memmove(all, mine, bytes);
        return cinchSuccess;
    }
    uint64_t deadline_ns = cinch_now_ns() + (seat->timeout_ms + GRACE_MS) * MS;
    pthread_mutex_lock(&seat->hear_lock); /* before the monitor hears the answer */
    cinchResult_t result = seat->failed ? failed_before(seat)
                           : seat->deaf ? at_end(seat, true)
                                        : cinchSuccess;
    if (result == cinchSuccess) {
        pthread_mutex_lock(&seat->send_lock);
        cinch_seat_send(seat, CINCH_FRAME_GATHER, mine, bytes, deadline_ns);
        pthread_mutex_unlock(&seat->send_lock);
        result = hear(seat, CINCH_FRAME_GATHERED, all, bytes * (size_t)seat->nranks, deadline_ns);
    }
    cinch_seat_release(seat);
    return result;
}

cinchResult_t cinch_rendezvous_check(cinch_rendezvous *seat) {
    if (pthread_mutex_trylock(&seat->hear_lock)) return cinchSuccess; /* somebody listens */
    cinchResult_t result = seat->failed ? failed_before(seat)
                           : seat->deaf ? cinchSuccess
                                        : hear(seat, 0, NULL, 0, 0);
    cinch_seat_release(seat);
    return result;
}

int cinch_rendezvous_fd(const cinch_rendezvous *seat) {
    return seat->fd;
}

void cinch_rendezvous_abort(cinch_rendezvous *seat, const char *why) {
    if (seat->pid != (int)getpid()) return;
    atomic_store(&seat->said, true);
    uint64_t until = cinch_now_ns() + ABORT_MS * MS;
    while (pthread_mutex_trylock(&seat->send_lock)) {
        if (cinch_now_ns() >= until) return; /* a send is stuck: nothing would get through */
        struct timespec rest = {.tv_nsec = 1000 * 1000};
        nanosleep(&rest, NULL);
    }
    if (!seat->deaf)
        cinch_seat_send(seat, CINCH_FRAME_ABORT, why, strnlen(why, CINCH_ERROR_TEXT - 32), until);
    pthread_mutex_unlock(&seat->send_lock);
}

/* Reads and forgets until the server has hung up, or the time is over and nothing more is there. */
static void await_end(const cinch_rendezvous *seat, uint64_t deadline_ns) {
    char waste[4096];
    for (;;) {
        ssize_t n = recv(seat->fd, waste, sizeof waste, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return;
        if (n < 0 && cinch_wait(seat->fd, POLLIN, deadline_ns)) return;
    }
}

void cinch_rendezvous_leave(cinch_rendezvous *seat) {
    if (!seat) return;
    if (seat->pid == (int)getpid()) { /* in a forked child the descriptor is closed already */
        uint64_t until = cinch_now_ns() + LEAVE_MS * MS;
        char *standing = seat->watcher.describe ? seat->watcher.describe(seat->watcher.of) : NULL;
        pthread_mutex_lock(&seat->send_lock);
        bool told = !seat->deaf && cinch_seat_send(seat, CINCH_FRAME_LEAVE, standing,
                                                   standing ? strcspn(standing, " ") : 0, until);
        pthread_mutex_unlock(&seat->send_lock);
        free(standing);
        /* In the server's process its thread shall be gone when the last rank is; elsewhere nothing
         * unread may be left, which would turn the goodbye into a reset. */
        if (told && seat->server)
            await_end(seat, until);
        else if (told)
            await_end(seat, 0);
        cinch_close(seat->fd);
        if (seat->server) cinch_server_exit(seat->server);
    }
    free_seat(seat);
}

const uint8_t *cinch_rendezvous_secret(const cinch_rendezvous *seat) {
    return seat->secret;
}

bool cinch_rendezvous_may_listen(const cinch_rendezvous *seat) {
    return seat->may_listen;
}

cinch_standby *cinch_rendezvous_standby(const cinch_rendezvous *seat) {
    return (cinch_standby *)(uintptr_t)&seat->standby;
}

void cinch_rendezvous_place(const cinch_rendezvous *seat, int *rank, int *nranks,
                            uint64_t *timeout_ms) {
    *rank = seat->rank;
    *nranks = seat->nranks;
    *timeout_ms = seat->timeout_ms;
}
