/* SPDX-License-Identifier: Apache-2.0 */
/* A library that answers as NVML does, for a machine that a test writes into `fake_nvml`. With
 * FAKE_NVML_OLD it is one of a driver that does not tell what kind of device a link leads to. */
#include "tests/fake_nvml.h"

#include <stdio.h>
#include <string.h>

enum { BAD_ARGUMENT = 2, UNSUPPORTED = 3, GPU_IS_LOST = 15 };

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char address[32];
} pci_info;

typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    int type, result;
    union {
        double real;
        unsigned number;
        unsigned long long wide;
    } value;
} field_value;

#define PUBLIC __attribute__((visibility("default")))

PUBLIC extern fake_machine fake_nvml;
fake_machine fake_nvml;

PUBLIC int nvmlInit_v2(void);
PUBLIC int nvmlShutdown(void);
PUBLIC const char *nvmlErrorString(int result);
PUBLIC int nvmlDeviceGetCount_v2(unsigned *count);
PUBLIC int nvmlDeviceGetHandleByIndex_v2(unsigned index, fake_gpu **gpu);
PUBLIC int nvmlDeviceGetPciInfo_v3(fake_gpu *gpu, pci_info *pci);
PUBLIC int nvmlDeviceGetCudaComputeCapability(fake_gpu *gpu, int *major, int *minor);
PUBLIC int nvmlDeviceGetNvLinkState(fake_gpu *gpu, unsigned link, unsigned *active);
PUBLIC int nvmlDeviceGetNvLinkCapability(fake_gpu *gpu, unsigned link, unsigned what,
                                         unsigned *can);
PUBLIC int nvmlDeviceGetNvLinkRemotePciInfo_v2(fake_gpu *gpu, unsigned link, pci_info *pci);
PUBLIC int nvmlDeviceGetNvLinkRemoteDeviceType(fake_gpu *gpu, unsigned link, unsigned *type);
PUBLIC int nvmlDeviceGetFieldValues(fake_gpu *gpu, int count, field_value *value);

int nvmlInit_v2(void) {
    if (fake_nvml.init == 0) fake_nvml.started++;
    return fake_nvml.init;
}

int nvmlShutdown(void) {
    fake_nvml.started--;
    return 0;
}

const char *nvmlErrorString(int result) {
    return result == GPU_IS_LOST ? "GPU is lost" : "Unknown Error";
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)fake_nvml.gpus;
    return fake_nvml.count;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, fake_gpu **gpu) {
    if (index >= (unsigned)fake_nvml.gpus) return BAD_ARGUMENT;
    *gpu = &fake_nvml.gpu[index];
    return (*gpu)->handle;
}

static void fill(pci_info *pci, const char *bus, unsigned domain) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->address, sizeof pci->address, "%s", bus);
    pci->domain = domain;
}

int nvmlDeviceGetPciInfo_v3(fake_gpu *gpu, pci_info *pci) {
    fill(pci, gpu->bus, 0);
    return gpu->pci;
}

int nvmlDeviceGetCudaComputeCapability(fake_gpu *gpu, int *major, int *minor) {
    if (gpu->capability == 0) *major = gpu->major, *minor = gpu->minor;
    return gpu->capability;
}

int nvmlDeviceGetNvLinkState(fake_gpu *gpu, unsigned link, unsigned *active) {
    if (gpu->links == 0) return UNSUPPORTED;
    if (link >= (unsigned)gpu->links) return BAD_ARGUMENT;
    *active = gpu->link[link].active;
    return gpu->link[link].state;
}

int nvmlDeviceGetNvLinkCapability(fake_gpu *gpu, unsigned link, unsigned what, unsigned *can) {
    if (what != 0) return UNSUPPORTED;
    *can = !gpu->link[link].apart;
    return gpu->link[link].capable;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(fake_gpu *gpu, unsigned link, pci_info *pci) {
    if (gpu->link[link].remote == 0) fill(pci, gpu->link[link].bus, gpu->link[link].domain);
    return gpu->link[link].remote;
}

#ifndef FAKE_NVML_OLD
int nvmlDeviceGetNvLinkRemoteDeviceType(fake_gpu *gpu, unsigned link, unsigned *type) {
    *type = gpu->link[link].type;
    return gpu->link[link].typed;
}

int nvmlDeviceGetFieldValues(fake_gpu *gpu, int count, field_value *value) {
    for (int i = 0; i < count; i++) {
        field_value *v = &value[i];
        v->result = v->scope < FAKE_C2C ? gpu->c2c_link[v->scope].result : BAD_ARGUMENT;
        if (v->field == 170) {
            v->result = 0;
            v->value.number = gpu->c2c;
        } else if (v->field == 171) {
            v->value.number = gpu->c2c_link[v->scope].up;
        } else if (v->field == 172) {
            v->value.number = gpu->c2c_link[v->scope].mbytes;
        } else {
            v->result = UNSUPPORTED;
        }
    }
    return 0;
}
#endif
