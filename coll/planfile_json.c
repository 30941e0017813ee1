/* SPDX-License-Identifier: Apache-2.0 */
/* Plan files as text: JSON by Jansson, every field checked. */
#include "coll/planfile.h"

#ifdef CINCH_HAS_JANSSON

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coll/algo.h"

enum { VERSION = 1, DIGITS = 9 };

/* ---- reading ---- */

typedef struct reader {
    const char *name;
    cinch_tuned *tuned;
    char place[64]; /* "curves[3].points[2]" */
} reader;

static cinchResult_t wrong(const reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
static cinchResult_t wrong(const reader *r, const char *format, ...) {
    char clause[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(clause, sizeof clause, format, arguments);
    va_end(arguments);
    return cinch_fail(cinchInvalidArgument, "%.200s: %s%s%s", r->name, r->place,
                      r->place[0] ? ": " : "", clause);
}

static void at(reader *r, const char *field, size_t index) {
    snprintf(r->place, sizeof r->place, "%s[%zu]", field, index);
}

/* Copies a string of the object. */
static cinchResult_t take_text(const reader *r, const json_t *object, const char *key, char *text,
                               size_t room) {
    const json_t *value = json_object_get(object, key);
    const char *string = json_string_value(value);
    if (!string) return wrong(r, "\"%s\" is no string", key);
    size_t length = json_string_length(value);
    if (length >= room)
        return wrong(r, "\"%s\" has %zu bytes, and at most %zu are accepted", key, length,
                     room - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)string[i] < 0x20) return wrong(r, "\"%s\" has a control character", key);
    memcpy(text, string, length + 1);
    return cinchSuccess;
}

/* A number of the object; what is not there stays as it is. */
static cinchResult_t take_number(const reader *r, const json_t *object, const char *key,
                                 double *number) {
    const json_t *value = json_object_get(object, key);
    if (!value) return cinchSuccess;
    *number = json_number_value(value);
    if (!json_is_number(value) || *number < 0 || *number > 1e15)
        return wrong(r, "\"%s\" is no number from 0 to 1e15", key);
    return cinchSuccess;
}

/* An array of the object, or NULL where there is none; too many items are an error. */
static cinchResult_t take_array(const reader *r, const json_t *object, const char *key, size_t most,
                                json_t **array) {
    *array = json_object_get(object, key);
    if (!*array) return cinchSuccess;
    if (!json_is_array(*array)) return wrong(r, "\"%s\" is no array", key);
    if (json_array_size(*array) > most)
        return wrong(r, "\"%s\" has %zu items, and at most %zu are accepted", key,
                     json_array_size(*array), most);
    return cinchSuccess;
}

static cinchResult_t read_head(reader *r, const json_t *root) {
    const json_t *version = json_object_get(root, "cinch_plans");
    const json_t *ranks = json_object_get(root, "ranks");
    if (!json_is_integer(version))
        return wrong(r, "no plan file: it has no number \"cinch_plans\"");
    if (json_integer_value(version) != VERSION)
        return wrong(r, "\"cinch_plans\" is %lld, and this version reads %d",
                     (long long)json_integer_value(version), VERSION);
    if (!json_is_integer(ranks) || json_integer_value(ranks) < 1 ||
        json_integer_value(ranks) > CINCH_PLANFILE_MOST_RANKS)
        return wrong(r, "\"ranks\" is no whole number from 1 to %d", CINCH_PLANFILE_MOST_RANKS);
    r->tuned->ranks = (int)json_integer_value(ranks);
    return take_text(r, root, "machine", r->tuned->machine, sizeof r->tuned->machine);
}

/* Hosts are numbered by their first ranks. */
static cinchResult_t read_hosts(reader *r, const json_t *root) {
    json_t *array;
    cinch_tuned *t = r->tuned;
    CINCH_TRY(take_array(r, root, "hosts", CINCH_PLANFILE_MOST_RANKS, &array));
    if (json_array_size(array) != (size_t)t->ranks)
        return wrong(r, "\"hosts\" has %zu items for %d ranks", json_array_size(array), t->ranks);
    t->host = calloc((size_t)t->ranks, sizeof *t->host);
    if (!t->host) return cinch_fail(cinchSystemError, "out of memory for %d ranks", t->ranks);
    for (int i = 0; i < t->ranks; i++) {
        const json_t *host = json_array_get(array, (size_t)i);
        json_int_t h = json_integer_value(host);
        at(r, "hosts", (size_t)i);
        if (!json_is_integer(host) || h < 0 || h > t->hosts)
            return wrong(r, "no whole number from 0 to %d, the next host", t->hosts);
        t->host[i] = (uint16_t)h;
        t->hosts += h == t->hosts;
    }
    r->place[0] = '\0';
    return cinchSuccess;
}

static cinchResult_t read_links(reader *r, const json_t *root) {
    const json_t *links = json_object_get(root, "links");
    cinch_tuned *t = r->tuned;
    if (links && !json_is_object(links)) return wrong(r, "\"links\" is no object");
    CINCH_TRY(take_number(r, links, "shm_alpha_us", &t->shm_alpha_us));
    CINCH_TRY(take_number(r, links, "shm_gbps", &t->shm_gbps));
    return take_number(r, links, "net_alpha_us", &t->net_alpha_us);
}

static cinchResult_t join_lines(reader *r, json_t *array, char **text, size_t *length) {
    size_t room = 1, used = 0, i;
    json_t *line;
    json_array_foreach(array, i, line) {
        at(r, "graph", i);
        if (!json_is_string(line)) return wrong(r, "no string");
        room += json_string_length(line) + 1;
    }
    r->place[0] = '\0';
    *text = malloc(room);
    if (!*text) return cinch_fail(cinchSystemError, "out of memory for %zu bytes", room);
    json_array_foreach(array, i, line) {
        memcpy(*text + used, json_string_value(line), json_string_length(line));
        used += json_string_length(line);
        (*text)[used++] = '\n';
    }
    *length = used;
    return cinchSuccess;
}

static cinchResult_t read_graph(reader *r, const json_t *root) {
    json_t *array;
    char *text = NULL, name[256];
    size_t length = 0;
    CINCH_TRY(take_array(r, root, "graph", CINCH_PLANFILE_MOST_BYTES / 2, &array));
    if (json_array_size(array) == 0) return cinchSuccess;
    CINCH_TRY(join_lines(r, array, &text, &length));
    snprintf(name, sizeof name, "%.200s: graph", r->name);
    cinchResult_t result = cinch_graph_read(&r->tuned->graph, text, length, name);
    free(text);
    CINCH_TRY(result);
    if (r->tuned->graph.gpus != r->tuned->ranks)
        return wrong(r, "\"graph\" has %d GPUs for %d ranks", r->tuned->graph.gpus,
                     r->tuned->ranks);
    return cinchSuccess;
}

static cinchResult_t read_codecs(reader *r, const json_t *root) {
    json_t *array, *item;
    size_t i, most = sizeof r->tuned->speed / sizeof *r->tuned->speed;
    CINCH_TRY(take_array(r, root, "codecs", most, &array));
    json_array_foreach(array, i, item) {
        cinch_codec_speed *speed = &r->tuned->speed[r->tuned->speeds++];
        at(r, "codecs", i);
        CINCH_TRY(take_text(r, item, "codec", speed->codec, sizeof speed->codec));
        CINCH_TRY(take_number(r, item, "encode_gbps", &speed->encode_gbps));
        CINCH_TRY(take_number(r, item, "decode_gbps", &speed->decode_gbps));
    }
    r->place[0] = '\0';
    return cinchSuccess;
}

static cinchResult_t read_point(reader *r, size_t curve, size_t index, const json_t *point,
                                cinch_curve *c) {
    const json_t *bytes = json_array_get(point, 0), *us = json_array_get(point, 1);
    double time = json_number_value(us);
    snprintf(r->place, sizeof r->place, "curves[%zu].points[%zu]", curve, index);
    if (json_array_size(point) != 2) return wrong(r, "no pair of bytes and microseconds");
    json_int_t before = index ? (json_int_t)c->point[index - 1].bytes : 0;
    if (!json_is_integer(bytes) || json_integer_value(bytes) <= before)
        return wrong(r, "the bytes are no whole number above %lld, where sizes ascend",
                     (long long)before);
    if (!json_is_number(us) || !(time > 0) || time > 1e15)
        return wrong(r, "the microseconds are no number above 0 and up to 1e15");
    c->point[index].bytes = (uint64_t)json_integer_value(bytes);
    c->point[index].us = time;
    c->points++;
    return cinchSuccess;
}

static cinchResult_t read_curve(reader *r, size_t index, const json_t *item) {
    cinch_curve *c;
    json_t *points, *point;
    size_t i;
    char op[24], algo[sizeof c->algo], codec[sizeof c->codec];
    CINCH_TRY(take_text(r, item, "op", op, sizeof op));
    CINCH_TRY(take_text(r, item, "algo", algo, sizeof algo));
    CINCH_TRY(take_text(r, item, "codec", codec, sizeof codec));
    cinch_collective collective = cinch_collective_find(op, strlen(op));
    if (collective == CINCH_COLLECTIVES) return wrong(r, "\"%s\" is no operation", op);
    if (!cinch_algo_find(collective, algo))
        return wrong(r, "\"%s\" is no algorithm of %s", algo, op);
    CINCH_TRY(take_array(r, item, "points", CINCH_CURVE_MOST, &points));
    if (json_array_size(points) == 0) return wrong(r, "it has no points");
    CINCH_TRY(cinch_tuned_curve(r->tuned, collective, algo, codec, &c));
    if (c->points) return wrong(r, "a second curve of %s by %s with codec %s", op, algo, codec);
    json_array_foreach(points, i, point) CINCH_TRY(read_point(r, index, i, point, c));
    return cinchSuccess;
}

static cinchResult_t read_all(reader *r, const json_t *root) {
    json_t *curves, *item;
    size_t i;
    CINCH_TRY(read_head(r, root));
    CINCH_TRY(read_hosts(r, root));
    CINCH_TRY(read_links(r, root));
    CINCH_TRY(read_graph(r, root));
    CINCH_TRY(read_codecs(r, root));
    CINCH_TRY(take_array(r, root, "curves", CINCH_PLANFILE_MOST_CURVES, &curves));
    json_array_foreach(curves, i, item) {
        at(r, "curves", i);
        CINCH_TRY(read_curve(r, i, item));
    }
    return cinchSuccess;
}

cinchResult_t cinch_planfile_parse(const char *text, size_t length, const char *name,
                                   cinch_tuned *tuned) {
    json_error_t error;
    reader r = {.name = name, .tuned = tuned};
    if (length > CINCH_PLANFILE_MOST_BYTES)
        return wrong(&r, "it has %zu bytes, and at most %d are accepted", length,
                     CINCH_PLANFILE_MOST_BYTES);
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!root) return wrong(&r, "line %d, column %d: %s", error.line, error.column, error.text);
    cinchResult_t result = read_all(&r, root);
    json_decref(root);
    if (result != cinchSuccess) cinch_tuned_free(tuned);
    return result;
}

