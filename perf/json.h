/* SPDX-License-Identifier: Apache-2.0 */
/* Writes JSON: one object per line, values in the order of the calls. */
#ifndef CINCH_PERF_JSON_H_
#define CINCH_PERF_JSON_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct cinch_json {
    FILE *file;
    bool comma; /* a value stands before, at this depth */
} cinch_json;

/* Opens the outermost object; end closes it with a newline and flushes: false where the file could
 * not take it all. */
void cinch_json_begin(cinch_json *json, FILE *file);
bool cinch_json_end(cinch_json *json);

/* Nested objects ('{') and arrays ('['). Inside an array, keys are NULL. */
void cinch_json_open(cinch_json *json, const char *key, char bracket);
void cinch_json_close(cinch_json *json, char bracket);

void cinch_json_text(cinch_json *json, const char *key, const char *value); /* NULL: null */
void cinch_json_number(cinch_json *json, const char *key, double value);    /* NaN, Inf: null */
void cinch_json_count(cinch_json *json, const char *key, uint64_t value);
void cinch_json_bool(cinch_json *json, const char *key, bool value);
void cinch_json_null(cinch_json *json, const char *key);

#endif
