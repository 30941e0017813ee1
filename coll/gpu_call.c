/* SPDX-License-Identifier: Apache-2.0 */
/* Whose memory a call's buffers are, and what stream that means. */
#include "coll/gpu.h"

/* CUDA's handle of its legacy default stream, which its NULL means too. */
#define LEGACY_STREAM ((cinchStream_t)(uintptr_t)1)

typedef struct found {
    const cinch_device_ops *pinned, *device; /* whose memory was among the buffers */
    const char *pageable;                    /* the last buffer that is such */
    int index;                               /* of the device; -1: none in particular */
} found;

static cinchResult_t look(const void *pointer, const char *name, found *f) {
    cinch_memory memory = {CINCH_MEMORY_HOST, -1};
    const cinch_device_ops *ops = cinch_device_of_pointer(pointer, &memory);
    if (memory.kind == CINCH_MEMORY_HOST) {
        f->pageable = name;
    } else if (memory.kind == CINCH_MEMORY_PINNED) {
        f->pinned = ops;
    } else {
        if (f->device && memory.device >= 0 && f->index >= 0 && memory.device != f->index)
            return cinch_fail(cinchInvalidArgument,
                              "sendbuff is on device %d, recvbuff on device %d: buffers on one "
                              "device are accepted",
                              f->index, memory.device);
        f->device = ops;
        if (memory.device >= 0) f->index = memory.device;
    }
    return cinchSuccess;
}

/* The communicator stays with the device of its first call. */
static cinchResult_t settle_device(cinch_called *call, const found *f) {
    struct cinchComm *comm = call->comm;
    int known = comm->gpu_device - 1;
    int index = f->index >= 0 ? f->index : known >= 0 ? known : 0;
    if (known >= 0 && index != known)
        return cinch_fail(cinchInvalidUsage,
                          "the buffers are on device %d, and the communicator's earlier calls were "
                          "on device %d: one device for each communicator is accepted",
                          index, known);
    comm->gpu_device = index + 1;
    call->on = f->device;
    call->device = index;
    return cinch_gpu_make(comm, f->device, index);
}

cinchResult_t cinch_gpu_find(cinch_called *call) {
    const cinch_shape *shape = cinch_shape_of(call->collective);
    bool pair = call->collective == CINCH_SENDRECV;
    bool sends = pair ? !call->receives : cinch_shape_sends(shape, call->comm->rank, call->root);
    bool gets = pair ? call->receives : cinch_shape_gets(shape, call->comm->rank, call->root);
    found f = {.index = -1};
    if (sends) CINCH_TRY(look(call->send, "sendbuff", &f));
    if (gets) CINCH_TRY(look(call->recv, "recvbuff", &f));
    if (f.device && f.pageable)
        return cinch_fail(cinchInvalidArgument,
                          "%s is pageable host memory and the other buffer is device memory: both "
                          "on the device, or with it pinned host memory, is accepted",
                          f.pageable);
    /* Whom it pairs with may have device memory, and so go by NCCL. */
    if (pair && f.pinned && call->comm->inner_state == CINCH_INNER_MADE) f.device = f.pinned;
    const cinch_device_ops *ops = f.device ? f.device : f.pinned;
    if (ops && !call->stream) call->stream = LEGACY_STREAM;
    if (f.device && cinch_device_of_stream(call->stream) != f.device)
        return cinch_fail(cinchInvalidArgument,
                          "device memory goes with a stream of its device, not with one of "
                          "cinchStreamCreate");
    if (call->premul && call->device_scalar && !f.device) {
        found scalar = {.index = -1};
        CINCH_TRY(look(call->device_scalar, "scalar", &scalar));
        if (scalar.device)
            return cinch_fail(
                cinchInvalidArgument,
                "the operator's scalar is in device memory and the buffers are not: "
                "host memory for both, or device memory for the buffers, is accepted");
    }
    return f.device ? settle_device(call, &f) : cinchSuccess;
}
