/* SPDX-License-Identifier: Apache-2.0 */
/* hwloc's XML, version 2: packages, the PCI bridges and devices below them, what the system calls
 * these devices, and matrices of bandwidth between GPUs. PCI speeds are the links' current ones. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo/read_machine.h"
#include "topo/read_xml.h"

/* The types of an OSDev in version 2. */
enum { OS_GPU = 1, OS_NETWORK = 2, OS_FABRIC = 3, OS_COPROC = 5 };

/* hwloc writes what a link carries at most; about so much of it is payload (see NVLink's table). */
#define PAYLOAD 0.8
/* Seven links of 64 GB/s, which no GPU with xGMI passes. */
#define MOST_XGMI_MBYTES 448000.0
/* An Ethernet interface whose bus is so many times slower is for management. */
#define MANAGEMENT 16.0

enum { MOST_MATRIX = 512, MOST_IDS = 4 * CINCH_TOPOLOGY_MOST_PARTS };

typedef struct {
    cinch_machine *m;
    const char *arch;
    int ids, left_out, unread;
    bool fabric;    /* some NIC has an OpenFabrics device */
    double fastest; /* raw GB/s of an Ethernet interface's bus */
    struct {
        int gp, part;
    } id[MOST_IDS]; /* what the matrices call a part */
} reader;

static const char *text_of(const cinch_xml *e, const char *attribute) {
    const char *value = cinch_xml_get(e, attribute);
    return value ? value : "";
}

static bool is_object(const cinch_xml *e, const char *type) {
    return cinch_xml_is(e, "object") && strcmp(text_of(e, "type"), type) == 0;
}

static const char *info_of(const cinch_xml *object, const char *name) {
    for (const cinch_xml *e = object->first; e; e = e->next)
        if (cinch_xml_is(e, "info") && strcmp(text_of(e, "name"), name) == 0)
            return text_of(e, "value");
    return "";
}

static void remember(reader *r, const cinch_xml *e, int part) {
    int gp;
    if (r->ids == MOST_IDS ||
        !cinch_read_int(cinch_xml_get(e, "gp_index"), 10, 0, 1L << 30, false, &gp))
        return;
    r->id[r->ids].gp = gp;
    r->id[r->ids++].part = part;
}

/* ---- what a PCI device is ---- */

static int os_type(const cinch_xml *e) {
    int type = -1;
    if (is_object(e, "OSDev")) cinch_read_int(text_of(e, "osdev_type"), 10, 0, 100, false, &type);
    return type;
}

static const cinch_xml *os_device(const cinch_xml *device, int type) {
    for (const cinch_xml *e = device->first; e; e = e->next)
        if (os_type(e) == type) return e;
    return NULL;
}

static int class_of(const cinch_xml *device) {
    int class = 0;
    cinch_read_int(text_of(device, "pci_type"), 16, 0, 0xffff, true, &class);
    return class;
}

static double raw_gbps(const cinch_xml *device) {
    double raw = 0;
    cinch_read_double(cinch_xml_get(device, "pci_link_speed"), false, &raw);
    return raw;
}

static bool is_nvswitch(const cinch_xml *e) {
    return is_object(e, "PCIDev") && strcmp(text_of(e, "subtype"), "NVSwitch") == 0;
}

static bool is_gpu(const cinch_xml *e) {
    if (!is_object(e, "PCIDev") || is_nvswitch(e)) return false;
    int class = class_of(e);
    if (class == 0x0302 || class == 0x0380 || class == 0x1200) return true;
    for (const cinch_xml *c = e->first; c; c = c->next) {
        const char *name = text_of(c, "name");
        int type = os_type(c);
        if ((type == OS_GPU || type == OS_COPROC) &&
            (strncmp(name, "cuda", 4) == 0 || strncmp(name, "nvml", 4) == 0 ||
             strncmp(name, "rsmi", 4) == 0 || strncmp(name, "ze", 2) == 0))
            return true;
    }
    return false;
}

/* What may be a NIC: a virtual function that nothing uses has no name of the system's. */
static bool is_network(const cinch_xml *e) {
    return is_object(e, "PCIDev") && (os_device(e, OS_FABRIC) || os_device(e, OS_NETWORK));
}

