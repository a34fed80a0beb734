/* SPDX-License-Identifier: MIT */
/* Rows of a table by id; also the gather of MoE rows. */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"
#include "kernels/cuda/args.h"

/** Table and output; the number of table rows. */
static ferrum_status_t check_lookup(const char *function, ferrum_context_t *ctx,
                                    const ferrum_buffer_t *table, const ferrum_buffer_t *out,
                                    uint32_t count, uint32_t dim, uint64_t *out_rows,
                                    ferrum_error_t *err)
{
    const ferrum_cuda_operand_t operands[] = {
        {"table", table, FERRUM_CUDA_FLOAT, 0, 0},
        {"out", out, FERRUM_CUDA_ACT, 0, ferrum_size_mul(count, dim)}};

    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, 2, err));
    *out_rows = dim ? table->count / dim : UINT64_MAX;
    return FERRUM_OK;
}

static ferrum_status_t run_lookup(ferrum_context_t *ctx, const ferrum_buffer_t *table,
                                  CUdeviceptr ids, uint32_t count, ferrum_buffer_t *out,
                                  uint32_t dim, uint64_t rows, ferrum_error_t *err)
{
    const ferrum_lookup_args_t args = {.table = ferrum_cuda_at(table, 0),
                                       .ids = ids,
                                       .out = ferrum_cuda_at(out, 0),
                                       .rows = rows,
                                       .dim = dim,
                                       .table_dtype = table->dtype};
    const ferrum_cuda_grid_t grid = {dim ? count : 0, 1, 1, 256, 0};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_lookup, grid, &args, err);
}

ferrum_status_t ferrum_cuda_embedding_lookup(ferrum_context_t *ctx, const ferrum_buffer_t *table,
                                             const uint32_t *ids, uint32_t count,
                                             ferrum_buffer_t *out, uint32_t dim,
                                             ferrum_error_t *err)
{
    CUdeviceptr uploaded;
    uint64_t rows;

    FERRUM_TRY(check_lookup(__func__, ctx, table, out, count, dim, &rows, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(ids, err);
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] >= rows)
            return FERRUM_REFUSE_INPUT(err, FERRUM_REASON_RANGE,
                                       "ids[%u] is %u, the table has %llu rows", i, ids[i],
                                       (unsigned long long)rows);
    FERRUM_TRY(
        ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_UPLOAD, count * sizeof *ids, &uploaded, err));
    FERRUM_TRY(ferrum_cuda_upload(ctx, uploaded, ids, count, sizeof *ids, NULL, err));
    return run_lookup(ctx, table, uploaded, count, out, dim, rows, err);
}

ferrum_status_t ferrum_cuda_embedding_lookup_dev(ferrum_context_t *ctx,
                                                 const ferrum_buffer_t *table,
                                                 const ferrum_buffer_t *ids, uint32_t count,
                                                 ferrum_buffer_t *out, uint32_t dim,
                                                 ferrum_error_t *err)
{
    uint64_t rows;

    FERRUM_TRY(check_lookup(__func__, ctx, table, out, count, dim, &rows, err));
    FERRUM_CUDA_CHECK(ctx, err, {"ids", ids, FERRUM_DTYPE_I32, 0, count});
    return run_lookup(ctx, table, ferrum_cuda_at(ids, 0), count, out, dim, rows, err);
}
