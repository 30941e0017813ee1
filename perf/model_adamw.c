/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW: Adam with decoupled weight decay, here with a bound on how far a tensor moves at once. */
#include <stdlib.h>
#include <tgmath.h>

#include "perf/model.h"

bool cinch_adamw_make(cinch_adamw *adamw, const cinch_model *model, double beta1, double beta2) {
    *adamw =
        (cinch_adamw){.beta1 = beta1, .beta2 = beta2, .epsilon = 1e-8, .decay = 0.01, .bound = 2.5};
    adamw->first = calloc(model->count, sizeof *adamw->first);
    adamw->second = calloc(model->count, sizeof *adamw->second);
    if (adamw->first && adamw->second) return true;
    cinch_adamw_free(adamw);
    return false;
}

void cinch_adamw_free(cinch_adamw *adamw) {
    free(adamw->first);
    free(adamw->second);
    *adamw = (cinch_adamw){0};
}

void cinch_adamw_step(cinch_adamw *adamw, cinch_model *model, const cinch_real *gradient,
                      double rate) {
    adamw->step++;
    const cinch_real b1 = (cinch_real)adamw->beta1, b2 = (cinch_real)adamw->beta2;
    const double debias1 = 1 - pow(adamw->beta1, (double)adamw->step);
    const double debias2 = 1 - pow(adamw->beta2, (double)adamw->step);
    const cinch_real factor = (cinch_real)(1 / sqrt(debias2)), epsilon = (cinch_real)adamw->epsilon;
    for (int t = 0; t < model->tensors; t++) {
        const cinch_model_tensor *tensor = &model->tensor[t];
        cinch_real *p = model->parameters + tensor->offset;
        cinch_real *first = adamw->first + tensor->offset, *second = adamw->second + tensor->offset;
        const cinch_real *g = gradient + tensor->offset;
        double squares = 0;
        for (size_t i = 0; i < tensor->count; i++) {
            first[i] = b1 * first[i] + (1 - b1) * g[i];
            second[i] = b2 * second[i] + (1 - b2) * g[i] * g[i];
            const cinch_real move = first[i] / (sqrt(second[i]) * factor + epsilon);
            squares += (double)(move * move);
        }
        const double size = sqrt(squares / (double)tensor->count) / debias1;
        const cinch_real length = (cinch_real)(rate / debias1 / fmax(size / adamw->bound, 1));
        const cinch_real keep = (cinch_real)(tensor->spread > 0 ? 1 - rate * adamw->decay : 1);
        for (size_t i = 0; i < tensor->count; i++) {
            const cinch_real move = first[i] / (sqrt(second[i]) * factor + epsilon);
            p[i] = p[i] * keep - length * move;
        }
    }
}
