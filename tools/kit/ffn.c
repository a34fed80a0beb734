/* SPDX-License-Identifier: MIT */
/* The whole expert FFN: formats, skipped pairs, ranges, determinism, and agreement of all paths. */
#include "tools/kit/kit.h"

#include "host/runtime/executor.h"

#include <string.h>

enum {
    EXPERTS = 6,
    HIDDEN = 256,
    INTERMEDIATE = 256,
    TOP_K = 3
};

/* A layer: weights, descriptor, object. */
typedef struct layer {
    cf_weights_t w[3]; /* gate, up, down */
    ferrum_expert_weights_t role[3];
    ferrum_expert_ffn_desc_t desc;
    ferrum_activation_t activation;
    float *bias[3];
    ferrum_expert_ffn_t *ffn;
} layer_t;

/* Inputs of a forward call and its reference. */
typedef struct call {
    uint32_t tokens;
    cf_tensor_t x, weights;
    cf_ints_t ids;
    double *reference;
} call_t;

static void release_ffn(cf_suite_t *suite, void *object)
{
    suite->mf->expert_ffn_release(object);
}

static layer_t *describe(cf_suite_t *suite, cf_weights_t gate, cf_weights_t up, cf_weights_t down)
{
    layer_t *l = cf_memory(suite, sizeof *l);
    l->w[0] = gate, l->w[1] = up, l->w[2] = down;
    for (int r = 0; r < 3; r++) {
        l->role[r].head = (ferrum_head_t)FERRUM_HEAD(ferrum_expert_weights_t);
        if (l->w[r].gptq != NULL)
            l->role[r].gptq = l->w[r].gptq_list;
        else
            l->role[r].gguf = &l->w[r].gguf;
    }
    l->desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                         .hidden = HIDDEN,
                                         .intermediate = INTERMEDIATE,
                                         .num_experts = EXPERTS,
                                         .gate = &l->role[0],
                                         .up = &l->role[1],
                                         .down = &l->role[2]};
    return l;
}

static layer_t *block_layer(cf_suite_t *suite, ferrum_weight_format_t gate_up,
                            ferrum_weight_format_t down)
{
    return describe(suite, cf_random_blocks(suite, gate_up, EXPERTS, INTERMEDIATE, HIDDEN),
                    cf_random_blocks(suite, gate_up, EXPERTS, INTERMEDIATE, HIDDEN),
                    cf_random_blocks(suite, down, EXPERTS, HIDDEN, INTERMEDIATE));
}

static layer_t *gptq_layer(cf_suite_t *suite, const cf_gptq_kind_t *kind)
{
    return describe(suite, cf_random_gptq(suite, kind, EXPERTS, INTERMEDIATE, HIDDEN),
                    cf_random_gptq(suite, kind, EXPERTS, INTERMEDIATE, HIDDEN),
                    cf_random_gptq(suite, kind, EXPERTS, HIDDEN, INTERMEDIATE));
}

static bool create(cf_suite_t *suite, layer_t *l)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    if (!cf_ok(suite, suite->mf->expert_ffn_create(suite->device, &l->desc, &l->ffn, &err), &err))
        return false;
    cf_own(suite, l->ffn, release_ffn);
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    if (cf_ok(suite, suite->mf->expert_ffn_info(l->ffn, &info, &err), &err))
        cf_state_error(suite, (double)info.error_bound);
    return true;
}

static double activate(const ferrum_activation_t *a, double g, double u)
{
    double limit = a ? (double)a->limit : 0;
    switch (a ? a->kind : FERRUM_ACTIVATION_SILU_MUL) {
    case FERRUM_ACTIVATION_SWIGLU_CLAMPED:
        g = g < limit ? g : limit;
        u = u > limit ? limit : u < -limit ? -limit : u;
        return g / (1 + exp(-(double)a->alpha * g)) * (u + 1);
    case FERRUM_ACTIVATION_GELU_MUL:
        return 0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g))) *
               u;
    default:
        return cf_silu(g) * u;
    }
}

static void add_bias(const layer_t *l, int role, uint32_t expert, double *values, uint32_t rows)
{
    for (uint32_t i = 0; l->bias[role] != NULL && i < rows; i++)
        values[i] += (double)l->bias[role][(size_t)expert * rows + i];
}

