/* SPDX-License-Identifier: MIT */
/* Linear in every weight format, fused parts, GPTQ variants, views of a stack, refusals. */
#include "tests/cpu/fixture.h"
#include "tests/cpu/weights.h"

#include <ferrum/util.h>

#include <math.h>
#include <stdlib.h>

/* Packed weights have 16-bit activations; the shapes here are too small to average that out. */
static const ferrum_weight_format_t formats[] = {
    FERRUM_FORMAT_F32,  FERRUM_FORMAT_F16,    FERRUM_FORMAT_BF16,   FERRUM_FORMAT_Q4_0,
    FERRUM_FORMAT_Q4_1, FERRUM_FORMAT_Q5_0,   FERRUM_FORMAT_Q5_1,   FERRUM_FORMAT_Q8_0,
    FERRUM_FORMAT_Q2_K, FERRUM_FORMAT_Q3_K,   FERRUM_FORMAT_Q4_K,   FERRUM_FORMAT_Q5_K,
    FERRUM_FORMAT_Q6_K, FERRUM_FORMAT_IQ4_NL, FERRUM_FORMAT_IQ4_XS, FERRUM_FORMAT_MXFP4};
enum {
    FORMATS = sizeof formats / sizeof formats[0]
};

/** forward of @p m tokens from an offset equals W x in f64. */
static void check_linear(cpu_fixture_t *f, const ferrum_linear_t *linear, const double *w,
                         uint32_t n, uint32_t k, const float *bias, uint32_t m)
{
    ferrum_buffer_t *x = cpu_random_f32(f, 77, 5 + (size_t)m * k);
    ferrum_buffer_t *y = cpu_output(f, 3 + (size_t)m * n);
    double *wanted = malloc((size_t)m * n * sizeof *wanted);
    for (uint32_t t = 0; t < m; t++)
        test_product(w, n, k, cpu_floats(x) + 5 + (size_t)t * k, bias, wanted + (size_t)t * n);
    EXPECT_OK(QL->linear->forward(f->ctx, linear, x, 5, y, 3, m, &err));
    cpu_check_rows(cpu_floats(y) + 3, wanted, m, n, f->tolerance);
    cpu_check_guard(y, 3 + (size_t)m * n);
    ck_assert_int_eq(cpu_ints(y)[2], 0x4b1d4b1d);
    EXPECT_FAILS(QL->linear->forward(f->ctx, linear, x, 6, y, 3, m, &err), FERRUM_INVALID_ARGUMENT,
                 "forward: x");
    free(wanted);
    cpu_release(x, y, NULL);
}

START_TEST(every_block_format)
{
    cpu_fixture_t f;
    cpu_open_config(&f, _i % CPU_CONFIGS);
    for (size_t i = 0; i < FORMATS; i++)
        for (uint32_t mapped = 0; mapped <= 1; mapped++) {
            /* A remainder, and whole panels of rows. */
            const uint32_t n = mapped ? 67 : 80;
            test_blocks_t blocks = test_blocks_new(formats[i], 1, n, 512, 5 + i);
            ferrum_linear_t *linear = NULL;
            blocks.desc.flags = mapped ? FERRUM_WEIGHTS_MAPPED : 0;
            float *bias = mapped ? cpu_random_values(3, n) : NULL;
            EXPECT_OK(QL->load_quant(f.device, &blocks.desc, bias, &linear, &err));
            ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
            EXPECT_OK(QL->linear->info(linear, &info, &err));
            ck_assert_uint_eq(info.in_features, 512);
            ck_assert_uint_eq(info.out_features, n);
            ck_assert_uint_eq(info.format, formats[i]);
            if (mapped)
                ck_assert_uint_eq(info.bytes, n * sizeof(float));
            else /* panels carry a few scales more than the file does */
                ck_assert(info.bytes >= blocks.desc.bytes &&
                          info.bytes <= blocks.desc.bytes + blocks.desc.bytes / 10);
            if (!mapped)
                memset(blocks.data, 0xff, blocks.desc.bytes); /* borrowed during the call only */
            check_linear(&f, linear, blocks.values, n, 512, bias, mapped ? 1 : 37);
            QL->linear->release(linear);
            free(bias);
            test_blocks_free(&blocks);
        }
    cpu_close(&f);
}
END_TEST

