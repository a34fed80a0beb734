/* SPDX-License-Identifier: MIT */
#include "tests/cuda_emu/product_sm90.h"

#include <math.h>
#include <string.h>

#include "tests/cuda_emu/fixture.h"

const char *const product_sm90_bugs[PRODUCT_SM90_BUGS] = {
    "none",          "no-full-wait",     "no-empty-wait",  "no-empty-arrive", "early-release",
    "wrong-expect",  "no-copy-wait",     "no-async-fence", "no-init-fence",   "no-wgmma-fence",
    "no-wgmma-wait", "registers-reused", "absent-warp",
};

/* As the PTX ISA manual draws the first quarter of each: the lane, and the register below it. */
void product_sm90_a_place(uint32_t row, uint32_t pair, uint32_t *out_lane, uint32_t *out_word)
{
    static const uint8_t lanes[8][8] = {
        {0, 1, 2, 3, 0, 1, 2, 3},         {4, 5, 6, 7, 4, 5, 6, 7},
        {8, 9, 10, 11, 8, 9, 10, 11},     {12, 13, 14, 15, 12, 13, 14, 15},
        {16, 17, 18, 19, 16, 17, 18, 19}, {20, 21, 22, 23, 20, 21, 22, 23},
        {24, 25, 26, 27, 24, 25, 26, 27}, {28, 29, 30, 31, 28, 29, 30, 31},
    };
    static const uint8_t words[2][8] = {{0, 0, 0, 0, 2, 2, 2, 2}, {1, 1, 1, 1, 3, 3, 3, 3}};

    *out_lane = lanes[row % 8][pair];
    *out_word = words[row / 8][pair];
}

void product_sm90_d_place(uint32_t row, uint32_t column, uint32_t *out_thread, uint32_t *out_sum)
{
    static const uint8_t lanes[8][8] = {
        {0, 0, 1, 1, 2, 2, 3, 3},         {4, 4, 5, 5, 6, 6, 7, 7},
        {8, 8, 9, 9, 10, 10, 11, 11},     {12, 12, 13, 13, 14, 14, 15, 15},
        {16, 16, 17, 17, 18, 18, 19, 19}, {20, 20, 21, 21, 22, 22, 23, 23},
        {24, 24, 25, 25, 26, 26, 27, 27}, {28, 28, 29, 29, 30, 30, 31, 31},
    };
    static const uint8_t sums[2][8] = {{0, 1, 0, 1, 0, 1, 0, 1}, {2, 3, 2, 3, 2, 3, 2, 3}};

    *out_thread = row / 16 * 32 + lanes[row % 8][column % 8];
    *out_sum = column / 8 * 4 + sums[row / 8 % 2][column % 8];
}

enum {
    STEPS = 5,
    ROWS = 64,
    K = 64 * STEPS
};

double product_sm90_error(uint32_t bug)
{
    static uint16_t a[ROWS][K], b[ROWS][K], operands[STEPS][128][4][4][2];
    static float d[128][32];
    uint32_t steps = STEPS;
    double worst = 0;

    for (uint32_t row = 0; row < ROWS; row++)
        for (uint32_t k = 0; k < K; k++) {
            uint32_t lane, word;
            a[row][k] = (uint16_t)(0x3400u | (fixture_random() & 0x83ffu));
            b[row][k] = (uint16_t)(0x3400u | (fixture_random() & 0x83ffu));
            product_sm90_a_place(row % 16, k % 16 / 2, &lane, &word);
            operands[k / 64][row / 16 * 32 + lane][k % 64 / 16][word][k % 2] = a[row][k];
        }
    memset(d, 0xff, sizeof d);
    CUdeviceptr da = fixture_upload(operands, sizeof operands), db = fixture_upload(b, sizeof b);
    CUdeviceptr dd = fixture_upload(d, sizeof d);
    cu.cuLaunchKernel(fixture_kernel("example_wgmma_f16"), 1, 1, 1, 256, 1, 1, 1024 + 2 * 16384,
                      NULL, (void *[]){&da, &db, &dd, &steps, &bug}, NULL);
    if (fixture_wait() != CUDA_SUCCESS)
        return (double)INFINITY;
    fixture_download(d, dd, sizeof d);
    for (uint32_t row = 0; row < ROWS; row++)
        for (uint32_t column = 0; column < ROWS; column++) {
            uint32_t thread, place;
            double sum = 0, scale = 0;
            for (uint32_t k = 0; k < K; k++) {
                const double term = fixture_f16_value(a[row][k]) * fixture_f16_value(b[column][k]);
                sum += term;
                scale += fabs(term);
            }
            product_sm90_d_place(row, column, &thread, &place);
            const double error = fabs((double)d[thread][place] - sum) / scale;
            if (!(error <= worst)) /* NaN counts */
                worst = isnan(error) ? (double)INFINITY : error;
        }
    fixture_free(da);
    fixture_free(db);
    fixture_free(dd);
    return worst;
}
