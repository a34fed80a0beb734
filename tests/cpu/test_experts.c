/* SPDX-License-Identifier: MIT */
/* The whole FFN: values against f64, and the same bits from the granular ops on every path. */
#include "tests/cpu/layer.h"
#include <stdlib.h>

/* Packed weights have 16-bit activations; the shapes here are too small to average that out. */
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
        ferrum_buffer_t *x = layer_input(&f), *w = layer_weights(&f);
        ferrum_buffer_t *ids = layer_ids(&f), *out = cpu_output(&f, T * H);
        double *wanted = layer_reference(&layer, cpu_floats(x), cpu_floats(w), 0, E);
        forward(&f, ffn, x, ids, w, out, T, 0);
        cpu_check_rows(cpu_floats(out), wanted, T, H, f.tolerance + (double)info.error_bound);
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
    ferrum_buffer_t *x = layer_input(&f), *w = layer_weights(&f);
    ferrum_buffer_t *ids = layer_ids(&f), *out = cpu_output(&f, T * H);
    for (int half = 0; half < 2; half++) {
        const uint32_t first = half ? 2 : 0, count = half ? E - 2 : 2;
        ferrum_expert_weights_t roles[3];
        ferrum_expert_ffn_desc_t desc = layer.desc;
        ferrum_expert_ffn_t *ffn = NULL;
        for (int role = 0; role < 3; role++) {
            roles[role] = layer.roles[role];
            roles[role].gptq += first;
            roles[role].bias += first * layer_rows(role);
        }
        desc.gate = &roles[0];
        desc.up = &roles[1];
        desc.down = &roles[2];
        desc.first_expert = first;
        desc.local_experts = count;
        EXPECT_OK(MF->expert_ffn_create(f.device, &desc, &ffn, &err));
        forward(&f, ffn, x, ids, w, out, T, half ? FERRUM_FFN_ACCUMULATE : 0);
        double *wanted = layer_reference(&layer, cpu_floats(x), cpu_floats(w), 0, half ? E : 2);
        cpu_check_rows(cpu_floats(out), wanted, T, H, f.tolerance);
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
        if (layer_id(p) >= 0)
            dispatches[count++] = (ferrum_moe_dispatch_t){(uint32_t)layer_id(p), (uint32_t)p,
                                                          (uint32_t)(P - 1 - p), 1};
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
    for (int round = 0; round < 6; round++) {
        const int path = round % 3;
        layer_t layer;
        (round < 3 ? layer_init : layer_init_alike)(&layer, path == 2, false);
        ferrum_expert_ffn_t *ffn = NULL;
        EXPECT_OK(MF->expert_ffn_create(f.device, &layer.desc, &ffn, &err));
        ferrum_buffer_t *x = layer_input(&f), *w = layer_weights(&f);
        ferrum_buffer_t *ids = layer_ids(&f), *out = cpu_output(&f, T * H);
        ferrum_buffer_t *combined = cpu_output(&f, T * H), *hidden = cpu_output(&f, P * I);
        ferrum_buffer_t *slots = cpu_output(&f, P * H), *rows = cpu_output_i32(&f, P);
        forward(&f, ffn, x, ids, w, out, T, 0);
        if (path == 2)
            granular_gptq(&f, &layer, x, ids, hidden, slots);
        else
            granular_gguf(&f, &layer, x, ids, hidden, slots, path == 1);
        for (int p = 0; p < P; p++)
            cpu_ints(rows)[p] = layer_id(p) < 0 ? -1 : p;
        EXPECT_OK(MF->moe_combine(f.ctx, slots, rows, w, combined, T, H, K, P, &err));
        ck_assert_mem_eq(cpu_floats(combined), cpu_floats(out), T * H * 4);
        MF->expert_ffn_release(ffn);
        cpu_release(x, w, ids, out, combined, hidden, slots, rows, NULL);
        layer_free(&layer);
    }
    cpu_close(&f);
}
END_TEST

