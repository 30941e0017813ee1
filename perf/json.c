/* SPDX-License-Identifier: Apache-2.0 */
/* Writes JSON: one object per line, values in the order of the calls. */
#include "perf/json.h"

#include <inttypes.h>
#include <math.h>

/* Quotes and escapes; bytes above 0x7f pass as they are, as UTF-8. */
static void json_string(FILE *file, const char *text) {
    putc('"', file);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(file, "\\%c", *c);
        else if (*c == '\n')
            fputs("\\n", file);
        else if (*c < 0x20 || *c == 0x7f)
            fprintf(file, "\\u%04x", *c);
        else
            putc(*c, file);
    }
    putc('"', file);
}

static void json_key(cinch_json *json, const char *key) {
    if (json->comma) putc(',', json->file);
    json->comma = true;
    if (key) {
        json_string(json->file, key);
        putc(':', json->file);
    }
}

void cinch_json_begin(cinch_json *json, FILE *file) {
    json->file = file;
    json->comma = false;
    putc('{', file);
}

bool cinch_json_end(cinch_json *json) {
    fputs("}\n", json->file);
    return fflush(json->file) == 0 && !ferror(json->file);
}

void cinch_json_open(cinch_json *json, const char *key, char bracket) {
    json_key(json, key);
    putc(bracket, json->file);
    json->comma = false;
}

void cinch_json_close(cinch_json *json, char bracket) {
    putc(bracket, json->file);
    json->comma = true;
}

void cinch_json_text(cinch_json *json, const char *key, const char *value) {
    json_key(json, key);
    if (value)
        json_string(json->file, value);
    else
        fputs("null", json->file);
}

void cinch_json_number(cinch_json *json, const char *key, double value) {
    json_key(json, key);
    if (isfinite(value))
        fprintf(json->file, "%.9g", value);
    else
        fputs("null", json->file);
}

void cinch_json_count(cinch_json *json, const char *key, uint64_t value) {
    json_key(json, key);
    fprintf(json->file, "%" PRIu64, value);
}

void cinch_json_bool(cinch_json *json, const char *key, bool value) {
    json_key(json, key);
    fputs(value ? "true" : "false", json->file);
}

void cinch_json_null(cinch_json *json, const char *key) {
    json_key(json, key);
    fputs("null", json->file);
}
