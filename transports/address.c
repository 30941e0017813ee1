/* SPDX-License-Identifier: Apache-2.0 */
/* Internet addresses: as text and as bytes, this host's own, listening and connecting. */
#include "transports/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transports/io.h"

static socklen_t length_of(const cinch_address *address) {
    return address->any.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->v4;
}

uint16_t cinch_address_port(const cinch_address *address) {
    return ntohs(address->any.sa_family == AF_INET6 ? address->v6.sin6_port : address->v4.sin_port);
}

void cinch_address_set_port(cinch_address *address, uint16_t port) {
    if (address->any.sa_family == AF_INET6)
        address->v6.sin6_port = htons(port);
    else
        address->v4.sin_port = htons(port);
}

bool cinch_address_is_loopback(const cinch_address *address) {
    if (address->any.sa_family == AF_INET6) return IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr);
    return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
}

const char *cinch_address_format(const cinch_address *address, char text[CINCH_ADDRESS_TEXT]) {
    char host[INET6_ADDRSTRLEN] = "?";
    bool v6 = address->any.sa_family == AF_INET6;
    if (v6)
        inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
    else
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
    snprintf(text, CINCH_ADDRESS_TEXT, v6 ? "[%s]:%u" : "%s:%u", host,
             (unsigned)cinch_address_port(address));
    return text;
}

void cinch_address_pack(const cinch_address *address, uint8_t bytes[CINCH_ADDRESS_BYTES]) {
    uint16_t port = cinch_address_port(address);
    memset(bytes, 0, CINCH_ADDRESS_BYTES);
    bytes[0] = address->any.sa_family == AF_INET6 ? 6 : 4;
    bytes[1] = (uint8_t)(port >> 8);
    bytes[2] = (uint8_t)port;
    if (bytes[0] == 6)
        memcpy(bytes + 3, &address->v6.sin6_addr, 16);
    else
        memcpy(bytes + 3, &address->v4.sin_addr, 4);
}

bool cinch_address_unpack(const uint8_t bytes[CINCH_ADDRESS_BYTES], cinch_address *address) {
    memset(address, 0, sizeof *address);
    if (bytes[0] == 6) {
        address->v6.sin6_family = AF_INET6;
        memcpy(&address->v6.sin6_addr, bytes + 3, 16);
    } else if (bytes[0] == 4) {
        address->v4.sin_family = AF_INET;
        memcpy(&address->v4.sin_addr, bytes + 3, 4);
    } else {
        return false;
    }
    cinch_address_set_port(address, (uint16_t)(bytes[1] << 8 | bytes[2]));
    return true;
}

bool cinch_host_port_parse(const char *text, char *host, size_t room, uint16_t *port) {
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text) return false;
    const char *first = text, *last = colon;
    if (*text == '[') {
        if (colon[-1] != ']') return false;
        first++;
        last--;
    } else if (memchr(text, ':', (size_t)(colon - text))) {
        return false; /* a bare v6 address leaves it open where the port begins */
    }
    if (last <= first || (size_t)(last - first) >= room) return false;
    unsigned long value = 0;
    const char *digit = colon + 1;
    for (; *digit >= '0' && *digit <= '9' && digit - colon <= 5; digit++)
        value = value * 10 + (unsigned long)(*digit - '0');
    if (*digit || digit == colon + 1 || value > 65535) return false;
    memcpy(host, first, (size_t)(last - first));
    host[last - first] = 0;
    *port = (uint16_t)value;
    return true;
}

/* As the choices of CINCH_SOCKET_FAMILY stand in the table. */
static int family_of(const cinch_settings *settings) {
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
    return families[settings->socket_family];
}

