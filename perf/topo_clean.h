/* SPDX-License-Identifier: Apache-2.0 */
/* Names and sentences from files, made fit for XML, JSON and a terminal. */
#ifndef CINCH_PERF_TOPO_CLEAN_H_
#define CINCH_PERF_TOPO_CLEAN_H_

#include <stddef.h>

/* Copies at most room - 1 bytes, whole characters: what is no UTF-8, or no character of XML,
 * becomes '?', control characters become spaces. Returns clean. */
const char *cinch_topo_clean(const char *text, char *clean, size_t room);

#endif
