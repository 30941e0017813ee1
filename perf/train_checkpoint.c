/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoint files: written so that a crash at any moment leaves the old ones or a whole new one,
 * and read as if anybody could have written them. */
#include "perf/train_checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "transports/crc32c.h"

enum { NAME_ROOM = 96, CRC_BYTES = sizeof(uint32_t) };
static const char MAGIC[8] = {'C', 'I', 'N', 'C', 'H', 'C', 'K', '1'};

typedef struct file_name {
    uint64_t position, rank, ranks;
} file_name;

static void name_write(const file_name *n, char text[NAME_ROOM]) {
    snprintf(text, NAME_ROOM, "step-%010" PRIu64 ".rank-%" PRIu64 "-of-%" PRIu64 ".checkpoint",
             n->position, n->rank, n->ranks);
}

/* False: a file of another kind. */
static bool name_read(const char *text, file_name *n) {
    char again[NAME_ROOM];
    if (sscanf(text, "step-%" SCNu64 ".rank-%" SCNu64 "-of-%" SCNu64 ".checkpoint", &n->position,
               &n->rank, &n->ranks) != 3)
        return false;
    name_write(n, again);
    return !strcmp(text, again) && n->ranks > 0 && n->rank < n->ranks;
}

/* ---- writing ---- */

static int write_all(int fd, const void *data, size_t bytes) {
    const char *at = data;
    while (bytes) {
        const ssize_t wrote = write(fd, at, bytes);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return wrote < 0 ? errno : EIO;
        at += wrote;
        bytes -= (size_t)wrote;
    }
    return 0;
}

static int write_parts(int fd, const cinch_checkpoint_head *head, const void *state,
                       const void *feedback) {
    const struct {
        const void *data;
        size_t bytes;
    } part[] = {{head, sizeof *head}, {state, head->state_bytes}, {feedback, head->feedback_bytes}};
    uint32_t crc = 0;
    int err = 0;
    for (int i = 0; i < 3 && !err; i++) {
        crc = cinch_crc32c(crc, part[i].data, part[i].bytes);
        err = write_all(fd, part[i].data, part[i].bytes);
    }
    return err ? err : write_all(fd, &crc, sizeof crc);
}

/* The file under its working name, on the disk. 0 or errno. */
static int write_file(int dir, const char *name, const cinch_checkpoint_head *head,
                      const void *state, const void *feedback) {
    if (unlinkat(dir, name, 0) != 0 && errno != ENOENT) return errno; /* what a crash has left */
    const int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return errno;
    int err = write_parts(fd, head, state, feedback);
    if (!err && fsync(fd) != 0) err = errno;
    if (close(fd) != 0 && !err) err = errno;
    return err;
}

cinchResult_t cinch_checkpoint_write(const char *folder, cinch_checkpoint_head *head,
                                     const void *state, const void *feedback) {
    char name[NAME_ROOM], working[NAME_ROOM];
    name_write(&(file_name){head->position, head->rank, head->ranks}, name);
    snprintf(working, sizeof working, "rank-%" PRIu64 "-of-%" PRIu64 ".unfinished", head->rank,
             head->ranks);
    memcpy(head->magic, MAGIC, sizeof MAGIC);
    head->head_bytes = sizeof *head;

    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return cinch_fail_errno(errno, "the folder %s cannot be made", folder);
    const int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return cinch_fail_errno(errno, "the folder %s cannot be opened", folder);
    int err = write_file(dir, working, head, state, feedback);
    if (!err && renameat(dir, working, dir, name) != 0) err = errno;
    if (err) unlinkat(dir, working, 0);
    if (!err && fsync(dir) != 0) err = errno;
    close(dir);
    return err ? cinch_fail_errno(err, "the checkpoint %s/%s cannot be written", folder, name)
               : cinchSuccess;
}

/* ---- reading ---- */

/* A name of the folder as "FOLDER/NAME" begins every sentence. */
static cinchResult_t wrong(const char *folder, const char *name, const char *what) {
    return cinch_fail_quiet(cinchInvalidUsage, "the checkpoint %.200s/%s %s", folder, name, what);
}

/* The whole file, on the heap; *err and NULL where that cannot be. */
static unsigned char *read_file(const char *folder, const char *name, size_t *bytes, int *err) {
    struct stat about;
    unsigned char *data = NULL;
    size_t got = 0;
    *err = 0;
    const int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int fd = dir < 0 ? -1 : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &about) != 0) *err = errno;
    if (!*err && !S_ISREG(about.st_mode)) *err = EINVAL;
    if (!*err && !(data = malloc((size_t)about.st_size + 1))) *err = ENOMEM;
    while (!*err && got < (size_t)about.st_size) {
        const ssize_t more = read(fd, data + got, (size_t)about.st_size - got);
        if (more < 0 && errno == EINTR) continue;
        if (more < 0) *err = errno;
        if (more <= 0) break;
        got += (size_t)more;
    }
    if (fd >= 0) close(fd);
    if (dir >= 0) close(dir);
    *bytes = got;
    if (!*err) return data;
    free(data);
    return NULL;
}

