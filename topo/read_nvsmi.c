/* SPDX-License-Identifier: Apache-2.0 */
/* What `nvidia-smi topo -m` prints: a matrix of how each two GPUs and NICs are joined. From it come
 * PCI switches (PIX, PXB), CPUs (PHB, NODE, the same CPU affinity) and NVLinks (NV#). Models and
 * speeds are not told, so they are assumed, and a warning says so. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "topo/read_machine.h"

enum { MOST_COLUMNS = 256, MOST_CELL = 64, MOST_NVLINKS = 64 };

/* What a Hopper or Blackwell GPU has: more in all than this goes through a switch. */
#define MOST_DIRECT 18
/* 100 Gb/s, the NIC of a machine that is not told. */
#define NIC_GBPS 12.5

/* The nearer two are, the smaller; NVLinks are beside these. */
typedef enum { UNTOLD, SELF, PIX, PXB, PHB, NODE, SYS } relation;

typedef struct {
    cinch_machine *m;
    const char *at; /* what is still to be read */
    int line;
    bool tabs; /* the head is parted by tabs, not by runs of white space */
    char cell[2 * MOST_COLUMNS][MOST_CELL];
    int cells;
    int columns;  /* of GPUs and NICs */
    int affinity; /* the cell with the CPUs near a GPU, 0: none */
    struct {
        char name[MOST_CELL], near[MOST_CELL];
        bool gpu, row;
        int where;        /* its cell in a row, counted from the row's name */
        int by[NODE + 1]; /* the group of PIX, PXB and NODE: its first member */
        int part;
    } column[MOST_COLUMNS];
    unsigned char told[MOST_COLUMNS]
                      [MOST_COLUMNS]; /* relation, or SYS where only NVLinks are told */
    unsigned char nvlinks[MOST_COLUMNS][MOST_COLUMNS];
} reader;

/* ---- lines and cells ---- */

static void end_cell(reader *r, char *cell, size_t length) {
    while (length > 0 && cell[length - 1] == ' ') length--;
    cell[length] = '\0';
    r->cells++;
}

/* The next line's cells. False: the text is at its end. Escapes of a terminal are left out. */
static bool next_line(reader *r) {
    if (!*r->at) return false;
    size_t length = 0;
    bool begun = false;
    r->cells = 0;
    r->line++;
    char *cell = r->cell[0];
    for (; *r->at && *r->at != '\n'; r->at++) {
        if (*r->at == '\033') {
            while (*r->at && *r->at != '\n' && !isalpha((unsigned char)*r->at)) r->at++;
            if (!*r->at || *r->at == '\n') break;
            continue;
        }
        bool parts = *r->at == '\t' || (!r->tabs && *r->at == ' ');
        if (*r->at == '\r' || r->cells == 2 * MOST_COLUMNS - 1) continue;
        if (parts && (r->tabs || begun)) {
            end_cell(r, cell, length);
            cell = r->cell[r->cells];
            length = 0, begun = false;
        } else if (!parts && (begun || *r->at != ' ') && length < MOST_CELL - 1) {
            cell[length++] = *r->at;
            begun = true;
        }
    }
    if (begun || r->tabs) end_cell(r, cell, length);
    r->at += *r->at == '\n';
    return true;
}

static bool is_gpu_name(const char *name) {
    int number;
    return strncmp(name, "GPU", 3) == 0 && cinch_read_int(name + 3, 10, 0, 1 << 20, false, &number);
}

/* ---- the head ---- */

/* In a head parted by tabs the names of other columns have blanks in them, and those of NICs none.
 */
static bool is_other_column(const char *name) {
    return strcmp(name, "CPU") == 0 || strchr(name, ' ') != NULL || *name == '\0';
}

static cinchResult_t add_column(reader *r, int cell) {
    if (r->columns == MOST_COLUMNS)
        return cinch_fail(cinchInvalidArgument,
                          "%.200s, line %d: more than %d GPUs and NICs in a matrix", r->m->name,
                          r->line, MOST_COLUMNS);
    const char *name = r->cell[cell];
    for (int i = 0; i < r->columns; i++)
        if (strcmp(r->column[i].name, name) == 0)
            return cinch_fail(cinchInvalidArgument, "%.200s, line %d: %.60s is in the head twice",
                              r->m->name, r->line, name);
    strcpy(r->column[r->columns].name, name);
    r->column[r->columns].gpu = is_gpu_name(name);
    r->column[r->columns++].where = cell - (r->tabs ? 0 : -1);
    return cinchSuccess;
}

