/* SPDX-License-Identifier: Apache-2.0
 *
 * cinch: collectives for machine-learning training.
 *
 * This header mirrors the host side of NCCL 2.28's nccl.h with `nccl` written
 * `cinch` and `NCCL_` written `CINCH_`: the same types, the same values, the
 * same meaning. What cinch adds stands at the end, under "Beyond NCCL".
 *
 * Rules that hold for every function unless its comment says otherwise:
 *  - Errors. A function returns cinchSuccess or a code from cinchResult_t, and
 *    leaves a sentence that names the cause for cinchGetLastError. Outputs are
 *    set only on success. Nothing here aborts or exits the process.
 *  - Threads. A communicator is used by one thread at a time, and all its ranks
 *    make the same calls in the same order. Different communicators are
 *    independent.
 *  - Streams. A call with a host stream is queued and returns at once; with
 *    stream NULL it is complete on return, and inside a group when the outermost
 *    cinchGroupEnd returns.
 *  - Buffers belong to the caller, who leaves them alone until the operation is
 *    complete. Any alignment is legal. A count is in elements.
 */
#ifndef CINCH_H_
#define CINCH_H_

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* The NCCL release that is mirrored; cinchGetVersion answers with this too. */
#define CINCH_MAJOR 2
#define CINCH_MINOR 28
#define CINCH_PATCH 9
#define CINCH_SUFFIX ""
#define CINCH_VERSION_CODE 22809
#define CINCH_VERSION(X, Y, Z)                                                                     \
    (((X) <= 2 && (Y) <= 8) ? (X)*1000 + (Y)*100 + (Z) : (X)*10000 + (Y)*100 + (Z))

/* Our own release. */
#define CINCH_RELEASE "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#pragma GCC visibility push(default) /* these are what the library exports */
#endif

/* Handles. A stream is the same pointer type as CUDA's cudaStream_t. */
typedef struct cinchComm *cinchComm_t;
typedef struct cinchWindow_vidmem *cinchWindow_t;
typedef struct CUstream_st *cinchStream_t;
#define CINCH_COMM_NULL NULL

/* Names one communicator to the ranks that will form it; pass it to them as it is. */
#define CINCH_UNIQUE_ID_BYTES 128
typedef struct {
    char internal[CINCH_UNIQUE_ID_BYTES];
} cinchUniqueId;

typedef enum {
    cinchSuccess = 0,
    cinchUnhandledCudaError = 1, /* a CUDA call failed */
    cinchSystemError = 2,        /* the operating system or the network said no */
    cinchInternalError = 3,      /* a bug in cinch */
    cinchInvalidArgument = 4,    /* one argument is wrong */
    cinchInvalidUsage = 5,       /* the call, a setting, or the ranks' agreement is wrong */
    cinchRemoteError = 6,        /* another rank failed or is gone */
    cinchInProgress = 7,         /* not finished yet */
    cinchNumResults = 8
} cinchResult_t;

#define CINCH_CONFIG_UNDEF_INT INT_MIN
#define CINCH_CONFIG_UNDEF_PTR NULL
#define CINCH_SPLIT_NOCOLOR -1
#define CINCH_UNDEF_FLOAT -1.0f

#define CINCH_WIN_DEFAULT 0x00
#define CINCH_WIN_COLL_SYMMETRIC 0x01
#define CINCH_WIN_REQUIRED_ALIGNMENT 4096

#define CINCH_CTA_POLICY_DEFAULT 0x00
#define CINCH_CTA_POLICY_EFFICIENCY 0x01
#define CINCH_CTA_POLICY_ZERO 0x02

#define CINCH_SHRINK_DEFAULT 0x00
#define CINCH_SHRINK_ABORT 0x01

#define CINCH_REVOKE_DEFAULT 0x00

/* Options of one communicator. Begin from CINCH_CONFIG_INITIALIZER, which fills in the first
 * three fields. Those that concern CUDA kernels or NCCL's own networks are accepted and have no
 * effect here: cgaClusterSize, minCTAs, maxCTAs, netName, trafficClass, collnetEnable, CTAPolicy,
 * nvlsCTAs, nChannelsPerNetPeer, nvlinkCentricSched. */
