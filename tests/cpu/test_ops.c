/* SPDX-License-Identifier: MIT */
/* The core transformer ops against f64. */
#include "tests/cpu/fixture.h"

#include <math.h>
#include <stdlib.h>

static const double TOLERANCE = 3e-6;

START_TEST(gemm_of_odd_shapes)
{
    static const uint32_t shapes[][3] = {{1, 1, 1}, {3, 129, 65}, {40, 33, 257}, {1, 300, 128}};
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const uint32_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        ferrum_buffer_t *a = cpu_random_f32(&f, 1, m * k), *b = cpu_random_f32(&f, 2, n * k);
        ferrum_buffer_t *out = cpu_output(&f, m * n);
        double *wanted = calloc(m * n, sizeof *wanted);
        for (uint32_t i = 0; i < m * n; i++)
            for (uint32_t j = 0; j < k; j++)
                wanted[i] +=
                    (double)cpu_floats(a)[i / n * k + j] * (double)cpu_floats(b)[i % n * k + j];
        EXPECT_OK(BK->gemm(f.ctx, a, b, out, m, n, k, &err));
        cpu_check_rows(cpu_floats(out), wanted, m, n, TOLERANCE);
        cpu_check_guard(out, m * n);
        free(wanted);
        cpu_release(a, b, out, NULL);
    }
    cpu_close(&f);
}
END_TEST

static void norm_reference(const float *x, const float *w, float eps, size_t n, double *out)
{
    double square = 0.0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    for (size_t i = 0; i < n; i++)
        out[i] = (double)x[i] * (double)w[i] / sqrt(square / (double)n + (double)eps);
}

