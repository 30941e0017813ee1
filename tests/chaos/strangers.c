/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of connections that are nobody's, to every socket that a job listens at, while ranks
 * join, compute and meet again: nothing is disturbed.
 *
 *   test_strangers [--count N] [--seed S] [--seconds MOST] [--verbose 1]
 *
 * The sockets are found as a stranger would: from /proc/net. */
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/chaos/mixed.h"
#include "tests/chaos/stage.h"
#include "tests/harness.h"
#include "transports/io.h"
#include "transports/rendezvous_wire.h"

enum { N = 4, HELD = 400, SOCKETS = 64, RECORD = 256 };
enum { SLOW_MS = 8000 }; /* an init takes some 20 ms; this machine may be busy */

/* What ranks and strangers share. */
typedef struct scene {
    cinchUniqueId id;
    _Atomic int round;   /* that may begin: all of the one before is over */
    _Atomic int arrived; /* ranks that are through with it */
    _Atomic bool over;
    _Atomic int formed; /* rounds */
    _Atomic int worst_ms, most_fds, steps;
    char failure[N][400];
} scene;

static scene *s;

/* ---- the ranks ---- */

#define FAIL(rank, ...)                                                                            \
    do {                                                                                           \
        if (!s->failure[rank][0])                                                                  \
            snprintf(s->failure[rank], sizeof s->failure[rank], __VA_ARGS__);                      \
        atomic_store(&s->over, true);                                                              \
    } while (0)

static void raise_to(_Atomic int *most, int value) {
    int now = atomic_load(most);
    while (value > now && !atomic_compare_exchange_weak(most, &now, value)) continue;
}

static bool steps(int rank, cinchComm_t comm, uint64_t seed, uint64_t count) {
    mixed m = {.comm = comm, .seed = seed, .most_bits = 14};
    cinchCommUserRank(comm, &m.rank);
    cinchCommCount(comm, &m.nranks);
    cinchResult_t result = mixed_open(&m) ? cinchSystemError : cinchSuccess;
    for (uint64_t i = 0; i < count && result == cinchSuccess && !m.wrong[0]; i++) {
        result = mixed_step(&m, i);
        if (rank == 0) atomic_fetch_add(&s->steps, 1);
    }
    if (result != cinchSuccess)
        FAIL(rank, "a call gave %d: %.300s", (int)result, cinchGetLastError(comm));
    if (m.wrong[0]) FAIL(rank, "%s", m.wrong);
    mixed_close(&m);
    return result == cinchSuccess && !m.wrong[0];
}

static bool timely(int rank, const char *what, uint64_t since, cinchResult_t result) {
    int took = (int)(now_ms() - since);
    raise_to(&s->worst_ms, took);
    if (result == cinchSuccess && took < SLOW_MS) return true;
    FAIL(rank, "%s gave %d after %d ms: %.250s", what, (int)result, took, cinchGetLastError(NULL));
    return false;
}

/* One round: together, then without one of them, who meets the rest in the next round. */
static bool play(int rank, int round) {
    cinchComm_t comm = NULL, child = NULL;
    int without = round % N;
    sleep_ms((unsigned)(rank * 20)); /* so that the meeting point is open for a while */
    uint64_t since = now_ms();
    if (!timely(rank, "init", since, cinchCommInitRank(&comm, N, s->id, rank))) return false;
    bool good = steps(rank, comm, (uint64_t)round, 60);
    since = now_ms();
    if (good && rank != without)
        good = timely(rank, "shrink", since,
                      cinchCommShrink(comm, &without, 1, &child, NULL, CINCH_SHRINK_DEFAULT)) &&
               steps(rank, child, (uint64_t)round + 1000, 20);
    if (child && cinchCommDestroy(child) != cinchSuccess) good = false;
    return (good ? cinchCommDestroy(comm) : cinchCommAbort(comm)) == cinchSuccess && good;
}

static void run_rank(int rank) {
    char text[32], why[200];
    void *heap = NULL;
    clean_environment();
    snprintf(text, sizeof text, "host-%d", rank / 2); /* so that they also meet over tcp */
    setenv("CINCH_HOSTID", text, 1);
    setenv("CINCH_TRANSPORT", "tcp", 1);
    setenv("CINCH_INIT_TIMEOUT_MS", "20000", 1);
    setenv("CINCH_TIMEOUT_MS", "20000", 1);
    setenv("CINCH_DEBUG", "none", 1);
    cinchResetDebugInit();
    if (cinchHostAlloc(&heap, 1) == cinchSuccess) cinchHostFree(heap);
    holdings before = hold_now();
    for (int round = 0;; round++) {
        if (rank == 0) {
            while (round && atomic_load(&s->arrived) < N * round && !atomic_load(&s->over))
                sleep_ms(1);
            if (atomic_load(&s->over)) break;
            if (cinchGetUniqueId(&s->id) != cinchSuccess) FAIL(rank, "no id");
            atomic_store(&s->round, round + 1);
        }
        while (atomic_load(&s->round) <= round && !atomic_load(&s->over)) sleep_ms(1);
        if (atomic_load(&s->round) <= round || !play(rank, round)) break;
        atomic_fetch_add(&s->arrived, 1);
        if (rank == 0) atomic_fetch_add(&s->formed, 1);
    }
    if (!s->failure[rank][0] && !holdings_settle(&before, false, why, sizeof why))
        FAIL(rank, "%s", why);
    _exit(0);
}

