/* SPDX-License-Identifier: MIT */
/* Every wrapper but the matrix ones (test_fragments.c) against a plain computation in C. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/fixture.h"
#include "tests/cuda_emu/product.h"

static uint32_t any_word(void)
{
    return fixture_random() << 16 ^ fixture_random();
}

static float as_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

START_TEST(warp_functions)
{
    uint32_t in[64], out[64][10];
    CUdeviceptr din, dout;

    for (int i = 0; i < 64; i++)
        in[i] = fixture_random() % 1000;
    din = fixture_upload(in, sizeof in);
    dout = fixture_upload(out, sizeof out);
    fixture_launch("wrap_warp", 1, 64, 0, (void *[]){&din, &dout});
    fixture_download(out, dout, sizeof out);
    for (int i = 0; i < 64; i++) {
        const int lane = i % 32;
        const uint32_t *warp = in + (i - lane);
        uint32_t votes = 0, same = 0, sum = 0, most = 0;

        for (int j = 0; j < 32; j++) {
            votes |= (uint32_t)(warp[j] % 3 == 0) << j;
            same |= (uint32_t)(warp[j] % 3 == in[i] % 3) << j;
            sum += warp[j];
            most = warp[j] > most ? warp[j] : most;
        }
        ck_assert_uint_eq(out[i][0], votes);
        ck_assert_uint_eq(out[i][1], votes & (lane % 2 ? 0xaaaaaaaau : 0x55555555u));
        ck_assert_uint_eq(out[i][2], same);
        ck_assert_uint_eq(out[i][3], warp[(lane * 7 + 3) % 32]);
        ck_assert_uint_eq(out[i][4], warp[lane ^ 5]);
        ck_assert_uint_eq(out[i][5], warp[lane < 3 ? lane : lane - 3]);
        ck_assert_uint_eq(out[i][6], warp[lane % 8 + 3 < 8 ? lane + 3 : lane]);
        ck_assert_uint_eq(out[i][7], warp[lane ^ 2]);
        ck_assert_uint_eq(out[i][8], sum);
        ck_assert_uint_eq(out[i][9], most);
    }
    fixture_free(din);
    fixture_free(dout);
}
END_TEST

/* The 16-bit value nearest to `value` among all of them, ties to even: by search, not by formula.
 */
