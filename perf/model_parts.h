/* SPDX-License-Identifier: Apache-2.0 */
/* The model's parts, each forward and backward. Rows are symbols of the batch; backward functions
 * add to gradients of parameters and, where they say so, to those of activations. */
#ifndef CINCH_PERF_MODEL_PARTS_H_
#define CINCH_PERF_MODEL_PARTS_H_

#include <stdint.h>

#include "perf/model_gemm.h"

/* out = x * scale * gain, scale[row] = 1 / rms(x). */
void cinch_norm_forward(cinch_real *out, cinch_real *scale, const cinch_real *x,
                        const cinch_real *gain, int rows, int width);
/* d_x += the gradient by x. */
void cinch_norm_backward(cinch_real *d_x, cinch_real *d_gain, const cinch_real *d_out,
                         const cinch_real *x, const cinch_real *scale, const cinch_real *gain,
                         int rows, int width);

/* out = silu(x) = x / (1 + exp(-x)). */
void cinch_silu_forward(cinch_real *out, const cinch_real *x, size_t count);
/* d holds the gradient by out on entry and by x on return. */
void cinch_silu_backward(cinch_real *d, const cinch_real *x, size_t count);

typedef struct cinch_attention_shape {
    int windows, context, width, heads;
} cinch_attention_shape;

/* qkv: rows of queries, keys and values, width each. weight: windows * heads squares of context *
 * context. Each symbol sees itself and what stands before it in its window. */
void cinch_attention_forward(cinch_real *out, cinch_real *weight, const cinch_real *qkv,
                             const cinch_attention_shape *shape, cinch_real *scratch);
/* Sets d_qkv. d_weight: room for one square. */
void cinch_attention_backward(cinch_real *d_qkv, cinch_real *d_weight, const cinch_real *d_out,
                              const cinch_real *weight, const cinch_real *qkv,
                              const cinch_attention_shape *shape, cinch_real *scratch);

/* Logits become probabilities; returns the sum of -log(probability of the target). */
double cinch_softmax_loss(cinch_real *logits, const uint8_t *target, int rows, int vocabulary);

#endif
