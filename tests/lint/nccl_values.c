/* SPDX-License-Identifier: Apache-2.0 */
/* Prints every constant and layout of nccl.h 2.28 that cinch.h mirrors, and checks the types of the
 * functions. Written for NCCL: with s/nccl/cinch/g and s/NCCL/CINCH/g it is a program for cinch. */
#ifdef STREAM_IS_OURS
#define cudaStream_t ncclStream_t
#endif
#include <nccl.h>

#include <stddef.h>
#include <stdio.h>

#define INT(x) printf("%s %lld\n", #x, (long long)(x))
#define FLOAT(x) printf("%s %g\n", #x, (double)(x))
#define TEXT(x) printf("%s \"%s\"\n", #x, x)
#define POINTER(x) printf("%s %s\n", #x, (x) == NULL ? "NULL" : "other")
#define SIZE(type) printf("sizeof %s %zu\n", #type, sizeof(type))
#define FIELD(type, field)                                                                         \
    printf("%s.%s at %zu, %zu bytes\n", #type, #field, offsetof(type, field),                      \
           sizeof(((type *)0)->field))

/* The function has this type; it is not called. */
#define FUNCTION(name, result, ...)                                                                \
    _Static_assert(_Generic(&name, result(*)(__VA_ARGS__) : 1, default : 0), #name)

FUNCTION(ncclMemAlloc, ncclResult_t, void **, size_t);
FUNCTION(ncclMemFree, ncclResult_t, void *);
FUNCTION(ncclGetVersion, ncclResult_t, int *);
FUNCTION(ncclGetUniqueId, ncclResult_t, ncclUniqueId *);
FUNCTION(ncclCommInitRankConfig, ncclResult_t, ncclComm_t *, int, ncclUniqueId, int,
         ncclConfig_t *);
FUNCTION(ncclCommInitRank, ncclResult_t, ncclComm_t *, int, ncclUniqueId, int);
FUNCTION(ncclCommInitAll, ncclResult_t, ncclComm_t *, int, const int *);
FUNCTION(ncclCommFinalize, ncclResult_t, ncclComm_t);
FUNCTION(ncclCommDestroy, ncclResult_t, ncclComm_t);
FUNCTION(ncclCommAbort, ncclResult_t, ncclComm_t);
FUNCTION(ncclGetErrorString, const char *, ncclResult_t);
FUNCTION(ncclGetLastError, const char *, ncclComm_t);
FUNCTION(ncclCommGetAsyncError, ncclResult_t, ncclComm_t, ncclResult_t *);
FUNCTION(ncclCommCount, ncclResult_t, const ncclComm_t, int *);
FUNCTION(ncclCommUserRank, ncclResult_t, const ncclComm_t, int *);
FUNCTION(ncclRedOpCreatePreMulSum, ncclResult_t, ncclRedOp_t *, void *, ncclDataType_t,
         ncclScalarResidence_t, ncclComm_t);
FUNCTION(ncclRedOpDestroy, ncclResult_t, ncclRedOp_t, ncclComm_t);
FUNCTION(ncclAllReduce, ncclResult_t, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
         ncclComm_t, cudaStream_t);
FUNCTION(ncclGroupStart, ncclResult_t, void);
FUNCTION(ncclGroupEnd, ncclResult_t, void);

static void macros(void) {
    INT(NCCL_MAJOR);
    INT(NCCL_MINOR);
    INT(NCCL_PATCH);
    TEXT(NCCL_SUFFIX);
    INT(NCCL_VERSION_CODE);
    INT(NCCL_VERSION(2, 8, 4));
    INT(NCCL_VERSION(2, 9, 1));
    INT(NCCL_VERSION(2, 28, 9));
    POINTER(NCCL_COMM_NULL);
    INT(NCCL_UNIQUE_ID_BYTES);
    INT(NCCL_CONFIG_UNDEF_INT);
    POINTER(NCCL_CONFIG_UNDEF_PTR);
    INT(NCCL_SPLIT_NOCOLOR);
    FLOAT(NCCL_UNDEF_FLOAT);
    INT(NCCL_WIN_DEFAULT);
    INT(NCCL_WIN_COLL_SYMMETRIC);
    INT(NCCL_WIN_REQUIRED_ALIGNMENT);
    INT(NCCL_CTA_POLICY_DEFAULT);
    INT(NCCL_CTA_POLICY_EFFICIENCY);
    INT(NCCL_CTA_POLICY_ZERO);
    INT(NCCL_SHRINK_DEFAULT);
    INT(NCCL_SHRINK_ABORT);
    INT(NCCL_REVOKE_DEFAULT);
}

static void enumerators(void) {
    INT(ncclSuccess);
    INT(ncclUnhandledCudaError);
    INT(ncclSystemError);
    INT(ncclInternalError);
    INT(ncclInvalidArgument);
    INT(ncclInvalidUsage);
    INT(ncclRemoteError);
    INT(ncclInProgress);
    INT(ncclNumResults);
    INT(ncclNumOps_dummy);
    INT(ncclSum);
    INT(ncclProd);
    INT(ncclMax);
    INT(ncclMin);
    INT(ncclAvg);
    INT(ncclNumOps);
    INT(ncclMaxRedOp);
    INT(ncclInt8);
    INT(ncclChar);
    INT(ncclUint8);
    INT(ncclInt32);
    INT(ncclInt);
    INT(ncclUint32);
    INT(ncclInt64);
    INT(ncclUint64);
    INT(ncclFloat16);
    INT(ncclHalf);
    INT(ncclFloat32);
    INT(ncclFloat);
    INT(ncclFloat64);
    INT(ncclDouble);
    INT(ncclBfloat16);
    INT(ncclFloat8e4m3);
    INT(ncclFloat8e5m2);
    INT(ncclNumTypes);
    INT(ncclScalarDevice);
    INT(ncclScalarHostImmediate);
}

static void types(void) {
    SIZE(ncclComm_t);
    SIZE(ncclWindow_t);
    SIZE(ncclUniqueId);
    FIELD(ncclUniqueId, internal);
    SIZE(ncclResult_t);
    SIZE(ncclRedOp_t);
    SIZE(ncclRedOp_dummy_t);
    SIZE(ncclDataType_t);
    SIZE(ncclScalarResidence_t);

    SIZE(ncclConfig_t);
    SIZE(struct ncclConfig_v22800);
    FIELD(ncclConfig_t, size);
    FIELD(ncclConfig_t, magic);
    FIELD(ncclConfig_t, version);
    FIELD(ncclConfig_t, blocking);
    FIELD(ncclConfig_t, cgaClusterSize);
    FIELD(ncclConfig_t, minCTAs);
    FIELD(ncclConfig_t, maxCTAs);
    FIELD(ncclConfig_t, netName);
    FIELD(ncclConfig_t, splitShare);
    FIELD(ncclConfig_t, trafficClass);
    FIELD(ncclConfig_t, commName);
    FIELD(ncclConfig_t, collnetEnable);
    FIELD(ncclConfig_t, CTAPolicy);
    FIELD(ncclConfig_t, shrinkShare);
    FIELD(ncclConfig_t, nvlsCTAs);
    FIELD(ncclConfig_t, nChannelsPerNetPeer);
    FIELD(ncclConfig_t, nvlinkCentricSched);

    SIZE(ncclSimInfo_t);
    SIZE(struct ncclSimInfo_v22200);
    FIELD(ncclSimInfo_t, size);
    FIELD(ncclSimInfo_t, magic);
    FIELD(ncclSimInfo_t, version);
    FIELD(ncclSimInfo_t, estimatedTime);
}

static void initializers(void) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclSimInfo_t sim = NCCL_SIM_INFO_INITIALIZER;
    INT(config.size);
    INT(config.magic);
    INT(config.version);
    INT(config.blocking);
    INT(config.cgaClusterSize);
    INT(config.minCTAs);
    INT(config.maxCTAs);
    POINTER(config.netName);
    INT(config.splitShare);
    INT(config.trafficClass);
    POINTER(config.commName);
    INT(config.collnetEnable);
    INT(config.CTAPolicy);
    INT(config.shrinkShare);
    INT(config.nvlsCTAs);
    INT(config.nChannelsPerNetPeer);
    INT(config.nvlinkCentricSched);
    INT(sim.size);
    INT(sim.magic);
    INT(sim.version);
    FLOAT(sim.estimatedTime);
}

int main(void) {
    macros();
    enumerators();
    types();
    initializers();
    return 0;
}
