/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: "cinch[host:pid] rank 2: sentence". */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

cinch_log_level cinch_log_threshold = CINCH_LOG_WARN;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = STDERR_FILENO;
static char open_path[1024]; /* the file behind `out`, so that it is opened once */
static _Thread_local int thread_rank = -1;

void cinch_log_rank(int rank) {
    thread_rank = rank;
}

void cinch_log_path(const char *pattern, char *path, size_t room) {
    char host[64] = "host";
    gethostname(host, sizeof host - 1);
    size_t used = 0;
    for (const char *p = pattern; *p && used + 1 < room; p++) {
        int wrote = 1;
        if (p[0] == '%' && p[1] == 'h')
            wrote = snprintf(path + used, room - used, "%s", host), p++;
        else if (p[0] == '%' && p[1] == 'p')
            wrote = snprintf(path + used, room - used, "%d", (int)getpid()), p++;
        else
            path[used] = *p;
        used += (size_t)wrote;
    }
    path[used < room ? used : room - 1] = '\0';
}

int cinch_log_setup(cinch_log_level level, const char *file) {
    int err = 0;
    pthread_mutex_lock(&lock);
    __atomic_store_n(&cinch_log_threshold, level, __ATOMIC_RELAXED);
    if (file && file[0]) {
        char path[sizeof open_path];
        cinch_log_path(file, path, sizeof path);
        if (strcmp(path, open_path) != 0) {
            int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
            if (fd >= 0) {
                if (out != STDERR_FILENO) close(out);
                out = fd;
                memcpy(open_path, path, sizeof path);
            } else {
                err = errno;
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return err;
}

void cinch_log_line(cinch_log_level level, const char *format, ...) {
    static const char *const names[] = {"", "error", "warning", "info", "debug", "trace"};
    char line[1024];
    int used = snprintf(line, sizeof line, "cinch[%d]", (int)getpid());
    if (thread_rank >= 0)
        used += snprintf(line + used, sizeof line - (size_t)used, " rank %d", thread_rank);
    used += snprintf(line + used, sizeof line - (size_t)used, " %s: ", names[level]);
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(line + used, sizeof line - (size_t)used, format, args);
    va_end(args);
    size_t length = (size_t)used + (wrote > 0 ? (size_t)wrote : 0);
    if (length > sizeof line - 2) length = sizeof line - 2;
    line[length++] = '\n';
    if (write(out, line, length) < 0) return; /* nowhere left to say it */
}