/* ---- where they listen ---- */

typedef struct place {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
    } at;
    socklen_t length;
    bool meeting; /* shows the token in its name */
    uint8_t token[CINCH_TOKEN_BYTES];
} place;

static unsigned long inode[1024];
static int inodes;

/* The sockets of the ranks, and how many descriptors they have. */
static void look_at_ranks(const pid_t *pid) {
    inodes = 0;
    for (int r = 0; r < N; r++) {
        char path[300], to[64];
        int fds = 0;
        snprintf(path, sizeof path, "/proc/%d/fd", (int)pid[r]);
        DIR *dir = opendir(path);
        for (struct dirent *one; dir && (one = readdir(dir));) {
            if (one->d_name[0] == '.') continue;
            fds++;
            snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid[r], one->d_name);
            ssize_t got = readlink(path, to, sizeof to - 1);
            if (got > 0) to[got] = '\0';
            if (got > 0 && sscanf(to, "socket:[%lu]", &inode[inodes]) == 1 && inodes < 1023)
                inodes++;
        }
        if (dir) closedir(dir);
        raise_to(&s->most_fds, fds);
    }
}

static bool is_theirs(unsigned long number) {
    for (int i = 0; i < inodes; i++)
        if (inode[i] == number) return true;
    return false;
}

static int tcp_places(const char *file_name, place *out, int room) {
    char line[512], address[64];
    unsigned port, state;
    unsigned long number;
    int count = 0;
    FILE *file = fopen(file_name, "re");
    while (file && count < room && fgets(line, sizeof line, file)) {
        if (sscanf(line, " %*d: %63[0-9A-F]:%x %*s %x %*s %*s %*s %*s %*s %lu", address, &port,
                   &state, &number) != 4)
            continue;
        if (state != 0x0a || !is_theirs(number)) continue;
        place *to = &out[count++];
        memset(to, 0, sizeof *to);
        if (strlen(address) == 8) {
            to->at.v4.sin_family = AF_INET;
            to->at.v4.sin_port = htons((uint16_t)port);
            to->at.v4.sin_addr.s_addr = (in_addr_t)strtoul(address, NULL, 16);
            to->length = sizeof to->at.v4;
        } else {
            to->at.v6.sin6_family = AF_INET6;
            to->at.v6.sin6_port = htons((uint16_t)port);
            for (int w = 0; w < 4; w++) {
                char word[9] = "";
                memcpy(word, address + 8 * w, 8);
                uint32_t bits = (uint32_t)strtoul(word, NULL, 16);
                memcpy(to->at.v6.sin6_addr.s6_addr + 4 * w, &bits, sizeof bits);
            }
            to->length = sizeof to->at.v6;
        }
    }
    if (file) fclose(file);
    return count;
}

/* The name of a meeting point has its token. */
static void read_token(place *to, const char *name) {
    const char *hex = strrchr(name, '-');
    to->meeting = hex && strlen(hex + 1) == 2 * CINCH_TOKEN_BYTES;
    for (int i = 0; to->meeting && i < CINCH_TOKEN_BYTES; i++) {
        unsigned byte = 0;
        sscanf(hex + 1 + 2 * i, "%2x", &byte);
        to->token[i] = (uint8_t)byte;
    }
}

static int unix_places(place *out, int room) {
    char line[512], name[200];
    unsigned long flags, number;
    int count = 0;
    FILE *file = fopen("/proc/net/unix", "re");
    while (file && count < room && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%*s %*x %*x %lx %*x %*x %lu @%199s", &flags, &number, name) != 3)
            continue;
        if (!(flags & 0x10000) || !is_theirs(number)) continue; /* 0x10000: it listens */
        place *to = &out[count++];
        memset(to, 0, sizeof *to);
        to->at.un.sun_family = AF_UNIX;
        memcpy(to->at.un.sun_path + 1, name, strlen(name));
        to->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
        read_token(to, name);
    }
    if (file) fclose(file);
    return count;
}

