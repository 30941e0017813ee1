/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a text, maps its bytes to symbols, cuts training batches and the held-out windows. */
#include "perf/train_text.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "perf/model.h"

static const char LICENCES[] = "/usr/share/common-licenses";

/* Appends a file to the text; what is beyond CINCH_TEXT_MOST is left out. */
static bool append_file(cinch_text *text, const char *path, char *why, size_t room) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(why, room, "the text %s cannot be opened: %s", path, strerror(errno));
        return false;
    }
    bool good = true;
    while (good && text->length < CINCH_TEXT_MOST) {
        enum { PIECE = 1 << 20 };
        uint8_t *grown = realloc(text->symbol, text->length + PIECE);
        if (!grown) {
            snprintf(why, room, "out of memory for the text %s", path);
            good = false;
            break;
        }
        text->symbol = grown;
        const size_t got = fread(grown + text->length, 1, PIECE, file);
        text->length += got;
        if (got < PIECE) {
            if (ferror(file)) {
                snprintf(why, room, "the text %s cannot be read: %s", path, strerror(errno));
                good = false;
            }
            break;
        }
    }
    fclose(file);
    if (text->length > CINCH_TEXT_MOST) text->length = CINCH_TEXT_MOST;
    return good;
}

static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Each licence once: the names without a version are links to the newest. */
static bool append_licences(cinch_text *text, char *why, size_t room) {
    struct dirent **entry = NULL;
    const int entries = scandir(LICENCES, &entry, NULL, by_bytes);
    bool good = entries >= 0;
    if (!good) {
        snprintf(why, room, "there are no licence texts in %s (%s): name a text with --text FILE",
                 LICENCES, strerror(errno));
    }
    for (int i = 0; i < entries; i++) {
        char path[sizeof LICENCES + 1 + sizeof entry[i]->d_name];
        struct stat about;
        snprintf(path, sizeof path, "%s/%s", LICENCES, entry[i]->d_name);
        if (good && !lstat(path, &about) && S_ISREG(about.st_mode)) {
            good = append_file(text, path, why, room);
        }
        free(entry[i]);
    }
    free(entry);
    return good;
}

static void bytes_to_symbols(cinch_text *text) {
    int symbol_of[256] = {0};
    for (size_t i = 0; i < text->length; i++) symbol_of[text->symbol[i]] = 1;
    for (int byte = 0; byte < 256; byte++) {
        if (symbol_of[byte]) symbol_of[byte] = text->vocabulary++;
    }
    for (size_t i = 0; i < text->length; i++) text->symbol[i] = (uint8_t)symbol_of[text->symbol[i]];
}

bool cinch_text_load(cinch_text *text, const char *path, char *why, size_t room) {
    *text = (cinch_text){0};
    bool good = path ? append_file(text, path, why, room) : append_licences(text, why, room);
    const char *name = path ? path : LICENCES;
    if (good && text->length < CINCH_TEXT_LEAST) {
        snprintf(why, room, "the text %s has %zu bytes: at least %d are needed", name, text->length,
                 CINCH_TEXT_LEAST);
        good = false;
    }
    if (good) bytes_to_symbols(text);
    if (good && text->vocabulary < 2) {
        snprintf(why, room, "the text %s is one byte over and over: there is nothing to learn",
                 name);
        good = false;
    }
    if (!good) cinch_text_free(text);
    return good;
}

void cinch_text_free(cinch_text *text) {
    free(text->symbol);
    *text = (cinch_text){0};
}

static void copy_window(const cinch_text *text, size_t at, int context, uint8_t *input,
                        uint8_t *target) {
    memcpy(input, text->symbol + at, (size_t)context);
    memcpy(target, text->symbol + at + 1, (size_t)context);
}

static size_t stretch_length(const cinch_text *text) {
    return text->length / CINCH_TEXT_STRETCHES;
}

static size_t training_length(const cinch_text *text) {
    return stretch_length(text) - stretch_length(text) / 10;
}

void cinch_text_batch(const cinch_text *text, int context, uint64_t seed, uint64_t step, int rank,
                      int windows, uint8_t *input, uint8_t *target) {
    const size_t starts = training_length(text) - (size_t)context;
    for (int i = 0; i < windows; i++, input += context, target += context) {
        const uint64_t random =
            cinch_model_random(seed, step, ((uint64_t)rank << 32) + (uint64_t)i);
        const size_t stretch = random % CINCH_TEXT_STRETCHES;
        copy_window(text, stretch * stretch_length(text) + (random >> 8) % starts, context, input,
                    target);
    }
}

static size_t held_in_stretch(const cinch_text *text, int context) {
    return (stretch_length(text) / 10 - 1) / (size_t)context;
}

int cinch_text_held_count(const cinch_text *text, int context) {
    const size_t all = held_in_stretch(text, context) * CINCH_TEXT_STRETCHES;
    return all < CINCH_TEXT_HELD_WINDOWS ? (int)all : CINCH_TEXT_HELD_WINDOWS;
}

void cinch_text_held_window(const cinch_text *text, int context, int index, uint8_t *input,
                            uint8_t *target) {
    const size_t in_stretch = held_in_stretch(text, context);
    const size_t all = in_stretch * CINCH_TEXT_STRETCHES;
    const size_t count = (size_t)cinch_text_held_count(text, context);
    const size_t chosen = (size_t)index * all / count; /* spread evenly where not all are used */
    copy_window(text,
                chosen / in_stretch * stretch_length(text) + training_length(text) +
                    chosen % in_stretch * (size_t)context,
                context, input, target);
}