typedef struct cinchConfig_v22800 {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking; /* 1 or undefined: init returns when the communicator is ready */
    int cgaClusterSize;
    int minCTAs;
    int maxCTAs;
    const char *netName;
    int splitShare;
    int trafficClass;
    const char *commName; /* shown in messages and statistics; copied */
    int collnetEnable;
    int CTAPolicy;
    int shrinkShare;
    int nvlsCTAs;
    int nChannelsPerNetPeer;
    int nvlinkCentricSched;
} cinchConfig_t;

#define CINCH_CONFIG_INITIALIZER                                                                   \
    {                                                                                              \
        sizeof(cinchConfig_t), 0xcafebeef, CINCH_VERSION(CINCH_MAJOR, CINCH_MINOR, CINCH_PATCH),   \
            CINCH_CONFIG_UNDEF_INT, CINCH_CONFIG_UNDEF_INT, CINCH_CONFIG_UNDEF_INT,                \
            CINCH_CONFIG_UNDEF_INT, CINCH_CONFIG_UNDEF_PTR, CINCH_CONFIG_UNDEF_INT,                \
            CINCH_CONFIG_UNDEF_INT, CINCH_CONFIG_UNDEF_PTR, CINCH_CONFIG_UNDEF_INT,                \
            CINCH_CONFIG_UNDEF_INT, CINCH_CONFIG_UNDEF_INT, CINCH_CONFIG_UNDEF_INT,                \
            CINCH_CONFIG_UNDEF_INT, CINCH_CONFIG_UNDEF_INT                                         \
    }

/* What a simulated group reports. */
typedef struct cinchSimInfo_v22200 {
    size_t size;
    unsigned int magic;
    unsigned int version;
    float estimatedTime; /* seconds */
} cinchSimInfo_t;

#define CINCH_SIM_INFO_INITIALIZER                                                                 \
    {                                                                                              \
        sizeof(cinchSimInfo_t), 0x74685283, CINCH_VERSION(CINCH_MAJOR, CINCH_MINOR, CINCH_PATCH),  \
            CINCH_UNDEF_FLOAT                                                                      \
    }

typedef enum { cinchNumOps_dummy = 5 } cinchRedOp_dummy_t;
typedef enum {
    cinchSum = 0,
    cinchProd = 1,
    cinchMax = 2, /* NaN wins over any number, in min as well */
    cinchMin = 3,
    cinchAvg = 4,    /* the sum divided by the number of ranks; integers truncate */
    cinchNumOps = 5, /* operators made by cinchRedOpCreate* have values from here on */
    cinchMaxRedOp = 0x7fffffff >> (32 - 8 * sizeof(cinchRedOp_dummy_t))
} cinchRedOp_t;

typedef enum {
    cinchInt8 = 0,
    cinchChar = 0,
    cinchUint8 = 1,
    cinchInt32 = 2,
    cinchInt = 2,
    cinchUint32 = 3,
    cinchInt64 = 4,
    cinchUint64 = 5,
    cinchFloat16 = 6,
    cinchHalf = 6,
    cinchFloat32 = 7,
    cinchFloat = 7,
    cinchFloat64 = 8,
    cinchDouble = 8,
    cinchBfloat16 = 9,
    cinchFloat8e4m3 = 10,
    cinchFloat8e5m2 = 11,
    cinchNumTypes = 12
} cinchDataType_t;

/* When the scalar of cinchRedOpCreatePreMulSum is read. */
typedef enum {
    cinchScalarDevice = 0,       /* while the collective runs */
    cinchScalarHostImmediate = 1 /* before the creating call returns */
} cinchScalarResidence_t;

/* The release of NCCL that this library mirrors, CINCH_VERSION_CODE.
 * InvalidArgument: version is NULL. */
cinchResult_t cinchGetVersion(int *version);

/* Makes a fresh id for one communicator; call it on one rank and hand the result to the others
 * (over MPI, a file, fork). It starts the meeting point that the ranks will join, in this process,
 * which must live until they have. Where CINCH_COMM_ID is set it starts nothing: the k-th call
 * gives the same id on every rank, and rank 0 hosts the meeting point when it initializes.
 * The id holds a random secret: who has it can join.
 * InvalidArgument: uniqueId is NULL. InvalidUsage: a setting is wrong. SystemError: no socket. */
