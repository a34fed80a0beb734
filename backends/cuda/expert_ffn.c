/* SPDX-License-Identifier: MIT */
#include "backends/cuda/expert_ffn.h"
#include "backends/common/ffn.h"
#include "backends/common/gptq.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/problems.h"

/** Stated error of two products with int8 activations, as much as in the cpu backend. */
#define FAST_ERROR_BOUND (2 * 1.6e-2F)

/** How the roles are to lie. */
typedef struct ffn_layout {
    bool gate_up_tiles; /**< one launch takes both: both in tiles of one kind, or neither */
    bool down_tiles;
    uint32_t gate_up_blocks, down_blocks; /**< of block formats: their layout, or 0 */
    ferrum_cuda_w4_order_t gate_up, down;
    uint16_t *inputs, *hidden; /**< what these point to, NULL: in order */
    const char *note;
} ffn_layout_t;

/** Load one role into @p out_weights, which the caller frees whatever happens. */
static ferrum_status_t load_role(ferrum_device_t *device, const ferrum_expert_weights_t *source,
                                 const ferrum_ffn_role_t *role, const ferrum_cuda_w4_order_t *tiles,
                                 uint32_t blocks, ferrum_cuda_weights_t *out_weights,
                                 ferrum_error_t *err)
{
    FERRUM_TRY(source->gptq
                   ? ferrum_cuda_weights_from_gptq(device, source->gptq, role->experts, tiles,
                                                   out_weights, err)
                   : ferrum_cuda_weights_from_gguf(device, source->gguf, blocks, out_weights, err));
    FERRUM_TRY(ferrum_check_ffn_bias(role, source, out_weights->bias != NULL, err));
    return ferrum_cuda_w4_set_bias(device, out_weights, source->bias, tiles ? tiles->outputs : NULL,
                                   err);
}

/** A role's matrices can be put into tiles. */
static bool fits_tiles(const ferrum_expert_weights_t *source, uint32_t experts)
{
    return source->gptq && ferrum_cuda_w4_fits(source->gptq, experts);
}

static bool fits_blocks(const ferrum_expert_weights_t *source)
{
    return source->gguf && ferrum_cuda_gguf_fits(source->gguf->format);
}

/** Inputs of a role at each place of its tiles, [experts, k]; NULL if they stay in order. */
static ferrum_status_t sort_inputs(ferrum_device_t *device, const ferrum_expert_weights_t *source,
                                   const ferrum_ffn_role_t *role, uint16_t **out_inputs,
                                   ferrum_error_t *err)
{
    bool in_order = true;

    *out_inputs = NULL;
    for (uint32_t e = 0; e < role->experts; e++)
        in_order = in_order && ferrum_cuda_w4_in_order(source->gptq[e]);
    if (in_order)
        return FERRUM_OK;
    uint16_t *inputs = ferrum_cuda_host_alloc(
        device->host, ferrum_size_mul3(role->experts, role->k, sizeof *inputs), "an order", err);
    if (!inputs)
        return FERRUM_OUT_OF_MEMORY;
    for (uint32_t e = 0; e < role->experts; e++)
        ferrum_cuda_w4_sort_inputs(source->gptq[e], inputs + (size_t)e * role->k);
    *out_inputs = inputs;
    return FERRUM_OK;
}

/** gate and up have their groups in the same order: one table gathers x for both. */
static bool same_order(const ferrum_expert_weights_t *gate, const ferrum_expert_weights_t *up,
                       const ferrum_ffn_role_t *role)
{
    const uint32_t size = role->k / ferrum_gptq_groups(gate->gptq[0]);

    for (uint32_t e = 0; e < role->experts; e++) {
        const ferrum_gptq_t *a = gate->gptq[e], *b = up->gptq[e];
        for (uint32_t k = 0; (a->g_idx || b->g_idx) && k < role->k; k++)
            if ((a->g_idx ? ferrum_gptq_u32(a->g_idx, k) : k / size) !=
                (b->g_idx ? ferrum_gptq_u32(b->g_idx, k) : k / size))
                return false;
    }
    return true;
}

/** int8 takes all three: what gate and up make as int8 down has to take, and x is quantised once.
 */
static void plan_blocks(const ferrum_device_t *device, const ferrum_expert_ffn_desc_t *desc,
                        ffn_layout_t *layout)
{
    const bool gate_up = fits_blocks(desc->gate) && fits_blocks(desc->up);
    const bool down = fits_blocks(desc->down);
    const ferrum_precision_t precision =
        desc->precision == FERRUM_PRECISION_DEFAULT ? device->precision : desc->precision;
    const bool int8 = precision == FERRUM_PRECISION_FAST && gate_up && down;
    const uint32_t tiles = int8                               ? FERRUM_LAYOUT_GGUF_TILES_INT8
                           : device->act == FERRUM_DTYPE_BF16 ? FERRUM_LAYOUT_GGUF_TILES_BF16
                                                              : FERRUM_LAYOUT_GGUF_TILES_F16;

    layout->gate_up_blocks = gate_up ? tiles : 0;
    layout->down_blocks = down ? tiles : 0;
}