static bool is_nic(const reader *r, const cinch_xml *e) {
    if (!is_network(e)) return false;
    if (r->fabric) return os_device(e, OS_FABRIC) != NULL;
    return raw_gbps(e) * MANAGEMENT >= r->fastest;
}

static void survey(reader *r, const cinch_xml *e) {
    if (is_network(e)) {
        if (os_device(e, OS_FABRIC)) r->fabric = true;
        r->fastest = fmax(r->fastest, raw_gbps(e));
    }
    for (const cinch_xml *c = e->first; c; c = c->next) survey(r, c);
}

static bool leads_to_parts(const reader *r, const cinch_xml *e) {
    if (is_gpu(e) || is_nic(r, e)) return true;
    for (const cinch_xml *c = e->first; c; c = c->next)
        if (leads_to_parts(r, c)) return true;
    return false;
}

/* ---- parts ---- */

static cinchResult_t add_pci(reader *r, const cinch_xml *e, cinch_machine_kind kind,
                             const char *name, int parent, int *part) {
    CINCH_TRY(cinch_machine_add(r->m, kind, name, parent, part));
    cinch_machine_part *p = &r->m->part[*part];
    snprintf(p->bus, sizeof p->bus, "%.31s", text_of(e, "pci_busid"));
    double raw = raw_gbps(e);
    p->gbps = raw > 0 && raw < 1e6 ? cinch_pci_gbps_of_raw(raw) : CINCH_PCI_GBPS_UNKNOWN;
    if (raw > 0 && cinch_pci_raw_is_old(raw)) p->gts = 2.5; /* what a GPU does only when it idles */
    r->unread += raw <= 0 || raw >= 1e6;
    remember(r, e, *part);
    for (const cinch_xml *c = e->first; c; c = c->next)
        if (is_object(c, "OSDev")) remember(r, c, *part);
    return cinchSuccess;
}

static cinchResult_t add_nic(reader *r, const cinch_xml *e, int parent) {
    char name[CINCH_MACHINE_NAME];
    int card, port;
    const cinch_xml *device = os_device(e, OS_FABRIC);
    if (!device) device = os_device(e, OS_NETWORK);
    CINCH_TRY(add_pci(r, e, CINCH_MACHINE_NIC, text_of(device, "name"), parent, &card));
    snprintf(name, sizeof name, "net:%.40s", r->m->part[card].name);
    CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_PORT, name, card, &port));
    r->m->part[port].gbps = r->m->part[card].gbps;
    return cinchSuccess;
}

static cinchResult_t add_cpu(reader *r, const cinch_xml *e) {
    char name[32];
    int index = r->m->cpus, family = 0, model = 0, part;
    cinch_read_int(text_of(e, "os_index"), 10, 0, 1 << 20, false, &index);
    snprintf(name, sizeof name, "cpu%d", index);
    CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_CPU, name, -1, &part));
    cinch_read_int(info_of(e, "CPUFamilyNumber"), 10, 0, 1 << 20, false, &family);
    cinch_read_int(info_of(e, "CPUModelNumber"), 10, 0, 1 << 20, false, &model);
    r->m->part[part].gbps = cinch_cpu_gbps(r->arch, info_of(e, "CPUVendor"), family, model);
    remember(r, e, part);
    return cinchSuccess;
}

static cinchResult_t add_cpus(reader *r, const cinch_xml *e) {
    if (is_object(e, "Package")) return add_cpu(r, e);
    for (const cinch_xml *c = e->first; c; c = c->next) CINCH_TRY(add_cpus(r, c));
    return cinchSuccess;
}

static cinchResult_t add_device(reader *r, const cinch_xml *e, int parent) {
    int part;
    if (is_gpu(e)) return add_pci(r, e, CINCH_MACHINE_GPU, text_of(e, "pci_busid"), parent, &part);
    if (is_nic(r, e)) return add_nic(r, e, parent);
    r->left_out += is_network(e);
    if (!is_nvswitch(e)) return cinchSuccess;
    part = cinch_machine_nvswitch(r->m);
    if (part < 0) CINCH_TRY(cinch_machine_add(r->m, CINCH_MACHINE_NVSWITCH, "nvswitch", -1, &part));
    remember(r, e, part);
    return cinchSuccess;
}

