/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory that this process has mapped, each file once: ranks that are threads of a process
 * see the same memory at the same address, and it goes when the last of them drops it. */
#ifndef CINCH_TRANSPORTS_MAPPING_H_
#define CINCH_TRANSPORTS_MAPPING_H_

#include <stdbool.h>
#include <stddef.h>

typedef struct cinch_mapping {
    unsigned char *data;
    size_t bytes;
} cinch_mapping;

/* A new memfd of that size, zeros, sealed so that nobody can cut it short under those who mapped
 * it. Close-on-exec; the caller closes it. -1 with errno set on failure. */
int cinch_memfd_create(const char *name, size_t bytes);

/* Whether the file is at least that large and will stay so; only then may it be mapped, for a
 * reader beyond a file's end is killed. */
bool cinch_memfd_holds(int fd, size_t bytes);

/* Maps the whole file, or finds it mapped; NULL with errno set on failure. The descriptor is not
 * needed afterwards. */
cinch_mapping *cinch_mapping_open(int fd, size_t bytes);

cinch_mapping *cinch_mapping_keep(cinch_mapping *mapping); /* for one more owner */
void cinch_mapping_drop(cinch_mapping *mapping);           /* NULL is nothing */

#endif
