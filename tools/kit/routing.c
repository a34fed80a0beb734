/* SPDX-License-Identifier: MIT */
/* Routing, plans, alignment and the ops that combine expert outputs. */
#include "tools/kit/kit.h"

#include <string.h>

static void route_case(cf_suite_t *suite, uint32_t batch, uint32_t experts, uint32_t top_k,
                       bool norm, bool ties)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "route_topk_softmax batch=%u experts=%u top_k=%u%s%s", batch, experts, top_k,
             norm ? " normalised" : "", ties ? " with ties" : "");
    uint64_t count = (uint64_t)batch * experts, pairs = (uint64_t)batch * top_k;
    double *values = cf_memory(suite, count * sizeof *values);
    for (uint64_t i = 0; i < count; i++) /* steps of 1/64: no near ties, exact in every dtype */
        values[i] = ties ? (double)cf_below(suite, 3) : ((double)cf_below(suite, 512) - 256) / 64;
    cf_tensor_t logits = cf_input_values(suite, values, count);
    cf_ints_t ids = cf_ints_output(suite, pairs);
    cf_tensor_t weights = cf_f32_output(suite, pairs);
    int32_t *want_ids = cf_memory(suite, pairs * sizeof *want_ids);
    double *want = cf_memory(suite, pairs * sizeof *want);
    for (uint32_t b = 0; b < batch; b++)
        cf_ref_route(logits.v + (size_t)b * experts, experts, top_k, norm,
                     want_ids + (size_t)b * top_k, want + (size_t)b * top_k);
    if (cf_ok(suite,
              suite->mf->route_topk_softmax(suite->ctx, logits.buffer, ids.buffer, weights.buffer,
                                            batch, experts, top_k, norm, NULL, &err),
              &err)) {
        double tolerance = suite->tolerance;
        suite->tolerance = 1e-5; /* f32 arithmetic whatever the activations are */
        cf_expect_ints(suite, &ids, want_ids);
        cf_expect_rows(suite, &weights, want, top_k, 1);
        suite->tolerance = tolerance;
        uint32_t *host_ids = cf_memory(suite, pairs * sizeof *host_ids);
        float *host_weights = cf_memory(suite, pairs * sizeof *host_weights);
        if (cf_ok(suite,
                  suite->mf->route_topk_into_host(suite->ctx, logits.buffer, host_ids, host_weights,
                                                  batch, experts, top_k, norm, NULL, &err),
                  &err))
            for (uint64_t i = 0; i < pairs; i++)
                if (host_ids[i] != (uint32_t)want_ids[i] || (double)host_weights[i] != weights.v[i])
                    cf_fail(suite, "route_topk_into_host differs at pair %llu",
                            (unsigned long long)i);
    }
    cf_end(suite);
}

