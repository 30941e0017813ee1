/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL's topology XML, and RCCL's, which says xgmi and gcn where NCCL says nvlink and sm: CPUs, in
 * them PCI parts, in those GPUs with their links, and NICs with their ports. A file that is meant
 * as a hint lists PCI parts by class only; then the class says what is a GPU or a NIC. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "topo/read_machine.h"
#include "topo/read_xml.h"

typedef struct {
    cinch_machine *m;
    const cinch_xml *gpu[CINCH_TOPOLOGY_MOST_PARTS]; /* by part: links wait until all are known */
    int slots;                                       /* PCI parts without a class */
    int hinted;                                      /* GPUs that only their class tells of */
    int speeds_unread;                               /* PCI links */
    char unread[CINCH_MACHINE_NAME];
} reader;

static cinchResult_t wrong(const reader *r, const cinch_xml *e, const char *attribute,
                           const char *accepted) {
    const char *value = cinch_xml_get(e, attribute);
    if (!value)
        return cinch_fail(cinchInvalidArgument, "%.200s, line %d: <%.40s> has no %s", r->m->name,
                          e->line, e->name, attribute);
    return cinch_fail(cinchInvalidArgument, "%.200s, line %d: %s=\"%.60s\" of <%.40s> is not %s",
                      r->m->name, e->line, attribute, value, e->name, accepted);
}

static const char *text_of(const cinch_xml *e, const char *attribute) {
    const char *value = cinch_xml_get(e, attribute);
    return value ? value : "";
}

/* An attribute that, where it is there, must be a whole number. */
static cinchResult_t optional_int(const reader *r, const cinch_xml *e, const char *attribute,
                                  long most, int *value) {
    const char *text = cinch_xml_get(e, attribute);
    if (!text || cinch_read_int(text, 0, 0, most, false, value)) return cinchSuccess;
    return wrong(r, e, attribute, "a whole number that is 0 or above, within reason");
}

/* The bandwidth that cinch writes beside what NCCL knows. */
static bool read_exact(const cinch_xml *e, double *gbps) {
    double exact;
    if (!cinch_read_double(cinch_xml_get(e, "gbps"), false, &exact) || exact <= 0 || exact > 1e6)
        return false;
    *gbps = exact;
    return true;
}

/* ---- parts ---- */

static void read_pci_link(reader *r, const cinch_xml *e, int part) {
    cinch_machine_part *p = &r->m->part[part];
    const char *speed = text_of(e, "link_speed");
    read_exact(e, &p->gbps);
    if (!cinch_read_double(speed, true, &p->gts)) p->gts = 0;
    if (!cinch_read_int(text_of(e, "link_width"), 10, 1, 64, false, &p->lanes)) p->lanes = 0;
    if (p->gbps > 0) return;
    p->gbps = cinch_pci_gbps(p->gts, p->lanes);
    if (p->gbps > 0) return;
    p->gbps = CINCH_PCI_GBPS_UNKNOWN;
    p->gts = 0, p->lanes = 0;
    if (r->speeds_unread++ == 0) memcpy(r->unread, p->name, sizeof r->unread);
}

static cinchResult_t add_pci(reader *r, const cinch_xml *e, cinch_machine_kind kind, int parent,
                             int *part) {
    const char *bus = text_of(e, "busid");
    char name[CINCH_MACHINE_NAME];
    snprintf(name, sizeof name, "pci:%.40s", bus);
    CINCH_TRY(cinch_machine_add(r->m, kind, name, parent, part));
    snprintf(r->m->part[*part].bus, CINCH_MACHINE_BUS, "%.31s", bus);
    read_pci_link(r, e, *part);
    return cinchSuccess;
}

/* A port that the XML repeats under each CPU is one. */
static int find_port(const cinch_machine *m, const char *name, int nic) {
    for (int i = 0; i < m->parts; i++) {
        const cinch_machine_part *p = &m->part[i];
        if (p->kind != CINCH_MACHINE_PORT || p->host != m->part[nic].host) continue;
        const cinch_machine_part *other = &m->part[p->parent];
        if (strcmp(p->name + 4, name) == 0 && strcmp(other->bus, m->part[nic].bus) == 0) return i;
    }
    return -1;
}

