/* SPDX-License-Identifier: Apache-2.0 */
/* The machine that tests/fake_nvml.c tells of. Who loads that library finds it as `fake_nvml` and
 * writes there what NVML shall say. Results are NVML's: 0 is good. */
#ifndef CINCH_TESTS_FAKE_NVML_H_
#define CINCH_TESTS_FAKE_NVML_H_

enum { FAKE_GPUS = 16, FAKE_LINKS = 18, FAKE_C2C = 10 };
enum { FAKE_TO_GPU, FAKE_TO_CPU, FAKE_TO_SWITCH, FAKE_TO_UNKNOWN = 255 };

typedef struct fake_link {
    int state, remote, typed, capable; /* the results of asking for it */
    unsigned active, apart;            /* apart: not for memory of peers */
    unsigned type, domain;
    char bus[32]; /* the other end's */
} fake_link;

typedef struct fake_gpu {
    char bus[32];
    int handle, pci, capability; /* the results */
    int major, minor;
    int links; /* those above are refused: InvalidArgument, or Unsupported where there are none */
    fake_link link[FAKE_LINKS];
    unsigned c2c;
    struct {
        int result;
        unsigned up, mbytes;
    } c2c_link[FAKE_C2C];
} fake_gpu;

typedef struct fake_machine {
    int init, count; /* the results */
    int gpus;
    fake_gpu gpu[FAKE_GPUS];
    int started; /* init less shutdown */
} fake_machine;

#endif
