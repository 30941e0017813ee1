/* SPDX-License-Identifier: Apache-2.0 */
/* Reading "key=value,..." lists, the same in every locale. */
#ifndef CINCH_COMPRESS_CODEC_PARAMS_H_
#define CINCH_COMPRESS_CODEC_PARAMS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cinch_param {
    const char *key;
    size_t key_len;
    const char *value;
    size_t value_len;
} cinch_param;

/* Takes the next item off *text; false at the end. An item without '=' has value NULL. */
bool cinch_param_next(const char **text, cinch_param *item);

bool cinch_param_is(const cinch_param *item, const char *key);

/* The index of the value among count names, or -1. */
int cinch_param_choice(const cinch_param *item, const char *const *names, int count);

/* A whole number in decimal. */
bool cinch_param_u64(const cinch_param *item, uint64_t *value);

/* A number such as 0.01, 1 or 1e-3, with at most 15 digits, correctly rounded. */
bool cinch_param_double(const cinch_param *item, double *value);

#endif