static cinchResult_t read_head(reader *r) {
    int first = r->tabs ? 1 : 0;
    for (int i = first; i < r->cells; i++) {
        const char *name = r->cell[i];
        if (is_other_column(name)) {
            bool cpu = strcmp(name, "CPU Affinity") == 0 || strcmp(name, "CPU") == 0;
            if (cpu) r->affinity = i - (r->tabs ? 0 : -1);
            if (!r->tabs) break; /* `CPU Affinity` is two cells there: rows tell no more */
            if (*name && !cpu && strncmp(name, "NUMA", 4) != 0 && strncmp(name, "GPU NUMA", 8) != 0)
                cinch_topology_warn(r->m->t,
                                    "the column \"%s\" is neither a GPU nor a NIC by its name: "
                                    "left out",
                                    name);
        } else {
            CINCH_TRY(add_column(r, i));
        }
    }
    return cinchSuccess;
}

/* GPU0 after white space, or after what underlines it on a terminal; a row has it without. */
bool cinch_nvsmi_is_head(const char *line) {
    const char *at = line;
    for (; *at == ' ' || *at == '\t' || *at == '\033'; at++)
        if (*at == '\033')
            while (at[1] && at[1] != '\n' && !isalpha((unsigned char)*at)) at++;
    return at > line && strncmp(at, "GPU0", 4) == 0 && !isalnum((unsigned char)at[4]);
}

static cinchResult_t find_head(reader *r) {
    while (*r->at) {
        const char *line = r->at;
        bool head = cinch_nvsmi_is_head(line);
        if (head) r->tabs = memchr(line, '\t', strcspn(line, "\n")) != NULL;
        next_line(r);
        int first = r->tabs ? 1 : 0;
        if (head && r->cells > first && strcmp(r->cell[first], "GPU0") == 0) return read_head(r);
    }
    return cinch_fail(cinchInvalidArgument,
                      "%.200s has no line of columns GPU0, GPU1, ..., as nvidia-smi topo -m prints",
                      r->m->name);
}

/* ---- rows ---- */

static cinchResult_t read_cell(reader *r, int row, int column) {
    static const struct {
        const char *text;
        relation is;
    } words[] = {{"X", SELF},    {"PIX", PIX}, {"PXB", PXB}, {"PHB", PHB},
                 {"NODE", NODE}, {"SYS", SYS}, {"SOC", SYS}};
    const char *text = r->cell[r->column[column].where];
    int links = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i].text) == 0) {
            if ((words[i].is == SELF) != (row == column)) break;
            r->told[row][column] = (unsigned char)words[i].is;
            return cinchSuccess;
        }
    if (strncmp(text, "NV", 2) == 0 && row != column &&
        cinch_read_int(text + 2, 10, 1, MOST_NVLINKS, false, &links)) {
        r->nvlinks[row][column] = (unsigned char)links;
        return cinchSuccess;
    }
    return cinch_fail(cinchInvalidArgument,
                      "%.200s, line %d: \"%.30s\" between %.60s and %.60s: X with itself, NV1 to "
                      "NV%d, PIX, PXB, PHB, NODE and SYS are accepted",
                      r->m->name, r->line, text, r->column[row].name, r->column[column].name,
                      MOST_NVLINKS);
}

static cinchResult_t read_row(reader *r, int row) {
    int need = r->column[r->columns - 1].where + 1;
    if (r->column[row].row)
        return cinch_fail(cinchInvalidArgument, "%.200s, line %d: a second row of %.60s",
                          r->m->name, r->line, r->column[row].name);
    if (r->cells < need)
        return cinch_fail(cinchInvalidArgument,
                          "%.200s, line %d: the row of %.60s has %d cells, the head has %d",
                          r->m->name, r->line, r->column[row].name, r->cells - 1, need - 1);
    r->column[row].row = true;
    for (int i = 0; i < r->columns; i++) CINCH_TRY(read_cell(r, row, i));
    if (r->affinity > 0 && r->affinity < r->cells)
        strcpy(r->column[row].near, r->cell[r->affinity]);
    return cinchSuccess;
}

