/* SPDX-License-Identifier: MIT */
#include "host/moe/expert_stack_internal.h"
#include "host/runtime/arrays.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

/* gate and up of one expert side by side along N, as one matrix. Owns what `matrix` points to,
 * except g_idx. */
typedef struct joined {
    ferrum_gptq_t matrix;
    ferrum_host_array_t qweight, qzeros, scales;
} joined_t;

static void joined_free(joined_t *joined)
{
    ferrum_host_array_free(&joined->qweight);
    ferrum_host_array_free(&joined->qzeros);
    ferrum_host_array_free(&joined->scales);
}

static uint32_t group_of(const ferrum_gptq_t *m, uint32_t row)
{
    if (m->g_idx)
        return (uint32_t)m->g_idx[row];
    return m->group_size ? row / m->group_size : 0;
}

static ferrum_status_t check_pair(const ferrum_gptq_t *gate, const ferrum_gptq_t *up,
                                  uint32_t expert, ferrum_error_t *err)
{
    const char *what = NULL;
    if (gate->k != up->k)
        what = "input features";
    else if (gate->bits != up->bits)
        what = "bits";
    else if (gate->group_size != up->group_size)
        what = "group size";
    else if (gate->zero_convention != up->zero_convention || !gate->qzeros != !up->qzeros)
        what = "zero points";
    else if (gate->scales_dtype != up->scales_dtype)
        what = "the dtype of scales";
    for (uint32_t r = 0; !what && (gate->g_idx || up->g_idx) && r < gate->k; r++)
        if (group_of(gate, r) != group_of(up, r))
            what = "g_idx";
    if (what)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_OTHER,
                           "gate and up of expert %u differ in %s, so they cannot be joined; "
                           "FERRUM_MOE_PATH=expert_ffn keeps them apart",
                           expert, what);
    return FERRUM_OK;
}

/* [rows, a_bytes] and [rows, b_bytes] into [rows, a_bytes + b_bytes]. */
static ferrum_status_t join_rows(const void *a, size_t a_bytes, const void *b, size_t b_bytes,
                                 uint64_t rows, ferrum_host_array_t *out, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_host_array_reserve(out, rows, a_bytes + b_bytes, err));
    char *to = out->data;
    for (uint64_t r = 0; r < rows; r++) {
        memcpy(to, (const char *)a + r * a_bytes, a_bytes);
        memcpy(to + a_bytes, (const char *)b + r * b_bytes, b_bytes);
        to += a_bytes + b_bytes;
    }
    return FERRUM_OK;
}

/* Counts are derived from the shape and compared with those given, so that nothing is read beyond
 * a short array. */
static ferrum_status_t check_counts(const ferrum_gptq_t *m, const char *role, uint32_t expert,
                                    ferrum_error_t *err)
{
    uint32_t per_word = m->bits ? 32 / m->bits : 0;
    uint32_t group_size = m->group_size ? m->group_size : m->k;
    if ((m->bits != 4 && m->bits != 8) || m->k == 0 || m->n == 0 || m->k % per_word ||
        m->n % per_word || m->k % group_size)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_LAYOUT,
                           "%s of expert %u: %u bits, K %u, N %u, group size %u do not pack", role,
                           expert, m->bits, m->k, m->n, m->group_size);
    uint64_t groups = m->k / group_size, n = m->n;
    if (m->qweight_count != m->k / per_word * n || m->scales_count != groups * n ||
        (m->qzeros && m->qzeros_count != groups * (n / per_word)) ||
        (m->g_idx && m->g_idx_count != m->k) || !ferrum_dtype_bytes(m->scales_dtype))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s of expert %u: array lengths do not fit K %u, N %u, group size %u",
                           role, expert, m->k, m->n, m->group_size);
    return FERRUM_OK;
}

