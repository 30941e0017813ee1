/* SPDX-License-Identifier: Apache-2.0 */
/* The model: its tensors in one flat buffer, forward, and backward by hand. */
#include "perf/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perf/model_parts.h"

/* A layer's parameters as offsets into the flat buffer, and what forward keeps for backward. */
typedef struct cinch_model_layer {
    size_t gain1, qkv, out, gain2, up, down;
    cinch_real *input, *scale1, *norm1, *wide, *weight, *heads; /* of attention */
    cinch_real *middle, *scale2, *norm2, *rise, *bent;          /* of the two dense layers */
} layer_t;

enum { ALIGN = 64 };

uint64_t cinch_model_random(uint64_t seed, uint64_t a, uint64_t b) {
    uint64_t x = seed;
    const uint64_t part[3] = {a, b, 0};
    for (int i = 0; i < 3; i++) { /* the finalizer of SplitMix64, once per argument */
        x += 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x = (x ^ (x >> 31)) ^ part[i];
    }
    return x;
}

static size_t add_tensor(cinch_model *model, const char *name, int layer, int rows, int columns,
                         double spread) {
    cinch_model_tensor *tensor = &model->tensor[model->tensors++];
    *tensor = (cinch_model_tensor){name, layer, model->count, (size_t)rows * (size_t)columns,
                                   (cinch_real)spread};
    model->count += tensor->count;
    return tensor->offset;
}

/* Lists the tensors in the order of their use. Each layer adds to the stream twice, so the matrices
 * that write into it start smaller by the root of the number of additions. */
static void list_tensors(cinch_model *model) {
    const cinch_model_shape *s = &model->shape;
    const double in = 1 / sqrt(s->width), calm = 1 / sqrt(2.0 * s->layers);
    add_tensor(model, "embed", -1, s->reach * s->vocabulary, s->width, 0.1);
    add_tensor(model, "place", -1, s->context, s->width, 0.1);
    for (int i = 0; i < s->layers; i++) {
        layer_t *l = &model->layer[i];
        l->gain1 = add_tensor(model, "gain1", i, 1, s->width, 0);
        l->qkv = add_tensor(model, "qkv", i, s->width, 3 * s->width, in);
        l->out = add_tensor(model, "out", i, s->width, s->width, in * calm);
        l->gain2 = add_tensor(model, "gain2", i, 1, s->width, 0);
        l->up = add_tensor(model, "up", i, s->width, s->hidden, in);
        l->down = add_tensor(model, "down", i, s->hidden, s->width, calm / sqrt(s->hidden));
    }
    add_tensor(model, "gain", -1, 1, s->width, 0);
    add_tensor(model, "head", -1, s->width, s->vocabulary, in * 0.2);
}

static void fill_parameters(cinch_model *model, uint64_t seed) {
    for (int t = 0; t < model->tensors; t++) {
        const cinch_model_tensor *tensor = &model->tensor[t];
        cinch_real *to = model->parameters + tensor->offset;
        for (size_t i = 0; i < tensor->count; i++) {
            /* Uniform, with `spread` as its standard deviation. */
            const double u = (double)(cinch_model_random(seed, (uint64_t)t, i) >> 11) * 0x1p-53;
            to[i] = tensor->spread > 0 ? (cinch_real)((2 * u - 1) * sqrt(3.0)) * tensor->spread : 1;
        }
    }
}

