/* SPDX-License-Identifier: MIT */
#include "tools/kit/ops.h"

#include <string.h>

enum {
    T = 5,    /* tokens */
    D = 64,   /* hidden */
    H = 2,    /* heads */
    HD = 32,  /* head size */
    E = 8,    /* experts */
    K = 2,    /* experts per token */
    P = T * K /* pairs */
};

#define CALL(name)                                                                                 \
    static ferrum_status_t call_##name(cf_suite_t *s, ferrum_context_t *c, void *object,           \
                                       ferrum_buffer_t *const *b, ferrum_error_t *e)

/* ---- backend ---- */

CALL(gemm)
{
    (void)object;
    return s->be->gemm(c, b[0], b[1], b[2], T, 33, 70, e);
}

CALL(rms_norm)
{
    (void)object;
    return s->be->rms_norm(c, b[0], b[1], 1e-5F, b[2], T, D, e);
}

CALL(fused_add_rms_norm)
{
    (void)object;
    return s->be->fused_add_rms_norm(c, b[0], b[1], b[2], 1e-5F, b[3], T, D, e);
}

CALL(flash_attention)
{
    const ferrum_attn_config_t config = {.head = FERRUM_HEAD(ferrum_attn_config_t),
                                         .num_heads = H,
                                         .num_kv_heads = 1,
                                         .head_dim = HD,
                                         .causal = 1,
                                         .scale = 0.17F};
    (void)object;
    return s->be->flash_attention(c, b[0], b[1], b[2], b[3], 1, T, 7, 2, &config, e);
}

CALL(embedding_lookup)
{
    static const uint32_t ids[6] = {10, 0, 3, 3, 7, 1};
    (void)object;
    return s->be->embedding_lookup(c, b[0], ids, 6, b[1], 24, e);
}

CALL(embedding_lookup_dev)
{
    (void)object;
    return s->be->embedding_lookup_dev(c, b[0], b[1], 6, b[2], 24, e);
}

CALL(split_qkv)
{
    (void)object;
    return s->be->split_qkv(c, b[0], b[1], b[2], b[3], T, D, HD, e);
}

CALL(fused_silu_mul_split)
{
    (void)object;
    return s->be->fused_silu_mul_split(c, b[0], b[1], T, D, e);
}

CALL(fused_silu_mul_split_strided)
{
    (void)object;
    return s->be->fused_silu_mul_split_strided(c, b[0], 2, b[1], 1, T - 2, D, e);
}

static ferrum_rope_t rope_of(ferrum_buffer_t *q, ferrum_buffer_t *k, ferrum_buffer_t *cosines,
                             ferrum_buffer_t *sines)
{
    return (ferrum_rope_t){FERRUM_HEAD(ferrum_rope_t), q, k, cosines, sines, 1e-5F,
                           FERRUM_ROPE_NORM_HALF};
}

CALL(qk_norm_rope)
{
    ferrum_rope_t rope = rope_of(b[1], b[1], b[2], b[3]);
    (void)object;
    return s->be->qk_norm_rope(c, b[0], &rope, b[4], T, H, HD, 3, e);
}

CALL(split_qkv_norm_rope)
{
    ferrum_rope_t rope = rope_of(b[1], b[2], b[3], b[4]);
    (void)object;
    return s->be->split_qkv_norm_rope(c, b[0], &rope, b[5], b[6], b[7], T, H, 1, HD, 3, e);
}

CALL(split_qkv_norm_rope_into_cache)
{
    ferrum_rope_t rope = rope_of(b[1], b[2], b[3], b[4]);
    (void)object;
    return s->be->split_qkv_norm_rope_into_cache(c, b[0], &rope, b[5], b[6], b[7], T, H, 1, HD, 3,
                                                 3, 9, e);
}

CALL(kv_cache_append_head_major)
{
    (void)object;
    return s->be->kv_cache_append_head_major(c, b[0], b[1], 3, 9, b[2], b[3], T, 1, HD, e);
}