START_TEST(norms)
{
    enum {
        T = 5,
        D = 67
    };
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    ferrum_buffer_t *x = cpu_random_f32(&f, 1, T * D), *w = cpu_random_f32(&f, 2, D);
    ferrum_buffer_t *r = cpu_random_f32(&f, 3, T * D), *out = cpu_output(&f, T * D);
    double wanted[T * D];
    for (int t = 0; t < T; t++)
        norm_reference(cpu_floats(x) + t * D, cpu_floats(w), 1e-5f, D, wanted + t * D);
    EXPECT_OK(BK->rms_norm(f.ctx, x, w, 1e-5f, out, T, D, &err));
    cpu_check_rows(cpu_floats(out), wanted, T, D, TOLERANCE);
    cpu_check_guard(out, T * D);

    float sum[T * D];
    for (int i = 0; i < T * D; i++)
        sum[i] = cpu_floats(r)[i] + cpu_floats(x)[i];
    for (int t = 0; t < T; t++)
        norm_reference(sum + t * D, cpu_floats(w), 1e-5f, D, wanted + t * D);
    EXPECT_OK(BK->fused_add_rms_norm(f.ctx, r, x, w, 1e-5f, out, T, D, &err));
    ck_assert_mem_eq(cpu_floats(r), sum, sizeof sum);
    cpu_check_rows(cpu_floats(out), wanted, T, D, TOLERANCE);

    EXPECT_OK(BK->rms_norm(f.ctx, r, w, 1e-5f, r, T, D, &err)); /* in place */
    cpu_check_rows(cpu_floats(r), wanted, T, D, TOLERANCE);
    cpu_release(x, w, r, out, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(elementwise)
{
    enum {
        N = 40001
    };
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    ferrum_buffer_t *x = cpu_random_f32(&f, 1, N), *y = cpu_random_f32(&f, 2, N);
    float *x0 = cpu_random_values(1, N), *y0 = cpu_random_values(2, N);
    double *wanted = malloc(N * sizeof *wanted);
    EXPECT_OK(BK->add_inplace(f.ctx, y, x, N, &err));
    EXPECT_OK(BK->scaled_add_inplace(f.ctx, y, x, -0.5f, N, &err));
    EXPECT_OK(BK->scale_inplace(f.ctx, y, 3.0f, N, &err));
    for (int i = 0; i < N; i++)
        wanted[i] = 3.0 * ((double)y0[i] + 0.5 * (double)x0[i]);
    cpu_check_rows(cpu_floats(y), wanted, 1, N, TOLERANCE);
    EXPECT_FAILS(BK->add_inplace(f.ctx, y, x, N + 1, &err), FERRUM_INVALID_ARGUMENT, "40001");

    ferrum_buffer_t *bias = cpu_random_f32(&f, 5, 401);
    EXPECT_OK(BK->add_bias(f.ctx, x, bias, 99, 401, &err));
    for (int i = 0; i < N; i++)
        wanted[i] = (double)x0[i] + (i < 99 * 401 ? (double)cpu_floats(bias)[i % 401] : 0.0);
    cpu_check_rows(cpu_floats(x), wanted, 1, N, TOLERANCE);
    free(x0);
    free(y0);
    free(wanted);
    cpu_release(x, y, bias, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(silu_of_split_rows)
{
    enum {
        T = 3,
        I = 45
    };
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    ferrum_buffer_t *gate_up = cpu_random_f32(&f, 1, (T + 1) * 2 * I);
    ferrum_buffer_t *out = cpu_output(&f, (T + 2) * I);
    double wanted[T * I];
    for (int i = 0; i < T * I; i++) {
        const float *row = cpu_floats(gate_up) + (i / I + 1) * 2 * I;
        const double g = (double)row[i % I];
        wanted[i] = g / (1.0 + exp(-g)) * (double)row[I + i % I];
    }
    EXPECT_OK(BK->fused_silu_mul_split_strided(f.ctx, gate_up, 1, out, 2, T, I, &err));
    cpu_check_rows(cpu_floats(out) + 2 * I, wanted, T, I, TOLERANCE);
    cpu_check_guard(out, (T + 2) * I);
    ck_assert_int_eq(cpu_ints(out)[2 * I - 1], 0x4b1d4b1d);
    EXPECT_OK(BK->fused_silu_mul_split(f.ctx, gate_up, out, T, I, &err));
    cpu_check_rows(cpu_floats(out) + I, wanted, T - 1, I, TOLERANCE); /* rows 1 and 2 */
    EXPECT_FAILS(BK->fused_silu_mul_split_strided(f.ctx, gate_up, UINT64_MAX, out, 0, T, I, &err),
                 FERRUM_INVALID_ARGUMENT, "gate_up");
    cpu_release(gate_up, out, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(embeddings)
{
    enum {
        ROWS = 6,
        D = 10
    };
    static const uint32_t ids[] = {5, 0, 5, 3}, bad[] = {1, 6};
    static const int32_t dev_ids[] = {4, 2}, bad_ids[] = {0, -1};
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    ferrum_buffer_t *table = cpu_random_f32(&f, 1, ROWS * D), *half = NULL;
    ferrum_buffer_t *out = cpu_output(&f, 4 * D);
    ferrum_buffer_t *good = cpu_i32(&f, dev_ids, 2), *wrong = cpu_i32(&f, bad_ids, 2);
    EXPECT_FAILS(BK->embedding_lookup(f.ctx, table, bad, 2, out, D, &err), FERRUM_INVALID_INPUT,
                 "ids[1] is 6");
    EXPECT_FAILS(BK->embedding_lookup_dev(f.ctx, table, wrong, 2, out, D, &err),
                 FERRUM_INVALID_INPUT, "-1");
    cpu_check_untouched(out, 4 * D);
    EXPECT_OK(BK->embedding_lookup(f.ctx, table, ids, 4, out, D, &err));
    for (size_t i = 0; i < 4; i++)
        ck_assert_mem_eq(cpu_floats(out) + i * D, cpu_floats(table) + ids[i] * D, D * 4);
    EXPECT_OK(BK->embedding_lookup_dev(f.ctx, table, good, 2, out, D, &err));
    ck_assert_mem_eq(cpu_floats(out), cpu_floats(table) + 4 * D, D * 4);

    EXPECT_OK(BK->buffer_alloc(f.device, FERRUM_DTYPE_BF16, ROWS * D, &half, &err));
    EXPECT_OK(BK->buffer_write_f32(f.ctx, half, 0, cpu_floats(table), ROWS * D, &err));
    EXPECT_OK(BK->embedding_lookup(f.ctx, half, ids, 1, out, D, &err));
    for (size_t i = 0; i < D; i++)
        ck_assert(fabsf(cpu_floats(out)[i] - cpu_floats(table)[5 * D + i]) < 0.004f);
    cpu_release(table, half, out, good, wrong, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(moves)
{
    enum {
        T = 3,
        Q = 4,
        KV = 2,
        D = 6
    };
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    ferrum_buffer_t *qkv = cpu_random_f32(&f, 1, T * (Q + 2 * KV) * D);
    ferrum_buffer_t *q = cpu_output(&f, T * Q * D), *k = cpu_output(&f, T * KV * D);
    ferrum_buffer_t *v = cpu_output(&f, T * KV * D), *back = cpu_output(&f, T * KV * D);
    EXPECT_OK(BK->split_qkv(f.ctx, qkv, q, k, v, T, Q * D, KV * D, &err));
    for (int t = 0; t < T; t++) {
        const float *row = cpu_floats(qkv) + t * (Q + 2 * KV) * D;
        ck_assert_mem_eq(cpu_floats(q) + t * Q * D, row, Q * D * 4);
        ck_assert_mem_eq(cpu_floats(k) + t * KV * D, row + Q * D, KV * D * 4);
        ck_assert_mem_eq(cpu_floats(v) + t * KV * D, row + (Q + KV) * D, KV * D * 4);
    }
    cpu_check_guard(v, T * KV * D);
    EXPECT_OK(BK->transpose_token_to_head(f.ctx, k, v, T, KV, D, &err));
    ck_assert_mem_eq(cpu_floats(v) + T * D, cpu_floats(k) + D, D * 4); /* head 1, token 0 */
    EXPECT_OK(BK->transpose_head_to_token(f.ctx, v, back, T, KV, D, &err));
    ck_assert_mem_eq(cpu_floats(back), cpu_floats(k), T * KV * D * 4);

    ferrum_buffer_t *cache_k = cpu_output(&f, KV * 5 * D), *cache_v = cpu_output(&f, KV * 5 * D);
    EXPECT_FAILS(
        BK->kv_cache_append_head_major(f.ctx, cache_k, cache_v, 3, 5, v, v, T, KV, D, &err),
        FERRUM_INVALID_ARGUMENT, "capacity");
    EXPECT_OK(BK->kv_cache_append_head_major(f.ctx, cache_k, cache_v, 2, 5, v, v, T, KV, D, &err));
    ck_assert_mem_eq(cpu_floats(cache_k) + (5 + 2) * D, cpu_floats(v) + T * D, T * D * 4);
    ck_assert_mem_eq(cpu_floats(cache_v) + 2 * D, cpu_floats(v), T * D * 4);
    ck_assert_int_eq(cpu_ints(cache_k)[D], 0x4b1d4b1d);
    cpu_check_guard(cache_v, KV * 5 * D);
    cpu_release(qkv, q, k, v, back, cache_k, cache_v, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(argmax)
{
    enum {
        M = 4,
        N = 70
    };
    cpu_fixture_t f;
    uint32_t ids[M], words[3] = {0, 1u << 3 | 1u << 5, 0};
    cpu_open_config(&f, _i);
    ferrum_buffer_t *logits = cpu_random_f32(&f, 1, M * N), *mask = NULL;
    float *row = cpu_floats(logits);
    EXPECT_OK(BK->buffer_alloc(f.device, FERRUM_DTYPE_U32, 3, &mask, &err));
    EXPECT_OK(BK->buffer_write(f.ctx, mask, 0, FERRUM_DTYPE_U32, words, 3, &err));
    row[7] = row[9] = 2.0f;
    row[N] = NAN;
    row[N + 12] = 5.0f;
    for (int i = 0; i < N; i++)
        row[2 * N + i] = i == 60 ? -INFINITY : NAN;
    for (int i = 0; i < N; i++)
        row[3 * N + i] = NAN;
    EXPECT_OK(BK->argmax_rows(f.ctx, logits, M, N, ids, &err));
    ck_assert_uint_eq(ids[0], 7);
    ck_assert_uint_eq(ids[1], 12);
    ck_assert_uint_eq(ids[2], 60);
    ck_assert_uint_eq(ids[3], 0);
    row[35] = row[37] = 9.0f;
    EXPECT_OK(BK->argmax_rows_masked(f.ctx, logits, mask, M, N, ids, &err));
    ck_assert_uint_eq(ids[0], 35);
    ck_assert_uint_eq(ids[3], 35);

    const uint32_t offsets[] = {0, 2, 2}, tokens[] = {35, 2};
    const float penalties[] = {2.0f, 1.0f};
    row[2] = -1.0f;
    EXPECT_OK(BK->argmax_rows_repetition_penalty(f.ctx, logits, NULL, offsets, tokens, penalties, 2,
                                                 N, ids, &err));
    ck_assert_uint_eq(ids[0], 37);
    ck_assert_uint_eq(ids[1], 12);
    ck_assert(row[35] == 4.5f && row[2] == -2.0f);
    const float negative[] = {-1.0f, 1.0f};
    EXPECT_FAILS(BK->argmax_rows_repetition_penalty(f.ctx, logits, NULL, offsets, tokens, negative,
                                                    2, N, ids, &err),
                 FERRUM_INVALID_INPUT, "penalty");
    ck_assert(row[35] == 4.5f);
    words[1] = 0;
    words[2] = 1u << 6; /* beyond n */
    EXPECT_OK(BK->buffer_write(f.ctx, mask, 0, FERRUM_DTYPE_U32, words, 3, &err));
    EXPECT_FAILS(BK->argmax_rows_masked(f.ctx, logits, mask, M, N, ids, &err), FERRUM_INVALID_INPUT,
                 "none of 70");
    cpu_release(logits, mask, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(rope_modes)
{
    enum {
        T = 3,
        H = 2,
        D = 8,
        POS = 4,
        MAX = 8
    };
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    float cosines[MAX * D / 2], sines[MAX * D / 2];
    for (int i = 0; i < MAX * D / 2; i++) {
        cosines[i] = cosf(0.37f * (float)i);
        sines[i] = sinf(0.37f * (float)i);
    }
    ferrum_buffer_t *in = cpu_random_f32(&f, 1, T * H * D), *norm = cpu_random_f32(&f, 2, D);
    ferrum_buffer_t *c = cpu_f32(&f, cosines, MAX * D / 2), *s = cpu_f32(&f, sines, MAX * D / 2);
    ferrum_buffer_t *out = cpu_output(&f, T * H * D);
    ferrum_rope_t rope = {
        .head = FERRUM_HEAD(ferrum_rope_t), .q_norm = norm, .cos = c, .sin = s, .eps = 1e-6f};
    for (rope.mode = 0; rope.mode <= FERRUM_ROPE_INTERLEAVED; rope.mode++) {
        double wanted[T * H * D];
        for (int i = 0; i < T * H; i++) {
            const int t = i % T, h = i / T;
            const float *x = cpu_floats(in) + (t * H + h) * D;
            double y[D], *z = wanted + i * D;
            if (rope.mode == FERRUM_ROPE_NORM_HALF)
                norm_reference(x, cpu_floats(norm), rope.eps, D, y);
            for (int d = 0; d < D && rope.mode != FERRUM_ROPE_NORM_HALF; d++)
                y[d] = (double)x[d];
            for (int d = 0; d < D; d++)
                z[d] = y[d];
            for (int d = 0; d < D / 2 && rope.mode != FERRUM_ROPE_NONE; d++) {
                const int a = rope.mode == FERRUM_ROPE_INTERLEAVED ? 2 * d : d;
                const int b = rope.mode == FERRUM_ROPE_INTERLEAVED ? 2 * d + 1 : d + D / 2;
                const double cd = (double)cosines[(POS + t) * D / 2 + d];
                const double sd = (double)sines[(POS + t) * D / 2 + d];
                z[a] = y[a] * cd - y[b] * sd;
                z[b] = y[b] * cd + y[a] * sd;
            }
        }
        EXPECT_OK(BK->qk_norm_rope(f.ctx, in, &rope, out, T, H, D, POS, &err));
        cpu_check_rows(cpu_floats(out), wanted, T * H, D, TOLERANCE);
        cpu_check_guard(out, T * H * D);
    }
    EXPECT_FAILS(BK->qk_norm_rope(f.ctx, in, &rope, out, T, H, D, POS, &err),
                 FERRUM_INVALID_ARGUMENT, "mode 4");
    rope.mode = FERRUM_ROPE_HALF;
    EXPECT_FAILS(BK->qk_norm_rope(f.ctx, in, &rope, out, T, H, D, MAX - T + 1, &err),
                 FERRUM_INVALID_ARGUMENT, "cos");
    rope.sin = NULL;
    EXPECT_FAILS(BK->qk_norm_rope(f.ctx, in, &rope, out, T, H, D, 0, &err), FERRUM_INVALID_ARGUMENT,
                 "sin is NULL");
    cpu_release(in, norm, c, s, out, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(bad_operands_leave_outputs_alone)
{
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *x = cpu_random_f32(&f, 1, 16), *out = cpu_output(&f, 16);
    ferrum_buffer_t *ints = cpu_output_i32(&f, 16), *small = cpu_random_f32(&f, 1, 3);
    EXPECT_FAILS(BK->rms_norm(NULL, x, x, 0.0f, out, 1, 4, &err), FERRUM_INVALID_ARGUMENT, "ctx");
    EXPECT_FAILS(BK->rms_norm(f.ctx, NULL, x, 0.0f, out, 1, 4, &err), FERRUM_INVALID_ARGUMENT,
                 "x is NULL");
    EXPECT_FAILS(BK->rms_norm(f.ctx, ints, x, 0.0f, out, 1, 4, &err), FERRUM_INVALID_ARGUMENT,
                 "rms_norm: x is i32, expected f32");
    EXPECT_FAILS(BK->rms_norm(f.ctx, x, small, 0.0f, out, 1, 4, &err), FERRUM_INVALID_ARGUMENT,
                 "w has 3");
    EXPECT_FAILS(BK->gemm(f.ctx, x, x, out, UINT32_MAX, UINT32_MAX, UINT32_MAX, &err),
                 FERRUM_INVALID_ARGUMENT, "gemm: a");
    EXPECT_FAILS(BK->transpose_head_to_token(f.ctx, x, out, UINT32_MAX, UINT32_MAX, 9, &err),
                 FERRUM_INVALID_ARGUMENT, "overflows");
    ck_assert_int_eq(BK->rms_norm(f.ctx, NULL, x, 0.0f, out, 1, 4, NULL), FERRUM_INVALID_ARGUMENT);
    EXPECT_OK(BK->rms_norm(f.ctx, x, x, 0.0f, out, 0, 4, &err));
    EXPECT_OK(BK->gemm(f.ctx, x, x, out, 0, 4, 4, &err));
    cpu_check_untouched(out, 16);
    cpu_release(x, out, ints, small, NULL);
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu core ops");
    TCase *tc = tcase_create("all");
    tcase_add_loop_test(tc, gemm_of_odd_shapes, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, norms, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, elementwise, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, silu_of_split_rows, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, embeddings, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, moves, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, argmax, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, rope_modes, 0, CPU_CONFIGS);
    tcase_add_test(tc, bad_operands_leave_outputs_alone);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