/** Decide, and sort what is to be sorted; the caller frees it whatever happens. */
static ferrum_status_t plan_layout(ferrum_device_t *device, const ferrum_expert_ffn_desc_t *desc,
                                   const ferrum_ffn_role_t roles[3], ffn_layout_t *layout,
                                   ferrum_error_t *err)
{
    const ferrum_expert_weights_t *gate = desc->gate, *up = desc->up, *down = desc->down;
    const uint32_t experts = roles[0].experts;

    plan_blocks(device, desc, layout);
    layout->down_tiles = fits_tiles(down, experts);
    layout->gate_up_tiles = fits_tiles(gate, experts) && fits_tiles(up, experts) &&
                            gate->gptq[0]->scales_dtype == up->gptq[0]->scales_dtype &&
                            ferrum_gptq_groups(gate->gptq[0]) == ferrum_gptq_groups(up->gptq[0]);
    if (layout->gate_up_tiles && !same_order(gate, up, &roles[0])) {
        layout->gate_up_tiles = false;
        layout->note = ", act-order of gate and up differs";
    }
    if (layout->gate_up_tiles)
        FERRUM_TRY(sort_inputs(device, gate, &roles[0], &layout->inputs, err));
    if (layout->down_tiles)
        FERRUM_TRY(sort_inputs(device, down, &roles[2], &layout->hidden, err));
    if (layout->inputs || layout->hidden)
        layout->note = layout->gate_up_tiles ? ", act-order" : layout->note;
    layout->gate_up = (ferrum_cuda_w4_order_t){.inputs = layout->inputs, .outputs = layout->hidden};
    layout->down =
        (ferrum_cuda_w4_order_t){.inputs = layout->hidden, .folded = layout->gate_up_tiles};
    return FERRUM_OK;
}

static void free_layout(ferrum_device_t *device, const ferrum_ffn_role_t roles[3],
                        const ffn_layout_t *layout)
{
    const uint64_t experts = roles[0].experts;

    ferrum_cuda_host_free(device->host, layout->inputs,
                          experts * roles[0].k * sizeof *layout->inputs);
    ferrum_cuda_host_free(device->host, layout->hidden,
                          experts * roles[2].k * sizeof *layout->hidden);
}

/** Everything that is wrong with a role must be known before its groups are looked at. */
static ferrum_status_t check_role(const ferrum_ffn_role_t *role,
                                  const ferrum_expert_weights_t *source, ferrum_error_t *err)
{
    uint64_t bytes;

    FERRUM_TRY(ferrum_check_ffn_role(role, source, err));
    return source->gptq ? ferrum_check_gptq_stack(source->gptq, role->experts, &bytes, err)
                        : FERRUM_OK;
}

static ferrum_status_t load_roles(ferrum_expert_ffn_t *ffn, const ferrum_expert_ffn_desc_t *desc,
                                  const ferrum_ffn_role_t roles[3], const ffn_layout_t *layout,
                                  ferrum_error_t *err)
{
    const ferrum_cuda_w4_order_t *gate_up = layout->gate_up_tiles ? &layout->gate_up : NULL;
    const ferrum_cuda_w4_order_t *down = layout->down_tiles ? &layout->down : NULL;

    FERRUM_TRY(load_role(ffn->device, desc->gate, &roles[0], gate_up, layout->gate_up_blocks,
                         &ffn->gate, err));
    FERRUM_TRY(load_role(ffn->device, desc->up, &roles[1], gate_up, layout->gate_up_blocks,
                         &ffn->up, err));
    return load_role(ffn->device, desc->down, &roles[2], down, layout->down_blocks, &ffn->down,
                     err);
}

static ferrum_status_t load_ffn(ferrum_expert_ffn_t *ffn, const ferrum_expert_ffn_desc_t *desc,
                                ferrum_error_t *err)
{
    const ferrum_ffn_role_t roles[3] = {
        {"gate", ffn->local_experts, ffn->intermediate, ffn->hidden},
        {"up", ffn->local_experts, ffn->intermediate, ffn->hidden},
        {"down", ffn->local_experts, ffn->hidden, ffn->intermediate}};
    ffn_layout_t layout = {.note = ""};

    FERRUM_TRY(ferrum_activation_from(desc->activation, &ffn->activation, err));
    FERRUM_TRY(check_role(&roles[0], desc->gate, err));
    FERRUM_TRY(check_role(&roles[1], desc->up, err));
    FERRUM_TRY(check_role(&roles[2], desc->down, err));
    ferrum_status_t status = plan_layout(ffn->device, desc, roles, &layout, err);
    if (status == FERRUM_OK)
        status = load_roles(ffn, desc, roles, &layout, err);
    free_layout(ffn->device, roles, &layout);
    ffn->note = layout.note;
    ffn->int8 = layout.down_blocks == FERRUM_LAYOUT_GGUF_TILES_INT8;
    return status;
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

/** How gate, up and down are multiplied. */
static const char *kernel_name(const ferrum_expert_ffn_t *ffn)
{
    if (ffn->int8)
        return "int8";
    return ferrum_cuda_tiled(&ffn->gate.gpu) && ferrum_cuda_tiled(&ffn->down.gpu) ? "mma" : "fma";
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
        .error_bound = ffn->int8 ? FAST_ERROR_BOUND : ferrum_cuda_error_bound(ffn->device),
    };
    format_name(&ffn->gate, gate);
    format_name(&ffn->up, up);
    format_name(&ffn->down, down);
    const bool alike = ffn->gate.format == ffn->up.format && ffn->gate.bits == ffn->up.bits;
    (void)snprintf(info.kernel, sizeof info.kernel, "%s %s%s%s/%s%s", kernel_name(ffn), gate,
                   alike ? "" : "/", alike ? "" : up, down, ffn->note);
    return ferrum_fill_struct(__func__, out_info, FERRUM_EXPERT_FFN_INFO_MIN_SIZE, &info, err);
}