CALL(transpose_head_to_token)
{
    (void)object;
    return s->be->transpose_head_to_token(c, b[0], b[1], T, H, HD, e);
}

CALL(transpose_token_to_head)
{
    (void)object;
    return s->be->transpose_token_to_head(c, b[0], b[1], T, H, HD, e);
}

CALL(add_inplace)
{
    (void)object;
    return s->be->add_inplace(c, b[0], b[1], T * D, e);
}

CALL(scaled_add_inplace)
{
    (void)object;
    return s->be->scaled_add_inplace(c, b[0], b[1], 0.3F, T * D, e);
}

CALL(scale_inplace)
{
    (void)object;
    return s->be->scale_inplace(c, b[0], 0.7F, T * D, e);
}

CALL(add_bias)
{
    (void)object;
    return s->be->add_bias(c, b[0], b[1], T, D, e);
}

CALL(argmax_rows)
{
    uint32_t ids[T];
    (void)object;
    return s->be->argmax_rows(c, b[0], T, D, ids, e);
}

/* ---- weights ---- */

/* Formats to try: what a backend takes of them, it is held to. */
static const ferrum_weight_format_t usual[] = {FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_F32,
                                               FERRUM_FORMAT_F16};
enum {
    USUAL = sizeof usual / sizeof usual[0]
};

static void release_linear(cf_suite_t *s, void *object)
{
    s->ql->linear->release(object);
}

static void *make_linear(cf_suite_t *s)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_t *linear = NULL;
    ferrum_status_t status = FERRUM_UNSUPPORTED;
    for (int i = 0; i < USUAL && status == FERRUM_UNSUPPORTED; i++) {
        cf_weights_t w = cf_random_blocks(s, usual[i], 1, 33, D);
        status = s->ql->load_quant(s->device, &w.gguf, NULL, &linear, &err);
    }
    if (!cf_ok(s, status, &err))
        return NULL;
    cf_own(s, linear, release_linear);
    return linear;
}

CALL(linear_forward)
{
    return s->ql->linear->forward(c, object, b[0], 0, b[1], 0, T, e);
}

static void release_stack(cf_suite_t *s, void *object)
{
    s->ql->stacked_experts->release(object);
}

static void *make_stack(cf_suite_t *s)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_stacked_experts_t *stack = NULL;
    ferrum_status_t status = FERRUM_UNSUPPORTED;
    for (int i = 0; i < USUAL && status == FERRUM_UNSUPPORTED; i++) {
        cf_weights_t w = cf_random_blocks(s, usual[i], E, 48, D);
        status = s->ql->load_quant_experts(s->device, &w.gguf, &stack, &err);
    }
    if (!cf_ok(s, status, &err))
        return NULL;
    cf_own(s, stack, release_stack);
    return stack;
}

CALL(gemv_moe_id_batched)
{
    return s->ql->stacked_experts->gemv_moe_id_batched(c, object, b[0], b[1], b[2], T, K, D, 0, e);
}

static void release_ffn(cf_suite_t *s, void *object)
{
    s->mf->expert_ffn_release(object);
}

static ferrum_status_t create_ffn(cf_suite_t *s, ferrum_weight_format_t format,
                                  ferrum_expert_ffn_t **out_ffn, ferrum_error_t *err)
{
    cf_weights_t w[3];
    ferrum_expert_weights_t role[3];
    for (int r = 0; r < 3; r++) {
        w[r] = cf_random_blocks(s, format, E, r < 2 ? 32 : D, r < 2 ? D : 32);
        role[r] =
            (ferrum_expert_weights_t){FERRUM_HEAD(ferrum_expert_weights_t), &w[r].gguf, NULL, NULL};
    }
    const ferrum_expert_ffn_desc_t desc = {.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                           .hidden = D,
                                           .intermediate = 32,
                                           .num_experts = E,
                                           .gate = &role[0],
                                           .up = &role[1],
                                           .down = &role[2]};
    return s->mf->expert_ffn_create(s->device, &desc, out_ffn, err);
}

