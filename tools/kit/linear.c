/* SPDX-License-Identifier: MIT */
/* Linear layers of every weight format, against the suite's own decoder. */
#include "tools/kit/kit.h"

#include <stdio.h>
#include <string.h>

static void release_linear(cf_suite_t *suite, void *object)
{
    suite->ql->linear->release(object);
}

/* The answer of `supports` and the loader's must agree. */
static bool loaded(cf_suite_t *suite, const ferrum_problem_t *problem, ferrum_status_t status,
                   const ferrum_error_t *err)
{
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_status_t asked = suite->ql->supports(suite->device, problem, &why);
    if (asked == FERRUM_OK && status == FERRUM_UNSUPPORTED)
        cf_fail(suite, "supports says yes, the loader refuses: %s", err->message);
    if (asked != FERRUM_OK && status == FERRUM_OK && why.reason != FERRUM_REASON_NOT_IMPLEMENTED)
        cf_fail(suite, "supports refuses, the loader takes it: %s", why.message);
    return cf_ok(suite, status, err);
}

static void own_linear(cf_suite_t *suite, ferrum_linear_t *linear)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
    cf_own(suite, linear, release_linear);
    if (cf_ok(suite, suite->ql->linear->info(linear, &info, &err), &err))
        cf_state_error(suite, (double)info.error_bound);
}

static void check_forward(cf_suite_t *suite, const ferrum_linear_t *linear,
                          const cf_weights_t *weights, uint32_t m, double factor)
{
    enum {
        X_OFFSET = 7,
        Y_OFFSET = 3
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t n = weights->rows, k = weights->cols;
    cf_tensor_t x = cf_input(suite, X_OFFSET + m * k, 1), y = cf_output(suite, Y_OFFSET + m * n);
    double *reference = cf_memory(suite, y.count * sizeof *reference);
    memcpy(reference, y.v, Y_OFFSET * sizeof *reference);
    for (uint32_t t = 0; t < m; t++)
        cf_ref_matvec(weights, 0, x.v + X_OFFSET + t * k, reference + Y_OFFSET + t * n);
    if (!cf_ok(suite,
               suite->ql->linear->forward(suite->ctx, linear, x.buffer, X_OFFSET, y.buffer,
                                          Y_OFFSET, m, &err),
               &err))
        return;
    cf_read(suite, &y);
    for (int i = 0; i < Y_OFFSET; i++)
        if (y.v[i] != reference[i])
            cf_fail(suite, "wrote before its output offset");
    cf_tensor_t rows = {y.buffer, y.count, y.v};
    /* Compare behind the offset row by row. */
    for (uint32_t t = 0; t < m; t++) {
        double diff = 0, norm = 0;
        for (uint64_t i = 0; i < n; i++) {
            double r = reference[Y_OFFSET + t * n + i], d = rows.v[Y_OFFSET + t * n + i] - r;
            diff += d * d;
            norm += r * r;
        }
        if (!(sqrt(diff) <= (factor * suite->tolerance + suite->stated) * sqrt(norm) + 1e-6)) {
            cf_fail(suite, "row %u of %u is off by %.3g of %.3g", t, m, sqrt(diff), sqrt(norm));
            return;
        }
    }
}

static void block_case(cf_suite_t *suite, ferrum_weight_format_t format, uint32_t n, uint32_t k,
                       uint32_t m)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_t *linear = NULL;
    cf_begin(suite, "load_quant %s n=%u k=%u m=%u", traits->name, n, k, m);
    cf_weights_t weights = cf_random_blocks(suite, format, 1, n, k);
    ferrum_problem_t problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                .kind = FERRUM_PROBLEM_LINEAR,
                                .format = format,
                                .k = k,
                                .n = n,
                                .activation_dtype = suite->info.activation_dtype};
    ferrum_status_t status =
        suite->ql->load_quant(suite->device, &weights.gguf, NULL, &linear, &err);
    if (loaded(suite, &problem, status, &err)) {
        own_linear(suite, linear);
        ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
        if (cf_ok(suite, suite->ql->linear->info(linear, &info, &err), &err) &&
            (info.in_features != k || info.out_features != n || info.format != format))
            cf_fail(suite, "info says %ux%u format %u", info.out_features, info.in_features,
                    info.format);
        check_forward(suite, linear, &weights, m, 4);
    }
    cf_end(suite);
}

