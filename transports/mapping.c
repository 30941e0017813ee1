/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed memory files, and the process's list of those that are mapped. */
#include "transports/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct entry {
    cinch_mapping mapping; /* first */
    struct entry *next;
    dev_t device;
    ino_t inode;
    pid_t process; /* a forked child inherits the list, and must not take its parent's entries */
    int owners;
} entry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static entry *entries;

int cinch_memfd_create(const char *name, size_t bytes) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

bool cinch_memfd_holds(int fd, size_t bytes) {
    struct stat file;
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &file) == 0 &&
           (size_t)file.st_size >= bytes;
}

static entry *find(const struct stat *file, size_t bytes) {
    entry *e = entries;
    while (e && (e->device != file->st_dev || e->inode != file->st_ino ||
                 e->mapping.bytes != bytes || e->process != getpid()))
        e = e->next;
    return e;
}

static entry *map(int fd, const struct stat *file, size_t bytes) {
    entry *fresh = malloc(sizeof *fresh);
    if (!fresh) return NULL;
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED) {
        int err = errno;
        free(fresh);
        errno = err;
        return NULL;
    }
    *fresh = (entry){{data, bytes}, entries, file->st_dev, file->st_ino, getpid(), 0};
    entries = fresh;
    return fresh;
}

cinch_mapping *cinch_mapping_open(int fd, size_t bytes) {
    struct stat file;
    if (fstat(fd, &file) != 0) return NULL;
    pthread_mutex_lock(&lock);
    entry *e = find(&file, bytes);
    if (!e) e = map(fd, &file, bytes);
    if (e) e->owners++;
    pthread_mutex_unlock(&lock);
    return e ? &e->mapping : NULL;
}

cinch_mapping *cinch_mapping_keep(cinch_mapping *mapping) {
    pthread_mutex_lock(&lock);
    ((entry *)mapping)->owners++;
    pthread_mutex_unlock(&lock);
    return mapping;
}

void cinch_mapping_drop(cinch_mapping *mapping) {
    if (!mapping) return;
    entry *e = (entry *)mapping;
    pthread_mutex_lock(&lock);
    bool last = --e->owners == 0;
    if (last) {
        entry **at = &entries;
        while (*at != e) at = &(*at)->next;
        *at = e->next;
    }
    pthread_mutex_unlock(&lock);
    if (!last) return;
    munmap(e->mapping.data, e->mapping.bytes);
    free(e);
}
