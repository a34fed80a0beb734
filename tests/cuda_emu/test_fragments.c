/* SPDX-License-Identifier: MIT */
/*
 * Matrix wrappers against the fragment layouts of the PTX ISA manual, drawn here as the manual
 * draws them: for each element of a matrix, the lane that holds it and its place there.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/fixture.h"

typedef struct owner {
    uint8_t lane;
    uint8_t place; /* first element of the run of neighbours that lie in one register */
} owner_t;

/* A of m16n8k16, in pairs: row, then k = 0-1, 2-3, .. 14-15. */
#define ROW_A16(l, low, high)                                                                      \
    {                                                                                              \
        {l, low}, {l + 1, low}, {l + 2, low}, {l + 3, low}, {l, high}, {l + 1, high},              \
            {l + 2, high},                                                                         \
        {                                                                                          \
            l + 3, high                                                                            \
        }                                                                                          \
    }
static const owner_t a_16[16][8] = {
    ROW_A16(0, 0, 4),  ROW_A16(4, 0, 4),  ROW_A16(8, 0, 4),  ROW_A16(12, 0, 4),
    ROW_A16(16, 0, 4), ROW_A16(20, 0, 4), ROW_A16(24, 0, 4), ROW_A16(28, 0, 4),
    ROW_A16(0, 2, 6),  ROW_A16(4, 2, 6),  ROW_A16(8, 2, 6),  ROW_A16(12, 2, 6),
    ROW_A16(16, 2, 6), ROW_A16(20, 2, 6), ROW_A16(24, 2, 6), ROW_A16(28, 2, 6),
};
/* B of m16n8k16, in pairs: k = 0-1, .. 14-15, then column. */
#define ROW_B16(l, place)                                                                          \
    {                                                                                              \
        {l, place}, {l + 4, place}, {l + 8, place}, {l + 12, place}, {l + 16, place},              \
            {l + 20, place}, {l + 24, place},                                                      \
        {                                                                                          \
            l + 28, place                                                                          \
        }                                                                                          \
    }
static const owner_t b_16[8][8] = {
    ROW_B16(0, 0), ROW_B16(1, 0), ROW_B16(2, 0), ROW_B16(3, 0),
    ROW_B16(0, 2), ROW_B16(1, 2), ROW_B16(2, 2), ROW_B16(3, 2),
};
/* A of m16n8k32 for bytes, in fours: row, then k = 0-3, .. 28-31. */
static const owner_t a_32[16][8] = {
    ROW_A16(0, 0, 8),   ROW_A16(4, 0, 8),   ROW_A16(8, 0, 8),   ROW_A16(12, 0, 8),
    ROW_A16(16, 0, 8),  ROW_A16(20, 0, 8),  ROW_A16(24, 0, 8),  ROW_A16(28, 0, 8),
    ROW_A16(0, 4, 12),  ROW_A16(4, 4, 12),  ROW_A16(8, 4, 12),  ROW_A16(12, 4, 12),
    ROW_A16(16, 4, 12), ROW_A16(20, 4, 12), ROW_A16(24, 4, 12), ROW_A16(28, 4, 12),
};
/* B of m16n8k32, in fours: k = 0-3, .. 28-31, then column. */
static const owner_t b_32[8][8] = {
    ROW_B16(0, 0), ROW_B16(1, 0), ROW_B16(2, 0), ROW_B16(3, 0),
    ROW_B16(0, 4), ROW_B16(1, 4), ROW_B16(2, 4), ROW_B16(3, 4),
};
/* C and D, in pairs: row, then columns 0-1, .. 6-7. */
#define ROW_C(l, place)                                                                            \
    {                                                                                              \
        {l, place}, {l + 1, place}, {l + 2, place},                                                \
        {                                                                                          \
            l + 3, place                                                                           \
        }                                                                                          \
    }
static const owner_t c_owner[16][4] = {
    ROW_C(0, 0),  ROW_C(4, 0),  ROW_C(8, 0),  ROW_C(12, 0), ROW_C(16, 0), ROW_C(20, 0),
    ROW_C(24, 0), ROW_C(28, 0), ROW_C(0, 2),  ROW_C(4, 2),  ROW_C(8, 2),  ROW_C(12, 2),
    ROW_C(16, 2), ROW_C(20, 2), ROW_C(24, 2), ROW_C(28, 2),
};