/* out += sum over the slots of one token, experts of the local range only */
static void reference_token(const layer_t *l, const double *x, const int32_t *ids,
                            const double *weights, double *out)
{
    double gate[INTERMEDIATE], up[INTERMEDIATE], down[HIDDEN];
    uint32_t local = l->desc.local_experts ? l->desc.local_experts : EXPERTS;
    for (int j = 0; j < TOP_K; j++) {
        int64_t e = (int64_t)ids[j] - l->desc.first_expert;
        if (e < 0 || e >= local)
            continue;
        cf_ref_matvec(&l->w[0], (uint32_t)e, x, gate);
        cf_ref_matvec(&l->w[1], (uint32_t)e, x, up);
        add_bias(l, 0, (uint32_t)e, gate, INTERMEDIATE);
        add_bias(l, 1, (uint32_t)e, up, INTERMEDIATE);
        for (int i = 0; i < INTERMEDIATE; i++)
            gate[i] = activate(l->desc.activation, gate[i], up[i]);
        cf_ref_matvec(&l->w[2], (uint32_t)e, gate, down);
        add_bias(l, 2, (uint32_t)e, down, HIDDEN);
        for (int i = 0; i < HIDDEN; i++)
            out[i] += weights[j] * down[i];
    }
}

/* Random inputs; every fifth pair is skipped when asked; `skew` sends all pairs to two experts. */
static call_t make_call(cf_suite_t *suite, const layer_t *l, uint32_t tokens, bool skip, bool skew)
{
    uint32_t pairs = tokens * TOP_K;
    call_t c = {.tokens = tokens};
    int32_t *ids = cf_memory(suite, (pairs + 1) * sizeof *ids);
    double *w = cf_memory(suite, (pairs + 1) * sizeof *w);
    for (uint32_t p = 0; p < pairs; p++) {
        ids[p] = (int32_t)(skew ? 4 + cf_below(suite, 2) : cf_below(suite, EXPERTS));
        ids[p] = skip && p % 5 == 1 ? -1 : ids[p];
        w[p] = cf_uniform(suite) * 0.5;
    }
    for (uint32_t j = 0; skip && tokens > 1 && j < TOP_K; j++)
        ids[TOP_K + j] = -1; /* a token with no expert at all */
    c.x = cf_input(suite, (uint64_t)tokens * HIDDEN, 1);
    c.ids = cf_ints(suite, ids, pairs);
    c.weights = cf_f32(suite, w, pairs);
    c.reference = cf_memory(suite, (size_t)tokens * HIDDEN * sizeof *c.reference);
    for (uint32_t t = 0; t < tokens; t++)
        reference_token(l, c.x.v + (size_t)t * HIDDEN, ids + t * TOP_K, c.weights.v + t * TOP_K,
                        c.reference + (size_t)t * HIDDEN);
    return c;
}

static ferrum_status_t run(cf_suite_t *suite, ferrum_context_t *ctx, const layer_t *l,
                           const call_t *c, ferrum_buffer_t *out, uint32_t flags,
                           ferrum_error_t *err)
{
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                     .x = c->x.buffer,
                                     .ids = c->ids.buffer,
                                     .weights = c->weights.buffer,
                                     .out = out,
                                     .tokens = c->tokens,
                                     .top_k = TOP_K,
                                     .flags = flags};
    return suite->mf->expert_ffn_forward(ctx, l->ffn, &args, err);
}

static void forward_case(cf_suite_t *suite, layer_t *l, uint32_t tokens, bool skip, bool skew)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    if (create(suite, l)) {
        call_t c = make_call(suite, l, tokens, skip, skew);
        cf_tensor_t out = cf_output(suite, (uint64_t)tokens * HIDDEN);
        if (cf_ok(suite, run(suite, suite->ctx, l, &c, out.buffer, 0, &err), &err))
            cf_expect_rows(suite, &out, c.reference, HIDDEN, 8);
    }
    cf_end(suite);
}

