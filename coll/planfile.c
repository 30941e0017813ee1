/* SPDX-License-Identifier: Apache-2.0 */
/* Plan files on disk: read within limits, written whole or not at all. */
#include "coll/planfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads until the end or the limit. */
static char *read_all(int fd, size_t most, size_t *length, char *why, size_t room) {
    char *text = malloc(most + 2);
    size_t have = 0;
    if (!text) {
        snprintf(why, room, "out of memory for %zu bytes", most);
        return NULL;
    }
    while (have <= most) {
        ssize_t got = read(fd, text + have, most + 1 - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) snprintf(why, room, "%s", strerror(errno));
        if (got <= 0) {
            text[have] = '\0';
            *length = have;
            if (got == 0) return text;
            break;
        }
        have += (size_t)got;
    }
    if (have > most) snprintf(why, room, "it grows while it is read");
    free(text);
    return NULL;
}

char *cinch_planfile_load(const char *path, size_t *length, char *why, size_t room) {
    struct stat about;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        snprintf(why, room, "%s", strerror(errno));
        return NULL;
    }
    if (fstat(fd, &about) != 0)
        snprintf(why, room, "%s", strerror(errno));
    else if (!S_ISREG(about.st_mode))
        snprintf(why, room, "it is no regular file");
    else if (about.st_size > CINCH_PLANFILE_MOST_BYTES)
        snprintf(why, room, "it has %lld bytes, and at most %d are accepted",
                 (long long)about.st_size, CINCH_PLANFILE_MOST_BYTES);
    else
        text = read_all(fd, (size_t)about.st_size, length, why, room);
    close(fd);
    return text;
}

static int write_all(int fd, const char *text, size_t length) {
    while (length) {
        ssize_t wrote = write(fd, text, length);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return errno;
        text += wrote;
        length -= (size_t)wrote;
    }
    return fsync(fd) != 0 && errno != EINVAL ? errno : 0;
}

/* A file beside the one that is meant takes its place when it is complete. 0 or errno. */
static int replace(const char *path, char *beside, const char *text, size_t length) {
    int fd = mkostemp(beside, O_CLOEXEC);
    if (fd < 0) return errno;
    int err = fchmod(fd, 0644) != 0 ? errno : write_all(fd, text, length);
    if (close(fd) != 0 && !err) err = errno;
    if (!err && rename(beside, path) != 0) err = errno;
    if (err) unlink(beside);
    return err;
}

cinchResult_t cinch_planfile_write(const cinch_tuned *tuned, const char *path) {
    char *text;
    size_t length, room = strlen(path) + sizeof ".XXXXXX";
    CINCH_TRY(cinch_planfile_text(tuned, &text, &length));
    char *beside = malloc(room);
    int err = ENOMEM;
    if (beside) {
        snprintf(beside, room, "%s.XXXXXX", path);
        err = replace(path, beside, text, length);
    }
    free(beside);
    free(text);
    return err ? cinch_fail_errno(err, "the plan file %.300s cannot be written", path)
               : cinchSuccess;
}