/** A fused Linear of three parts, for one token and for many. */
static void check_fused(cpu_fixture_t *f, const ferrum_weight_format_t kinds[3],
                        const uint32_t rows[3])
{
    enum {
        COLS = 256
    };
    test_blocks_t parts[3];
    const ferrum_gguf_weights_t *descs[3];
    uint32_t n = 0;
    double *w = malloc((rows[0] + rows[1] + rows[2]) * COLS * sizeof *w);
    for (size_t i = 0; i < 3; n += rows[i], i++) {
        parts[i] = test_blocks_new(kinds[i], 1, rows[i], COLS, i);
        descs[i] = &parts[i].desc;
        memcpy(w + n * COLS, parts[i].values, rows[i] * COLS * sizeof *w);
    }
    ferrum_linear_t *linear = NULL;
    EXPECT_OK(QL->load_quant_fused(f->device, descs, 3, &linear, &err));
    check_linear(f, linear, w, n, COLS, NULL, 1);
    check_linear(f, linear, w, n, COLS, NULL, 70);
    QL->linear->retain(linear);
    QL->linear->release(linear);
    QL->linear->release(linear);
    linear = NULL;
    parts[1].desc.cols = 512;
    EXPECT_FAILS(QL->load_quant_fused(f->device, descs, 3, &linear, &err), FERRUM_INVALID_ARGUMENT,
                 "part 1 has 512");
    EXPECT_FAILS(QL->load_quant_fused(f->device, descs, 0, &linear, &err), FERRUM_INVALID_ARGUMENT,
                 "0 parts");
    ck_assert_ptr_null(linear);
    for (size_t i = 0; i < 3; i++)
        test_blocks_free(&parts[i]);
    free(w);
}

START_TEST(fused_parts_of_different_formats)
{
    static const ferrum_weight_format_t odd[] = {FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K,
                                                 FERRUM_FORMAT_F16};
    static const ferrum_weight_format_t whole[] = {FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K,
                                                   FERRUM_FORMAT_Q8_0};
    static const uint32_t odd_rows[] = {130, 7, 33}, whole_rows[] = {144, 16, 32};
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    check_fused(&f, odd, odd_rows);
    check_fused(&f, whole, whole_rows);
    cpu_close(&f);
}
END_TEST

/** What is not a number must show in the output, not vanish in a quantiser. */
START_TEST(non_finite_inputs_show)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const ferrum_weight_format_t kinds[] = {FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q8_0};
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    for (size_t i = 0; i < 6; i++) {
        test_blocks_t blocks = test_blocks_new(kinds[i % 2], 1, 16, 256, i);
        ferrum_linear_t *linear = NULL;
        ferrum_buffer_t *x = cpu_random_f32(&f, 1, 256), *y = cpu_output(&f, 16);
        cpu_floats(x)[i * 50] = bad[i / 2];
        EXPECT_OK(QL->load_quant(f.device, &blocks.desc, NULL, &linear, &err));
        EXPECT_OK(QL->linear->forward(f.ctx, linear, x, 0, y, 0, 1, &err));
        for (int r = 0; r < 16; r++)
            ck_assert(!isfinite(cpu_floats(y)[r]));
        QL->linear->release(linear);
        test_blocks_free(&blocks);
        cpu_release(x, y, NULL);
    }
    cpu_close(&f);
}
END_TEST

static const test_gptq_shape_t shapes[] = {
    {.bits = 4, .group_size = 32, .k = 128, .n = 72},
    {.bits = 4,
     .group_size = 64,
     .k = 256,
     .n = 40,
     .asymmetric = true,
     .scales_dtype = FERRUM_DTYPE_F16},
    {.bits = 4,
     .group_size = 128,
     .k = 256,
     .n = 8,
     .asymmetric = true,
     .zero_convention = FERRUM_ZERO_STORED,
     .scales_dtype = FERRUM_DTYPE_BF16},
    {.bits = 4, .group_size = 0, .k = 104, .n = 33, .bias = true},
    {.bits = 4, .group_size = 20, .k = 120, .n = 16, .asymmetric = true, .bias = true},
    {.bits = 4, .group_size = 32, .k = 128, .n = 136, .asymmetric = true, .act_order = true},
    {.bits = 4, .group_size = 64, .k = 256, .n = 16, .act_order = true, .ragged = true},
    {.bits = 8, .group_size = 32, .k = 96, .n = 28, .asymmetric = true},
    {.bits = 8, .group_size = 0, .k = 64, .n = 140, .act_order = true},
    {.bits = 8,
     .group_size = 16,
     .k = 64,
     .n = 12,
     .asymmetric = true,
     .zero_convention = FERRUM_ZERO_STORED,
     .act_order = true}};
