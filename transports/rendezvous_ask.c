/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the meeting point who is missing, answering how this rank stands, and the monitor's part
 * in reading a seat. */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transports/io.h"
#include "transports/rendezvous_seat.h"

#define MS ((uint64_t)1000000)
enum { SAY_MS = 500 }; /* the others' time is short, and a socket that is full so long is stuck */

void cinch_rendezvous_watch(cinch_rendezvous *seat, const cinch_watcher *watcher) {
    pthread_mutex_lock(&seat->hear_lock);
    seat->watcher = *watcher;
    pthread_mutex_unlock(&seat->hear_lock);
}

int cinch_rendezvous_rank(const cinch_rendezvous *seat) {
    return seat->rank;
}

bool cinch_rendezvous_lives(const cinch_rendezvous *seat) {
    return !seat->deaf && !seat->failed;
}

int cinch_rendezvous_host(const cinch_rendezvous *seat) {
    return seat->host_rank;
}

static void say(cinch_rendezvous *seat, cinch_frame_type type, const void *body, size_t bytes) {
    if (seat->failed || seat->pid != (int)getpid()) return;
    pthread_mutex_lock(&seat->send_lock);
    if (!seat->deaf) cinch_seat_send(seat, type, body, bytes, cinch_now_ns() + SAY_MS * MS);
    pthread_mutex_unlock(&seat->send_lock);
}

void cinch_rendezvous_ask(cinch_rendezvous *seat, cinch_question question, int peer,
                          const char *sentence) {
    unsigned char body[sizeof(cinch_ask) + CINCH_ERROR_TEXT];
    cinch_ask ask = {.kind = htole32((uint32_t)question), .peer = (int32_t)htole32((uint32_t)peer)};
    size_t length = strnlen(sentence, CINCH_ERROR_TEXT - 32);
    memcpy(body, &ask, sizeof ask);
    memcpy(body + sizeof ask, sentence, length);
    pthread_mutex_lock(&seat->answer_lock);
    seat->answers = 0;
    pthread_mutex_unlock(&seat->answer_lock);
    say(seat, CINCH_FRAME_ASK, body, sizeof ask + length);
}

bool cinch_rendezvous_answer(cinch_rendezvous *seat, char text[CINCH_ERROR_TEXT]) {
    pthread_mutex_lock(&seat->answer_lock);
    bool there = seat->answers > 0;
    if (there) memcpy(text, seat->answer, sizeof seat->answer);
    pthread_mutex_unlock(&seat->answer_lock);
    return there;
}

static void tell_standing(cinch_rendezvous *seat, const void *round) {
    static const char nothing[] = "0 0 -1 0 0\nhas not joined yet\n\n";
    char *text = seat->watcher.describe ? seat->watcher.describe(seat->watcher.of) : NULL;
    const char *told = text ? text : nothing;
    size_t length = strlen(told), most = CINCH_STANDING_MAX_BYTES - sizeof(uint64_t);
    if (length > most) length = most;
    char *body = malloc(sizeof(uint64_t) + length);
    if (body) {
        memcpy(body, round, sizeof(uint64_t));
        memcpy(body + sizeof(uint64_t), told, length);
        say(seat, CINCH_FRAME_STANDING, body, sizeof(uint64_t) + length);
    }
    free(body);
    free(text);
}

void cinch_seat_act(cinch_rendezvous *seat, cinch_frame_type type) {
    if (type == CINCH_FRAME_QUERY) {
        tell_standing(seat, seat->text);
        return;
    }
    size_t length = le64toh(seat->head.bytes);
    pthread_mutex_lock(&seat->answer_lock);
    memcpy(seat->answer, seat->text, length);
    seat->answer[length] = '\0';
    seat->answers++;
    pthread_mutex_unlock(&seat->answer_lock);
}

/* ---- the monitor's part ---- */

static void watch_on(const cinch_rendezvous *seat) {
    struct epoll_event event = {.events = seat->events};
    event.data.ptr = (void *)(uintptr_t)seat;
    if (!seat->failed && !seat->deaf) epoll_ctl(seat->epoll_fd, EPOLL_CTL_MOD, seat->fd, &event);
}

/* Who finds the lock taken leaves a debt behind, and whoever gives the lock back pays it: one of
 * the two sees that there is more to read. */
bool cinch_rendezvous_tend(cinch_rendezvous *seat) {
    atomic_store(&seat->owed, true);
    if (pthread_mutex_trylock(&seat->hear_lock)) return false;
    atomic_store(&seat->owed, false);
    if (!seat->failed && !seat->deaf) (void)cinch_seat_hear(seat);
    watch_on(seat);
    cinch_seat_release(seat);
    return !seat->failed && !seat->deaf;
}

void cinch_seat_release(cinch_rendezvous *seat) {
    pthread_mutex_unlock(&seat->hear_lock);
    if (atomic_exchange(&seat->owed, false)) watch_on(seat);
}

void cinch_rendezvous_tended_by(cinch_rendezvous *seat, int epoll_fd, uint32_t events) {
    pthread_mutex_lock(&seat->hear_lock);
    seat->epoll_fd = epoll_fd;
    seat->events = events;
    pthread_mutex_unlock(&seat->hear_lock);
}

void cinch_rendezvous_gone(cinch_rendezvous *seat, int rank, bool with_server) {
    char why[CINCH_ERROR_TEXT];
    if (!with_server) {
        uint32_t number = htole32((uint32_t)rank);
        say(seat, CINCH_FRAME_GONE, &number, sizeof number);
        return;
    }
    snprintf(why, sizeof why, "rank %d's process (the meeting point) is gone", rank);
    atomic_store(&seat->orphaned, true);
    if (pthread_mutex_trylock(&seat->hear_lock)) return; /* who reads now will see it */
    if (!seat->failed && !seat->deaf) (void)cinch_seat_hear(seat);
    if (!seat->failed && !seat->deaf && !seat->parted)
        (void)cinch_seat_fail(seat, cinchRemoteError, why);
    cinch_seat_release(seat);
}
