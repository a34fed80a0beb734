/* SPDX-License-Identifier: MIT */
/* Expert stacks and the whole FFN: values against f64, the same bits on every path. */
#include "tests/cpu/fixture.h"
#include "tests/cpu/weights.h"
#include <math.h>
#include <stdlib.h>

/* Packed weights have 16-bit activations; the shapes here are too small to average that out. */
static const double TOLERANCE = 2e-4;

enum {
    E = 6,
    H = 256,
    I = 512,
    T = 37,
    K = 3,
    P = T * K
};

/** Ids with duplicates in a row, skipped pairs, an expert that nobody asks for, a crowded one. */
static int32_t id_of(int pair)
{
    const int token = pair / K, slot = pair % K;
    if (token == 5 || pair % 11 == 3)
        return -1;
    if (token == 7)
        return 4;
    return slot == 0 ? 1 : (token * 7 + slot * 3) % 5;
}

static ferrum_buffer_t *make_ids(cpu_fixture_t *f)
{
    int32_t ids[P];
    for (int p = 0; p < P; p++)
        ids[p] = id_of(p);
    return cpu_i32(f, ids, P);
}

START_TEST(gemv_forms)
{
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    test_blocks_t w = test_blocks_new(FERRUM_FORMAT_Q5_K, E, 70, H, 1);
    ferrum_stacked_experts_t *stack = NULL;
    EXPECT_OK(QL->load_quant_experts(f.device, &w.desc, &stack, &err));
    const ferrum_stacked_experts_ops_t *ops = QL->stacked_experts;
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    EXPECT_OK(ops->info(stack, &info, &err));
    ck_assert(info.num_experts == E && info.n == 70 && info.k == H && !info.requires_vllm);
    ck_assert_uint_eq(info.bytes, w.desc.bytes);

    ferrum_buffer_t *a = cpu_random_f32(&f, 2, 1 + P * H), *ids = make_ids(&f);
    ferrum_buffer_t *out = cpu_output(&f, 2 + P * 70);
    double *wanted = malloc(P * 70 * sizeof *wanted);
    /* stride H from offset 1, ids from 4, output from 2 */
    EXPECT_OK(ops->gemv_moe_id(f.ctx, stack, a, 1, ids, 4, out, 2, P - 4, H, &err));
    for (int p = 4; p < P; p++) {
        const float *row = cpu_floats(out) + 2 + (p - 4) * 70;
        if (id_of(p) < 0) {
            ck_assert_int_eq(cpu_ints(out)[2 + (p - 4) * 70], 0x4b1d4b1d);
            continue;
        }
        test_product(w.values + id_of(p) * 70 * H, 70, H, cpu_floats(a) + 1 + (p - 4) * H, NULL,
                     wanted);
        cpu_check_rows(row, wanted, 1, 70, TOLERANCE);
    }
    cpu_check_guard(out, 2 + P * 70);
    /* stride 0 broadcasts */
    EXPECT_OK(ops->gemv_moe_id(f.ctx, stack, a, 0, ids, 0, out, 0, 2, 0, &err));
    test_product(w.values + id_of(1) * 70 * H, 70, H, cpu_floats(a), NULL, wanted);
    cpu_check_rows(cpu_floats(out) + 70, wanted, 1, 70, TOLERANCE);
    /* one row per token, and one per pair */
    for (uint64_t inner = 0; inner <= H; inner += H) {
        EXPECT_OK(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, out, T, K, inner ? K * H : H,
                                           inner, &err));
        for (int p = 0; p < P; p++) {
            if (id_of(p) < 0)
                continue;
            test_product(w.values + id_of(p) * 70 * H, 70, H,
                         cpu_floats(a) + (inner ? p : p / K) * H, NULL, wanted);
            cpu_check_rows(cpu_floats(out) + p * 70, wanted, 1, 70, TOLERANCE);
        }
    }
    ferrum_buffer_t *clean = cpu_output(&f, P * 70);
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, K * H, H + 1, &err),
                 FERRUM_INVALID_ARGUMENT, "a has");
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, UINT64_MAX, 0, &err),
                 FERRUM_INVALID_ARGUMENT, "overflows");
    cpu_ints(ids)[8] = E;
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, H, 0, &err),
                 FERRUM_INVALID_INPUT, "ids[8] is 6");
    cpu_ints(ids)[8] = -2;
    EXPECT_FAILS(ops->gemv_moe_id_batched(f.ctx, stack, a, ids, clean, T, K, H, 0, &err),
                 FERRUM_INVALID_INPUT, "-2");
    cpu_check_untouched(clean, P * 70);
    free(wanted);
    ops->retain(stack);
    ops->release(stack);
    ops->release(stack);
    cpu_release(a, ids, out, clean, NULL);
    test_blocks_free(&w);
    cpu_close(&f);
}
END_TEST

