/* SPDX-License-Identifier: Apache-2.0 */
/* NVML, loaded when it is there, by prototypes of its own: GPUs with their NVLinks and C2C. Each
 * failure is a warning, as a link that is silently not there makes the whole machine slow. */
#include <dlfcn.h>
#include <string.h>

#include "topo/detect_parts.h"

/* ---- of NVML's interface, version 3 of its structures, what is used ---- */

typedef int nvml_result;
typedef void *nvml_device;
enum { NVML_GOOD, NVML_BAD_ARGUMENT = 2, NVML_UNSUPPORTED = 3 };
enum { NVML_TO_GPU, NVML_TO_CPU, NVML_TO_SWITCH };
enum { NVML_CAN_P2P = 0 };
enum { NVML_C2C_LINKS = 170, NVML_C2C_STATUS = 171, NVML_C2C_MBYTES = 172 };

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char address[32];
} nvml_pci;

typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type;
    nvml_result result;
    union {
        double real;
        unsigned number;
        unsigned long long wide;
    } value;
} nvml_field;

typedef struct {
    nvml_result (*init)(void);
    nvml_result (*shutdown)(void);
    const char *(*error)(nvml_result);
    nvml_result (*count)(unsigned *);
    nvml_result (*device)(unsigned, nvml_device *);
    nvml_result (*pci)(nvml_device, nvml_pci *);
    nvml_result (*capability)(nvml_device, int *, int *);
    nvml_result (*state)(nvml_device, unsigned, unsigned *);
    nvml_result (*can)(nvml_device, unsigned, unsigned, unsigned *);
    nvml_result (*remote_pci)(nvml_device, unsigned, nvml_pci *);
    nvml_result (*remote_type)(nvml_device, unsigned, unsigned *);
    nvml_result (*fields)(nvml_device, int, nvml_field *);
} nvml_calls;

static const struct {
    const char *name;
    size_t at;
    bool needed;
} wanted[] = {
    {"nvmlInit_v2", offsetof(nvml_calls, init), true},
    {"nvmlShutdown", offsetof(nvml_calls, shutdown), true},
    {"nvmlErrorString", offsetof(nvml_calls, error), true},
    {"nvmlDeviceGetCount_v2", offsetof(nvml_calls, count), true},
    {"nvmlDeviceGetHandleByIndex_v2", offsetof(nvml_calls, device), true},
    {"nvmlDeviceGetPciInfo_v3", offsetof(nvml_calls, pci), true},
    {"nvmlDeviceGetCudaComputeCapability", offsetof(nvml_calls, capability), true},
    {"nvmlDeviceGetNvLinkState", offsetof(nvml_calls, state), true},
    {"nvmlDeviceGetNvLinkRemotePciInfo_v2", offsetof(nvml_calls, remote_pci), true},
    {"nvmlDeviceGetNvLinkCapability", offsetof(nvml_calls, can), false},
    {"nvmlDeviceGetNvLinkRemoteDeviceType", offsetof(nvml_calls, remote_type), false},
    {"nvmlDeviceGetFieldValues", offsetof(nvml_calls, fields), false},
};

typedef struct {
    nvml_calls call;
    cinch_detector *d;
} reader;

static bool find_calls(void *library, nvml_calls *call, char *why, size_t room) {
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *function = dlsym(library, wanted[i].name);
        if (!function && wanted[i].needed) {
            snprintf(why, room, "NVML has no %s", wanted[i].name);
            return false;
        }
        memcpy((char *)call + wanted[i].at, &function, sizeof function);
    }
    return true;
}

/* ---- NVLink ---- */

/* What is at the other end; false, with a warning: not to be told. Behind some switches there is no
 * PCI address, or one of all ones. */
static bool find_end(const reader *r, nvml_device device, unsigned link, cinch_nvml_gpu *gpu) {
    nvml_pci pci = {.domain = 0};
    unsigned type = 255;
    char bus[CINCH_MACHINE_BUS] = "";
    nvml_result typed = r->call.remote_type ? r->call.remote_type(device, link, &type) : -1;
    nvml_result told = r->call.remote_pci(device, link, &pci);
    pci.address[sizeof pci.address - 1] = '\0';
    bool known = typed == NVML_GOOD && type <= NVML_TO_SWITCH;
    if (told == NVML_GOOD) cinch_detect_bus(pci.address, bus);
    if (!known && told == NVML_GOOD) {
        char path[CINCH_DETECT_PATH];
        long class = 0;
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%s", bus);
        cinch_detect_long(r->d, path, "class", &class);
        known = true;
        type = class == 0x068000 || pci.domain >= 0xfffffff ? NVML_TO_SWITCH
               : class == 0x068001                          ? NVML_TO_CPU
                                                            : NVML_TO_GPU;
    }
    if (!known || (type == NVML_TO_GPU && !bus[0])) {
        cinch_topology_warn(
            r->d->m->t, "NVML does not tell where NVLink %u of GPU %s goes (%.80s): left out", link,
            gpu->bus, told != NVML_GOOD ? r->call.error(told) : "an address of no GPU");
        return false;
    }
    gpu->link[gpu->links].end = type == NVML_TO_SWITCH ? CINCH_NVLINK_SWITCH
                                : type == NVML_TO_CPU  ? CINCH_NVLINK_CPU
                                                       : CINCH_NVLINK_GPU;
    memcpy(gpu->link[gpu->links].bus, bus, sizeof bus);
    return true;
}