static void bad_route_cases(cf_suite_t *suite)
{
    static const double poison[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    for (int i = 0; i < 3; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        uint32_t ids[4];
        float weights[4];
        double values[16] = {0};
        values[9] = poison[i]; /* row 1 */
        cf_begin(suite, "routing of a logit that is %f", poison[i]);
        cf_tensor_t logits = cf_input_values(suite, values, 16);
        cf_expect_error(suite,
                        suite->mf->route_topk_into_host(suite->ctx, logits.buffer, ids, weights, 2,
                                                        8, 2, 1, NULL, &err),
                        FERRUM_INVALID_INPUT, &err);
        if (!suite->case_refused && strstr(err.message, "row 1") == NULL)
            cf_fail(suite, "does not name row 1: %s", err.message);
        cf_end(suite);
    }
    for (int i = 0; i < 3; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        double values[16] = {0};
        values[9] = poison[i];
        cf_begin(suite, "routing on the device of a logit that is %f", poison[i]);
        cf_tensor_t logits = cf_input_values(suite, values, 16), weights = cf_f32_output(suite, 4);
        cf_ints_t ids = cf_ints_output(suite, 4);
        ferrum_status_t status = suite->mf->route_topk_softmax(
            suite->ctx, logits.buffer, ids.buffer, weights.buffer, 2, 8, 2, 1, NULL, &err);
        if (status == FERRUM_OK) { /* reported when the context waits */
            status = suite->be->context_sync(suite->ctx, &err);
            cf_read_ints(suite, &ids);
            cf_read(suite, &weights);
            if (ids.v[0] != 0 || ids.v[2] != -1 || ids.v[3] != -1 || !isnan(weights.v[3]))
                cf_fail(suite, "row 1 is not marked with ids -1 and weights NaN");
        }
        cf_expect_error(suite, status, FERRUM_INVALID_INPUT, &err);
        if (!suite->case_refused && strstr(err.message, "row 1") == NULL)
            cf_fail(suite, "does not name row 1: %s", err.message);
        cf_end(suite);
    }
    static const uint32_t shapes[][2] = {{4, 0}, {4, 5}}; /* experts, top_k */
    for (int i = 0; i < 2; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cf_begin(suite, "routing of top_k=%u among %u experts", shapes[i][1], shapes[i][0]);
        cf_tensor_t logits = cf_input(suite, 4, 1), weights = cf_f32_output(suite, 8);
        cf_ints_t ids = cf_ints_output(suite, 8);
        cf_expect_error(suite,
                        suite->mf->route_topk_softmax(suite->ctx, logits.buffer, ids.buffer,
                                                      weights.buffer, 1, shapes[i][0], shapes[i][1],
                                                      1, NULL, &err),
                        FERRUM_INVALID_ARGUMENT, &err);
        cf_end(suite);
    }
}

/* Score functions beyond softmax, on one row with hand-picked numbers. */
static void score_cases(cf_suite_t *suite)
{
    enum {
        E = 8,
        K = 2
    };
    const double row[E] = {0.5, 2, -1, 1.5, 0, -2, 1, -0.5};
    const double bias[E] = {0, -9, 0, 0, 0, 9, 0, 0}; /* moves 1 out and 5 in, for selection only */
    for (int which = 0; which < 4; which++) {
        static const char *const names[] = {"softmax after top-k", "sigmoid", "sigmoid with bias",
                                            "sigmoid in groups, scaled"};
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cf_begin(suite, "routing by %s", names[which]);
        cf_tensor_t logits = cf_input_values(suite, row, E), weights = cf_f32_output(suite, K);
        cf_tensor_t selection = cf_f32(suite, bias, E);
        cf_ints_t ids = cf_ints_output(suite, K);
        ferrum_routing_t routing = {.head = FERRUM_HEAD(ferrum_routing_t)};
        double s[E], want[K];
        int32_t want_ids[K] = {1, 3};
        for (int e = 0; e < E; e++)
            s[e] = 1 / (1 + exp(-row[e]));
        routing.score_function = which ? FERRUM_SCORE_SIGMOID : FERRUM_SCORE_SOFTMAX_AFTER_TOPK;
        if (which == 0) {
            want[0] = 1 / (1 + exp(row[3] - row[1]));
            want[1] = 1 - want[0];
        } else if (which == 1) {
            want[0] = s[1], want[1] = s[3];
        } else if (which == 2) {
            routing.selection_bias = selection.buffer;
            routing.renormalise = 1;
            want_ids[0] = 5; /* chosen first because of its bias, weighed by its own score */
            want[0] = s[5] / (s[5] + s[3]), want[1] = s[3] / (s[5] + s[3]);
        } else {
            /* Four groups of two; a group's score is the sum of its two best. Groups 0 and 3 stay,
             * so expert 3 is out although only expert 1 scores higher. */
            routing.num_groups = 4, routing.topk_groups = 2;
            routing.scale = 2.5F;
            want_ids[1] = 6;
            want[0] = 2.5 * s[1], want[1] = 2.5 * s[6];
        }
        if (cf_ok(suite,
                  suite->mf->route_topk_softmax(suite->ctx, logits.buffer, ids.buffer,
                                                weights.buffer, 1, E, K, routing.renormalise,
                                                &routing, &err),
                  &err)) {
            double tolerance = suite->tolerance;
            suite->tolerance = 1e-5;
            cf_expect_ints(suite, &ids, want_ids);
            cf_expect_rows(suite, &weights, want, K, 1);
            suite->tolerance = tolerance;
        }
        cf_end(suite);
    }
}

void cf_group_route(cf_suite_t *suite)
{
    static const uint32_t shapes[][3] = {{0, 4, 1},   {1, 1, 1},    {1, 8, 8},   {5, 60, 4},
                                         {3, 128, 8}, {2, 300, 10}, {2, 512, 40}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int norm = 0; norm < 2; norm++)
            route_case(suite, shapes[i][0], shapes[i][1], shapes[i][2], norm != 0, false);
    route_case(suite, 9, 16, 4, true, true);
    bad_route_cases(suite);
    score_cases(suite);
}

/* Reference of the stable grouping. */
static void pairs_case(cf_suite_t *suite, uint32_t pairs, uint32_t experts, uint32_t top_k,
                       bool invalid)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "moe_build_pairs_by_token pairs=%u experts=%u top_k=%u%s", pairs, experts,
             top_k, invalid ? " with ids out of range" : "");
    int32_t *ids = cf_memory(suite, (pairs + 1) * sizeof *ids);
    int32_t *rows = cf_memory(suite, (pairs + 1) * sizeof *rows);
    int32_t *tokens = cf_memory(suite, (pairs + 1) * sizeof *tokens);
    int32_t *offsets = cf_memory(suite, (experts + 1) * sizeof *offsets);
    int32_t row = 0;
    for (uint32_t p = 0; p < pairs; p++) {
        ids[p] = (int32_t)cf_below(suite, experts);
        if (invalid && p % 5 == 2)
            ids[p] = p % 2 ? -1 : (int32_t)experts;
        rows[p] = -1;
    }
    for (uint32_t e = 0; e < experts; e++) {
        offsets[e] = row;
        for (uint32_t p = 0; p < pairs; p++)
            if (ids[p] == (int32_t)e) {
                rows[p] = row;
                tokens[row++] = (int32_t)(p / top_k);
            }
    }
    offsets[experts] = row;
    cf_ints_t ids_dev = cf_ints(suite, ids, pairs), rows_dev = cf_ints_output(suite, pairs);
    cf_ints_t tokens_dev = cf_ints_output(suite, pairs);
    cf_ints_t offsets_dev = cf_ints_output(suite, experts + 1);
    if (cf_ok(suite,
              suite->mf->moe_build_pairs_by_token(suite->ctx, ids_dev.buffer, rows_dev.buffer,
                                                  tokens_dev.buffer, offsets_dev.buffer, pairs,
                                                  experts, top_k, &err),
              &err)) {
        cf_expect_ints(suite, &rows_dev, rows);
        cf_expect_ints(suite, &tokens_dev, tokens);
        cf_expect_ints(suite, &offsets_dev, offsets);
    }
    cf_end(suite);
}