/* ---- one layer, computed in every way ---- */

/** A layer with GGUF or GPTQ roles, ready for the granular ops and for expert_ffn. */
typedef struct layer {
    bool gptq;
    test_blocks_t blocks[3];
    test_gptq_t matrices[3][E];
    const ferrum_gptq_t *descs[3][E];
    float *bias[3];
    ferrum_expert_weights_t roles[3];
    ferrum_expert_ffn_desc_t desc;
} layer_t;

static uint32_t rows_of(int role)
{
    return role == 2 ? H : I;
}

static uint32_t cols_of(int role)
{
    return role == 2 ? I : H;
}

static void layer_init(layer_t *layer, bool gptq, bool biased)
{
    static const ferrum_weight_format_t formats[3] = {FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q8_0,
                                                      FERRUM_FORMAT_Q6_K};
    memset(layer, 0, sizeof *layer);
    layer->gptq = gptq;
    for (int role = 0; role < 3; role++) {
        const uint32_t n = rows_of(role), k = cols_of(role);
        const test_gptq_shape_t shape = {.bits = role == 1 ? 8 : 4,
                                         .group_size = 64,
                                         .k = k,
                                         .n = n,
                                         .asymmetric = role != 0,
                                         .act_order = role != 1};
        for (size_t e = 0; gptq && e < E; e++) {
            layer->matrices[role][e] = test_gptq_new(&shape, 100 * (size_t)role + e);
            layer->descs[role][e] = &layer->matrices[role][e].desc;
        }
        if (!gptq)
            layer->blocks[role] = test_blocks_new(formats[role], E, n, k, 7 + (uint64_t)role);
        layer->bias[role] = biased ? cpu_random_values(90 + (uint64_t)role, E * n) : NULL;
        layer->roles[role] =
            (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                      .gguf = gptq ? NULL : &layer->blocks[role].desc,
                                      .gptq = gptq ? layer->descs[role] : NULL,
                                      .bias = layer->bias[role]};
    }
    layer->desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                             .hidden = H,
                                             .intermediate = I,
                                             .num_experts = E,
                                             .gate = &layer->roles[0],
                                             .up = &layer->roles[1],
                                             .down = &layer->roles[2]};
}

static void layer_free(layer_t *layer)
{
    for (int role = 0; role < 3; role++) {
        for (size_t e = 0; layer->gptq && e < E; e++)
            test_gptq_free(&layer->matrices[role][e]);
        if (!layer->gptq)
            test_blocks_free(&layer->blocks[role]);
        free(layer->bias[role]);
    }
}

static const double *values_of(const layer_t *layer, int role, int expert)
{
    return layer->gptq
               ? layer->matrices[role][expert].values
               : layer->blocks[role].values + (size_t)expert * rows_of(role) * cols_of(role);
}

