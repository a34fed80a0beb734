/* SPDX-License-Identifier: MIT */
/* The routed experts end to end. For weights that are not packed, in one region: rows grouped by
 * expert, gate and up and activation, down, weighted sum in slot order. */
#include "backends/cpu/combine.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/expert_ffn.h"
#include "backends/cpu/ffn_packed.h"
#include "backends/cpu/gate_up.h"
#include "backends/cpu/grouping.h"

#include <string.h>

/** Argument of the region. */
typedef struct forward {
    const ferrum_context_t *ctx;
    ferrum_cpu_gate_up_t gate_up;
    ferrum_cpu_product_t down;
    ferrum_cpu_combine_t combine;
    ferrum_cpu_queue_t combine_queue;
} forward_t;

static void run_forward(void *arg, uint32_t thread, uint32_t width)
{
    forward_t *forward = arg;

    ferrum_cpu_gate_up_phases(forward->ctx, &forward->gate_up, thread);
    ferrum_cpu_barrier(forward->ctx, thread);
    if (forward->down.gathered) {
        ferrum_cpu_product_gather(&forward->down, thread);
        ferrum_cpu_barrier(forward->ctx, thread);
    }
    ferrum_cpu_product_tiles(&forward->down, thread);
    ferrum_cpu_barrier(forward->ctx, thread);
    ferrum_cpu_drain(&forward->combine_queue, ferrum_cpu_combine_item, &forward->combine, thread);
}

static ferrum_status_t check_args(const ferrum_context_t *ctx, const ferrum_expert_ffn_t *ffn,
                                  const ferrum_expert_ffn_args_t *args, ferrum_error_t *err)
{
    static const char function[] = "expert_ffn_forward";

    FERRUM_TRY(ferrum_check_struct(function, "args", args, FERRUM_EXPERT_FFN_ARGS_MIN_SIZE, err));
    const uint64_t pairs = (uint64_t)args->tokens * args->top_k;
    const uint64_t elements = (uint64_t)args->tokens * ffn->hidden;
    const ferrum_cpu_operand_t operands[] = {{"x", args->x, FERRUM_DTYPE_F32, 0, elements},
                                             {"ids", args->ids, FERRUM_DTYPE_I32, 0, pairs},
                                             {"weights", args->weights, FERRUM_DTYPE_F32, 0, pairs},
                                             {"out", args->out, FERRUM_DTYPE_F32, 0, elements}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 4, err));
    if (args->flags & ~(uint32_t)FERRUM_FFN_ACCUMULATE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "expert_ffn_forward: unknown flags 0x%x", args->flags);
    if (pairs > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "expert_ffn_forward: %llu pairs do not fit in an i32",
                           (unsigned long long)pairs);
    return ferrum_cpu_check_ids(function, "ids", ferrum_cpu_i32(args->ids), pairs, -1,
                                ffn->num_experts, err);
}

/** Scratch and products of one call; afterwards nothing can fail. Scratch is sized by pairs, not by
 *  the rows that this call's ids make of them, so that it depends on the shape alone. */
static ferrum_status_t prepare(ferrum_context_t *ctx, const ferrum_expert_ffn_t *ffn,
                               const ferrum_expert_ffn_args_t *args, forward_t *forward,
                               ferrum_error_t *err)
{
    const uint32_t pairs = args->tokens * args->top_k;
    ferrum_cpu_grouping_t grouping;
    ferrum_cpu_places_t places;

    FERRUM_TRY(ferrum_cpu_group_pairs(ctx, ferrum_cpu_i32(args->ids), pairs, ffn->first_expert,
                                      ffn->local_experts, &grouping, err));
    FERRUM_TRY(ferrum_cpu_new_places(ctx, pairs, &places, err));
    for (uint32_t r = 0; r < grouping.rows; r++)
        places.in[r] = (uint64_t)(grouping.pairs[r] / args->top_k) * ffn->hidden;
    float *hidden =
        ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_HIDDEN,
                           ferrum_size_mul(pairs, ffn->intermediate), sizeof *hidden, err);
    float *slots = hidden
                       ? ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_DOWN,
                                            ferrum_size_mul(pairs, ffn->hidden), sizeof *slots, err)
                       : NULL;
    if (!slots)
        return FERRUM_OUT_OF_MEMORY;

    /* The halves differ in rows per expert, hence in tiles: each has its own copy of the buckets.
     */
    ferrum_cpu_bucket_t *down_buckets = grouping.buckets + grouping.bucket_count;
    memcpy(down_buckets, grouping.buckets, grouping.bucket_count * sizeof *down_buckets);
    const ferrum_cpu_rows_t hidden_rows = {hidden, NULL, ffn->intermediate};
    forward->gate_up.activation = ffn->activation;
    FERRUM_TRY(ferrum_cpu_gate_up_init(
        ctx, &forward->gate_up, &ffn->gate, &ffn->up, grouping.buckets, grouping.bucket_count,
        (ferrum_cpu_rows_t){ferrum_cpu_f32(args->x), places.in, 0}, hidden_rows, pairs, err));
    FERRUM_TRY(ferrum_cpu_product_init(
        ctx, &forward->down, ffn->down.matrices, down_buckets, grouping.bucket_count, hidden_rows,
        (ferrum_cpu_rows_t){slots, NULL, ffn->hidden}, pairs, FERRUM_CPU_SCRATCH_GATHER_MID, err));
    forward->combine = (ferrum_cpu_combine_t){.vector = ferrum_cpu_vector(ctx),
                                              .slots = slots,
                                              .rows = grouping.packed_rows,
                                              .weights = ferrum_cpu_f32(args->weights),
                                              .out = ferrum_cpu_f32(args->out),
                                              .batch = args->tokens,
                                              .top_k = args->top_k,
                                              .hidden = ffn->hidden,
                                              .accumulate = args->flags & FERRUM_FFN_ACCUMULATE};
    forward->combine_queue.count = ferrum_cpu_combine_items(&forward->combine);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_expert_ffn_forward(ferrum_context_t *ctx, ferrum_expert_ffn_t *ffn,
                                              const ferrum_expert_ffn_args_t *args,
                                              ferrum_error_t *err)
{
    forward_t forward = {.ctx = ctx};

    FERRUM_CHECK_POINTER(ffn, err);
    FERRUM_TRY(check_args(ctx, ffn, args, err));
    if (args->tokens == 0)
        return FERRUM_OK;
    if (ferrum_cpu_ffn_is_packed(ffn))
        return ferrum_cpu_ffn_packed_forward(ctx, ffn, args, err);
    FERRUM_TRY(prepare(ctx, ffn, args, &forward, err));
    ferrum_cpu_run(ctx, run_forward, &forward);
    return FERRUM_OK;
}