static ferrum_status_t join(const ferrum_gptq_t *gate, const ferrum_gptq_t *up, uint32_t expert,
                            joined_t *joined, ferrum_error_t *err)
{
    FERRUM_TRY(check_counts(gate, "gate", expert, err));
    FERRUM_TRY(check_counts(up, "up", expert, err));
    FERRUM_TRY(check_pair(gate, up, expert, err));
    if (gate->bias || up->bias)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_BIAS,
                           "expert %u has biases, which only the expert_ffn path takes", expert);
    uint32_t per_word = 32 / gate->bits;
    uint64_t words = gate->k / per_word, groups = gate->scales_count / gate->n;
    size_t scale_bytes = ferrum_dtype_bytes(gate->scales_dtype);
    FERRUM_TRY(join_rows(gate->qweight, gate->n * sizeof(int32_t), up->qweight,
                         up->n * sizeof(int32_t), words, &joined->qweight, err));
    FERRUM_TRY(join_rows(gate->scales, gate->n * scale_bytes, up->scales, up->n * scale_bytes,
                         groups, &joined->scales, err));
    ferrum_gptq_t *m = &joined->matrix;
    *m = *gate;
    m->head = (ferrum_head_t)FERRUM_HEAD(ferrum_gptq_t);
    m->flags = 0;
    m->n = gate->n + up->n;
    m->qweight = joined->qweight.data;
    m->qweight_count = words * m->n;
    m->scales = joined->scales.data;
    m->scales_count = groups * m->n;
    if (gate->qzeros) {
        FERRUM_TRY(join_rows(gate->qzeros, gate->n / per_word * sizeof(int32_t), up->qzeros,
                             up->n / per_word * sizeof(int32_t), groups, &joined->qzeros, err));
        m->qzeros = joined->qzeros.data;
        m->qzeros_count = groups * (m->n / per_word);
    }
    if (!m->g_idx && up->g_idx) {
        m->g_idx = up->g_idx;
        m->g_idx_count = up->g_idx_count;
    }
    return FERRUM_OK;
}

static ferrum_status_t load_per_expert(ferrum_expert_stack_t *stack,
                                       const ferrum_gptq_t *const *gate,
                                       const ferrum_gptq_t *const *up,
                                       const ferrum_gptq_t *const *down, uint32_t num_experts,
                                       ferrum_error_t *err)
{
    const ferrum_ops_t *ops = stack->ops;
    FERRUM_TRY(ferrum_expert_stack_new_lists(stack, num_experts, err));
    joined_t joined = {0};
    ferrum_status_t status = FERRUM_OK;
    for (uint32_t e = 0; e < num_experts && status == FERRUM_OK; e++) {
        status = join(gate[e], up[e], e, &joined, err);
        if (status == FERRUM_OK)
            status = ops->quant->load_gptq(ops->device, &joined.matrix, &stack->gate_up[e], err);
        if (status == FERRUM_OK)
            status = ops->quant->load_gptq(ops->device, down[e], &stack->down[e], err);
    }
    joined_free(&joined);
    return status;
}

/* Per-expert views of a Marlin stack; a stack that only gemm_phase_vllm can read has none. */
static ferrum_status_t make_views(const ferrum_ops_t *ops, ferrum_marlin_stack_t *stack,
                                  uint32_t num_experts, uint32_t n, ferrum_linear_t **views,
                                  ferrum_error_t *err)
{
    for (uint32_t e = 0; e < num_experts; e++)
        FERRUM_TRY(
            ops->marlin->make_expert_linear(stack, (uint64_t)e * n, n, NULL, &views[e], err));
    return FERRUM_OK;
}

static ferrum_status_t
load_marlin_from(ferrum_expert_stack_t *stack, joined_t *joined, const ferrum_gptq_t **matrices,
                 const ferrum_gptq_t *const *gate, const ferrum_gptq_t *const *up,
                 const ferrum_gptq_t *const *down, uint32_t num_experts, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = stack->ops;
    for (uint32_t e = 0; e < num_experts; e++) {
        FERRUM_TRY(join(gate[e], up[e], e, &joined[e], err));
        matrices[e] = &joined[e].matrix;
    }
    stack->stacked_experts = num_experts;
    FERRUM_TRY(ops->quant->load_gptq_stacked(ops->device, matrices, num_experts,
                                             &stack->gate_up_marlin, err));
    FERRUM_TRY(
        ops->quant->load_gptq_stacked(ops->device, down, num_experts, &stack->down_marlin, err));
    FERRUM_TRY(ferrum_expert_stack_count_bytes(stack, err));
    if (stack->requires_vllm)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_expert_stack_new_lists(stack, num_experts, err));
    FERRUM_TRY(make_views(ops, stack->gate_up_marlin, num_experts, 2 * stack->intermediate,
                          stack->gate_up, err));
    return make_views(ops, stack->down_marlin, num_experts, stack->hidden, stack->down, err);
}