static double activate(const ferrum_activation_t *activation, double g, double u)
{
    if (activation && activation->kind == FERRUM_ACTIVATION_SWIGLU_CLAMPED) {
        const double limit = (double)activation->limit;
        g = fmin(g, limit);
        u = fmax(fmin(u, limit), -limit);
        return g / (1.0 + exp(-(double)activation->alpha * g)) * (u + 1.0);
    }
    if (activation && activation->kind == FERRUM_ACTIVATION_GELU_MUL)
        return 0.5 * g * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (g + 0.044715 * g * g * g))) * u;
    return g / (1.0 + exp(-g)) * u;
}

/** The FFN of @p tokens tokens in f64, pairs of experts outside [first, end) left out. */
static double *reference(const layer_t *layer, const float *x, const float *w, int first, int end)
{
    double *out = calloc(T * H, sizeof *out);
    double gate[I], up[I], down[H];
    float hidden[I];
    for (int p = 0; p < P; p++) {
        const int e = id_of(p);
        if (e < first || e >= end)
            continue;
        const float *bias[3];
        for (int role = 0; role < 3; role++)
            bias[role] = layer->bias[role] ? layer->bias[role] + e * (int)rows_of(role) : NULL;
        test_product(values_of(layer, 0, e), I, H, x + p / K * H, bias[0], gate);
        test_product(values_of(layer, 1, e), I, H, x + p / K * H, bias[1], up);
        for (int i = 0; i < I; i++)
            hidden[i] = (float)activate(layer->desc.activation, gate[i], up[i]);
        test_product(values_of(layer, 2, e), H, I, hidden, bias[2], down);
        for (int i = 0; i < H; i++)
            out[p / K * H + i] += (double)w[p] * down[i];
    }
    return out;
}

static void forward(cpu_fixture_t *f, ferrum_expert_ffn_t *ffn, ferrum_buffer_t *x,
                    ferrum_buffer_t *ids, ferrum_buffer_t *w, ferrum_buffer_t *out, uint32_t tokens,
                    uint32_t flags)
{
    const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           .x = x,
                                           .ids = ids,
                                           .weights = w,
                                           .out = out,
                                           .tokens = tokens,
                                           .top_k = K,
                                           .flags = flags};
    EXPECT_OK(MF->expert_ffn_forward(f->ctx, ffn, &args, &err));
}

START_TEST(ffn_is_right_for_formats_and_activations)
{
    static const ferrum_activation_t activations[3] = {
        {.head = FERRUM_HEAD(ferrum_activation_t)},
        {.head = FERRUM_HEAD(ferrum_activation_t),
         .kind = FERRUM_ACTIVATION_SWIGLU_CLAMPED,
         .alpha = 1.702f,
         .limit = 1.5f},
        {.head = FERRUM_HEAD(ferrum_activation_t), .kind = FERRUM_ACTIVATION_GELU_MUL}};
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    for (int variant = 0; variant < 4; variant++) {
        layer_t layer;
        layer_init(&layer, variant % 2, variant > 1);
        layer.desc.activation = variant ? &activations[variant - 1] : NULL;
        layer.desc.precision = (ferrum_precision_t)variant % 3;
        ferrum_expert_ffn_t *ffn = NULL;
        EXPECT_OK(MF->expert_ffn_create(f.device, &layer.desc, &ffn, &err));
        ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
        EXPECT_OK(MF->expert_ffn_info(ffn, &info, &err));
        ck_assert(info.hidden == H && info.intermediate == I && info.local_experts == E);
        ck_assert_ptr_nonnull(
            strstr(info.kernel, layer.gptq ? " gptq4/gptq8/gptq4" : " q4_k/q8_0/q6_k"));
        ck_assert_uint_gt(info.source_bytes, 0);
        ferrum_buffer_t *x = cpu_random_f32(&f, 1, T * H), *w = cpu_random_f32(&f, 2, P);
        ferrum_buffer_t *ids = make_ids(&f), *out = cpu_output(&f, T * H);
        double *wanted = reference(&layer, cpu_floats(x), cpu_floats(w), 0, E);
        forward(&f, ffn, x, ids, w, out, T, 0);
        cpu_check_rows(cpu_floats(out), wanted, T, H, TOLERANCE + (double)info.error_bound);
        cpu_check_guard(out, T * H);
        for (int i = 0; i < H; i++)
            ck_assert(cpu_floats(out)[5 * H + i] == 0.0f); /* all pairs of token 5 are skipped */
        forward(&f, ffn, x, ids, w, x, T, 0);              /* out may be x */
        ck_assert_mem_eq(cpu_floats(x), cpu_floats(out), T * H * 4);
        free(wanted);
        MF->expert_ffn_release(ffn);
        cpu_release(x, w, ids, out, NULL);
        layer_free(&layer);
    }
    cpu_close(&f);
}
END_TEST

