/* SPDX-License-Identifier: Apache-2.0
 *
 * The codec interface: how 32-bit floats become fewer bytes and floats again. The built-in codecs
 * implement it, and a plug-in (CINCH_CODEC_PLUGIN=path.so) does by exporting `cinchCodec`.
 *
 * The library cuts a buffer into segments, calls encode for each, moves the bytes, and calls
 * decode or decode_add at the other end. Half and bfloat16 buffers are widened to fp32 before
 * encode and rounded after the sum. All functions are pure: they keep no state between calls, may
 * run in several threads at once, and give the same bytes for the same arguments on every machine.
 * Counts are in elements, sizes in bytes; wire buffers have any alignment.
 */
#ifndef CINCH_CODEC_H_
#define CINCH_CODEC_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CINCH_CODEC_ABI 1

/* flags */
#define CINCH_CODEC_FIXED_SIZE 1u    /* encode always writes bound(count) bytes */
#define CINCH_CODEC_DETERMINISTIC 2u /* the result depends on the arguments alone: required */
#define CINCH_CODEC_EF 4u            /* encode keeps the residual itself */
#define CINCH_CODEC_EF_DEFAULT 8u    /* error feedback is on unless ef=0 is given */

/* Room for what parse() makes of the parameters. */
#define CINCH_CODEC_PARAM_BYTES 256

/* Where in the job an encode happens; random rounding is keyed on this and on nothing else. */
typedef struct cinchCodecSite {
    uint64_t call;   /* the communicator's count of collectives */
    uint64_t offset; /* of the segment's first element in the whole buffer */
    uint32_t rank;   /* who encodes */
    uint32_t phase;  /* 0: a rank's input, 1: the owner's sum */
} cinchCodecSite_t;

typedef struct cinchCodec {
    size_t size;      /* sizeof(cinchCodec_t) as the codec was compiled */
    uint32_t abi;     /* CINCH_CODEC_ABI */
    uint32_t flags;   /* CINCH_CODEC_* */
    const char *name; /* as in CINCH_CODEC: at most 31 letters, digits, '_' and '-' */

    /* Reads "key=value,..." (NULL or empty: all defaults) into params, CINCH_CODEC_PARAM_BYTES
     * zeroed bytes aligned to 16. `ef` is taken out by the library before, and a key given twice is
     * refused. NULL: fine; else a constant text that lists what is accepted ("block=N"). */
    const char *(*parse)(const char *text, void *params);

    /* The unit, in elements, at whose multiples segments begin; no segment but the last of a
     * buffer or of a rank's share ends elsewhere. At least 1. */
    size_t (*granule)(const void *params);

    /* The most bytes that encode writes for count elements. */
    size_t (*bound)(const void *params, size_t count);

    /* Optional (NULL: the flag says it): 1 where encode always writes bound(count) bytes with these
     * parameters, else 0. */
    int (*fixed_size)(const void *params);

    /* Optional, all or none. block: how many elements share a quantization step. step_bound: the
     * largest |decoded - value| that one encode can make in a block whose largest magnitude is
     * abs_max; +Inf where abs_max is not finite. */
    size_t (*block)(const void *params);
    float (*step_bound)(const void *params, float abs_max);

    /* Optional, both or none: sees the whole buffer (or a rank's share of it), plus its residual
     * where that is not NULL, before its segments are encoded, and leaves up to
     * prepare_bytes(params, count) bytes for them in state, which is aligned to 16. site->offset is
     * that of src[0]. */
    size_t (*prepare_bytes)(const void *params, size_t count);
    void (*prepare)(const void *params, const cinchCodecSite_t *site, const float *src,
                    const float *residual, size_t count, void *state);

    /* Encodes src[0..count) into wire and returns the bytes written. residual, only with
     * CINCH_CODEC_EF: NULL, or count floats; then src + residual is encoded, and what was not sent
     * is left in residual. A block with NaN or Inf decodes as NaN (or as it was, where the format
     * can say so) and leaves its residual as it was; *nonfinite counts such blocks. state: from
     * prepare, or NULL. */
    size_t (*encode)(const void *params, const cinchCodecSite_t *site, const void *state,
                     const float *src, float *residual, size_t count, void *wire,
                     uint64_t *nonfinite);

    /* Decodes the elements [first, first + len) of an encoding of count elements in `bytes` bytes
     * of wire into dst[0..len). first is a multiple of the granule; first + len is one or is count.
     * The bytes come from a peer: anything may be in them. 0: fine; -1: they are no encoding of
     * count elements (dst is then undefined). */
    int (*decode)(const void *params, const void *wire, size_t bytes, size_t count, size_t first,
                  size_t len, float *dst);

    /* Optional (NULL: the library decodes and adds). dst[i] = init[i] + wire[0][i] + wire[1][i] +
     * ... in this order, in fp32, one rounding per addition, no contraction; elements that an
     * encoding leaves out are not added. init NULL: begin with wire[0]'s decoded value itself. init
     * may be dst. init and dst begin at element `first`. Returns as decode. */
    int (*decode_add)(const void *params, int n, const void *const *wire, const size_t *bytes,
                      size_t count, size_t first, size_t len, const float *init, float *dst);
} cinchCodec_t;

/* What a plug-in exports under the name "cinchCodec". Returns a constant table, or NULL where it
 * cannot serve the abi. */
typedef const cinchCodec_t *(*cinchCodecFunc_t)(uint32_t abi);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