enum {
    SHAPES = sizeof shapes / sizeof shapes[0]
};

START_TEST(every_gptq_variant)
{
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    for (size_t i = 0; i < SHAPES; i++)
        for (uint32_t mapped = 0; mapped <= 1; mapped++) {
            test_gptq_t gptq = test_gptq_new(&shapes[i], 9 + i);
            ferrum_linear_t *linear = NULL;
            gptq.desc.flags = mapped ? FERRUM_WEIGHTS_MAPPED : 0;
            EXPECT_OK(QL->load_gptq(f.device, &gptq.desc, &linear, &err));
            ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
            EXPECT_OK(QL->linear->info(linear, &info, &err));
            ck_assert_uint_eq(info.bits, shapes[i].bits);
            ck_assert_uint_eq(info.format, FERRUM_FORMAT_GPTQ);
            const size_t codes = gptq.desc.qweight_count * 4;
            /* Scales as f32, zeros as bytes, group ends; the codes only if they are not in place.
             */
            const uint64_t cells = gptq.desc.scales_count;
            const bool holds_codes = info.bytes >= codes + cells * 5;
            const bool sorted = shapes[i].act_order && shapes[i].group_size;
            ck_assert_int_eq(holds_codes, !mapped || sorted);
            if (!mapped)
                memset(gptq.arrays[0], 0xff, codes);
            check_linear(&f, linear, gptq.values, shapes[i].n, shapes[i].k, gptq.desc.bias,
                         mapped ? 1 : 35);
            QL->linear->release(linear);
            test_gptq_free(&gptq);
        }
    cpu_close(&f);
}
END_TEST

START_TEST(arrays_may_lie_at_any_address)
{
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    test_gptq_t gptq = test_gptq_new(&shapes[1], 4);
    char *moved = malloc(gptq.desc.qweight_count * 4 + 1);
    memcpy(moved + 1, gptq.arrays[0], gptq.desc.qweight_count * 4);
    gptq.desc.qweight = (const int32_t *)(const void *)(moved + 1);
    gptq.desc.flags = FERRUM_WEIGHTS_MAPPED;
    ferrum_linear_t *linear = NULL;
    EXPECT_OK(QL->load_gptq(f.device, &gptq.desc, &linear, &err));
    check_linear(&f, linear, gptq.values, shapes[1].n, shapes[1].k, NULL, 2);
    QL->linear->release(linear);
    free(moved);
    test_gptq_free(&gptq);
    cpu_close(&f);
}
END_TEST

START_TEST(views_are_columns_of_a_stack)
{
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    const test_gptq_shape_t shape = {
        .bits = 4, .group_size = 32, .k = 64, .n = 48, .asymmetric = true, .act_order = true};
    test_gptq_t experts[3];
    const ferrum_gptq_t *descs[3];
    for (size_t e = 0; e < 3; e++) {
        experts[e] = test_gptq_new(&shape, 50 + e);
        descs[e] = &experts[e].desc;
    }
    ferrum_marlin_stack_t *stack = NULL;
    ferrum_linear_t *view = NULL, *none = NULL;
    float *bias = cpu_random_values(8, 24);
    EXPECT_OK(QL->load_gptq_stacked(f.device, descs, 3, &stack, &err));
    EXPECT_FAILS(QL->marlin_stack->make_expert_linear(stack, 40, 24, NULL, &none, &err),
                 FERRUM_INVALID_ARGUMENT, "one of 3 experts of 48");
    EXPECT_FAILS(QL->marlin_stack->make_expert_linear(stack, UINT64_MAX, 1, NULL, &none, &err),
                 FERRUM_INVALID_ARGUMENT, "columns");
    ck_assert_ptr_null(none);
    EXPECT_OK(QL->marlin_stack->make_expert_linear(stack, 48 + 17, 24, bias, &view, &err));
    QL->marlin_stack->release(stack); /* the view keeps it */
    check_linear(&f, view, experts[1].values + 17 * 64, 24, 64, bias, 5);
    ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
    EXPECT_OK(QL->linear->info(view, &info, &err));
    ck_assert_uint_eq(info.bytes, 24 * sizeof(float));
    QL->linear->release(view);
    free(bias);
    for (size_t e = 0; e < 3; e++)
        test_gptq_free(&experts[e]);
    cpu_close(&f);
}
END_TEST