static void *make_ffn(cf_suite_t *s)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_expert_ffn_t *ffn = NULL;
    ferrum_status_t status = FERRUM_UNSUPPORTED;
    for (int i = 0; i < USUAL && status == FERRUM_UNSUPPORTED; i++)
        status = create_ffn(s, usual[i], &ffn, &err);
    if (!cf_ok(s, status, &err))
        return NULL;
    cf_own(s, ffn, release_ffn);
    return ffn;
}

CALL(expert_ffn_forward)
{
    const ferrum_expert_ffn_args_t args = {
        FERRUM_HEAD(ferrum_expert_ffn_args_t), b[0], b[1], b[2], b[3], T, K, 0, 0};
    return s->mf->expert_ffn_forward(c, object, &args, e);
}

/* ---- routing, planning, combining ---- */

CALL(route_topk_softmax)
{
    (void)object;
    return s->mf->route_topk_softmax(c, b[0], b[1], b[2], T, E, K, 1, NULL, e);
}

CALL(moe_build_pairs_by_token)
{
    (void)object;
    return s->mf->moe_build_pairs_by_token(c, b[0], b[1], b[2], b[3], P, E, K, e);
}

CALL(moe_align_block_size)
{
    (void)object;
    return s->mf->moe_align_block_size(c, b[0], b[1], b[2], b[3], P, E, 8, 80, e);
}

CALL(moe_align_block_size_pair_ids)
{
    (void)object;
    return s->mf->moe_align_block_size_pair_ids(c, b[0], b[1], b[2], b[3], P, E, 8, 80, e);
}

CALL(silu_mul_batched)
{
    (void)object;
    return s->mf->silu_mul_batched(c, b[0], b[1], b[2], P, D, e);
}

CALL(silu_mul_stacked)
{
    (void)object;
    return s->mf->silu_mul_stacked(c, b[0], b[1], b[2], K, D, e);
}

CALL(weighted_sum_stacked)
{
    (void)object;
    return s->mf->weighted_sum_stacked(c, b[0], b[1], b[2], 4, D, e);
}

CALL(weighted_sum_residual_stacked)
{
    (void)object;
    return s->mf->weighted_sum_residual_stacked(c, b[0], b[1], b[2], 4, D, e);
}

CALL(weighted_sum_residual_norm_stacked)
{
    (void)object;
    return s->mf->weighted_sum_residual_norm_stacked(c, b[0], b[1], b[2], b[3], b[4], 4, D, 1e-5F,
                                                     e);
}

CALL(weighted_sum_batched)
{
    (void)object;
    return s->mf->weighted_sum_batched(c, b[0], b[1], b[2], T, K, D, e);
}

CALL(weighted_sum_batched_offset)
{
    (void)object;
    return s->mf->weighted_sum_batched_offset(c, b[0], b[1], 3, b[2], D, T, K, D, e);
}

CALL(moe_combine)
{
    (void)object;
    return s->mf->moe_combine(c, b[0], b[1], b[2], b[3], T, D, K, P, e);
}

#define ROPE_TABLES                                                                                \
    {'f', 8 * HD / 2, 0},                                                                          \
    {                                                                                              \
        'f', 8 * HD / 2, 0                                                                         \
    }
#define OP(name, ...)                                                                              \
    {                                                                                              \
#name, {__VA_ARGS__ }, call_##name, NULL                                                   \
    }
#define OP_WITH(name, make, ...)                                                                   \
    {                                                                                              \
#name, {__VA_ARGS__ }, call_##name, make                                                   \
    }

