/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as RFC 3629 has it, without what XML 1.0 forbids. */
#include "perf/topo_clean.h"

#include <stdint.h>

/* The length of the character at s, 0 where it is none: cut short, overlong, a surrogate, beyond
 * U+10FFFF, or U+FFFE and U+FFFF. */
static size_t utf8_length(const unsigned char *s) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = *s < 0x80 ? 1 : *s >= 0xf0 && *s < 0xf8 ? 4 : *s >= 0xe0 ? 3 : *s >= 0xc0 ? 2 : 0;
    if (*s >= 0xf8) return 0;
    if (n < 2) return n;
    uint32_t code = *s & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0; /* the NUL at the end included */
        code = code << 6 | (s[i] & 0x3f);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0;
    return code == 0xfffe || code == 0xffff ? 0 : n;
}

const char *cinch_topo_clean(const char *text, char *clean, size_t room) {
    const unsigned char *s = (const unsigned char *)text;
    size_t used = 0;
    while (*s && used + 1 < room) {
        size_t n = utf8_length(s);
        if (used + (n ? n : 1) >= room) break;
        if (n == 0) {
            clean[used++] = '?';
            s++;
        } else if (n == 1) {
            clean[used++] = *s < 0x20 || *s == 0x7f ? ' ' : (char)*s;
            s++;
        } else {
            for (; n > 0; n--) clean[used++] = (char)*s++;
        }
    }
    clean[used] = '\0';
    return clean;
}
