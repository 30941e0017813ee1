/* SPDX-License-Identifier: Apache-2.0 */
/* Which ports of InfiniBand and RoCE devices a rank uses: CINCH_IB_HCA, the addresses of a port,
 * and how the ranks of a host share its ports. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "transports/io.h"
#include "transports/verbs.h"

enum { MOST_PORTS = 64 };

typedef struct port_name {
    struct ibv_device *device;
    uint8_t port;
    int place; /* in the list that takes it */
} port_name;

/* Which place of CINCH_IB_HCA takes the port, from 1; 0: none does. A list of names, each with
 * :PORT or without; ^ before the list: all others; = (behind that): whole names, else prefixes. */
static int taken(const char *list, const char *device, int port) {
    bool exclude = list[0] == '^';
    list += exclude;
    bool exact = list[0] == '=';
    list += exact;
    if (!list[0]) return 1;
    for (int place = 1;; place++) {
        size_t length = strcspn(list, ","), name = strcspn(list, ":,");
        bool matches = name > 0 && strncmp(list, device, name) == 0 && (!exact || !device[name]);
        if (matches && name < length && atoi(list + name + 1) != port) matches = false;
        if (matches) return exclude ? 0 : place;
        list += length;
        if (!*list++) return exclude;
    }
}

/* In the order of the list, which makes the rails of both ends match. */
static void insert(port_name *ports, int count, port_name fresh) {
    for (; count > 0 && ports[count - 1].place > fresh.place; count--)
        ports[count] = ports[count - 1];
    ports[count] = fresh;
}

/* Lists the active ports that `list` takes. *down: others that it takes. */
static int active_ports(struct ibv_device **devices, int count, const char *list, port_name *out,
                        int *down, int *closed) {
    int found = 0;
    *down = *closed = 0;
    for (int d = 0; d < count; d++) {
        struct ibv_device_attr about;
        struct ibv_context *context = ibv_open_device(devices[d]);
        if (!context || ibv_query_device(context, &about)) {
            (*closed)++;
            if (context) ibv_close_device(context);
            continue;
        }
        for (int p = 1; p <= about.phys_port_cnt && found < MOST_PORTS; p++) {
            struct ibv_port_attr port;
            memset(&port, 0, sizeof port);
            int place = taken(list, ibv_get_device_name(devices[d]), p);
            if (!place) continue;
            if (ibv_query_port(context, (uint8_t)p, &port) || port.state != IBV_PORT_ACTIVE)
                (*down)++;
            else
                insert(out, found++, (port_name){devices[d], (uint8_t)p, place});
        }
        ibv_close_device(context);
    }
    return found;
}

/* The list costs a scan of sysfs; where there is no such folder, nothing. */
static struct ibv_device **list_devices(int *count) {
    *count = 0;
    return access("/sys/class/infiniband", F_OK) == 0 ? ibv_get_device_list(count) : NULL;
}

const char *cinch_verbs_unusable(void) {
    port_name ports[MOST_PORTS];
    int count, down, closed;
    struct ibv_device **devices = list_devices(&count);
    int found = devices ? active_ports(devices, count, "", ports, &down, &closed) : 0;
    if (devices) ibv_free_device_list(devices);
    if (found > 0) return NULL;
    if (count == 0) return "no InfiniBand or RoCE device is here";
    return closed == count ? "no InfiniBand or RoCE device can be opened (/dev/infiniband)"
                           : "no port of an InfiniBand or RoCE device is active";
}

/* ---- addresses ---- */

/* How good an entry of a RoCE port's table is; 0: of no use. Routable ones of the wanted version
 * and family go first, as NCCL chooses. */
static int worth(const struct ibv_gid_entry *entry, const cinch_settings *settings) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, zero[16] = {0};
    const uint8_t *raw = entry->gid.raw;
    if (memcmp(raw, zero, sizeof zero) == 0) return 0;
    bool v4 = memcmp(raw, mapped, sizeof mapped) == 0, local = raw[0] == 0xfe && raw[1] == 0x80;
    uint32_t version =
        settings->ib_roce_version_num == 1 ? IBV_GID_TYPE_ROCE_V1 : IBV_GID_TYPE_ROCE_V2;
    bool wants_v6 = settings->socket_family == 2;
    return 1 + 4 * (entry->gid_type == version) + 2 * !local + (v4 != wants_v6);
}

static cinchResult_t choose_gid(cinch_verbs_rail *rail, const cinch_settings *settings) {
    int64_t wanted = -1;
    const char *text = settings->ib_gid_index;
    if (text[0] && strcmp(text, "-1") != 0 && !cinch_parse_count(text, &wanted))
        return cinch_fail_quiet(cinchInvalidUsage,
                                "CINCH_IB_GID_INDEX=%.40s: a whole number from 0, or -1 for the "
                                "best one, is accepted",
                                text);
    bool ethernet = rail->about.link_layer == IBV_LINK_LAYER_ETHERNET;
    int best = 0;
    rail->gid_index = wanted >= 0 ? (int)wanted : 0;
    for (int i = 0; wanted < 0 && ethernet && i < rail->about.gid_tbl_len; i++) {
        struct ibv_gid_entry entry;
        memset(&entry, 0, sizeof entry);
        if (ibv_query_gid_ex(rail->context, rail->port, (uint32_t)i, &entry, 0)) continue;
        int value = worth(&entry, settings);
        if (value <= best) continue;
        best = value;
        rail->gid_index = i;
    }
    if (wanted >= rail->about.gid_tbl_len ||
        ibv_query_gid(rail->context, rail->port, rail->gid_index, &rail->gid))
        return cinch_fail_quiet(
            cinchInvalidUsage, "%s has no address number %d of %d (CINCH_IB_GID_INDEX)", rail->name,
            (int)(wanted >= 0 ? wanted : 0), rail->about.gid_tbl_len);
    return cinchSuccess;
}

