/* SPDX-License-Identifier: Apache-2.0 */
/* GPUs by their PCI class, and what NVML tells of NVIDIA's: which of them may be used, NVLink, C2C.
 */
#include <stdlib.h>
#include <string.h>

#include "topo/detect_parts.h"

#define DEVICES "/sys/bus/pci/devices"

enum { NVIDIA = 0x10de, AMD = 0x1002 };

typedef struct {
    cinch_detector *d;
    cinch_nvml_gpu *nvml;
    int part[CINCH_DETECT_MOST_GPUS]; /* by NVML's number; -1: none yet */
    int gpus;                         /* NVML's; -1: it tells nothing */
    int nvidia;                       /* in sysfs */
    int hidden;                       /* of them NVML does not list */
} finder;

/* The vendor of a GPU, 0: not one. Display controllers are a GPU where they are of a maker of GPUs
 * for computing; a virtual function is one only where its own device cannot be seen. */
static long gpu_vendor(const cinch_detector *d, const char *folder) {
    char path[CINCH_DETECT_PATH + 16];
    long class, vendor;
    if (!cinch_detect_long(d, folder, "class", &class) ||
        !cinch_detect_long(d, folder, "vendor", &vendor))
        return 0;
    snprintf(path, sizeof path, "%s/physfn", folder);
    if (cinch_detect_there(d, path)) return 0;
    class >>= 8;
    bool shows = class == 0x0300 || class == 0x0302;
    if (vendor == NVIDIA) return shows ? NVIDIA : 0;
    return vendor == AMD && (shows || class == 0x0380 || class == 0x1200) ? AMD : 0;
}

static int nvml_number(const finder *f, const char *bus) {
    for (int i = 0; i < f->gpus; i++)
        if (strcmp(f->nvml[i].bus, bus) == 0) return i;
    return -1;
}

static cinchResult_t add_by_sysfs(finder *f, const cinch_detect_names *names) {
    char path[CINCH_DETECT_PATH], real[CINCH_DETECT_PATH], bus[CINCH_MACHINE_BUS];
    for (int i = 0; i < names->names; i++) {
        int part;
        snprintf(path, sizeof path, DEVICES "/%s", names->name[i]);
        long vendor = gpu_vendor(f->d, path);
        if (!vendor || !cinch_detect_bus(names->name[i], bus)) continue;
        int number = vendor == NVIDIA ? nvml_number(f, bus) : -1;
        if (vendor == NVIDIA && f->gpus >= 0 && number < 0) {
            f->hidden++;
            continue;
        }
        if (!cinch_detect_real(f->d, path, real)) snprintf(real, sizeof real, "/%s", bus);
        CINCH_TRY(cinch_detect_add_pci(f->d, CINCH_MACHINE_GPU, bus, real, &part));
        if (number >= 0) f->part[number] = part;
    }
    return cinchSuccess;
}

/* GPUs that only NVML tells of: without PCI in /sys, or without PCI at all. */
static cinchResult_t add_rest(finder *f) {
    for (int i = 0; i < f->gpus; i++) {
        if (f->part[i] >= 0) continue;
        CINCH_TRY(cinch_detect_add_loose(f->d, CINCH_MACHINE_GPU, f->nvml[i].bus, &f->part[i]));
        snprintf(f->d->m->part[f->part[i]].bus, CINCH_MACHINE_BUS, "%s", f->nvml[i].bus);
        cinch_topology_warn(f->d->m->t,
                            "GPU %s is not in /sys: it is taken to be at the first CPU, over PCI "
                            "with %g GB/s",
                            f->nvml[i].bus, CINCH_PCI_GBPS_UNKNOWN);
    }
    return cinchSuccess;
}

/* ---- links ---- */

static cinchResult_t join(cinch_machine *m, int gpu, int other, double gbps) {
    CINCH_TRY(cinch_machine_add_link(m, gpu, other, 1, gbps));
    return cinch_machine_add_link(m, other, gpu, 1, gbps);
}