static uint16_t nearest(double value, double (*of)(uint16_t), uint16_t infinity)
{
    const double magnitude = fabs(value);
    uint16_t low = 0, high = infinity;
    double below, above;

    while (high - low > 1) {
        const uint16_t middle = (uint16_t)((low + high) / 2);

        if (of(middle) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    below = of(low);
    /* Beyond the greatest, as if exponents went on. */
    above = high == infinity ? 2 * below - of((uint16_t)(low - 1)) : of(high);
    if (magnitude - below > above - magnitude ||
        (magnitude - below == above - magnitude && low % 2 == 1))
        low = high;
    return (uint16_t)(low | (signbit(value) ? 0x8000u : 0u));
}

/* An assertion of Check for each of these many values would take long. */
static bool is_half(uint32_t got, double value, double (*of)(uint16_t), uint16_t infinity)
{
    return isnan(value) ? (bool)isnan(of((uint16_t)got)) : got == nearest(value, of, infinity);
}

static bool is_float(uint32_t got, double value)
{
    return isnan(value) ? (bool)isnan(as_float(got)) : (double)as_float(got) == value;
}

START_TEST(conversions)
{
    enum {
        COUNT = 1 << 16
    };
    static uint32_t in[COUNT], out[COUNT][4];
    uint32_t count = COUNT;
    CUdeviceptr din, dout;

    for (uint32_t i = 0; i < COUNT; i++) {
        /* All 16-bit patterns; as floats, mostly those that f16 has, on and off ties. */
        in[i] = (any_word() & 0xffff0000u) | i;
        if (i % 4 == 1)
            in[i] = (in[i] & 0x80ffffffu) | (0x30u + fixture_random() % 24) << 24;
        if (i % 4 == 2)
            in[i] = (in[i] & 0x80ffe000u) | (0x30u + fixture_random() % 24) << 24 | 0x1000u;
    }
    in[4] = 0x7f800000u;
    in[8] = 0xff800000u;
    in[12] = 0x7fc00000u;
    in[16] = 0x477fefffu;
    in[20] = 0x477ff000u;
    in[24] = 0x33000000u;
    in[28] = 0x33000001u;
    din = fixture_upload(in, sizeof in);
    dout = fixture_upload(out, sizeof out);
    fixture_launch("wrap_convert", COUNT / 256, 256, 0, (void *[]){&din, &dout, &count});
    fixture_download(out, dout, sizeof out);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint16_t half = (uint16_t)in[i];

        if (!is_half(out[i][0], (double)as_float(in[i]), fixture_f16_value, 0x7c00) ||
            !is_half(out[i][1], (double)as_float(in[i]), fixture_bf16_value, 0x7f80) ||
            !is_float(out[i][2], fixture_f16_value(half)) ||
            !is_float(out[i][3], fixture_bf16_value(half)))
            ck_abort_msg("0x%08x becomes 0x%04x, 0x%04x, 0x%08x, 0x%08x", in[i], out[i][0],
                         out[i][1], out[i][2], out[i][3]);
    }
    fixture_free(din);
    fixture_free(dout);
}
END_TEST

/* Sums of the pairs are exact in long double where exponents are this close. */
static void expect_pair(uint32_t got, uint32_t a, uint32_t b, uint32_t c, int kind)
{
    for (int i = 0; i < 2; i++) {
        double (*of)(uint16_t) = kind == 3 ? fixture_bf16_value : fixture_f16_value;
        const double x = of((uint16_t)(a >> 16 * i)), y = of((uint16_t)(b >> 16 * i));
        const double z = of((uint16_t)(c >> 16 * i));
        const double value = kind == 0 ? x - y : kind == 1 ? x * y : x * y + z;
        const uint16_t bits = (uint16_t)(got >> 16 * i);

        if (value == 0)
            ck_assert(of(bits) == 0);
        else
            ck_assert(is_half(bits, value, of, kind == 3 ? 0x7f80 : 0x7c00));
    }
}

START_TEST(arithmetic)
{
    enum {
        COUNT = 4096
    };
    static uint32_t in[COUNT][3], out[COUNT][8];
    uint32_t count = COUNT;
    CUdeviceptr din, dout;

    for (uint32_t i = 0; i < COUNT; i++) {
        for (int j = 0; j < 3; j++)
            in[i][j] = (any_word() & 0x83ff83ffu) | (fixture_random() % 8 + 12) << 10 |
                       (fixture_random() % 8 + 12) << 26;
    }
    din = fixture_upload(in, sizeof in);
    dout = fixture_upload(out, sizeof out);
    fixture_launch("wrap_arithmetic", COUNT / 256, 256, 0, (void *[]){&din, &dout, &count});
    fixture_download(out, dout, sizeof out);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t a = in[i][0], b = in[i][1], c = in[i][2];
        uint8_t bytes[8], picked[4];
        uint32_t permuted, ones = 0, lowest = 0;
        int32_t dot = 0;

        for (int kind = 0; kind < 4; kind++)
            expect_pair(out[i][kind], a, b, c, kind);
        memcpy(bytes, &a, 4);
        memcpy(bytes + 4, &b, 4);
        for (int j = 0; j < 4; j++) {
            dot += (int8_t)bytes[j] * (int8_t)bytes[4 + j];
            picked[j] = bytes[c >> 4 * j & 7u];
        }
        memcpy(&permuted, picked, 4);
        for (int j = 0; j < 32; j++)
            ones += a >> j & 1u;
        while ((b >> lowest & 1u) == 0)
            lowest++;
        ck_assert_uint_eq(out[i][4], c + (uint32_t)dot);
        ck_assert_uint_eq(out[i][5], (a & b) | c);
        ck_assert_uint_eq(out[i][6], permuted);
        ck_assert_uint_eq(out[i][7], ones << 8 | lowest);
    }
    fixture_free(din);
    fixture_free(dout);
}
END_TEST