static void format_cases(cf_suite_t *suite)
{
    static const uint32_t tokens[] = {0, 1, 7, 70};
    for (size_t f = 0; f < cf_format_count; f++)
        for (size_t t = 0; t < 3; t++) {
            cf_begin(suite, "expert_ffn %s tokens=%u", ferrum_format_traits(cf_formats[f])->name,
                     tokens[t]);
            forward_case(suite, block_layer(suite, cf_formats[f], cf_formats[f]), tokens[t], false,
                         false);
        }
    for (size_t t = 0; t < 4; t++)
        for (int variant = 0; variant < 4; variant++) {
            cf_begin(suite, "expert_ffn q4_k/q6_k tokens=%u%s%s", tokens[t],
                     variant & 1 ? " with skipped pairs" : "", variant & 2 ? " skewed" : "");
            forward_case(suite, block_layer(suite, FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K),
                         tokens[t], variant & 1, variant & 2);
        }
    for (int variant = 0; variant < 16; variant++) {
        static const uint32_t groups[] = {32, 64, 128, 0};
        cf_gptq_kind_t kind = {
            variant & 8 ? 8 : 4,          groups[variant % 4], variant & 1, (variant & 2) != 0,
            FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16,    false};
        cf_begin(suite, "expert_ffn gptq %u-bit group %u %s%s tokens=%u", kind.bits,
                 kind.group_size, kind.symmetric ? "sym" : "asym",
                 kind.act_order ? " act-order" : "", tokens[variant / 4]);
        forward_case(suite, gptq_layer(suite, &kind), tokens[variant / 4], variant & 4, false);
    }
}

static void flag_cases(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "expert_ffn adds to its output");
    layer_t *l = block_layer(suite, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0);
    if (create(suite, l)) {
        call_t c = make_call(suite, l, 5, true, false);
        cf_tensor_t out = cf_input(suite, 5 * HIDDEN, 1);
        for (int i = 0; i < 5 * HIDDEN; i++)
            c.reference[i] += out.v[i];
        if (cf_ok(suite, run(suite, suite->ctx, l, &c, out.buffer, FERRUM_FFN_ACCUMULATE, &err),
                  &err))
            cf_expect_rows(suite, &out, c.reference, HIDDEN, 8);
    }
    cf_end(suite);

    cf_begin(suite, "expert_ffn writes over its input");
    l = block_layer(suite, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0);
    if (create(suite, l)) {
        call_t c = make_call(suite, l, 5, false, false);
        if (cf_ok(suite, run(suite, suite->ctx, l, &c, c.x.buffer, 0, &err), &err))
            cf_expect_rows(suite, &c.x, c.reference, HIDDEN, 8);
    }
    cf_end(suite);

    cf_begin(suite, "two expert ranges add up to the whole");
    l = block_layer(suite, FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K);
    layer_t *parts[2];
    bool have = true;
    call_t c = make_call(suite, l, 6, false, false);
    for (int part = 0; part < 2; part++) {
        static const uint32_t first[2] = {0, 2}, count[2] = {2, 4};
        parts[part] = describe(suite, l->w[0], l->w[1], l->w[2]);
        for (int r = 0; r < 3; r++) {
            ferrum_gguf_weights_t *g = &parts[part]->w[r].gguf;
            uint64_t expert_bytes = g->bytes / EXPERTS;
            g->data = (const char *)g->data + first[part] * expert_bytes;
            g->experts = count[part];
            g->bytes = expert_bytes * count[part];
        }
        parts[part]->desc.first_expert = first[part];
        parts[part]->desc.local_experts = count[part];
        have = have && create(suite, parts[part]);
    }
    if (have) {
        cf_tensor_t out = cf_output(suite, 6 * HIDDEN);
        if (cf_ok(suite, run(suite, suite->ctx, parts[0], &c, out.buffer, 0, &err), &err) &&
            cf_ok(suite,
                  run(suite, suite->ctx, parts[1], &c, out.buffer, FERRUM_FFN_ACCUMULATE, &err),
                  &err))
            cf_expect_rows(suite, &out, c.reference, HIDDEN, 12);
    }
    cf_end(suite);
}

