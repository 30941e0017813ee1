/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the operations that `cinch perf` measures. */
#include "perf/operations.h"

static cinchResult_t allreduce(const cinch_invocation *c, cinchComm_t comm) {
    return cinchAllReduce(c->send, c->recv, c->count, c->dtype, c->redop, comm, c->stream);
}

static cinchResult_t reducescatter(const cinch_invocation *c, cinchComm_t comm) {
    return cinchReduceScatter(c->send, c->recv, c->count, c->dtype, c->redop, comm, c->stream);
}

static cinchResult_t allgather(const cinch_invocation *c, cinchComm_t comm) {
    return cinchAllGather(c->send, c->recv, c->count, c->dtype, comm, c->stream);
}

static cinchResult_t broadcast(const cinch_invocation *c, cinchComm_t comm) {
    return cinchBroadcast(c->send, c->recv, c->count, c->dtype, c->root, comm, c->stream);
}

static cinchResult_t reduce(const cinch_invocation *c, cinchComm_t comm) {
    return cinchReduce(c->send, c->recv, c->count, c->dtype, c->redop, c->root, comm, c->stream);
}

static cinchResult_t alltoall(const cinch_invocation *c, cinchComm_t comm) {
    return cinchAlltoAll(c->send, c->recv, c->count, c->dtype, comm, c->stream);
}

static cinchResult_t gather(const cinch_invocation *c, cinchComm_t comm) {
    return cinchGather(c->send, c->recv, c->count, c->dtype, c->root, comm, c->stream);
}

static cinchResult_t scatter(const cinch_invocation *c, cinchComm_t comm) {
    return cinchScatter(c->send, c->recv, c->count, c->dtype, c->root, comm, c->stream);
}

/* Around the ring of ranks. The group is ended whatever its calls said. */
static cinchResult_t sendrecv(const cinch_invocation *c, cinchComm_t comm) {
    int right = (c->rank + 1) % c->nranks, left = (c->rank + c->nranks - 1) % c->nranks;
    cinchResult_t result = cinchGroupStart();
    if (result != cinchSuccess) return result;
    result = cinchSend(c->send, c->count, c->dtype, right, comm, c->stream);
    if (result == cinchSuccess)
        result = cinchRecv(c->recv, c->count, c->dtype, left, comm, c->stream);
    cinchResult_t end = cinchGroupEnd();
    return result == cinchSuccess ? end : result;
}

#define NO CINCH_NO_BLOCK
#define ONE CINCH_ONE_BLOCK
#define ALL CINCH_ALL_BLOCKS

const cinch_operation cinch_operations[] = {
    {.name = "allreduce",
     .send = {ONE, ONE},
     .recv = {ONE, ONE},
     .source = CINCH_FROM_ALL,
     .in_place = true,
     .compressible = true,
     .shares = 2,
     .call = allreduce},
    {.name = "reducescatter",
     .send = {ALL, ALL},
     .recv = {ONE, ONE},
     .source = CINCH_FROM_ALL,
     .own_block = true,
     .in_place = true,
     .compressible = true,
     .shares = 1,
     .call = reducescatter},
    {.name = "allgather",
     .send = {ONE, ONE},
     .recv = {ALL, ALL},
     .source = CINCH_FROM_EACH,
     .in_place = true,
     .compressible = true,
     .shares = 1,
     .call = allgather},
    {.name = "broadcast",
     .send = {NO, ONE},
     .recv = {ONE, ONE},
     .source = CINCH_FROM_ROOT,
     .rooted = true,
     .in_place = true,
     .call = broadcast},
    {.name = "reduce",
     .send = {ONE, ONE},
     .recv = {NO, ONE},
     .source = CINCH_FROM_ALL,
     .rooted = true,
     .in_place = true,
     .call = reduce},
    {.name = "alltoall",
     .send = {ALL, ALL},
     .recv = {ALL, ALL},
     .source = CINCH_FROM_EACH,
     .own_block = true,
     .shares = 1,
     .call = alltoall},
    {.name = "gather",
     .send = {ONE, ONE},
     .recv = {NO, ALL},
     .source = CINCH_FROM_EACH,
     .rooted = true,
     .in_place = true,
     .shares = 1,
     .call = gather},
    {.name = "scatter",
     .send = {NO, ALL},
     .recv = {ONE, ONE},
     .source = CINCH_FROM_ROOT,
     .own_block = true,
     .rooted = true,
     .in_place = true,
     .shares = 1,
     .call = scatter},
    {.name = "sendrecv",
     .send = {ONE, ONE},
     .recv = {ONE, ONE},
     .source = CINCH_FROM_LEFT,
     .call = sendrecv},
};

const char *const cinch_operation_names[] = {
    "allreduce", "reducescatter", "allgather", "broadcast", "reduce",
    "alltoall",  "gather",        "scatter",   "sendrecv",  NULL};

static int blocks(cinch_blocks b, int nranks) {
    return b == CINCH_ALL_BLOCKS ? nranks : (int)b;
}

int cinch_send_blocks(const cinch_operation *operation, int rank, int nranks, int root) {
    return blocks(operation->send[rank == root], nranks);
}

int cinch_recv_blocks(const cinch_operation *operation, int rank, int nranks, int root) {
    return blocks(operation->recv[rank == root], nranks);
}

int cinch_total_blocks(const cinch_operation *operation, int nranks) {
    bool all = operation->send[1] == CINCH_ALL_BLOCKS || operation->recv[1] == CINCH_ALL_BLOCKS;
    return all ? nranks : 1;
}

bool cinch_reduces(const cinch_operation *operation) {
    return operation->source == CINCH_FROM_ALL;
}

bool cinch_same_everywhere(const cinch_operation *operation) {
    return operation->recv[0] != CINCH_NO_BLOCK && !operation->own_block &&
           operation->source != CINCH_FROM_LEFT;
}

void cinch_block_source(const cinch_operation *operation, int rank, int nranks, int root, int block,
                        int *source, int *at) {
    switch (operation->source) {
    case CINCH_FROM_ALL:
        *source = CINCH_EVERY_RANK;
        break;
    case CINCH_FROM_EACH:
        *source = block;
        break;
    case CINCH_FROM_ROOT:
        *source = root;
        break;
    default: /* CINCH_FROM_LEFT */
        *source = (rank + nranks - 1) % nranks;
    }
    *at = operation->own_block ? rank : 0;
}

double cinch_bus_factor(const cinch_operation *operation, int nranks) {
    return operation->shares ? (double)operation->shares * (nranks - 1) / nranks : 1;
}
