/* SPDX-License-Identifier: Apache-2.0 */
/* The text format of a graph: reads it, with the line's number in every complaint, and writes it.
 *
 * What a comment that begins with `#:` says is kept too, as far as it is known: `#: cpu host=1` of
 * a node, `#: pci` of a link. Other readers pass over it, and without it nothing changes. */
#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "topo/graph.h"

enum { MOST_WORDS = 6, MOST_NUMBER = 63 };

typedef struct {
    const char *at;
    size_t length;
} word;

typedef struct {
    cinch_graph *graph;
    const char *name; /* of the text */
    size_t line;
    word words[MOST_WORDS];
    int count; /* of words; MOST_WORDS: that many or more */
    word note; /* what follows `#:` */
} reader;

static const char *const part_word[] = {
    [CINCH_PART_OTHER] = "",  [CINCH_PART_CPU] = "cpu",
    [CINCH_PART_PCI] = "pci", [CINCH_PART_NVSWITCH] = "nvswitch",
    [CINCH_PART_NIC] = "nic", [CINCH_PART_NET] = "net"};
static const char *const link_word[] = {
    [CINCH_LINK_OTHER] = "",  [CINCH_LINK_NVLINK] = "nvlink", [CINCH_LINK_C2C] = "c2c",
    [CINCH_LINK_PCI] = "pci", [CINCH_LINK_SYS] = "sys",       [CINCH_LINK_NET] = "net",
    [CINCH_LINK_SHM] = "shm"};
enum { PARTS = sizeof part_word / sizeof *part_word, LINKS = sizeof link_word / sizeof *link_word };