/* Takes the next `count` elements of the one allocation; with base NULL it only counts them. */
static cinch_real *take(cinch_real *base, size_t *used, size_t count) {
    cinch_real *at = base ? base + *used : NULL;
    *used += (count + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

static size_t place_activations(cinch_model *m, cinch_real *base) {
    const cinch_model_shape *s = &m->shape;
    const size_t rows = (size_t)s->windows * (size_t)s->context, width = (size_t)s->width;
    const size_t square = (size_t)s->context * (size_t)s->context, hidden = (size_t)s->hidden;
    size_t used = 0;
    m->parameters = take(base, &used, m->count);
    m->gradient = take(base, &used, m->count);
    for (int i = 0; i < s->layers; i++) {
        layer_t *l = &m->layer[i];
        l->input = take(base, &used, rows * width);
        l->scale1 = take(base, &used, rows);
        l->norm1 = take(base, &used, rows * width);
        l->wide = take(base, &used, rows * width * 3);
        l->weight = take(base, &used, (size_t)(s->windows * s->heads) * square);
        l->heads = take(base, &used, rows * width);
        l->middle = take(base, &used, rows * width);
        l->scale2 = take(base, &used, rows);
        l->norm2 = take(base, &used, rows * width);
        l->rise = take(base, &used, rows * hidden);
        l->bent = take(base, &used, rows * hidden);
    }
    m->stream = take(base, &used, rows * width);
    m->norm = take(base, &used, rows * width);
    m->scale = take(base, &used, rows);
    m->probability = take(base, &used, rows * (size_t)s->vocabulary);
    m->d_stream = take(base, &used, rows * width);
    m->d_norm = take(base, &used, rows * width);
    m->d_wide = take(base, &used, rows * (hidden > 3 * width ? hidden : 3 * width));
    m->d_scores = take(base, &used, square);
    m->scratch = take(base, &used, cinch_gemm_scratch());
    return used;
}

bool cinch_model_make(cinch_model *model, const cinch_model_shape *shape, uint64_t seed) {
    *model = (cinch_model){.shape = *shape};
    const int tensors = CINCH_MODEL_OTHER_TENSORS + CINCH_MODEL_LAYER_TENSORS * shape->layers;
    model->tensor = calloc((size_t)tensors, sizeof *model->tensor);
    model->layer = calloc((size_t)shape->layers, sizeof *model->layer);
    if (!model->tensor || !model->layer) {
        cinch_model_free(model);
        return false;
    }
    list_tensors(model);
    const size_t bytes = place_activations(model, NULL) * sizeof(cinch_real);
    model->memory = aligned_alloc(ALIGN, (bytes + ALIGN - 1) / ALIGN * ALIGN);
    if (!model->memory) {
        cinch_model_free(model);
        return false;
    }
    memset(model->memory, 0, bytes);
    place_activations(model, model->memory);
    fill_parameters(model, seed);
    return true;
}

void cinch_model_free(cinch_model *model) {
    free(model->memory);
    free(model->layer);
    free(model->tensor);
    *model = (cinch_model){0};
}

static cinch_matrix plain(const cinch_real *at, int columns) {
    return (cinch_matrix){at, columns, 1};
}

static cinch_matrix turned(const cinch_real *at, int columns) {
    return (cinch_matrix){at, 1, columns};
}

static void layer_forward(cinch_model *m, layer_t *l, cinch_real *next, int windows) {
    const cinch_model_shape *s = &m->shape;
    const cinch_attention_shape shape = {windows, s->context, s->width, s->heads};
    const cinch_real *p = m->parameters;
    const int rows = windows * s->context, width = s->width;
    const size_t bytes = (size_t)rows * (size_t)width * sizeof *p;

    cinch_norm_forward(l->norm1, l->scale1, l->input, p + l->gain1, rows, width);
    cinch_gemm(l->wide, 3 * width, plain(l->norm1, width), plain(p + l->qkv, 3 * width), rows,
               3 * width, width, false, m->scratch);
    cinch_attention_forward(l->heads, l->weight, l->wide, &shape, m->scratch);
    memcpy(l->middle, l->input, bytes);
    cinch_gemm(l->middle, width, plain(l->heads, width), plain(p + l->out, width), rows, width,
               width, true, m->scratch);

    cinch_norm_forward(l->norm2, l->scale2, l->middle, p + l->gain2, rows, width);
    cinch_gemm(l->rise, s->hidden, plain(l->norm2, width), plain(p + l->up, s->hidden), rows,
               s->hidden, width, false, m->scratch);
    cinch_silu_forward(l->bent, l->rise, (size_t)rows * (size_t)s->hidden);
    memcpy(next, l->middle, bytes);
    cinch_gemm(next, width, plain(l->bent, s->hidden), plain(p + l->down, width), rows, width,
               s->hidden, true, m->scratch);
}

/* The row of the embedding for the symbol `back` places before a row of the batch; -1 where that is
 * before the window. */
static ptrdiff_t embed_row(const cinch_model_shape *s, const uint8_t *input, int row, int back) {
    if (row % s->context < back) return -1;
    return (ptrdiff_t)back * s->vocabulary + input[row - back];
}

static void embed_forward(const cinch_model *m, cinch_real *x, const uint8_t *input, int rows) {
    const cinch_model_shape *s = &m->shape;
    const cinch_real *embed = m->parameters + m->tensor[0].offset;
    const cinch_real *place = m->parameters + m->tensor[1].offset;
    for (int row = 0; row < rows; row++, x += s->width) {
        memcpy(x, place + (ptrdiff_t)(row % s->context) * s->width, (size_t)s->width * sizeof *x);
        for (int back = 0; back < s->reach; back++) {
            const ptrdiff_t at = embed_row(s, input, row, back);
            if (at < 0) break;
            for (int i = 0; i < s->width; i++) x[i] += embed[at * s->width + i];
        }
    }
}

static void embed_backward(const cinch_model *m, const cinch_real *d, const uint8_t *input,
                           int rows) {
    const cinch_model_shape *s = &m->shape;
    cinch_real *embed = m->gradient + m->tensor[0].offset;
    cinch_real *place = m->gradient + m->tensor[1].offset;
    for (int row = 0; row < rows; row++, d += s->width) {
        cinch_real *position = place + (ptrdiff_t)(row % s->context) * s->width;
        for (int i = 0; i < s->width; i++) position[i] += d[i];
        for (int back = 0; back < s->reach; back++) {
            const ptrdiff_t at = embed_row(s, input, row, back);
            if (at < 0) break;
            for (int i = 0; i < s->width; i++) embed[at * s->width + i] += d[i];
        }
    }
}

double cinch_model_forward(cinch_model *m, const uint8_t *input, const uint8_t *target,
                           int windows) {
    const cinch_model_shape *s = &m->shape;
    const int rows = windows * s->context, width = s->width;
    embed_forward(m, s->layers ? m->layer[0].input : m->stream, input, rows);
    for (int i = 0; i < s->layers; i++) {
        layer_forward(m, &m->layer[i], i + 1 < s->layers ? m->layer[i + 1].input : m->stream,
                      windows);
    }
    const cinch_real *gain = m->parameters + m->tensor[m->tensors - 2].offset;
    const cinch_real *head = m->parameters + m->tensor[m->tensors - 1].offset;
    cinch_norm_forward(m->norm, m->scale, m->stream, gain, rows, width);
    cinch_gemm(m->probability, s->vocabulary, plain(m->norm, width), plain(head, s->vocabulary),
               rows, s->vocabulary, width, false, m->scratch);
    return cinch_softmax_loss(m->probability, target, rows, s->vocabulary);
}

/* d_weights += input^T d_output, and d_input = d_output weights^T, for output = input weights. */
static void dense_backward(cinch_model *m, cinch_real *d_input, size_t weights,
                           const cinch_real *input, const cinch_real *d_output, int rows, int in,
                           int out) {
    cinch_gemm(m->gradient + weights, out, turned(input, in), plain(d_output, out), in, out, rows,
               true, m->scratch);
    cinch_gemm(d_input, in, plain(d_output, out), turned(m->parameters + weights, out), rows, in,
               out, false, m->scratch);
}

/* d_stream holds the gradient by the layer's output on entry and by its input on return. */
static void layer_backward(cinch_model *m, layer_t *l, int windows) {
    const cinch_model_shape *s = &m->shape;
    const cinch_attention_shape shape = {windows, s->context, s->width, s->heads};
    const int rows = windows * s->context, width = s->width;

    dense_backward(m, m->d_wide, l->down, l->bent, m->d_stream, rows, s->hidden, width);
    cinch_silu_backward(m->d_wide, l->rise, (size_t)rows * (size_t)s->hidden);
    dense_backward(m, m->d_norm, l->up, l->norm2, m->d_wide, rows, width, s->hidden);
    cinch_norm_backward(m->d_stream, m->gradient + l->gain2, m->d_norm, l->middle, l->scale2,
                        m->parameters + l->gain2, rows, width);

    dense_backward(m, m->d_norm, l->out, l->heads, m->d_stream, rows, width, width);
    cinch_attention_backward(m->d_wide, m->d_scores, m->d_norm, l->weight, l->wide, &shape,
                             m->scratch);
    dense_backward(m, m->d_norm, l->qkv, l->norm1, m->d_wide, rows, width, 3 * width);
    cinch_norm_backward(m->d_stream, m->gradient + l->gain1, m->d_norm, l->input, l->scale1,
                        m->parameters + l->gain1, rows, width);
}

void cinch_model_backward(cinch_model *m, const uint8_t *input, const uint8_t *target,
                          int windows) {
    const cinch_model_shape *s = &m->shape;
    const int rows = windows * s->context, width = s->width;
    const cinch_model_tensor *gain = &m->tensor[m->tensors - 2], *head = gain + 1;
    memset(m->gradient, 0, m->count * sizeof *m->gradient);
    memset(m->d_stream, 0, (size_t)rows * (size_t)width * sizeof *m->d_stream);

    /* The gradient of the mean loss by the logits: (probability - 1 at the target) / rows. */
    const cinch_real share = 1 / (cinch_real)rows;
    for (int row = 0; row < rows; row++) {
        cinch_real *d = m->probability + (ptrdiff_t)row * s->vocabulary;
        for (int i = 0; i < s->vocabulary; i++) d[i] *= share;
        d[target[row]] -= share;
    }
    dense_backward(m, m->d_norm, head->offset, m->norm, m->probability, rows, width, s->vocabulary);
    cinch_norm_backward(m->d_stream, m->gradient + gain->offset, m->d_norm, m->stream, m->scale,
                        m->parameters + gain->offset, rows, width);
    for (int i = s->layers - 1; i >= 0; i--) layer_backward(m, &m->layer[i], windows);
    embed_backward(m, m->d_stream, input, rows);
}
