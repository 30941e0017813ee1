/* SPDX-License-Identifier: Apache-2.0 */
/* A machine as /sys and /proc show it, in a folder of its own that a test fills with few words. */
#ifndef CINCH_TESTS_FAKE_SYS_H_
#define CINCH_TESTS_FAKE_SYS_H_

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char sys_root[64]; /* what cinch_detect_options.root takes */

static inline int sys_remove(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path);
}

static inline void sys_end(void) {
    if (sys_root[0]) nftw(sys_root, sys_remove, 16, FTW_DEPTH | FTW_PHYS);
    sys_root[0] = '\0';
}

/* The folders on the way to `path`. */
static inline void sys_folders(char *path) {
    for (char *at = path + strlen(sys_root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        ck_assert_msg(mkdir(path, 0700) == 0 || errno == EEXIST, "mkdir %s", path);
        *at = '/';
    }
}

static inline void sys_put(const char *path, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A file, with a newline behind its text. */
static inline void sys_put(const char *path, const char *format, ...) {
    char full[1024];
    va_list args;
    snprintf(full, sizeof full, "%s/%s", sys_root, path);
    sys_folders(full);
    FILE *f = fopen(full, "w");
    ck_assert_msg(f != NULL, "cannot write %s", full);
    va_start(args, format);
    vfprintf(f, format, args);
    va_end(args);
    fputs("\n", f);
    fclose(f);
}

static inline void sys_put_in(const char *folder, const char *file, const char *text) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    sys_put(path, "%s", text);
}

/* A link at `path` to a part of the tree, relative as sysfs has it. */
static inline void sys_link(const char *path, const char *to) {
    char full[1024], target[1024] = "";
    snprintf(full, sizeof full, "%s/%s", sys_root, path);
    sys_folders(full);
    for (const char *at = path; (at = strchr(at, '/')); at++) strcat(target, "../");
    strcat(target, to);
    ck_assert_msg(symlink(target, full) == 0, "symlink %s: %s", full, strerror(errno));
}

/* A machine of which nothing is told; in memory where that can be, as there are many files. */
static inline void sys_empty(void) {
    sys_end();
    bool memory = access("/dev/shm", W_OK | X_OK) == 0;
    snprintf(sys_root, sizeof sys_root, "%s/cinch-sys-XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(sys_root));
}

/* An empty machine of `nodes` NUMA nodes with two CPUs each, which up to eight nodes tell of. */
static inline void sys_begin(int nodes) {
    char path[128];
    sys_empty();
    sys_put("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n"
                            "model\t\t: 143\nmodel name\t: a CPU");
    sys_put("sys/devices/system/cpu/online", "0-%d", 2 * nodes - 1);
    for (int i = 0; i < nodes; i++) {
        snprintf(path, sizeof path, "sys/devices/system/node/node%d/cpulist", i);
        sys_put(path, "%d-%d", 2 * i, 2 * i + 1);
        for (int c = 2 * i; nodes <= 8 && c < 2 * i + 2; c++) {
            snprintf(path, sizeof path, "sys/devices/system/node/node%d/cpu%d/online", i, c);
            sys_put(path, "1");
        }
    }
}

/* A PCI part below another (its path from sys/devices on, "pci0000:00" the CPU's own bus). Speed
 * and width are those at most. The result is good for the next call's `above`. */
static inline const char *sys_pci(const char *above, const char *bus, const char *class,
                                  const char *vendor, const char *speed, const char *width,
                                  int node) {
    static char paths[8][512];
    static int next;
    char full[600], link[256], number[16], *path = paths[next++ % 8];
    snprintf(full, sizeof full, "%s/%s", above, bus);
    snprintf(path, sizeof paths[0], "%.511s", full);
    snprintf(full, sizeof full, "sys/devices/%s", path);
    snprintf(number, sizeof number, "%d", node);
    sys_put_in(full, "class", class);
    sys_put_in(full, "vendor", vendor);
    sys_put_in(full, "numa_node", number);
    if (speed) sys_put_in(full, "max_link_speed", speed);
    if (width) sys_put_in(full, "max_link_width", width);
    snprintf(link, sizeof link, "sys/bus/pci/devices/%s", bus);
    sys_link(link, full);
    return path;
}

#define GEN3 "8.0 GT/s PCIe"
#define GEN4 "16.0 GT/s PCIe"
#define GEN5 "32.0 GT/s PCIe"

static inline const char *sys_bridge(const char *above, const char *bus, const char *speed,
                                     const char *width, int node) {
    return sys_pci(above, bus, "0x060400", "0x1000", speed, width, node);
}

static inline const char *sys_gpu(const char *above, const char *bus, const char *speed,
                                  const char *width, int node) {
    return sys_pci(above, bus, "0x030200", "0x10de", speed, width, node);
}

/* A network interface of a device; mbits NULL: the file cannot be read. */
static inline void sys_net(const char *device, const char *name, const char *mbits,
                           const char *state) {
    char folder[600], link[800];
    snprintf(folder, sizeof folder, "sys/devices/%s/net/%s", device, name);
    sys_put_in(folder, "type", "1");
    if (mbits) sys_put_in(folder, "speed", mbits);
    if (state) sys_put_in(folder, "operstate", state);
    snprintf(link, sizeof link, "%s/device", folder);
    snprintf(folder, sizeof folder, "sys/devices/%s", device);
    sys_link(link, folder);
    snprintf(link, sizeof link, "sys/class/net/%s", name);
    snprintf(folder, sizeof folder, "sys/devices/%s/net/%s", device, name);
    sys_link(link, folder);
}

/* An InfiniBand device with a port. */
static inline void sys_fabric(const char *device, const char *name, int port, const char *state,
                              const char *rate, const char *card) {
    char folder[600], path[700], link[256];
    snprintf(folder, sizeof folder, "sys/devices/%s/infiniband/%s", device, name);
    sys_put_in(folder, "sys_image_guid", card);
    snprintf(path, sizeof path, "%s/ports/%d", folder, port);
    sys_put_in(path, "state", state);
    sys_put_in(path, "rate", rate);
    snprintf(link, sizeof link, "sys/class/infiniband/%s", name);
    snprintf(path, sizeof path, "%s/%s", sys_root, link);
    if (access(path, F_OK) == 0) return;
    sys_link(link, folder);
    snprintf(path, sizeof path, "%s/device", folder);
    snprintf(folder, sizeof folder, "sys/devices/%s", device);
    sys_link(path, folder);
}

#endif