const cf_op_t cf_ops[] = {
    OP(gemm, {'a', T * 70, 0}, {'a', 33 * 70, 0}, {'A', T * 33, 0}),
    OP(rms_norm, {'a', T *D, 0}, {'a', D, 0}, {'A', T *D, 0}),
    OP(fused_add_rms_norm, {'M', T *D, 0}, {'a', T *D, 0}, {'a', D, 0}, {'A', T *D, 0}),
    OP(flash_attention, {'a', H *T *HD, 0}, {'a', 7 * HD, 0}, {'a', 7 * HD, 0}, {'A', H *T *HD, 0}),
    OP(embedding_lookup, {'t', 11 * 24, 0}, {'A', 6 * 24, 0}),
    OP(embedding_lookup_dev, {'t', 11 * 24, 0}, {'i', 6, 11}, {'A', 6 * 24, 0}),
    OP(split_qkv, {'a', T *(D + 2 * HD), 0}, {'A', T *D, 0}, {'A', T *HD, 0}, {'A', T *HD, 0}),
    OP(fused_silu_mul_split, {'a', T * 2 * D, 0}, {'A', T *D, 0}),
    OP(fused_silu_mul_split_strided, {'a', T * 2 * D, 0}, {'A', (T - 1) * D, 0}),
    OP(qk_norm_rope, {'a', T *H *HD, 0}, {'a', HD, 0}, ROPE_TABLES, {'A', T *H *HD, 0}),
    OP(split_qkv_norm_rope, {'a', T * 4 * HD, 0}, {'a', HD, 0}, {'a', HD, 0}, ROPE_TABLES,
       {'A', T *H *HD, 0}, {'A', T *HD, 0}, {'A', T *HD, 0}),
    OP(split_qkv_norm_rope_into_cache, {'a', T * 4 * HD, 0}, {'a', HD, 0}, {'a', HD, 0},
       ROPE_TABLES, {'A', T *H *HD, 0}, {'M', 9 * HD, 0}, {'M', 9 * HD, 0}),
    OP(kv_cache_append_head_major, {'M', 9 * HD, 0}, {'M', 9 * HD, 0}, {'a', T *HD, 0},
       {'a', T *HD, 0}),
    OP(transpose_head_to_token, {'a', T *H *HD, 0}, {'A', T *H *HD, 0}),
    OP(transpose_token_to_head, {'a', T *H *HD, 0}, {'A', T *H *HD, 0}),
    OP(add_inplace, {'M', T *D, 0}, {'a', T *D, 0}),
    OP(scaled_add_inplace, {'M', T *D, 0}, {'a', T *D, 0}),
    OP(scale_inplace, {'M', T *D, 0}),
    OP(add_bias, {'M', T *D, 0}, {'a', D, 0}),
    OP(argmax_rows, {'a', T *D, 0}),
    OP_WITH(linear_forward, make_linear, {'a', T *D, 0}, {'A', T * 33, 0}),
    OP_WITH(gemv_moe_id_batched, make_stack, {'a', T *D, 0}, {'i', P, E}, {'A', P * 48, 0}),
    OP_WITH(expert_ffn_forward, make_ffn, {'a', T *D, 0}, {'i', P, E}, {'f', P, 0}, {'A', T *D, 0}),
    OP(route_topk_softmax, {'a', T *E, 0}, {'I', P, 0}, {'F', P, 0}),
    OP(moe_build_pairs_by_token, {'i', P, E}, {'I', P, 0}, {'I', P, 0}, {'I', E + 1, 0}),
    OP(moe_align_block_size, {'i', P, E}, {'I', 80, 0}, {'I', 10, 0}, {'I', 1, 0}),
    OP(moe_align_block_size_pair_ids, {'i', P, E}, {'I', 80, 0}, {'I', 10, 0}, {'I', 1, 0}),
    OP(silu_mul_batched, {'a', P *D, 0}, {'a', P *D, 0}, {'A', P *D, 0}),
    OP(silu_mul_stacked, {'a', K *D, 0}, {'a', K *D, 0}, {'A', K *D, 0}),
    OP(weighted_sum_stacked, {'a', 4 * D, 0}, {'f', 4, 0}, {'A', D, 0}),
    OP(weighted_sum_residual_stacked, {'a', 4 * D, 0}, {'f', 4, 0}, {'M', D, 0}),
    OP(weighted_sum_residual_norm_stacked, {'a', 4 * D, 0}, {'f', 4, 0}, {'M', D, 0}, {'a', D, 0},
       {'A', D, 0}),
    OP(weighted_sum_batched, {'a', P *D, 0}, {'f', P, 0}, {'A', T *D, 0}),
    OP(weighted_sum_batched_offset, {'a', P *D, 0}, {'f', P + 3, 0}, {'A', (T + 1) * D, 0}),
    OP(moe_combine, {'a', P *D, 0}, {'i', P, P}, {'f', P, 0}, {'A', T *D, 0}),
};
const size_t cf_op_count = sizeof cf_ops / sizeof cf_ops[0];

