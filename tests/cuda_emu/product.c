/* SPDX-License-Identifier: MIT */
#include "tests/cuda_emu/product.h"

#include <math.h>
#include <stdlib.h>

#include "tests/cuda_emu/fixture.h"

enum {
    M = 32,
    K = 192
};

static CUdeviceptr random_matrix(double *values, size_t count, bool bfloat)
{
    static uint16_t bits[64 * K];

    for (size_t i = 0; i < count; i++) {
        bits[i] = (uint16_t)((bfloat ? 0x3c00u : 0x3400u) | (fixture_random() & 0x83ffu));
        values[i] = bfloat ? fixture_bf16_value(bits[i]) : fixture_f16_value(bits[i]);
    }
    return fixture_upload(bits, count * sizeof *bits);
}

double product_error(bool bfloat, uint32_t bug)
{
    static double a[M * K], b[64 * K];
    static float c[M * 64];
    uint32_t n = bfloat ? 32 : 64, k = K;
    const uint32_t tile_n = bfloat ? 16 : 32, tile_k = bfloat ? 64 : 32;
    const uint32_t shared_bytes = 2 * (16 + tile_n) * (tile_k + 8) * 2;
    CUdeviceptr da = random_matrix(a, (size_t)M * K, bfloat);
    CUdeviceptr db = random_matrix(b, (size_t)n * K, bfloat);
    CUdeviceptr dc = fixture_upload(c, (size_t)M * n * sizeof *c);
    double worst = 0;

    cu.cuMemsetD8(dc, 0xff, (size_t)M * n * sizeof *c);
    cu.cuLaunchKernel(fixture_kernel(bfloat ? "example_product_bf16" : "example_product_f16"),
                      n / tile_n, M / 16, 1, bfloat ? 64 : 128, 1, 1, shared_bytes, NULL,
                      (void *[]){&da, &db, &dc, &n, &k, &bug}, NULL);
    if (fixture_wait() != CUDA_SUCCESS)
        return (double)INFINITY;
    fixture_download(c, dc, (size_t)M * n * sizeof *c);
    for (uint32_t row = 0; row < M; row++) {
        for (uint32_t column = 0; column < n; column++) {
            double sum = 0, scale = 0, error;

            for (uint32_t i = 0; i < K; i++) {
                const double term = a[row * K + i] * b[column * K + i];

                sum += term;
                scale += fabs(term);
            }
            error = fabs((double)c[row * n + column] - sum) / scale;
            if (!(error <= worst)) /* NaN counts */
                worst = isnan(error) ? (double)INFINITY : error;
        }
    }
    fixture_free(da);
    fixture_free(db);
    fixture_free(dc);
    return worst;
}
