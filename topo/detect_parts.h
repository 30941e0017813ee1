/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the detector share: files below the root, the machine as it grows, and what
 * each source adds to it. */
#ifndef CINCH_TOPO_DETECT_PARTS_H_
#define CINCH_TOPO_DETECT_PARTS_H_

#include "topo/detect.h"
#include "topo/read_machine.h"

enum {
    CINCH_DETECT_PATH = 512,
    CINCH_DETECT_NAME = 64,
    CINCH_DETECT_MOST_FILES = 4096, /* of a folder */
    CINCH_DETECT_MOST_GPUS = 256,
    CINCH_DETECT_MOST_LINES = 256, /* ports of NICs */
    CINCH_DETECT_MOST_DEEP = 32,   /* bridges above a PCI part */
    CINCH_DETECT_MOST_NVLINKS = 36 /* of a GPU; 18 is the most that is known */
};

struct cinch_detect_hwloc;

typedef struct cinch_detector {
    char root[CINCH_DETECT_PATH]; /* without a slash at its end; "": this machine */
    bool recorded;
    const char *nvml;
    cinch_machine *m;
    int numa[CINCH_MACHINE_MOST_CPUS]; /* by CPU: its NUMA node; its part is the CPU's number */
    int numas;
    struct cinch_detect_hwloc *hwloc; /* NULL: without */
    int unread;                       /* PCI links without a readable speed */
    int homeless;                     /* PCI parts that tell no CPU */
    char first_unread[CINCH_MACHINE_BUS];
} cinch_detector;

/* ---- files: `path` begins with /sys or /proc ---- */

/* Their text without white space at its end; false: not there, or not to be read. */
bool cinch_detect_text(const cinch_detector *d, const char *path, char *text, size_t room);
/* A file of a folder; a whole number (decimal, or hexadecimal with 0x) in one. */
bool cinch_detect_file(const cinch_detector *d, const char *folder, const char *file, char *text,
                       size_t room);
bool cinch_detect_long(const cinch_detector *d, const char *folder, const char *file, long *value);
bool cinch_detect_there(const cinch_detector *d, const char *path);
/* Where a link leads, as a path that begins with /sys. */
bool cinch_detect_real(const cinch_detector *d, const char *path, char real[CINCH_DETECT_PATH]);

typedef struct cinch_detect_names {
    char (
        *name)[CINCH_DETECT_NAME]; /* shorter ones first, those as long as each other by letters */
    int names;
} cinch_detect_names;
/* A folder's files, none where it cannot be read; free() what is in name. SystemError. */
cinchResult_t cinch_detect_list(const cinch_detector *d, const char *folder,
                                cinch_detect_names *names);

/* ---- PCI ---- */

/* "0000:3b:00.0" from how others write it (00000000:3B:00.0); false: not a PCI address. */
bool cinch_detect_bus(const char *text, char bus[CINCH_MACHINE_BUS]);
/* The last PCI part in a path: its own path and address. */
bool cinch_detect_pci_of(const char *real, char path[CINCH_DETECT_PATH],
                         char bus[CINCH_MACHINE_BUS]);
/* Adds the PCI part at that path, and the switches above it that are not there yet. */
cinchResult_t cinch_detect_add_pci(cinch_detector *d, cinch_machine_kind kind, const char *name,
                                   const char *path, int *part);
/* One that is on no PCI bus that can be seen: it hangs from the first CPU. */
cinchResult_t cinch_detect_add_loose(cinch_detector *d, cinch_machine_kind kind, const char *name,
                                     int *part);

/* ---- what adds parts ---- */

cinchResult_t cinch_detect_cpus(cinch_detector *d);
int cinch_detect_cpu_of(cinch_detector *d, const char *path, const char *bus); /* the part */
cinchResult_t cinch_detect_gpus(cinch_detector *d);
cinchResult_t cinch_detect_nics(cinch_detector *d);

/* ---- hwloc: CPUs and what is near them; all of them do nothing where it is not built in ---- */

void cinch_detect_hwloc_open(cinch_detector *d);
void cinch_detect_hwloc_close(cinch_detector *d);
/* NUMA nodes with a CPU, at most `most`, and the one that a PCI part is at (-1: not told). */
int cinch_detect_hwloc_nodes(const cinch_detector *d, int *node, int most);
int cinch_detect_hwloc_node_of(const cinch_detector *d, const char *bus);

/* ---- NVML ---- */

typedef enum { CINCH_NVLINK_GPU, CINCH_NVLINK_SWITCH, CINCH_NVLINK_CPU } cinch_nvlink_end;

typedef struct cinch_nvml_gpu {
    char bus[CINCH_MACHINE_BUS];
    int sm;
    double c2c; /* GB/s in all, 0: none */
    int links;
    struct {
        cinch_nvlink_end end;
        char bus[CINCH_MACHINE_BUS]; /* of a GPU at the other end */
    } link[CINCH_DETECT_MOST_NVLINKS];
} cinch_nvml_gpu;

/* What NVML tells, with a warning for what it fails to tell; *gpus -1: it cannot be used, and why.
 */
void cinch_detect_nvml(cinch_detector *d, cinch_nvml_gpu *gpu, int most, int *gpus, char *why,
                       size_t room);

/* ---- InfiniBand ---- */

/* A port that is up. */
typedef struct cinch_detect_line {
    char name[CINCH_DETECT_NAME];
    char real[CINCH_DETECT_PATH]; /* of its device; "" none */
    char card[CINCH_DETECT_NAME]; /* InfiniBand: the guid of the card, else "" */
    double mbits;                 /* 0: not told */
    bool fabric;
} cinch_detect_line;

/* By libibverbs where it is built in and the machine is this one, else by sysfs. SystemError. */
cinchResult_t cinch_detect_infiniband(cinch_detector *d, cinch_detect_line *line, int most,
                                      int *lines);

#endif
