/* SPDX-License-Identifier: Apache-2.0 */
/* The choice by measured curves, worked out beforehand for eight classes of sizes an octave. */
#include "coll/choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    EIGHTHS = 8,
    OCTAVES = 42,
    CLASSES = EIGHTHS * OCTAVES,
    PLACES = 8, /* the best, then what serves calls that it does not */
    MOST = 24   /* algorithms of a collective */
};
/* Curves that begin beyond this say nothing of the short messages below their beginning. */
static const uint64_t SHORT = 64 << 10;
static const double SAME = 1.03; /* measured times that differ by less are taken as equal */

typedef struct ranking {
    uint8_t place[CLASSES][PLACES]; /* indices of cinch_algo_at and 1; 0: none */
} ranking;

struct cinch_choice {
    ranking *of[CINCH_COLLECTIVES][2]; /* [exact or encoded]; NULL: no curves */
    bool pays[CINCH_COLLECTIVES][CLASSES];
    bool forest[CINCH_COLLECTIVES];
};

static unsigned class_of(uint64_t bytes) {
    if (bytes == 0) return 0;
    unsigned octave = 63 - (unsigned)__builtin_clzll(bytes);
    if (octave >= OCTAVES) return CLASSES - 1;
    uint64_t eighth = octave < 3 ? bytes << (3 - octave) : bytes >> (octave - 3);
    return octave * EIGHTHS + (unsigned)(eighth & (EIGHTHS - 1));
}

/* The least size in the class. */
static uint64_t class_begin(unsigned class) {
    return ((uint64_t)(EIGHTHS + class % EIGHTHS) << class / EIGHTHS) / EIGHTHS;
}

uint64_t cinch_choice_next(uint64_t bytes) {
    unsigned class = class_of(bytes) + 1;
    while (class < CLASSES && class_begin(class) <= bytes) class ++;
    return class < CLASSES ? class_begin(class) : UINT64_MAX;
}

/* ---- curves of a codec ---- */

/* 2: the curve's codec is this one, 1: it has the same name and other parameters, 0: another. */
static int likeness(const cinch_curve *curve, const cinch_codec *codec) {
    cinch_codec other;
    char why[CINCH_ERROR_TEXT];
    if (!codec || !codec->vt) return strcmp(curve->codec, "none") == 0 ? 2 : 0;
    size_t length = strcspn(curve->codec, ":");
    if (strlen(codec->vt->name) != length || memcmp(curve->codec, codec->vt->name, length) != 0)
        return 0;
    if (!cinch_codec_parse(curve->codec, &other, why, sizeof why)) return 0;
    return memcmp(other.params, codec->params, sizeof other.params) == 0 && other.ef == codec->ef
               ? 2
               : 1;
}

const cinch_curve *cinch_choice_curve(const cinch_tuned *tuned, cinch_collective collective,
                                      const char *algo, const cinch_codec *codec) {
    const cinch_curve *best = NULL;
    int most = 0;
    for (int i = 0; tuned && i < tuned->curves; i++) {
        const cinch_curve *c = &tuned->curve[i];
        if (c->collective != collective || !c->points || strcmp(c->algo, algo) != 0) continue;
        int like = likeness(c, codec);
        if (like > most) best = c, most = like;
    }
    return best;
}

/* ---- ranking ---- */

typedef struct field {
    int count;
    uint8_t index[MOST]; /* of cinch_algo_at */
    const cinch_curve *curve[MOST];
    uint64_t from; /* the least size of all curves */
    double us[CLASSES][MOST], least[CLASSES];
    unsigned lasts[CLASSES][MOST]; /* for how many classes from here on it is as good as the best */
} field;

static void enter(field *f, const cinch_tuned *tuned, cinch_collective collective,
                  const cinch_codec *codec) {
    f->count = 0;
    for (int i = 0; cinch_algo_at(i) && f->count < MOST; i++) {
        const cinch_algo *algo = cinch_algo_at(i);
        if (algo->collective != collective) continue;
        const cinch_curve *curve = cinch_choice_curve(tuned, collective, algo->name, codec);
        if (!curve) continue;
        if (!f->count || curve->point[0].bytes < f->from) f->from = curve->point[0].bytes;
        f->index[f->count] = (uint8_t)i;
        f->curve[f->count++] = curve;
    }
    for (int k = CLASSES - 1; k >= 0; k--) {
        f->least[k] = INFINITY;
        for (int a = 0; a < f->count; a++) {
            f->us[k][a] = cinch_curve_us(f->curve[a], class_begin((unsigned)k));
            f->least[k] = fmin(f->least[k], f->us[k][a]);
        }
        for (int a = 0; a < f->count; a++) {
            bool good = f->us[k][a] <= SAME * f->least[k];
            f->lasts[k][a] = !good ? 0 : k + 1 < CLASSES ? 1 + f->lasts[k + 1][a] : 1;
        }
    }
}

/* The one that stays good longest, so that there are as few switches as there can be; the first
 * choice is one-shot where that is good, since small messages have a short way with it. */