static void bias_and_fused_cases(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_t *linear = NULL;
    enum {
        N1 = 24,
        N2 = 40,
        K = 256,
        M = 3
    };
    cf_begin(suite, "load_quant with a bias");
    cf_weights_t a = cf_random_blocks(suite, FERRUM_FORMAT_Q8_0, 1, N1, K);
    float bias[N1];
    for (int i = 0; i < N1; i++)
        bias[i] = (float)cf_uniform(suite);
    cf_tensor_t x = cf_input(suite, M * K, 1), y = cf_output(suite, M * N1);
    double reference[M * (N1 + N2)];
    for (int t = 0; t < M; t++) {
        cf_ref_matvec(&a, 0, x.v + t * K, reference + t * N1);
        for (int i = 0; i < N1; i++)
            reference[t * N1 + i] += (double)bias[i];
    }
    if (cf_ok(suite, suite->ql->load_quant(suite->device, &a.gguf, bias, &linear, &err), &err)) {
        own_linear(suite, linear);
        if (cf_ok(suite,
                  suite->ql->linear->forward(suite->ctx, linear, x.buffer, 0, y.buffer, 0, M, &err),
                  &err))
            cf_expect_rows(suite, &y, reference, N1, 4);
    }
    cf_end(suite);

    cf_begin(suite, "load_quant_fused of q4_k and q6_k rows");
    a = cf_random_blocks(suite, FERRUM_FORMAT_Q4_K, 1, N1, K);
    cf_weights_t b = cf_random_blocks(suite, FERRUM_FORMAT_Q6_K, 1, N2, K);
    const ferrum_gguf_weights_t *parts[2] = {&a.gguf, &b.gguf};
    x = cf_input(suite, M * K, 1), y = cf_output(suite, M * (N1 + N2));
    for (int t = 0; t < M; t++) {
        cf_ref_matvec(&a, 0, x.v + t * K, reference + t * (N1 + N2));
        cf_ref_matvec(&b, 0, x.v + t * K, reference + t * (N1 + N2) + N1);
    }
    if (cf_ok(suite, suite->ql->load_quant_fused(suite->device, parts, 2, &linear, &err), &err)) {
        own_linear(suite, linear);
        if (cf_ok(suite,
                  suite->ql->linear->forward(suite->ctx, linear, x.buffer, 0, y.buffer, 0, M, &err),
                  &err))
            cf_expect_rows(suite, &y, reference, N1 + N2, 4);
    }
    cf_end(suite);
}

/* Descriptors that lie about themselves. */
static void bad_block_cases(cf_suite_t *suite)
{
    static const struct {
        const char *what;
        uint32_t rows, cols;
        int64_t extra_bytes;
        ferrum_weight_format_t format;
        uint32_t flags;
        ferrum_status_t expected;
    } bad[] = {
        {"too few bytes", 8, 256, -1, FERRUM_FORMAT_Q4_K, 0, FERRUM_INVALID_ARGUMENT},
        {"too many bytes", 8, 256, 1, FERRUM_FORMAT_Q4_K, 0, FERRUM_INVALID_ARGUMENT},
        {"an unknown format", 8, 256, 0, 77, 0, FERRUM_UNSUPPORTED},
        {"an unknown flag", 8, 256, 0, FERRUM_FORMAT_Q4_K, 1u << 20, FERRUM_INVALID_ARGUMENT},
        {"a shape that overflows", UINT32_MAX, 0xffffff00u, 0, FERRUM_FORMAT_Q4_K, 0,
         FERRUM_INVALID_ARGUMENT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_linear_t *linear = NULL;
        cf_begin(suite, "load_quant with %s", bad[i].what);
        cf_weights_t weights = cf_random_blocks(suite, FERRUM_FORMAT_Q4_K, 1, 8, 256);
        weights.gguf.rows = bad[i].rows;
        weights.gguf.cols = bad[i].cols;
        weights.gguf.format = bad[i].format;
        weights.gguf.flags = bad[i].flags;
        weights.gguf.bytes = (uint64_t)((int64_t)weights.gguf.bytes + bad[i].extra_bytes);
        ferrum_status_t status =
            suite->ql->load_quant(suite->device, &weights.gguf, NULL, &linear, &err);
        cf_expect_error(suite, status, bad[i].expected, &err);
        if (linear != NULL)
            cf_fail(suite, "a failing loader wrote its output");
        cf_end(suite);
    }
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_t *linear = NULL;
    cf_begin(suite, "load_quant with a row that is not whole blocks");
    cf_weights_t weights = cf_random_blocks(suite, FERRUM_FORMAT_Q4_K, 1, 8, 256);
    weights.gguf.rows = 16;
    weights.gguf.cols = 128;
    ferrum_status_t status =
        suite->ql->load_quant(suite->device, &weights.gguf, NULL, &linear, &err);
    if (status == FERRUM_OK)
        cf_fail(suite, "a matrix with half blocks was taken");
    cf_end(suite);
}

void cf_group_linear(cf_suite_t *suite)
{
    static const uint32_t tokens[] = {0, 1, 2, 9, 33};
    for (size_t f = 0; f < cf_format_count; f++) {
        for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
            block_case(suite, cf_formats[f], 32, 256, tokens[i]);
        block_case(suite, cf_formats[f], 1, 512, 1);
        block_case(suite, cf_formats[f], 67, 768, 3);
    }
    bias_and_fused_cases(suite);
    bad_block_cases(suite);
}

static void describe(const cf_gptq_kind_t *kind, char *out, size_t size)
{
    snprintf(out, size, "%u-bit group %u %s%s zeros %s scales %s%s", kind->bits, kind->group_size,
             kind->symmetric ? "sym" : "asym", kind->act_order ? " act-order" : "",
             kind->convention == FERRUM_ZERO_STORED ? "v2" : "v1",
             ferrum_dtype_name(kind->scales_dtype), kind->bias ? " bias" : "");
}

static void gptq_case(cf_suite_t *suite, const cf_gptq_kind_t *kind, uint32_t n, uint32_t k,
                      uint32_t m)
{
    char text[96];
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_t *linear = NULL;
    describe(kind, text, sizeof text);
    cf_begin(suite, "load_gptq %s n=%u k=%u m=%u", text, n, k, m);
    cf_weights_t weights = cf_random_gptq(suite, kind, 1, n, k);
    ferrum_problem_t problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                .kind = FERRUM_PROBLEM_LINEAR,
                                .format = FERRUM_FORMAT_GPTQ,
                                .bits = kind->bits,
                                .group_size = kind->group_size,
                                .act_order = kind->act_order,
                                .asymmetric = !kind->symmetric,
                                .k = k,
                                .n = n,
                                .has_bias = kind->bias,
                                .activation_dtype = suite->info.activation_dtype};
    ferrum_status_t status = suite->ql->load_gptq(suite->device, &weights.gptq[0], &linear, &err);
    if (loaded(suite, &problem, status, &err)) {
        own_linear(suite, linear);
        check_forward(suite, linear, &weights, m, 4);
    }
    cf_end(suite);
}

