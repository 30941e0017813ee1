/* SPDX-License-Identifier: Apache-2.0 */
/* Results and the sentence behind the last error.
 *
 * The function that finds an error calls cinch_fail once; everyone above passes the code up. */
#ifndef CINCH_BASE_STATUS_H_
#define CINCH_BASE_STATUS_H_

#include "cinch/cinch.h"

/* Keeps the sentence for this thread's cinchGetLastError, logs it at level error, returns code. */
cinchResult_t cinch_fail(cinchResult_t code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* As cinch_fail with ": " and the text of errno (`err`) at the end; the code is SystemError. */
cinchResult_t cinch_fail_errno(int err, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* As cinch_fail without logging: for a sentence that another rank has logged already, or that the
 * caller may still recover from. */
cinchResult_t cinch_fail_quiet(cinchResult_t code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* This thread's last sentence, "" if none. */
const char *cinch_last_error(void);

#define CINCH_TRY(expression)                                                                      \
    do {                                                                                           \
        cinchResult_t try_result_ = (expression);                                                  \
        if (__builtin_expect(try_result_ != cinchSuccess, 0)) return try_result_;                  \
    } while (0)

#define CINCH_ERROR_TEXT 512 /* the longest sentence, with its NUL */

#endif
