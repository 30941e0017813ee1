/* SPDX-License-Identifier: Apache-2.0 */
/* As much of NCCL's interface as the imitation of it and its caller need; some names get prototypes
 * that NCCL does not give them, to fill every place where an argument can be. */
#ifndef CINCH_TESTS_NCCL_FEW_H_
#define CINCH_TESTS_NCCL_FEW_H_

#include <stddef.h>

typedef struct ncclComm *ncclComm_t;
typedef struct {
    char internal[128];
} ncclUniqueId;
typedef struct {
    int nRanks, rank, stride;
} ncclTeam_t;

int ncclGetVersion(int *version);
int ncclGetUniqueId(ncclUniqueId *id);
int ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId id, int rank);
int ncclCommGetAsyncError(ncclComm_t comm, int *code);
int ncclAllReduce(const void *send, void *recv, size_t count, int dtype, int op, ncclComm_t comm,
                  void *stream);
int pncclAllReduce(const void *send, void *recv, size_t count, int dtype, int op, ncclComm_t comm,
                   void *stream);
int ncclGroupStart(void);
int ncclGroupEnd(void);
int ncclBcast(void *buff, size_t count, int dtype, int root, ncclComm_t comm, void *stream);
const char *ncclGetErrorString(int code);
const char *ncclGetLastError(ncclComm_t comm);
void ncclResetDebugInit(void);
ncclTeam_t ncclTeamWorld(ncclComm_t comm);
int ncclTeamRankToWorld(ncclComm_t comm, ncclTeam_t team, int rank);

/* Six integers and eight numbers in registers, and a structure and two more on the stack. */
double ncclSignal(long a, long b, long c, long d, long e, long f, double s, double t, double u,
                  double v, double w, double x, double y, double z, ncclUniqueId id, long g,
                  double h);
/* The number of vector registers used is an argument, too. */
int ncclPutSignal(char *text, size_t room, const char *format, ...);

#endif
