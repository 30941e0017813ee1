/* SPDX-License-Identifier: Apache-2.0 */
/* What a file says about a machine, before it is a graph: parts that hang from each other on PCI,
 * links between GPUs, and the numbers behind them. The readers fill one, topo/sane.c mends it, and
 * cinch_machine_graph makes the graph. */
#ifndef CINCH_TOPO_READ_MACHINE_H_
#define CINCH_TOPO_READ_MACHINE_H_

#include "topo/read_xml.h"
#include "topo/readers.h"

typedef enum {
    CINCH_MACHINE_CPU,
    CINCH_MACHINE_SWITCH, /* PCI */
    CINCH_MACHINE_GPU,
    CINCH_MACHINE_NIC,  /* a PCI function, or a socket interface */
    CINCH_MACHINE_PORT, /* of a NIC */
    CINCH_MACHINE_NVSWITCH
} cinch_machine_kind;

enum { CINCH_MACHINE_NAME = 72, CINCH_MACHINE_BUS = 32, CINCH_MACHINE_MOST_CPUS = 256 };

typedef struct cinch_machine_part {
    cinch_machine_kind kind;
    char name[CINCH_MACHINE_NAME];
    char bus[CINCH_MACHINE_BUS]; /* its PCI address, "" none */
    int parent;                  /* what it hangs from, always an earlier part; -1: nothing */
    int host;
    int rank;    /* of a GPU; -1: not told */
    double gbps; /* to the parent; of a port its line; of a CPU to other CPUs */
    double gts;  /* PCI: transfers a second of a lane, 0: not told */
    int lanes;   /* PCI, 0: not told */
    double c2c;  /* of a GPU, to its CPU beside PCI; 0: none */
    bool on_way; /* between a GPU and its CPU */
    int node;    /* its number in the graph */
} cinch_machine_part;

/* One end's word on a link: NVLink, xGMI. */
typedef struct cinch_machine_link {
    int from, to; /* parts */
    int count;    /* of single links; 0: not told */
    double gbps;  /* in all */
} cinch_machine_link;

typedef struct cinch_machine {
    cinch_topology *t; /* gets the warnings */
    const char *name;  /* of the text */
    cinch_machine_part *part;
    int parts, part_room;
    cinch_machine_link *link;
    int links, link_room;
    int hosts, cpus;
    bool mirrored; /* a link told by one end stands for both directions */
    bool seen;     /* the machine itself and no file: it need not have a GPU */
} cinch_machine;

void cinch_machine_free(cinch_machine *m);

/* Adds a part with that name, white space and '#' in it made '_', and cut where it is too long.
 * InvalidArgument: more than CINCH_TOPOLOGY_MOST_PARTS, or more than CINCH_MACHINE_MOST_CPUS. */
cinchResult_t cinch_machine_add(cinch_machine *m, cinch_machine_kind kind, const char *name,
                                int parent, int *part);
cinchResult_t cinch_machine_add_link(cinch_machine *m, int from, int to, int count, double gbps);
int cinch_machine_nvswitch(const cinch_machine *m); /* the part, -1: none yet */

/* GPUs in the order of their ranks where each has its own, else as they came; calls them gpu0.. */
cinchResult_t cinch_machine_graph(cinch_machine *m);

/* Keeps a sentence; beyond CINCH_TOPOLOGY_MOST_WARNINGS the last one says that there were more. */
void cinch_topology_warn(cinch_topology *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- bandwidths, in GB/s per direction ---- */

/* A PCI link by transfers a second of a lane (2.5, 5, 8, 16, 32, 64 GT/s) and lanes; 0: none of
 * these. About three quarters of what the lanes carry. */
double cinch_pci_gbps(double gts, int lanes);
/* The same for the raw GB/s that hwloc writes. */
double cinch_pci_gbps_of_raw(double raw);
bool cinch_pci_raw_is_old(double raw); /* of generation 1 or 2, by its digits */
#define CINCH_PCI_GBPS_UNKNOWN 12.0    /* gen 3 x16, where nothing readable is told */
/* A single NVLink, by compute capability times ten; a single xGMI link, by RCCL's gcn. */
double cinch_nvlink_gbps(int sm);
double cinch_xgmi_gbps(const char *gcn);
/* Between two CPUs. */
double cinch_cpu_gbps(const char *arch, const char *vendor, int family, int model);

/* Reads a whole number; false: none, or out of range. Any text may follow where `tail`. */
bool cinch_read_int(const char *text, int base, long least, long most, bool tail, int *value);
/* A finite number >= 0. */
bool cinch_read_double(const char *text, bool tail, double *value);

/* ---- one per format, each fills t ---- */

cinchResult_t cinch_read_nccl(const cinch_xml_document *xml, cinch_machine *m);
cinchResult_t cinch_read_hwloc(const cinch_xml_document *xml, cinch_machine *m);
cinchResult_t cinch_read_nvsmi(const char *text, cinch_machine *m);
bool cinch_nvsmi_is_head(const char *line); /* of its matrix */

#endif