cinchResult_t cinchGetUniqueId(cinchUniqueId *uniqueId);

/* Joins `nranks` ranks into a communicator, this one as `rank` (0 <= rank < nranks, each once).
 * Blocks until all have joined, at most CINCH_INIT_TIMEOUT_MS; inside a group it is queued and
 * runs at the outermost cinchGroupEnd, so that one thread can make several ranks.
 * InvalidArgument: comm NULL, rank or nranks out of range. InvalidUsage: a setting is wrong, here
 * or on any rank, or the ranks disagree. SystemError: network. RemoteError: a rank failed. */
cinchResult_t cinchCommInitRank(cinchComm_t *comm, int nranks, cinchUniqueId commId, int rank);

/* As cinchCommInitRank, with options; config may be NULL. With config->blocking 0 it returns
 * cinchInProgress at once, and so do the calls on the communicator that would wait (a stream that
 * is NULL included); cinchCommGetAsyncError tells when all of that is complete. *comm is set on
 * return and can be aborted at any time. */
cinchResult_t cinchCommInitRankConfig(cinchComm_t *comm, int nranks, cinchUniqueId commId, int rank,
                                      cinchConfig_t *config);

/* Makes all `ndev` ranks of a communicator in this process; comms has room for ndev handles.
 * devlist may be NULL; without CUDA devices its entries are not looked at. */
cinchResult_t cinchCommInitAll(cinchComm_t *comms, int ndev, const int *devlist);

/* As cinchCommInitRankConfig, with nId ids (1 <= nId <= nranks), the same in the same order on
 * every rank. The ranks meet at the first; the others are let go where they were made. */
cinchResult_t cinchCommInitRankScalable(cinchComm_t *newcomm, int nranks, int myrank, int nId,
                                        cinchUniqueId *commIds, cinchConfig_t *config);

/* Makes communicators out of comm: the ranks that give the same color (>= 0) are together, in the
 * order of key and, where that is alike, of their rank in comm. CINCH_SPLIT_NOCOLOR: *newcomm is
 * NULL. config NULL: the parent's. Collective over comm, which is not disturbed; not in a group
 * with collectives. config->splitShare has no effect: nothing is shared. InvalidArgument: newcomm
 * is NULL, or color is negative. Else as cinchCommInitRank. */
cinchResult_t cinchCommSplit(cinchComm_t comm, int color, int key, cinchComm_t *newcomm,
                             cinchConfig_t *config);

/* Makes a communicator of the ranks that are not in excludeRanksList, in their order. Only those
 * call it, all with the same list. shrinkFlags CINCH_SHRINK_DEFAULT: comm is healthy and stays as
 * it is. CINCH_SHRINK_ABORT: first stops what runs on comm, which may have failed, and which serves
 * only for cinchCommDestroy, cinchCommAbort or another shrink after that. config NULL: the
 * parent's. InvalidArgument: a rank in the list is out of range, there twice, or this one, or
 * nobody is left; another flag. RemoteError: the ranks cannot reach each other any more. */
cinchResult_t cinchCommShrink(cinchComm_t comm, int *excludeRanksList, int excludeRanksCount,
                              cinchComm_t *newcomm, cinchConfig_t *config, int shrinkFlags);

/* Stops this rank's operations on comm, which fail with InvalidUsage, as every later one does;
 * every rank calls it. Split, shrink (with CINCH_SHRINK_ABORT) and destroy serve after it.
 * revokeFlags is CINCH_REVOKE_DEFAULT, else InvalidArgument. May be called while another thread is
 * inside an operation of the communicator. */
cinchResult_t cinchCommRevoke(cinchComm_t comm, int revokeFlags);

/* Waits until this rank's queued operations are complete; the communicator then serves only for
 * cinchCommDestroy. InvalidUsage after cinchCommRevoke. */
cinchResult_t cinchCommFinalize(cinchComm_t comm);

