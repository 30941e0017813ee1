/* SPDX-License-Identifier: Apache-2.0 */
/* Internet addresses: as text and as bytes, this host's own, listening and connecting. */
#ifndef CINCH_TRANSPORTS_ADDRESS_H_
#define CINCH_TRANSPORTS_ADDRESS_H_

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/settings.h"

typedef union cinch_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} cinch_address;

#define CINCH_ADDRESS_TEXT 56  /* "[v6]:port" with its NUL */
#define CINCH_ADDRESS_BYTES 19 /* packed: family, port, address */

uint16_t cinch_address_port(const cinch_address *address);
void cinch_address_set_port(cinch_address *address, uint16_t port);
bool cinch_address_is_loopback(const cinch_address *address);

/* "192.0.2.1:5000", "[2001:db8::1]:5000"; returns text. */
const char *cinch_address_format(const cinch_address *address, char text[CINCH_ADDRESS_TEXT]);

/* The same bytes on every machine; unpack is false for what pack never makes. */
void cinch_address_pack(const cinch_address *address, uint8_t bytes[CINCH_ADDRESS_BYTES]);
bool cinch_address_unpack(const uint8_t bytes[CINCH_ADDRESS_BYTES], cinch_address *address);

/* Splits HOST:PORT, [V6]:PORT; false where text is neither. */
bool cinch_host_port_parse(const char *text, char *host, size_t room, uint16_t *port);

/* The addresses of a host name or literal, of settings->socket_family, at most room. Quiet: 0 or a
 * getaddrinfo code (gai_strerror). */
int cinch_host_resolve(const cinch_settings *settings, const char *host, uint16_t port,
                       cinch_address *out, int room, int *count);

/* This host's addresses on the interfaces that settings->socket_ifname and socket_family allow, the
 * best first, port 0. Without socket_ifname: InfiniBand's, then others; those of bridges for
 * containers only where there is no other, and loopback only where there is nothing else. Never
 * link-local ones. InvalidUsage: the rules leave none. */
cinchResult_t cinch_addresses_local(const cinch_settings *settings, cinch_address *out, int room,
                                    int *count);

/* Whether a name of an interface passes the rules of CINCH_SOCKET_IFNAME ("" lets all pass). */
bool cinch_ifname_matches(const char *rules, const char *name);

/* A listening TCP socket (cinch_close); port 0 is replaced by the one that the kernel chose. With
 * SO_REUSEADDR. 0 or errno. */
int cinch_listen(cinch_address *address, int backlog, int *fd);

/* Connects until deadline_ns; without delay, with keep-alive probes that notice a lost host within
 * 10 s. 0 or errno. */
int cinch_connect(const cinch_address *address, uint64_t deadline_ns, int *fd);

/* The same options for an accepted socket. */
void cinch_socket_tune(int fd);

#endif
