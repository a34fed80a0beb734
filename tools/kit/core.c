/* SPDX-License-Identifier: MIT */
/* The core transformer ops except attention, and what they refuse. */
#include "tools/kit/kit.h"

#include <string.h>

static const uint32_t row_counts[] = {0, 1, 3, 33};
static const uint32_t widths[] = {1, 5, 16, 63, 256};

#define EACH(index, array)                                                                         \
    for (size_t index = 0; index < sizeof(array) / sizeof((array)[0]); index++)

static void norm_cases(cf_suite_t *suite, uint32_t tokens, uint32_t dim)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t count = (uint64_t)tokens * dim;
    cf_begin(suite, "rms_norm tokens=%u dim=%u", tokens, dim);
    cf_tensor_t x = cf_input(suite, count, 3), w = cf_input(suite, dim, 1);
    cf_tensor_t out = cf_output(suite, count), add = cf_input(suite, count, 2);
    double *reference = cf_memory(suite, count * sizeof *reference);
    for (uint32_t t = 0; t < tokens; t++)
        cf_ref_rms_norm(x.v + (size_t)t * dim, w.v, 1e-6, reference + (size_t)t * dim, dim);
    if (cf_ok(suite,
              suite->be->rms_norm(suite->ctx, x.buffer, w.buffer, 1e-6F, out.buffer, tokens, dim,
                                  &err),
              &err))
        cf_expect_rows(suite, &out, reference, dim, 1);
    cf_end(suite);

    cf_begin(suite, "fused_add_rms_norm tokens=%u dim=%u", tokens, dim);
    x = cf_input(suite, count, 3);
    w = cf_input(suite, dim, 1);
    out = cf_output(suite, count);
    add = cf_input(suite, count, 2);
    double *sum = cf_memory(suite, count * sizeof *sum);
    reference = cf_memory(suite, count * sizeof *reference);
    for (uint64_t i = 0; i < count; i++)
        sum[i] = x.v[i] + add.v[i];
    for (uint32_t t = 0; t < tokens; t++)
        cf_ref_rms_norm(sum + (size_t)t * dim, w.v, 1e-5, reference + (size_t)t * dim, dim);
    if (cf_ok(suite,
              suite->be->fused_add_rms_norm(suite->ctx, x.buffer, add.buffer, w.buffer, 1e-5F,
                                            out.buffer, tokens, dim, &err),
              &err)) {
        cf_expect_rows(suite, &x, sum, dim, 1);
        cf_expect_rows(suite, &out, reference, dim, 2); /* the stored sum is rounded too */
    }
    cf_end(suite);
}

static void gemm_case(cf_suite_t *suite, uint32_t m, uint32_t n, uint32_t k)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "gemm m=%u n=%u k=%u", m, n, k);
    cf_tensor_t a = cf_input(suite, (uint64_t)m * k, 1), b = cf_input(suite, (uint64_t)n * k, 1);
    cf_tensor_t out = cf_output(suite, (uint64_t)m * n);
    double *reference = cf_memory(suite, (size_t)m * n * sizeof *reference);
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < n; j++)
            for (uint32_t l = 0; l < k; l++)
                reference[(size_t)i * n + j] += a.v[(size_t)i * k + l] * b.v[(size_t)j * k + l];
    if (cf_ok(suite, suite->be->gemm(suite->ctx, a.buffer, b.buffer, out.buffer, m, n, k, &err),
              &err))
        cf_expect_rows(suite, &out, reference, n, 2);
    cf_end(suite);
}

static void elementwise_cases(cf_suite_t *suite, uint64_t count)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    double *reference;
    cf_begin(suite, "add_inplace %llu", (unsigned long long)count);
    cf_tensor_t a = cf_input(suite, count, 2), b = cf_input(suite, count, 2);
    reference = cf_memory(suite, count * sizeof *reference);
    for (uint64_t i = 0; i < count; i++)
        reference[i] = a.v[i] + b.v[i];
    if (cf_ok(suite, suite->be->add_inplace(suite->ctx, a.buffer, b.buffer, count, &err), &err))
        cf_expect_rows(suite, &a, reference, count, 1);
    cf_end(suite);

    cf_begin(suite, "scaled_add_inplace %llu", (unsigned long long)count);
    a = cf_input(suite, count, 2), b = cf_input(suite, count, 2);
    reference = cf_memory(suite, count * sizeof *reference);
    for (uint64_t i = 0; i < count; i++)
        reference[i] = a.v[i] + 0.375 * b.v[i];
    if (cf_ok(suite,
              suite->be->scaled_add_inplace(suite->ctx, a.buffer, b.buffer, 0.375F, count, &err),
              &err))
        cf_expect_rows(suite, &a, reference, count, 1);
    cf_end(suite);

    cf_begin(suite, "scale_inplace %llu", (unsigned long long)count);
    a = cf_input(suite, count, 2);
    reference = cf_memory(suite, count * sizeof *reference);
    for (uint64_t i = 0; i < count; i++)
        reference[i] = -1.25 * a.v[i];
    if (cf_ok(suite, suite->be->scale_inplace(suite->ctx, a.buffer, -1.25F, count, &err), &err))
        cf_expect_rows(suite, &a, reference, count, 1);
    cf_end(suite);
}