/* Finalizes where that was not done, and frees the communicator. NULL is InvalidArgument. */
cinchResult_t cinchCommDestroy(cinchComm_t comm);

/* Stops what is running on the communicator, on every rank, and frees this rank's part. The other
 * ranks' operations fail with RemoteError. May be called while another thread is inside an
 * operation of the communicator: that operation returns first. */
cinchResult_t cinchCommAbort(cinchComm_t comm);

/* A constant string for a code. Never NULL. */
const char *cinchGetErrorString(cinchResult_t result);

/* The sentence that names the cause of the last error: of the communicator where one is given and
 * has failed, else of the calling thread. Empty if there was none. Valid until the thread's next
 * call. */
const char *cinchGetLastError(cinchComm_t comm);

/* The state of the communicator: cinchSuccess, or the code with which an operation on it failed; of
 * a non-blocking one cinchInProgress while something is under way. A failed communicator can only
 * be aborted, destroyed or shrunk. Does not block. */
cinchResult_t cinchCommGetAsyncError(cinchComm_t comm, cinchResult_t *asyncError);

cinchResult_t cinchCommCount(const cinchComm_t comm, int *count);
cinchResult_t cinchCommUserRank(const cinchComm_t comm, int *rank);

/* The CUDA device of the communicator; without one, as always in this version, InvalidUsage. */
cinchResult_t cinchCommCuDevice(const cinchComm_t comm, int *device);

/* Tells that `size` bytes at `buff` will be used often. Here it makes error feedback follow the
 * registration: a reduction whose send buffer begins inside finds its residuals under the order of
 * registration, as with cinchCommTag. *handle serves for cinchCommDeregister; what is left is
 * dropped with the communicator. */
cinchResult_t cinchCommRegister(const cinchComm_t comm, void *buff, size_t size, void **handle);
cinchResult_t cinchCommDeregister(const cinchComm_t comm, void *handle);

/* Registers memory under a window handle; every rank calls it. On host memory it is valid and
 * changes nothing. winFlags is CINCH_WIN_DEFAULT or CINCH_WIN_COLL_SYMMETRIC; buff is aligned to
 * CINCH_WIN_REQUIRED_ALIGNMENT, else InvalidArgument. */
cinchResult_t cinchCommWindowRegister(cinchComm_t comm, void *buff, size_t size, cinchWindow_t *win,
                                      int winFlags);
cinchResult_t cinchCommWindowDeregister(cinchComm_t comm, cinchWindow_t win);

/* Reads the log settings again from the environment. Deprecated, as in NCCL. */
void cinchResetDebugInit(void);

/* Makes an operator that multiplies this rank's input by *scalar (of type `datatype`, rounded to
 * it) and sums. Good for `comm` and `datatype` only; each rank may have another scalar.
 * Source: NCCL 2.28 ncclRedOpCreatePreMulSum. */
cinchResult_t cinchRedOpCreatePreMulSum(cinchRedOp_t *op, void *scalar, cinchDataType_t datatype,
                                        cinchScalarResidence_t residence, cinchComm_t comm);

/* Frees the operator. Operations that were called with it are not disturbed. */
cinchResult_t cinchRedOpDestroy(cinchRedOp_t op, cinchComm_t comm);

/* Reduces `count` elements over all ranks; every rank gets the same bits in recvbuff. The buffers
 * are the same (in place) or do not overlap. Half, bfloat16 and float8 are added in fp32 inside one
 * reduction and rounded once per hop. count 0 does nothing.
 * InvalidArgument: NULL buffer, unknown datatype or op, NULL comm.
 * RemoteError, SystemError: the communicator has failed and stays so. */
cinchResult_t cinchAllReduce(const void *sendbuff, void *recvbuff, size_t count,
                             cinchDataType_t datatype, cinchRedOp_t op, cinchComm_t comm,
                             cinchStream_t stream);

/* The other collectives. What is said of cinchAllReduce holds for them: buffers are apart or in
 * place as given here, count 0 does nothing, and the same errors come back; a root out of range, 0
 * <= root < nranks, is InvalidArgument. A buffer that a rank does not use may be NULL. */