/* ---- writing ---- */

/* Writes a value, which it takes over; false where there is none or memory ran out. */
static bool put(FILE *to, json_t *value) {
    char *text =
        value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(DIGITS))
              : NULL;
    bool good = text && fputs(text, to) >= 0;
    free(text);
    json_decref(value);
    return good;
}

static bool put_field(FILE *to, const char *key, json_t *value) {
    fprintf(to, ",\n\"%s\":", key);
    return put(to, value);
}

/* What an array's items are written behind. */
static void put_comma(FILE *to, size_t index) {
    fputs(index ? ",\n " : "\n ", to);
}

/* Appends the item, which it takes over; an array without it is none. */
static json_t *append(json_t *array, json_t *item) {
    if (array && json_array_append_new(array, item) == 0) return array;
    json_decref(array);
    return NULL;
}

static json_t *hosts_of(const cinch_tuned *t) {
    json_t *array = json_array();
    for (int i = 0; array && i < t->ranks; i++)
        array = append(array, json_integer(t->host ? t->host[i] : 0));
    return array;
}

static json_t *points_of(const cinch_curve *c) {
    json_t *array = json_array();
    for (int i = 0; array && i < c->points; i++)
        array = append(array, json_pack("[I,f]", (json_int_t)c->point[i].bytes, c->point[i].us));
    return array;
}

