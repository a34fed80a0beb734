/* SPDX-License-Identifier: MIT */
#include "backends/cpu/activation.h"
#include "backends/cpu/check.h"

#include <math.h>

ferrum_status_t ferrum_cpu_check_activation_kind(ferrum_activation_kind_t kind, ferrum_error_t *err)
{
    if (kind <= FERRUM_ACTIVATION_GELU_MUL)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ACTIVATION,
                       "the cpu backend does not know activation %u", kind);
}

ferrum_status_t ferrum_cpu_activation_from(const ferrum_activation_t *source,
                                           ferrum_activation_t *out_activation, ferrum_error_t *err)
{
    ferrum_activation_t activation = {.head = FERRUM_HEAD(ferrum_activation_t),
                                      .kind = FERRUM_ACTIVATION_SILU_MUL};

    if (source) {
        FERRUM_CHECK_STRUCT(source, FERRUM_ACTIVATION_MIN_SIZE, err);
        activation.kind = source->kind;
        activation.alpha = source->alpha;
        activation.limit = source->limit;
    }
    FERRUM_TRY(ferrum_cpu_check_activation_kind(activation.kind, err));
    if (activation.kind == FERRUM_ACTIVATION_SWIGLU_CLAMPED &&
        !(isfinite(activation.alpha) && activation.limit > 0.0f))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_ACTIVATION,
                           "clamped SwiGLU needs a finite alpha and a limit above 0, not %g and %g",
                           (double)activation.alpha, (double)activation.limit);
    *out_activation = activation;
    return FERRUM_OK;
}

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
