/* SPDX-License-Identifier: MIT */
/* Routing, plan, alignment, pair lists and weighted sums. */
#include "tests/cpu/fixture.h"

#include <math.h>
#include <string.h>
#include <stdlib.h>

/** Plain softmax routing, step by step as the header and the inventory of the design give it. */
static void reference_route(const float *logits, uint32_t experts, uint32_t top_k, bool norm,
                            uint32_t *ids, float *weights)
{
    float p[512], max = -INFINITY, sum = 0.0f;
    for (uint32_t e = 0; e < experts; e++)
        max = logits[e] > max ? logits[e] : max;
    for (uint32_t e = 0; e < experts; e++)
        sum += p[e] = expf(logits[e] - max);
    for (uint32_t e = 0; e < experts; e++)
        p[e] *= 1.0f / sum;
    for (uint32_t j = 0; j < top_k; j++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < experts; e++)
            best = p[e] > p[best] ? e : best;
        ids[j] = best;
        weights[j] = p[best];
        p[best] = -INFINITY;
    }
    sum = 0.0f;
    for (uint32_t j = 0; j < top_k; j++)
        sum += weights[j];
    for (uint32_t j = 0; norm && j < top_k; j++)
        weights[j] *= 1.0f / sum;
}

START_TEST(softmax_routing_is_exact)
{
    static const uint32_t shapes[][3] = {{1, 1, 1}, {7, 8, 2}, {33, 128, 8}, {5, 256, 256}};
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    for (size_t s = 0; s < 4; s++)
        for (uint32_t norm = 0; norm <= 1; norm++) {
            const uint32_t batch = shapes[s][0], experts = shapes[s][1], k = shapes[s][2];
            ferrum_buffer_t *logits = cpu_random_f32(&f, s, batch * experts);
            ferrum_buffer_t *ids = cpu_output_i32(&f, batch * k), *w = cpu_output(&f, batch * k);
            uint32_t *host_ids = malloc(batch * k * 4), *want_ids = malloc(batch * k * 4);
            float *host_w = malloc(batch * k * 4), *want_w = malloc(batch * k * 4);
            for (uint32_t i = 0; i < batch * experts; i += 3) /* plenty of ties */
                cpu_floats(logits)[i] = 0.25f;
            for (uint32_t b = 0; b < batch; b++)
                reference_route(cpu_floats(logits) + b * experts, experts, k, norm,
                                want_ids + b * k, want_w + b * k);
            EXPECT_OK(
                MF->route_topk_softmax(f.ctx, logits, ids, w, batch, experts, k, norm, NULL, &err));
            EXPECT_OK(MF->route_topk_into_host(f.ctx, logits, host_ids, host_w, batch, experts, k,
                                               norm, NULL, &err));
            ck_assert_mem_eq(cpu_ints(ids), want_ids, batch * k * 4);
            ck_assert_mem_eq(cpu_floats(w), want_w, batch * k * 4);
            ck_assert_mem_eq(host_ids, want_ids, batch * k * 4);
            ck_assert_mem_eq(host_w, want_w, batch * k * 4);
            cpu_check_guard(ids, batch * k);
            cpu_check_guard(w, batch * k);
            free(host_ids);
            free(host_w);
            free(want_ids);
            free(want_w);
            cpu_release(logits, ids, w, NULL);
        }
    cpu_close(&f);
}
END_TEST

/** Routes one row of logits with @p routing and returns ids and weights. */
static void route_row(cpu_fixture_t *f, const float *row, uint32_t experts, uint32_t k,
                      const ferrum_routing_t *routing, uint32_t *ids, float *weights)
{
    ferrum_buffer_t *logits = cpu_f32(f, row, experts);
    EXPECT_OK(
        MF->route_topk_into_host(f->ctx, logits, ids, weights, 1, experts, k, 0, routing, &err));
    cpu_release(logits, NULL);
}

