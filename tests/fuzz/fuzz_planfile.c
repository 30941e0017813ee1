/* SPDX-License-Identifier: Apache-2.0 */
/* Plan files under a fuzzer: whatever the bytes, an error with a sentence and nothing left, or a
 * table that is sound, and is the same when it is written and read again. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coll/planfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int true_it_is, const char *what) {
    if (true_it_is) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void check(const cinch_tuned *t) {
    expect(t->ranks > 0 && t->hosts > 0 && t->hosts <= t->ranks, "ranks and hosts");
    for (int i = 0; i < t->ranks; i++) expect(t->host[i] < t->hosts, "a host");
    for (int i = 0; i < t->curves; i++) {
        const cinch_curve *c = &t->curve[i];
        expect(c->points > 0 && c->points <= CINCH_CURVE_MOST, "points");
        for (int k = 0; k < c->points; k++) {
            expect(c->point[k].us > 0 && isfinite(c->point[k].us), "a time");
            expect(c->point[k].bytes > (k ? c->point[k - 1].bytes : 0), "a size");
        }
        expect(cinch_curve_us(c, 0) > 0 && cinch_curve_us(c, UINT64_MAX) > 0, "a curve");
    }
}

static char *text_of(const cinch_tuned *t, size_t *length) {
    char *text;
    expect(cinch_planfile_text(t, &text, length) == cinchSuccess, cinch_last_error());
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const cinch_tuned none;
    cinch_tuned t = {0}, back = {0};
    size_t once_length, twice_length;
    cinch_log_threshold = CINCH_LOG_NONE;
    if (cinch_planfile_parse((const char *)data, size, "fuzzed", &t) != cinchSuccess) {
        expect(*cinch_last_error() != '\0', "no sentence");
        expect(memcmp(&t, &none, sizeof t) == 0, "something is left after an error");
        return 0;
    }
    check(&t);
    char *once = text_of(&t, &once_length);
    expect(cinch_planfile_parse(once, once_length, "again", &back) == cinchSuccess,
           cinch_last_error());
    char *twice = text_of(&back, &twice_length);
    expect(strcmp(once, twice) == 0, "it differs when it is read again");
    free(once);
    free(twice);
    cinch_tuned_free(&t);
    cinch_tuned_free(&back);
    return 0;
}
