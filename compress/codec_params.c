/* SPDX-License-Identifier: Apache-2.0 */
/* Reading "key=value,..." lists. strtod is not used: its decimal point follows the locale. */
#include "compress/codec_params.h"

#include <string.h>

bool cinch_param_next(const char **text, cinch_param *item) {
    const char *at = *text;
    if (!at || !*at) return false;
    size_t len = strcspn(at, ",");
    const char *equals = memchr(at, '=', len);
    item->key = at;
    item->key_len = equals ? (size_t)(equals - at) : len;
    item->value = equals ? equals + 1 : NULL;
    item->value_len = equals ? len - item->key_len - 1 : 0;
    *text = at + len + (at[len] == ',');
    return true;
}

bool cinch_param_is(const cinch_param *item, const char *key) {
    return item->value && strlen(key) == item->key_len && !memcmp(item->key, key, item->key_len);
}

int cinch_param_choice(const cinch_param *item, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (strlen(names[i]) == item->value_len && !memcmp(item->value, names[i], item->value_len))
            return i;
    return -1;
}

/* Reads digits from *at on; false on overflow. *digits counts them. */
static bool read_digits(const char **at, const char *end, uint64_t *value, int *digits) {
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++, (*digits)++) {
        unsigned digit = (unsigned)(**at - '0');
        if (*value > (UINT64_MAX - digit) / 10) return false;
        *value = *value * 10 + digit;
    }
    return true;
}

bool cinch_param_u64(const cinch_param *item, uint64_t *value) {
    const char *at = item->value, *end = at + item->value_len;
    int digits = 0;
    *value = 0;
    return read_digits(&at, end, value, &digits) && digits > 0 && at == end;
}

/* With at most 15 digits and a power of ten up to 22 both operands are exact in a double, so the
 * one division or multiplication rounds correctly. */
bool cinch_param_double(const cinch_param *item, double *value) {
    const char *at = item->value, *end = at + item->value_len;
    uint64_t mantissa = 0, exponent = 0;
    int digits = 0, fraction = 0, exponent_digits = 0;
    bool negative = false;
    if (!read_digits(&at, end, &mantissa, &digits)) return false;
    if (at < end && *at == '.') {
        at++;
        if (!read_digits(&at, end, &mantissa, &fraction)) return false;
    }
    if (digits + fraction == 0 || mantissa >= 1000000000000000u) return false;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '-' || *at == '+')) negative = *at++ == '-';
        if (!read_digits(&at, end, &exponent, &exponent_digits) || !exponent_digits) return false;
    }
    if (at != end || exponent > 22) return false;
    int power = (negative ? -(int)exponent : (int)exponent) - fraction;
    if (power < -22 || power > 22) return false;
    double scale = 1;
    for (int i = 0; i < (power < 0 ? -power : power); i++) scale *= 10;
    *value = power < 0 ? (double)mantissa / scale : (double)mantissa * scale;
    return true;
}
