/* SPDX-License-Identifier: Apache-2.0 */
/* From a file to a topology: what format it is, by what it holds, and the reader for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "topo/read_machine.h"
#include "topo/read_xml.h"
#include "topo/sane.h"

static const char *const format_name[CINCH_TOPOLOGY_FORMATS] = {"auto", "nccl", "hwloc", "nvsmi",
                                                                "graph"};

cinchResult_t cinch_topology_format_parse(const char *text, cinch_topology_format *format) {
    for (int i = 0; i < CINCH_TOPOLOGY_FORMATS; i++)
        if (strcmp(text, format_name[i]) == 0) {
            *format = (cinch_topology_format)i;
            return cinchSuccess;
        }
    return cinch_fail(
        cinchInvalidArgument,
        "\"%.40s\" is no format of a topology: auto, nccl, hwloc, nvsmi and graph are "
        "accepted",
        text);
}

const char *cinch_topology_format_name(cinch_topology_format format) {
    if (format == CINCH_TOPOLOGY_DETECTED) return "detected";
    return format < CINCH_TOPOLOGY_FORMATS ? format_name[format] : "unknown";
}

void cinch_topology_free(cinch_topology *t) {
    cinch_graph_free(&t->graph);
    for (int i = 0; i < t->warnings; i++) free(t->warning[i]);
    free(t->warning);
    memset(t, 0, sizeof *t);
}

/* ---- which format ---- */

static const char *first_visible(const char *text) {
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) text += 3;
    return text + strspn(text, " \t\r\n");
}

/* Texts that people take for one of the formats, and why they cannot be read. */
static cinchResult_t refuse_known(const char *text, const char *name) {
    if (strstr(text, "Weight between two GPUs") || strstr(text, "Hops between two GPUs"))
        return cinch_fail(cinchInvalidArgument,
                          "%.200s is what rocm-smi --showtopo prints, which has weights and no "
                          "bandwidths or buses: NCCL's XML, which RCCL writes where "
                          "NCCL_TOPO_DUMP_FILE is set, is read",
                          name);
    if (strstr(text, "Link 0:"))
        return cinch_fail(cinchInvalidArgument,
                          "%.200s is what nvidia-smi nvlink -s prints, which does not tell where "
                          "the links go: that of nvidia-smi topo -m is read",
                          name);
    return cinch_fail(
        cinchInvalidArgument,
        "%.200s is in none of the formats that are read: NCCL's topology XML, hwloc's "
        "XML, what nvidia-smi topo -m prints, and .graph",
        name);
}

static bool is_matrix(const char *text) {
    for (const char *line = text; *line; line += *line == '\n') {
        if (cinch_nvsmi_is_head(line))
            return strstr(line, " X ") || strstr(line, "\tX\t") || strstr(line, "\tX\n");
        line += strcspn(line, "\n");
    }
    return false;
}

static bool is_graph(const char *text) {
    static const char *const words[] = {"gpu", "switch", "link"};
    for (const char *at = text; *at; at += *at == '\n') {
        at += strspn(at, " \t\r");
        for (size_t i = 0; i < 3; i++) {
            size_t n = strlen(words[i]);
            if (strncmp(at, words[i], n) == 0 && (at[n] == ' ' || at[n] == '\t')) return true;
        }
        if (*at != '#' && *at != '\n' && *at) return false;
        at += strcspn(at, "\n");
    }
    return false;
}

static cinchResult_t detect_text(const char *text, const char *name,
                                 cinch_topology_format *format) {
    if (is_graph(text))
        *format = CINCH_TOPOLOGY_GRAPH;
    else if (*first_visible(text) != '<' && !strstr(text, "Weight between two GPUs") &&
             is_matrix(text))
        *format = CINCH_TOPOLOGY_NVSMI;
    else
        return refuse_known(text, name);
    return cinchSuccess;
}

static cinchResult_t detect_xml(const cinch_xml *root, const char *name,
                                cinch_topology_format *format) {
    if (cinch_xml_is(root, "graphs"))
        return cinch_fail(cinchInvalidArgument,
                          "%.200s holds NCCL's plans (<graphs>) and no topology, which is <system>",
                          name);
    if (!cinch_xml_is(root, "system") && !cinch_xml_is(root, "topology"))
        return cinch_fail(cinchInvalidArgument,
                          "%.200s, line %d: <%.40s> is neither NCCL's topology, <system>, nor "
                          "hwloc's, <topology>",
                          name, root->line, root->name);
    *format = cinch_xml_is(root, "system") ? CINCH_TOPOLOGY_NCCL : CINCH_TOPOLOGY_HWLOC;
    return cinchSuccess;
}