/* `NIC0: mlx5_0` in the legend of newer versions. */
static void read_legend(reader *r) {
    char *line = r->cell[r->tabs && r->cells > 1 && !r->cell[0][0] ? 1 : 0];
    char *colon = strchr(line, ':');
    if (!colon) return;
    *colon = '\0';
    const char *name = r->tabs ? colon + 1 : r->cells > 1 ? r->cell[1] : "";
    name += strspn(name, " ");
    for (int i = 0; i < r->columns && *name; i++)
        if (!r->column[i].gpu && strcmp(r->column[i].name, line) == 0)
            memmove(r->column[i].name, name, strlen(name) + 1);
}

static cinchResult_t read_rows(reader *r) {
    while (next_line(r)) {
        int row = 0;
        if (r->cells == 0) continue;
        while (row < r->columns && strcmp(r->column[row].name, r->cell[0]) != 0) row++;
        if (row < r->columns)
            CINCH_TRY(read_row(r, row));
        else
            read_legend(r);
    }
    for (int i = 0; i < r->columns; i++)
        if (r->column[i].gpu && !r->column[i].row)
            return cinch_fail(cinchInvalidArgument, "%.200s has no row of %.60s", r->m->name,
                              r->column[i].name);
    return cinchSuccess;
}

/* ---- groups ---- */

/* Both directions of the matrix, where one is told only and where they differ. */
static void level_matrix(reader *r) {
    for (int i = 0; i < r->columns; i++)
        for (int j = 0; j < i; j++) {
            unsigned char *a = &r->told[i][j], *b = &r->told[j][i];
            if (r->column[i].row && r->column[j].row && *a != *b)
                cinch_topology_warn(r->m->t,
                                    "%s and %s disagree on how near they are: the farther is taken",
                                    r->column[i].name, r->column[j].name);
            *a = *b = *a > *b ? *a : *b;
        }
}

static void join(reader *r, relation by, int a, int b) {
    int to = r->column[a].by[by], from = r->column[b].by[by];
    if (to == from) return;
    if (from < to) {
        int other = to;
        to = from, from = other;
    }
    for (int i = 0; i < r->columns; i++)
        if (r->column[i].by[by] == from) r->column[i].by[by] = to;
}

/* Whether two groups have members that are told to be apart. */
static bool apart(const reader *r, int a, int b) {
    for (int i = 0; i < r->columns; i++)
        for (int j = 0; j < r->columns && r->column[i].by[NODE] == r->column[a].by[NODE]; j++)
            if (r->column[j].by[NODE] == r->column[b].by[NODE] && r->told[i][j] == SYS) return true;
    return false;
}

static void group(reader *r) {
    static const relation levels[] = {PIX, PXB, NODE};
    for (int level = 0; level < 3; level++) {
        relation by = levels[level];
        for (int i = 0; i < r->columns; i++)
            r->column[i].by[by] = level ? r->column[i].by[levels[level - 1]] : i;
        for (int i = 0; i < r->columns; i++)
            for (int j = 0; j < i; j++)
                if (r->told[i][j] > SELF && r->told[i][j] <= by) join(r, by, j, i);
    }
    for (int i = 0; i < r->columns; i++)
        for (int j = 0; j < i; j++)
            if (isdigit((unsigned char)r->column[i].near[0]) &&
                strcmp(r->column[i].near, r->column[j].near) == 0 &&
                r->column[i].by[NODE] != r->column[j].by[NODE] && !apart(r, i, j))
                join(r, NODE, j, i);
}

/* ---- parts ---- */

/* How many groups of `inner` a group of `outer` has. */
static int count_groups(const reader *r, relation outer, relation inner, int first) {
    int count = 0;
    for (int i = 0; i < r->columns; i++)
        count +=
            r->column[i].by[outer] == first && (inner == UNTOLD || r->column[i].by[inner] == i);
    return count;
}

static cinchResult_t add_switch(reader *r, const char *what, int number, int parent, int *part) {
    char name[32];
    snprintf(name, sizeof name, "%s%d", what, number);
    CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_SWITCH, name, parent, part));
    r->m->part[*part].gbps = CINCH_PCI_GBPS_UNKNOWN;
    return cinchSuccess;
}

static cinchResult_t add_device(reader *r, int column, int parent) {
    char name[CINCH_MACHINE_NAME];
    int part, port;
    bool gpu = r->column[column].gpu;
    CINCH_TRY(cinch_machine_add(r->m, gpu ? CINCH_MACHINE_GPU : CINCH_MACHINE_NIC,
                                r->column[column].name, parent, &part));
    r->m->part[part].gbps = CINCH_PCI_GBPS_UNKNOWN;
    snprintf(r->m->part[part].bus, CINCH_MACHINE_BUS, "%.31s", r->column[column].name);
    r->column[column].part = part;
    if (gpu) return cinchSuccess;
    snprintf(name, sizeof name, "net:%.40s", r->m->part[part].name);
    CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_PORT, name, part, &port));
    r->m->part[port].gbps = NIC_GBPS;
    return cinchSuccess;
}