static cinchResult_t add_links(finder *f, int number) {
    cinch_machine *m = f->d->m;
    const cinch_nvml_gpu *gpu = &f->nvml[number];
    int part = f->part[number], lost = 0;
    double gbps = cinch_nvlink_gbps(gpu->sm);
    m->part[part].c2c = gpu->c2c;
    for (int i = 0; i < gpu->links; i++) {
        int other;
        if (gpu->link[i].end == CINCH_NVLINK_SWITCH) {
            /* All switches of a machine are one: how they share a GPU's links is theirs to know. */
            other = cinch_machine_nvswitch(m);
            if (other < 0)
                CINCH_TRY(cinch_machine_add(m, CINCH_MACHINE_NVSWITCH, "nvswitch", -1, &other));
            CINCH_TRY(join(m, part, other, gbps));
        } else if (gpu->link[i].end == CINCH_NVLINK_CPU) {
            for (other = part; m->part[other].parent >= 0;) other = m->part[other].parent;
            CINCH_TRY(join(m, part, other, gbps));
        } else if ((other = nvml_number(f, gpu->link[i].bus)) >= 0) {
            /* Each end tells of it, and both are compared when the machine is mended. */
            CINCH_TRY(cinch_machine_add_link(m, part, f->part[other], 1, gbps));
        } else {
            lost++;
        }
    }
    if (lost > 0)
        cinch_topology_warn(m->t,
                            "GPU %s has %d NVLinks to GPUs that cannot be seen here: left out",
                            gpu->bus, lost);
    return cinchSuccess;
}

/* ---- the whole ---- */

static int count_nvidia(const cinch_detector *d, const cinch_detect_names *names) {
    char path[CINCH_DETECT_PATH];
    int gpus = 0;
    for (int i = 0; i < names->names; i++) {
        snprintf(path, sizeof path, DEVICES "/%s", names->name[i]);
        gpus += gpu_vendor(d, path) == NVIDIA;
    }
    return gpus;
}

/* NVML takes long to start, and is asked only where there is a GPU for it. */
static bool wants_nvml(const finder *f) {
    if (f->d->nvml) return f->d->nvml[0] != '\0';
    if (f->d->recorded) return false;
    return f->nvidia > 0 || cinch_detect_there(f->d, "/dev/nvidiactl") ||
           cinch_detect_there(f->d, "/dev/dxg");
}

static cinchResult_t add_gpus(finder *f, const cinch_detect_names *names) {
    cinch_topology *t = f->d->m->t;
    char why[256] = "NVML was not asked";
    f->gpus = -1;
    f->nvidia = count_nvidia(f->d, names);
    if (wants_nvml(f))
        cinch_detect_nvml(f->d, f->nvml, CINCH_DETECT_MOST_GPUS, &f->gpus, why, sizeof why);
    for (int i = 0; i < f->gpus; i++) f->part[i] = -1;
    CINCH_TRY(add_by_sysfs(f, names));
    CINCH_TRY(add_rest(f));
    for (int i = 0; i < f->gpus; i++) CINCH_TRY(add_links(f, i));
    if (f->gpus < 0 && f->nvidia > 0)
        cinch_topology_warn(t, "what NVLinks %d NVIDIA GPUs have cannot be seen: %s", f->nvidia,
                            why);
    if (f->hidden > 0)
        cinch_topology_warn(t,
                            "NVIDIA GPUs in /sys that NVML does not list, as in a container that "
                            "was not given them: %d: left out",
                            f->hidden);
    return cinchSuccess;
}

cinchResult_t cinch_detect_gpus(cinch_detector *d) {
    cinch_detect_names names;
    finder *f = calloc(1, sizeof *f);
    cinch_nvml_gpu *nvml = calloc(CINCH_DETECT_MOST_GPUS, sizeof *nvml);
    cinchResult_t result = cinchSuccess;
    if (!f || !nvml) {
        result = cinch_fail(cinchSystemError, "out of memory for %.200s", d->m->name);
    } else {
        f->d = d;
        f->nvml = nvml;
        result = cinch_detect_list(d, DEVICES, &names);
        if (result == cinchSuccess) {
            result = add_gpus(f, &names);
            free(names.name);
        }
    }
    free(nvml);
    free(f);
    return result;
}