static void align_case(cf_suite_t *suite, const int32_t *ids, uint32_t pairs, uint32_t experts,
                       uint32_t block, bool pair_ids)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "moe_align_block_size%s pairs=%u experts=%u block=%u",
             pair_ids ? "_pair_ids" : "", pairs, experts, block);
    uint32_t most = pairs + experts * block, padded = 0, row = 0;
    int32_t *sorted = cf_memory(suite, most * sizeof *sorted);
    int32_t *owner = cf_memory(suite, (most / block + 1) * sizeof *owner);
    for (uint32_t i = 0; i < most; i++)
        sorted[i] = (int32_t)pairs;
    for (uint32_t i = 0; i < most / block; i++)
        owner[i] = -1;
    for (uint32_t e = 0; e < experts; e++) {
        uint32_t start = padded;
        for (uint32_t p = 0; p < pairs; p++)
            if (ids[p] == (int32_t)e)
                sorted[padded++] = (int32_t)(pair_ids ? p : row++);
        padded = start + (padded - start + block - 1) / block * block;
        for (uint32_t i = start / block; i < padded / block; i++)
            owner[i] = (int32_t)e;
    }
    const int32_t total[1] = {(int32_t)padded};
    cf_ints_t ids_dev = cf_ints(suite, ids, pairs), sorted_dev = cf_ints_output(suite, most);
    cf_ints_t owner_dev = cf_ints_output(suite, most / block), total_dev = cf_ints_output(suite, 1);
    ferrum_status_t status =
        pair_ids ? suite->mf->moe_align_block_size_pair_ids(
                       suite->ctx, ids_dev.buffer, sorted_dev.buffer, owner_dev.buffer,
                       total_dev.buffer, pairs, experts, block, most, &err)
                 : suite->mf->moe_align_block_size(suite->ctx, ids_dev.buffer, sorted_dev.buffer,
                                                   owner_dev.buffer, total_dev.buffer, pairs,
                                                   experts, block, most, &err);
    if (cf_ok(suite, status, &err)) {
        cf_expect_ints(suite, &sorted_dev, sorted);
        cf_expect_ints(suite, &owner_dev, owner);
        cf_expect_ints(suite, &total_dev, total);
    }
    cf_end(suite);
}

