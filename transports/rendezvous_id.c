/* SPDX-License-Identifier: Apache-2.0 */
/* Unique ids: made fresh, or from CINCH_COMM_ID without starting anything. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "transports/rendezvous.h"
#include "transports/rendezvous_wire.h"

/* The 128 bytes, plain data: the same on every machine of one byte order. */
typedef struct id_layout {
    uint8_t magic[4];
    uint8_t version, kind, has_secret, addresses;
    uint8_t token[CINCH_TOKEN_BYTES];
    uint8_t secret[CINCH_SECRET_BYTES];
    uint8_t index[4];
    uint8_t address[CINCH_ID_ADDRESSES][CINCH_ADDRESS_BYTES];
    uint8_t unused[11];
} id_layout;
_Static_assert(sizeof(id_layout) == CINCH_UNIQUE_ID_BYTES, "an id fills its 128 bytes");

static const uint8_t id_magic[4] = {'c', 'n', 'c', 'h'};
enum { ID_VERSION = 1, SECRET_MIN_BYTES = 16, SECRET_MAX_BYTES = 256 };

static _Atomic uint32_t comm_id_calls;

/* Hex digits to bytes; false where it is not hex or too short or long. */
static bool parse_secret(const char *hex, size_t digits, uint8_t *out, size_t *bytes) {
    if (digits % 2 || digits / 2 < SECRET_MIN_BYTES || digits / 2 > SECRET_MAX_BYTES) return false;
    for (size_t i = 0; i < digits; i++) {
        char c = hex[i];
        int value = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (value < 0) return false;
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | value : value << 4);
    }
    *bytes = digits / 2;
    return true;
}

/* CINCH_SECRET_FILE: refused where others may read it. */
static cinchResult_t read_secret_file(const char *path, uint8_t *out, size_t *bytes) {
    char text[2 * SECRET_MAX_BYTES + 2];
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cinch_fail_errno(errno, "CINCH_SECRET_FILE %s cannot be read", path);
    ssize_t n = -1;
    int err = fstat(fd, &info) ? errno : 0;
    bool shared = !err && (info.st_mode & 077) != 0;
    if (!err && !shared && (n = read(fd, text, sizeof text)) < 0) err = errno;
    close(fd);
    if (err) return cinch_fail_errno(err, "CINCH_SECRET_FILE %s cannot be read", path);
    if (shared)
        return cinch_fail(cinchInvalidUsage,
                          "CINCH_SECRET_FILE %s can be read by others: its mode must be 0600",
                          path);
    while (n > 0 && strchr(" \t\r\n", text[n - 1])) n--;
    bool good = parse_secret(text, (size_t)n, out, bytes);
    explicit_bzero(text, sizeof text);
    if (good) return cinchSuccess;
    return cinch_fail(cinchInvalidUsage,
                      "CINCH_SECRET_FILE %s does not hold a secret: %d to %d bytes in hex are "
                      "accepted, 2 digits each",
                      path, SECRET_MIN_BYTES, SECRET_MAX_BYTES);
}

/* Without libsodium nothing but unix sockets is used, and there the peer's uid is what counts: the
 * token needs to differ between jobs, no more. */
static void plain_hash(uint8_t *out, size_t out_bytes, const void *part, size_t part_bytes,
                       const void *part2, size_t part2_bytes) {
    for (size_t i = 0; i < out_bytes; i++) {
        uint64_t hash = 14695981039346656037u + i;
        for (size_t j = 0; j < part_bytes + part2_bytes; j++) {
            hash ^= j < part_bytes ? ((const uint8_t *)part)[j]
                                   : ((const uint8_t *)part2)[j - part_bytes];
            hash *= 1099511628211u;
        }
        out[i] = (uint8_t)(hash >> 32);
    }
}

void cinch_meeting_hash(uint8_t *out, size_t out_bytes, const char *label, const void *part,
                        size_t part_bytes, const void *part2, size_t part2_bytes) {
    if (!cinch_handshake_available() ||
        !cinch_derive(out, out_bytes, label, part, part_bytes, part2, part2_bytes))
        plain_hash(out, out_bytes, part, part_bytes, part2, part2_bytes);
}