static void activation_cases(cf_suite_t *suite)
{
    static const ferrum_activation_t kinds[] = {
        {FERRUM_HEAD(ferrum_activation_t), FERRUM_ACTIVATION_SWIGLU_CLAMPED, 1.702F, 0.75F, 0},
        {FERRUM_HEAD(ferrum_activation_t), FERRUM_ACTIVATION_GELU_MUL, 0, 0, 0}};
    for (int i = 0; i < 2; i++) {
        cf_begin(suite, "expert_ffn with %s", i ? "gelu" : "clamped swiglu and biases");
        layer_t *l = block_layer(suite, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q4_K);
        l->activation = kinds[i];
        l->desc.activation = &l->activation;
        for (int r = 0; i == 0 && r < 3; r++) {
            l->bias[r] = cf_memory(suite, EXPERTS * HIDDEN * sizeof(float));
            for (int j = 0; j < EXPERTS * HIDDEN; j++)
                l->bias[r][j] = (float)cf_uniform(suite);
            l->role[r].bias = l->bias[r];
        }
        forward_case(suite, l, 4, false, false);
    }
}

static void bad_input_cases(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "expert_ffn of an expert id out of range");
    layer_t *l = block_layer(suite, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0);
    if (create(suite, l)) {
        call_t c = make_call(suite, l, 2, false, false);
        int32_t wrong[2 * TOP_K] = {0, 1, 2, 3, EXPERTS + 93, 1};
        c.ids = cf_ints(suite, wrong, 2 * TOP_K);
        cf_tensor_t out = cf_output(suite, 2 * HIDDEN);
        ferrum_status_t status = run(suite, suite->ctx, l, &c, out.buffer, 0, &err);
        bool later = status == FERRUM_OK; /* a backend that cannot see the ids without waiting */
        if (later)
            status = suite->be->context_sync(suite->ctx, &err);
        cf_expect_error(suite, status, FERRUM_INVALID_INPUT, &err);
        if (!suite->case_refused && strstr(err.message, "99") == NULL)
            cf_fail(suite, "does not name the id 99: %s", err.message);
        if (!later)
            cf_expect_untouched(suite, &out);
        else if (suite->be->context_sync(suite->ctx, &err) != FERRUM_OK)
            cf_fail(suite, "the context reports the id more than once: %s", err.message);
    }
    cf_end(suite);

    cf_begin(suite, "expert_ffn with an unknown flag");
    l = block_layer(suite, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0);
    if (create(suite, l)) {
        call_t c = make_call(suite, l, 1, false, false);
        cf_tensor_t out = cf_output(suite, HIDDEN);
        cf_expect_error(suite, run(suite, suite->ctx, l, &c, out.buffer, 1u << 30, &err),
                        FERRUM_INVALID_ARGUMENT, &err);
        cf_expect_untouched(suite, &out);
    }
    cf_end(suite);

    cf_begin(suite, "expert_ffn whose down is of another shape");
    l = block_layer(suite, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0);
    l->desc.intermediate = INTERMEDIATE / 2;
    ferrum_status_t status = suite->mf->expert_ffn_create(suite->device, &l->desc, &l->ffn, &err);
    cf_expect_error(suite, status, FERRUM_INVALID_ARGUMENT, &err);
    cf_end(suite);
}