/* Root's sendbuff, `count` elements, to every rank's recvbuff. In place: the same on the root. */
cinchResult_t cinchBroadcast(const void *sendbuff, void *recvbuff, size_t count,
                             cinchDataType_t datatype, int root, cinchComm_t comm,
                             cinchStream_t stream);
/* cinchBroadcast in place on every rank. */
cinchResult_t cinchBcast(void *buff, size_t count, cinchDataType_t datatype, int root,
                         cinchComm_t comm, cinchStream_t stream);

/* As cinchAllReduce, the result on the root only. In place: the same. */
cinchResult_t cinchReduce(const void *sendbuff, void *recvbuff, size_t count,
                          cinchDataType_t datatype, cinchRedOp_t op, int root, cinchComm_t comm,
                          cinchStream_t stream);

/* Reduces n blocks of recvcount elements from sendbuff; rank r gets block r, recvcount elements. In
 * place: recvbuff is sendbuff + rank * recvcount. */
cinchResult_t cinchReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount,
                                 cinchDataType_t datatype, cinchRedOp_t op, cinchComm_t comm,
                                 cinchStream_t stream);

/* Every rank's sendcount elements, in rank order, to every recvbuff (n * sendcount). In place:
 * sendbuff is recvbuff + rank * sendcount. */
cinchResult_t cinchAllGather(const void *sendbuff, void *recvbuff, size_t sendcount,
                             cinchDataType_t datatype, cinchComm_t comm, cinchStream_t stream);

/* Block j of this rank's sendbuff becomes block `rank` of rank j's recvbuff; both hold n * count
 * elements. Never in place. */
cinchResult_t cinchAlltoAll(const void *sendbuff, void *recvbuff, size_t count,
                            cinchDataType_t datatype, cinchComm_t comm, cinchStream_t stream);

/* Every rank's `count` elements to the root's recvbuff (n * count), in rank order. In place on the
 * root: sendbuff is recvbuff + root * count. */
cinchResult_t cinchGather(const void *sendbuff, void *recvbuff, size_t count,
                          cinchDataType_t datatype, int root, cinchComm_t comm,
                          cinchStream_t stream);

/* Block j of the root's sendbuff (n * count) to rank j's recvbuff. In place on the root: recvbuff
 * is sendbuff + root * count. */
cinchResult_t cinchScatter(const void *sendbuff, void *recvbuff, size_t count,
                           cinchDataType_t datatype, int root, cinchComm_t comm,
                           cinchStream_t stream);

/* One rank to another, which calls the other function with the same datatype and count. Messages
 * between two ranks go in the order of the calls. The calls of a group make progress together,
 * after its collectives; outside of a group each is complete before the next begins. peer may be
 * this rank, within a group.
 * InvalidArgument: peer out of range. InvalidUsage: the counts differ. */
cinchResult_t cinchSend(const void *sendbuff, size_t count, cinchDataType_t datatype, int peer,
                        cinchComm_t comm, cinchStream_t stream);
cinchResult_t cinchRecv(void *recvbuff, size_t count, cinchDataType_t datatype, int peer,
                        cinchComm_t comm, cinchStream_t stream);

/* Calls between the outermost start and end are queued per thread and begin together at the end.
 * Errors in arguments return at once, and again from cinchGroupEnd, which then runs nothing; others
 * from cinchGroupEnd. Inits, splits and shrinks do not mix with collectives in one group. */
#ifdef __cplusplus
cinchResult_t cinchGroupStart();
cinchResult_t cinchGroupEnd();
#else
cinchResult_t cinchGroupStart(void);
cinchResult_t cinchGroupEnd(void);
#endif

/* Ends the group as cinchGroupEnd, without running its calls, and estimates their time: simInfo,
 * begun with CINCH_SIM_INFO_INITIALIZER, gets the sum in seconds by the cost model that also
 * chooses algorithms. Only the outermost end reports. */
cinchResult_t cinchGroupSimulateEnd(cinchSimInfo_t *simInfo);

/* Memory that suits the library best: without a CUDA context the same as cinchHostAlloc. */
cinchResult_t cinchMemAlloc(void **ptr, size_t size);
cinchResult_t cinchMemFree(void *ptr);