static cinchResult_t bad_comm_id(const char *shown, int length) {
    return cinch_fail(cinchInvalidUsage,
                      "CINCH_COMM_ID \"%.*s\" is no meeting point: HOST:PORT[#HEXSECRET], "
                      "[V6]:PORT[#HEXSECRET] or file:/PATH is accepted, a secret being at least %d "
                      "hex digits",
                      length, shown, 2 * SECRET_MIN_BYTES);
}

/* file:/PATH; later ids of a process have a file of their own. */
static cinchResult_t meet_by_file(const char *path, cinch_meeting *meeting) {
    if (path[0] != '/') return bad_comm_id(path - 5, (int)strlen(path) + 5);
    meeting->kind = CINCH_MEET_FILE;
    meeting->has_secret = true; /* the file will hold one */
    int n = meeting->index
                ? snprintf(meeting->path, sizeof meeting->path, "%s.%u", path, meeting->index)
                : snprintf(meeting->path, sizeof meeting->path, "%s", path);
    if (n < 0 || (size_t)n >= sizeof meeting->path)
        return cinch_fail(cinchInvalidUsage, "CINCH_COMM_ID: the path is longer than %zu bytes",
                          sizeof meeting->path - 16);
    return cinchSuccess;
}

/* The meeting point of the index-th id that CINCH_COMM_ID gives. */
static cinchResult_t meet_by_setting(const cinch_settings *settings, uint32_t index,
                                     cinch_meeting *meeting) {
    const char *text = settings->comm_id;
    memset(meeting, 0, sizeof *meeting);
    meeting->index = index;
    if (strncmp(text, "file:", 5) == 0) return meet_by_file(text + 5, meeting);
    meeting->kind = CINCH_MEET_HOST;
    const char *mark = strchr(text, '#');
    size_t length = mark ? (size_t)(mark - text) : strlen(text);
    char place[300];
    if (length >= sizeof place) return bad_comm_id(text, 100);
    memcpy(place, text, length);
    place[length] = 0;
    if (!cinch_host_port_parse(place, meeting->host, sizeof meeting->host, &meeting->port))
        return bad_comm_id(place, (int)length);

    uint8_t secret[SECRET_MAX_BYTES];
    size_t bytes = 0;
    if (mark && !parse_secret(mark + 1, strlen(mark + 1), secret, &bytes))
        return cinch_fail(cinchInvalidUsage,
                          "CINCH_COMM_ID %s#...: the secret is not %d to %d bytes in hex, 2 digits "
                          "each",
                          place, SECRET_MIN_BYTES, SECRET_MAX_BYTES);
    if (!mark && settings->secret_file[0])
        CINCH_TRY(read_secret_file(settings->secret_file, secret, &bytes));
    meeting->has_secret = bytes > 0;

    /* The token leaves the secret out, so that a rank with a wrong one is told so; with port 0
     * nothing but the secret tells two jobs apart. */
    uint8_t number[4] = {(uint8_t)index, (uint8_t)(index >> 8), (uint8_t)(index >> 16),
                         (uint8_t)(index >> 24)};
    size_t used = (size_t)snprintf(place + length, sizeof place - length, "/%u", index) + length;
    cinch_meeting_hash(meeting->token, sizeof meeting->token, "cinch meeting point", place, used,
                       secret, meeting->port ? 0 : bytes);
    cinch_meeting_hash(meeting->secret, sizeof meeting->secret, "cinch secret", secret, bytes,
                       number, sizeof number);
    explicit_bzero(secret, sizeof secret);
    return cinchSuccess;
}

uint32_t cinch_meeting_next_index(void) {
    return atomic_load(&comm_id_calls);
}

void cinch_meeting_write(const cinch_meeting *meeting, cinchUniqueId *id) {
    id_layout layout = {
        .version = ID_VERSION, .kind = (uint8_t)meeting->kind, .has_secret = meeting->has_secret};
    memcpy(layout.magic, id_magic, sizeof id_magic);
    memcpy(layout.token, meeting->token, sizeof layout.token);
    memcpy(layout.secret, meeting->secret, sizeof layout.secret);
    for (int i = 0; i < 4; i++) layout.index[i] = (uint8_t)(meeting->index >> (8 * i));
    for (int i = 0; i < meeting->addresses && i < CINCH_ID_ADDRESSES; i++)
        cinch_address_pack(&meeting->address[layout.addresses++], layout.address[i]);
    memcpy(id, &layout, sizeof layout);
}