/** The T tokens, over and over: more rows than a core's cache takes. */
static void check_long_batch(cpu_fixture_t *f, ferrum_expert_ffn_t *ffn, const float *x,
                             const int32_t *ids, const float *w, const float *wanted)
{
    enum {
        TIMES = 8, /* 888 pairs of 896 bytes and more */
        MANY = T * TIMES
    };
    ferrum_buffer_t *all_x = cpu_output(f, MANY * H), *all_w = cpu_output(f, MANY * K);
    ferrum_buffer_t *all_ids = cpu_output_i32(f, MANY * K), *out = cpu_output(f, MANY * H);
    for (int i = 0; i < TIMES; i++) {
        memcpy(cpu_floats(all_x) + i * T * H, x, T * H * sizeof *x);
        memcpy(cpu_floats(all_w) + i * T * K, w, T * K * sizeof *w);
        memcpy(cpu_ints(all_ids) + i * T * K, ids, T * K * sizeof *ids);
    }
    forward(f, ffn, all_x, all_ids, all_w, out, MANY, 0);
    for (int i = 0; i < TIMES; i++)
        ck_assert_mem_eq(cpu_floats(out) + i * T * H, wanted, T * H * sizeof *wanted);
    cpu_check_guard(out, MANY * H);
    cpu_release(all_x, all_w, all_ids, out, NULL);
}

/** Some tokens, each on its own. */
static void check_single_tokens(cpu_fixture_t *f, ferrum_expert_ffn_t *ffn, const float *x,
                                const int32_t *ids, const float *w, const float *wanted)
{
    for (int t = 0; t < T; t += 3) {
        ferrum_buffer_t *row = cpu_f32(f, x + t * H, H);
        ferrum_buffer_t *own_ids = cpu_i32(f, ids + t * K, K), *own_w = cpu_f32(f, w + t * K, K);
        forward(f, ffn, row, own_ids, own_w, row, 1, 0);
        ck_assert_mem_eq(cpu_floats(row), wanted + t * H, H * sizeof *wanted);
        cpu_release(row, own_ids, own_w, NULL);
    }
}

/** _i: GPTQ or blocks; the widest kernels or scalar ones; precision; gate and up alike or not. */
START_TEST(bits_depend_on_neither_width_nor_batch)
{
    static const uint32_t widths[] = {1, 2, 3, 5};
    layer_t layer;
    float *first = malloc(T * H * sizeof *first);
    (_i / 8 ? layer_init_alike : layer_init)(&layer, _i % 2, true);
    layer.desc.precision = _i / 4 % 2 ? FERRUM_PRECISION_FAST : FERRUM_PRECISION_ACCURATE;
    for (int width = 0; width < 4; width++) {
        cpu_fixture_t f;
        cpu_open(&f, _i / 2 % 2 ? "scalar" : NULL, widths[width]);
        ferrum_expert_ffn_t *ffn = NULL;
        EXPECT_OK(MF->expert_ffn_create(f.device, &layer.desc, &ffn, &err));
        ferrum_buffer_t *x = layer_input(&f), *w = layer_weights(&f);
        ferrum_buffer_t *ids = layer_ids(&f), *out = cpu_output(&f, T * H);
        forward(&f, ffn, x, ids, w, out, T, 0);
        if (width == 0)
            memcpy(first, cpu_floats(out), T * H * sizeof *first);
        ck_assert_mem_eq(cpu_floats(out), first, T * H * sizeof *first);
        if (widths[width] == 2)
            check_single_tokens(&f, ffn, cpu_floats(x), cpu_ints(ids), cpu_floats(w), first);
        if (widths[width] == 3 && _i / 2 % 2 == 0)
            check_long_batch(&f, ffn, cpu_floats(x), cpu_ints(ids), cpu_floats(w), first);
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
    ferrum_buffer_t *x = layer_input(&f), *w = layer_weights(&f);
    ferrum_buffer_t *ids = layer_ids(&f), *out = cpu_output(&f, T * H);
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

    ferrum_buffer_t *x = layer_input(&f), *w = layer_weights(&f);
    ferrum_buffer_t *ids = layer_ids(&f), *out = cpu_output(&f, T * H);
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
    tcase_add_loop_test(tc, ffn_is_right_for_formats_and_activations, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, expert_ranges_add_up, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, granular_paths_give_the_same_bits, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, bits_depend_on_neither_width_nor_batch, 0, 16);
    tcase_add_test(tc, a_repeated_step_allocates_nothing);
    tcase_add_test(tc, bad_layers_and_calls_are_refused);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
