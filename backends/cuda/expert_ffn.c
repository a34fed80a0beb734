/* SPDX-License-Identifier: MIT */
#include "backends/cuda/expert_ffn.h"
#include "backends/common/ffn.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/problems.h"

/** Load one role into @p out_weights, which the caller frees whatever happens. */
static ferrum_status_t load_role(ferrum_device_t *device, const ferrum_expert_weights_t *source,
                                 const ferrum_ffn_role_t *role, bool tiles,
                                 ferrum_cuda_weights_t *out_weights, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_check_ffn_role(role, source, err));
    FERRUM_TRY(source->gptq
                   ? ferrum_cuda_weights_from_gptq(device, source->gptq, role->experts, tiles,
                                                   out_weights, err)
                   : ferrum_cuda_weights_from_gguf(device, source->gguf, out_weights, err));
    FERRUM_TRY(ferrum_check_ffn_bias(role, source, out_weights->bias != NULL, err));
    return ferrum_cuda_weights_set_bias(device, out_weights, source->bias, err);
}

/** One launch takes gate and up: both in tiles of one kind, or neither in tiles. */
static bool go_together(const ferrum_gpu_weights_t *gate, const ferrum_gpu_weights_t *up)
{
    if (!ferrum_cuda_w4_tiled(gate) && !ferrum_cuda_w4_tiled(up))
        return true;
    return gate->layout == up->layout && gate->group_size == up->group_size;
}

static ferrum_status_t load_ffn(ferrum_expert_ffn_t *ffn, const ferrum_expert_ffn_desc_t *desc,
                                ferrum_error_t *err)
{
    const ferrum_ffn_role_t gate = {"gate", ffn->local_experts, ffn->intermediate, ffn->hidden};
    const ferrum_ffn_role_t up = {"up", ffn->local_experts, ffn->intermediate, ffn->hidden};
    const ferrum_ffn_role_t down = {"down", ffn->local_experts, ffn->hidden, ffn->intermediate};

    FERRUM_TRY(ferrum_activation_from(desc->activation, &ffn->activation, err));
    FERRUM_TRY(load_role(ffn->device, desc->gate, &gate, true, &ffn->gate, err));
    FERRUM_TRY(load_role(ffn->device, desc->up, &up, true, &ffn->up, err));
    if (!go_together(&ffn->gate.gpu, &ffn->up.gpu)) {
        ferrum_cuda_weights_free(&ffn->gate);
        ferrum_cuda_weights_free(&ffn->up);
        FERRUM_TRY(load_role(ffn->device, desc->gate, &gate, false, &ffn->gate, err));
        FERRUM_TRY(load_role(ffn->device, desc->up, &up, false, &ffn->up, err));
    }
    return load_role(ffn->device, desc->down, &down, true, &ffn->down, err);
}

ferrum_status_t ferrum_cuda_expert_ffn_create(ferrum_device_t *device,
                                              const ferrum_expert_ffn_desc_t *desc,
                                              ferrum_expert_ffn_t **out_ffn, ferrum_error_t *err)
{
    uint32_t local = 0;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_ffn, err);
    FERRUM_TRY(ferrum_check_ffn_desc(desc, &local, err));
    ferrum_expert_ffn_t *ffn = ferrum_cuda_object_new(device, sizeof *ffn, "an expert FFN", err);
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
        ferrum_cuda_expert_ffn_release(ffn);
        return status;
    }
    *out_ffn = ffn;
    return FERRUM_OK;
}

void ferrum_cuda_expert_ffn_retain(ferrum_expert_ffn_t *ffn)
{
    ferrum_cuda_ref(&ffn->refs);
}

void ferrum_cuda_expert_ffn_release(ferrum_expert_ffn_t *ffn)
{
    if (!ffn || !ferrum_cuda_unref(&ffn->refs))
        return;
    ferrum_cuda_weights_free(&ffn->gate);
    ferrum_cuda_weights_free(&ffn->up);
    ferrum_cuda_weights_free(&ffn->down);
    ferrum_cuda_object_free(ffn->device, ffn, sizeof *ffn);
}

/** "q4_k", "gptq4". */
static void format_name(const ferrum_cuda_weights_t *weights, char name[static 16])
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(weights->format);

    if (traits)
        (void)snprintf(name, 16, "%s", traits->name);
    else
        (void)snprintf(name, 16, "gptq%u", weights->bits);
}

ferrum_status_t ferrum_cuda_expert_ffn_info(const ferrum_expert_ffn_t *ffn,
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
        .bytes = ffn->gate.bytes + ffn->up.bytes + ffn->down.bytes,
        .source_bytes = ffn->gate.source_bytes + ffn->up.source_bytes + ffn->down.source_bytes,
        .error_bound = ferrum_cuda_error_bound(ffn->device),
    };
    format_name(&ffn->gate, gate);
    format_name(&ffn->up, up);
    format_name(&ffn->down, down);
    const bool alike = ffn->gate.format == ffn->up.format && ffn->gate.bits == ffn->up.bits;
    (void)snprintf(info.kernel, sizeof info.kernel, "%s %s%s%s/%s",
                   ferrum_cuda_w4_tiled(&ffn->gate.gpu) && ferrum_cuda_w4_tiled(&ffn->down.gpu)
                       ? "mma"
                       : "fma",
                   gate, alike ? "" : "/", alike ? "" : up, down);
    return ferrum_fill_struct(__func__, out_info, FERRUM_EXPERT_FFN_INFO_MIN_SIZE, &info, err);
}