/* Walks in the order of add_cpus, so that the next package is the next CPU's part; parent -1: not
 * in a package. What hangs from no package is given to the first. */
static cinchResult_t add_devices(reader *r, const cinch_xml *e, int parent, int *cpu) {
    char name[CINCH_MACHINE_NAME];
    if (is_object(e, "Package") && parent < 0) parent = (*cpu)++;
    if (is_object(e, "PCIDev")) CINCH_TRY(add_device(r, e, parent < 0 ? 0 : parent));
    if (is_object(e, "Bridge") && strncmp(text_of(e, "bridge_type"), "1-", 2) == 0 &&
        leads_to_parts(r, e)) {
        snprintf(name, sizeof name, "pci:%.40s", text_of(e, "pci_busid"));
        CINCH_TRY(add_pci(r, e, CINCH_MACHINE_SWITCH, name, parent < 0 ? 0 : parent, &parent));
    }
    for (const cinch_xml *c = e->first; c; c = c->next) CINCH_TRY(add_devices(r, c, parent, cpu));
    return cinchSuccess;
}

/* ---- matrices ---- */

static int part_of_id(const reader *r, int gp) {
    for (int i = 0; i < r->ids; i++)
        if (r->id[i].gp == gp) return r->id[i].part;
    return -1;
}

/* Numbers of all <kind> children, one after the other, each with an optional `Type:` before it. */
static cinchResult_t read_numbers(const reader *r, const cinch_xml *matrix, const char *kind,
                                  int count, double *value) {
    int got = 0;
    for (const cinch_xml *e = matrix->first; e; e = e->next) {
        if (!cinch_xml_is(e, kind)) continue;
        for (const char *at = e->text; *(at += strspn(at, " \t\r\n"));) {
            size_t length = strcspn(at, " \t\r\n");
            const char *colon = memchr(at, ':', length);
            if (got == count || !cinch_read_double(colon ? colon + 1 : at, true, &value[got]))
                return cinch_fail(cinchInvalidArgument,
                                  "%.200s, line %d: <%s> of %.40s has \"%.20s\" where %d numbers "
                                  "are accepted",
                                  r->m->name, e->line, kind, text_of(matrix, "name"), at, count);
            got++;
            at += length;
        }
    }
    if (got == count) return cinchSuccess;
    return cinch_fail(cinchInvalidArgument, "%.200s, line %d: %.40s has %d %s and needs %d",
                      r->m->name, matrix->line, text_of(matrix, "name"), got, kind, count);
}

/* GPUs that are not neighbours have an xGMI bandwidth too in some versions: what is more than any
 * GPU has links for is shrunk to that. */
static double shrink_xgmi(reader *r, int n, const double *value) {
    double most = 0;
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++) sum += i == j ? 0 : value[i * n + j];
        most = fmax(most, sum);
    }
    if (most <= MOST_XGMI_MBYTES) return 1;
    cinch_topology_warn(r->m->t,
                        "XGMIBandwidth gives a GPU %g GB/s in all, more than any has, as pairs "
                        "that are not neighbours are in it: all are shrunk to %.3g of it",
                        most / 1000, MOST_XGMI_MBYTES / most);
    return MOST_XGMI_MBYTES / most;
}

/* `index` are the objects' numbers, and become those of their parts. */
static cinchResult_t use_matrix(reader *r, int n, double *index, const double *value,
                                double scale) {
    for (int i = 0; i < n; i++) index[i] = part_of_id(r, (int)fmin(index[i], 1L << 30));
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double gbps = value[i * n + j] / 1000 * PAYLOAD * scale;
            int from = (int)index[i], to = (int)index[j];
            /* Switches are one part: what joins them to each other stays inside. */
            if (gbps <= 0 || from < 0 || to < 0 || from == to) continue;
            if (!(gbps < 1e6))
                return cinch_fail(cinchInvalidArgument, "%.200s: a link of %g GB/s between GPUs",
                                  r->m->name, gbps);
            CINCH_TRY(cinch_machine_add_link(r->m, from, to, 1, gbps));
        }
    return cinchSuccess;
}

