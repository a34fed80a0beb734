/* SPDX-License-Identifier: MIT */
#include "backends/cpu/expert_ffn.h"
#include "backends/common/ffn.h"
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"

/** Load one role into @p out_weights, which the caller frees whatever happens. */
static ferrum_status_t load_role(const ferrum_device_t *device,
                                 const ferrum_expert_weights_t *source,
                                 const ferrum_ffn_role_t *role, const ferrum_cpu_loading_t *loading,
                                 ferrum_cpu_weights_t *out_weights, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_ffn_role(role, source, err));
    FERRUM_TRY(source->gptq
                   ? ferrum_cpu_weights_from_gptq(device, source->gptq, role->experts, loading,
                                                  out_weights, err)
                   : ferrum_cpu_weights_from_gguf(device, source->gguf, loading, out_weights, err));
    FERRUM_TRY(ferrum_check_ffn_bias(role, source, out_weights->bias.ptr != NULL, err));
    return ferrum_cpu_weights_set_bias(device, out_weights, source->bias, err);
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
    const ferrum_ffn_role_t gate = {"gate", ffn->local_experts, ffn->intermediate, ffn->hidden};
    const ferrum_ffn_role_t up = {"up", ffn->local_experts, ffn->intermediate, ffn->hidden};
    const ferrum_ffn_role_t down = {"down", ffn->local_experts, ffn->hidden, ffn->intermediate};
    const ferrum_packed_precision_t precision =
        desc->precision == FERRUM_PRECISION_DEFAULT ? ffn->device->precision
        : desc->precision == FERRUM_PRECISION_FAST  ? FERRUM_PACKED_FAST
                                                    : FERRUM_PACKED_ACCURATE;

    FERRUM_TRY(ferrum_activation_from(desc->activation, &ffn->activation, err));
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
    FERRUM_TRY(ferrum_check_ffn_desc(desc, &local, err));
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