static void ids_tpe_case(cf_suite_t *suite)
{
    enum {
        B = 2,
        K = 2,
        E = 4,
        STRIDE = B * K
    };
    const int32_t selected[STRIDE] = {1, 3, 1, 0}, tpe[E] = {1, 2, 0, 1};
    const int32_t lists[E * STRIDE] = {3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0};
    const uint32_t want[2][3] = {{1, 12, E}, {1, 32, E}};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_buffer_t *args[2] = {NULL, NULL};
    cf_begin(suite, "compute_ids_tpe");
    cf_ints_t sel = cf_ints(suite, selected, STRIDE), tpe_dev = cf_ints_output(suite, E);
    cf_ints_t lists_dev = cf_ints_output(suite, E * STRIDE);
    for (int i = 0; i < 2; i++)
        cf_ok(suite, suite->be->buffer_alloc(suite->device, FERRUM_DTYPE_U32, 3, &args[i], &err),
              &err);
    if (args[0] && args[1] &&
        cf_ok(suite,
              suite->mf->compute_ids_tpe(suite->ctx, sel.buffer, tpe_dev.buffer, lists_dev.buffer,
                                         args[0], args[1], B, E, K, 768, 2048, &err),
              &err)) {
        cf_expect_ints(suite, &tpe_dev, tpe);
        cf_expect_ints(suite, &lists_dev, lists);
        for (int i = 0; i < 2; i++) {
            uint32_t got[3] = {0};
            cf_ok(suite,
                  suite->be->buffer_read(suite->ctx, args[i], 0, FERRUM_DTYPE_U32, got, 3, &err),
                  &err);
            if (memcmp(got, want[i], sizeof got) != 0)
                cf_fail(suite, "launch triple %u %u %u", got[0], got[1], got[2]);
        }
    }
    for (int i = 0; i < 2; i++)
        suite->be->buffer_release(args[i]);
    cf_end(suite);
}

static void upload_case(cf_suite_t *suite)
{
    const int32_t sorted[8] = {0, 6, 6, 6, 1, 2, 3, 6}, owner[2] = {0, 1}, total[1] = {8};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "upload_moe_routing");
    cf_ints_t s = cf_ints_output(suite, 8), o = cf_ints_output(suite, 2),
              t = cf_ints_output(suite, 1);
    ferrum_moe_routing_t routing = {.head = FERRUM_HEAD(ferrum_moe_routing_t),
                                    .sorted_token_ids = s.buffer,
                                    .expert_ids = o.buffer,
                                    .num_tokens_past_padded = t.buffer};
    if (cf_ok(suite,
              suite->mf->upload_moe_routing(suite->ctx, sorted, 8, owner, 2, 8, &routing, &err),
              &err)) {
        cf_expect_ints(suite, &s, sorted);
        cf_expect_ints(suite, &o, owner);
        cf_expect_ints(suite, &t, total);
    }
    cf_end(suite);
}

