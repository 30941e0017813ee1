/* SPDX-License-Identifier: Apache-2.0 */
/* MPI_Allreduce measured as `cinch perf allreduce` measures: a sample is a batch of back-to-back
 * calls of at least 1 ms, its time the maximum over ranks; the median of the samples counts.
 * Buffers are malloced and touched, out of place, fp32 sum. Prints one JSON line per size.
 *
 *   mpicc -O2 perf/bench_mpi.c -o bench_mpi; mpirun -n 2 ./bench_mpi SAMPLES BYTES... */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double batch(const float *in, float *out, int count, int calls) {
    double begin = MPI_Wtime();
    for (int i = 0; i < calls; i++)
        MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    double mine = MPI_Wtime() - begin, most;
    MPI_Allreduce(&mine, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return most / calls;
}

static void measure(size_t bytes, int samples, int rank, int ranks) {
    size_t count = bytes / sizeof(float);
    float *in = malloc(bytes), *out = malloc(bytes);
    double *time = malloc((size_t)samples * sizeof *time);
    if (!in || !out || !time) MPI_Abort(MPI_COMM_WORLD, 1);
    for (size_t i = 0; i < count; i++) in[i] = (float)(rank + 1), out[i] = 0;
    int calls = 1;
    while (calls < 1000000 && batch(in, out, (int)count, calls) * calls < 1e-3) calls *= 2;
    for (int s = 0; s < 5; s++) batch(in, out, (int)count, calls); /* warm-up */
    for (int s = 0; s < samples; s++) time[s] = batch(in, out, (int)count, calls);
    qsort(time, (size_t)samples, sizeof *time, by_value);
    float expected = (float)(ranks * (ranks + 1) / 2);
    if (out[0] != expected || out[count - 1] != expected) MPI_Abort(MPI_COMM_WORLD, 1);
    if (rank == 0)
        printf("{\"bytes\":%zu,\"ranks\":%d,\"time_us\":%.4f,\"time_min_us\":%.4f}\n", bytes, ranks,
               time[samples / 2] * 1e6, time[0] * 1e6);
    free(in);
    free(out);
    free(time);
}

int main(int argc, char **argv) {
    int rank, ranks;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    int samples = argc > 2 ? atoi(argv[1]) : 0;
    if (samples < 1) {
        if (rank == 0) fprintf(stderr, "usage: bench_mpi SAMPLES BYTES...\n");
        MPI_Finalize();
        return 2;
    }
    for (int i = 2; i < argc; i++) measure(strtoull(argv[i], NULL, 10), samples, rank, ranks);
    MPI_Finalize();
    return 0;
}