START_TEST(bad_blocks_are_refused)
{
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    test_blocks_t blocks = test_blocks_new(FERRUM_FORMAT_Q4_K, 1, 4, 256, 5);
    ferrum_gguf_weights_t w = blocks.desc;
    ferrum_linear_t *linear = NULL;
#define LOAD() QL->load_quant(f.device, &w, NULL, &linear, &err)
    w.format = 99;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "99");
    w.format = FERRUM_FORMAT_GPTQ;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "4096");
    w = blocks.desc;
    w.cols = 128;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "multiple of 256 inputs, not 128");
    w = blocks.desc;
    w.bytes--;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "take 576 bytes, not 575");
    w = blocks.desc;
    w.rows = w.cols = 0xffffff00u;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "bytes");
    w = blocks.desc;
    w.experts = 2;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "load_quant_experts");
    w = blocks.desc;
    w.flags = 6;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "0x6");
    w = blocks.desc;
    w.data = NULL;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "data is NULL");
    w = blocks.desc;
    w.rows = 0;
    w.bytes = 0;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "empty");
    w.head.size = 8;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "FERRUM_HEAD");
    ck_assert_ptr_null(linear);
    test_blocks_free(&blocks);
    cpu_close(&f);
}
END_TEST

START_TEST(bad_gptq_is_refused)
{
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    const test_gptq_shape_t shape = {
        .bits = 8, .group_size = 32, .k = 64, .n = 12, .asymmetric = true, .act_order = true};
    test_gptq_t gptq = test_gptq_new(&shape, 4);
    ferrum_gptq_t w = gptq.desc;
    ferrum_linear_t *linear = NULL;
#undef LOAD
#define LOAD() QL->load_gptq(f.device, &w, &linear, &err)
    w.bits = 3;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "not 3");
    w = gptq.desc;
    w.group_size = 24;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "24 does not divide 64");
    w = gptq.desc;
    w.k = 63;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "multiple of 4 inputs");
    w = gptq.desc;
    w.n = 11;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "multiple of 4 outputs");
    w = gptq.desc;
    w.qweight_count--;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "qweight has 191");
    w = gptq.desc;
    w.scales_dtype = FERRUM_DTYPE_I8;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "i8");
    w = gptq.desc;
    w.zero_convention = 2;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_ARGUMENT, "convention 2");
    w = gptq.desc;
    ((int32_t *)gptq.arrays[3])[9] = 2;
    EXPECT_FAILS(LOAD(), FERRUM_INVALID_INPUT, "g_idx[9] is 2");
    ((int32_t *)gptq.arrays[3])[9] = 1;
    /* Zero code 255 is 256 under one convention and fits under the other. */
    uint32_t *word = (uint32_t *)gptq.arrays[1] + 4;
    *word |= 0xff0000u;
    EXPECT_FAILS(LOAD(), FERRUM_UNSUPPORTED, "qzeros[4]");
    w.zero_convention = FERRUM_ZERO_STORED;
    EXPECT_OK(LOAD());
    QL->linear->release(linear);
    linear = NULL;
    ck_assert_ptr_null(linear);

    const ferrum_gptq_t *pair[] = {&gptq.desc, &w};
    ferrum_marlin_stack_t *stack = NULL;
    EXPECT_FAILS(QL->load_gptq_stacked(f.device, pair, 0, &stack, &err), FERRUM_INVALID_ARGUMENT,
                 "no GPTQ matrices");
    *word &= ~0x10000u;
    EXPECT_FAILS(QL->load_gptq_stacked(f.device, pair, 2, &stack, &err), FERRUM_INVALID_ARGUMENT,
                 "matrix 1");
    ck_assert_ptr_null(stack);
    test_gptq_free(&gptq);
    cpu_close(&f);
}
END_TEST