static cinchResult_t fail_line(const reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

static cinchResult_t fail_line(const reader *r, const char *format, ...) {
    char text[CINCH_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* What was read may hold anything; a terminal sees printable ASCII and UTF-8 only. */
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < ' ' || *c == 0x7f) *c = '?';
    return cinch_fail(cinchInvalidArgument, "%.120s, line %zu: %s", r->name, r->line, text);
}

static int shown(const word *w) {
    return w->length > 80 ? 80 : (int)w->length;
}

static bool word_is(const word *w, const char *known) {
    return w->length == strlen(known) && memcmp(w->at, known, w->length) == 0;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

/* Splits a line up to its comment. */
static void split(reader *r, const char *line, size_t length) {
    const char *end = memchr(line, '#', length);
    r->note = (word){line, 0};
    if (end && line + length - end > 2 && end[1] == ':')
        r->note = (word){end + 2, (size_t)(line + length - end) - 2};
    if (!end) end = line + length;
    r->count = 0;
    for (const char *at = line; r->count < MOST_WORDS;) {
        while (at < end && is_space(*at)) at++;
        if (at == end) return;
        const char *start = at;
        while (at < end && !is_space(*at)) at++;
        r->words[r->count++] = (word){start, (size_t)(at - start)};
    }
}

/* The next word of the note, empty at its end. */
static word next_note(reader *r) {
    word *note = &r->note, next;
    while (note->length > 0 && is_space(*note->at)) note->at++, note->length--;
    next = (word){note->at, 0};
    while (note->length > 0 && !is_space(*note->at)) {
        note->at++, note->length--;
        next.length++;
    }
    return next;
}

static int known_note(const word *w, const char *const *known, int count) {
    for (int i = 1; i < count; i++)
        if (word_is(w, known[i])) return i;
    return 0;
}

static void note_node(reader *r, cinch_part *part, int *host) {
    for (word w; (w = next_note(r)).length > 0;) {
        int known = known_note(&w, part_word, PARTS), number = 0;
        if (known) *part = (cinch_part)known;
        if (w.length <= 5 || memcmp(w.at, "host=", 5) != 0) continue;
        for (size_t i = 5; i < w.length && number >= 0; i++) {
            bool digit = w.at[i] >= '0' && w.at[i] <= '9';
            number = digit && number <= CINCH_GRAPH_MOST_NODES ? 10 * number + w.at[i] - '0' : -1;
        }
        if (number >= 0 && number < CINCH_GRAPH_MOST_NODES) *host = number;
    }
}

/* Copies a word that can be a name. */
static cinchResult_t name_copy(const reader *r, const word *w, char *name) {
    if (w->length > CINCH_GRAPH_MOST_NAME)
        return fail_line(r, "the name \"%.*s...\" is longer than %d bytes", shown(w), w->at,
                         CINCH_GRAPH_MOST_NAME);
    for (size_t i = 0; i < w->length; i++) {
        unsigned char c = (unsigned char)w->at[i];
        if (c <= ' ' || c == 0x7f)
            return fail_line(r, "a name has a control character (0x%02x)", c);
    }
    memcpy(name, w->at, w->length);
    name[w->length] = '\0';
    return cinchSuccess;
}

static cinchResult_t read_node(reader *r) {
    bool gpu = word_is(&r->words[0], "gpu");
    char name[CINCH_GRAPH_MOST_NAME + 1];
    if (r->count != 2)
        return fail_line(r, "\"%s\" takes one name: %s NAME", gpu ? "gpu" : "switch",
                         gpu ? "gpu" : "switch");
    CINCH_TRY(name_copy(r, &r->words[1], name));
    if (cinch_graph_find(r->graph, name) >= 0)
        return fail_line(r, "a node called \"%.80s\" was there before", name);
    if (r->graph->nodes == CINCH_GRAPH_MOST_NODES)
        return fail_line(r, "a graph has at most %d nodes", CINCH_GRAPH_MOST_NODES);
    cinch_part part = CINCH_PART_OTHER;
    int host = 0;
    note_node(r, &part, &host);
    return cinch_graph_add_node(r->graph, name, gpu ? CINCH_NODE_GPU : CINCH_NODE_SWITCH, part,
                                host, NULL);
}

static size_t digits(const char **at) {
    const char *start = *at;
    while (**at >= '0' && **at <= '9') ++*at;
    return (size_t)(*at - start);
}

/* Digits with an optional point and exponent, nothing else; the locale is "C" here. */
static bool parse_number(const char *text, double *value) {
    const char *at = text;
    size_t count = digits(&at);
    if (*at == '.') {
        at++;
        count += digits(&at);
    }
    if (count == 0) return false;
    if (*at == 'e' || *at == 'E') {
        at++;
        if (*at == '+' || *at == '-') at++;
        if (digits(&at) == 0) return false;
    }
    if (*at != '\0') return false;
    /* A number too small to be told from 0 is not the 0 that means "not that way". */
    *value = strtod(text, NULL);
    return (*value >= 1e-9 && *value <= 1e12) || strcspn(text, "123456789") >= strcspn(text, "eE");
}

static cinchResult_t read_gbps(const reader *r, const word *w, double *gbps) {
    char text[MOST_NUMBER + 1] = "";
    if (w->length <= MOST_NUMBER) memcpy(text, w->at, w->length);
    if (strlen(text) == w->length && parse_number(text, gbps)) return cinchSuccess;
    return fail_line(r,
                     "\"%.*s\" is no bandwidth: a decimal number of GB/s from 1e-9 to 1e12, or 0",
                     shown(w), w->at);
}

static cinchResult_t read_end(const reader *r, const word *w, int *node) {
    char name[CINCH_GRAPH_MOST_NAME + 1];
    CINCH_TRY(name_copy(r, w, name));
    *node = cinch_graph_find(r->graph, name);
    if (*node < 0) return fail_line(r, "no node is called \"%.80s\"", name);
    return cinchSuccess;
}

static cinchResult_t read_link(reader *r) {
    int a, b;
    double there, back;
    if (r->count != 4 && r->count != 5)
        return fail_line(r, "\"link\" takes two names and one or two bandwidths: "
                            "link A B GBPS [GBPS_BACK]");
    CINCH_TRY(read_end(r, &r->words[1], &a));
    CINCH_TRY(read_end(r, &r->words[2], &b));
    if (a == b) return fail_line(r, "a link from \"%.80s\" to itself", r->graph->node[a].name);
    CINCH_TRY(read_gbps(r, &r->words[3], &there));
    back = there;
    if (r->count == 5) CINCH_TRY(read_gbps(r, &r->words[4], &back));
    if (there == 0 && back == 0)
        return fail_line(r, "a link has a bandwidth above 0 in at least one direction");
    if (r->graph->arcs > CINCH_GRAPH_MOST_ARCS - 2 &&
        ((there > 0 && cinch_graph_find_arc(r->graph, a, b) < 0) ||
         (back > 0 && cinch_graph_find_arc(r->graph, b, a) < 0)))
        return fail_line(r, "a graph has at most %d links", CINCH_GRAPH_MOST_ARCS / 2);
    word note = next_note(r);
    cinch_link_class class = (cinch_link_class)known_note(&note, link_word, LINKS);
    return cinch_graph_add_link(r->graph, a, b, there, back, class);
}

static cinchResult_t read_line(reader *r, bool links) {
    if (r->count == 0) return cinchSuccess;
    const word *verb = &r->words[0];
    if (word_is(verb, "link")) return links ? read_link(r) : cinchSuccess;
    if (word_is(verb, "gpu") || word_is(verb, "switch")) return links ? cinchSuccess : read_node(r);
    return fail_line(r,
                     "\"%.*s\" is not known: a line is gpu NAME, switch NAME, "
                     "link A B GBPS [GBPS_BACK], or a # comment",
                     shown(verb), verb->at);
}

/* Nodes first, then links: a link may stand before its nodes. */
static cinchResult_t read_pass(reader *r, const char *text, size_t length, bool links) {
    r->line = 0;
    for (const char *at = text, *end = text + length; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        r->line++;
        split(r, at, (size_t)(stop - at));
        CINCH_TRY(read_line(r, links));
        at = stop + 1;
    }
    return cinchSuccess;
}

/* Numbers have a point whatever the program's locale says: this thread's is "C" for a while. */
static cinchResult_t enter_c_locale(locale_t *mine, locale_t *before) {
    *before = (locale_t)0;
    *mine = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (*mine == (locale_t)0) return cinch_fail_errno(errno, "newlocale");
    *before = uselocale(*mine);
    return cinchSuccess;
}

static void leave_c_locale(locale_t mine, locale_t before) {
    uselocale(before);
    freelocale(mine);
}

cinchResult_t cinch_graph_read(cinch_graph *graph, const char *text, size_t length,
                               const char *name) {
    reader r = {.graph = graph, .name = name};
    locale_t mine, before;
    CINCH_TRY(enter_c_locale(&mine, &before));
    cinchResult_t result = read_pass(&r, text, length, false);
    if (result == cinchSuccess) result = read_pass(&r, text, length, true);
    leave_c_locale(mine, before);
    if (result != cinchSuccess) cinch_graph_free(graph);
    return result;
}

/* The shortest of the usual lengths that reads as the same number. */
static const char *number_text(double value, char text[32]) {
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(text, 32, "%.*g", precision, value);
        if (strtod(text, NULL) == value) break;
    }
    return text;
}

static void write_node(const cinch_node *node, FILE *to) {
    bool part = node->part > CINCH_PART_OTHER && (int)node->part < PARTS;
    fprintf(to, "%s %s", node->kind == CINCH_NODE_GPU ? "gpu" : "switch", node->name);
    if (part || node->host > 0) fprintf(to, " #:");
    if (part) fprintf(to, " %s", part_word[node->part]);
    if (node->host > 0) fprintf(to, " host=%d", node->host);
    fprintf(to, "\n");
}

static void write_link(const cinch_graph *graph, int i, FILE *to) {
    const cinch_arc *arc = &graph->arc[i];
    int back = cinch_graph_find_arc(graph, arc->to, arc->from);
    char there_text[32], back_text[32];
    /* A line has one class; where the directions differ in it, each gets its own. */
    if (back >= 0 && graph->arc[back].link != arc->link) back = -1;
    if (back >= 0 && back < i) return; /* written with that one */
    fprintf(to, "link %s %s %s", graph->node[arc->from].name, graph->node[arc->to].name,
            number_text(arc->gbps, there_text));
    if (back < 0)
        fprintf(to, " 0");
    else if (graph->arc[back].gbps != arc->gbps)
        fprintf(to, " %s", number_text(graph->arc[back].gbps, back_text));
    if (arc->link > CINCH_LINK_OTHER && (int)arc->link < LINKS)
        fprintf(to, " #: %s", link_word[arc->link]);
    fprintf(to, "\n");
}

cinchResult_t cinch_graph_write(const cinch_graph *graph, FILE *to) {
    locale_t mine, before;
    CINCH_TRY(enter_c_locale(&mine, &before));
    for (int i = 0; i < graph->nodes; i++) write_node(&graph->node[i], to);
    for (int i = 0; i < graph->arcs; i++) write_link(graph, i, to);
    leave_c_locale(mine, before);
    if (fflush(to) != 0 || ferror(to)) return cinch_fail_errno(errno, "writing a graph");
    return cinchSuccess;
}
