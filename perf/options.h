/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines: one table per command makes the parser and the --help text. */
#ifndef CINCH_PERF_OPTIONS_H_
#define CINCH_PERF_OPTIONS_H_

#include <stdbool.h>
#include <stdint.h>

typedef struct cinch_option {
    char letter;       /* 0: none */
    const char *name;  /* the long name without its dashes; NULL: none */
    const char *value; /* what the help calls its value; NULL: it takes none */
    const char *help;  /* NULL: known, not in this version: refused by name, not in the help */
} cinch_option;

typedef struct cinch_command {
    const char *name;          /* "cinch perf": begins every message */
    const char *usage;         /* what follows the name in the help's first line */
    const char *about;         /* a sentence or a few lines, with the last newline */
    const cinch_option *table; /* ends with an entry of zeros */
    bool stop_early;           /* options end at the first operand, as for a command to be run */
} cinch_command;

#define CINCH_OPTION_END (-1)  /* no options are left; operands begin at argv[optind] */
#define CINCH_OPTION_HELP (-2) /* --help or -h: the text was printed */
#define CINCH_OPTION_BAD (-3)  /* a sentence was printed: exit with status 2 */

/* The next option's index in the table and its value, or one of the above. Set optind to 0 before
 * the first call. */
int cinch_option_next(const cinch_command *command, int argc, char **argv, const char **value);

/* Prints "NAME: sentence" to stderr; returns 2, the exit status of bad usage. */
int cinch_usage(const cinch_command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Prints the sentence behind the library's last failure, unless the log has put it on stderr. */
void cinch_say_failure(const cinch_command *command);

/* These read an option's value. On failure they print a sentence that names the option, the value
 * and what is accepted, and return false. `option` is as the user knows it: "-n". */
bool cinch_option_count(const cinch_command *command, const char *option, const char *text,
                        int64_t least, int64_t most, int64_t *value);
bool cinch_option_size(const cinch_command *command, const char *option, const char *text,
                       uint64_t *bytes);

/* One of names (ends with NULL), as its index. later: names that are known, not in this version
 * (ends with NULL), or NULL. */
bool cinch_option_choice(const cinch_command *command, const char *option, const char *text,
                         const char *const *names, const char *const *later, int *index);

/* The next item of a comma-separated list: copies what stands at *cursor into item (room bytes, cut
 * where it does not fit) and moves the cursor behind it; false at the end. */
bool cinch_list_next(const char **cursor, char *item, unsigned room);

#endif
