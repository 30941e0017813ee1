/* SPDX-License-Identifier: Apache-2.0 */
/* What the chaos programs share: a place of their own, ranks as processes, and what is left. */
#ifndef CINCH_TESTS_CHAOS_STAGE_H_
#define CINCH_TESTS_CHAOS_STAGE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Moves this process into namespaces of its own, where they can be had: /dev/shm and /tmp are empty
 * but for this program, and the network is a loopback. So nobody else's files and sockets are
 * there, whatever else runs on the machine. False: it goes on where it is. */
bool stage_isolate(void);

/* Files that look like cinch's, and its sockets, that are there now in the places where such can
 * be; after stage_isolate every file counts. */
int stage_leftovers(char *names, size_t room);

/* Arguments "--name VALUE": the value or what stands for it. */
const char *stage_option(int argc, char **argv, const char *name, const char *otherwise);
uint64_t stage_number(int argc, char **argv, const char *name, uint64_t otherwise);

/* A child that dies with this process, or in the child 0. */
pid_t stage_fork(void);

/* Waits until the child has ended or the time is over (false); *status as of waitpid. */
bool stage_await(pid_t pid, uint64_t deadline_ms, int *status);

/* Memory that children share, zeroed; ends the program where there is none. */
void *stage_memory(size_t bytes);

/* Memory in use: bytes allocated, and bytes of the library's shared memory that are mapped. */
typedef struct stage_bytes {
    size_t heap, mapped;
    bool sanitized; /* a sanitizer counted; what is resident then says nothing */
} stage_bytes;
stage_bytes stage_bytes_now(void);

/* Whether the sentence names the rank: "rank 3", and not "rank 31". */
bool stage_names(const char *sentence, int rank);

/* Where the threads of a process are, for those that hang. */
void stage_tell_threads(pid_t pid);

#endif