/* Groups are named by their first member, so the first member of each makes its part. */
static cinchResult_t add_parts(reader *r) {
    int cpu[MOST_COLUMNS], outer[MOST_COLUMNS], inner[MOST_COLUMNS], cpus = 0, switches = 0;
    for (int i = 0; i < r->columns; i++) {
        int c = r->column[i].by[NODE], o = r->column[i].by[PXB], n = r->column[i].by[PIX];
        char name[32];
        if (c == i) {
            snprintf(name, sizeof name, "cpu%d", cpus++);
            CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_CPU, name, -1, &cpu[i]));
            r->m->part[cpu[i]].gbps = cinch_cpu_gbps("", "", 0, 0);
        }
        if (o == i) {
            outer[i] = cpu[c];
            if (count_groups(r, PXB, PIX, i) > 1)
                CINCH_TRY(add_switch(r, "pci", switches++, cpu[c], &outer[i]));
        }
        if (n == i) {
            inner[i] = outer[o];
            if (count_groups(r, PIX, UNTOLD, i) > 1)
                CINCH_TRY(add_switch(r, "pci", switches++, outer[o], &inner[i]));
        }
        CINCH_TRY(add_device(r, i, inner[n]));
    }
    return cinchSuccess;
}

/* ---- NVLinks ---- */

/* Through a switch each pair is told all links of a GPU, so their sum is more than it can have. */
static int links_to_switch(const reader *r, int gpu) {
    int sum = 0, most = 0;
    for (int i = 0; i < r->columns; i++) {
        int links = r->nvlinks[gpu][i];
        sum += links;
        most = links > most ? links : most;
    }
    return sum > MOST_DIRECT ? most : 0;
}

static cinchResult_t add_links(reader *r, double one) {
    int through[MOST_COLUMNS], nvswitch = -1;
    for (int i = 0; i < r->columns; i++) {
        through[i] = links_to_switch(r, i);
        if (through[i] == 0) continue;
        if (nvswitch < 0)
            CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_NVSWITCH, "nvswitch", -1, &nvswitch));
        int part = r->column[i].part, links = through[i];
        CINCH_TRY(cinch_machine_add_link(r->m, part, nvswitch, links, links * one));
        CINCH_TRY(cinch_machine_add_link(r->m, nvswitch, part, links, links * one));
    }
    for (int i = 0; i < r->columns; i++)
        for (int j = 0; j < r->columns; j++)
            if (r->nvlinks[i][j] > 0 && !(through[i] && through[j]))
                CINCH_TRY(cinch_machine_add_link(r->m, r->column[i].part, r->column[j].part,
                                                 r->nvlinks[i][j], r->nvlinks[i][j] * one));
    return cinchSuccess;
}

/* ---- the whole ---- */

static cinchResult_t read_matrix(reader *r, const char *text) {
    r->at = text;
    CINCH_TRY(find_head(r));
    CINCH_TRY(read_rows(r));
    level_matrix(r);
    group(r);
    CINCH_TRY(add_parts(r));
    int most = 0;
    for (int i = 0; i < r->columns; i++)
        for (int j = 0; j < r->columns; j++)
            if (r->nvlinks[i][j] > most) most = r->nvlinks[i][j];
    double one = cinch_nvlink_gbps(most >= MOST_DIRECT ? 90 : 80);
    CINCH_TRY(add_links(r, one));
    cinch_topology_warn(r->m->t,
                        "nvidia-smi topo -m tells no models and speeds: %g GB/s per NVLink, %g per "
                        "PCI link and %g per NIC are assumed",
                        one, CINCH_PCI_GBPS_UNKNOWN, NIC_GBPS);
    return cinchSuccess;
}

cinchResult_t cinch_read_nvsmi(const char *text, cinch_machine *m) {
    reader *r = calloc(1, sizeof *r);
    if (!r) return cinch_fail(cinchSystemError, "out of memory for %.200s", m->name);
    r->m = m;
    m->hosts = 1;
    cinchResult_t result = read_matrix(r, text);
    free(r);
    return result;
}
