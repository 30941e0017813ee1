/* SPDX-License-Identifier: Apache-2.0 */
/* An XML text as a tree of elements, read by expat within limits: no entities of its own, bounded
 * depth, bounded counts. */
#ifndef CINCH_TOPO_READ_XML_H_
#define CINCH_TOPO_READ_XML_H_

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/status.h"

typedef struct cinch_xml {
    const char *name;
    const char **attribute; /* name, value, name, value, ..., NULL */
    const char *text;       /* character data of an element without children */
    int line;
    struct cinch_xml *parent, *first, *last, *next;
} cinch_xml;

typedef struct cinch_xml_document {
    cinch_arena arena;
    cinch_xml *root;
} cinch_xml_document;

enum { CINCH_XML_MOST_ATTRIBUTES = 64 };

/* InvalidArgument: not well-formed, or past a limit, with the line; InvalidUsage: built without
 * expat. After an error the document is empty. */
cinchResult_t cinch_xml_parse(const char *text, size_t length, const char *name,
                              cinch_xml_document *document);
void cinch_xml_free(cinch_xml_document *document);

bool cinch_xml_is(const cinch_xml *element, const char *name);
const char *cinch_xml_get(const cinch_xml *element, const char *attribute); /* NULL: not there */

#endif
