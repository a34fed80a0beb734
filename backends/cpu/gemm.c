/* SPDX-License-Identifier: MIT */
/* The dense product of activations with an f32 matrix in a buffer. */
#include "backends/cpu/entries.h"
#include "backends/cpu/grouped.h"

ferrum_status_t ferrum_cpu_gemm(ferrum_context_t *ctx, const ferrum_buffer_t *a,
                                const ferrum_buffer_t *b, ferrum_buffer_t *out, uint32_t m,
                                uint32_t n, uint32_t k, ferrum_error_t *err)
{
    ferrum_cpu_product_t product;

    FERRUM_CPU_CHECK(ctx, err, {"a", a, FERRUM_DTYPE_F32, 0, ferrum_size_mul(m, k)},
                     {"b", b, FERRUM_DTYPE_F32, 0, ferrum_size_mul(n, k)},
                     {"out", out, FERRUM_DTYPE_F32, 0, ferrum_size_mul(m, n)});
    if (m == 0)
        return FERRUM_OK;
    const ferrum_device_t *device = ctx->device;
    const ferrum_cpu_matrix_t matrix = {
        .n = n,
        .k = k,
        .matmul = ferrum_kernel_matmul(device->kernels, device->features, FERRUM_FORMAT_F32),
        .rows = b->data,
        .row_bytes = (size_t)k * sizeof(float),
    };
    ferrum_cpu_bucket_t bucket = {.count = m};
    FERRUM_TRY(ferrum_cpu_product_init(
        ctx, &product, &matrix, &bucket, 1, (ferrum_cpu_rows_t){ferrum_cpu_f32(a), NULL, k},
        (ferrum_cpu_rows_t){ferrum_cpu_f32(out), NULL, n}, m, FERRUM_CPU_SCRATCH_GATHER, err));
    ferrum_cpu_product_run(ctx, &product);
    return FERRUM_OK;
}