void cf_group_plan(cf_suite_t *suite)
{
    static const int32_t example[6] = {1, 3, 1, 0, 3, 1};
    pairs_case(suite, 0, 4, 2, false);
    pairs_case(suite, 1, 1, 1, false);
    pairs_case(suite, 40, 8, 4, false);
    pairs_case(suite, 40, 8, 4, true);
    pairs_case(suite, 4096, 128, 8, false);
    pairs_case(suite, 600, 300, 6, false);
    for (int pair_ids = 0; pair_ids < 2; pair_ids++) {
        align_case(suite, example, 6, 4, 4, pair_ids != 0); /* the worked example */
        for (uint32_t block = 8; block <= 64; block *= 2) {
            int32_t ids[777];
            for (int i = 0; i < 777; i++)
                ids[i] = (int32_t)cf_below(suite, 33);
            align_case(suite, ids, 777, 33, block, pair_ids != 0);
            align_case(suite, ids, 0, 33, block, pair_ids != 0);
        }
    }
    ids_tpe_case(suite);
    upload_case(suite);
}

static void stacked_sum_cases(cf_suite_t *suite, uint32_t n, uint32_t h)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    for (int form = 0; form < 3; form++) {
        static const char *const names[] = {"weighted_sum_stacked", "weighted_sum_residual_stacked",
                                            "weighted_sum_residual_norm_stacked"};
        cf_begin(suite, "%s n=%u h=%u", names[form], n, h);
        cf_tensor_t slots = cf_input(suite, (uint64_t)n * h, 2), residual = cf_input(suite, h, 2);
        double *w = cf_memory(suite, (n + 1) * sizeof *w);
        for (uint32_t j = 0; j < n; j++)
            w[j] = cf_uniform(suite);
        cf_tensor_t weights = cf_f32(suite, w, n), norm = cf_input(suite, h, 1);
        cf_tensor_t out = cf_output(suite, h);
        double *sum = cf_memory(suite, h * sizeof *sum),
               *normed = cf_memory(suite, h * sizeof *sum);
        for (uint32_t i = 0; i < h; i++) {
            sum[i] = form ? residual.v[i] : 0;
            for (uint32_t j = 0; j < n; j++)
                sum[i] += weights.v[j] * slots.v[(size_t)j * h + i];
        }
        ferrum_status_t status;
        if (form == 0)
            status = suite->mf->weighted_sum_stacked(suite->ctx, slots.buffer, weights.buffer,
                                                     out.buffer, n, h, &err);
        else if (form == 1)
            status = suite->mf->weighted_sum_residual_stacked(
                suite->ctx, slots.buffer, weights.buffer, residual.buffer, n, h, &err);
        else
            status = suite->mf->weighted_sum_residual_norm_stacked(
                suite->ctx, slots.buffer, weights.buffer, residual.buffer, norm.buffer, out.buffer,
                n, h, 1e-6F, &err);
        if (cf_ok(suite, status, &err)) {
            cf_expect_rows(suite, form ? &residual : &out, sum, h, 2);
            cf_ref_rms_norm(sum, norm.v, 1e-6, normed, h);
            if (form == 2)
                cf_expect_rows(suite, &out, normed, h, 3);
        }
        cf_end(suite);
    }
}