cinchResult_t cinch_rendezvous_id(const cinch_settings *settings, cinchUniqueId *id) {
    cinch_meeting meeting;
    if (settings->comm_id[0]) {
        /* A value that does not parse must not use up a number. */
        CINCH_TRY(meet_by_setting(settings, 0, &meeting));
        CINCH_TRY(meet_by_setting(settings, atomic_fetch_add(&comm_id_calls, 1), &meeting));
        cinch_meeting_write(&meeting, id);
        return cinchSuccess;
    }
    memset(&meeting, 0, sizeof meeting);
    meeting.kind = CINCH_MEET_OWN;
    meeting.has_secret = true;
    CINCH_TRY(cinch_random(meeting.token, sizeof meeting.token));
    CINCH_TRY(cinch_random(meeting.secret, sizeof meeting.secret));
    const char *note = "";
    if (cinch_handshake_available())
        CINCH_TRY(cinch_addresses_local(settings, meeting.address, CINCH_ID_ADDRESSES,
                                        &meeting.addresses));
    else
        note = "this build has no libsodium, so that only ranks of this host can join";
    CINCH_TRY(cinch_server_start(&meeting, cinch_meeting_timeout_ms(settings), note));
    cinch_meeting_write(&meeting, id);
    return cinchSuccess;
}

cinchResult_t cinch_meeting_of(const cinch_settings *settings, const cinchUniqueId *id,
                               cinch_meeting *meeting) {
    id_layout layout;
    memcpy(&layout, id, sizeof layout);
    if (memcmp(layout.magic, id_magic, sizeof id_magic) != 0 || layout.version != ID_VERSION ||
        layout.kind < CINCH_MEET_OWN || layout.kind > CINCH_MEET_REUNION ||
        layout.addresses > CINCH_ID_ADDRESSES)
        return cinch_fail(cinchInvalidArgument,
                          "the unique id is none that cinchGetUniqueId of this release has made");
    memset(meeting, 0, sizeof *meeting);
    uint32_t index = 0;
    for (int i = 0; i < 4; i++) index |= (uint32_t)layout.index[i] << (8 * i);
    if (layout.kind == CINCH_MEET_HOST || layout.kind == CINCH_MEET_FILE) {
        if (!settings->comm_id[0])
            return cinch_fail(cinchInvalidUsage,
                              "the unique id was made with CINCH_COMM_ID, which is not set here");
        CINCH_TRY(meet_by_setting(settings, index, meeting));
        bool same = meeting->kind == (cinch_meeting_kind)layout.kind &&
                    !memcmp(meeting->token, layout.token, sizeof layout.token) &&
                    !memcmp(meeting->secret, layout.secret, sizeof layout.secret);
        if (!same)
            return cinch_fail(cinchInvalidUsage,
                              "the unique id was made with another value of CINCH_COMM_ID or "
                              "CINCH_SECRET_FILE than is set here");
        return cinchSuccess;
    }
    meeting->kind = (cinch_meeting_kind)layout.kind;
    meeting->has_secret = layout.has_secret;
    memcpy(meeting->token, layout.token, sizeof layout.token);
    memcpy(meeting->secret, layout.secret, sizeof layout.secret);
    for (int i = 0; i < layout.addresses; i++)
        if (cinch_address_unpack(layout.address[i], &meeting->address[meeting->addresses]))
            meeting->addresses++;
    return cinchSuccess;
}

const char *cinch_meeting_name(const cinch_meeting *meeting, char *text, size_t room) {
    if (meeting->kind == CINCH_MEET_FILE)
        snprintf(text, room, "CINCH_COMM_ID file:%s", meeting->path);
    else if (meeting->kind == CINCH_MEET_HOST)
        snprintf(text, room, "CINCH_COMM_ID %s:%u", meeting->host, meeting->port);
    else if (meeting->kind == CINCH_MEET_REUNION)
        snprintf(text, room, "the new meeting point of the ranks that are left");
    else
        snprintf(text, room, "the process that made the unique id");
    return text;
}

