/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of elements, made from what expat reports. */
#include "topo/read_xml.h"

#include <limits.h>
#include <string.h>

#include "topo/readers.h"

bool cinch_xml_is(const cinch_xml *element, const char *name) {
    return strcmp(element->name, name) == 0;
}

const char *cinch_xml_get(const cinch_xml *element, const char *attribute) {
    for (const char **at = element->attribute; *at; at += 2)
        if (strcmp(at[0], attribute) == 0) return at[1];
    return NULL;
}

void cinch_xml_free(cinch_xml_document *document) {
    cinch_arena_free(&document->arena);
    document->root = NULL;
}

#ifdef CINCH_HAS_EXPAT
#include <expat.h>

bool cinch_topology_reads_xml(void) {
    return true;
}

typedef struct {
    XML_Parser expat;
    const char *name;
    cinch_xml_document *document;
    cinch_xml *open;
    char *text; /* of the open element, in the arena */
    size_t text_used, text_room;
    int depth, elements;
    cinchResult_t result;
} builder;

/* The first fault wins; expat stops after it. */
static void stop(builder *b, const char *what, int limit) {
    if (b->result != cinchSuccess) return;
    b->result = cinch_fail(cinchInvalidArgument, "%.200s, line %lu: %s %d", b->name,
                           (unsigned long)XML_GetCurrentLineNumber(b->expat), what, limit);
    XML_StopParser(b->expat, XML_FALSE);
}

static void *take(builder *b, size_t bytes) {
    void *memory = b->result == cinchSuccess ? cinch_arena_take(&b->document->arena, bytes) : NULL;
    if (!memory && b->result == cinchSuccess) {
        b->result = cinch_fail(cinchSystemError, "out of memory for the XML of %.200s", b->name);
        XML_StopParser(b->expat, XML_FALSE);
    }
    return memory;
}

/* An element with its attributes, in one piece. */
static cinch_xml *copy_element(builder *b, const char *name, const char **attribute, int count) {
    size_t bytes = sizeof(cinch_xml) + ((size_t)count + 1) * sizeof(char *) + strlen(name) + 1;
    for (int i = 0; i < count; i++) bytes += strlen(attribute[i]) + 1;
    cinch_xml *element = take(b, bytes);
    if (!element) return NULL;
    const char **list = (const char **)(element + 1);
    char *at = (char *)(list + count + 1);
    element->name = strcpy(at, name);
    at += strlen(at) + 1;
    for (int i = 0; i < count; i++) {
        list[i] = strcpy(at, attribute[i]);
        at += strlen(at) + 1;
    }
    element->attribute = list;
    element->text = "";
    return element;
}

static void XMLCALL on_start(void *user, const char *name, const char **attribute) {
    builder *b = user;
    int count = 0;
    while (attribute[count]) count++;
    if (++b->depth > CINCH_TOPOLOGY_MOST_DEPTH) {
        stop(b, "elements are nested deeper than", CINCH_TOPOLOGY_MOST_DEPTH);
        return;
    }
    if (++b->elements > CINCH_TOPOLOGY_MOST_ELEMENTS) {
        stop(b, "there are more elements than", CINCH_TOPOLOGY_MOST_ELEMENTS);
        return;
    }
    if (count > 2 * CINCH_XML_MOST_ATTRIBUTES) {
        stop(b, "an element has more attributes than", CINCH_XML_MOST_ATTRIBUTES);
        return;
    }
    cinch_xml *element = copy_element(b, name, attribute, count);
    if (!element) return;
    element->line = (int)XML_GetCurrentLineNumber(b->expat);
    element->parent = b->open;
    if (!b->open)
        b->document->root = element;
    else if (b->open->last)
        b->open->last = b->open->last->next = element;
    else
        b->open->first = b->open->last = element;
    b->open = element;
    b->text = NULL;
    b->text_used = b->text_room = 0;
}

static void XMLCALL on_end(void *user, const char *name) {
    builder *b = user;
    (void)name;
    if (b->result != cinchSuccess) return;
    if (b->text) b->open->text = b->text;
    b->text = NULL;
    b->depth--;
    b->open = b->open->parent;
}

/* Text matters in leaves only: what stands before an element's first child is dropped with it. */
static void XMLCALL on_text(void *user, const char *data, int length) {
    builder *b = user;
    if (!b->open || b->open->first || length <= 0) return;
    size_t need = b->text_used + (size_t)length + 1;
    if (need > b->text_room) {
        size_t room = need < 64 ? 64 : 2 * need;
        char *more = take(b, room);
        if (!more) return;
        if (b->text) memcpy(more, b->text, b->text_used);
        b->text = more;
        b->text_room = room;
    }
    memcpy(b->text + b->text_used, data, (size_t)length);
    b->text_used += (size_t)length;
    b->text[b->text_used] = '\0';
}

/* No topology file needs an entity of its own, and a bomb is made of them. */
static void XMLCALL on_entity(void *user, const XML_Char *name, int parameter,
                              const XML_Char *value, int length, const XML_Char *base,
                              const XML_Char *system, const XML_Char *public,
                              const XML_Char *notation) {
    (void)name, (void)parameter, (void)value, (void)length;
    (void)base, (void)system, (void)public, (void)notation;
    stop(user, "it declares an entity; those accepted:", 0);
}

cinchResult_t cinch_xml_parse(const char *text, size_t length, const char *name,
                              cinch_xml_document *document) {
    *document = (cinch_xml_document){{NULL}, NULL};
    if (length > CINCH_TOPOLOGY_MOST_BYTES || length > INT_MAX)
        return cinch_fail(cinchInvalidArgument, "%.200s has %zu bytes, at most %d are read", name,
                          length, (int)CINCH_TOPOLOGY_MOST_BYTES);
    builder b = {.expat = XML_ParserCreate(NULL), .name = name, .document = document};
    if (!b.expat) return cinch_fail(cinchSystemError, "out of memory for the XML of %.200s", name);
    XML_SetUserData(b.expat, &b);
    XML_SetElementHandler(b.expat, on_start, on_end);
    XML_SetCharacterDataHandler(b.expat, on_text);
    XML_SetEntityDeclHandler(b.expat, on_entity);
    XML_SetParamEntityParsing(b.expat, XML_PARAM_ENTITY_PARSING_NEVER);
    if (XML_Parse(b.expat, text, (int)length, 1) != XML_STATUS_OK && b.result == cinchSuccess)
        b.result = cinch_fail(cinchInvalidArgument, "%.200s, line %lu: not well-formed XML: %s",
                              name, (unsigned long)XML_GetCurrentLineNumber(b.expat),
                              XML_ErrorString(XML_GetErrorCode(b.expat)));
    XML_ParserFree(b.expat);
    if (b.result != cinchSuccess) cinch_xml_free(document);
    return b.result;
}

#else

bool cinch_topology_reads_xml(void) {
    return false;
}

cinchResult_t cinch_xml_parse(const char *text, size_t length, const char *name,
                              cinch_xml_document *document) {
    (void)text, (void)length;
    *document = (cinch_xml_document){{NULL}, NULL};
    return cinch_fail(cinchInvalidUsage,
                      "%.200s is XML, which this cinch cannot read: it was built without expat",
                      name);
}

#endif
