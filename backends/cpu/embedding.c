/* SPDX-License-Identifier: MIT */
/* Rows of a table by id; also the gather of MoE rows. */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/parallel.h"

/** A checked look-up. */
typedef struct lookup {
    ferrum_dequant_fn *decode;
    const char *table;
    size_t row_bytes;
    const uint32_t *ids; /**< i32 buffers hold the same bits, once their range is checked */
    float *out;
    uint32_t dim;
} lookup_t;

static void lookup_row(void *arg, uint64_t item, uint32_t thread)
{
    const lookup_t *lookup = arg;
    lookup->decode(lookup->table + lookup->ids[item] * lookup->row_bytes,
                   lookup->out + item * lookup->dim, lookup->dim);
}

/** Table and output; the number of table rows. */
static ferrum_status_t check_lookup(const char *function, const ferrum_context_t *ctx,
                                    const ferrum_buffer_t *table, const ferrum_buffer_t *out,
                                    uint32_t count, uint32_t dim, uint64_t *out_rows,
                                    ferrum_error_t *err)
{
    /* An integer table fails against the dtype it should have. */
    const bool is_half =
        table && (table->dtype == FERRUM_DTYPE_F16 || table->dtype == FERRUM_DTYPE_BF16);
    const ferrum_cpu_operand_t operands[] = {
        {"table", table, is_half ? table->dtype : FERRUM_DTYPE_F32, 0, 0},
        {"out", out, FERRUM_DTYPE_F32, 0, ferrum_size_mul(count, dim)}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 2, err));
    *out_rows = dim ? table->count / dim : UINT64_MAX;
    return FERRUM_OK;
}

static void run_lookup(ferrum_context_t *ctx, const ferrum_buffer_t *table, const uint32_t *ids,
                       uint32_t count, ferrum_buffer_t *out, uint32_t dim)
{
    static const ferrum_weight_format_t formats[] = {FERRUM_FORMAT_F32, FERRUM_FORMAT_F16,
                                                     FERRUM_FORMAT_BF16};
    lookup_t lookup = {.decode = ferrum_kernel_dequant(formats[table->dtype]),
                       .table = table->data,
                       .row_bytes = (size_t)dim * ferrum_dtype_bytes(table->dtype),
                       .ids = ids,
                       .out = ferrum_cpu_f32(out),
                       .dim = dim};
    ferrum_cpu_for_each(ctx, count, lookup_row, &lookup);
}

ferrum_status_t ferrum_cpu_embedding_lookup(ferrum_context_t *ctx, const ferrum_buffer_t *table,
                                            const uint32_t *ids, uint32_t count,
                                            ferrum_buffer_t *out, uint32_t dim, ferrum_error_t *err)
{
    uint64_t rows;

    FERRUM_TRY(check_lookup(__func__, ctx, table, out, count, dim, &rows, err));
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(ids, err);
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] >= rows)
            return FERRUM_REFUSE_INPUT(err, FERRUM_REASON_RANGE,
                                       "ids[%u] is %u, the table has %llu rows", i, ids[i],
                                       (unsigned long long)rows);
    run_lookup(ctx, table, ids, count, out, dim);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_embedding_lookup_dev(ferrum_context_t *ctx, const ferrum_buffer_t *table,
                                                const ferrum_buffer_t *ids, uint32_t count,
                                                ferrum_buffer_t *out, uint32_t dim,
                                                ferrum_error_t *err)
{
    uint64_t rows;

    FERRUM_TRY(check_lookup(__func__, ctx, table, out, count, dim, &rows, err));
    FERRUM_CPU_CHECK(ctx, err, {"ids", ids, FERRUM_DTYPE_I32, 0, count});
    FERRUM_TRY(ferrum_cpu_check_ids(__func__, "ids", ferrum_cpu_i32(ids), count, 0,
                                    rows < INT32_MAX ? (int64_t)rows : INT64_MAX, err));
    run_lookup(ctx, table, ferrum_cpu_u32(ids), count, out, dim);
    return FERRUM_OK;
}
