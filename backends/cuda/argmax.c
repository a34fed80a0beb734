/* SPDX-License-Identifier: MIT */
/* Index of the largest logit per row, over all ids or those of a mask. */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"
#include "kernels/cuda/args.h"

#include <math.h>
#include <string.h>

enum {
    THREADS = 256
};

/** Logits, mask and output of every form; they wait, so they cannot be captured. */
static ferrum_status_t check_search(const char *function, ferrum_context_t *ctx,
                                    const ferrum_buffer_t *logits, const ferrum_buffer_t *mask,
                                    uint32_t m, uint32_t n, const uint32_t *out_ids,
                                    ferrum_error_t *err)
{
    const ferrum_cuda_operand_t operands[] = {
        {"logits", logits, FERRUM_CUDA_ACT, 0, ferrum_size_mul(m, n)},
        {"mask", mask, FERRUM_DTYPE_U32, 0, ferrum_cuda_ceil(n, 32)}};

    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, mask ? 2 : 1, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, function, err));
    if (m == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_check_pointer(function, "out_ids", out_ids, err));
    if (n == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: rows are empty, there is no largest element",
                           ferrum_op_name(function));
    return FERRUM_OK;
}

static ferrum_status_t refuse_mask(const char *function, uint32_t n, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                       "%s: the mask allows none of %u ids", ferrum_op_name(function), n);
}

/** Search and read the result; a mask that allows nothing shows as the id n. */
static ferrum_status_t search(const char *function, ferrum_context_t *ctx,
                              const ferrum_buffer_t *logits, const ferrum_buffer_t *mask,
                              uint32_t m, uint32_t n, uint32_t *out_ids, ferrum_error_t *err)
{
    const ferrum_cuda_grid_t grid = {m, 1, 1, THREADS,
                                     THREADS * (sizeof(float) + sizeof(uint32_t))};
    ferrum_argmax_args_t args = {
        .logits = ferrum_cuda_at(logits, 0), .mask = mask ? ferrum_cuda_at(mask, 0) : 0, .n = n};
    CUdeviceptr ids;
    uint32_t first;

    FERRUM_TRY(
        ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_RESULT, m * sizeof *out_ids, &ids, err));
    args.ids = ids;
    FERRUM_TRY(ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_argmax, grid, &args, err));
    if (mask) {
        /* Rows share the mask: look at one before anything of the caller's is written. */
        FERRUM_TRY(ferrum_cuda_download(ctx, ids, &first, 1, sizeof first, NULL, err));
        if (first >= n)
            return refuse_mask(function, n, err);
    }
    return ferrum_cuda_download(ctx, ids, out_ids, m, sizeof *out_ids, NULL, err);
}

ferrum_status_t ferrum_cuda_argmax_rows(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                        uint32_t m, uint32_t n, uint32_t *out_ids,
                                        ferrum_error_t *err)
{
    FERRUM_TRY(check_search(__func__, ctx, logits, NULL, m, n, out_ids, err));
    return m ? search(__func__, ctx, logits, NULL, m, n, out_ids, err) : FERRUM_OK;
}

ferrum_status_t ferrum_cuda_argmax_rows_masked(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                               const ferrum_buffer_t *mask, uint32_t m, uint32_t n,
                                               uint32_t *out_ids, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(mask, err);
    FERRUM_TRY(check_search(__func__, ctx, logits, mask, m, n, out_ids, err));
    return m ? search(__func__, ctx, logits, mask, m, n, out_ids, err) : FERRUM_OK;
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

/** Send the arrays, one after the other in scratch, and change the logits. */
static ferrum_status_t penalise(ferrum_context_t *ctx, ferrum_buffer_t *logits,
                                const uint32_t *row_offsets, const uint32_t *token_ids,
                                const float *penalties, uint32_t m, uint32_t n, ferrum_error_t *err)
{
    const uint64_t tokens = row_offsets[m], words = (uint64_t)m + 1 + m + tokens;
    const ferrum_cuda_grid_t grid = {m, 1, 1, THREADS, 0};
    CUdeviceptr at;

    if (row_offsets[0] == tokens)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_UPLOAD, 4 * words, &at, err));
    const ferrum_penalise_args_t args = {.logits = ferrum_cuda_at(logits, 0),
                                         .row_offsets = at,
                                         .penalties = at + 4 * ((uint64_t)m + 1),
                                         .token_ids = at + 4 * (2 * (uint64_t)m + 1),
                                         .n = n};
    FERRUM_TRY(
        ferrum_cuda_upload(ctx, args.row_offsets, row_offsets, (uint64_t)m + 1, 4, NULL, err));
    FERRUM_TRY(ferrum_cuda_upload(ctx, args.penalties, penalties, m, 4, NULL, err));
    FERRUM_TRY(ferrum_cuda_upload(ctx, args.token_ids, token_ids, tokens, 4, NULL, err));
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_penalise, grid, &args, err);
}

ferrum_status_t ferrum_cuda_argmax_rows_repetition_penalty(
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
    if (mask) {
        /* A mask that allows nothing must be found before the logits change. */
        uint32_t id;
        FERRUM_TRY(search(__func__, ctx, logits, mask, 1, n, &id, err));
    }
    FERRUM_TRY(penalise(ctx, logits, row_offsets, token_ids, penalties, m, n, err));
    return search(__func__, ctx, logits, mask, m, n, out_ids, err);
}