START_TEST(expert_ranges_add_up)
{
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    layer_t layer;
    layer_init(&layer, true, true);
    ferrum_buffer_t *x = cpu_random_f32(&f, 1, T * H), *w = cpu_random_f32(&f, 2, P);
    ferrum_buffer_t *ids = make_ids(&f), *out = cpu_output(&f, T * H);
    for (int half = 0; half < 2; half++) {
        const uint32_t first = half ? 2 : 0, count = half ? E - 2 : 2;
        ferrum_expert_weights_t roles[3];
        ferrum_expert_ffn_desc_t desc = layer.desc;
        ferrum_expert_ffn_t *ffn = NULL;
        for (int role = 0; role < 3; role++) {
            roles[role] = layer.roles[role];
            roles[role].gptq += first;
            roles[role].bias += first * rows_of(role);
        }
        desc.gate = &roles[0];
        desc.up = &roles[1];
        desc.down = &roles[2];
        desc.first_expert = first;
        desc.local_experts = count;
        EXPECT_OK(MF->expert_ffn_create(f.device, &desc, &ffn, &err));
        forward(&f, ffn, x, ids, w, out, T, half ? FERRUM_FFN_ACCUMULATE : 0);
        double *wanted = reference(&layer, cpu_floats(x), cpu_floats(w), 0, half ? E : 2);
        cpu_check_rows(cpu_floats(out), wanted, T, H, TOLERANCE);
        free(wanted);
        MF->expert_ffn_release(ffn);
    }
    cpu_release(x, w, ids, out, NULL);
    layer_free(&layer);
    cpu_close(&f);
}
END_TEST

