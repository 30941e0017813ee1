/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines to stderr or CINCH_DEBUG_FILE, one write each. */
#ifndef CINCH_BASE_LOG_H_
#define CINCH_BASE_LOG_H_

#include <stddef.h>

typedef enum {
    CINCH_LOG_NONE,
    CINCH_LOG_ERROR,
    CINCH_LOG_WARN,
    CINCH_LOG_INFO,
    CINCH_LOG_DEBUG,
    CINCH_LOG_TRACE
} cinch_log_level;

extern cinch_log_level cinch_log_threshold;

/* Sets level and file (NULL: stderr; %h host, %p pid). Called by the settings when they load. 0, or
 * errno where the file cannot be opened: the lines then go where they went before. */
int cinch_log_setup(cinch_log_level level, const char *file);

/* Writes pattern to path with %h and %p filled in. */
void cinch_log_path(const char *pattern, char *path, size_t room);

/* Names this thread's rank in its lines; -1: none. */
void cinch_log_rank(int rank);

void cinch_log_line(cinch_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define cinch_log(level, ...)                                                                      \
    do {                                                                                           \
        if (__builtin_expect((level) <= __atomic_load_n(&cinch_log_threshold, __ATOMIC_RELAXED),   \
                             0))                                                                   \
            cinch_log_line(level, __VA_ARGS__);                                                    \
    } while (0)
#define cinch_warn(...) cinch_log(CINCH_LOG_WARN, __VA_ARGS__)
#define cinch_info(...) cinch_log(CINCH_LOG_INFO, __VA_ARGS__)
#define cinch_debug(...) cinch_log(CINCH_LOG_DEBUG, __VA_ARGS__)

#endif