static void row_cases(cf_suite_t *suite, uint32_t rows, uint32_t cols)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t count = (uint64_t)rows * cols;
    cf_begin(suite, "add_bias %ux%u", rows, cols);
    cf_tensor_t data = cf_input(suite, count, 2), bias = cf_input(suite, cols, 2);
    double *reference = cf_memory(suite, count * sizeof *reference);
    for (uint64_t i = 0; i < count; i++)
        reference[i] = data.v[i] + bias.v[i % cols];
    if (cf_ok(suite, suite->be->add_bias(suite->ctx, data.buffer, bias.buffer, rows, cols, &err),
              &err))
        cf_expect_rows(suite, &data, reference, cols, 1);
    cf_end(suite);

    cf_begin(suite, "fused_silu_mul_split %ux%u", rows, cols);
    cf_tensor_t gate_up = cf_input(suite, 2 * count, 6), out = cf_output(suite, count);
    reference = cf_memory(suite, count * sizeof *reference);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < cols; c++)
            reference[(size_t)r * cols + c] = cf_silu(gate_up.v[(size_t)r * 2 * cols + c]) *
                                              gate_up.v[(size_t)r * 2 * cols + cols + c];
    if (cf_ok(suite,
              suite->be->fused_silu_mul_split(suite->ctx, gate_up.buffer, out.buffer, rows, cols,
                                              &err),
              &err))
        cf_expect_rows(suite, &out, reference, cols, 1);
    cf_end(suite);

    if (rows < 3)
        return;
    cf_begin(suite, "fused_silu_mul_split_strided %ux%u from row 1 to row 2", rows, cols);
    gate_up = cf_input(suite, 2 * count, 6), out = cf_output(suite, count);
    reference = cf_memory(suite, count * sizeof *reference);
    memcpy(reference, out.v, count * sizeof *reference);
    for (uint32_t c = 0; c < cols; c++)
        reference[2 * (size_t)cols + c] =
            cf_silu(gate_up.v[2 * (size_t)cols + c]) * gate_up.v[3 * (size_t)cols + c];
    if (cf_ok(suite,
              suite->be->fused_silu_mul_split_strided(suite->ctx, gate_up.buffer, 1, out.buffer, 2,
                                                      1, cols, &err),
              &err))
        cf_expect_rows(suite, &out, reference, cols, 1);
    cf_end(suite);
}

static void lookup_cases(cf_suite_t *suite)
{
    enum {
        ROWS = 11,
        DIM = 24,
        COUNT = 6
    };
    const int32_t ids[COUNT] = {10, 0, 3, 3, 7, 1};
    const uint32_t host_ids[COUNT] = {10, 0, 3, 3, 7, 1};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    double reference[COUNT * DIM];
    for (int device = 0; device < 2; device++) {
        cf_begin(suite, "embedding_lookup with ids on the %s", device ? "device" : "host");
        cf_tensor_t table = cf_input(suite, ROWS * DIM, 1), out = cf_output(suite, COUNT * DIM);
        cf_ints_t dev = cf_ints(suite, ids, COUNT);
        for (int i = 0; i < COUNT; i++)
            memcpy(reference + i * DIM, table.v + ids[i] * DIM, DIM * sizeof(double));
        ferrum_status_t status =
            device ? suite->be->embedding_lookup_dev(suite->ctx, table.buffer, dev.buffer, COUNT,
                                                     out.buffer, DIM, &err)
                   : suite->be->embedding_lookup(suite->ctx, table.buffer, host_ids, COUNT,
                                                 out.buffer, DIM, &err);
        if (cf_ok(suite, status, &err))
            cf_expect_rows(suite, &out, reference, DIM, 0); /* a copy is exact */
        cf_end(suite);
    }
    cf_begin(suite, "embedding_lookup of an id out of range");
    /* The table buffer has guard elements behind it: ask for a row far beyond them. */
    const uint32_t far[2] = {1, 1u << 24};
    cf_tensor_t table = cf_input(suite, ROWS * DIM, 1), out = cf_output(suite, 2 * DIM);
    cf_expect_error(
        suite, suite->be->embedding_lookup(suite->ctx, table.buffer, far, 2, out.buffer, DIM, &err),
        FERRUM_INVALID_INPUT, &err);
    cf_expect_untouched(suite, &out);
    cf_end(suite);
}