static void bad_gptq_cases(cf_suite_t *suite)
{
    static const cf_gptq_kind_t kind = {
        4, 32, false, true, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false};
    static const char *const what[] = {"a group size that does not divide K",
                                       "a g_idx entry out of range",
                                       "g_idx of the wrong length",
                                       "5 bits",
                                       "too few codes",
                                       "no codes at all"};
    for (int i = 0; i < 6; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_linear_t *linear = NULL;
        cf_begin(suite, "load_gptq with %s", what[i]);
        cf_weights_t weights = cf_random_gptq(suite, &kind, 1, 64, 128);
        ferrum_gptq_t bad = weights.gptq[0];
        int32_t indices[128];
        memcpy(indices, bad.g_idx, sizeof indices);
        ferrum_status_t expected = FERRUM_INVALID_ARGUMENT;
        if (i == 0)
            bad.group_size = 48;
        else if (i == 1)
            indices[77] = 4, bad.g_idx = indices, expected = FERRUM_INVALID_INPUT;
        else if (i == 2)
            bad.g_idx_count = 127;
        else if (i == 3)
            bad.bits = 5, expected = FERRUM_UNSUPPORTED;
        else if (i == 4)
            bad.qweight_count--;
        else
            bad.qweight = NULL;
        ferrum_status_t status = suite->ql->load_gptq(suite->device, &bad, &linear, &err);
        /* A backend may call a group size or a code width unsupported rather than invalid. */
        if (status != FERRUM_UNSUPPORTED)
            cf_expect_error(suite, status, expected, &err);
        if (linear != NULL)
            cf_fail(suite, "a failing loader wrote its output");
        cf_end(suite);
    }
}

void cf_group_gptq(cf_suite_t *suite)
{
    static const uint32_t groups[] = {32, 64, 128, 0};
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (size_t g = 0; g < 4; g++)
            for (int variant = 0; variant < 8; variant++) {
                cf_gptq_kind_t kind = {bits,
                                       groups[g],
                                       (variant & 1) == 0,
                                       (variant & 2) != 0,
                                       variant & 4 ? FERRUM_ZERO_STORED
                                                   : FERRUM_ZERO_STORED_MINUS_ONE,
                                       FERRUM_DTYPE_F16,
                                       variant == 7};
                gptq_case(suite, &kind, 64, 256, 1 + (uint32_t)variant % 3);
            }
    static const cf_gptq_kind_t other = {
        4, 64, false, true, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F32, true};
    static const cf_gptq_kind_t brain = {
        8, 128, false, false, FERRUM_ZERO_STORED, FERRUM_DTYPE_BF16, false};
    gptq_case(suite, &other, 128, 384, 17);
    gptq_case(suite, &brain, 192, 128, 40);
    bad_gptq_cases(suite);
}