/* ------------------------------------------------------------------------------------------------
 * Beyond NCCL
 * ------------------------------------------------------------------------------------------------
 */

/* Host memory that ranks on the same host map: all-reduces between such buffers need no staging
 * copy. Zeroed, aligned to 4096 bytes; size 0 gives NULL. Freed by cinchHostFree, not free(); a
 * forked child must not free its parent's. SystemError: out of memory. */
cinchResult_t cinchHostAlloc(void **ptr, size_t size);
cinchResult_t cinchHostFree(void *ptr);

/* A host stream: operations given to it run in order, in a worker thread of its own, beside the
 * caller's computation. Query returns cinchInProgress while work is queued, else as Synchronize:
 * the code of the first call that failed. Destroy waits for what is queued. */
cinchResult_t cinchStreamCreate(cinchStream_t *stream);
cinchResult_t cinchStreamDestroy(cinchStream_t stream);
cinchResult_t cinchStreamSynchronize(cinchStream_t stream);
cinchResult_t cinchStreamQuery(cinchStream_t stream);

/* Sets the codec of a communicator, inside a host and between hosts, from a specification as in
 * CINCH_CODEC ("int8", "topk:ratio=0.01,ef=1", "none"); NULL: back to the environment's.
 * Collective: every rank calls it with the same text, else all get InvalidUsage. Error-feedback
 * state is dropped where the codec changes. */
cinchResult_t cinchCommSetCodec(cinchComm_t comm, const char *spec);

/* Names the `bytes` at `ptr` `id` for error feedback: a reduction whose send buffer begins inside
 * finds its residuals under the id, wherever the buffer moves. bytes 0 takes the name away. Waits
 * until the communicator's operations are complete. */
cinchResult_t cinchCommTag(cinchComm_t comm, const void *ptr, size_t bytes, uint64_t id);

/* Counters of one communicator since its creation. The caller sets `size`; fields beyond it are
 * left alone. */
typedef struct cinchStats {
    size_t size;               /* in: sizeof(cinchStats_t) */
    uint64_t calls;            /* collectives completed */
    uint64_t bytes;            /* of their messages: of all blocks where a collective has n */
    uint64_t wire_bytes;       /* handed to transports, our headers included, or read by peers */
    double comm_us;            /* time inside collectives, codecs included */
    double codec_us;           /* of that, encoding and decoding */
    uint64_t compressed_calls; /* calls that used a codec */
    uint64_t nonfinite;        /* blocks that held NaN or Inf when they were encoded */
    uint64_t ef_bytes;         /* error-feedback residuals held now */
    uint64_t ef_dropped;       /* residual buffers dropped, unused or beyond CINCH_EF_MAX_BYTES */
} cinchStats_t;
cinchResult_t cinchCommGetStats(cinchComm_t comm, cinchStats_t *stats);

/* What a collective of `bytes` bytes would do, as JSON: {"op","bytes","dtype","algo","codec",
 * "transport","chunk_bytes","rounds"}. op and bytes are as in `cinch perf`: where a collective
 * has n blocks, bytes counts all of them. *len: in, the room at json; out, the length with the
 * final NUL. json NULL: only the length. Where the communicator's calls on device memory go by
 * NCCL, that is what is described: "algo" and "transport" are "nccl". InvalidArgument: too little
 * room. */
cinchResult_t cinchCommDescribePlan(cinchComm_t comm, const char *op, size_t bytes,
                                    cinchDataType_t dtype, char *json, size_t *len);

/* Error-feedback residuals of this rank and its count of calls, for checkpoints: a run that goes on
 * from them sends the same bytes as one that was never stopped. Export: buf NULL asks for the size;
 * else *len is the room in and the bytes written out. Import: before the first compressed call;
 * entries find their buffers by tag, or else by order of first use. Scale multiplies all residuals,
 * when a loss scale changes. Call them between operations. */
cinchResult_t cinchCommExportState(cinchComm_t comm, void *buf, size_t *len);
cinchResult_t cinchCommImportState(cinchComm_t comm, const void *buf, size_t len);
cinchResult_t cinchCommScaleState(cinchComm_t comm, double factor);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
