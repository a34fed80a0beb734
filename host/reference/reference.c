/* SPDX-License-Identifier: MIT */
/*
 * The reference result that every backend's error is measured against: f64 arithmetic over the
 * dequantised weights, pairs summed in slot order. Slow on purpose; one row of weights is decoded
 * at a time, so a layer of any size fits.
 */
#include <ferrum/moe.h>
#include <ferrum/util.h>

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One role of one layer, with the shape it must have. */
typedef struct role {
    const ferrum_expert_weights_t *weights;
    uint32_t rows, cols, experts;
    const char *name;
} role_t;

static ferrum_status_t check_role(const role_t *role, ferrum_error_t *err)
{
    const ferrum_expert_weights_t *weights = role->weights;
    if (weights == NULL || (weights->gguf == NULL) == (weights->gptq == NULL))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "%s weights need exactly one of gguf and gptq", role->name);
    if (weights->gguf == NULL)
        return FERRUM_OK;
    const ferrum_gguf_weights_t *gguf = weights->gguf;
    const ferrum_format_traits_t *traits = ferrum_format_traits(gguf->format);
    if (traits == NULL || ferrum_kernel_dequant(gguf->format) == NULL)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "%s weights have format %u, which has no decoder", role->name,
                           gguf->format);
    uint64_t values, bytes;
    if (gguf->rows != role->rows || gguf->cols != role->cols || gguf->experts != role->experts ||
        gguf->cols % traits->block_values != 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s weights are %u x %u x %u, the layer needs %u x %u x %u", role->name,
                           gguf->experts, gguf->rows, gguf->cols, role->experts, role->rows,
                           role->cols);
    if (!ferrum_mul_u64((uint64_t)role->rows * role->cols, role->experts, &values) ||
        !ferrum_mul_u64(values / traits->block_values, traits->block_bytes, &bytes) ||
        bytes != gguf->bytes)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s weights have %llu bytes, which does not fit their shape", role->name,
                           (unsigned long long)gguf->bytes);
    return FERRUM_OK;
}

static float load_scale(const ferrum_gptq_t *gptq, uint64_t index)
{
    if (gptq->scales_dtype == FERRUM_DTYPE_F32) {
        float value;
        memcpy(&value, (const char *)gptq->scales + index * 4, sizeof value);
        return value;
    }
    ferrum_weight_format_t format =
        gptq->scales_dtype == FERRUM_DTYPE_F16 ? FERRUM_FORMAT_F16 : FERRUM_FORMAT_BF16;
    float value;
    ferrum_kernel_dequant(format)((const char *)gptq->scales + index * 2, &value, 1);
    return value;
}

/* Row n of W, that is column n of the packed codes. */
static void gptq_row(const ferrum_gptq_t *gptq, uint32_t n, double *out)
{
    uint32_t per_word = 32 / gptq->bits, mask = (1u << gptq->bits) - 1;
    uint32_t group_size = gptq->group_size ? gptq->group_size : gptq->k;
    uint64_t zero_stride = gptq->n / per_word;
    for (uint32_t k = 0; k < gptq->k; k++) {
        uint32_t word = (uint32_t)gptq->qweight[(uint64_t)(k / per_word) * gptq->n + n];
        int code = (int)((word >> (k % per_word * gptq->bits)) & mask);
        uint32_t group = gptq->g_idx ? (uint32_t)gptq->g_idx[k] : k / group_size;
        int zero = 1 << (gptq->bits - 1);
        if (gptq->qzeros != NULL) {
            uint32_t packed = (uint32_t)gptq->qzeros[group * zero_stride + n / per_word];
            zero = (int)((packed >> (n % per_word * gptq->bits)) & mask);
            zero += gptq->zero_convention == FERRUM_ZERO_STORED_MINUS_ONE;
        }
        out[k] = (double)(code - zero) * (double)load_scale(gptq, (uint64_t)group * gptq->n + n);
    }
}

