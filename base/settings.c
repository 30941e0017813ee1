/* SPDX-License-Identifier: Apache-2.0 */
/* The settings table at work: reading the environment, comparing ranks. */
#include "base/settings.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"

extern char **environ;

/* The sixth column holds the choices of CHOICE rows and the twin of others. */
typedef struct row {
    cinch_setting_row public;
    const char *twin;
} row;

static const row rows[CINCH_SET_COUNT] = {
#define CHOICES_TEXT(c) NULL
#define CHOICES_SIZE(c) NULL
#define CHOICES_COUNT(c) NULL
#define CHOICES_LIMIT(c) NULL
#define CHOICES_FLAG(c) NULL
#define CHOICES_CHOICE(c) c
#define TWIN_TEXT(c) c
#define TWIN_SIZE(c) c
#define TWIN_COUNT(c) c
#define TWIN_LIMIT(c) c
#define TWIN_FLAG(c) c
#define TWIN_CHOICE(c) NULL
#define X(type, field, name, fallback, agree, extra, meaning)                                      \
    {{"CINCH_" name, #type, fallback, CHOICES_##type(extra), meaning, agree}, TWIN_##type(extra)},
    CINCH_SETTINGS(X)
#undef X
};

const cinch_setting_row *cinch_setting_at(int index) {
    return index >= 0 && index < CINCH_SET_COUNT ? &rows[index].public : NULL;
}

bool cinch_parse_size(const char *text, uint64_t *bytes) {
    char *end;
    if (!isdigit((unsigned char)text[0])) return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno) return false;
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (unit) end++;
    if (*end || (shift && value >> (64 - shift))) return false;
    *bytes = (uint64_t)value << shift;
    return true;
}

bool cinch_parse_count(const char *text, int64_t *value) {
    char *end;
    if (!isdigit((unsigned char)text[0])) return false;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno || *end) return false;
    *value = parsed;
    return true;
}

/* The index of text in "a|b|c", or -1. */
static int choice(const char *choices, const char *text) {
    size_t length = strlen(text);
    int index = 0;
    for (const char *c = choices; c; c = strchr(c, '|'), c = c ? c + 1 : NULL, index++)
        if (strncasecmp(c, text, length) == 0 && (c[length] == '|' || c[length] == '\0') && length)
            return index;
    return -1;
}

/* What a value of this row may be, for messages. */
static const char *accepted(const row *r) {
    if (r->public.choices) return r->public.choices;
    switch (r->public.type[0]) {
    case 'S':
        return "a size such as 65536, 64K, 16M or 1G";
    case 'L':
        return "off or a number above 0";
    case 'F':
        return "0 or 1";
    default:
        return "a whole number from 0";
    }
}

static bool parse_TEXT(const row *r, const char *text, char **out) {
    (void)r;
    *out = strdup(text);
    return *out != NULL;
}
static bool parse_SIZE(const row *r, const char *text, uint64_t *out) {
    (void)r;
    return cinch_parse_size(text, out);
}
static bool parse_COUNT(const row *r, const char *text, int64_t *out) {
    (void)r;
    if (!text[0]) {
        *out = -1;
        return true;
    }
    return cinch_parse_count(text, out);
}
static bool parse_LIMIT(const row *r, const char *text, double *out) {
    char *end;
    (void)r;
    *out = 0;
    if (strcmp(text, "off") == 0) return true;
    if (!isdigit((unsigned char)text[0]) && text[0] != '.') return false;
    double value = strtod(text, &end);
    if (*end || !isfinite(value) || value <= 0) return false;
    *out = value;
    return true;
}
static bool parse_FLAG(const row *r, const char *text, bool *out) {
    (void)r;
    *out = text[0] == '1';
    return (text[0] == '0' || text[0] == '1') && !text[1];
}
static bool parse_CHOICE(const row *r, const char *text, int *out) {
    int index = choice(r->public.choices, text);
    if (index >= 0) *out = index;
    return index >= 0;
}

/* NCCL_DEBUG and NCCL_SOCKET_FAMILY have other spellings than ours. */
static const char *choice_twin(int index, const char **source) {
    const char *value = NULL;
    if (index == CINCH_SET_debug && (value = getenv(*source = "NCCL_DEBUG")))
        return strcasecmp(value, "VERSION") == 0 ? "warn"
               : strcasecmp(value, "ABORT") == 0 ? "error"
                                                 : value;
    if (index == CINCH_SET_socket_family) value = getenv(*source = "NCCL_SOCKET_FAMILY");
    return value;
}

/* The text to parse and where it came from. */
static const char *find(int index, const char **source) {
    const row *r = &rows[index];
    const char *value = getenv(r->public.name);
    *source = "environment";
    if (value && (value[0] || r->public.type[0] == 'T')) return value;
    value = r->twin ? getenv(*source = r->twin) : choice_twin(index, source);
    if (value && value[0]) return value;
    *source = "default";
    return r->public.fallback;
}

static size_t distance(const char *a, const char *b) {
    size_t n = strlen(b), row_[64];
    if (n >= 63) return n;
    for (size_t j = 0; j <= n; j++) row_[j] = j;
    for (size_t i = 1; *a; a++, i++) {
        size_t corner = row_[0];
        row_[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = corner + (*a != b[j - 1]);
            if (row_[j] + 1 < best) best = row_[j] + 1;
            if (row_[j - 1] + 1 < best) best = row_[j - 1] + 1;
            corner = row_[j];
            row_[j] = best;
        }
    }
    return row_[n];
}

