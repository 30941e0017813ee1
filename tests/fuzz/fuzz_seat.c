/* SPDX-License-Identifier: Apache-2.0 */
/* A rank's seat at the meeting point under a fuzzer: whatever the server says, joining, all-gathers
 * and looking for failures end with a result or with a sentence. The connection is a socket pair.
 */
#include <endian.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "transports/io.h"
#include "transports/rendezvous.h"
#include "transports/rendezvous_wire.h"

enum { GO, GATHERED, FAILED, PARTING, HEAD, RAW, OPS };
enum { RANKS = 3, PART = 5 };

static int the_fd; /* what the seat gets as its connection */

cinchResult_t __wrap_cinch_meeting_reach(const cinch_settings *settings, cinch_meeting *meeting,
                                         int rank, uint64_t deadline_ns, const _Atomic bool *cancel,
                                         int *fd, cinch_server **server);
cinchResult_t __wrap_cinch_meeting_reach(const cinch_settings *settings, cinch_meeting *meeting,
                                         int rank, uint64_t deadline_ns, const _Atomic bool *cancel,
                                         int *fd, cinch_server **server) {
    (void)settings, (void)meeting, (void)rank, (void)deadline_ns, (void)cancel;
    if (the_fd < 0) return cinch_fail_quiet(cinchSystemError, "it was reached once");
    *fd = the_fd;
    *server = NULL;
    the_fd = -1;
    return cinchSuccess;
}

static void say(int fd, cinch_frame_type type, const void *body, size_t bytes) {
    cinch_frame head = cinch_frame_make(type, bytes);
    if (send(fd, &head, sizeof head, MSG_NOSIGNAL) < 0 || !bytes) return;
    if (send(fd, body, bytes, MSG_NOSIGNAL) < 0) return;
}

static void say_one(fuzz_input *in, int fd) {
    uint8_t data[256];
    size_t bytes;
    uint32_t code;
    cinch_frame head;
    cinch_go go = {.host_rank = 0};
    switch (fuzz_byte(in) % OPS) {
    case GO:
        go.host_rank = (int32_t)htole32((uint32_t)(int8_t)fuzz_byte(in));
        say(fd, CINCH_FRAME_GO, &go, sizeof go);
        break;
    case GATHERED:
        fuzz_take(in, data, RANKS * PART);
        say(fd, CINCH_FRAME_GATHERED, data, RANKS * PART);
        break;
    case FAILED:
        bytes = fuzz_byte(in) % 64;
        code = htole32(fuzz_byte(in) % 9);
        fuzz_take(in, data, sizeof code + bytes);
        memcpy(data, &code, sizeof code);
        say(fd, CINCH_FRAME_FAILED, data, sizeof code + bytes);
        break;
    case PARTING:
        say(fd, CINCH_FRAME_PARTING, NULL, 0);
        break;
    case HEAD:
        head = cinch_frame_make((cinch_frame_type)fuzz_byte(in), 0);
        fuzz_take(in, &head.bytes, fuzz_byte(in) % 9);
        if (send(fd, &head, sizeof head, MSG_NOSIGNAL) < 0) return;
        break;
    default:
        bytes = fuzz_byte(in);
        fuzz_take(in, data, bytes);
        if (bytes && send(fd, data, bytes, MSG_NOSIGNAL) < 0) return;
    }
}

static void use(cinch_rendezvous *seat, unsigned flags) {
    char mine[PART] = {0}, all[RANKS * PART];
    cinchResult_t result = cinchSuccess;
    for (unsigned i = 0; i < flags % 8 && result == cinchSuccess; i++) {
        result = i & 1 && flags & 16 ? cinch_rendezvous_check(seat)
                                     : cinch_rendezvous_allgather(seat, mine, sizeof mine, all);
        fuzz_expect(result == cinchSuccess || *cinch_last_error(), "no sentence");
    }
    if (flags & 32) cinch_rendezvous_abort(seat, "it gives up");
    cinch_rendezvous_leave(seat);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static cinch_settings settings;
    static cinchUniqueId id;
    fuzz_input in = {data, size};
    char why[CINCH_ERROR_TEXT];
    int pair[2];
    if (!settings.comm_id) {
        fuzz_expect(cinch_settings_load(&settings, why), why);
        settings.init_timeout_ms = 50;
        cinch_meeting meeting = {.kind = CINCH_MEET_OWN};
        cinch_meeting_write(&meeting, &id);
    }
    cinch_log_threshold = CINCH_LOG_NONE;
    unsigned flags = fuzz_byte(&in);
    fuzz_expect(!cinch_socketpair(pair), "no connection");
    for (int i = 0; i < 100 && in.left; i++) say_one(&in, pair[0]);
    shutdown(pair[0], SHUT_WR);
    the_fd = pair[1];
    cinch_rendezvous *seat = NULL;
    cinchResult_t result = cinch_rendezvous_join(&settings, &id, 1, RANKS, NULL, &seat);
    fuzz_expect(result == cinchSuccess || *cinch_last_error(), "no sentence");
    if (result == cinchSuccess) use(seat, flags);
    cinch_close(pair[0]);
    return 0;
}

/* In order: all goes well, with and without a process that parts; and a failure. */
size_t fuzz_seed(int k, uint8_t *out) {
    static const uint8_t kinds[][4] = {{GO, GATHERED, GATHERED, PARTING},
                                       {GO, PARTING, GATHERED, FAILED},
                                       {GO, GATHERED, FAILED, RAW},
                                       {FAILED, GO, GO, GO}};
    if (k >= 4) return 0;
    size_t n = 0;
    memset(out, 0, 256);
    out[n++] = (uint8_t)(16 * k + 5);
    for (int i = 0; i < 4; i++) {
        unsigned op = kinds[k][i];
        out[n++] = (uint8_t)op;
        if (op == GO) n += 1;
        if (op == GATHERED) n += RANKS * PART;
        if (op == FAILED) out[n] = 5, out[n + 1] = 6, n += 2 + 9;
        if (op == RAW) n += 1;
    }
    return n;
}
