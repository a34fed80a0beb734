/* SPDX-License-Identifier: MIT */
/* The transformer's arithmetic in f64, written as the formulas read. */
#include "tools/kit/kit.h"

#include <stdlib.h>

double cf_silu(double x)
{
    return x / (1 + exp(-x));
}

void cf_ref_rms_norm(const double *x, const double *w, double eps, double *out, uint32_t dim)
{
    double squares = 0;
    for (uint32_t i = 0; i < dim; i++)
        squares += x[i] * x[i];
    double inverse = 1 / sqrt(squares / dim + eps);
    for (uint32_t i = 0; i < dim; i++)
        out[i] = x[i] * inverse * w[i];
}

void cf_ref_rope(double *x, const double *cos_table, const double *sin_table, uint32_t pos,
                 uint32_t dim, ferrum_rope_mode_t mode)
{
    uint32_t half = dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        uint32_t first = mode == FERRUM_ROPE_INTERLEAVED ? 2 * i : i;
        uint32_t second = mode == FERRUM_ROPE_INTERLEAVED ? 2 * i + 1 : i + half;
        double c = cos_table[(uint64_t)pos * half + i], s = sin_table[(uint64_t)pos * half + i];
        double a = x[first], b = x[second];
        x[first] = a * c - b * s;
        x[second] = b * c + a * s;
    }
}

void cf_ref_attention(const double *q, const double *const *k, const double *const *v,
                      uint32_t count, uint32_t dim, double scale, double *out)
{
    double *score = malloc((count + 1) * sizeof *score), top = -INFINITY, sum = 0;
    for (uint32_t d = 0; d < dim; d++)
        out[d] = 0;
    for (uint32_t j = 0; j < count; j++) {
        score[j] = 0;
        for (uint32_t d = 0; d < dim; d++)
            score[j] += q[d] * k[j][d];
        score[j] *= scale;
        top = score[j] > top ? score[j] : top;
    }
    for (uint32_t j = 0; j < count; j++) {
        score[j] = exp(score[j] - top);
        sum += score[j];
    }
    for (uint32_t j = 0; j < count; j++)
        for (uint32_t d = 0; d < dim; d++)
            out[d] += score[j] / sum * v[j][d];
    free(score);
}

void cf_ref_route(const double *logits, uint32_t experts, uint32_t top_k, bool norm, int32_t *ids,
                  double *weights)
{
    double top = -INFINITY, sum = 0, picked = 0;
    for (uint32_t e = 0; e < experts; e++)
        top = logits[e] > top ? logits[e] : top;
    for (uint32_t e = 0; e < experts; e++)
        sum += exp(logits[e] - top);
    for (uint32_t j = 0; j < top_k; j++) {
        int32_t best = -1;
        for (uint32_t e = 0; e < experts; e++) {
            bool taken = false;
            for (uint32_t i = 0; i < j; i++)
                taken = taken || ids[i] == (int32_t)e;
            if (!taken && (best < 0 || logits[e] > logits[best]))
                best = (int32_t)e;
        }
        ids[j] = best;
        weights[j] = exp(logits[best] - top) / sum;
        picked += weights[j];
    }
    for (uint32_t j = 0; norm && j < top_k; j++)
        weights[j] /= picked;
}