static cinchResult_t read_port(reader *r, const cinch_xml *e, int nic) {
    cinch_machine *m = r->m;
    const char *told = text_of(e, "name");
    char name[CINCH_MACHINE_NAME];
    double mbits = 0;
    int part;
    snprintf(name, sizeof name, "net:%.51s", *told ? told : text_of(e, "dev"));
    for (char *c = name; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == '#' || (unsigned char)*c >= 0x7f) *c = '_';
    if (find_port(m, name + 4, nic) >= 0) {
        cinch_topology_warn(m->t, "the NIC %s is listed more than once: taken once", name + 4);
        return cinchSuccess;
    }
    CINCH_TRY(cinch_machine_add(m, CINCH_MACHINE_PORT, name, nic, &part));
    cinch_machine_part *p = &m->part[part];
    if (!cinch_read_double(cinch_xml_get(e, "speed"), false, &mbits) || mbits == 0) {
        mbits = 10000;
        cinch_topology_warn(m->t, "the NIC %s has no readable speed: 10 Gb/s is planned with",
                            name + 4);
    }
    p->gbps = mbits / 8000;
    read_exact(e, &p->gbps);
    cinch_machine_part *card = &m->part[nic];
    if (strncmp(card->name, "pci:", 4) == 0 || strcmp(card->name, "unnamed") == 0)
        memcpy(card->name, name + 4, sizeof card->name - 4);
    return cinchSuccess;
}

static cinchResult_t read_ports(reader *r, const cinch_xml *nic, int part) {
    for (const cinch_xml *e = nic->first; e; e = e->next)
        if (cinch_xml_is(e, "net")) CINCH_TRY(read_port(r, e, part));
    return cinchSuccess;
}

/* A NIC that no PCI part is told of hangs from its CPU. */
static cinchResult_t read_loose_nic(reader *r, const cinch_xml *e, int cpu) {
    int part, before;
    CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_NIC, "", cpu, &part));
    r->m->part[part].gbps = CINCH_PCI_GBPS_UNKNOWN;
    read_exact(e, &r->m->part[part].gbps);
    before = r->m->parts;
    CINCH_TRY(read_ports(r, e, part));
    if (r->m->parts == before) r->m->parts = part; /* nothing but repeats: no card either */
    return cinchSuccess;
}

static cinchResult_t read_gpu(reader *r, const cinch_xml *e, int part) {
    cinch_machine_part *p = &r->m->part[part];
    p->kind = CINCH_MACHINE_GPU;
    r->gpu[part] = e;
    return optional_int(r, e, "rank", 1 << 20, &p->rank);
}

static int count_children(const cinch_xml *e, const char *name) {
    int count = 0;
    for (const cinch_xml *c = e->first; c; c = c->next) count += cinch_xml_is(c, name);
    return count;
}

/* What a PCI part without anything in it is, by its class. */
static cinchResult_t read_hint(reader *r, const cinch_xml *e, int parent) {
    int class, part, port;
    const char *text = cinch_xml_get(e, "class");
    char name[CINCH_MACHINE_NAME];
    if (!text || !cinch_read_int(text, 16, 0, 0xffffff, false, &class)) {
        r->slots++;
        return cinchSuccess;
    }
    bool gpu = class >> 8 == 0x0302 || class >> 8 == 0x0380 || class >> 8 == 0x1200;
    r->hinted += gpu;
    if (gpu) return add_pci(r, e, CINCH_MACHINE_GPU, parent, &part);
    if (class >> 16 != 0x02) return cinchSuccess;
    CINCH_TRY(add_pci(r, e, CINCH_MACHINE_NIC, parent, &part));
    snprintf(name, sizeof name, "net:%.40s", r->m->part[part].bus);
    snprintf(r->m->part[part].name, CINCH_MACHINE_NAME, "%s", r->m->part[part].bus);
    CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_PORT, name, part, &port));
    r->m->part[port].gbps = r->m->part[part].gbps;
    return cinchSuccess;
}

