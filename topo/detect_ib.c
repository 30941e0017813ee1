/* SPDX-License-Identifier: Apache-2.0 */
/* InfiniBand, RoCE and their like: ports that are up, how fast they are, and which card they are
 * on. */
#include <stdlib.h>
#include <string.h>

#include "topo/detect_parts.h"

#ifdef CINCH_HAS_IBVERBS
#include <infiniband/verbs.h>
#endif

#define CLASS "/sys/class/infiniband"

typedef struct {
    cinch_detector *d;
    cinch_detect_line *line;
    int most, lines;
    int down;
    char first_down[CINCH_DETECT_NAME];
} finder;

static void add_line(finder *f, const char *device, int port, bool up, double mbits,
                     const char *card) {
    char path[CINCH_DETECT_PATH];
    if (!up && f->down++ == 0) snprintf(f->first_down, sizeof f->first_down, "%s", device);
    if (!up || f->lines == f->most) return;
    cinch_detect_line *l = &f->line[f->lines++];
    *l = (cinch_detect_line){.mbits = mbits, .fabric = true};
    if (port > 1)
        snprintf(l->name, sizeof l->name, "%.50s:%d", device, port);
    else
        snprintf(l->name, sizeof l->name, "%.63s", device);
    snprintf(l->card, sizeof l->card, "%.63s", card);
    snprintf(path, sizeof path, CLASS "/%s/device", device);
    cinch_detect_real(f->d, path, l->real);
}

/* "100 Gb/sec (4X EDR)" */
static double rate_of(const finder *f, const char *port) {
    char text[64];
    double gbits;
    if (!cinch_detect_file(f->d, port, "rate", text, sizeof text) ||
        !cinch_read_double(text, true, &gbits) || gbits > 1e5)
        return 0;
    return gbits * 1000;
}

static cinchResult_t find_by_sysfs(finder *f, const char *device) {
    char folder[128], port[256], state[32], card[CINCH_DETECT_NAME];
    cinch_detect_names ports;
    int number;
    snprintf(folder, sizeof folder, CLASS "/%s", device);
    cinch_detect_file(f->d, folder, "sys_image_guid", card, sizeof card);
    snprintf(folder, sizeof folder, CLASS "/%s/ports", device);
    CINCH_TRY(cinch_detect_list(f->d, folder, &ports));
    for (int i = 0; i < ports.names; i++) {
        if (!cinch_read_int(ports.name[i], 10, 1, 255, false, &number)) continue;
        snprintf(port, sizeof port, "%s/%s", folder, ports.name[i]);
        cinch_detect_file(f->d, port, "state", state, sizeof state);
        add_line(f, device, number, strncmp(state, "4:", 2) == 0, rate_of(f, port), card);
    }
    free(ports.name);
    return cinchSuccess;
}

#ifdef CINCH_HAS_IBVERBS
/* What a lane carries, by the bits of active_speed, and how many there are, by those of
 * active_width: the numbers of the InfiniBand specification's PortInfo. */
static double mbits_of(const struct ibv_port_attr *port) {
    static const double lane[] = {2500, 5000, 10000, 10000, 14000, 25000, 50000, 100000};
    static const int lanes[] = {1, 4, 8, 12, 2};
    int speed = __builtin_ffs(port->active_speed) - 1;
    int width = __builtin_ffs(port->active_width) - 1;
    if (speed < 0 || speed >= (int)(sizeof lane / sizeof *lane)) return 0;
    if (width < 0 || width >= (int)(sizeof lanes / sizeof *lanes)) return 0;
    return lane[speed] * lanes[width];
}

static void query(finder *f, const char *device, struct ibv_context *context) {
    char card[CINCH_DETECT_NAME], path[CINCH_DETECT_PATH];
    struct ibv_device_attr about;
    struct ibv_port_attr port;
    if (ibv_query_device(context, &about)) {
        cinch_topology_warn(f->d->m->t, "libibverbs tells nothing of %s: it is left out", device);
        return;
    }
    snprintf(card, sizeof card, "%016llx", (unsigned long long)about.sys_image_guid);
    for (int i = 1; i <= about.phys_port_cnt; i++) {
        memset(&port, 0, sizeof port);
        if (ibv_query_port(context, (uint8_t)i, &port)) {
            cinch_topology_warn(f->d->m->t, "libibverbs tells nothing of port %d of %s: left out",
                                i, device);
            continue;
        }
        double mbits = mbits_of(&port);
        snprintf(path, sizeof path, CLASS "/%s/ports/%d", device, i);
        if (mbits <= 0) mbits = rate_of(f, path); /* newer than this table */
        add_line(f, device, i, port.state == IBV_PORT_ACTIVE, mbits, card);
    }
}

/* false: libibverbs sees no device at all. */
static bool find_by_verbs(finder *f) {
    int devices = 0;
    struct ibv_device **list = ibv_get_device_list(&devices);
    for (int i = 0; list && i < devices; i++) {
        const char *name = ibv_get_device_name(list[i]);
        struct ibv_context *context = ibv_open_device(list[i]);
        if (context)
            query(f, name, context);
        else
            cinch_topology_warn(f->d->m->t,
                                "the NIC %.60s cannot be opened by libibverbs, as in a "
                                "container that was not given it: left out",
                                name);
        if (context) ibv_close_device(context);
    }
    if (list) ibv_free_device_list(list);
    return list && devices > 0;
}
#else
static bool find_by_verbs(finder *f) {
    (void)f;
    return false;
}
#endif

cinchResult_t cinch_detect_infiniband(cinch_detector *d, cinch_detect_line *line, int most,
                                      int *lines) {
    finder f = {.d = d, .line = line, .most = most};
    cinch_detect_names devices;
    *lines = 0;
    CINCH_TRY(cinch_detect_list(d, CLASS, &devices));
    cinchResult_t result = cinchSuccess;
    if (devices.names > 0 && (d->recorded || !find_by_verbs(&f)))
        for (int i = 0; i < devices.names && result == cinchSuccess; i++)
            result = find_by_sysfs(&f, devices.name[i]);
    free(devices.name);
    if (f.down > 0)
        cinch_topology_warn(d->m->t,
                            "ports of InfiniBand devices that are not active: %d, the first "
                            "of %.60s: left out",
                            f.down, f.first_down);
    *lines = f.lines;
    return result;
}