/* ---- calls ---- */

bool cf_arg_is_int(const cf_op_t *op, unsigned i)
{
    return op->args[i].role == CF_INT || op->args[i].role == CF_INT_OUT;
}

bool cf_arg_is_output(const cf_op_t *op, unsigned i)
{
    return op->args[i].role < 'a';
}

static void prepare_ints(cf_suite_t *suite, cf_call_t *call, unsigned i)
{
    uint32_t count = call->op->args[i].count, below = call->op->args[i].below;
    if (call->op->args[i].role == CF_INT_OUT) {
        call->ints[i] = cf_ints_output(suite, count);
    } else {
        int32_t *values = cf_memory(suite, count * sizeof *values);
        for (uint32_t j = 0; j < count; j++)
            values[j] = (int32_t)(j * 7 % below);
        call->ints[i] = cf_ints(suite, values, count);
    }
    call->buffer[i] = call->ints[i].buffer;
}

static void prepare_floats(cf_suite_t *suite, cf_call_t *call, unsigned i)
{
    uint32_t count = call->op->args[i].count;
    double *values = cf_memory(suite, count * sizeof *values);
    for (uint32_t j = 0; j < count; j++)
        values[j] = cf_uniform(suite);
    switch (call->op->args[i].role) {
    case CF_ACT_OUT:
        call->tensor[i] = cf_output(suite, count);
        break;
    case CF_F32_OUT:
        call->tensor[i] = cf_f32_output(suite, count);
        break;
    case CF_F32:
        call->tensor[i] = cf_f32(suite, values, count);
        break;
    default:
        call->tensor[i] = cf_input_values(suite, values, count);
    }
    call->buffer[i] = call->tensor[i].buffer;
}

bool cf_call_prepare(cf_suite_t *suite, const cf_op_t *op, void *object, cf_call_t *out_call)
{
    cf_call_t call = {.op = op, .object = object};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    suite->random = 99;
    if (op->make != NULL && object == NULL && (call.object = op->make(suite)) == NULL)
        return false;
    suite->random = 7;
    for (unsigned i = 0; op->args[i].role != CF_NONE; i++, call.count++) {
        if (cf_arg_is_int(op, i))
            prepare_ints(suite, &call, i);
        else
            prepare_floats(suite, &call, i);
    }
    cf_ok(suite, suite->be->context_sync(suite->ctx, &err), &err);
    *out_call = call;
    return !suite->case_failed && !suite->case_refused;
}

ferrum_status_t cf_call_run(cf_suite_t *suite, ferrum_context_t *ctx, const cf_call_t *call,
                            ferrum_error_t *err)
{
    return call->op->call(suite, ctx, call->object, call->buffer, err);
}

void cf_call_expect_same(cf_suite_t *suite, cf_call_t *a, cf_call_t *b)
{
    for (unsigned i = 0; i < a->count; i++) {
        if (!cf_arg_is_output(a->op, i))
            continue;
        if (cf_arg_is_int(a->op, i)) {
            cf_read_ints(suite, &a->ints[i]);
            cf_expect_ints(suite, &b->ints[i], a->ints[i].v);
        } else {
            cf_expect_same(suite, &a->tensor[i], &b->tensor[i]);
        }
    }
}