/* Same bits on every run, for every number of threads, and for a row in whatever batch. */
static void determinism_cases(cf_suite_t *suite)
{
    enum {
        TOKENS = 19
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    for (int gptq = 0; gptq < 2; gptq++) {
        static const cf_gptq_kind_t kind = {
            4, 64, false, false, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false};
        cf_begin(suite, "expert_ffn %s: bits depend on nothing but the row",
                 gptq ? "gptq" : "q4_k");
        layer_t *l = gptq ? gptq_layer(suite, &kind)
                          : block_layer(suite, FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K);
        if (create(suite, l)) {
            call_t c = make_call(suite, l, TOKENS, false, false);
            cf_tensor_t first = cf_output(suite, TOKENS * HIDDEN);
            cf_ok(suite, run(suite, suite->ctx, l, &c, first.buffer, 0, &err), &err);
            cf_read(suite, &first);
            for (uint32_t width = 1; width <= 4; width++) {
                ferrum_team_t *team;
                ferrum_context_t *ctx;
                if (!cf_ok(suite, ferrum_team_new(width, &team, &err), &err))
                    break;
                if (cf_ok(suite,
                          suite->be->context_new(suite->device, ferrum_team_executor(team), &ctx,
                                                 &err),
                          &err)) {
                    cf_tensor_t again = cf_output(suite, TOKENS * HIDDEN);
                    if (cf_ok(suite, run(suite, ctx, l, &c, again.buffer, 0, &err), &err) &&
                        cf_ok(suite, suite->be->context_sync(ctx, &err), &err))
                        cf_expect_same(suite, &first, &again);
                    suite->be->context_free(ctx);
                }
                ferrum_team_free(team);
            }
            for (uint32_t t = 0; t < TOKENS; t++) {
                call_t one = {.tokens = 1};
                one.x = cf_input_values(suite, c.x.v + (size_t)t * HIDDEN, HIDDEN);
                one.ids = cf_ints(suite, c.ids.v + t * TOP_K, TOP_K);
                one.weights = cf_f32(suite, c.weights.v + t * TOP_K, TOP_K);
                cf_tensor_t alone = cf_output(suite, HIDDEN);
                cf_ok(suite, run(suite, suite->ctx, l, &one, alone.buffer, 0, &err), &err);
                cf_read(suite, &alone);
                if (memcmp(alone.v, first.v + (size_t)t * HIDDEN, HIDDEN * sizeof(double)) != 0)
                    cf_fail(suite, "row %u alone has other bits than in a batch of %d", t, TOKENS);
            }
        }
        cf_end(suite);
    }
}

void cf_group_ffn(cf_suite_t *suite)
{
    format_cases(suite);
    flag_cases(suite);
    activation_cases(suite);
    bad_input_cases(suite);
    determinism_cases(suite);
}

/* GGUF through StackedExperts: gate, up, activation, down, weighted sum. */
static void stacked_path(cf_suite_t *suite, layer_t *l, const call_t *c)
{
    const ferrum_stacked_experts_ops_t *ops = suite->ql->stacked_experts;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_stacked_experts_t *stack[3] = {NULL, NULL, NULL};
    uint64_t pairs = (uint64_t)c->tokens * TOP_K;
    cf_tensor_t act = cf_output(suite, pairs * INTERMEDIATE),
                down = cf_output(suite, pairs * HIDDEN);
    cf_tensor_t out = cf_output(suite, (uint64_t)c->tokens * HIDDEN);
    bool ok = true;
    double stated = 0;
    for (int r = 0; r < 3; r++)
        ok = ok &&
             cf_ok(suite,
                   suite->ql->load_quant_experts(suite->device, &l->w[r].gguf, &stack[r], &err),
                   &err);
    for (int r = 0; ok && r < 3; r++) {
        ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
        ok = cf_ok(suite, ops->info(stack[r], &info, &err), &err);
        stated += (double)info.error_bound;
    }
    if (ok)
        cf_state_error(suite, stated);
    ok = ok && cf_ok(suite,
                     ops->gemv_moe_id_gate_up_silu_batched(suite->ctx, stack[0], stack[1],
                                                           c->x.buffer, c->ids.buffer, act.buffer,
                                                           c->tokens, TOP_K, HIDDEN, 0, &err),
                     &err);
    ok = ok && cf_ok(suite,
                     ops->gemv_moe_id_batched(suite->ctx, stack[2], act.buffer, c->ids.buffer,
                                              down.buffer, c->tokens, TOP_K, TOP_K * INTERMEDIATE,
                                              INTERMEDIATE, &err),
                     &err);
    ok = ok && cf_ok(suite,
                     suite->mf->weighted_sum_batched(suite->ctx, down.buffer, c->weights.buffer,
                                                     out.buffer, c->tokens, TOP_K, HIDDEN, &err),
                     &err);
    if (ok)
        cf_expect_rows(suite, &out, c->reference, HIDDEN, 8);
    for (int r = 0; r < 3; r++)
        ops->release(stack[r]);
}

/* GPTQ through the bucketed phases: plan, gather, gate_up, activation, down, combine. */
static void bucketed_path(cf_suite_t *suite, layer_t *l, const call_t *c)
{
    const ferrum_marlin_stack_ops_t *ops = suite->ql->marlin_stack;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_marlin_stack_t *stack[3] = {NULL, NULL, NULL};
    uint32_t pairs = c->tokens * TOP_K;
    cf_ints_t rows = cf_ints_output(suite, pairs), tokens = cf_ints_output(suite, pairs);
    cf_ints_t offsets = cf_ints_output(suite, EXPERTS + 1);
    cf_tensor_t packed = cf_output(suite, (uint64_t)pairs * HIDDEN);
    cf_tensor_t part[3], out = cf_output(suite, (uint64_t)c->tokens * HIDDEN);
    cf_tensor_t act = cf_output(suite, (uint64_t)pairs * INTERMEDIATE);
    for (int r = 0; r < 3; r++)
        part[r] = cf_output(suite, (uint64_t)pairs * (r == 2 ? HIDDEN : INTERMEDIATE));
    bool ok = true;
    double stated = 0;
    for (int r = 0; r < 3; r++)
        ok = ok && cf_ok(suite,
                         suite->ql->load_gptq_stacked(suite->device, l->w[r].gptq_list, EXPERTS,
                                                      &stack[r], &err),
                         &err);
    for (int r = 0; ok && r < 3; r++) {
        ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
        ok = cf_ok(suite, ops->info(stack[r], &info, &err), &err);
        stated += (double)info.error_bound;
    }
    if (ok)
        cf_state_error(suite, stated);
    ok = ok && cf_ok(suite,
                     suite->mf->moe_build_pairs_by_token(suite->ctx, c->ids.buffer, rows.buffer,
                                                         tokens.buffer, offsets.buffer, pairs,
                                                         EXPERTS, TOP_K, &err),
                     &err);
    ok = ok && cf_ok(suite,
                     suite->be->embedding_lookup_dev(suite->ctx, c->x.buffer, tokens.buffer, pairs,
                                                     packed.buffer, HIDDEN, &err),
                     &err);
    if (ok) {
        ferrum_moe_dispatch_t dispatch[EXPERTS];
        uint32_t count = 0;
        cf_read_ints(suite, &offsets);
        for (uint32_t e = 0; e < EXPERTS; e++)
            if (offsets.v[e + 1] > offsets.v[e])
                dispatch[count++] =
                    (ferrum_moe_dispatch_t){e, (uint32_t)offsets.v[e], (uint32_t)offsets.v[e],
                                            (uint32_t)(offsets.v[e + 1] - offsets.v[e])};
        for (int r = 0; r < 2; r++)
            ok = ok && cf_ok(suite,
                             ops->gemm_phase_batched(suite->ctx, stack[r], packed.buffer, dispatch,
                                                     count, part[r].buffer, HIDDEN, &err),
                             &err);
        ok = ok && cf_ok(suite,
                         suite->mf->silu_mul_batched(suite->ctx, part[0].buffer, part[1].buffer,
                                                     act.buffer, pairs, INTERMEDIATE, &err),
                         &err);
        ok = ok && cf_ok(suite,
                         ops->gemm_phase_batched(suite->ctx, stack[2], act.buffer, dispatch, count,
                                                 part[2].buffer, INTERMEDIATE, &err),
                         &err);
        ok = ok && cf_ok(suite,
                         suite->mf->moe_combine(suite->ctx, part[2].buffer, rows.buffer,
                                                c->weights.buffer, out.buffer, c->tokens, HIDDEN,
                                                TOP_K, pairs, &err),
                         &err);
        if (ok)
            cf_expect_rows(suite, &out, c->reference, HIDDEN, 8);
    }
    for (int r = 0; r < 3; r++)
        ops->release(stack[r]);
}

void cf_group_paths(cf_suite_t *suite)
{
    static const cf_gptq_kind_t kind = {
        4, 64, false, true, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false};
    static const uint32_t tokens[] = {1, 11, 80};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        cf_begin(suite, "the stacked path computes the same layer, tokens=%u", tokens[i]);
        layer_t *l = block_layer(suite, FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K);
        call_t c = make_call(suite, l, tokens[i], false, false);
        stacked_path(suite, l, &c);
        cf_end(suite);
        cf_begin(suite, "the bucketed path computes the same layer, tokens=%u", tokens[i]);
        l = gptq_layer(suite, &kind);
        c = make_call(suite, l, tokens[i], false, false);
        bucketed_path(suite, l, &c);
        cf_end(suite);
    }
}
