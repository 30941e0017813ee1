/* SPDX-License-Identifier: Apache-2.0 */
/* A user's MPI program: MPI knows ranks and passes the id on, cinch adds. Built by mpirun.sh. */
#include <cinch/cinch.h>
#include <mpi.h>
#include <stdio.h>

int main(int argc, char **argv) {
    int rank, size;
    cinchUniqueId id;
    cinchComm_t comm;
    float mine, sum = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    mine = (float)(rank + 1);
    if (rank == size - 1 && cinchGetUniqueId(&id) != cinchSuccess) return 1;
    MPI_Bcast(&id, sizeof id, MPI_BYTE, size - 1, MPI_COMM_WORLD);
    if (cinchCommInitRank(&comm, size, id, rank) != cinchSuccess ||
        cinchAllReduce(&mine, &sum, 1, cinchFloat, cinchSum, comm, NULL) != cinchSuccess ||
        cinchCommDestroy(comm) != cinchSuccess) {
        fprintf(stderr, "rank %d: %s\n", rank, cinchGetLastError(NULL));
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
    if (rank == 0) printf("own program: %d ranks, sum %g\n", size, (double)sum);
    return sum != (float)(size * (size + 1)) / 2;
}