START_TEST(other_score_functions)
{
    const float row[8] = {0.5f, 2.0f, -1.0f, 1.5f, 0.0f, -2.0f, 1.75f, 1.0f};
    const float bias_row[8] = {0.0f, -1.0f, 0.0f, 0.0f, 0.9f, 0.0f, 0.0f, 0.0f};
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *bias = cpu_f32(&f, bias_row, 8);
    ferrum_routing_t routing = {.head = FERRUM_HEAD(ferrum_routing_t),
                                .score_function = FERRUM_SCORE_SOFTMAX_AFTER_TOPK,
                                .scale = 2.0f};
    uint32_t ids[2];
    float w[2];
    route_row(&f, row, 8, 2, &routing, ids, w);
    ck_assert(ids[0] == 1 && ids[1] == 6);
    ck_assert_float_eq_tol(w[0], 2.0f / (1.0f + expf(-0.25f)), 1e-6f);
    ck_assert_float_eq_tol(w[0] + w[1], 2.0f, 1e-6f);

    routing = (ferrum_routing_t){.head = FERRUM_HEAD(ferrum_routing_t),
                                 .score_function = FERRUM_SCORE_SIGMOID,
                                 .renormalise = 1,
                                 .selection_bias = bias};
    const float s4 = 0.5f, s6 = 1.0f / (1.0f + expf(-1.75f));
    route_row(&f, row, 8, 2, &routing, ids, w); /* the bias lifts 4 and pushes 1 out */
    ck_assert(ids[0] == 4 && ids[1] == 6);
    ck_assert_float_eq_tol(w[0], s4 / (s4 + s6), 1e-6f);
    ck_assert_float_eq_tol(w[1], s6 / (s4 + s6), 1e-6f);

    /* Groups {0,1} {2,3} {4,5} {6,7}: the sums of sigmoids rank 3 first, then 0. */
    routing = (ferrum_routing_t){.head = FERRUM_HEAD(ferrum_routing_t),
                                 .score_function = FERRUM_SCORE_SIGMOID,
                                 .num_groups = 4,
                                 .topk_groups = 2};
    uint32_t four[4];
    float four_w[4];
    route_row(&f, row, 8, 4, &routing, four, four_w);
    ck_assert(four[0] == 1 && four[1] == 6 && four[2] == 7 && four[3] == 0);
    routing.topk_groups = 1;
    route_row(&f, row, 8, 2, &routing, ids, w);
    ck_assert(ids[0] == 6 && ids[1] == 7);

    /* The bias selects what softmax leaves almost nothing of: their sum has no reciprocal. */
    static const float faint[8] = {0.0f, 0.0f, 0.0f, 0.0f, -100.0f, 0.0f, 0.0f, -200.0f};
    static const float lift[8] = {[4] = 3.0f, [7] = 2.0f};
    cpu_release(bias, NULL);
    bias = cpu_f32(&f, lift, 8);
    routing = (ferrum_routing_t){
        .head = FERRUM_HEAD(ferrum_routing_t), .renormalise = 1, .selection_bias = bias};
    route_row(&f, faint, 8, 2, &routing, ids, w);
    ck_assert(ids[0] == 4 && ids[1] == 7 && w[0] == 1.0f && w[1] == 0.0f);
    cpu_release(bias, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(bad_routing_writes_nothing)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *logits = cpu_random_f32(&f, 1, 40), *w = cpu_output(&f, 10);
    ferrum_buffer_t *ids = cpu_output_i32(&f, 10), *bias = cpu_random_f32(&f, 1, 8);
    ferrum_routing_t routing = {.head = FERRUM_HEAD(ferrum_routing_t)};
#define ROUTE(k) MF->route_topk_softmax(f.ctx, logits, ids, w, 5, 8, k, 1, &routing, &err)
    for (int i = 0; i < 3; i++) {
        cpu_floats(logits)[3 * 8 + 7] = bad[i];
        EXPECT_FAILS(ROUTE(2), FERRUM_INVALID_INPUT, "row 3");
    }
    cpu_floats(logits)[3 * 8 + 7] = 0.0f;
    EXPECT_FAILS(MF->route_topk_softmax(f.ctx, logits, ids, w, 1, 8, 9, 1, NULL, &err),
                 FERRUM_INVALID_ARGUMENT, "top_k is 9");
    EXPECT_FAILS(MF->route_topk_softmax(f.ctx, logits, ids, w, 1, 8, 0, 1, NULL, &err),
                 FERRUM_INVALID_ARGUMENT, "top_k is 0");
    EXPECT_FAILS(ROUTE(6), FERRUM_INVALID_ARGUMENT, "out_ids");
    routing.num_groups = 3;
    routing.topk_groups = 1;
    EXPECT_FAILS(ROUTE(2), FERRUM_INVALID_ARGUMENT, "3 groups");
    routing.num_groups = 8;
    EXPECT_FAILS(ROUTE(2), FERRUM_INVALID_ARGUMENT, "1 of 8 groups");
    routing.num_groups = 0;
    routing.score_function = 3;
    EXPECT_FAILS(ROUTE(2), FERRUM_UNSUPPORTED, "score function 3");
    routing.score_function = 0;
    routing.scale = NAN;
    EXPECT_FAILS(ROUTE(2), FERRUM_INVALID_ARGUMENT, "scale");
    routing.scale = 0.0f;
    routing.selection_bias = bias;
    cpu_floats(bias)[5] = NAN;
    EXPECT_FAILS(ROUTE(2), FERRUM_INVALID_INPUT, "selection_bias[5]");
    cpu_check_untouched(w, 10);
    cpu_check_untouched(ids, 10);
    cpu_release(logits, w, ids, bias, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(pairs_are_grouped_stably)
{
    enum {
        E = 5,
        K = 2,
        P = 10
    };
    static const int32_t ids[P] = {1, 3, 1, 0, 3, 1, -1, 5, 4, 1};
    static const int32_t rows[P] = {1, 5, 2, 0, 6, 3, -1, -1, 7, 4};
    static const int32_t tokens[P] = {1, 0, 1, 2, 4, 0, 2, 4, 0, 0};
    static const int32_t offsets[E + 1] = {0, 1, 5, 5, 7, 8};
    cpu_fixture_t f;
    cpu_open(&f, NULL, 2);
    ferrum_buffer_t *in = cpu_i32(&f, ids, P), *pairs = cpu_output_i32(&f, P);
    ferrum_buffer_t *packed = cpu_output_i32(&f, P), *starts = cpu_output_i32(&f, E + 1);
    EXPECT_OK(MF->moe_build_pairs_by_token(f.ctx, in, pairs, packed, starts, P, E, K, &err));
    ck_assert_mem_eq(cpu_ints(pairs), rows, sizeof rows);
    ck_assert_mem_eq(cpu_ints(packed), tokens, sizeof tokens);
    ck_assert_mem_eq(cpu_ints(starts), offsets, sizeof offsets);
    cpu_check_guard(pairs, P);
    cpu_check_guard(packed, P);
    cpu_check_guard(starts, E + 1);
    EXPECT_OK(MF->moe_build_pairs_by_token(f.ctx, in, pairs, packed, starts, 0, E, 0, &err));
    for (int e = 0; e <= E; e++)
        ck_assert_int_eq(cpu_ints(starts)[e], 0);
    EXPECT_FAILS(MF->moe_build_pairs_by_token(f.ctx, in, pairs, packed, starts, P, E, 0, &err),
                 FERRUM_INVALID_ARGUMENT, "top_k");
    EXPECT_FAILS(MF->moe_build_pairs_by_token(f.ctx, in, pairs, packed, starts, P, 900, K, &err),
                 FERRUM_INVALID_ARGUMENT, "expert_offsets");
    cpu_release(in, pairs, packed, starts, NULL);
    cpu_close(&f);
}
END_TEST

/** The worked example of the design notes: E=4, block size 4, ids of three tokens with k=2. */
START_TEST(alignment_pads_with_the_sentinel)
{
    enum {
        E = 4,
        BS = 4,
        P = 6,
        MAX = P + E * BS
    };
    static const int32_t ids[P] = {1, 3, 1, 0, 3, 1};
    static const int32_t packed[12] = {0, 6, 6, 6, 1, 2, 3, 6, 4, 5, 6, 6};
    static const int32_t by_pair[12] = {3, 6, 6, 6, 0, 2, 5, 6, 1, 4, 6, 6};
    static const int32_t blocks[MAX / BS] = {0, 1, 3, -1, -1};
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *in = cpu_i32(&f, ids, P), *sorted = cpu_output_i32(&f, MAX);
    ferrum_buffer_t *block_ids = cpu_output_i32(&f, MAX / BS), *total = cpu_output_i32(&f, 1);
    for (int pair_ids = 0; pair_ids <= 1; pair_ids++) {
        EXPECT_OK((pair_ids ? MF->moe_align_block_size_pair_ids : MF->moe_align_block_size)(
            f.ctx, in, sorted, block_ids, total, P, E, BS, MAX, &err));
        ck_assert_mem_eq(cpu_ints(sorted), pair_ids ? by_pair : packed, sizeof packed);
        for (int i = 12; i < MAX; i++)
            ck_assert_int_eq(cpu_ints(sorted)[i], P);
        ck_assert_mem_eq(cpu_ints(block_ids), blocks, sizeof blocks);
        ck_assert_int_eq(cpu_ints(total)[0], 12);
        cpu_check_guard(sorted, MAX);
        cpu_check_guard(block_ids, MAX / BS);
        cpu_check_guard(total, 1);
    }
    EXPECT_FAILS(
        MF->moe_align_block_size(f.ctx, in, sorted, block_ids, total, P, E, BS, MAX - 1, &err),
        FERRUM_INVALID_ARGUMENT, "sorted_max is 21");
    EXPECT_FAILS(MF->moe_align_block_size(f.ctx, in, sorted, block_ids, total, P, E, 0, MAX, &err),
                 FERRUM_INVALID_ARGUMENT, "block_size");
    cpu_release(in, sorted, block_ids, total, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(pair_lists_and_launch_triples)
{
    enum {
        E = 4,
        B = 2,
        K = 2
    };
    static const int32_t ids[B * K] = {1, 3, 1, 0}, tpe[E] = {1, 2, 0, 1};
    static const int32_t lists[E * B * K] = {3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0};
    static const uint32_t gate_up[3] = {1, 2, E}, down[3] = {1, 1, E};
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *in = cpu_i32(&f, ids, B * K), *counts = cpu_output_i32(&f, E);
    ferrum_buffer_t *out = cpu_output_i32(&f, E * B * K), *a = NULL, *b = NULL;
    EXPECT_OK(BK->buffer_alloc(f.device, FERRUM_DTYPE_U32, 3, &a, &err));
    EXPECT_OK(BK->buffer_alloc(f.device, FERRUM_DTYPE_U32, 3, &b, &err));
    EXPECT_OK(MF->compute_ids_tpe(f.ctx, in, counts, out, a, b, B, E, K, 65, 64, &err));
    ck_assert_mem_eq(cpu_ints(counts), tpe, sizeof tpe);
    ck_assert_mem_eq(cpu_ints(out), lists, sizeof lists);
    ck_assert_mem_eq(cpu_ints(a), gate_up, sizeof gate_up);
    ck_assert_mem_eq(cpu_ints(b), down, sizeof down);
    cpu_check_guard(counts, E);
    cpu_check_guard(out, E * B * K);
    EXPECT_OK(MF->compute_ids_tpe(f.ctx, in, counts, out, a, b, 0, E, K, 64, 64, &err));
    ck_assert_int_eq(cpu_ints(a)[0], 1); /* one tile even for nothing */

    int32_t many[40];
    for (int i = 0; i < 40; i++)
        many[i] = i < 33 ? 2 : 0;
    ferrum_buffer_t *in40 = cpu_i32(&f, many, 40), *out40 = cpu_output_i32(&f, E * 40);
    EXPECT_OK(MF->compute_ids_tpe(f.ctx, in40, counts, out40, a, b, 40, E, 1, 64, 64, &err));
    ck_assert_int_eq(cpu_ints(a)[0], 2);
    cpu_release(in, counts, out, a, b, in40, out40, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(uploads_are_checked)
{
    static const int32_t sorted[4] = {0, 1, 2, 2}, experts[2] = {3, 4};
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *s = cpu_output_i32(&f, 4), *e = cpu_output_i32(&f, 2);
    ferrum_buffer_t *t = cpu_output_i32(&f, 1);
    const ferrum_moe_routing_t routing = {.head = FERRUM_HEAD(ferrum_moe_routing_t),
                                          .sorted_token_ids = s,
                                          .expert_ids = e,
                                          .num_tokens_past_padded = t};
    EXPECT_FAILS(MF->upload_moe_routing(f.ctx, sorted, 4, experts, 2, 5, &routing, &err),
                 FERRUM_INVALID_ARGUMENT, "past_padded is 5");
    cpu_check_untouched(s, 4);
    EXPECT_OK(MF->upload_moe_routing(f.ctx, sorted, 4, experts, 2, 4, &routing, &err));
    ck_assert_mem_eq(cpu_ints(s), sorted, sizeof sorted);
    ck_assert_mem_eq(cpu_ints(e), experts, sizeof experts);
    ck_assert_int_eq(cpu_ints(t)[0], 4);
    cpu_release(s, e, t, NULL);
    cpu_close(&f);
}
END_TEST

/** Weighted sum of the rows that @p rows names (negative: none), in slot order, in f32. */
/* In slot order; the vector kernels round a product and its sum once, the scalar ones twice. */
static void sum_rows(const float *slots, const int32_t *rows, const float *w, int k, int h,
                     bool once, float *out)
{
    for (int i = 0; i < h; i++) {
        out[i] = 0.0f;
        for (int j = 0; j < k; j++) {
            if (rows[j] < 0)
                continue;
            const float slot = slots[rows[j] * h + i];
            out[i] = once ? fmaf(w[j], slot, out[i]) : out[i] + w[j] * slot;
        }
    }
}

START_TEST(weighted_sums_share_their_bits)
{
    enum {
        B = 3,
        K = 4,
        H = 1030
    };
    static const int32_t rows[B * K] = {11, 0, -1, 5, 1, 1, 2, 3, -1, -7, -1, -1};
    static const int32_t own[K] = {0, 1, 2, 3};
    cpu_fixture_t f;
    const bool once = _i != 0 && strcmp(ferrum_kernel_sets[0]->name, "scalar") != 0;
    cpu_open_config(&f, _i);
    ferrum_buffer_t *slots = cpu_random_f32(&f, 1, B * K * H),
                    *w = cpu_random_f32(&f, 2, 5 + B * K);
    ferrum_buffer_t *out = cpu_output(&f, B * H), *pairs = cpu_i32(&f, rows, B * K);
    ferrum_buffer_t *norm = cpu_random_f32(&f, 3, H), *normed = cpu_output(&f, H);
    float *wanted = malloc(H * sizeof *wanted), *before = malloc(H * sizeof *before);
    EXPECT_OK(MF->moe_combine(f.ctx, slots, pairs, w, out, B, H, K, B * K, &err));
    for (int t = 0; t < B; t++) {
        sum_rows(cpu_floats(slots), rows + t * K, cpu_floats(w) + t * K, K, H, once, wanted);
        ck_assert_mem_eq(cpu_floats(out) + t * H, wanted, H * 4);
    }
    cpu_check_guard(out, B * H);
    EXPECT_OK(MF->weighted_sum_batched(f.ctx, slots, w, out, B, K, H, &err));
    sum_rows(cpu_floats(slots) + K * H, own, cpu_floats(w) + K, K, H, once, wanted);
    ck_assert_mem_eq(cpu_floats(out) + H, wanted, H * 4);
    EXPECT_OK(MF->weighted_sum_batched_offset(f.ctx, slots, w, 5, out, H, B - 1, K, H, &err));
    sum_rows(cpu_floats(slots), own, cpu_floats(w) + 5, K, H, once, wanted);
    ck_assert_mem_eq(cpu_floats(out) + H, wanted, H * 4);

    sum_rows(cpu_floats(slots), own, cpu_floats(w), K, H, once, wanted);
    EXPECT_OK(MF->weighted_sum_stacked(f.ctx, slots, w, out, K, H, &err));
    ck_assert_mem_eq(cpu_floats(out), wanted, H * 4);
    EXPECT_OK(MF->weighted_sum_residual_stacked(f.ctx, slots, w, out, K, H, &err));
    for (int i = 0; i < H; i++) {
        before[i] = wanted[i] + wanted[i];
        ck_assert(cpu_floats(out)[i] == before[i]);
    }
    EXPECT_OK(MF->weighted_sum_residual_norm_stacked(f.ctx, slots, w, out, norm, normed, K, H,
                                                     1e-6f, &err));
    double *normed_wanted = malloc(H * sizeof *normed_wanted), square = 0.0;
    for (int i = 0; i < H; i++) {
        const float r = before[i] + wanted[i];
        ck_assert(cpu_floats(out)[i] == r);
        square += (double)r * (double)r;
    }
    for (int i = 0; i < H; i++)
        normed_wanted[i] =
            (double)cpu_floats(out)[i] * (double)cpu_floats(norm)[i] / sqrt(square / H + 1e-6);
    cpu_check_rows(cpu_floats(normed), normed_wanted, 1, H, 3e-6);
    cpu_check_guard(normed, H);
    EXPECT_FAILS(MF->moe_combine(f.ctx, slots, pairs, w, out, B, H, K, 11, &err),
                 FERRUM_INVALID_INPUT, "pairs[0] is 11");
    free(wanted);
    free(before);
    free(normed_wanted);
    cpu_release(slots, w, out, pairs, norm, normed, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(silu_of_pairs)
{
    enum {
        P = 3,
        I = 70
    };
    cpu_fixture_t f;
    cpu_open_config(&f, _i);
    ferrum_buffer_t *gate = cpu_random_f32(&f, 1, P * I), *up = cpu_random_f32(&f, 2, P * I);
    ferrum_buffer_t *out = cpu_output(&f, P * I), *stacked = cpu_output(&f, P * I);
    double wanted[P * I];
    for (int i = 0; i < P * I; i++)
        wanted[i] = (double)cpu_floats(gate)[i] / (1.0 + exp(-(double)cpu_floats(gate)[i])) *
                    (double)cpu_floats(up)[i];
    EXPECT_OK(MF->silu_mul_batched(f.ctx, gate, up, out, P, I, &err));
    EXPECT_OK(MF->silu_mul_stacked(f.ctx, gate, up, stacked, P, I, &err));
    cpu_check_rows(cpu_floats(out), wanted, P, I, 3e-6);
    ck_assert_mem_eq(cpu_floats(out), cpu_floats(stacked), P * I * 4);
    cpu_check_guard(out, P * I);
    cpu_release(gate, up, out, stacked, NULL);
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu routing");
    TCase *tc = tcase_create("all");
    tcase_add_loop_test(tc, softmax_routing_is_exact, 0, CPU_CONFIGS);
    tcase_add_test(tc, other_score_functions);
    tcase_add_test(tc, bad_routing_writes_nothing);
    tcase_add_test(tc, pairs_are_grouped_stably);
    tcase_add_test(tc, alignment_pads_with_the_sentinel);
    tcase_add_test(tc, pair_lists_and_launch_triples);
    tcase_add_test(tc, uploads_are_checked);
    tcase_add_loop_test(tc, weighted_sums_share_their_bits, 0, CPU_CONFIGS);
    tcase_add_loop_test(tc, silu_of_pairs, 0, CPU_CONFIGS);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