/** The layer by stacked experts: fused gemv or pair lists. */
static void granular_gguf(cpu_fixture_t *f, const layer_t *layer, ferrum_buffer_t *x,
                          ferrum_buffer_t *ids, ferrum_buffer_t *hidden, ferrum_buffer_t *slots,
                          bool lists)
{
    const ferrum_stacked_experts_ops_t *ops = QL->stacked_experts;
    ferrum_stacked_experts_t *stacks[3];
    for (int role = 0; role < 3; role++)
        EXPECT_OK(
            QL->load_quant_experts(f->device, &layer->blocks[role].desc, &stacks[role], &err));
    if (lists) {
        ferrum_buffer_t *tpe = cpu_output_i32(f, E), *pairs = cpu_output_i32(f, E * P);
        ferrum_buffer_t *up = cpu_output(f, P * I), *args[2];
        for (int i = 0; i < 2; i++)
            EXPECT_OK(BK->buffer_alloc(f->device, FERRUM_DTYPE_U32, 3, &args[i], &err));
        EXPECT_OK(
            MF->compute_ids_tpe(f->ctx, ids, tpe, pairs, args[0], args[1], T, E, K, I, H, &err));
        EXPECT_OK(ops->gemm_moe_id(f->ctx, stacks[0], x, pairs, tpe, hidden, 1, K, P, T, &err));
        EXPECT_OK(ops->gemm_moe_id_indirect(f->ctx, stacks[1], x, pairs, tpe, up, args[0], 1, K, P,
                                            T, &err));
        EXPECT_OK(MF->silu_mul_batched(f->ctx, hidden, up, hidden, P, I, &err));
        EXPECT_OK(ops->gemm_moe_id_indirect(f->ctx, stacks[2], hidden, pairs, tpe, slots, args[1],
                                            K, K, P, T, &err));
        cpu_ints(args[1])[1]--;
        EXPECT_FAILS(ops->gemm_moe_id_indirect(f->ctx, stacks[2], hidden, pairs, tpe, slots,
                                               args[1], K, K, P, T, &err),
                     FERRUM_INVALID_INPUT, "do not cover");
        const int32_t first = cpu_ints(pairs)[1 * P];
        cpu_ints(pairs)[1 * P + 1] = first;
        EXPECT_FAILS(ops->gemm_moe_id(f->ctx, stacks[0], x, pairs, tpe, hidden, 1, K, P, T, &err),
                     FERRUM_INVALID_INPUT, "listed twice");
        EXPECT_FAILS(ops->gemm_moe_id(f->ctx, stacks[0], x, pairs, tpe, hidden, 2, K, P, T, &err),
                     FERRUM_INVALID_ARGUMENT, "ne11 is 2");
        cpu_release(tpe, pairs, up, args[0], args[1], NULL);
    } else {
        EXPECT_OK(ops->gemv_moe_id_gate_up_silu_batched(f->ctx, stacks[0], stacks[1], x, ids,
                                                        hidden, T, K, H, 0, &err));
        EXPECT_OK(
            ops->gemv_moe_id_batched(f->ctx, stacks[2], hidden, ids, slots, T, K, K * I, I, &err));
        EXPECT_FAILS(
            ops->gemv_moe_id_gate_up_silu(f->ctx, stacks[0], stacks[2], x, ids, hidden, K, &err),
            FERRUM_INVALID_ARGUMENT, "differ in shape");
    }
    for (int role = 0; role < 3; role++)
        ops->release(stacks[role]);
}