static void warn_unknown(void) {
    for (char **e = environ; e && *e; e++) {
        if (strncmp(*e, "CINCH_", 6) != 0) continue;
        char name[64];
        size_t length = strcspn(*e, "=");
        if (length >= sizeof name) length = sizeof name - 1;
        memcpy(name, *e, length);
        name[length] = '\0';
        const char *nearest = NULL;
        size_t best = (size_t)-1;
        for (int i = 0; i < CINCH_SET_COUNT; i++) {
            size_t d = distance(name, rows[i].public.name);
            if (d < best) best = d, nearest = rows[i].public.name;
        }
        if (best == 0) continue;
        /* Names of later versions: known, so no spelling is suggested for them. */
        if (strncmp(name, "CINCH_IB_", 9) == 0)
            cinch_warn("%s is known, but not in this version: it has no effect", name);
        else
            cinch_warn("%s is no setting: the nearest is %s", name, nearest);
    }
}

bool cinch_settings_load(cinch_settings *out, char why[CINCH_ERROR_TEXT]) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    bool good = true;
    memset(out, 0, sizeof *out);
#define X(type, field, ...)                                                                        \
    {                                                                                              \
        const row *r = &rows[CINCH_SET_##field];                                                   \
        const char *text = find(CINCH_SET_##field, &out->source[CINCH_SET_##field]);               \
        if (!parse_##type(r, text, &out->field)) {                                                 \
            if (good)                                                                              \
                snprintf(why, CINCH_ERROR_TEXT, "%s=%s: %s is accepted", r->public.name, text,     \
                         accepted(r));                                                             \
            good = false;                                                                          \
            parse_##type(r, text = r->public.fallback, &out->field);                               \
        }                                                                                          \
        out->value[CINCH_SET_##field] = strdup(text);                                              \
    }
    CINCH_SETTINGS(X)
#undef X
    int err = cinch_log_setup((cinch_log_level)out->debug, out->debug_file);
    if (err && good) {
        snprintf(why, CINCH_ERROR_TEXT,
                 "CINCH_DEBUG_FILE=%.300s: %s; a file that can be written "
                 "is accepted",
                 out->debug_file, strerror(err));
        good = false;
    }
    pthread_once(&once, warn_unknown);
    return good;
}

void cinch_settings_free(cinch_settings *settings) {
#define FREE_TEXT(p) free(p)
#define FREE_SIZE(p) (void)(p)
#define FREE_COUNT(p) (void)(p)
#define FREE_LIMIT(p) (void)(p)
#define FREE_FLAG(p) (void)(p)
#define FREE_CHOICE(p) (void)(p)
#define X(type, field, ...) FREE_##type(settings->field);
    CINCH_SETTINGS(X)
#undef X
    for (int i = 0; i < CINCH_SET_COUNT; i++) free(settings->value[i]);
    memset(settings, 0, sizeof *settings);
}

size_t cinch_settings_agreed(const cinch_settings *settings, char *text, size_t room) {
    size_t used = 0;
    if (room) text[0] = '\0';
    for (int i = 0; i < CINCH_SET_COUNT; i++) {
        if (!rows[i].public.agree) continue;
        int wrote = snprintf(used < room ? text + used : NULL, used < room ? room - used : 0,
                             "%s=%s\n", rows[i].public.name, settings->value[i]);
        used += (size_t)wrote;
    }
    return used + 1;
}

/* Whether two lines NAME=value, of these lengths, say the same in different spellings. */
static bool same_meaning(const char *a, size_t length_a, const char *b, size_t length_b) {
    char text_a[64], text_b[64];
    size_t name = strcspn(a, "=\n") + 1;
    if (length_a < name || length_b < name || memcmp(a, b, name) != 0) return false;
    if (length_a - name >= sizeof text_a || length_b - name >= sizeof text_b) return false;
    snprintf(text_a, sizeof text_a, "%.*s", (int)(length_a - name), a + name);
    snprintf(text_b, sizeof text_b, "%.*s", (int)(length_b - name), b + name);
    for (int i = 0; i < CINCH_SET_COUNT; i++) {
        const row *r = &rows[i];
        uint64_t size_a, size_b;
        int64_t count_a, count_b;
        double limit_a, limit_b;
        if (strncmp(r->public.name, a, name - 1) != 0 || r->public.name[name - 1]) continue;
        if (r->public.choices)
            return choice(r->public.choices, text_a) == choice(r->public.choices, text_b);
        if (strcmp(r->public.type, "SIZE") == 0)
            return parse_SIZE(r, text_a, &size_a) && parse_SIZE(r, text_b, &size_b) &&
                   size_a == size_b;
        if (strcmp(r->public.type, "LIMIT") == 0)
            return parse_LIMIT(r, text_a, &limit_a) && parse_LIMIT(r, text_b, &limit_b) &&
                   limit_a == limit_b;
        if (strcmp(r->public.type, "COUNT") == 0)
            return parse_COUNT(r, text_a, &count_a) && parse_COUNT(r, text_b, &count_b) &&
                   count_a == count_b;
    }
    return false;
}

bool cinch_settings_compare(const char *text_a, int a, const char *text_b, int b,
                            char why[CINCH_ERROR_TEXT]) {
    while (*text_a || *text_b) {
        size_t length_a = strcspn(text_a, "\n"), length_b = strcspn(text_b, "\n");
        bool same = length_a == length_b && memcmp(text_a, text_b, length_a) == 0;
        if (!same && !same_meaning(text_a, length_a, text_b, length_b)) {
            size_t name = strcspn(text_a, "=\n");
            snprintf(why, CINCH_ERROR_TEXT,
                     "the ranks' settings differ: %.*s on rank %d, %.*s on rank %d", (int)length_a,
                     text_a, a, length_b > name ? (int)length_b : 0, text_b, b);
            return false;
        }
        text_a += length_a + (text_a[length_a] != '\0');
        text_b += length_b + (text_b[length_b] != '\0');
    }
    return true;
}

const char *cinch_environment(const char *name) {
    return getenv(name);
}