/* Links are asked for by number until NVML says that there are no more; a failure before the last
 * one is one link's own. */
static void read_links(const reader *r, nvml_device device, cinch_nvml_gpu *gpu) {
    nvml_result state[CINCH_DETECT_MOST_NVLINKS];
    unsigned active[CINCH_DETECT_MOST_NVLINKS], can;
    int links = 0, idle = 0, apart = 0;
    for (int i = 0; i < CINCH_DETECT_MOST_NVLINKS; i++) {
        active[i] = 0;
        state[i] = r->call.state(device, (unsigned)i, &active[i]);
        if (state[i] != NVML_BAD_ARGUMENT && state[i] != NVML_UNSUPPORTED) links = i + 1;
    }
    for (int i = 0; i < links; i++) {
        if (state[i] != NVML_GOOD) {
            cinch_topology_warn(r->d->m->t,
                                "NVML does not tell the state of NVLink %d of GPU %s (%.80s): left "
                                "out",
                                i, gpu->bus, r->call.error(state[i]));
            continue;
        }
        can = 1;
        if (!active[i]) {
            idle++;
        } else if (r->call.can &&
                   r->call.can(device, (unsigned)i, NVML_CAN_P2P, &can) == NVML_GOOD && !can) {
            apart++;
        } else if (find_end(r, device, (unsigned)i, gpu)) {
            gpu->links++;
        }
    }
    if (idle > 0 && idle < links)
        cinch_topology_warn(r->d->m->t, "%d of the %d NVLinks of GPU %s are not active", idle,
                            links, gpu->bus);
    if (apart > 0)
        cinch_topology_warn(r->d->m->t,
                            "%d NVLinks of GPU %s are not for memory of peers: left out", apart,
                            gpu->bus);
}

/* ---- C2C ---- */

static bool read_field(const reader *r, nvml_device device, unsigned field, unsigned scope,
                       unsigned *value) {
    nvml_field f = {.field = field, .scope = scope};
    if (r->call.fields(device, 1, &f) != NVML_GOOD || f.result != NVML_GOOD) return false;
    *value = f.value.number;
    return true;
}

static void read_c2c(const reader *r, nvml_device device, cinch_nvml_gpu *gpu) {
    unsigned links = 0, up, mbytes, failed = 0;
    if (!r->call.fields || gpu->sm < 90 || !read_field(r, device, NVML_C2C_LINKS, 0, &links))
        return;
    for (unsigned i = 0; i < links && i < 64; i++) {
        if (!read_field(r, device, NVML_C2C_STATUS, i, &up)) {
            failed++;
        } else if (up) {
            if (read_field(r, device, NVML_C2C_MBYTES, i, &mbytes))
                gpu->c2c += mbytes / 1000.0;
            else
                failed++;
        }
    }
    if (failed > 0)
        cinch_topology_warn(r->d->m->t,
                            "NVML does not tell of %u of the C2C links of GPU %s: left "
                            "out",
                            failed, gpu->bus);
}

/* ---- the whole ---- */

static bool read_gpu(const reader *r, unsigned number, cinch_nvml_gpu *gpu) {
    nvml_device device = NULL;
    nvml_pci pci = {.domain = 0};
    int major = 0, minor = 0;
    *gpu = (cinch_nvml_gpu){.links = 0};
    nvml_result result = r->call.device(number, &device);
    if (result == NVML_GOOD) result = r->call.pci(device, &pci);
    pci.address[sizeof pci.address - 1] = '\0';
    if (result != NVML_GOOD || !cinch_detect_bus(pci.address, gpu->bus)) {
        cinch_topology_warn(r->d->m->t, "NVML does not tell where GPU %u is (%.80s): left out",
                            number, result != NVML_GOOD ? r->call.error(result) : "no PCI address");
        return false;
    }
    result = r->call.capability(device, &major, &minor);
    if (result != NVML_GOOD)
        cinch_topology_warn(r->d->m->t,
                            "NVML does not tell the compute capability of GPU %s (%.80s): "
                            "the slowest NVLinks are planned with",
                            gpu->bus, r->call.error(result));
    gpu->sm = 10 * major + minor;
    read_links(r, device, gpu);
    read_c2c(r, device, gpu);
    return true;
}

static void read_gpus(const reader *r, cinch_nvml_gpu *gpu, int most, int *gpus, char *why,
                      size_t room) {
    unsigned count = 0;
    nvml_result result = r->call.count(&count);
    if (result != NVML_GOOD) {
        snprintf(why, room, "NVML does not count GPUs (%.100s)", r->call.error(result));
        return;
    }
    *gpus = 0;
    for (unsigned i = 0; i < count && *gpus < most; i++)
        if (read_gpu(r, i, &gpu[*gpus])) ++*gpus;
}

void cinch_detect_nvml(cinch_detector *d, cinch_nvml_gpu *gpu, int most, int *gpus, char *why,
                       size_t room) {
    reader r = {.d = d};
    *gpus = -1;
    void *library = dlopen(d->nvml ? d->nvml : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, room, "NVML cannot be loaded (%.180s)", dlerror());
        return;
    }
    if (find_calls(library, &r.call, why, room)) {
        nvml_result result = r.call.init();
        if (result != NVML_GOOD) {
            snprintf(why, room, "NVML does not start (%.100s)", r.call.error(result));
        } else {
            read_gpus(&r, gpu, most, gpus, why, room);
            r.call.shutdown();
        }
    }
    dlclose(library);
}