START_TEST(supports_agrees_with_loaders)
{
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_problem_t p = {.head = FERRUM_HEAD(ferrum_problem_t), .k = 512, .n = 64};
    for (size_t i = 0; i < FORMATS; i++) {
        p.format = p.format_down = formats[i];
        for (p.kind = FERRUM_PROBLEM_LINEAR; p.kind <= FERRUM_PROBLEM_STACKED_EXPERTS; p.kind++)
            EXPECT_OK(QL->supports(f.device, &p, &err));
        ferrum_error_t e = FERRUM_ERROR_INIT;
        p.kind = FERRUM_PROBLEM_LINEAR;
        p.k = 31;
        if (ferrum_format_traits(formats[i])->block_values > 1) {
            ck_assert_int_eq(MF->supports(f.device, &p, &e), FERRUM_UNSUPPORTED);
            ck_assert_uint_eq(e.reason, FERRUM_REASON_K);
        }
        p.k = 512;
    }
    static const struct {
        ferrum_problem_t problem;
        ferrum_reason_t reason;
    } no[] = {
        {{.kind = FERRUM_PROBLEM_LINEAR, .format = 16}, FERRUM_REASON_FORMAT},
        {{.kind = FERRUM_PROBLEM_LINEAR, .format = FERRUM_FORMAT_GPTQ, .bits = 2},
         FERRUM_REASON_BITS},
        {{.kind = FERRUM_PROBLEM_MARLIN_STACK, .bits = 4, .k = 64, .group_size = 48},
         FERRUM_REASON_GROUP_SIZE},
        {{.kind = FERRUM_PROBLEM_MARLIN_STACK, .format = FERRUM_FORMAT_Q4_K}, FERRUM_REASON_FORMAT},
        {{.kind = FERRUM_PROBLEM_STACKED_EXPERTS, .format = FERRUM_FORMAT_GPTQ},
         FERRUM_REASON_FORMAT},
        {{.kind = FERRUM_PROBLEM_EXPERT_FFN,
          .format = FERRUM_FORMAT_F32,
          .k = 64,
          .n = 48,
          .format_down = FERRUM_FORMAT_Q8_0},
         FERRUM_REASON_K},
        {{.kind = FERRUM_PROBLEM_EXPERT_FFN, .activation = 3}, FERRUM_REASON_ACTIVATION},
        {{.kind = FERRUM_PROBLEM_EXPERT_FFN, .precision = 3}, FERRUM_REASON_PRECISION},
        {{.kind = FERRUM_PROBLEM_ROUTE, .experts = 4, .top_k = 5}, FERRUM_REASON_TOP_K},
        {{.kind = FERRUM_PROBLEM_ROUTE, .score_function = 3}, FERRUM_REASON_ROUTING},
        {{.kind = FERRUM_PROBLEM_ROUTE, .experts = 9, .num_groups = 2}, FERRUM_REASON_ROUTING},
        {{.kind = FERRUM_PROBLEM_PAGED_ATTENTION, .head_dim = 6, .kv_layout = 1},
         FERRUM_REASON_HEAD_DIM},
        {{.kind = FERRUM_PROBLEM_PAGED_ATTENTION, .kv_layout = 2}, FERRUM_REASON_LAYOUT},
        {{.kind = FERRUM_PROBLEM_LINEAR, .activation_dtype = FERRUM_DTYPE_F16},
         FERRUM_REASON_DTYPE},
        {{.kind = FERRUM_PROBLEM_GRAPH}, FERRUM_REASON_NOT_IMPLEMENTED},
        {{.kind = 99}, FERRUM_REASON_OTHER}};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        ferrum_problem_t problem = no[i].problem;
        ferrum_error_t e = FERRUM_ERROR_INIT;
        problem.head = (ferrum_head_t)FERRUM_HEAD(ferrum_problem_t);
        ck_assert_int_eq(QL->supports(f.device, &problem, &e), FERRUM_UNSUPPORTED);
        ck_assert_msg(e.reason == no[i].reason, "problem %zu: reason %u, not %u: %s", i, e.reason,
                      no[i].reason, e.message);
    }
    p = (ferrum_problem_t){.head = FERRUM_HEAD(ferrum_problem_t),
                           .kind = FERRUM_PROBLEM_EXPERT_FFN,
                           .format = FERRUM_FORMAT_GPTQ,
                           .format_down = FERRUM_FORMAT_Q6_K,
                           .bits = 8,
                           .group_size = 64,
                           .act_order = 1,
                           .asymmetric = 1,
                           .k = 128,
                           .n = 256,
                           .experts = 8,
                           .top_k = 2,
                           .activation = 2,
                           .has_bias = 1,
                           .precision = 2};
    EXPECT_OK(MF->supports(f.device, &p, &err));
    p.kind = FERRUM_PROBLEM_ALIGN;
    EXPECT_OK(MF->supports(f.device, &p, &err));
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu linear layers");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, every_block_format, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, fused_parts_of_different_formats, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, non_finite_inputs_show, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, every_gptq_variant, 0, CPU_CONFIGS);
    tcase_add_test(tc, arrays_may_lie_at_any_address);
    tcase_add_loop_test(tc, views_are_columns_of_a_stack, 0, CPU_CONFIGS);
    tcase_add_test(tc, bad_blocks_are_refused);
    tcase_add_test(tc, bad_gptq_is_refused);
    tcase_add_test(tc, supports_agrees_with_loaders);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