static void transpose_cases(cf_suite_t *suite, uint32_t tokens, uint32_t heads, uint32_t dim)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t count = (uint64_t)tokens * heads * dim;
    for (int to_head = 0; to_head < 2; to_head++) {
        cf_begin(suite, "transpose_%s tokens=%u heads=%u dim=%u",
                 to_head ? "token_to_head" : "head_to_token", tokens, heads, dim);
        cf_tensor_t src = cf_input(suite, count, 1), out = cf_output(suite, count);
        double *reference = cf_memory(suite, count * sizeof *reference);
        for (uint32_t t = 0; t < tokens; t++)
            for (uint32_t h = 0; h < heads; h++)
                for (uint32_t d = 0; d < dim; d++) {
                    size_t token_major = ((size_t)t * heads + h) * dim + d;
                    size_t head_major = ((size_t)h * tokens + t) * dim + d;
                    reference[to_head ? head_major : token_major] =
                        src.v[to_head ? token_major : head_major];
                }
        ferrum_status_t status =
            to_head ? suite->be->transpose_token_to_head(suite->ctx, src.buffer, out.buffer, tokens,
                                                         heads, dim, &err)
                    : suite->be->transpose_head_to_token(suite->ctx, src.buffer, out.buffer, tokens,
                                                         heads, dim, &err);
        if (cf_ok(suite, status, &err))
            cf_expect_rows(suite, &out, reference, dim, 0);
        cf_end(suite);
    }
    cf_begin(suite, "split_qkv tokens=%u q=%u kv=%u", tokens, heads * dim, dim);
    uint32_t q_dim = heads * dim, row = q_dim + 2 * dim;
    cf_tensor_t qkv = cf_input(suite, (uint64_t)tokens * row, 1);
    cf_tensor_t q = cf_output(suite, (uint64_t)tokens * q_dim);
    cf_tensor_t k = cf_output(suite, (uint64_t)tokens * dim);
    cf_tensor_t v = cf_output(suite, (uint64_t)tokens * dim);
    double *rq = cf_memory(suite, q.count * sizeof *rq),
           *rk = cf_memory(suite, k.count * sizeof *rk);
    double *rv = cf_memory(suite, v.count * sizeof *rv);
    for (uint32_t t = 0; t < tokens; t++) {
        memcpy(rq + (size_t)t * q_dim, qkv.v + (size_t)t * row, q_dim * sizeof(double));
        memcpy(rk + (size_t)t * dim, qkv.v + (size_t)t * row + q_dim, dim * sizeof(double));
        memcpy(rv + (size_t)t * dim, qkv.v + (size_t)t * row + q_dim + dim, dim * sizeof(double));
    }
    if (cf_ok(suite,
              suite->be->split_qkv(suite->ctx, qkv.buffer, q.buffer, k.buffer, v.buffer, tokens,
                                   q_dim, dim, &err),
              &err)) {
        cf_expect_rows(suite, &q, rq, q_dim, 0);
        cf_expect_rows(suite, &k, rk, dim, 0);
        cf_expect_rows(suite, &v, rv, dim, 0);
    }
    cf_end(suite);
}

