/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines: one table per command makes the parser and the --help text. */
#include "perf/options.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/settings.h"
#include "base/status.h"

enum { OPTIONS_MOST = 40, LONG_BASE = 256, LONG_HELP = LONG_BASE + OPTIONS_MOST };

int cinch_usage(const cinch_command *command, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s: %s\n", command->name, text);
    return 2;
}

void cinch_say_failure(const cinch_command *command) {
    const char *file = cinch_environment("CINCH_DEBUG_FILE");
    if (cinch_log_threshold >= CINCH_LOG_ERROR && (!file || !file[0])) return;
    cinch_usage(command, "%s", cinch_last_error());
}

static void print_help(const cinch_command *command) {
    printf("usage: %s %s\n%s\n", command->name, command->usage, command->about);
    for (const cinch_option *o = command->table; o->letter || o->name; o++) {
        if (!o->help) continue;
        char left[64];
        int used = snprintf(left, sizeof left, o->letter ? "  -%c" : "  ", o->letter);
        if (o->name)
            used += snprintf(left + used, sizeof left - (size_t)used, "%s--%s",
                             o->letter ? ", " : "", o->name);
        if (o->value) snprintf(left + used, sizeof left - (size_t)used, " %s", o->value);
        printf("%-26s %s\n", left, o->help);
    }
    printf("%-26s %s\n", "  -h, --help", "this text");
}

/* The tables that getopt_long wants. Long options answer LONG_BASE + index, so that an error can be
 * told from a letter. */
static void getopt_tables(const cinch_command *command, char *letters, struct option *longs) {
    int n = 0;
    if (command->stop_early) *letters++ = '+';
    *letters++ = ':';
    *letters++ = 'h';
    for (int i = 0; command->table[i].letter || command->table[i].name; i++) {
        const cinch_option *o = &command->table[i];
        if (o->letter) {
            *letters++ = o->letter;
            if (o->value) *letters++ = ':';
        }
        if (o->name)
            longs[n++] = (struct option){o->name, o->value ? required_argument : no_argument, NULL,
                                         LONG_BASE + i};
    }
    longs[n++] = (struct option){"help", no_argument, NULL, LONG_HELP};
    longs[n] = (struct option){0};
    *letters = '\0';
}

int cinch_option_next(const cinch_command *command, int argc, char **argv, const char **value) {
    char letters[2 * OPTIONS_MOST + 4];
    struct option longs[OPTIONS_MOST + 2];
    getopt_tables(command, letters, longs);
    opterr = 0;
    int key = getopt_long(argc, argv, letters, longs, NULL);
    *value = optarg;
    if (key == -1) return CINCH_OPTION_END;
    if (key == 'h' || key == LONG_HELP) {
        print_help(command);
        return CINCH_OPTION_HELP;
    }
    if (key == ':') {
        cinch_usage(command, "%s wants a value; --help says which", argv[optind - 1]);
        return CINCH_OPTION_BAD;
    }
    if (key == '?') {
        if (optopt > 0 && optopt < LONG_BASE)
            cinch_usage(command, "unknown option -%c; --help lists what is accepted", optopt);
        else if (optopt)
            cinch_usage(command, "%s takes no value", argv[optind - 1]);
        else
            cinch_usage(command, "unknown option %s; --help lists what is accepted",
                        argv[optind - 1]);
        return CINCH_OPTION_BAD;
    }
    int index = key - LONG_BASE;
    if (index < 0)
        for (index = 0; command->table[index].letter != key; index++) continue;
    const cinch_option *o = &command->table[index];
    if (!o->help) {
        cinch_usage(command, "--%s: known, not in this version", o->name);
        return CINCH_OPTION_BAD;
    }
    return index;
}

bool cinch_option_count(const cinch_command *command, const char *option, const char *text,
                        int64_t least, int64_t most, int64_t *value) {
    int64_t v;
    if (cinch_parse_count(text, &v) && v >= least && v <= most) {
        *value = v;
        return true;
    }
    if (most == INT64_MAX)
        cinch_usage(command, "%s \"%s\": accepted is a whole number from %" PRId64 " on", option,
                    text, least);
    else
        cinch_usage(command, "%s \"%s\": accepted is a whole number from %" PRId64 " to %" PRId64,
                    option, text, least, most);
    return false;
}

bool cinch_option_size(const cinch_command *command, const char *option, const char *text,
                       uint64_t *bytes) {
    if (cinch_parse_size(text, bytes)) return true;
    cinch_usage(command,
                "%s \"%s\": accepted is a number of bytes, with K, M or G behind it or not", option,
                text);
    return false;
}

static bool name_in(const char *const *names, const char *text, int *index) {
    for (int i = 0; names && names[i]; i++)
        if (!strcmp(names[i], text)) {
            *index = i;
            return true;
        }
    return false;
}

bool cinch_option_choice(const cinch_command *command, const char *option, const char *text,
                         const char *const *names, const char *const *later, int *index) {
    int ignored;
    if (name_in(names, text, index)) return true;
    if (name_in(later, text, &ignored)) {
        cinch_usage(command, "%s %s: known, not in this version", option, text);
        return false;
    }
    char list[512] = "";
    size_t used = 0;
    for (int i = 0; names[i] && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    cinch_usage(command, "%s \"%s\": accepted is one of %s", option, text, list);
    return false;
}

bool cinch_list_next(const char **cursor, char *item, unsigned room) {
    if (!*cursor) return false;
    size_t length = strcspn(*cursor, ",");
    snprintf(item, room, "%.*s", (int)length, *cursor);
    *cursor = (*cursor)[length] ? *cursor + length + 1 : NULL;
    return true;
}
