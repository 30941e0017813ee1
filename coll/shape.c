/* SPDX-License-Identifier: Apache-2.0 */
/* The table of collectives. */
#include "coll/shape.h"

#include <string.h>

const cinch_shape cinch_shapes[CINCH_COLLECTIVES] = {
    [CINCH_ALLREDUCE] = {"allreduce", .reduces = true},
    [CINCH_REDUCESCATTER] = {"reducescatter", .reduces = true, .in_n = true},
    [CINCH_ALLGATHER] = {"allgather", .out_n = true},
    [CINCH_BROADCAST] = {"broadcast", .in_root = true},
    [CINCH_REDUCE] = {"reduce", .reduces = true, .out_root = true},
    [CINCH_ALLTOALL] = {"alltoall", .in_n = true, .out_n = true},
    [CINCH_GATHER] = {"gather", .out_n = true, .out_root = true},
    [CINCH_SCATTER] = {"scatter", .in_n = true, .in_root = true},
    [CINCH_SENDRECV] = {"sendrecv"},
};

cinch_collective cinch_collective_find(const char *name, size_t length) {
    int c = 0;
    while (c < CINCH_COLLECTIVES && (strlen(cinch_shapes[c].name) != length ||
                                     memcmp(cinch_shapes[c].name, name, length) != 0))
        c++;
    return (cinch_collective)c;
}