/** The layer by Marlin stacks: alignment of pair ids, or one dispatch per expert. */
static void granular_gptq(cpu_fixture_t *f, const layer_t *layer, ferrum_buffer_t *x,
                          ferrum_buffer_t *ids, ferrum_buffer_t *hidden, ferrum_buffer_t *slots)
{
    enum {
        BS = 8,
        MAX = P + E * BS
    };
    const ferrum_marlin_stack_ops_t *ops = QL->marlin_stack;
    ferrum_marlin_stack_t *stacks[3];
    ferrum_buffer_t *sorted = cpu_output_i32(f, MAX), *blocks = cpu_output_i32(f, MAX / BS);
    ferrum_buffer_t *total = cpu_output_i32(f, 1), *up = cpu_output(f, P * I);
    const ferrum_moe_routing_t routing = {.head = FERRUM_HEAD(ferrum_moe_routing_t),
                                          .sorted_token_ids = sorted,
                                          .expert_ids = blocks,
                                          .num_tokens_past_padded = total};
    for (int role = 0; role < 3; role++)
        EXPECT_OK(QL->load_gptq_stacked(f->device, layer->descs[role], E, &stacks[role], &err));
    EXPECT_OK(
        MF->moe_align_block_size_pair_ids(f->ctx, ids, sorted, blocks, total, P, E, BS, MAX, &err));
    EXPECT_OK(ops->zero_workspace(f->ctx, stacks[0], &err));
    EXPECT_OK(ops->gemm_phase_vllm(f->ctx, stacks[0], x, &routing, hidden, T, BS, K, &err));
    EXPECT_OK(ops->gemm_phase_vllm(f->ctx, stacks[1], x, &routing, up, T, BS, K, &err));
    EXPECT_OK(MF->silu_mul_batched(f->ctx, hidden, up, hidden, P, I, &err));
    EXPECT_OK(ops->gemm_phase_vllm(f->ctx, stacks[2], hidden, &routing, slots, P, BS, 1, &err));

    /* The same rows of the last phase by dispatches, one row each, in two orders. */
    ferrum_buffer_t *other = cpu_output(f, P * H);
    ferrum_moe_dispatch_t dispatches[P];
    uint32_t count = 0;
    for (int p = 0; p < P; p++)
        if (id_of(p) >= 0)
            dispatches[count++] =
                (ferrum_moe_dispatch_t){(uint32_t)id_of(p), (uint32_t)p, (uint32_t)(P - 1 - p), 1};
    EXPECT_OK(
        ops->gemm_phase_batched(f->ctx, stacks[2], hidden, dispatches, count, other, I, &err));
    for (int p = 0; p < P; p++)
        ck_assert_mem_eq(cpu_floats(other) + (P - 1 - p) * H, cpu_floats(slots) + p * H, H * 4);
    cpu_check_guard(other, P * H);

    dispatches[1] = dispatches[0];
    EXPECT_FAILS(ops->gemm_phase_batched(f->ctx, stacks[2], hidden, dispatches, 2, other, I, &err),
                 FERRUM_INVALID_ARGUMENT, "once more");
    dispatches[0].expert = E;
    EXPECT_FAILS(ops->gemm_phase_batched(f->ctx, stacks[2], hidden, dispatches, 1, other, I, &err),
                 FERRUM_INVALID_ARGUMENT, "expert 6 of 6");
    EXPECT_FAILS(ops->gemm_phase_batched(f->ctx, stacks[2], hidden, dispatches, 1, other, H, &err),
                 FERRUM_INVALID_ARGUMENT, "k is 256");
    dispatches[0] = (ferrum_moe_dispatch_t){0, P, 0, 1};
    EXPECT_FAILS(ops->gemm_phase_batched(f->ctx, stacks[2], hidden, dispatches, 1, other, I, &err),
                 FERRUM_INVALID_ARGUMENT, "needs rows");
    cpu_ints(sorted)[1] = cpu_ints(sorted)[0];
    EXPECT_FAILS(ops->gemm_phase_vllm(f->ctx, stacks[0], x, &routing, hidden, T, BS, K, &err),
                 FERRUM_INVALID_INPUT, "twice");
    cpu_ints(blocks)[0] = -1;
    EXPECT_FAILS(ops->gemm_phase_vllm(f->ctx, stacks[0], x, &routing, hidden, T, BS, K, &err),
                 FERRUM_INVALID_INPUT, "expert_ids[0] is -1");
    cpu_ints(total)[0] = MAX + 99;
    EXPECT_FAILS(ops->gemm_phase_vllm(f->ctx, stacks[0], x, &routing, hidden, T, BS, K, &err),
                 FERRUM_INVALID_INPUT, "padded rows");
    for (int role = 0; role < 3; role++)
        ops->release(stacks[role]);
    cpu_release(sorted, blocks, total, up, other, NULL);
}

START_TEST(granular_paths_give_the_same_bits)
{
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    for (int path = 0; path < 3; path++) {
        layer_t layer;
        layer_init(&layer, path == 2, false);
        ferrum_expert_ffn_t *ffn = NULL;
        EXPECT_OK(MF->expert_ffn_create(f.device, &layer.desc, &ffn, &err));
        ferrum_buffer_t *x = cpu_random_f32(&f, 1, T * H), *w = cpu_random_f32(&f, 2, P);
        ferrum_buffer_t *ids = make_ids(&f), *out = cpu_output(&f, T * H);
        ferrum_buffer_t *combined = cpu_output(&f, T * H), *hidden = cpu_output(&f, P * I);
        ferrum_buffer_t *slots = cpu_output(&f, P * H), *rows = cpu_output_i32(&f, P);
        forward(&f, ffn, x, ids, w, out, T, 0);
        if (path == 2)
            granular_gptq(&f, &layer, x, ids, hidden, slots);
        else
            granular_gguf(&f, &layer, x, ids, hidden, slots, path == 1);
        for (int p = 0; p < P; p++)
            cpu_ints(rows)[p] = id_of(p) < 0 ? -1 : p;
        EXPECT_OK(MF->moe_combine(f.ctx, slots, rows, w, combined, T, H, K, P, &err));
        ck_assert_mem_eq(cpu_floats(combined), cpu_floats(out), T * H * 4);
        MF->expert_ffn_release(ffn);
        cpu_release(x, w, ids, out, combined, hidden, slots, rows, NULL);
        layer_free(&layer);
    }
    cpu_close(&f);
}
END_TEST