/* Whether the bytes are one whole file of ours. */
static bool is_whole(const unsigned char *data, size_t bytes) {
    const cinch_checkpoint_head *head = (const void *)data;
    uint32_t crc;
    if (bytes < sizeof *head + CRC_BYTES) return false;
    const size_t rest = bytes - sizeof *head - CRC_BYTES;
    if (head->head_bytes != sizeof *head || head->state_bytes > rest ||
        head->feedback_bytes != rest - head->state_bytes)
        return false;
    memcpy(&crc, data + bytes - CRC_BYTES, sizeof crc);
    return crc == cinch_crc32c(0, data, bytes - CRC_BYTES);
}

static bool ended(const char *text, size_t room) {
    return memchr(text, '\0', room) != NULL;
}

/* That the file goes on with the job. Each difference is said with both values. */
static cinchResult_t compare(const char *folder, const char *name, const cinch_checkpoint_head *is,
                             const cinch_checkpoint_head *want) {
    const struct {
        const char *what;
        uint64_t is, want;
    } number[] = {{"ranks", is->ranks, want->ranks},
                  {"as its rank", is->rank, want->rank},
                  {"as its seed", is->seed, want->seed},
                  {"steps a run", is->steps, want->steps},
                  {"bytes of text", is->text_bytes, want->text_bytes},
                  {"as its text's hash", is->text_hash, want->text_hash},
                  {"as its position", is->position, want->position},
                  {"bytes of model and results", is->state_bytes, want->state_bytes}};
    char clause[300];
    if (!ended(is->model, sizeof is->model) || !ended(is->codecs, sizeof is->codecs))
        return wrong(folder, name, "is damaged: a text in it has no end");
    const struct {
        const char *what, *is, *want;
    } text[] = {{"model", is->model, want->model}, {"codecs", is->codecs, want->codecs}};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        if (!strcmp(text[i].is, text[i].want)) continue;
        snprintf(clause, sizeof clause, "is of the %s \"%.110s\", and this run's is \"%.110s\"",
                 text[i].what, text[i].is, text[i].want);
        return wrong(folder, name, clause);
    }
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        if (number[i].is == number[i].want) continue;
        snprintf(clause, sizeof clause, "has %" PRIu64 " %s, and this run has %" PRIu64,
                 number[i].is, number[i].what, number[i].want);
        return wrong(folder, name, clause);
    }
    return cinchSuccess;
}

cinchResult_t cinch_checkpoint_read(const char *folder, const cinch_checkpoint_head *want,
                                    uint64_t position, cinch_checkpoint *out) {
    char name[NAME_ROOM], clause[160];
    size_t bytes;
    int err;
    cinch_checkpoint_head expected = *want;
    expected.position = position;
    memset(out, 0, sizeof *out);
    name_write(&(file_name){position, want->rank, want->ranks}, name);
    unsigned char *data = read_file(folder, name, &bytes, &err);
    if (!data) {
        snprintf(clause, sizeof clause, "cannot be read: %s", strerror(err));
        return wrong(folder, name, clause);
    }
    cinchResult_t result = cinchSuccess;
    if (bytes < sizeof MAGIC || memcmp(data, MAGIC, sizeof MAGIC) != 0)
        result = wrong(folder, name, "is no checkpoint of this version, or damaged at its start");
    else if (!is_whole(data, bytes))
        result = wrong(folder, name, "is damaged: its length or checksum is not what it says");
    if (result == cinchSuccess) {
        memcpy(&out->head, data, sizeof out->head);
        result = compare(folder, name, &out->head, &expected);
    }
    if (result != cinchSuccess) {
        free(data);
        return result;
    }
    out->memory = data;
    out->state = data + sizeof out->head;
    out->feedback = data + sizeof out->head + out->head.state_bytes;
    return cinchSuccess;
}

void cinch_checkpoint_free(cinch_checkpoint *checkpoint) {
    free(checkpoint->memory);
    *checkpoint = (cinch_checkpoint){0};
}

/* ---- the folder ---- */

static void keep_newest(cinch_checkpoint_list *list, uint64_t position) {
    int at = 0;
    while (at < list->count && list->position[at] > position) at++;
    if (at == CINCH_CHECKPOINT_KEPT) return;
    if (list->count < CINCH_CHECKPOINT_KEPT) list->count++;
    for (int i = list->count - 1; i > at; i--) list->position[i] = list->position[i - 1];
    list->position[at] = position;
}

cinchResult_t cinch_checkpoint_find(const char *folder, uint64_t rank, uint64_t ranks,
                                    cinch_checkpoint_list *list) {
    file_name name;
    const struct dirent *entry;
    *list = (cinch_checkpoint_list){0};
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT) return cinchSuccess;
    if (!dir)
        return cinch_fail_quiet(cinchInvalidUsage, "the folder %.300s cannot be read: %s", folder,
                                strerror(errno));
    while ((entry = readdir(dir))) {
        if (!name_read(entry->d_name, &name)) continue;
        if (name.ranks != ranks)
            list->others = name.ranks;
        else if (name.rank == rank)
            keep_newest(list, name.position);
    }
    closedir(dir);
    return cinchSuccess;
}

void cinch_checkpoint_sweep(const char *folder, uint64_t rank, uint64_t ranks, uint64_t position) {
    file_name name;
    const struct dirent *entry;
    DIR *dir = opendir(folder);
    while (dir && (entry = readdir(dir))) {
        if (!name_read(entry->d_name, &name)) continue;
        if (name.ranks == ranks ? name.rank == rank && name.position < position
                                : name.position <= position)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir) closedir(dir);
}
