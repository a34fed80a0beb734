/* SPDX-License-Identifier: MIT */
#include "tests/cpu/layer.h"

#include <math.h>
#include <stdlib.h>

int32_t layer_id(int pair)
{
    const int token = pair / K, slot = pair % K;
    if (token == 5 || pair % 11 == 3)
        return -1;
    if (token == 7)
        return 4;
    return slot == 0 ? 1 : (token * 7 + slot * 3) % 5;
}

ferrum_buffer_t *layer_ids(cpu_fixture_t *f)
{
    int32_t ids[P];
    for (int p = 0; p < P; p++)
        ids[p] = layer_id(p);
    return cpu_i32(f, ids, P);
}

ferrum_buffer_t *layer_weights(cpu_fixture_t *f)
{
    ferrum_buffer_t *weights = cpu_random_f32(f, 2, P);
    for (int p = 0; p < P; p++)
        cpu_floats(weights)[p] = fabsf(cpu_floats(weights)[p]);
    return weights;
}

ferrum_buffer_t *layer_input(cpu_fixture_t *f)
{
    ferrum_buffer_t *x = cpu_random_f32(f, 1, T * H);
    for (int i = 0; i < T * H; i++)
        cpu_floats(x)[i] *= 0x1p-6f;
    return x;
}

uint32_t layer_rows(int role)
{
    return role == 2 ? H : I;
}

static uint32_t layer_cols(int role)
{
    return role == 2 ? I : H;
}

static void init(layer_t *layer, bool gptq, bool biased, bool alike)
{
    const ferrum_weight_format_t formats[3] = {
        FERRUM_FORMAT_Q4_K, alike ? FERRUM_FORMAT_Q4_K : FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q6_K};
    memset(layer, 0, sizeof *layer);
    layer->gptq = gptq;
    for (int role = 0; role < 3; role++) {
        const uint32_t n = layer_rows(role), k = layer_cols(role);
        const test_gptq_shape_t shape = {.bits = role == 1 && !alike ? 8 : 4,
                                         .group_size = 64,
                                         .k = k,
                                         .n = n,
                                         .asymmetric = role != 0,
                                         .act_order = role != 1 && !alike};
        for (size_t e = 0; gptq && e < E; e++) {
            layer->matrices[role][e] = test_gptq_new(&shape, 100 * (size_t)role + e);
            layer->descs[role][e] = &layer->matrices[role][e].desc;
        }
        if (!gptq)
            layer->blocks[role] = test_blocks_new(formats[role], E, n, k, 7 + (uint64_t)role);
        layer->bias[role] = biased ? cpu_random_values(90 + (uint64_t)role, E * n) : NULL;
        layer->roles[role] =
            (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                      .gguf = gptq ? NULL : &layer->blocks[role].desc,
                                      .gptq = gptq ? layer->descs[role] : NULL,
                                      .bias = layer->bias[role]};
    }
    layer->desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                             .hidden = H,
                                             .intermediate = I,
                                             .num_experts = E,
                                             .gate = &layer->roles[0],
                                             .up = &layer->roles[1],
                                             .down = &layer->roles[2]};
}

void layer_init(layer_t *layer, bool gptq, bool biased)
{
    init(layer, gptq, biased, false);
}

void layer_init_alike(layer_t *layer, bool gptq, bool biased)
{
    init(layer, gptq, biased, true);
}

void layer_free(layer_t *layer)
{
    for (int role = 0; role < 3; role++) {
        for (size_t e = 0; layer->gptq && e < E; e++)
            test_gptq_free(&layer->matrices[role][e]);
        if (!layer->gptq)
            test_blocks_free(&layer->blocks[role]);
        free(layer->bias[role]);
    }
}

static const double *layer_values(const layer_t *layer, int role, int expert)
{
    return layer->gptq
               ? layer->matrices[role][expert].values
               : layer->blocks[role].values + (size_t)expert * layer_rows(role) * layer_cols(role);
}

static double activate(const ferrum_activation_t *activation, double g, double u)
{
    if (activation && activation->kind == FERRUM_ACTIVATION_SWIGLU_CLAMPED) {
        const double limit = (double)activation->limit;
        g = fmin(g, limit);
        u = fmax(fmin(u, limit), -limit);
        return g / (1.0 + exp(-(double)activation->alpha * g)) * (u + 1.0);
    }
    if (activation && activation->kind == FERRUM_ACTIVATION_GELU_MUL)
        return 0.5 * g * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (g + 0.044715 * g * g * g))) * u;
    return g / (1.0 + exp(-g)) * u;
}

double *layer_reference(const layer_t *layer, const float *x, const float *w, int first, int end)
{
    double *out = calloc(T * H, sizeof *out);
    double gate[I], up[I], down[H];
    float hidden[I];
    for (int p = 0; p < P; p++) {
        const int e = layer_id(p);
        if (e < first || e >= end)
            continue;
        const float *bias[3];
        for (int role = 0; role < 3; role++)
            bias[role] = layer->bias[role] ? layer->bias[role] + e * (int)layer_rows(role) : NULL;
        test_product(layer_values(layer, 0, e), I, H, x + p / K * H, bias[0], gate);
        test_product(layer_values(layer, 1, e), I, H, x + p / K * H, bias[1], up);
        for (int i = 0; i < I; i++)
            hidden[i] = (float)activate(layer->desc.activation, gate[i], up[i]);
        test_product(layer_values(layer, 2, e), H, I, hidden, bias[2], down);
        for (int i = 0; i < H; i++)
            out[p / K * H + i] += (double)w[p] * down[i];
    }
    return out;
}