START_TEST(bits_depend_on_neither_width_nor_batch)
{
    layer_t layer;
    float *first = malloc(T * H * sizeof *first);
    layer_init(&layer, _i % 2, true);
    for (uint32_t width = 1; width <= 5; width += 2) {
        cpu_fixture_t f;
        cpu_open(&f, _i / 2 ? "scalar" : NULL, width);
        ferrum_expert_ffn_t *ffn = NULL;
        EXPECT_OK(MF->expert_ffn_create(f.device, &layer.desc, &ffn, &err));
        ferrum_buffer_t *x = cpu_random_f32(&f, 1, T * H), *w = cpu_random_f32(&f, 2, P);
        ferrum_buffer_t *ids = make_ids(&f), *out = cpu_output(&f, T * H);
        forward(&f, ffn, x, ids, w, out, T, 0);
        if (width == 1)
            memcpy(first, cpu_floats(out), T * H * sizeof *first);
        ck_assert_mem_eq(cpu_floats(out), first, T * H * sizeof *first);
        for (int t = 0; width > 1 && t < T; t++) { /* each token on its own */
            ferrum_buffer_t *row = cpu_f32(&f, cpu_floats(x) + t * H, H);
            ferrum_buffer_t *own_ids = cpu_i32(&f, cpu_ints(ids) + t * K, K);
            ferrum_buffer_t *own_w = cpu_f32(&f, cpu_floats(w) + t * K, K);
            forward(&f, ffn, row, own_ids, own_w, row, 1, 0);
            ck_assert_mem_eq(cpu_floats(row), first + t * H, H * sizeof *first);
            cpu_release(row, own_ids, own_w, NULL);
        }
        MF->expert_ffn_release(ffn);
        cpu_release(x, w, ids, out, NULL);
        cpu_close(&f);
    }
    free(first);
    layer_free(&layer);
}
END_TEST

START_TEST(a_repeated_step_allocates_nothing)
{
    cpu_fixture_t f;
    layer_t layer;
    cpu_open(&f, NULL, 3);
    layer_init(&layer, true, false);
    ferrum_expert_ffn_t *ffn = NULL;
    EXPECT_OK(MF->expert_ffn_create(f.device, &layer.desc, &ffn, &err));
    ferrum_buffer_t *x = cpu_random_f32(&f, 1, T * H), *w = cpu_random_f32(&f, 2, P);
    ferrum_buffer_t *ids = make_ids(&f), *out = cpu_output(&f, T * H);
    ferrum_context_stats_t before = {.head = FERRUM_HEAD(ferrum_context_stats_t)}, after = before;
    forward(&f, ffn, x, ids, w, out, T, 0);
    EXPECT_OK(BK->context_stats(f.ctx, &before, &err));
    ck_assert_uint_gt(before.allocations, 0);
    const uint64_t host_before = f.host.allocations;
    for (int tokens = T; tokens > 0; tokens -= 9)
        forward(&f, ffn, x, ids, w, out, (uint32_t)tokens, 0);
    EXPECT_OK(BK->context_stats(f.ctx, &after, &err));
    ck_assert_uint_eq(after.allocations, before.allocations);
    ck_assert_uint_eq(f.host.allocations, host_before);
    ck_assert_uint_eq(after.launches, before.launches + 5);
    EXPECT_OK(QL->pregrow_gather_scratch(f.ctx, 1u << 20, &err));
    EXPECT_OK(BK->context_stats(f.ctx, &after, &err));
    ck_assert_uint_eq(after.allocations, before.allocations + 1);
    MF->expert_ffn_release(ffn);
    cpu_release(x, w, ids, out, NULL);
    layer_free(&layer);
    cpu_close(&f);
}
END_TEST

