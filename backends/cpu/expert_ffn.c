/* SPDX-License-Identifier: MIT */
#include "backends/cpu/expert_ffn.h"
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"

/** Shape that a role must have. */
typedef struct role_shape {
    const char *name;
    uint32_t experts;
    uint32_t n;
    uint32_t k;
} role_shape_t;

static ferrum_status_t check_role_shape(const role_shape_t *role, uint32_t experts, uint32_t n,
                                        uint32_t k, ferrum_error_t *err)
{
    if (experts == role->experts && n == role->n && k == role->k)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                       "expert_ffn_create: %s is [%u, %u, %u], expected [%u, %u, %u]", role->name,
                       experts, n, k, role->experts, role->n, role->k);
}

static ferrum_status_t load_gptq_role(const ferrum_device_t *device,
                                      const ferrum_expert_weights_t *source,
                                      const role_shape_t *role, const ferrum_cpu_loading_t *loading,
                                      ferrum_cpu_weights_t *out_weights, ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(source->gptq[0], FERRUM_GPTQ_MIN_SIZE, err);
    FERRUM_TRY(check_role_shape(role, role->experts, source->gptq[0]->n, source->gptq[0]->k, err));
    FERRUM_TRY(ferrum_cpu_weights_from_gptq(device, source->gptq, role->experts, loading,
                                            out_weights, err));
    if (source->bias && out_weights->bias.ptr)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BIAS,
                           "expert_ffn_create: %s has a bias and its GPTQ matrices have one too",
                           role->name);
    return FERRUM_OK;
}

/** Load one role into @p out_weights, which the caller frees whatever happens. */
static ferrum_status_t load_role(const ferrum_device_t *device,
                                 const ferrum_expert_weights_t *source, const role_shape_t *role,
                                 const ferrum_cpu_loading_t *loading,
                                 ferrum_cpu_weights_t *out_weights, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_struct("expert_ffn_create", role->name, source,
                                   FERRUM_EXPERT_WEIGHTS_MIN_SIZE, err));
    if (!source->gguf == !source->gptq)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FORMAT,
                           "expert_ffn_create: %s needs either GGUF or GPTQ weights", role->name);
    if (source->gptq) {
        FERRUM_TRY(load_gptq_role(device, source, role, loading, out_weights, err));
    } else {
        FERRUM_CHECK_STRUCT(source->gguf, FERRUM_GGUF_WEIGHTS_MIN_SIZE, err);
        FERRUM_TRY(check_role_shape(role, source->gguf->experts, source->gguf->rows,
                                    source->gguf->cols, err));
        FERRUM_TRY(ferrum_cpu_weights_from_gguf(device, source->gguf, loading, out_weights, err));
    }
    return ferrum_cpu_weights_set_bias(device, out_weights, source->bias, err);
}

static ferrum_status_t check_desc(const ferrum_expert_ffn_desc_t *desc, uint32_t *out_local,
                                  ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(desc, FERRUM_EXPERT_FFN_DESC_MIN_SIZE, err);
    const uint32_t local = desc->local_experts ? desc->local_experts : desc->num_experts;
    if (desc->hidden == 0 || desc->intermediate == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "expert_ffn_create: hidden is %u and intermediate %u", desc->hidden,
                           desc->intermediate);
    if (local == 0 || (uint64_t)desc->first_expert + local > desc->num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "expert_ffn_create: experts %u on for %u do not lie within %u",
                           desc->first_expert, local, desc->num_experts);
    if (desc->precision > FERRUM_PRECISION_FAST)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_PRECISION,
                           "expert_ffn_create: unknown precision %u", desc->precision);
    *out_local = local;
    return FERRUM_OK;
}

/** What the layout of a GPTQ matrix's panels depends on, but for act-order, which may rule panels
 *  out. */
static bool same_gptq_layout(const ferrum_gptq_t *const *a, const ferrum_gptq_t *const *b,
                             uint32_t experts)
{
    for (uint32_t e = 0; e < experts; e++) {
        const ferrum_gptq_t *both[2] = {a[e], b[e]};
        for (int i = 0; i < 2; i++)
            if (!both[i] || both[i]->head.size < FERRUM_GPTQ_MIN_SIZE || both[i]->g_idx ||
                both[i]->bits != a[0]->bits || both[i]->group_size != a[0]->group_size ||
                both[i]->scales_dtype != a[0]->scales_dtype)
                return false;
    }
    return true;
}

/** Whether gate and up make panels of one form, which then take turns in memory. Roles that are not
 *  even readable are for load_role to refuse. */
static bool takes_turns(const ferrum_expert_weights_t *gate, const ferrum_expert_weights_t *up,
                        uint32_t experts)
{
    if (!gate || !up || gate->head.size < FERRUM_EXPERT_WEIGHTS_MIN_SIZE ||
        up->head.size < FERRUM_EXPERT_WEIGHTS_MIN_SIZE || !gate->gguf != !up->gguf)
        return false;
    if (gate->gguf)
        return gate->gguf->head.size >= FERRUM_GGUF_WEIGHTS_MIN_SIZE &&
               up->gguf->head.size >= FERRUM_GGUF_WEIGHTS_MIN_SIZE &&
               gate->gguf->format == up->gguf->format;
    return gate->gptq && up->gptq && same_gptq_layout(gate->gptq, up->gptq, experts);
}

