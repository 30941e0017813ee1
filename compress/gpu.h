/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions and codecs on a GPU: what the engine queues on a stream where it would call the
 * functions of compress/reduce.h and compress/codec.h on the host. The bits are the same.
 *
 * Nothing here allocates or waits. Pointers are to memory that the GPU reaches, of any alignment;
 * the current device is the stream's. UnhandledCudaError with a sentence: a launch failed. */
#ifndef CINCH_COMPRESS_GPU_H_
#define CINCH_COMPRESS_GPU_H_

#include "compress/codec.h"

/* Where a kernel runs. blocks: at most so many, so that it leaves room beside it; 0: as many as
 * there is work for. */
typedef struct cinch_gpu_where {
    cinchStream_t stream;
    unsigned blocks;
} cinch_gpu_where;

/* A term of a sum: wire, `bytes` long, or plain elements. */
typedef struct cinch_gpu_term {
    const void *wire, *plain;
    size_t bytes;
} cinch_gpu_term;

enum { CINCH_GPU_FUSED_TERMS = 128 }; /* of sum_encode */

/* Counters in device memory, zero at first: to `nonfinite` is added, `malformed` becomes 1 where a
 * peer's message makes no sense. */
typedef struct cinch_gpu_counts {
    unsigned long long nonfinite;
    unsigned malformed, unused;
} cinch_gpu_counts;

typedef struct cinch_gpu {
    /* As cinch_reduce_fn, of any number of sources and destinations. */
    cinchResult_t (*reduce)(const cinch_gpu_where *where, cinchDataType_t dtype, cinchRedOp_t op,
                            void *const *dst, int ndst, const void *const *src, int nsrc,
                            size_t count, int avg_n);
    /* As cinch_premul; scalar is in memory that the GPU reaches. */
    cinchResult_t (*premul)(const cinch_gpu_where *where, cinchDataType_t dtype, void *dst,
                            const void *src, size_t count, const void *scalar);

    /* NULL, or why the codec does not run on a GPU (plug-ins do not), as the end of a sentence. */
    const char *(*supports)(const cinch_codec *codec);
    /* The length of every message of that many elements; 0: it depends on them. */
    size_t (*wire_bytes)(const cinch_codec *codec, size_t count);
    /* As cinch_codec_prepare: what a codec must see before the first segment. The state is
     * state_bytes of device memory (0: none is wanted), aligned to 16. src and residual stay as
     * they are until the segment that they belong to is encoded, residual NULL or not in both, and
     * an encode is of whole granules of prepare's, the last of which may be short. Where it is not,
     * prepare_part makes of prepare's state that of the one encode, state_bytes of its count. */
    size_t (*state_bytes)(const cinch_codec *codec, size_t count);
    cinchResult_t (*prepare)(const cinch_gpu_where *where, const cinch_codec *codec,
                             const cinchCodecSite_t *site, cinchDataType_t dtype, const void *src,
                             const float *residual, size_t count, void *state);
    cinchResult_t (*prepare_part)(const cinch_gpu_where *where, const cinch_codec *codec,
                                  const cinchCodecSite_t *site, cinchDataType_t dtype,
                                  const void *src, const float *residual, size_t count,
                                  const void *whole, void *state);
    /* As cinch_codec_encode; but where state_bytes is not 0 a state must be given. */
    cinchResult_t (*encode)(const cinch_gpu_where *where, const cinch_codec *codec,
                            const cinchCodecSite_t *site, const void *state, cinchDataType_t dtype,
                            const void *src, float *residual, size_t count, void *wire,
                            cinch_gpu_counts *counts);
    /* As cinch_codec_sum. */
    cinchResult_t (*sum)(const cinch_gpu_where *where, const cinch_codec *codec,
                         const cinch_gpu_term *terms, int nterms, cinchDataType_t src_dtype,
                         cinchDataType_t dst_dtype, void *dst, size_t count, int avg_n,
                         cinch_gpu_counts *counts);

    /* Where wire_bytes is 0: leaves the length of the message that encode made at wire in *bytes,
     * in memory that the GPU reaches. */
    cinchResult_t (*measure)(const cinch_gpu_where *where, const cinch_codec *codec,
                             const void *wire, size_t count, unsigned long long *bytes);

    /* An owner's step in one pass, for codecs that `fuses` names: the sum of at most
     * CINCH_GPU_FUSED_TERMS terms in fp32, encoded at wire, and, where dst is not NULL, decoded
     * again there. The same bits as sum, encode, sum. */
    bool (*fuses)(const cinch_codec *codec);
    cinchResult_t (*sum_encode)(const cinch_gpu_where *where, const cinch_codec *codec,
                                const cinchCodecSite_t *site, const cinch_gpu_term *terms,
                                int nterms, cinchDataType_t src_dtype, float *residual,
                                size_t count, int avg_n, void *wire, cinchDataType_t dst_dtype,
                                void *dst, cinch_gpu_counts *counts);
} cinch_gpu;

/* NULL in a build without CUDA. */
const cinch_gpu *cinch_gpu_kernels(void);

#endif