/* ---- reading ---- */

static cinchResult_t read_xml(const char *text, size_t length, cinch_machine *m) {
    cinch_topology_format found = CINCH_TOPOLOGY_AUTO;
    cinch_xml_document xml;
    CINCH_TRY(cinch_xml_parse(text, length, m->name, &xml));
    cinchResult_t result = detect_xml(xml.root, m->name, &found);
    if (m->t->format == CINCH_TOPOLOGY_AUTO && result == cinchSuccess) m->t->format = found;
    if (result == cinchSuccess)
        result = m->t->format == CINCH_TOPOLOGY_NCCL ? cinch_read_nccl(&xml, m)
                                                     : cinch_read_hwloc(&xml, m);
    cinch_xml_free(&xml);
    return result;
}

static cinchResult_t read_machine(const char *text, size_t length, cinch_machine *m) {
    if (m->t->format == CINCH_TOPOLOGY_NVSMI)
        CINCH_TRY(cinch_read_nvsmi(text, m));
    else
        CINCH_TRY(read_xml(text, length, m));
    cinch_machine_mend(m);
    return cinch_machine_graph(m);
}

/* `text` ends with a NUL. */
static cinchResult_t read_text(const char *text, size_t length, const char *name,
                               cinch_topology *t) {
    bool xml = *first_visible(text) == '<';
    if (!xml && strlen(text) != length)
        return cinch_fail(cinchInvalidArgument, "%.200s has a NUL byte at %zu: it is no text", name,
                          strlen(text));
    if (t->format == CINCH_TOPOLOGY_AUTO && !xml) CINCH_TRY(detect_text(text, name, &t->format));
    if (t->format == CINCH_TOPOLOGY_GRAPH) {
        CINCH_TRY(cinch_graph_read(&t->graph, text, length, name));
        t->gpus = t->graph.gpus;
        return cinchSuccess;
    }
    cinch_machine m = {.t = t, .name = name};
    cinchResult_t result = read_machine(text, length, &m);
    cinch_machine_free(&m);
    return result;
}

cinchResult_t cinch_topology_read(const char *text, size_t length, cinch_topology_format format,
                                  const char *name, cinch_topology *t) {
    memset(t, 0, sizeof *t);
    t->format = format;
    if (length > CINCH_TOPOLOGY_MOST_BYTES)
        return cinch_fail(cinchInvalidArgument, "%.200s has %zu bytes or more, at most %d are read",
                          name, length, CINCH_TOPOLOGY_MOST_BYTES);
    char *copy = malloc(length + 1);
    if (!copy) return cinch_fail(cinchSystemError, "out of memory for %.200s", name);
    if (length > 0) memcpy(copy, text, length);
    copy[length] = '\0';
    cinchResult_t result = read_text(copy, length, name, t);
    free(copy);
    if (result != cinchSuccess) cinch_topology_free(t);
    return result;
}

cinchResult_t cinch_topology_read_file(const char *path, cinch_topology_format format,
                                       cinch_topology *t) {
    memset(t, 0, sizeof *t);
    FILE *file = fopen(path, "rb");
    if (!file) return cinch_fail_errno(errno, "cannot open %.300s", path);
    /* One byte more than is accepted, so that more is noticed; pipes have no size to ask for. */
    size_t room = 0, length = 0;
    char *text = NULL;
    while (length == room && room <= CINCH_TOPOLOGY_MOST_BYTES) {
        room = room ? 2 * room : 1 << 16;
        char *grown = realloc(text, room);
        if (!grown) break;
        text = grown;
        length += fread(text + length, 1, room - length, file);
    }
    int err = ferror(file) ? errno : 0;
    fclose(file);
    cinchResult_t result;
    if (err)
        result = cinch_fail_errno(err, "cannot read %.300s", path);
    else if (length == room && room <= CINCH_TOPOLOGY_MOST_BYTES)
        result = cinch_fail(cinchSystemError, "out of memory for %.300s", path);
    else
        result = cinch_topology_read(text, length, format, path, t);
    free(text);
    return result;
}
