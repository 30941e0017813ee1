/* SPDX-License-Identifier: Apache-2.0 */
/* Plan files: what was measured on a machine, as JSON. See coll/README.md for the format. */
#ifndef CINCH_COLL_PLANFILE_H_
#define CINCH_COLL_PLANFILE_H_

#include "coll/tuned.h"

enum {
    CINCH_PLANFILE_MOST_BYTES = 8 << 20,
    CINCH_PLANFILE_MOST_RANKS = 65535,
    CINCH_PLANFILE_MOST_CURVES = 4096
};

/* Reads such a text into an empty table. `name`: what it is called in messages. InvalidArgument,
 * with the place and what is wrong there; the table is then empty. Fields that this version does
 * not know are passed over. InvalidUsage: this build has no Jansson. */
cinchResult_t cinch_planfile_parse(const char *text, size_t length, const char *name,
                                   cinch_tuned *tuned);

/* The text of a table, the same bytes for the same table, on the heap with a NUL behind it.
 * SystemError: out of memory; InvalidArgument: a name that is no UTF-8; InvalidUsage as above. */
cinchResult_t cinch_planfile_text(const cinch_tuned *tuned, char **text, size_t *length);

/* The bytes of a regular file of at most CINCH_PLANFILE_MOST_BYTES, on the heap with a NUL behind.
 * Quiet: NULL with a clause in why. */
char *cinch_planfile_load(const char *path, size_t *length, char *why, size_t room);

/* Writes the table to path: all of it, or nothing. SystemError, InvalidUsage. */
cinchResult_t cinch_planfile_write(const cinch_tuned *tuned, const char *path);

#endif
