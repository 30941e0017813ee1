/* SPDX-License-Identifier: Apache-2.0 */
/* A small character-level language model: a transformer with causal attention, its gradient by
 * hand, and the optimizer. It knows no ranks.
 *
 * x = place[position] + embed[0][symbol] + embed[1][the one before] + ...; per layer
 *   x += attention(norm(x) qkv) out;  x += silu(norm(x) up) down;
 * logits = norm(x) head. Norms divide by the root mean square and multiply by a gain. */
#ifndef CINCH_PERF_MODEL_H_
#define CINCH_PERF_MODEL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/model_gemm.h"

typedef struct cinch_model_shape {
    int vocabulary;
    int context; /* symbols in a window */
    int reach;   /* of the embedding: so many symbols up to the present one */
    int layers;
    int width; /* a multiple of heads */
    int heads;
    int hidden;
    int windows; /* most windows in a batch */
} cinch_model_shape;

/* One parameter tensor, a stretch of the flat parameters. */
typedef struct cinch_model_tensor {
    const char *name;
    int layer; /* -1: none */
    size_t offset;
    size_t count;
    cinch_real spread; /* of the initial values; 0: all start at 1, and never decay */
} cinch_model_tensor;

enum { CINCH_MODEL_LAYER_TENSORS = 6, CINCH_MODEL_OTHER_TENSORS = 4 };

struct cinch_model_layer;

typedef struct cinch_model {
    cinch_model_shape shape;
    size_t count;           /* of parameters */
    cinch_real *parameters; /* flat, in the order of the tensors */
    cinch_real *gradient;   /* as parameters */
    int tensors;
    cinch_model_tensor *tensor;
    struct cinch_model_layer *layer;
    /* activations that backward needs, and scratch; all in `memory` */
    void *memory;
    cinch_real *norm, *scale, *probability; /* of the last norm and the logits */
    cinch_real *stream, *d_stream, *d_norm, *d_wide, *d_scores, *scratch;
} cinch_model;

/* Parameters come from the seed alone. False: out of memory; nothing is held then. */
bool cinch_model_make(cinch_model *model, const cinch_model_shape *shape, uint64_t seed);
void cinch_model_free(cinch_model *model);

/* The sum over all symbols of -log(probability of the target). input, target: windows * context
 * symbols below the vocabulary, windows <= shape.windows. */
double cinch_model_forward(cinch_model *model, const uint8_t *input, const uint8_t *target,
                           int windows);

/* Sets model->gradient to that of the mean loss of the last forward call, given again. */
void cinch_model_backward(cinch_model *model, const uint8_t *input, const uint8_t *target,
                          int windows);

/* AdamW: moments that fade by beta1 and beta2 a step, and decay apart from the gradient. A tensor
 * moves by at most `bound` times the rate at once, as the root mean square of its elements: rare
 * large gradients then do not throw a run off its way. */
typedef struct cinch_adamw {
    cinch_real *first; /* moments */
    cinch_real *second;
    int64_t step;
    double beta1, beta2, epsilon, decay, bound;
} cinch_adamw;

/* Moments begin at zero. False: out of memory; nothing is held then. */
bool cinch_adamw_make(cinch_adamw *adamw, const cinch_model *model, double beta1, double beta2);
void cinch_adamw_free(cinch_adamw *adamw);
/* gradient: as the model's parameters lie. */
void cinch_adamw_step(cinch_adamw *adamw, cinch_model *model, const cinch_real *gradient,
                      double rate);

/* A pseudo-random number that depends on all its arguments and nothing else. */
uint64_t cinch_model_random(uint64_t seed, uint64_t a, uint64_t b);

#endif