static ferrum_status_t load_ffn(ferrum_expert_ffn_t *ffn, const ferrum_expert_ffn_desc_t *desc,
                                ferrum_error_t *err)
{
    const role_shape_t gate = {"gate", ffn->local_experts, ffn->intermediate, ffn->hidden};
    const role_shape_t up = {"up", ffn->local_experts, ffn->intermediate, ffn->hidden};
    const role_shape_t down = {"down", ffn->local_experts, ffn->hidden, ffn->intermediate};
    const ferrum_packed_precision_t precision =
        desc->precision == FERRUM_PRECISION_DEFAULT ? ffn->device->precision
        : desc->precision == FERRUM_PRECISION_FAST  ? FERRUM_PACKED_FAST
                                                    : FERRUM_PACKED_ACCURATE;

    FERRUM_TRY(ferrum_cpu_activation_from(desc->activation, &ffn->activation, err));
    const bool turns = takes_turns(desc->gate, desc->up, ffn->local_experts);
    const ferrum_cpu_loading_t alone = {.precision = precision};
    const ferrum_cpu_loading_t first = {.precision = precision, .leaves_room = turns};
    const ferrum_cpu_loading_t second = {.precision = precision, .room = turns ? &ffn->gate : NULL};
    FERRUM_TRY(load_role(ffn->device, desc->gate, &gate, &first, &ffn->gate, err));
    FERRUM_TRY(load_role(ffn->device, desc->up, &up, &second, &ffn->up, err));
    return load_role(ffn->device, desc->down, &down, &alone, &ffn->down, err);
}

ferrum_status_t ferrum_cpu_expert_ffn_create(ferrum_device_t *device,
                                             const ferrum_expert_ffn_desc_t *desc,
                                             ferrum_expert_ffn_t **out_ffn, ferrum_error_t *err)
{
    uint32_t local = 0;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_ffn, err);
    FERRUM_TRY(check_desc(desc, &local, err));
    ferrum_expert_ffn_t *ffn = ferrum_cpu_object_new(device, sizeof *ffn, "an expert FFN", err);
    if (!ffn)
        return FERRUM_OUT_OF_MEMORY;
    atomic_init(&ffn->refs, 1);
    ffn->device = device;
    ffn->hidden = desc->hidden;
    ffn->intermediate = desc->intermediate;
    ffn->num_experts = desc->num_experts;
    ffn->first_expert = desc->first_expert;
    ffn->local_experts = local;
    const ferrum_status_t status = load_ffn(ffn, desc, err);
    if (status != FERRUM_OK) {
        ferrum_cpu_expert_ffn_release(ffn);
        return status;
    }
    *out_ffn = ffn;
    return FERRUM_OK;
}

void ferrum_cpu_expert_ffn_retain(ferrum_expert_ffn_t *ffn)
{
    ferrum_cpu_ref(&ffn->refs);
}

void ferrum_cpu_expert_ffn_release(ferrum_expert_ffn_t *ffn)
{
    if (!ffn || !ferrum_cpu_unref(&ffn->refs))
        return;
    ferrum_cpu_weights_free(ffn->device, &ffn->gate);
    ferrum_cpu_weights_free(ffn->device, &ffn->up);
    ferrum_cpu_weights_free(ffn->device, &ffn->down);
    ferrum_cpu_object_free(ffn->device, ffn, sizeof *ffn);
}

/** "q4_k", "gptq4". */
static void format_name(const ferrum_cpu_weights_t *weights, char name[static 16])
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(weights->format);

    if (traits)
        (void)snprintf(name, 16, "%s", traits->name);
    else
        (void)snprintf(name, 16, "gptq%u", weights->bits);
}

/** The bound of the first half, whose errors pass through the second, plus that of the second. */
static float added_bound(const ferrum_expert_ffn_t *ffn)
{
    const float gate = ferrum_cpu_weights_error_bound(&ffn->gate);
    const float up = ferrum_cpu_weights_error_bound(&ffn->up);
    return (gate > up ? gate : up) + ferrum_cpu_weights_error_bound(&ffn->down);
}

ferrum_status_t ferrum_cpu_expert_ffn_info(const ferrum_expert_ffn_t *ffn,
                                           ferrum_expert_ffn_info_t *out_info, ferrum_error_t *err)
{
    char gate[16], up[16], down[16];

    FERRUM_CHECK_POINTER(ffn, err);
    ferrum_expert_ffn_info_t info = {
        .head = FERRUM_HEAD(ferrum_expert_ffn_info_t),
        .hidden = ffn->hidden,
        .intermediate = ffn->intermediate,
        .num_experts = ffn->num_experts,
        .local_experts = ffn->local_experts,
        .bytes = ferrum_cpu_weights_bytes(&ffn->gate) + ferrum_cpu_weights_bytes(&ffn->up) +
                 ferrum_cpu_weights_bytes(&ffn->down),
        .source_bytes = ffn->gate.source_bytes + ffn->up.source_bytes + ffn->down.source_bytes,
        .error_bound = added_bound(ffn),
    };
    format_name(&ffn->gate, gate);
    format_name(&ffn->up, up);
    format_name(&ffn->down, down);
    const bool alike = ffn->gate.format == ffn->up.format && ffn->gate.bits == ffn->up.bits;
    (void)snprintf(info.kernel, sizeof info.kernel, "%s %s%s%s/%s", ffn->device->kernels->name,
                   gate, alike ? "" : "/", alike ? "" : up, down);
    return ferrum_fill_struct(__func__, out_info, FERRUM_EXPERT_FFN_INFO_MIN_SIZE, &info, err);
}