static cinchResult_t read_matrix(reader *r, const cinch_xml *e) {
    int n;
    bool xgmi = strcmp(text_of(e, "name"), "XGMIBandwidth") == 0;
    if (!xgmi && strcmp(text_of(e, "name"), "NVLinkBandwidth") != 0) return cinchSuccess;
    if (!cinch_read_int(cinch_xml_get(e, "nbobjs"), 10, 1, MOST_MATRIX, false, &n))
        return cinch_fail(cinchInvalidArgument,
                          "%.200s, line %d: %.40s has nbobjs=\"%.40s\": 1 to "
                          "%d are accepted",
                          r->m->name, e->line, text_of(e, "name"), text_of(e, "nbobjs"),
                          MOST_MATRIX);
    double *value = malloc(((size_t)n * (size_t)n + (size_t)n) * sizeof *value);
    if (!value) return cinch_fail(cinchSystemError, "out of memory for %.200s", r->m->name);
    double *index = value + (size_t)n * (size_t)n;
    cinchResult_t result = read_numbers(r, e, "indexes", n, index);
    if (result == cinchSuccess) result = read_numbers(r, e, "u64values", n * n, value);
    if (result == cinchSuccess)
        result = use_matrix(r, n, index, value, xgmi ? shrink_xgmi(r, n, value) : 1);
    free(value);
    return result;
}

/* ---- the whole ---- */

static cinchResult_t check_version(const cinch_xml *root, const char *name) {
    const char *version = cinch_xml_get(root, "version");
    if (!cinch_xml_is(root, "topology"))
        return cinch_fail(cinchInvalidArgument,
                          "%.200s, line %d: <%.40s> where hwloc's XML has <topology>", name,
                          root->line, root->name);
    if (!version)
        return cinch_fail(cinchInvalidArgument,
                          "%.200s is hwloc's XML of version 1: version 2 is read, which lstopo of "
                          "hwloc 2 writes",
                          name);
    if (strncmp(version, "2.", 2) != 0)
        return cinch_fail(cinchInvalidArgument,
                          "%.200s is hwloc's XML of version %.20s: version 2 is read, which lstopo "
                          "of hwloc 2 writes",
                          name, version);
    return cinchSuccess;
}

static void warn_assumed(const reader *r) {
    cinch_topology *t = r->m->t;
    int nics = 0;
    for (int i = 0; i < r->m->parts; i++) nics += r->m->part[i].kind == CINCH_MACHINE_NIC;
    if (r->left_out > 0)
        cinch_topology_warn(t, "network interfaces left out: %d, as %s", r->left_out,
                            r->fabric ? "others have an OpenFabrics device"
                                      : "their bus is far slower than another's");
    if (nics > 0)
        cinch_topology_warn(t, "hwloc does not tell how fast NICs are: as their buses is assumed");
    if (r->unread > 0)
        cinch_topology_warn(t,
                            "%d PCI links have no readable speed: %g GB/s, as of x16 of generation "
                            "3, is planned with",
                            r->unread, CINCH_PCI_GBPS_UNKNOWN);
}

static cinchResult_t read_topology(reader *r, const cinch_xml *root) {
    const cinch_xml *machine = root->first;
    while (machine && !is_object(machine, "Machine")) machine = machine->next;
    if (!machine)
        return cinch_fail(cinchInvalidArgument, "%.200s has no <object type=\"Machine\">",
                          r->m->name);
    r->arch = info_of(machine, "Architecture");
    survey(r, machine);
    CINCH_TRY(add_cpus(r, machine));
    if (r->m->cpus == 0) CINCH_TRY(add_cpu(r, machine));
    int cpu = 0;
    CINCH_TRY(add_devices(r, machine, -1, &cpu));
    for (const cinch_xml *e = root->first; e; e = e->next)
        if (cinch_xml_is(e, "distances2") || cinch_xml_is(e, "distances2hetero"))
            CINCH_TRY(read_matrix(r, e));
    warn_assumed(r);
    return cinchSuccess;
}

cinchResult_t cinch_read_hwloc(const cinch_xml_document *xml, cinch_machine *m) {
    CINCH_TRY(check_version(xml->root, m->name));
    reader *r = calloc(1, sizeof *r);
    if (!r) return cinch_fail(cinchSystemError, "out of memory for %.200s", m->name);
    r->m = m;
    m->hosts = 1;
    cinchResult_t result = read_topology(r, xml->root);
    free(r);
    return result;
}