static void mma_float(const char *kernel, double (*value)(uint16_t), uint16_t exponent_mask)
{
    uint16_t a[32][8], b[32][4];
    float c[32][4], d[32][4];
    CUdeviceptr da, db, dd;

    for (int i = 0; i < 32; i++) {
        for (int j = 0; j < 8; j++)
            a[i][j] = (uint16_t)(exponent_mask | (fixture_random() & 0x83ffu));
        for (int j = 0; j < 4; j++) {
            b[i][j] = (uint16_t)(exponent_mask | (fixture_random() & 0x83ffu));
            c[i][j] = (float)(int)(fixture_random() % 64) - 32.0f;
        }
    }
    da = fixture_upload(a, sizeof a);
    db = fixture_upload(b, sizeof b);
    dd = fixture_upload(c, sizeof c);
    fixture_launch(kernel, 1, 32, 0, (void *[]){&da, &db, &dd});
    fixture_download(d, dd, sizeof d);
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            const owner_t o = c_owner[row][column / 2];
            const int place = o.place + column % 2;
            double sum = (double)c[o.lane][place], scale = 32;

            for (int k = 0; k < 16; k++) {
                const owner_t oa = a_16[row][k / 2], ob = b_16[k / 2][column];
                const double product =
                    value(a[oa.lane][oa.place + k % 2]) * value(b[ob.lane][ob.place + k % 2]);

                sum += product;
                scale += fabs(product);
            }
            ck_assert_double_le(fabs((double)d[o.lane][place] - sum), scale * 0x1p-20);
        }
    }
    fixture_free(da);
    fixture_free(db);
    fixture_free(dd);
}

START_TEST(mma_f16)
{
    mma_float("wrap_mma_f16", fixture_f16_value, 0x3800);
}
END_TEST

START_TEST(mma_bf16)
{
    mma_float("wrap_mma_bf16", fixture_bf16_value, 0x3c00);
}
END_TEST

/* The test's index: sums go on from d, or begin with a constant. */
START_TEST(mma_s8)
{
    int8_t a[32][16], b[32][8];
    int32_t c[32][4], d[32][4];
    CUdeviceptr da, db, dd;

    for (int i = 0; i < 32; i++) {
        for (int j = 0; j < 16; j++)
            a[i][j] = (int8_t)(fixture_random() & 0xffu);
        for (int j = 0; j < 8; j++)
            b[i][j] = (int8_t)(fixture_random() & 0xffu);
        for (int j = 0; j < 4; j++)
            c[i][j] = (int32_t)fixture_random();
    }
    da = fixture_upload(a, sizeof a);
    db = fixture_upload(b, sizeof b);
    dd = fixture_upload(c, sizeof c);
    fixture_launch(_i ? "wrap_mma_s8_from" : "wrap_mma_s8", 1, 32, 0, (void *[]){&da, &db, &dd});
    fixture_download(d, dd, sizeof d);
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            const owner_t o = c_owner[row][column / 2];
            const int place = o.place + column % 2;
            int32_t sum = _i ? 0x4b400000 : c[o.lane][place];

            for (int k = 0; k < 32; k++) {
                const owner_t oa = a_32[row][k / 4], ob = b_32[k / 4][column];

                sum += a[oa.lane][oa.place + k % 4] * b[ob.lane][ob.place + k % 4];
            }
            ck_assert_int_eq(d[o.lane][place], sum);
        }
    }
    fixture_free(da);
    fixture_free(db);
    fixture_free(dd);
}
END_TEST

/* A matrix of ldmatrix: row, then elements 0-1, .. 6-7: the lane that gets the pair. */
static const uint8_t ldmatrix_lane[8][4] = {
    {0, 1, 2, 3},     {4, 5, 6, 7},     {8, 9, 10, 11},   {12, 13, 14, 15},
    {16, 17, 18, 19}, {20, 21, 22, 23}, {24, 25, 26, 27}, {28, 29, 30, 31},
};

/* The test's index: 1, 2 or 4 matrices, straight or transposed. */
START_TEST(ldmatrix)
{
    uint32_t matrices = 1u << (_i / 2), trans = (uint32_t)_i % 2;
    uint16_t rows[32][8];
    uint32_t out[32][4];
    CUdeviceptr din, dout;

    for (int i = 0; i < 32; i++) {
        for (int j = 0; j < 8; j++)
            rows[i][j] = (uint16_t)(fixture_random() & 0xffffu);
    }
    din = fixture_upload(rows, sizeof rows);
    dout = fixture_upload(out, sizeof out);
    fixture_launch("wrap_ldmatrix", 1, 32, 64 + 48 * 32,
                   (void *[]){&din, &dout, &matrices, &trans});
    fixture_download(out, dout, sizeof out);
    for (uint32_t m = 0; m < matrices; m++) {
        for (int row = 0; row < 8; row++) {
            for (int column = 0; column < 8; column++) {
                const int major = trans ? column : row, minor = trans ? row : column;
                const uint32_t word = out[ldmatrix_lane[major][minor / 2]][m];

                ck_assert_uint_eq(word >> 16 * (minor % 2) & 0xffffu,
                                  rows[8 * m + (uint32_t)row][column]);
            }
        }
    }
    fixture_free(din);
    fixture_free(dout);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_emu fragments");
    TCase *tcase = tcase_create("fragments");
    SRunner *runner;
    int failed;

    if (!fixture_open())
        return 77;
    tcase_add_checked_fixture(tcase, fixture_begin, fixture_end);
    tcase_add_test(tcase, mma_f16);
    tcase_add_test(tcase, mma_bf16);
    tcase_add_loop_test(tcase, mma_s8, 0, 2);
    tcase_add_loop_test(tcase, ldmatrix, 0, 6);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
