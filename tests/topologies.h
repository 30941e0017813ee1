/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded machines and graphs with known optima, which are not part of the tree: in the folder
 * that $CINCH_TEST_TOPOLOGIES names, else where a checkout of them lies beside this one. */
#ifndef CINCH_TESTS_TOPOLOGIES_H_
#define CINCH_TESTS_TOPOLOGIES_H_

#include <stdio.h>
#include <stdlib.h>

/* The text of a file there, NUL behind it; NULL: not at hand. The caller frees it. */
static inline char *topology_text(const char *name, size_t *length) {
    const char *folder = getenv("CINCH_TEST_TOPOLOGIES");
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder ? folder : CINCH_TEST_TOPOLOGIES_BESIDE, name);
    FILE *from = fopen(path, "r");
    if (!from) return NULL;
    size_t room = 1 << 16, have = 0, got;
    char *text = malloc(room);
    while (text && (got = fread(text + have, 1, room - 1 - have, from)) > 0) {
        have += got;
        if (have == room - 1) text = realloc(text, room *= 2);
    }
    fclose(from);
    if (text) text[have] = '\0';
    *length = have;
    return text;
}

#endif
