/* SPDX-License-Identifier: Apache-2.0 */
/* The sentence behind a thread's last error. */
#include "base/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

static _Thread_local char last_error[CINCH_ERROR_TEXT];

static cinchResult_t record(cinchResult_t code, int err, bool quiet, const char *format,
                            va_list args) {
    char text[CINCH_ERROR_TEXT]; /* the arguments may point into last_error */
    vsnprintf(text, sizeof text, format, args);
    if (err != 0) {
        char reason[128];
        size_t used = strlen(text);
        const char *name = strerror_r(err, reason, sizeof reason);
        snprintf(text + used, sizeof text - used, ": %s", name);
    }
    memcpy(last_error, text, sizeof text);
    if (!quiet) cinch_log(CINCH_LOG_ERROR, "%s", text);
    return code;
}

cinchResult_t cinch_fail(cinchResult_t code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    code = record(code, 0, false, format, args);
    va_end(args);
    return code;
}

cinchResult_t cinch_fail_errno(int err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    cinchResult_t code = record(cinchSystemError, err, false, format, args);
    va_end(args);
    return code;
}

cinchResult_t cinch_fail_quiet(cinchResult_t code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    code = record(code, 0, true, format, args);
    va_end(args);
    return code;
}

const char *cinch_last_error(void) {
    return last_error;
}