/* ---- rails ---- */

static cinchResult_t cannot(const cinch_verbs_rail *rail, const char *what) {
    int err = errno;
    return cinch_fail_quiet(cinchSystemError, "%s: %s: %s", rail->name, what, strerror(err));
}

static cinchResult_t open_rail(cinch_verbs_rail *rail, const port_name *port,
                               const cinch_settings *settings) {
    rail->port = port->port;
    snprintf(rail->name, sizeof rail->name, "%.60s:%d", ibv_get_device_name(port->device),
             port->port);
    rail->context = ibv_open_device(port->device);
    if (!rail->context) return cannot(rail, "the device cannot be opened");
    memset(&rail->about, 0, sizeof rail->about);
    if (ibv_query_port(rail->context, rail->port, &rail->about))
        return cannot(rail, "the port tells nothing");
    CINCH_TRY(choose_gid(rail, settings));
    rail->pd = ibv_alloc_pd(rail->context);
    rail->channel = rail->pd ? ibv_create_comp_channel(rail->context) : NULL;
    if (!rail->channel) return cannot(rail, "no protection domain or completion channel");
    /* Memory that is short only leaves them to children, who cannot use them. */
    (void)cinch_adopt(rail->context->cmd_fd);
    (void)cinch_adopt(rail->context->async_fd);
    (void)cinch_adopt(rail->channel->fd);
    int flags = fcntl(rail->channel->fd, F_GETFL);
    if (flags < 0 || fcntl(rail->channel->fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return cannot(rail, "the completion channel cannot be made non-blocking");
    return cinchSuccess;
}

/* The caller sleeps on one descriptor, whatever the number of rails. */
static cinchResult_t join_channels(cinch_verbs *verbs) {
    verbs->fd = verbs->rail[0].channel->fd;
    if (verbs->rails == 1) return cinchSuccess;
    if ((errno = cinch_epoll(&verbs->fd))) return cannot(&verbs->rail[0], "no epoll descriptor");
    for (int i = 0; i < verbs->rails; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        if (epoll_ctl(verbs->fd, EPOLL_CTL_ADD, verbs->rail[i].channel->fd, &event) != 0)
            return cannot(&verbs->rail[i], "no epoll entry");
    }
    return cinchSuccess;
}

/* Ranks of a host share its ports: each has as many as there are for it, or one with others. */
static cinchResult_t open_share(cinch_verbs *verbs, const cinch_settings *settings,
                                const port_name *ports, int found, int index, int sharers) {
    int count = found / sharers < 1 ? 1 : found / sharers;
    int first = (int)((int64_t)index * found / sharers);
    if (count > CINCH_VERBS_RAILS) count = CINCH_VERBS_RAILS;
    for (int i = 0; i < count; i++) {
        verbs->rails = i + 1;
        CINCH_TRY(open_rail(&verbs->rail[i], &ports[first + i], settings));
    }
    return join_channels(verbs);
}

cinchResult_t cinch_verbs_open_rails(cinch_verbs *verbs, const cinch_settings *settings, int index,
                                     int sharers) {
    port_name ports[MOST_PORTS];
    int count, down, closed;
    verbs->fd = -1;
    struct ibv_device **devices = list_devices(&count);
    if (!devices) return cinch_fail_quiet(cinchSystemError, "no InfiniBand or RoCE device is here");
    int found = active_ports(devices, count, settings->ib_hca, ports, &down, &closed);
    cinchResult_t result;
    if (found == 0)
        result =
            cinch_fail_quiet(cinchInvalidUsage,
                             "CINCH_IB_HCA=%.100s takes no active port: of %d devices it takes "
                             "%d ports that are down, and %d cannot be opened",
                             settings->ib_hca, count, down, closed);
    else
        result = open_share(verbs, settings, ports, found, index, sharers);
    ibv_free_device_list(devices);
    return result;
}

void cinch_verbs_close_rails(cinch_verbs *verbs) {
    if (verbs->rails > 1) cinch_close(verbs->fd);
    verbs->fd = -1;
    for (int i = 0; i < verbs->rails; i++) {
        cinch_verbs_rail *rail = &verbs->rail[i];
        if (rail->mr) ibv_dereg_mr(rail->mr);
        if (rail->cq) ibv_destroy_cq(rail->cq);
        if (rail->channel) cinch_disown(rail->channel->fd);
        if (rail->context) {
            cinch_disown(rail->context->cmd_fd);
            cinch_disown(rail->context->async_fd);
        }
        if (rail->channel) ibv_destroy_comp_channel(rail->channel);
        if (rail->pd) ibv_dealloc_pd(rail->pd);
        if (rail->context) ibv_close_device(rail->context);
        *rail = (cinch_verbs_rail){0};
    }
    verbs->rails = 0;
}
