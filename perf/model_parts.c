/* SPDX-License-Identifier: Apache-2.0 */
/* Norm, activation, attention and loss, forward and backward. */
#include "perf/model_parts.h"

#include <string.h>
#include <tgmath.h>

void cinch_norm_forward(cinch_real *out, cinch_real *scale, const cinch_real *x,
                        const cinch_real *gain, int rows, int width) {
    for (int row = 0; row < rows; row++, x += width, out += width) {
        cinch_real squares = 0;
        for (int i = 0; i < width; i++) squares += x[i] * x[i];
        scale[row] = 1 / sqrt(squares / (cinch_real)width + (cinch_real)1e-6);
        for (int i = 0; i < width; i++) out[i] = x[i] * scale[row] * gain[i];
    }
}

void cinch_norm_backward(cinch_real *d_x, cinch_real *d_gain, const cinch_real *d_out,
                         const cinch_real *x, const cinch_real *scale, const cinch_real *gain,
                         int rows, int width) {
    for (int row = 0; row < rows; row++, x += width, d_x += width, d_out += width) {
        const cinch_real s = scale[row];
        cinch_real dot = 0;
        for (int i = 0; i < width; i++) dot += d_out[i] * gain[i] * x[i];
        const cinch_real pull = dot * s * s * s / (cinch_real)width;
        for (int i = 0; i < width; i++) {
            d_gain[i] += d_out[i] * x[i] * s;
            d_x[i] += d_out[i] * gain[i] * s - x[i] * pull;
        }
    }
}

void cinch_silu_forward(cinch_real *out, const cinch_real *x, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = x[i] / (1 + exp(-x[i]));
}

void cinch_silu_backward(cinch_real *d, const cinch_real *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const cinch_real sigmoid = 1 / (1 + exp(-x[i]));
        d[i] *= sigmoid * (1 + x[i] * (1 - sigmoid));
    }
}

/* Row t becomes probabilities over 0..t and zeros behind. */
static void causal_softmax(cinch_real *score, int context, cinch_real factor) {
    for (int t = 0; t < context; t++, score += context) {
        cinch_real most = score[0], sum = 0;
        for (int i = 1; i <= t; i++) most = score[i] > most ? score[i] : most;
        for (int i = 0; i <= t; i++) {
            score[i] = exp((score[i] - most) * factor);
            sum += score[i];
        }
        for (int i = 0; i <= t; i++) score[i] /= sum;
        memset(score + t + 1, 0, (size_t)(context - 1 - t) * sizeof *score);
    }
}

/* The three matrices of one head of one window. */
typedef struct head_view {
    cinch_matrix query, key, value;
} head_view;

static cinch_matrix turned(cinch_matrix m) {
    return (cinch_matrix){m.at, m.col, m.row};
}

static head_view head_at(const cinch_real *qkv, const cinch_attention_shape *shape, int window,
                         int head) {
    const ptrdiff_t row = 3 * (ptrdiff_t)shape->width;
    const cinch_real *at =
        qkv + window * shape->context * row + head * (shape->width / shape->heads);
    return (head_view){{at, row, 1}, {at + shape->width, row, 1}, {at + 2 * shape->width, row, 1}};
}

void cinch_attention_forward(cinch_real *out, cinch_real *weight, const cinch_real *qkv,
                             const cinch_attention_shape *shape, cinch_real *scratch) {
    const int context = shape->context, size = shape->width / shape->heads;
    const cinch_real factor = 1 / sqrt((cinch_real)size);
    for (int w = 0; w < shape->windows; w++) {
        for (int h = 0; h < shape->heads; h++, weight += context * context) {
            const head_view head = head_at(qkv, shape, w, h);
            cinch_gemm(weight, context, head.query, turned(head.key), context, context, size, false,
                       scratch);
            causal_softmax(weight, context, factor);
            cinch_gemm(out + (ptrdiff_t)w * context * shape->width + h * size, shape->width,
                       (cinch_matrix){weight, context, 1}, head.value, context, size, context,
                       false, scratch);
        }
    }
}

void cinch_attention_backward(cinch_real *d_qkv, cinch_real *d_weight, const cinch_real *d_out,
                              const cinch_real *weight, const cinch_real *qkv,
                              const cinch_attention_shape *shape, cinch_real *scratch) {
    const int context = shape->context, width = shape->width, size = width / shape->heads;
    const cinch_real factor = 1 / sqrt((cinch_real)size);
    for (int w = 0; w < shape->windows; w++) {
        for (int h = 0; h < shape->heads; h++, weight += context * context) {
            const head_view head = head_at(qkv, shape, w, h);
            const cinch_matrix probability = {weight, context, 1}, d_score = {d_weight, context, 1};
            const cinch_matrix d_head = {d_out + (ptrdiff_t)w * context * width + h * size, width,
                                         1};
            cinch_real *d_query = d_qkv + (head.query.at - qkv);
            const ptrdiff_t row = head.query.row;

            cinch_gemm(d_query + 2 * width, row, turned(probability), d_head, context, size,
                       context, false, scratch);
            cinch_gemm(d_weight, context, d_head, turned(head.value), context, context, size, false,
                       scratch);
            for (int t = 0; t < context; t++) {
                const cinch_real *p = weight + t * context;
                cinch_real *d = d_weight + t * context, dot = 0;
                for (int i = 0; i <= t; i++) dot += p[i] * d[i];
                /* p is zero behind t, and so is the gradient there. */
                for (int i = 0; i < context; i++) d[i] = p[i] * (d[i] - dot) * factor;
            }
            cinch_gemm(d_query, row, d_score, head.key, context, size, context, false, scratch);
            cinch_gemm(d_query + width, row, turned(d_score), head.query, context, size, context,
                       false, scratch);
        }
    }
}

double cinch_softmax_loss(cinch_real *logits, const uint8_t *target, int rows, int vocabulary) {
    double loss = 0;
    for (int row = 0; row < rows; row++, logits += vocabulary) {
        cinch_real most = logits[0], sum = 0;
        for (int i = 1; i < vocabulary; i++) most = logits[i] > most ? logits[i] : most;
        loss += (double)(most - logits[target[row]]);
        for (int i = 0; i < vocabulary; i++) {
            logits[i] = exp(logits[i] - most);
            sum += logits[i];
        }
        loss += (double)log(sum);
        for (int i = 0; i < vocabulary; i++) logits[i] /= sum;
    }
    return loss;
}