int cinch_host_resolve(const cinch_settings *settings, const char *host, uint16_t port,
                       cinch_address *out, int room, int *count) {
    struct addrinfo hints = {.ai_family = family_of(settings), .ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    *count = 0;
    int code = getaddrinfo(host, NULL, &hints, &list);
    if (code) return code;
    for (struct addrinfo *one = list; one && *count < room; one = one->ai_next) {
        if (one->ai_addrlen > sizeof(cinch_address)) continue;
        cinch_address *to = &out[(*count)++];
        memset(to, 0, sizeof *to);
        memcpy(to, one->ai_addr, one->ai_addrlen);
        cinch_address_set_port(to, port);
    }
    freeaddrinfo(list);
    return *count ? 0 : EAI_NONAME;
}

bool cinch_ifname_matches(const char *rules, const char *name) {
    bool exclude = *rules == '^', exact = false;
    if (exclude) rules++;
    if (*rules == '=') {
        exact = true;
        rules++;
    }
    if (!*rules) return true;
    bool found = false;
    while (*rules && !found) {
        size_t length = strcspn(rules, ",");
        if (length)
            found = exact ? strlen(name) == length && !memcmp(name, rules, length)
                          : !strncmp(name, rules, length);
        rules += length + (rules[length] == ',');
    }
    return found != exclude;
}

/* Lower is better; from CONTAINER on only where nothing better is there. */
enum { INFINIBAND, ORDINARY, CONTAINER, LOOPBACK, CLASSES };

static int class_of(const struct ifaddrs *one) {
    if (one->ifa_flags & IFF_LOOPBACK) return LOOPBACK;
    if (!strncmp(one->ifa_name, "ib", 2)) return INFINIBAND;
    if (!strncmp(one->ifa_name, "docker", 6) || !strncmp(one->ifa_name, "virbr", 5) ||
        !strncmp(one->ifa_name, "br-", 3))
        return CONTAINER;
    return ORDINARY;
}

static bool usable(const cinch_settings *settings, const struct ifaddrs *one) {
    if (!one->ifa_addr || !(one->ifa_flags & IFF_UP)) return false;
    int family = one->ifa_addr->sa_family, wanted = family_of(settings);
    if (family != AF_INET && family != AF_INET6) return false;
    if (wanted != AF_UNSPEC && wanted != family) return false;
    if (family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, one->ifa_addr, sizeof v6);
        if (IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr)) return false;
    }
    return cinch_ifname_matches(settings->socket_ifname, one->ifa_name);
}

cinchResult_t cinch_addresses_local(const cinch_settings *settings, cinch_address *out, int room,
                                    int *count) {
    struct ifaddrs *list;
    *count = 0;
    if (getifaddrs(&list)) return cinch_fail_errno(errno, "cannot list network interfaces");
    bool asked = settings->socket_ifname[0] && settings->socket_ifname[0] != '^';
    for (int class = 0; class < CLASSES; class ++) {
        if (class >= CONTAINER && *count && !asked) break;
        for (struct ifaddrs *one = list; one && *count < room; one = one->ifa_next) {
            if (class_of(one) != class || !usable(settings, one)) continue;
            cinch_address *to = &out[(*count)++];
            memset(to, 0, sizeof *to);
            memcpy(to, one->ifa_addr,
                   one->ifa_addr->sa_family == AF_INET6 ? sizeof to->v6 : sizeof to->v4);
        }
    }
    freeifaddrs(list);
    if (*count) return cinchSuccess;
    if (!settings->socket_ifname[0] && !settings->socket_family)
        return cinch_fail(cinchSystemError, "this host has no network interface that is up");
    return cinch_fail(
        cinchInvalidUsage,
        "CINCH_SOCKET_IFNAME \"%s\" and CINCH_SOCKET_FAMILY %s leave no network address of this "
        "host: prefixes of interface names are accepted, = before for exact names, ^ for exclusion",
        settings->socket_ifname, settings->value[CINCH_SET_socket_family]);
}

int cinch_listen(cinch_address *address, int backlog, int *fd) {
    int on = 1, sock, err = cinch_socket(address->any.sa_family, SOCK_STREAM, &sock);
    if (err) return err;
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->any.sa_family == AF_INET6)
        setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    socklen_t length = length_of(address);
    if (bind(sock, &address->any, length) || listen(sock, backlog) ||
        getsockname(sock, &address->any, &length)) {
        err = errno;
        cinch_close(sock);
        return err;
    }
    *fd = sock;
    return 0;
}

void cinch_socket_tune(int fd) {
    int on = 1, idle = 3, interval = 2, probes = 3; /* 3 + 3 * 2 = 9 s */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

int cinch_connect(const cinch_address *address, uint64_t deadline_ns, int *fd) {
    int sock, err = cinch_socket(address->any.sa_family, SOCK_STREAM, &sock);
    if (err) return err;
    cinch_socket_tune(sock);
    if (connect(sock, &address->any, length_of(address))) {
        err = errno;
        if (err == EINPROGRESS || err == EINTR) {
            socklen_t length = sizeof err;
            int late = cinch_wait(sock, POLLOUT, deadline_ns);
            if (late)
                err = late;
            else if (getsockopt(sock, SOL_SOCKET, SO_ERROR, &err, &length))
                err = errno;
        }
    }
    /* A socket that met itself: on loopback the kernel may choose the wanted port for our end. */
    cinch_address self = {0};
    socklen_t length = sizeof self;
    if (!err && !getsockname(sock, &self.any, &length) &&
        cinch_address_port(&self) == cinch_address_port(address) &&
        cinch_address_is_loopback(&self) && cinch_address_is_loopback(address))
        err = ECONNREFUSED;
    if (err) {
        cinch_close(sock);
        return err;
    }
    *fd = sock;
    return 0;
}