static void cancel(const cinchUniqueId *id, const char *why, int more) {
    id_layout layout;
    memcpy(&layout, id, sizeof layout);
    if (!memcmp(layout.magic, id_magic, sizeof id_magic) && layout.kind == CINCH_MEET_OWN)
        cinch_server_cancel(layout.token, why, more);
}

void cinch_rendezvous_forget(const cinchUniqueId *id) {
    cancel(id, NULL, 0);
}

void cinch_rendezvous_excuse(const cinchUniqueId *id, int rank, int nranks) {
    char why[CINCH_ERROR_TEXT], cause[CINCH_ERROR_TEXT - 80];
    snprintf(cause, sizeof cause, "%s", cinch_last_error());
    snprintf(why, sizeof why, "rank %d of %d cannot join: %s", rank, nranks, cause);
    cancel(id, why, nranks - 1);
}

uint64_t cinch_meeting_timeout_ms(const cinch_settings *settings) {
    const int64_t most = INT64_C(1000) * 60 * 60 * 24 * 365, asked = settings->init_timeout_ms;
    return (uint64_t)(asked < 0 || asked > most ? most : asked);
}

bool cinch_meeting_may_listen(const cinch_settings *settings, const cinch_meeting *meeting) {
    return meeting->has_secret || settings->allow_unauthenticated;
}

void cinch_meeting_resolve(const cinch_settings *settings, cinch_meeting *meeting, bool host,
                           char note[CINCH_NOTE_TEXT]) {
    cinch_address all[CINCH_MEETING_ADDRESSES];
    int count, kept = 0, loopback = 0;
    meeting->addresses = 0;
    note[0] = 0;
    if (!cinch_handshake_available()) {
        snprintf(note, CINCH_NOTE_TEXT,
                 "this build has no libsodium, so that only ranks of rank 0's host can join");
        return;
    }
    if (meeting->port == 0) {
        snprintf(note, CINCH_NOTE_TEXT, "port 0 lets only ranks of rank 0's host join");
        return;
    }
    int code = cinch_host_resolve(settings, meeting->host, meeting->port, all,
                                  CINCH_MEETING_ADDRESSES, &count);
    if (code) {
        snprintf(note, CINCH_NOTE_TEXT, "the host \"%.100s\" is unknown: %s", meeting->host,
                 gai_strerror(code));
        return;
    }
    for (int i = 0; i < count; i++) {
        bool local = cinch_address_is_loopback(&all[i]);
        if (!local && !cinch_meeting_may_listen(settings, meeting)) {
            snprintf(note, CINCH_NOTE_TEXT,
                     "without a secret nothing beyond loopback is used: append #HEXSECRET to "
                     "CINCH_COMM_ID, or set CINCH_SECRET_FILE, or CINCH_ALLOW_UNAUTHENTICATED=1");
            continue;
        }
        loopback += local;
        meeting->address[kept++] = all[i];
    }
    meeting->addresses = kept;
    /* A host's own name often stands for 127.0.1.1 on that host itself, where nobody else can come.
     */
    cinch_address literal;
    bool is_name = !inet_aton(meeting->host, &literal.v4.sin_addr) && !strchr(meeting->host, ':') &&
                   strcmp(meeting->host, "localhost") != 0;
    if (host && kept && loopback == kept && is_name &&
        cinch_meeting_may_listen(settings, meeting)) {
        memset(&meeting->address[0], 0, sizeof meeting->address[0]);
        meeting->address[0].v4.sin_family = AF_INET;
        cinch_address_set_port(&meeting->address[0], meeting->port);
        meeting->addresses = 1;
    }
}

socklen_t cinch_meeting_unix(const uint8_t token[CINCH_TOKEN_BYTES], struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    char *name = address->sun_path + 1; /* abstract: it begins with a NUL and leaves no file */
    size_t room = sizeof address->sun_path - 1;
    size_t used = (size_t)snprintf(name, room, "cinch-%u-", (unsigned)geteuid());
    for (int i = 0; i < CINCH_TOKEN_BYTES; i++)
        used += (size_t)snprintf(name + used, room - used, "%02x", token[i]);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + used);
}