static bool put_graph(FILE *to, const cinch_graph *graph) {
    char *text = NULL, *rest = NULL;
    size_t length = 0, lines = 0;
    FILE *memory = open_memstream(&text, &length);
    if (!memory) return false;
    bool good = cinch_graph_write(graph, memory) == cinchSuccess;
    good = fclose(memory) == 0 && good;
    for (char *line = good ? strtok_r(text, "\n", &rest) : NULL; line && good;
         line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#') continue;
        put_comma(to, lines++);
        good = put(to, json_string(line));
    }
    free(text);
    return good;
}

static bool put_all(FILE *to, const cinch_tuned *t) {
    fprintf(to, "{\"cinch_plans\":%d", VERSION);
    bool good = put_field(to, "release", json_string(CINCH_RELEASE)) &&
                put_field(to, "machine", json_string(t->machine)) &&
                put_field(to, "ranks", json_integer(t->ranks)) &&
                put_field(to, "hosts", hosts_of(t)) &&
                put_field(to, "links",
                          json_pack("{s:f,s:f,s:f}", "shm_alpha_us", t->shm_alpha_us, "shm_gbps",
                                    t->shm_gbps, "net_alpha_us", t->net_alpha_us));
    fputs(",\n\"graph\":[", to);
    good = good && put_graph(to, &t->graph);
    fputs("],\n\"codecs\":[", to);
    for (int i = 0; i < t->speeds && good; i++) {
        const cinch_codec_speed *s = &t->speed[i];
        put_comma(to, (size_t)i);
        good = put(to, json_pack("{s:s,s:f,s:f}", "codec", s->codec, "encode_gbps", s->encode_gbps,
                                 "decode_gbps", s->decode_gbps));
    }
    fputs("],\n\"curves\":[", to);
    size_t written = 0;
    for (int i = 0; i < t->curves && good; i++) {
        const cinch_curve *c = &t->curve[i];
        if (!c->points) continue;
        put_comma(to, written++);
        good = put(to, json_pack("{s:s,s:s,s:s,s:o}", "op", cinch_shape_of(c->collective)->name,
                                 "algo", c->algo, "codec", c->codec, "points", points_of(c)));
    }
    fputs("]}\n", to);
    return good;
}

cinchResult_t cinch_planfile_text(const cinch_tuned *tuned, char **text, size_t *length) {
    *text = NULL;
    FILE *to = open_memstream(text, length);
    if (!to) return cinch_fail(cinchSystemError, "out of memory for a plan file");
    bool good = put_all(to, tuned);
    if (fclose(to) == 0 && good) return cinchSuccess;
    free(*text);
    *text = NULL;
    return cinch_fail(cinchInvalidArgument,
                      "the plans cannot be written: a number in them is not finite, a name is no "
                      "UTF-8, or there is no memory");
}

#else

static cinchResult_t none(void) {
    return cinch_fail(
        cinchInvalidUsage,
        "this build of cinch has no Jansson: plan files are neither read nor written");
}

cinchResult_t cinch_planfile_parse(const char *text, size_t length, const char *name,
                                   cinch_tuned *tuned) {
    (void)text, (void)length, (void)name, (void)tuned;
    return none();
}

cinchResult_t cinch_planfile_text(const cinch_tuned *tuned, char **text, size_t *length) {
    (void)tuned, (void)text, (void)length;
    return none();
}

#endif