static cinchResult_t read_pci(reader *r, const cinch_xml *e, int parent) {
    int gpus = count_children(e, "gpu"), nics = count_children(e, "nic"), part, inner;
    if (!cinch_xml_get(e, "busid")) return wrong(r, e, "busid", "");
    if (!e->first) return read_hint(r, e, parent);
    bool bridge = count_children(e, "pci") > 0 || gpus + nics != 1;
    cinch_machine_kind kind = bridge ? CINCH_MACHINE_SWITCH
                              : gpus ? CINCH_MACHINE_GPU
                                     : CINCH_MACHINE_NIC;
    CINCH_TRY(add_pci(r, e, kind, parent, &part));
    for (const cinch_xml *c = e->first; c; c = c->next) {
        if (cinch_xml_is(c, "pci")) {
            CINCH_TRY(read_pci(r, c, part));
        } else if (cinch_xml_is(c, "gpu") || cinch_xml_is(c, "nic")) {
            inner = part;
            if (bridge) CINCH_TRY(add_pci(r, e, CINCH_MACHINE_NIC, part, &inner));
            if (cinch_xml_is(c, "gpu"))
                CINCH_TRY(read_gpu(r, c, inner));
            else
                CINCH_TRY(read_ports(r, c, inner));
        }
    }
    return cinchSuccess;
}

static cinchResult_t read_cpu(reader *r, const cinch_xml *e, int host, int hosts) {
    char name[CINCH_MACHINE_NAME];
    int numa = 0, family = 0, model = 0, part;
    const char *told = text_of(e, "numaid");
    if (!cinch_read_int(told, 0, -1, 1 << 20, false, &numa))
        return wrong(r, e, "numaid", "a whole number from -1 to 1048576");
    CINCH_TRY(optional_int(r, e, "familyid", 1 << 20, &family));
    CINCH_TRY(optional_int(r, e, "modelid", 1 << 20, &model));
    if (hosts > 1)
        snprintf(name, sizeof name, "h%d/cpu%d", host, numa);
    else
        snprintf(name, sizeof name, "cpu%d", numa);
    CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_CPU, name, -1, &part));
    cinch_machine_part *p = &r->m->part[part];
    p->host = host;
    p->gbps = cinch_cpu_gbps(text_of(e, "arch"), text_of(e, "vendor"), family, model);
    read_exact(e, &p->gbps);
    for (const cinch_xml *c = e->first; c; c = c->next) {
        if (cinch_xml_is(c, "pci")) CINCH_TRY(read_pci(r, c, part));
        if (cinch_xml_is(c, "nic")) CINCH_TRY(read_loose_nic(r, c, part));
    }
    return cinchSuccess;
}

/* ---- links between GPUs ---- */

static int find_gpu(const cinch_machine *m, const char *bus, int host) {
    for (int i = 0; i < m->parts; i++)
        if (m->part[i].kind == CINCH_MACHINE_GPU && m->part[i].host == host &&
            strcasecmp(m->part[i].bus, bus) == 0)
            return i;
    return -1;
}

/* All switches of a machine are one: how they share a GPU's links is theirs to know. */
static cinchResult_t add_switch_link(cinch_machine *m, int gpu, int count, double gbps) {
    int part = cinch_machine_nvswitch(m);
    if (part < 0) CINCH_TRY(cinch_machine_add(m, CINCH_MACHINE_NVSWITCH, "nvswitch", -1, &part));
    CINCH_TRY(cinch_machine_add_link(m, gpu, part, count, gbps));
    return cinch_machine_add_link(m, part, gpu, count, gbps);
}

static cinchResult_t read_link(reader *r, const cinch_xml *e, int gpu, double one) {
    cinch_machine *m = r->m;
    int count = 1, class = 0, to;
    const char *target = cinch_xml_get(e, "target");
    if (!target) return wrong(r, e, "target", "");
    if (!cinch_read_int(text_of(e, "count"), 10, 1, 1024, false, &count))
        return wrong(r, e, "count", "a whole number from 1 to 1024");
    double gbps = count * one;
    read_exact(e, &gbps);
    if (cinch_xml_get(e, "tclass") &&
        !cinch_read_int(text_of(e, "tclass"), 16, 0, 0xffffff, false, &class))
        return wrong(r, e, "tclass", "a PCI class such as 0x068000");
    if (class == 0x068000 || strncasecmp(target, "fffffff:", 8) == 0)
        return add_switch_link(m, gpu, count, gbps);
    if (class == 0x068001) { /* POWER9: to the CPU */
        for (to = gpu; m->part[to].parent >= 0;) to = m->part[to].parent;
        CINCH_TRY(cinch_machine_add_link(m, gpu, to, count, gbps));
        return cinch_machine_add_link(m, to, gpu, count, gbps);
    }
    to = find_gpu(m, target, m->part[gpu].host);
    if (to >= 0) return cinch_machine_add_link(m, gpu, to, count, gbps);
    cinch_topology_warn(m->t, "the GPU at %s has %d links to %.40s, which is not there: left out",
                        m->part[gpu].bus, count, target);
    return cinchSuccess;
}

