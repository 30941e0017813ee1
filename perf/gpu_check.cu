/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_check: on a machine with a GPU, compares the CUDA kernels with the host's and measures them;
 * prints a table and writes JSON. The script gpu_check beside it builds and calls this.
 *
 * Status 0: all is well; 1: something is wrong or too slow; 2: bad usage; 77: there is no GPU. */
#include <getopt.h>
#include <string.h>

#include "perf/gpu_check.cuh"

extern "C" {
#include "perf/json.h"
}

namespace {

enum { LINES = 64 };

struct options {
    const char *json;
    bool small; /* for tools that slow everything down: little data, nothing timed */
    bool bits, speed;
    size_t bytes; /* of the buffers that are timed */
};

struct outcome {
    gpu_line bits[LINES], speed[LINES];
    int nbits, nspeed;
    double copy;
    bool pass;
};

bool passes(const gpu_line &l) {
    return !l.wrong && l.fraction >= l.target;
}

void print(const outcome &o) {
    if (o.nbits) printf("%-32s %6s %6s\n", "bits", "cases", "wrong");
    for (int i = 0; i < o.nbits; i++)
        printf("%-32s %6d %6d  %s\n", o.bits[i].kernel, o.bits[i].cases, o.bits[i].wrong,
               passes(o.bits[i]) ? "pass" : "FAIL");
    if (o.nspeed == 0) return;
    printf("%-32s %8s %8s %8s\n%-32s %8.1f\n", "bandwidth", "GB/s", "of copy", "target",
           "copy on the device", o.copy);
    for (int i = 0; i < o.nspeed; i++)
        printf("%-32s %8.1f %8.2f %8.2f  %s\n", o.speed[i].kernel, o.speed[i].gbps,
               o.speed[i].fraction, o.speed[i].target, passes(o.speed[i]) ? "pass" : "FAIL");
}

bool write_json(const outcome &o, const options &opt, const cudaDeviceProp &gpu) {
    FILE *file = fopen(opt.json, "w");
    if (!file) {
        fprintf(stderr, "gpu_check: %s cannot be written\n", opt.json);
        return false;
    }
    cinch_json j = {};
    int runtime = 0, driver = 0;
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    cinch_json_begin(&j, file);
    cinch_json_text(&j, "gpu", gpu.name);
    cinch_json_number(&j, "capability", gpu.major + 0.1 * gpu.minor);
    cinch_json_count(&j, "runtime", (uint64_t)runtime);
    cinch_json_count(&j, "driver", (uint64_t)driver);
    cinch_json_open(&j, "bits", '[');
    for (int i = 0; i < o.nbits; i++) {
        cinch_json_open(&j, NULL, '{');
        cinch_json_text(&j, "kernel", o.bits[i].kernel);
        cinch_json_count(&j, "cases", (uint64_t)o.bits[i].cases);
        cinch_json_count(&j, "wrong", (uint64_t)o.bits[i].wrong);
        cinch_json_bool(&j, "pass", passes(o.bits[i]));
        cinch_json_close(&j, '}');
    }
    cinch_json_close(&j, ']');
    if (o.nspeed)
        cinch_json_number(&j, "copy_GBps", o.copy);
    cinch_json_open(&j, "bandwidth", '[');
    for (int i = 0; i < o.nspeed; i++) {
        cinch_json_open(&j, NULL, '{');
        cinch_json_text(&j, "kernel", o.speed[i].kernel);
        cinch_json_number(&j, "GBps", o.speed[i].gbps);
        cinch_json_number(&j, "of_copy", o.speed[i].fraction);
        cinch_json_number(&j, "target", o.speed[i].target);
        cinch_json_bool(&j, "pass", passes(o.speed[i]));
        cinch_json_close(&j, '}');
    }
    cinch_json_close(&j, ']');
    cinch_json_bool(&j, "pass", o.pass);
    bool written = cinch_json_end(&j);
    return fclose(file) == 0 && written;
}

int usage() {
    fprintf(stderr, "usage: gpu_check [--only bits|speed] [--bytes B] [--small] [--json FILE]\n"
                    "--bytes: of the buffers that are timed (256 MB)\n"
                    "--small: little data, and nothing is timed\n");
    return 2;
}

bool parse(int argc, char **argv, options *opt) {
    static const option known[] = {{"small", no_argument, NULL, 's'},
                                   {"json", required_argument, NULL, 'j'},
                                   {"only", required_argument, NULL, 'o'},
                                   {"bytes", required_argument, NULL, 'b'},
                                   {NULL, 0, NULL, 0}};
    int which;
    while ((which = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (which == 's')
            opt->small = true;
        else if (which == 'j')
            opt->json = optarg;
        else if (which == 'b')
            opt->bytes = strtoul(optarg, NULL, 10) / 16 * 16;
        else if (which == 'o' && !strcmp(optarg, "bits"))
            opt->speed = false;
        else if (which == 'o' && !strcmp(optarg, "speed"))
            opt->bits = false;
        else
            return false;
    }
    return optind == argc && opt->bytes;
}

} // namespace

int main(int argc, char **argv) {
    static outcome o;
    options opt = {NULL, false, true, true, (size_t)256 << 20};
    if (!parse(argc, argv, &opt)) return usage();
    int devices = 0;
    cudaError_t err = cudaGetDeviceCount(&devices);
    if (err != cudaSuccess || devices < 1) {
        printf("gpu_check: there is no GPU to check: %s\n",
               err == cudaSuccess ? "the driver has no device" : cudaGetErrorString(err));
        return 77;
    }
    cudaDeviceProp gpu;
    GPU_MUST(cudaGetDeviceProperties(&gpu, 0));
    printf("%s, capability %d.%d\n\n", gpu.name, gpu.major, gpu.minor);
    const size_t bits = opt.small ? (size_t)1 << 19 : (size_t)64 << 20;
    if (opt.bits) {
        o.nbits = gpu_check_bits(bits, o.bits, LINES);
        o.nbits += gpu_check_global_bits(bits, o.bits + o.nbits, LINES - o.nbits);
    }
    if (opt.speed && !opt.small) {
        o.nspeed = gpu_check_speed(opt.bytes, &o.copy, o.speed, LINES);
        o.nspeed += gpu_check_global_speed(opt.bytes, o.copy, o.speed + o.nspeed, LINES - o.nspeed);
    }
    o.pass = o.nbits + o.nspeed > 0;
    for (int i = 0; i < o.nbits; i++) o.pass = passes(o.bits[i]) && o.pass;
    for (int i = 0; i < o.nspeed; i++) o.pass = passes(o.speed[i]) && o.pass;
    print(o);
    if (opt.json && !write_json(o, opt, gpu)) return 1;
    return o.pass ? 0 : 1;
}