static int find_places(const pid_t *pid, place *out) {
    look_at_ranks(pid);
    int count = unix_places(out, SOCKETS);
    count += tcp_places("/proc/net/tcp", out + count, SOCKETS - count);
    count += tcp_places("/proc/net/tcp6", out + count, SOCKETS - count);
    /* A token that is public is good at every door. */
    for (int i = 0; i < count; i++)
        for (int k = 0; k < count && !out[i].meeting; k++)
            if (out[k].meeting && out[i].at.any.sa_family != AF_UNIX)
                memcpy(out[i].token, out[k].token, sizeof out[i].token);
    return count;
}

/* ---- what strangers do ---- */

typedef enum {
    SCAN,     /* connect and close */
    GARBAGE,  /* any bytes */
    SILENT,   /* nothing, and it stays */
    STALLED,  /* the right first words, then nothing */
    REPLAYED, /* what an honest rank once said */
    REFLECTED,
    GUESSED, /* the whole handshake with another secret */
    HUGE_,   /* frames that claim enormous sizes, after the right first words */
    SLOW,    /* a byte, and it stays */
    TRICKS
} trick;

static int held[HELD];
static unsigned next_held;
static uint64_t made[TRICKS], refused;
static uint8_t record[RECORD];
static size_t recorded;
static unsigned records;

static void keep(int fd) {
    int *at = &held[next_held++ % HELD];
    if (*at > 0) cinch_close(*at);
    *at = fd;
}

static int enter(const place *to) {
    int fd, err = cinch_socket(to->at.any.sa_family, SOCK_STREAM, &fd);
    if (err) return -1;
    if (connect(fd, &to->at.any, to->length) && errno == EINPROGRESS) {
        if (cinch_wait(fd, POLLOUT, cinch_now_ns() + 200000000u)) errno = ETIMEDOUT;
        int late = 0;
        socklen_t length = sizeof late;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &late, &length) == 0 && !late) return fd;
    } else if (errno == 0) {
        return fd;
    }
    cinch_close(fd);
    return -1;
}

