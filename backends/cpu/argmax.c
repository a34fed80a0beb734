/* SPDX-License-Identifier: MIT */
/* Index of the largest logit per row, over all ids or those of a mask. */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/parallel.h"

#include <math.h>

/** A checked search; also the argument of the parallel loop. */
typedef struct search {
    float *logits;
    const uint32_t *mask;        /**< NULL: all ids */
    const uint32_t *row_offsets; /**< NULL: no penalty */
    const uint32_t *token_ids;
    const float *penalties;
    uint32_t n;
    uint32_t *out_ids;
} search_t;

static bool allowed(const uint32_t *mask, uint32_t id)
{
    return !mask || (mask[id / 32] >> id % 32 & 1u);
}

static uint32_t row_argmax(const float *row, const uint32_t *mask, uint32_t n)
{
    uint32_t best = n;

    for (uint32_t i = 0; i < n; i++) {
        if (!allowed(mask, i))
            continue;
        /* The first allowed id stands in until a number comes along; NaN loses to all of them. */
        if (best == n || row[i] > row[best] || (isnan(row[best]) && !isnan(row[i])))
            best = i;
    }
    return best;
}

static void penalise(const search_t *search, uint64_t row, float *logits)
{
    for (uint32_t i = search->row_offsets[row]; i < search->row_offsets[row + 1]; i++) {
        float *logit = &logits[search->token_ids[i]];
        *logit = *logit > 0.0f ? *logit / search->penalties[row] : *logit * search->penalties[row];
    }
}

static void search_row(void *arg, uint64_t item, uint32_t thread)
{
    const search_t *search = arg;
    float *row = search->logits + item * search->n;

    if (search->row_offsets)
        penalise(search, item, row);
    search->out_ids[item] = row_argmax(row, search->mask, search->n);
}

/** Logits, mask and output of every form. */
static ferrum_status_t check_search(const char *function, const ferrum_context_t *ctx,
                                    const ferrum_buffer_t *logits, const ferrum_buffer_t *mask,
                                    uint32_t m, uint32_t n, const uint32_t *out_ids,
                                    ferrum_error_t *err)
{
    const ferrum_cpu_operand_t operands[] = {
        {"logits", logits, FERRUM_DTYPE_F32, 0, ferrum_size_mul(m, n)},
        {"mask", mask, FERRUM_DTYPE_U32, 0, n / 32 + (n % 32 != 0)}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, mask ? 2 : 1, err));
    if (m == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_check_pointer(function, "out_ids", out_ids, err));
    if (n == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: rows are empty, there is no largest element",
                           ferrum_op_name(function));
    for (uint32_t i = 0; mask && i < n; i++)
        if (allowed(ferrum_cpu_u32(mask), i))
            return FERRUM_OK;
    if (!mask)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                       "%s: the mask allows none of %u ids", ferrum_op_name(function), n);
}

static void run_search(ferrum_context_t *ctx, search_t *search, uint32_t m)
{
    ctx->stats.syncs++;
    ferrum_cpu_for_each(ctx, m, search_row, search);
}

ferrum_status_t ferrum_cpu_argmax_rows(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                       uint32_t m, uint32_t n, uint32_t *out_ids,
                                       ferrum_error_t *err)
{
    FERRUM_TRY(check_search(__func__, ctx, logits, NULL, m, n, out_ids, err));
    search_t search = {.logits = ferrum_cpu_f32(logits), .n = n, .out_ids = out_ids};
    run_search(ctx, &search, m);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_argmax_rows_masked(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                              const ferrum_buffer_t *mask, uint32_t m, uint32_t n,
                                              uint32_t *out_ids, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(mask, err);
    FERRUM_TRY(check_search(__func__, ctx, logits, mask, m, n, out_ids, err));
    search_t search = {
        .logits = ferrum_cpu_f32(logits), .mask = ferrum_cpu_u32(mask), .n = n, .out_ids = out_ids};
    run_search(ctx, &search, m);
    return FERRUM_OK;
}

static ferrum_status_t check_penalties(const uint32_t *row_offsets, const uint32_t *token_ids,
                                       const float *penalties, uint32_t m, uint32_t n,
                                       ferrum_error_t *err)
{
    static const char op[] = "argmax_rows_repetition_penalty";

    for (uint32_t r = 0; r < m; r++) {
        if (row_offsets[r] > row_offsets[r + 1])
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                               "%s: row_offsets fall from %u to %u at row %u", op, row_offsets[r],
                               row_offsets[r + 1], r);
        if (!(penalties[r] > 0.0f) || !isfinite(penalties[r]))
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "%s: the penalty of row %u is %g, expected a number above 0", op, r,
                               (double)penalties[r]);
    }
    for (uint32_t i = row_offsets[0]; i < row_offsets[m]; i++)
        if (token_ids[i] >= n)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "%s: token_ids[%u] is %u, rows have %u logits", op, i, token_ids[i],
                               n);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_argmax_rows_repetition_penalty(
    ferrum_context_t *ctx, ferrum_buffer_t *logits, const ferrum_buffer_t *mask,
    const uint32_t *row_offsets, const uint32_t *token_ids, const float *penalties, uint32_t m,
    uint32_t n, uint32_t *out_ids, ferrum_error_t *err)
{
    FERRUM_TRY(check_search(__func__, ctx, logits, mask, m, n, out_ids, err));
    if (m == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(row_offsets, err);
    FERRUM_CHECK_POINTER(penalties, err);
    if (row_offsets[0] < row_offsets[m])
        FERRUM_CHECK_POINTER(token_ids, err);
    FERRUM_TRY(check_penalties(row_offsets, token_ids, penalties, m, n, err));
    search_t search = {.logits = ferrum_cpu_f32(logits),
                       .mask = mask ? ferrum_cpu_u32(mask) : NULL,
                       .row_offsets = row_offsets,
                       .token_ids = token_ids,
                       .penalties = penalties,
                       .n = n,
                       .out_ids = out_ids};
    run_search(ctx, &search, m);
    return FERRUM_OK;
}