static ferrum_status_t load_marlin(ferrum_expert_stack_t *stack, const ferrum_gptq_t *const *gate,
                                   const ferrum_gptq_t *const *up, const ferrum_gptq_t *const *down,
                                   uint32_t num_experts, ferrum_error_t *err)
{
    ferrum_status_t status = FERRUM_OUT_OF_MEMORY;
    joined_t *joined = calloc(num_experts, sizeof *joined);
    const ferrum_gptq_t **matrices = calloc(num_experts, sizeof *matrices);
    if (joined && matrices)
        status = load_marlin_from(stack, joined, matrices, gate, up, down, num_experts, err);
    else
        ferrum_fail(err, status, FERRUM_REASON_NONE, "no memory to join %u experts", num_experts);
    for (uint32_t e = 0; joined && e < num_experts; e++)
        joined_free(&joined[e]);
    free(joined);
    free(matrices);
    return status;
}

static ferrum_status_t load_ffn(ferrum_expert_stack_t *stack, const ferrum_gptq_t *const *gate,
                                const ferrum_gptq_t *const *up, const ferrum_gptq_t *const *down,
                                uint32_t num_experts, ferrum_error_t *err)
{
    ferrum_expert_weights_t roles[3] = {
        {.head = FERRUM_HEAD(ferrum_expert_weights_t), .gptq = gate},
        {.head = FERRUM_HEAD(ferrum_expert_weights_t), .gptq = up},
        {.head = FERRUM_HEAD(ferrum_expert_weights_t), .gptq = down}};
    return ferrum_expert_stack_make_ffn(stack, num_experts, &roles[0], &roles[1], &roles[2], err);
}

ferrum_status_t ferrum_expert_stack_from_gptq(const ferrum_ops_t *ops, ferrum_moe_path_t path,
                                              const ferrum_gptq_t *const *gate,
                                              const ferrum_gptq_t *const *up,
                                              const ferrum_gptq_t *const *down,
                                              uint32_t num_experts,
                                              ferrum_expert_stack_t *out_stack, ferrum_error_t *err)
{
    if (num_experts == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "a layer needs at least one expert");
    ferrum_expert_stack_t stack = {.ops = ops, .hidden = gate[0]->k, .intermediate = gate[0]->n};
    for (uint32_t e = 0; e < num_experts; e++)
        if (gate[e]->k != stack.hidden || gate[e]->n != stack.intermediate ||
            up[e]->k != stack.hidden || up[e]->n != stack.intermediate ||
            down[e]->k != stack.intermediate || down[e]->n != stack.hidden)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_LENGTH,
                               "expert %u does not have the shape %u x %u of expert 0", e,
                               stack.hidden, stack.intermediate);
    ferrum_status_t status;
    switch (path) {
    case FERRUM_MOE_PATH_EXPERT_FFN:
        status = load_ffn(&stack, gate, up, down, num_experts, err);
        break;
    case FERRUM_MOE_PATH_BUCKETED:
        status = load_marlin(&stack, gate, up, down, num_experts, err);
        break;
    case FERRUM_MOE_PATH_PER_PAIR:
        status = load_per_expert(&stack, gate, up, down, num_experts, err);
        break;
    default:
        status = ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                             "the %s path does not take GPTQ experts; use expert_ffn, bucketed or "
                             "per-pair",
                             ferrum_moe_path_name(path));
    }
    return ferrum_expert_stack_finish(&stack, status, out_stack, err);
}