/* The test's index: how copies land, and how many of 16 bytes are copied rather than zeroed. */
START_TEST(copies)
{
    static const char *const modes[] = {"eager", "lazy", "random"};
    uint32_t source_bytes = (uint32_t)(_i % 3) * 8;
    uint8_t in[64][16], out[64][48];
    CUdeviceptr din, dout;

    if (cu.set != NULL) {
        cu.set("COPIES", modes[_i / 3]);
        cu.set("SEED", "7");
    }
    for (int i = 0; i < 64; i++) {
        for (int j = 0; j < 16; j++)
            in[i][j] = (uint8_t)(1 + fixture_random() % 255);
    }
    din = fixture_upload(in, sizeof in);
    dout = fixture_upload(out, sizeof out);
    fixture_launch("wrap_copies", 1, 64, 64 * 48, (void *[]){&din, &dout, &source_bytes});
    fixture_download(out, dout, sizeof out);
    for (int i = 0; i < 64; i++) {
        for (uint32_t j = 0; j < 16; j++) {
            ck_assert_uint_eq(out[i][j], in[i ^ 1][j]);
            ck_assert_uint_eq(out[i][16 + j], j % 8 < source_bytes / 2 ? in[i ^ 1][j] : 0);
            ck_assert_uint_eq(out[i][32 + j], j < source_bytes ? in[i ^ 1][j] : 0);
        }
    }
    fixture_free(din);
    fixture_free(dout);
}
END_TEST

START_TEST(named_barrier)
{
    uint32_t out[32] = {0};
    CUdeviceptr dout = fixture_upload(out, sizeof out);

    if (cu.set != NULL)
        cu.set("SEED", _i == 0 ? "0" : "11");
    fixture_launch("wrap_named_barrier", 1, 96, 128, (void *[]){&dout});
    fixture_download(out, dout, sizeof out);
    for (uint32_t i = 0; i < 32; i++)
        ck_assert_uint_eq(out[i], (31 - i) * (31 - i));
    fixture_free(dout);
}
END_TEST

START_TEST(last_block)
{
    enum {
        BLOCKS = 7
    };
    uint32_t in[BLOCKS * 32], zero = 0, out = 0, sum = 0;
    CUdeviceptr din, partial, ticket, dout;

    if (cu.set != NULL)
        cu.set("SEED", _i == 0 ? "0" : "3");
    for (int i = 0; i < BLOCKS * 32; i++)
        sum += in[i] = fixture_random() % 1000;
    din = fixture_upload(in, sizeof in);
    partial = fixture_upload(in, sizeof in);
    ticket = fixture_upload(&zero, sizeof zero);
    dout = fixture_upload(&zero, sizeof zero);
    fixture_launch("wrap_last_block", BLOCKS, 32, 0, (void *[]){&din, &partial, &ticket, &dout});
    fixture_download(&out, dout, sizeof out);
    ck_assert_uint_eq(out, sum);
    fixture_free(din);
    fixture_free(partial);
    fixture_free(ticket);
    fixture_free(dout);
}
END_TEST

START_TEST(indices)
{
    static uint32_t out[24][64][8];
    CUdeviceptr dout = fixture_upload(out, sizeof out);

    cu.cuLaunchKernel(fixture_kernel("wrap_indices"), 2, 3, 4, 64, 1, 1, 0, NULL, (void *[]){&dout},
                      NULL);
    fixture_download(out, dout, sizeof out);
    for (uint32_t block = 0; block < 24; block++) {
        for (uint32_t thread = 0; thread < 64; thread++) {
            const uint32_t expected[8] = {thread, block % 2,  block / 2 % 3, block / 6,
                                          64,     0x00040302, thread % 32,   thread / 32};

            ck_assert_mem_eq(out[block][thread], expected, sizeof expected);
        }
    }
    fixture_free(dout);
}
END_TEST

START_TEST(product)
{
    ck_assert_double_le(product_error(false, NO_BUG), 1e-6);
    ck_assert_double_le(product_error(true, NO_BUG), 1e-6);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_emu wrappers");
    TCase *tcase = tcase_create("wrappers");
    SRunner *runner;
    int failed;

    if (!fixture_open())
        return 77;
    tcase_add_checked_fixture(tcase, fixture_begin, fixture_end);
    tcase_add_test(tcase, warp_functions);
    tcase_add_test(tcase, conversions);
    tcase_add_test(tcase, arithmetic);
    tcase_add_loop_test(tcase, copies, 0, 9);
    tcase_add_loop_test(tcase, named_barrier, 0, 2);
    tcase_add_loop_test(tcase, last_block, 0, 2);
    tcase_add_test(tcase, indices);
    tcase_add_test(tcase, product);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