START_TEST(bad_layers_and_calls_are_refused)
{
    cpu_fixture_t f;
    layer_t layer;
    cpu_open(&f, NULL, 1);
    layer_init(&layer, false, false);
    ferrum_expert_ffn_t *ffn = NULL;
    ferrum_expert_ffn_desc_t desc = layer.desc;
#define CREATE() MF->expert_ffn_create(f.device, &desc, &ffn, &err)
    desc.local_experts = 4;
    desc.first_expert = 3;
    EXPECT_FAILS(CREATE(), FERRUM_INVALID_ARGUMENT, "experts 3 on for 4");
    desc.first_expert = 0;
    EXPECT_FAILS(CREATE(), FERRUM_INVALID_ARGUMENT, "gate is [6, 512, 256], expected [4,");
    desc = layer.desc;
    desc.up = desc.down;
    EXPECT_FAILS(CREATE(), FERRUM_INVALID_ARGUMENT, "up is [6, 256, 512]");
    desc = layer.desc;
    desc.precision = 3;
    EXPECT_FAILS(CREATE(), FERRUM_UNSUPPORTED, "precision 3");
    desc = layer.desc;
    desc.down = NULL;
    EXPECT_FAILS(CREATE(), FERRUM_INVALID_ARGUMENT, "down is NULL");
    ferrum_expert_weights_t none = {.head = FERRUM_HEAD(ferrum_expert_weights_t)};
    desc.down = &none;
    EXPECT_FAILS(CREATE(), FERRUM_INVALID_ARGUMENT, "down needs either");
    desc = layer.desc;
    const ferrum_activation_t activation = {.head = FERRUM_HEAD(ferrum_activation_t), .kind = 3};
    desc.activation = &activation;
    EXPECT_FAILS(CREATE(), FERRUM_UNSUPPORTED, "activation 3");
    ck_assert_ptr_null(ffn);
    desc = layer.desc;
    EXPECT_OK(CREATE());

    ferrum_buffer_t *x = cpu_random_f32(&f, 1, T * H), *w = cpu_random_f32(&f, 2, P);
    ferrum_buffer_t *ids = make_ids(&f), *out = cpu_output(&f, T * H);
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                     .x = x,
                                     .ids = ids,
                                     .weights = w,
                                     .out = out,
                                     .tokens = T,
                                     .top_k = K};
#define FORWARD() MF->expert_ffn_forward(f.ctx, ffn, &args, &err)
    args.flags = 2;
    EXPECT_FAILS(FORWARD(), FERRUM_INVALID_ARGUMENT, "0x2");
    args.flags = 0;
    args.tokens = T + 1;
    EXPECT_FAILS(FORWARD(), FERRUM_INVALID_ARGUMENT, "x has");
    args.tokens = T;
    args.weights = ids;
    EXPECT_FAILS(FORWARD(), FERRUM_INVALID_ARGUMENT, "weights is i32");
    args.weights = w;
    cpu_ints(ids)[P - 1] = E;
    EXPECT_FAILS(FORWARD(), FERRUM_INVALID_INPUT, "ids[110] is 6");
    args.tokens = 0;
    EXPECT_OK(FORWARD());
    cpu_check_untouched(out, T * H);
    MF->expert_ffn_retain(ffn);
    MF->expert_ffn_release(ffn);
    MF->expert_ffn_release(ffn);
    cpu_release(x, w, ids, out, NULL);
    layer_free(&layer);
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu experts");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 180);
    tcase_add_loop_test(tc, gemv_forms, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, ffn_is_right_for_formats_and_activations, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, expert_ranges_add_up, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, granular_paths_give_the_same_bits, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, bits_depend_on_neither_width_nor_batch, 0, 4);
    tcase_add_test(tc, a_repeated_step_allocates_nothing);
    tcase_add_test(tc, bad_layers_and_calls_are_refused);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
