/* SPDX-License-Identifier: Apache-2.0 */
/* How a ucx link ends: with a last word, without one, or in the middle of its messages. */
#include <unistd.h>

#include "base/clock.h"
#include "transports/ucx_link.h"

#define LAST_WORD_NS 1000000000u
#define WITHDRAW_NS 100000000u /* for what UCX holds of messages that are given up */

/* Our last word, and all before it, is with the system. */
static void say_goodbye(cinch_ucx_link *link) {
    uint64_t now = cinch_now_ns(), end = now + LAST_WORD_NS, stamp = 0;
    while (cinch_ucx_works(link) && !link->gone && now < end) {
        if (!stamp && !link->noting) {
            cinch_ucx_note(link, CINCH_UCX_BYE);
            stamp = ++link->work;
        }
        if (stamp && !link->noting && cinch_ucx_flushed(link, stamp)) return;
        cinch_ucx_worker_progress(link->worker);
        now = cinch_now_ns();
    }
}

static void release_data(cinch_ucx_link *link) {
    cinch_ucx_worker *w = link->worker;
    for (uint32_t i = 0; i < 2 * CINCH_UCX_WINDOW; i++) {
        if (link->in[i].data) w->ucx->ucp_am_data_release(w->worker, link->in[i].data);
        link->in[i].data = NULL;
    }
}

/* All links with messages posted: closing one lets UCX work for the others. */
static void stop_all(cinch_ucx_worker *w) {
    for (int r = 0; r < w->nranks; r++)
        if (w->link[r] && w->link[r]->core.link.pending > 0 && cinch_ucx_works(w->link[r]))
            w->link[r]->core.failed = cinchInvalidUsage;
    for (int r = 0; r < w->nranks; r++) {
        if (!w->link[r] || w->link[r]->core.link.pending == 0 || !w->link[r]->ep) continue;
        release_data(w->link[r]);
        cinch_ucx_link_end(w->link[r]);
    }
}

void cinch_ucx_stop(cinch_link *head) {
    stop_all(((cinch_ucx_link *)head)->worker);
}

/* Whether UCX knows memory of a message that is posted. */
static bool is_held(const cinch_ucx_link *link) {
    bool held = false;
    for (uint32_t i = 0; i < CINCH_UCX_WINDOW; i++) held |= link->out[i].stage == CINCH_UCX_MOVING;
    for (uint32_t i = 0; i < 2 * CINCH_UCX_WINDOW; i++)
        held |= link->in[i].stage == CINCH_UCX_MOVING;
    return held;
}

static bool is_withdrawing(const cinch_ucx_link *link) {
    return link && cinch_ucx_works(link) && link->core.link.pending > 0;
}

/* Forgets what is posted. */
static void forget(cinch_ucx_link *link) {
    link->next_send = link->next_recv = NULL;
    link->core.sends.first = link->core.recvs.first = NULL;
    link->core.link.pending = 0;
    link->released = link->sent;
    link->received = link->matched;
}

/* Gives up what is posted, on all links: while one is closed UCX works for the others. What UCX has
 * of it is given a moment to end, since closing the endpoint below it may take back messages that
 * are done and that the peer has not read. */
static void withdraw(cinch_ucx_worker *w) {
    uint64_t end = cinch_now_ns() + WITHDRAW_NS;
    for (int r = 0; r < w->nranks; r++)
        if (is_withdrawing(w->link[r])) w->link[r]->next_send = w->link[r]->next_recv = NULL;
    for (bool held = true; held && cinch_now_ns() < end;) {
        held = false;
        for (int r = 0; r < w->nranks; r++)
            held |= is_withdrawing(w->link[r]) && !w->link[r]->gone && is_held(w->link[r]);
        if (held) cinch_ucx_worker_progress(w);
    }
    for (int r = 0; r < w->nranks; r++) {
        cinch_ucx_link *link = w->link[r];
        if (is_withdrawing(link) && !link->gone && !is_held(link)) forget(link);
    }
    stop_all(w);
}

/* An endpoint that is closed while the peer has not read all may take back what it has not read: a
 * link is kept until the peer has left too, unless UCX may still write to the memory of a receive
 * or read that of a send, which it may as long as the endpoint is open. */
void cinch_ucx_close(cinch_link *head) {
    cinch_ucx_link *link = (cinch_ucx_link *)head;
    cinch_ucx_worker *w = link->worker;
    if (w->process != getpid()) return; /* a forked child: all of it is its parent's */
    if (head->pending > 0) withdraw(w);
    bool orderly = cinch_ucx_works(link);
    release_data(link);
    link->leaving = true;
    head->finished = &link->core.alone; /* it may outlive the net */
    if (orderly) say_goodbye(link);
    orderly &= cinch_ucx_works(link) && !link->gone;
    if (!orderly) cinch_ucx_link_end(link);
    cinch_ucx_worker_drop(w);
}

bool cinch_ucx_link_over(const cinch_ucx_link *link) {
    return !cinch_ucx_works(link) || link->left || link->gone;
}

void cinch_ucx_link_end(cinch_ucx_link *link) {
    link->core.failed = cinchInvalidUsage; /* steps do nothing from here on */
    if (link->ep) cinch_ucx_ep_close(link->worker, link->ep, link->peer_mode);
    link->ep = NULL;
}