static void argmax_cases(cf_suite_t *suite)
{
    enum {
        M = 3,
        N = 70
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t ids[M] = {9, 9, 9};
    double values[M * N];
    for (int i = 0; i < M * N; i++)
        values[i] = -1 - (double)(i % 7);
    values[5] = values[60] = 2; /* tie: the lower index */
    values[N + 69] = 3;         /* last */
    values[2 * N] = 1, values[2 * N + 1] = (double)NAN;
    cf_begin(suite, "argmax_rows with a tie, the last column and a NaN");
    cf_tensor_t logits = cf_input_values(suite, values, M * N);
    if (cf_ok(suite, suite->be->argmax_rows(suite->ctx, logits.buffer, M, N, ids, &err), &err) &&
        (ids[0] != 5 || ids[1] != 69 || ids[2] != 0))
        cf_fail(suite, "got %u %u %u, expected 5 69 0", ids[0], ids[1], ids[2]);
    cf_end(suite);

    cf_begin(suite, "argmax_rows_masked");
    logits = cf_input_values(suite, values, M * N);
    const uint32_t words[3] = {1u << 7 | 1u << 20, 0, 1u << 2}; /* ids 7, 20, 66 */
    ferrum_buffer_t *mask = NULL;
    if (cf_ok(suite, suite->be->buffer_alloc(suite->device, FERRUM_DTYPE_U32, 3, &mask, &err),
              &err) &&
        cf_ok(suite, suite->be->buffer_write(suite->ctx, mask, 0, FERRUM_DTYPE_U32, words, 3, &err),
              &err) &&
        cf_ok(suite,
              suite->be->argmax_rows_masked(suite->ctx, logits.buffer, mask, M, N, ids, &err),
              &err)) {
        const int allowed[3] = {7, 20, 66};
        for (int r = 0; r < M; r++) {
            int best = allowed[0];
            for (int i = 1; i < 3; i++)
                best = logits.v[r * N + allowed[i]] > logits.v[r * N + best] ? allowed[i] : best;
            if (ids[r] != (uint32_t)best)
                cf_fail(suite, "row %d: got %u, expected %d", r, ids[r], best);
        }
    }
    suite->be->buffer_release(mask);
    cf_end(suite);

    cf_begin(suite, "argmax_rows_repetition_penalty");
    double two[8] = {4, 3, -1, -2, -1, -1.5, -9, -9};
    logits = cf_input_values(suite, two, 8);
    const uint32_t offsets[3] = {0, 1, 2}, tokens[2] = {0, 0};
    const float penalties[2] = {2, 2};
    if (cf_ok(suite,
              suite->be->argmax_rows_repetition_penalty(suite->ctx, logits.buffer, NULL, offsets,
                                                        tokens, penalties, 2, 4, ids, &err),
              &err)) {
        const double after[8] = {2, 3, -1, -2, -2, -1.5, -9, -9};
        if (ids[0] != 1 || ids[1] != 1)
            cf_fail(suite, "got %u %u, expected 1 1", ids[0], ids[1]);
        cf_expect_rows(suite, &logits, after, 4, 1);
    }
    cf_end(suite);
}

void cf_group_core(cf_suite_t *suite)
{
    EACH(r, row_counts) EACH(w, widths)
    {
        norm_cases(suite, row_counts[r], widths[w]);
        row_cases(suite, row_counts[r], widths[w]);
        gemm_case(suite, row_counts[r], widths[w], 70);
    }
    gemm_case(suite, 5, 130, 257);
    elementwise_cases(suite, 0);
    elementwise_cases(suite, 1);
    elementwise_cases(suite, 1000);
    lookup_cases(suite);
    transpose_cases(suite, 1, 1, 1);
    transpose_cases(suite, 5, 3, 16);
    transpose_cases(suite, 17, 4, 33);
    argmax_cases(suite);
}

void cf_group_refusals(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_context_t *ctx = suite->ctx;

    cf_begin(suite, "rms_norm beyond its input buffer");
    cf_tensor_t x = cf_input(suite, 64, 1), w = cf_input(suite, 64, 1), out = cf_output(suite, 64);
    cf_expect_error(suite,
                    suite->be->rms_norm(ctx, x.buffer, w.buffer, 1e-6F, out.buffer, 1000, 64, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_expect_untouched(suite, &out);
    cf_end(suite);

    cf_begin(suite, "rms_norm of an i32 buffer");
    const int32_t zeros[64] = {0};
    cf_ints_t ints = cf_ints(suite, zeros, 64);
    w = cf_input(suite, 64, 1), out = cf_output(suite, 64);
    cf_expect_error(suite,
                    suite->be->rms_norm(ctx, ints.buffer, w.buffer, 1e-6F, out.buffer, 1, 64, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_expect_untouched(suite, &out);
    cf_end(suite);

    cf_begin(suite, "gemm with a NULL operand");
    out = cf_output(suite, 64);
    cf_expect_error(suite, suite->be->gemm(ctx, NULL, w.buffer, out.buffer, 1, 1, 1, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_expect_untouched(suite, &out);
    cf_end(suite);

    cf_begin(suite, "gemm whose sizes overflow");
    x = cf_input(suite, 64, 1), out = cf_output(suite, 64);
    cf_expect_error(suite,
                    suite->be->gemm(ctx, x.buffer, x.buffer, out.buffer, UINT32_MAX, UINT32_MAX,
                                    UINT32_MAX, &err),
                    FERRUM_INVALID_ARGUMENT, &err);
    cf_expect_untouched(suite, &out);
    cf_end(suite);
}
