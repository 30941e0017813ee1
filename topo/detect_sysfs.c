/* SPDX-License-Identifier: Apache-2.0 */
/* Reads files and folders below the detector's root, bounded in what it takes from each. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "topo/detect_parts.h"

/* false: the path is too long to be one of sysfs. */
static bool below_root(const cinch_detector *d, const char *path,
                       char full[2 * CINCH_DETECT_PATH]) {
    int length = snprintf(full, 2 * CINCH_DETECT_PATH, "%s%s", d->root, path);
    return length > 0 && length < 2 * CINCH_DETECT_PATH;
}

bool cinch_detect_text(const cinch_detector *d, const char *path, char *text, size_t room) {
    char full[2 * CINCH_DETECT_PATH];
    struct stat status;
    text[0] = '\0';
    if (!below_root(d, path, full)) return false;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    ssize_t got = -1;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) got = read(fd, text, room - 1);
    close(fd);
    if (got < 0) return false;
    text[got] = '\0';
    size_t length = strlen(text);
    while (length > 0 && (unsigned char)text[length - 1] <= ' ') text[--length] = '\0';
    return true;
}

bool cinch_detect_file(const cinch_detector *d, const char *folder, const char *file, char *text,
                       size_t room) {
    char path[CINCH_DETECT_PATH + CINCH_DETECT_NAME];
    text[0] = '\0';
    int length = snprintf(path, sizeof path, "%s/%s", folder, file);
    return length > 0 && length < (int)sizeof path && cinch_detect_text(d, path, text, room);
}

bool cinch_detect_long(const cinch_detector *d, const char *folder, const char *file, long *value) {
    char text[64], *end;
    if (!cinch_detect_file(d, folder, file, text, sizeof text)) return false;
    errno = 0;
    long read = strtol(text, &end, 0);
    if (end == text || *end || errno) return false;
    *value = read;
    return true;
}

bool cinch_detect_there(const cinch_detector *d, const char *path) {
    char full[2 * CINCH_DETECT_PATH];
    return below_root(d, path, full) && access(full, F_OK) == 0;
}

bool cinch_detect_real(const cinch_detector *d, const char *path, char real[CINCH_DETECT_PATH]) {
    char full[2 * CINCH_DETECT_PATH], found[PATH_MAX];
    size_t root = strlen(d->root);
    real[0] = '\0';
    if (!below_root(d, path, full) || !realpath(full, found)) return false;
    /* A link that leads out of a recorded machine tells of another one. */
    if (strncmp(found, d->root, root) != 0 || strncmp(found + root, "/sys/", 5) != 0) return false;
    if (strlen(found + root) >= CINCH_DETECT_PATH) return false;
    memcpy(real, found + root, strlen(found + root) + 1);
    return true;
}

static int compare(const void *a, const void *b) {
    const char *x = a, *y = b;
    size_t n = strlen(x), m = strlen(y);
    return n != m ? (n > m) - (n < m) : strcmp(x, y);
}

cinchResult_t cinch_detect_list(const cinch_detector *d, const char *folder,
                                cinch_detect_names *names) {
    char full[2 * CINCH_DETECT_PATH];
    int room = 0;
    *names = (cinch_detect_names){0};
    DIR *dir = below_root(d, folder, full) ? opendir(full) : NULL;
    if (!dir) return cinchSuccess;
    for (struct dirent *entry; (entry = readdir(dir)) && names->names < CINCH_DETECT_MOST_FILES;) {
        size_t length = strlen(entry->d_name);
        if (entry->d_name[0] == '.' || length >= CINCH_DETECT_NAME) continue;
        if (names->names == room) {
            room = room ? 2 * room : 32;
            void *grown = realloc(names->name, (size_t)room * sizeof *names->name);
            if (!grown) {
                free(names->name);
                closedir(dir);
                *names = (cinch_detect_names){0};
                return cinch_fail(cinchSystemError, "out of memory for the files of %.200s",
                                  folder);
            }
            names->name = grown;
        }
        memcpy(names->name[names->names++], entry->d_name, length + 1);
    }
    closedir(dir);
    if (names->names > 0) qsort(names->name, (size_t)names->names, sizeof *names->name, compare);
    return cinchSuccess;
}
