/* SPDX-License-Identifier: Apache-2.0 */
/* CINCH_COMM_ID=file:/PATH: rank 0 leaves token, secret and addresses in a file that only its own
 * user can read; the others wait for it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transports/rendezvous_wire.h"

static const uint8_t file_magic[8] = {'c', 'i', 'n', 'c', 'h', 'M', 'p', '1'};

typedef struct file_layout {
    uint8_t magic[8];
    uint8_t token[CINCH_TOKEN_BYTES];
    uint8_t secret[CINCH_SECRET_BYTES];
    uint8_t addresses;
    uint8_t address[CINCH_MEETING_ADDRESSES][CINCH_ADDRESS_BYTES];
} file_layout;

cinchResult_t cinch_meeting_publish(const cinch_meeting *meeting) {
    file_layout layout = {0};
    memcpy(layout.magic, file_magic, sizeof layout.magic);
    memcpy(layout.token, meeting->token, sizeof layout.token);
    memcpy(layout.secret, meeting->secret, sizeof layout.secret);
    for (int i = 0; i < meeting->addresses; i++)
        cinch_address_pack(&meeting->address[i], layout.address[layout.addresses++]);

    /* Whole or not there at all: written under another name, then renamed. One that a killed run
     * left behind is replaced. */
    char draft[sizeof meeting->path + 40];
    uint8_t random[8];
    CINCH_TRY(cinch_random(random, sizeof random));
    int used = snprintf(draft, sizeof draft, "%s.", meeting->path);
    for (size_t i = 0; i < sizeof random; i++)
        used += snprintf(draft + used, sizeof draft - (size_t)used, "%02x", random[i]);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int err = 0;
    if (fd < 0) {
        err = errno;
    } else {
        if (fchmod(fd, 0600)) err = errno;
        ssize_t n = err ? -1 : write(fd, &layout, sizeof layout);
        if (!err && n != (ssize_t)sizeof layout) err = n < 0 ? errno : ENOSPC;
        if (close(fd) && !err) err = errno;
        if (!err && rename(draft, meeting->path)) err = errno;
        if (err) unlink(draft);
    }
    explicit_bzero(&layout, sizeof layout);
    if (err) return cinch_fail_errno(err, "CINCH_COMM_ID file:%s cannot be made", meeting->path);
    return cinchSuccess;
}

/* Opens the file where it is one of ours: *fd is -1 where there is none. */
static cinchResult_t open_trusted(const char *path, int *fd) {
    struct stat info;
    *fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 && errno == ENOENT) return cinchSuccess;
    if (*fd < 0) return cinch_fail_errno(errno, "CINCH_COMM_ID file:%s cannot be read", path);
    const char *wrong = NULL;
    if (fstat(*fd, &info))
        wrong = "it cannot be looked at";
    else if (!S_ISREG(info.st_mode))
        wrong = "it is not a regular file";
    else if (info.st_uid != geteuid())
        wrong = "it belongs to another user";
    else if (info.st_mode & 077)
        wrong = "others can read or write it; its mode must be 0600";
    if (!wrong) return cinchSuccess;
    close(*fd);
    *fd = -1;
    return cinch_fail(cinchInvalidUsage, "CINCH_COMM_ID file:%s is not trusted: %s", path, wrong);
}

cinchResult_t cinch_meeting_read(cinch_meeting *meeting, bool *found) {
    file_layout layout;
    int fd;
    *found = false;
    CINCH_TRY(open_trusted(meeting->path, &fd));
    if (fd < 0) return cinchSuccess;
    ssize_t n = read(fd, &layout, sizeof layout);
    close(fd);
    if (n != (ssize_t)sizeof layout || memcmp(layout.magic, file_magic, sizeof file_magic) != 0 ||
        layout.addresses > CINCH_MEETING_ADDRESSES)
        return cinch_fail(cinchInvalidUsage,
                          "CINCH_COMM_ID file:%s is not what rank 0 of this release writes",
                          meeting->path);
    memcpy(meeting->token, layout.token, sizeof meeting->token);
    memcpy(meeting->secret, layout.secret, sizeof meeting->secret);
    meeting->addresses = 0;
    for (int i = 0; i < layout.addresses; i++)
        if (cinch_address_unpack(layout.address[i], &meeting->address[meeting->addresses]))
            meeting->addresses++;
    explicit_bzero(&layout, sizeof layout);
    *found = true;
    return cinchSuccess;
}

/* Only where it is still the one that was written here. */
void cinch_meeting_forget(const cinch_meeting *meeting) {
    file_layout layout;
    int fd = open(meeting->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return;
    ssize_t n = read(fd, &layout, sizeof layout);
    close(fd);
    if (n == (ssize_t)sizeof layout && !memcmp(layout.token, meeting->token, CINCH_TOKEN_BYTES))
        unlink(meeting->path);
    explicit_bzero(&layout, sizeof layout);
}