/* out[r] = W[expert, r, :] . x + bias */
static void apply(const role_t *role, uint32_t expert, const double *x, float *decoded, double *row,
                  double *out)
{
    const ferrum_gguf_weights_t *gguf = role->weights->gguf;
    const ferrum_format_traits_t *traits = gguf ? ferrum_format_traits(gguf->format) : NULL;
    for (uint32_t r = 0; r < role->rows; r++) {
        if (gguf != NULL) {
            uint64_t row_bytes = (uint64_t)role->cols / traits->block_values * traits->block_bytes;
            const char *data =
                (const char *)gguf->data + ((uint64_t)expert * role->rows + r) * row_bytes;
            ferrum_kernel_dequant(gguf->format)(data, decoded, role->cols);
            for (uint32_t c = 0; c < role->cols; c++)
                row[c] = (double)decoded[c];
        } else {
            gptq_row(role->weights->gptq[expert], r, row);
        }
        double sum = 0;
        for (uint32_t c = 0; c < role->cols; c++)
            sum += row[c] * x[c];
        if (role->weights->bias != NULL)
            sum += (double)role->weights->bias[(uint64_t)expert * role->rows + r];
        out[r] = sum;
    }
}

static double activate(const ferrum_activation_t *activation, double gate, double up)
{
    switch (activation ? activation->kind : FERRUM_ACTIVATION_SILU_MUL) {
    case FERRUM_ACTIVATION_SWIGLU_CLAMPED: {
        double limit = (double)activation->limit;
        gate = gate < limit ? gate : limit;
        up = up < -limit ? -limit : up > limit ? limit : up;
        return gate / (1 + exp(-(double)activation->alpha * gate)) * (up + 1);
    }
    case FERRUM_ACTIVATION_GELU_MUL:
        return 0.5 * gate *
               (1 + tanh(0.79788456080286535588 * (gate + 0.044715 * gate * gate * gate))) * up;
    default:
        return gate / (1 + exp(-gate)) * up;
    }
}

ferrum_status_t ferrum_moe_reference(const ferrum_expert_ffn_desc_t *desc, const float *x,
                                     const int32_t *ids, const float *weights, double *out,
                                     uint32_t tokens, uint32_t top_k, ferrum_error_t *err)
{
    uint32_t h = desc->hidden, im = desc->intermediate;
    uint32_t local = desc->local_experts ? desc->local_experts : desc->num_experts;
    role_t gate = {desc->gate, im, h, local, "gate"}, up = {desc->up, im, h, local, "up"};
    role_t down = {desc->down, h, im, local, "down"};
    FERRUM_TRY(check_role(&gate, err));
    FERRUM_TRY(check_role(&up, err));
    FERRUM_TRY(check_role(&down, err));
    uint64_t widest = h > im ? h : im;
    double *scratch = malloc((4 * widest + 2 * (uint64_t)im) * sizeof *scratch);
    if (scratch == NULL)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for the reference of %u tokens", tokens);
    double *row = scratch, *input = row + widest, *result = input + widest;
    double *gated = result + widest, *raised = gated + im;
    float *decoded = (void *)(raised + im); /* the last `widest` doubles */
    for (uint32_t t = 0; t < tokens; t++) {
        double *token_out = out + (uint64_t)t * h;
        for (uint32_t i = 0; i < h; i++) {
            input[i] = (double)x[(uint64_t)t * h + i];
            token_out[i] = 0;
        }
        for (uint32_t j = 0; j < top_k; j++) {
            int64_t id = (int64_t)ids[(uint64_t)t * top_k + j] - desc->first_expert;
            if (id < 0 || id >= local)
                continue;
            apply(&gate, (uint32_t)id, input, decoded, row, gated);
            apply(&up, (uint32_t)id, input, decoded, row, raised);
            for (uint32_t i = 0; i < im; i++)
                gated[i] = activate(desc->activation, gated[i], raised[i]);
            apply(&down, (uint32_t)id, gated, decoded, row, result);
            for (uint32_t i = 0; i < h; i++)
                token_out[i] += (double)weights[(uint64_t)t * top_k + j] * result[i];
        }
    }
    free(scratch);
    return FERRUM_OK;
}
