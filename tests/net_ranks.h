/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks as threads, or as forked processes, each with a cinch_net over the real rendezvous. */
#ifndef CINCH_TESTS_NET_RANKS_H_
#define CINCH_TESTS_NET_RANKS_H_

#include "transports/transport.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define NET_SANITIZED 1 /* slower, and wide in address space */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define NET_SANITIZED 1
#endif
#endif
#ifndef NET_SANITIZED
#define NET_SANITIZED 0
#endif
#if defined(__SANITIZE_THREAD__)
#define NET_THREAD_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NET_THREAD_SANITIZED 1
#endif
#endif
#ifndef NET_THREAD_SANITIZED
#define NET_THREAD_SANITIZED 0
#endif

typedef struct net_rank {
    int rank, nranks;
    cinch_settings settings;
    cinch_rendezvous *rendezvous;
    cinch_net *net;       /* NULL where opening failed */
    cinchResult_t opened; /* of cinch_net_open */
    char opening[CINCH_ERROR_TEXT];
    char failure[CINCH_ERROR_TEXT]; /* the first check that did not hold */
    void *shared;                   /* as given in the case */
} net_rank;

typedef struct net_case {
    int nranks;
    const char *transport;         /* CINCH_TRANSPORT */
    const char *const *hostids;    /* [nranks], or NULL: the real ones */
    const char *const *transports; /* [nranks], in place of transport, or NULL */
    cinch_net_options options;
    void (*setup)(net_rank *me, cinch_net_options *options); /* before the net opens; or NULL */
    void (*body)(net_rank *me);                              /* runs on every rank */
    bool may_fail;  /* the body runs although the net did not open */
    bool processes; /* forked children in place of threads */
    void *shared;
} net_case;

/* Runs the case and waits for its end; fails the test with the first failure of any rank, and where
 * a descriptor is left over. */
void net_run(const net_case *c);

/* In a body: notes the failure and leaves the function. */
#define NET_CHECK(me, condition, ...)                                                              \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            net_note(me, __FILE__, __LINE__, #condition, " " __VA_ARGS__);                         \
            return;                                                                                \
        }                                                                                          \
    } while (0)
void net_note(net_rank *me, const char *file, int line, const char *condition, const char *format,
              ...) __attribute__((format(printf, 5, 6)));

/* Drives all links until every message is done. False: a link failed, a rank did, or 20 s passed;
 * cinch_last_error says which. */
bool net_wait(net_rank *me, cinch_msg *const *messages, int count);
bool net_wait_one(net_rank *me, cinch_msg *message);

/* Waits for all ranks, through the rendezvous. */
bool net_barrier(net_rank *me);

/* Bytes that tell their seed and place. */
void net_fill(unsigned char *data, size_t bytes, uint64_t seed);
bool net_filled(const unsigned char *data, size_t bytes, uint64_t seed);

/* A small generator for seeded tests. */
uint64_t net_random(uint64_t *state);

int net_open_fds(void);

#endif