static void batched_sum_cases(cf_suite_t *suite, uint32_t batch, uint32_t k, uint32_t h)
{
    enum {
        W_OFFSET = 3,
        OUT_OFFSET = 2
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint64_t pairs = (uint64_t)batch * k;
    for (int form = 0; form < 3; form++) {
        static const char *const names[] = {"weighted_sum_batched", "weighted_sum_batched_offset",
                                            "moe_combine"};
        uint32_t w_at = form == 1 ? W_OFFSET : 0, out_at = form == 1 ? OUT_OFFSET * h : 0;
        cf_begin(suite, "%s batch=%u top_k=%u h=%u", names[form], batch, k, h);
        cf_tensor_t slots = cf_input(suite, pairs * h, 2);
        double *w = cf_memory(suite, (pairs + W_OFFSET) * sizeof *w);
        int32_t *order = cf_memory(suite, (pairs + 1) * sizeof *order);
        for (uint64_t p = 0; p < pairs + W_OFFSET; p++)
            w[p] = cf_uniform(suite);
        for (uint64_t p = 0; p < pairs; p++)
            order[p] = p % 7 == 3 ? -1 : (int32_t)(pairs - 1 - p);
        cf_tensor_t weights = cf_f32(suite, w, pairs + W_OFFSET);
        cf_tensor_t out = cf_output(suite, out_at + (uint64_t)batch * h);
        cf_ints_t order_dev = cf_ints(suite, order, pairs);
        double *sum = cf_memory(suite, out.count * sizeof *sum);
        memcpy(sum, out.v, out.count * sizeof *sum);
        for (uint32_t t = 0; t < batch; t++)
            for (uint32_t i = 0; i < h; i++) {
                double *to = &sum[out_at + (size_t)t * h + i];
                *to = 0;
                for (uint32_t j = 0; j < k; j++) {
                    int64_t row = (int64_t)t * k + j;
                    double weight = weights.v[w_at + row];
                    if (form == 2)
                        row = order[row];
                    if (row >= 0)
                        *to += weight * slots.v[(size_t)row * h + i];
                }
            }
        ferrum_status_t status;
        if (form == 0)
            status = suite->mf->weighted_sum_batched(suite->ctx, slots.buffer, weights.buffer,
                                                     out.buffer, batch, k, h, &err);
        else if (form == 1)
            status =
                suite->mf->weighted_sum_batched_offset(suite->ctx, slots.buffer, weights.buffer,
                                                       w_at, out.buffer, out_at, batch, k, h, &err);
        else
            status =
                suite->mf->moe_combine(suite->ctx, slots.buffer, order_dev.buffer, weights.buffer,
                                       out.buffer, batch, h, k, (uint32_t)pairs, &err);
        if (cf_ok(suite, status, &err))
            cf_expect_rows(suite, &out, sum, h, 2);
        cf_end(suite);
    }
}

static void silu_cases(cf_suite_t *suite, uint32_t pairs, uint32_t im)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    for (int stacked = 0; stacked < 2; stacked++) {
        cf_begin(suite, "silu_mul_%s %ux%u", stacked ? "stacked" : "batched", pairs, im);
        uint64_t count = (uint64_t)pairs * im;
        cf_tensor_t gate = cf_input(suite, count, 8), up = cf_input(suite, count, 2);
        cf_tensor_t out = cf_output(suite, count);
        double *reference = cf_memory(suite, count * sizeof *reference);
        for (uint64_t i = 0; i < count; i++)
            reference[i] = cf_silu(gate.v[i]) * up.v[i];
        ferrum_status_t status =
            stacked ? suite->mf->silu_mul_stacked(suite->ctx, gate.buffer, up.buffer, out.buffer,
                                                  pairs, im, &err)
                    : suite->mf->silu_mul_batched(suite->ctx, gate.buffer, up.buffer, out.buffer,
                                                  pairs, im, &err);
        if (cf_ok(suite, status, &err))
            cf_expect_rows(suite, &out, reference, im, 1);
        cf_end(suite);
    }
}

void cf_group_combine(cf_suite_t *suite)
{
    static const uint32_t widths[] = {1, 17, 64, 300};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        stacked_sum_cases(suite, 1, widths[i]);
        stacked_sum_cases(suite, 8, widths[i]);
        batched_sum_cases(suite, 0, 2, widths[i]);
        batched_sum_cases(suite, 1, 8, widths[i]);
        batched_sum_cases(suite, 13, 4, widths[i]);
        silu_cases(suite, 0, widths[i]);
        silu_cases(suite, 9, widths[i]);
    }
}