static int take_over(const field *f, int class) {
    int best = 0;
    for (int a = 0; a < f->count; a++) {
        if (class == 0 && f->lasts[0][a] &&
            strcmp(cinch_algo_at(f->index[a])->name, cinch_algo_oneshot.name) == 0)
            return a;
        if (f->lasts[class][a] > f->lasts[class][best]) best = a;
    }
    return best;
}

static void rank_all(const field *f, ranking *r) {
    int first = -1;
    for (int k = 0; k < CLASSES; k++) {
        if (f->from > SHORT && class_begin((unsigned)k) < f->from) continue;
        if (first < 0 || !f->lasts[k][first]) first = take_over(f, k);
        bool taken[MOST] = {false};
        for (int p = 0; p < PLACES && p < f->count; p++) {
            int best = p ? -1 : first;
            for (int a = 0; p && a < f->count; a++)
                if (!taken[a] && (best < 0 || f->us[k][a] < f->us[k][best])) best = a;
            taken[best] = true;
            r->place[k][p] = (uint8_t)(f->index[best] + 1);
        }
    }
}

/* Fills the choice's part of a collective. exact and coded: scratch. */
static cinchResult_t rank_collective(cinch_choice *choice, const cinch_tuned *tuned,
                                     cinch_collective c, const cinch_codec *codec, field *exact,
                                     field *coded) {
    field *of[2] = {exact, coded};
    coded->count = 0;
    enter(exact, tuned, c, NULL);
    if (codec->vt) enter(coded, tuned, c, codec);
    for (int encoded = 0; encoded < 2; encoded++) {
        if (!of[encoded]->count) continue;
        ranking *r = calloc(1, sizeof *r);
        if (!r) return cinch_fail(cinchSystemError, "out of memory for the choice of algorithms");
        choice->of[c][encoded] = r;
        rank_all(of[encoded], r);
    }
    for (int k = 0; k < CLASSES && exact->count && coded->count; k++)
        choice->pays[c][k] =
            class_begin((unsigned)k) >= coded->from && coded->least[k] * SAME <= exact->least[k];
    return cinchSuccess;
}

/* Where nothing is known of a collective with the codec, what the all-reduce says of which it is
 * a half: both ways take about half the time then. */
static void lend_from_allreduce(cinch_choice *choice) {
    static const cinch_collective halves[] = {CINCH_REDUCESCATTER, CINCH_ALLGATHER};
    for (int i = 0; i < 2; i++)
        if (!choice->of[halves[i]][1])
            memcpy(choice->pays[halves[i]], choice->pays[CINCH_ALLREDUCE], sizeof choice->pays[0]);
}

cinchResult_t cinch_choice_make(const cinch_tuned *tuned, const cinch_codec *codec,
                                cinch_choice **out) {
    *out = NULL;
    if (!tuned || !tuned->curves) return cinchSuccess;
    cinch_choice *choice = calloc(1, sizeof *choice);
    field *scratch = calloc(2, sizeof *scratch);
    cinchResult_t result = cinchSuccess;
    if (!choice || !scratch)
        result = cinch_fail(cinchSystemError, "out of memory for the choice of algorithms");
    for (int i = 0; result == cinchSuccess && i < tuned->curves; i++)
        if (strcmp(tuned->curve[i].algo, "forest") == 0)
            choice->forest[tuned->curve[i].collective] = true;
    for (int c = 0; c < CINCH_COLLECTIVES && result == cinchSuccess; c++)
        result =
            rank_collective(choice, tuned, (cinch_collective)c, codec, &scratch[0], &scratch[1]);
    free(scratch);
    if (result != cinchSuccess) {
        cinch_choice_free(choice);
        return result;
    }
    lend_from_allreduce(choice);
    *out = choice;
    return cinchSuccess;
}

void cinch_choice_free(cinch_choice *choice) {
    for (int c = 0; choice && c < CINCH_COLLECTIVES; c++) {
        free(choice->of[c][0]);
        free(choice->of[c][1]);
    }
    free(choice);
}

/* ---- looked up ---- */

const cinch_algo *cinch_choice_find(const cinch_choice *choice, const cinch_call *call) {
    if (!choice || !choice->of[call->collective][call->encoded]) return NULL;
    const cinch_shape *shape = cinch_shape_of(call->collective);
    uint64_t bytes = call->bytes * (uint64_t)cinch_shape_blocks(shape, call->nranks);
    const uint8_t *place = choice->of[call->collective][call->encoded]->place[class_of(bytes)];
    for (int p = 0; p < PLACES && place[p]; p++) {
        const cinch_algo *algo = cinch_algo_at(place[p] - 1);
        if (!algo->supports(call)) return algo;
    }
    return NULL;
}

bool cinch_choice_pays(const cinch_choice *choice, cinch_collective collective, uint64_t bytes) {
    return choice && choice->pays[collective][class_of(bytes)];
}

bool cinch_choice_has_forest(const cinch_choice *choice, cinch_collective collective) {
    return choice && choice->forest[collective];
}

bool cinch_choice_knows(const cinch_choice *choice, cinch_collective collective, bool encoded) {
    return choice && choice->of[collective][encoded];
}