static void say(int fd, const void *bytes, size_t count) {
    if (send(fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
}

/* A hello with a nonce of our own; an honest rank's is of the same kind. */
static size_t make_hello(const uint8_t *token, uint8_t *said) {
    uint8_t secret[CINCH_SECRET_BYTES] = {0};
    cinch_proof proof;
    cinch_preface_make(token, said);
    if (!cinch_proof_begin(&proof, true, secret, token, CINCH_TOKEN_BYTES)) return 0;
    size_t count = CINCH_PREFACE_BYTES + cinch_proof_give(&proof, said + CINCH_PREFACE_BYTES);
    cinch_proof_wipe(&proof);
    return count;
}

/* What one says who knows the secret, for once: it was let in. */
static void make_record(const place *to) {
    static cinch_settings settings;
    cinch_meeting meeting;
    cinch_proof proof;
    char why[CINCH_ERROR_TEXT];
    uint8_t heard[CINCH_PROOF_HELLO_BYTES];
    uint64_t until = cinch_now_ns() + 500000000u;
    cinchUniqueId id = s->id;
    if (!settings.value[0] && !cinch_settings_load(&settings, why)) return;
    if (cinch_meeting_of(&settings, &id, &meeting) != cinchSuccess ||
        memcmp(meeting.token, to->token, CINCH_TOKEN_BYTES) != 0)
        return;
    int fd = enter(to);
    size_t count = CINCH_PREFACE_BYTES;
    if (fd < 0 ||
        !cinch_proof_begin(&proof, true, meeting.secret, meeting.token, CINCH_TOKEN_BYTES))
        return;
    cinch_preface_make(meeting.token, record);
    size_t more = cinch_proof_give(&proof, record + count);
    bool good = !cinch_send_all(fd, record, count + more, until);
    count += more;
    good = good && !cinch_recv_all(fd, heard, CINCH_PROOF_HELLO_BYTES, until) &&
           cinch_proof_take(&proof, heard, CINCH_PROOF_HELLO_BYTES) == CINCH_PROOF_WRITE;
    more = good ? cinch_proof_give(&proof, record + count) : 0;
    good = good && !cinch_send_all(fd, record + count, more, until) &&
           !cinch_recv_all(fd, heard, CINCH_PROOF_ANSWER_BYTES, until) &&
           cinch_proof_take(&proof, heard, CINCH_PROOF_ANSWER_BYTES) == CINCH_PROOF_HOLDS;
    if (good) recorded = count + more;
    if (good) records++;
    cinch_proof_wipe(&proof);
    cinch_close(fd);
}

/* Its own words back to it, as far as it says any. */
static void reflect(int fd, const place *to) {
    uint8_t said[CINCH_PREFACE_BYTES + CINCH_PROOF_HELLO_BYTES], back[128];
    say(fd, said, make_hello(to->token, said));
    if (cinch_wait(fd, POLLIN, cinch_now_ns() + 3000000u)) return;
    ssize_t got = recv(fd, back, sizeof back, MSG_DONTWAIT);
    if (got > 0) say(fd, back, (size_t)got);
}

static void trouble(const place *to, trick what, uint64_t *random) {
    uint8_t bytes[512], secret[CINCH_SECRET_BYTES] = {7};
    cinch_frame head = cinch_frame_make(CINCH_FRAME_HELLO, random64(random));
    errno = 0;
    int fd = enter(to);
    if (fd < 0) {
        refused++;
        return;
    }
    made[what]++;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)random64(random);
    cinch_preface_make(to->token, bytes);
    switch (what) {
    case GARBAGE:
        say(fd, bytes + CINCH_PREFACE_BYTES, 1 + random64(random) % 400);
        break;
    case STALLED:
        say(fd, bytes, CINCH_PREFACE_BYTES);
        break;
    case REPLAYED:
        if (!recorded || random64(random) % 16 == 0) make_record(to);
        say(fd, record, recorded);
        break;
    case REFLECTED:
        reflect(fd, to);
        break;
    case GUESSED:
        say(fd, bytes, CINCH_PREFACE_BYTES);
        cinch_handshake(fd, true, secret, to->token, CINCH_TOKEN_BYTES, cinch_now_ns() + 5000000u);
        break;
    case HUGE_:
        say(fd, bytes, CINCH_PREFACE_BYTES);
        say(fd, &head, sizeof head);
        say(fd, bytes, sizeof bytes);
        break;
    case SLOW:
        say(fd, bytes, 1);
        break;
    default:
        break;
    }
    if (what == SILENT || what == STALLED || what == SLOW)
        keep(fd);
    else
        cinch_close(fd);
}

/* ---- all of it ---- */

static uint64_t attack(const pid_t *pid, uint64_t count, uint64_t seed, uint64_t until_ms) {
    static place places[SOCKETS];
    uint64_t random = seed, done = 0;
    int known = 0;
    while (done < count && !atomic_load(&s->over) && now_ms() < until_ms) {
        if (done % 8 == 0 || !known) known = find_places(pid, places);
        if (!known) {
            sleep_ms(1);
            continue;
        }
        const place *to = &places[random64(&random) % (uint64_t)known];
        trouble(to, (trick)(random64(&random) % TRICKS), &random);
        done++;
    }
    return done;
}

int main(int argc, char **argv) {
    static const char *const names[TRICKS] = {"scans",        "garbage",  "silent",
                                              "stalled",      "replayed", "reflected",
                                              "wrong secret", "huge",     "slow"};
    uint64_t seed = stage_number(argc, argv, "seed", now_ms() * 2654435761u);
    uint64_t count = stage_number(argc, argv, "count", 1500);
    uint64_t seconds = stage_number(argc, argv, "seconds", 3600);
    pid_t pid[N];
    int bad = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool alone = stage_isolate();
    if (!cinch_handshake_available()) {
        printf("skipped: without libsodium no rank listens to strangers\n");
        return 77;
    }
    s = stage_memory(sizeof *s);
    printf("seed %llu%s\n", (unsigned long long)seed,
           alone ? "" : "; without namespaces of its own");
    for (int r = 0; r < N; r++)
        if ((pid[r] = stage_fork()) == 0) run_rank(r);
    uint64_t done = attack(pid, count, seed, now_ms() + seconds * 1000);
    atomic_store(&s->over, true);
    for (int r = 0; r < N; r++) {
        int status = 0;
        if (!stage_await(pid[r], now_ms() + 30000, &status)) {
            printf("FAILED: rank %d hangs\n", r);
            stage_tell_threads(pid[r]);
            kill(pid[r], SIGKILL);
            waitpid(pid[r], &status, 0);
            bad++;
        } else if (status || s->failure[r][0]) {
            printf("FAILED: rank %d: status %#x, %s\n", r, (unsigned)status, s->failure[r]);
            bad++;
        }
    }
    for (int i = 0; i < HELD; i++)
        if (held[i] > 0) cinch_close(held[i]);
    printf("%llu connections:", (unsigned long long)done);
    for (int i = 0; i < TRICKS; i++) printf(" %s %llu,", names[i], (unsigned long long)made[i]);
    printf(" came too late %llu; %u handshakes recorded\n", (unsigned long long)refused, records);
    printf("%d communicators formed, shrunk and left, %d steps right; the longest init or shrink "
           "took %d ms; at most %d descriptors in a rank\n",
           atomic_load(&s->formed), atomic_load(&s->steps), atomic_load(&s->worst_ms),
           atomic_load(&s->most_fds));
    if (!bad && (atomic_load(&s->formed) < 2 || done < count || !records)) {
        printf("FAILED: too little happened\n");
        bad = 1;
    }
    if (atomic_load(&s->most_fds) > 400) {
        printf("FAILED: descriptors are not bounded\n");
        bad = 1;
    }
    return bad ? 1 : 0;
}