static cinchResult_t read_links(reader *r, const cinch_xml *gpu, int part) {
    int sm = 0, count = 0;
    double mbytes;
    CINCH_TRY(optional_int(r, gpu, "sm", 10000, &sm));
    for (const cinch_xml *e = gpu->first; e; e = e->next) {
        if (cinch_xml_is(e, "nvlink")) {
            CINCH_TRY(read_link(r, e, part, cinch_nvlink_gbps(sm)));
        } else if (cinch_xml_is(e, "xgmi")) {
            CINCH_TRY(read_link(r, e, part, cinch_xgmi_gbps(text_of(gpu, "gcn"))));
        } else if (cinch_xml_is(e, "c2c")) {
            if (!cinch_read_double(cinch_xml_get(e, "bw"), false, &mbytes) || mbytes > 1e9)
                return wrong(r, e, "bw", "a number of MB/s up to 1e9");
            if (!cinch_read_int(text_of(e, "count"), 10, 1, 1024, false, &count))
                return wrong(r, e, "count", "a whole number from 1 to 1024");
            r->m->part[part].c2c += mbytes * count / 1000;
        }
    }
    return cinchSuccess;
}

/* ---- the whole ---- */

/* CPUs with the same host_hash share a host; hosts are numbered as they come. */
static cinchResult_t read_system(reader *r, const cinch_xml *system) {
    const char *hash[CINCH_MACHINE_MOST_CPUS];
    int hosts = 0;
    for (int pass = 0; pass < 2; pass++) /* first how many, as that decides the names */
        for (const cinch_xml *e = system->first; e; e = e->next) {
            if (!cinch_xml_is(e, "cpu")) continue;
            int host = 0;
            while (host < hosts && strcmp(hash[host], text_of(e, "host_hash")) != 0) host++;
            if (host == hosts && hosts < CINCH_MACHINE_MOST_CPUS)
                hash[hosts++] = text_of(e, "host_hash");
            if (pass == 1) CINCH_TRY(read_cpu(r, e, host, hosts));
        }
    r->m->hosts = hosts;
    for (int i = 0, parts = r->m->parts; i < parts; i++)
        if (r->gpu[i]) CINCH_TRY(read_links(r, r->gpu[i], i));
    if (r->slots > 0)
        cinch_topology_warn(r->m->t, "%d PCI parts have no class, so what they are is not told",
                            r->slots);
    if (r->hinted > 0)
        cinch_topology_warn(r->m->t,
                            "%d GPUs are told of by their PCI class only, so what NVLinks they "
                            "have is not known",
                            r->hinted);
    if (r->speeds_unread > 0)
        cinch_topology_warn(r->m->t,
                            "%d PCI links have no readable speed and width, the first of them that "
                            "of %s: %g GB/s, as of x16 of generation 3, is planned with",
                            r->speeds_unread, r->unread, CINCH_PCI_GBPS_UNKNOWN);
    return cinchSuccess;
}

cinchResult_t cinch_read_nccl(const cinch_xml_document *xml, cinch_machine *m) {
    if (!cinch_xml_is(xml->root, "system"))
        return cinch_fail(cinchInvalidArgument,
                          "%.200s, line %d: <%.40s> where NCCL's topology has <system>", m->name,
                          xml->root->line, xml->root->name);
    reader *r = calloc(1, sizeof *r);
    if (!r) return cinch_fail(cinchSystemError, "out of memory for %.200s", m->name);
    r->m = m;
    cinchResult_t result = read_system(r, xml->root);
    free(r);
    if (result == cinchSuccess && m->cpus == 0)
        return cinch_fail(cinchInvalidArgument, "%.200s has no <cpu> in its <system>", m->name);
    return result;
}
