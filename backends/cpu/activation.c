/* SPDX-License-Identifier: MIT */
#include "backends/cpu/activation.h"

#include <math.h>

static void swiglu_clamped(const ferrum_activation_t *activation, const float *gate,
                           const float *up, float *out, size_t n)
{
    const float limit = activation->limit;

    for (size_t i = 0; i < n; i++) {
        /* Written so that a NaN passes through. */
        const float g = gate[i] > limit ? limit : gate[i];
        const float high = up[i] > limit ? limit : up[i];
        const float u = high < -limit ? -limit : high;
        out[i] = g / (1.0f + expf(-activation->alpha * g)) * (u + 1.0f);
    }
}

static void gelu_mul(const float *gate, const float *up, float *out, size_t n)
{
    const float sqrt_2_over_pi = 0.7978845608028654f;

    for (size_t i = 0; i < n; i++) {
        const float g = gate[i];
        const float inner = sqrt_2_over_pi * (g + 0.044715f * g * g * g);
        out[i] = 0.5f * g * (1.0f + tanhf(inner)) * up[i];
    }
}

void ferrum_cpu_activate(const ferrum_vector_ops_t *vector, const ferrum_activation_t *activation,
                         const float *gate, const float *up, float *out, size_t n)
{
    switch (activation->kind) {
    case FERRUM_ACTIVATION_SWIGLU_CLAMPED:
        swiglu_clamped(activation, gate, up, out, n);
        break;
    case FERRUM_ACTIVATION_GELU_MUL:
        gelu_mul(gate, up, out, n);
        break;
    default:
        vector->silu_mul(gate, up, out, n);
        break;
    }
}
