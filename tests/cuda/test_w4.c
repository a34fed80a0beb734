/* SPDX-License-Identifier: MIT */
/*
 * The kernels over tiled 4-bit weights (w4.cu) against sums in double over the same codes, packed
 * here by the description of w4.cuh; and against each other: a row has the same bits whatever the
 * tile, and whatever address it lies at.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/moe_args.h"
#include "tests/cuda_emu/fixture.h"

enum {
    EXPERTS = 3,
    TOP_K = 2,
    TOKENS = 40,
    PAIRS = TOKENS * TOP_K,
    MAX_K = 448,
    MAX_N = 80
};

typedef struct shape {
    uint32_t n, k, group; /* group 0: one for all inputs */
    bool bfloat, bfloat_scales;
    bool act_order; /* each expert has its inputs in another order */
} shape_t;

static const shape_t shapes[] = {
    {16, 128, 32, false, false, false}, {80, 192, 64, true, false, false},
    {40, 448, 64, false, true, false},  {64, 256, 128, true, true, false},
    {24, 200, 0, false, false, false},  {16, 8, 0, true, true, false},
    {80, 192, 64, false, false, true},  {24, 160, 32, true, true, true},
    {16, 256, 128, false, true, true},
};

/* One matrix per expert, as numbers and as they lie on the device. */
typedef struct weights {
    double value[EXPERTS][MAX_N][MAX_K];
    CUdeviceptr codes, scales;
    uint32_t groups;
} weights_t;

/* Input at each place of a matrix of an expert, padded as the tiles are. */
static uint16_t inputs[EXPERTS][MAX_K];

static CUdeviceptr make_inputs(const shape_t *shape)
{
    const uint32_t padded = (shape->k + 63) / 64 * 64;
    uint16_t table[EXPERTS * MAX_K] = {0};

    for (uint32_t e = 0; e < EXPERTS; e++)
        for (uint32_t k = 0; k < shape->k; k++) {
            const uint32_t other = shape->act_order ? fixture_random() % (k + 1) : k;
            inputs[e][k] = inputs[e][other];
            inputs[e][other] = (uint16_t)k;
        }
    for (uint32_t e = 0; e < EXPERTS; e++)
        memcpy(table + e * padded, inputs[e], shape->k * sizeof *table);
    return shape->act_order ? fixture_upload(table, EXPERTS * padded * sizeof *table) : 0;
}

static double half_value(uint16_t bits, bool bfloat)
{
    return bfloat ? fixture_bf16_value(bits) : fixture_f16_value(bits);
}

/* A number between 1/64 and 1/32 in either format. */
static uint16_t small_scale(bool bfloat)
{
    return (uint16_t)(bfloat ? 0x3c80u | (fixture_random() & 0x7fu)
                             : 0x2400u | (fixture_random() & 0x3ffu));
}

/* Output and input, within a tile, of nibble i of word j of a lane; see w4.cuh. */
static void place_of(uint32_t lane, uint32_t j, uint32_t i, uint32_t *n, uint32_t *k)
{
    *n = lane / 4 + i % 2 * 8;
    *k = 16 * j + lane % 4 * 2 + i / 2 % 2 * 8 + i / 4;
}

static void make_weights(const shape_t *shape, weights_t *out)
{
    const uint32_t group = shape->group ? shape->group : shape->k;
    const uint32_t tiles = (shape->n + 15) / 16, steps = (shape->k + 63) / 64;
    const uint32_t groups = out->groups =
        group == 32 ? (shape->k + 63) / 64 * 2 : shape->k / group; /* pairs of 32 */
    const size_t words = (size_t)EXPERTS * tiles * steps * 128;
    const size_t cells = (size_t)EXPERTS * tiles * groups * 16;
    uint32_t *codes = calloc(words, 4), *scales = calloc(cells, 4);

    ck_assert_ptr_nonnull(codes);
    ck_assert_ptr_nonnull(scales);
    for (size_t i = 0; i < cells; i++)
        scales[i] = small_scale(shape->bfloat_scales) | fixture_random() % 17 << 16;
    for (size_t at = 0; at < words; at++) {
        const uint32_t j = at % 4, lane = at / 4 % 32, step = (uint32_t)(at / 128 % steps);
        const size_t tile = at / 128 / steps;
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t q = fixture_random() & 15;
            uint32_t row, column;
            place_of(lane, j, i, &row, &column);
            const uint32_t n = (uint32_t)(tile % tiles * 16 + row), k = step * 64 + column;
            codes[at] |= q << (4 * (i % 4) + 16 * (i / 4));
            if (n >= shape->n || k >= shape->k)
                continue;
            const uint32_t cell = scales[(tile * groups + k / group) * 16 + row];
            out->value[tile / tiles][n][k] =
                ((double)q - (cell >> 16)) * half_value((uint16_t)cell, shape->bfloat_scales);
        }
    }
    out->codes = fixture_upload(codes, words * 4);
    out->scales = fixture_upload(scales, cells * 4);
    free(codes);
    free(scales);
}

static void free_weights(const weights_t *weights)
{
    fixture_free(weights->codes);
    fixture_free(weights->scales);
}

/* Experts of pairs: one has none, -1 means skip. */
static int32_t expert_of(uint32_t pair)
{
    return pair % 7 == 3 ? -1 : pair % 3 == 0 ? 2 : 0;
}

/* Sorted by expert, lists padded to `rows` entries. */
static uint32_t make_plan(uint32_t rows, int32_t *ids, int32_t *experts)
{
    uint32_t count = 0;

    for (int32_t e = 0; e < EXPERTS; e++) {
        for (uint32_t p = 0; p < PAIRS; p++)
            if (expert_of(p) == e) {
                experts[count / rows] = e;
                ids[count++] = (int32_t)p;
            }
        while (count % rows != 0)
            ids[count++] = PAIRS;
    }
    return count;
}

static ferrum_gpu_weights_t describe(const shape_t *shape, const weights_t *weights)
{
    return (ferrum_gpu_weights_t){
        .data = weights->codes,
        .scales = weights->scales,
        .layout = shape->bfloat_scales ? FERRUM_LAYOUT_W4_TILES_BF16 : FERRUM_LAYOUT_W4_TILES_F16,
        .n = shape->n,
        .k = shape->k,
        .expert_rows = shape->n,
        .groups = weights->groups,
        .group_size = shape->group ? shape->group : shape->k,
    };
}

/* One launch over all pairs with tiles of `rows`; out [PAIRS][n]: f32, or act when up is given. */
static void run(const shape_t *shape, uint32_t rows, const weights_t *w, const weights_t *up,
                CUdeviceptr order, CUdeviceptr x, CUdeviceptr out)
{
    int32_t ids[PAIRS + EXPERTS * 64], experts[PAIRS + EXPERTS * 64];
    char name[64];
    uint32_t total = PAIRS;

    if (rows == 1)
        for (uint32_t p = 0; p < PAIRS; p++)
            ids[p] = expert_of(p);
    else
        total = make_plan(rows, ids, experts);
    CUdeviceptr device_ids = fixture_upload(ids, total * 4);
    CUdeviceptr device_experts = fixture_upload(experts, rows == 1 ? 4 : total / rows * 4);
    CUdeviceptr device_total = fixture_upload(&total, 4);
    ferrum_product_args_t args = {
        .w = describe(shape, w),
        .x = x,
        .out = out,
        .ids = device_ids,
        .experts = device_experts,
        .total = device_total,
        .outer = shape->k,
        .out_stride = shape->n,
        .mode = rows == 1 ? FERRUM_ROWS_PAIRS : FERRUM_ROWS_ALIGNED,
        .rows = PAIRS,
        .num_experts = EXPERTS,
        .top_k = TOP_K,
        .block_size = rows,
        .ids_count = total,
        .out_is_f32 = up == NULL,
    };
    if (up != NULL)
        args.up = describe(shape, up);
    args.w.group_of = args.up.group_of = order;
    snprintf(name, sizeof name, "ferrum_w4%s_%u_%s", up ? "_gate_up" : "", rows,
             shape->bfloat ? "bf16" : "f16");
    const uint32_t outputs = rows == 1 ? 16 : 64;
    const uint32_t shared_bytes = FERRUM_W4_SHARED_BYTES(rows, up != NULL);
    CUfunction kernel = fixture_kernel(name);
    CUresult result = cu.cuFuncSetAttribute(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                            (int)shared_bytes);
    if (result == CUDA_SUCCESS)
        result = cu.cuLaunchKernel(kernel, total / rows, 1, (shape->n + outputs - 1) / outputs, 128,
                                   1, 1, shared_bytes, NULL, (void *[]){&args}, NULL);
    if (result == CUDA_SUCCESS)
        result = fixture_wait();
    ck_assert_msg(result == CUDA_SUCCESS, "%s: %d; %s", name, (int)result,
                  cu.fault ? cu.fault() : "");
    fixture_free(device_ids);
    fixture_free(device_experts);
    fixture_free(device_total);
}

static double x_value[TOKENS][MAX_K];

/* x, and once more an element further, at no multiple of 16 bytes. */
static CUdeviceptr make_x(const shape_t *shape, CUdeviceptr *out_odd)
{
    static uint16_t bits[1 + TOKENS * MAX_K];

    for (uint32_t i = 0; i < TOKENS * shape->k; i++) {
        bits[1 + i] =
            (uint16_t)((shape->bfloat ? 0x3f00u : 0x3800u) | (fixture_random() & 0x807fu));
        x_value[i / shape->k][i % shape->k] = half_value(bits[1 + i], shape->bfloat);
    }
    *out_odd = fixture_upload(bits, (1 + TOKENS * shape->k) * 2);
    return fixture_upload(bits + 1, TOKENS * shape->k * 2);
}

/* Of out[pair], with NaN where a pair is skipped. */
static double expected(const shape_t *shape, const weights_t *w, const weights_t *up, uint32_t pair,
                       uint32_t n)
{
    const int32_t e = expert_of(pair);
    double sum = 0, other = 0;

    if (e < 0)
        return (double)NAN;
    for (uint32_t k = 0; k < shape->k; k++) {
        const double x = x_value[pair / TOP_K][inputs[e][k]];
        sum += w->value[e][n][k] * x;
        other += up ? up->value[e][n][k] * x : 0;
    }
    return up ? sum / (1 + exp(-sum)) * other : sum;
}

/* ||out - expected|| / ||expected|| of the worst row. */
static double worst_row(const shape_t *shape, const weights_t *w, const weights_t *up,
                        const unsigned char *out)
{
    double worst = 0;

    for (uint32_t pair = 0; pair < PAIRS; pair++) {
        double difference = 0, norm = 0;
        for (uint32_t n = 0; n < shape->n; n++) {
            const double r = expected(shape, w, up, pair, n);
            const size_t at = (size_t)pair * shape->n + n;
            uint16_t half;
            float single;
            memcpy(&half, out + (up ? at * 2 : 0), 2);
            memcpy(&single, out + (up ? 0 : at * 4), 4);
            const double o = up ? half_value(half, shape->bfloat) : (double)single;
            if (isnan(r)) {
                ck_assert_msg(isnan(o), "pair %u was to be skipped", pair);
                continue;
            }
            difference += (o - r) * (o - r);
            norm += r * r;
        }
        const double error = norm > 0 ? sqrt(difference / norm) : 0;
        worst = error <= worst ? worst : error;
    }
    return worst;
}

static void check_shape(const shape_t *shape, bool gate_up)
{
    static const uint32_t rows[] = {1, 8, 16, 32, 64, 16};
    static unsigned char out[6][PAIRS * MAX_N * 4];
    static weights_t w, up;
    const size_t bytes = (size_t)PAIRS * shape->n * (gate_up ? 2 : 4);

    make_weights(shape, &w);
    if (gate_up)
        make_weights(shape, &up);
    CUdeviceptr odd, x = make_x(shape, &odd), order = make_inputs(shape);
    CUdeviceptr device_out = fixture_upload(out, bytes);
    for (size_t i = 0; i < 6; i++) {
        cu.cuMemsetD8(device_out, 0xff, bytes);
        run(shape, rows[i], &w, gate_up ? &up : NULL, order, i < 5 ? x : odd + 2, device_out);
        fixture_download(out[i], device_out, bytes);
        ck_assert_msg(memcmp(out[i], out[0], bytes) == 0,
                      "launch %zu, tiles of %u rows, gives other bits than single rows (n %u, "
                      "k %u, group %u)",
                      i, rows[i], shape->n, shape->k, shape->group);
    }
    const double error = worst_row(shape, &w, gate_up ? &up : NULL, out[0]);
    const double bound = !gate_up ? 2e-6 : shape->bfloat ? 1e-2 : 2e-3;
    ck_assert_msg(error <= bound, "error %g (n %u, k %u, group %u)", error, shape->n, shape->k,
                  shape->group);
    fixture_free(x);
    fixture_free(odd);
    if (order != 0)
        fixture_free(order);
    fixture_free(device_out);
    free_weights(&w);
    if (gate_up)
        free_weights(&up);
}

START_TEST(products)
{
    check_shape(&shapes[_i], false);
}
END_TEST

START_TEST(gate_and_up)
{
    check_shape(&shapes[_i], true);
}
END_TEST

int main(void)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    char driver[1024];

    snprintf(driver, sizeof driver, "%s/tests/cuda_emu/.libs/libcuda-emu.so", build ? build : ".");
    setenv("FERRUM_CUDA_DRIVER", driver, 0);
    if (!fixture_open())
        return 1;
    Suite *suite = suite_create("w4");
    TCase *test = tcase_create("w4");
    tcase_set_timeout(test, 120);
    tcase_add_checked_fixture(test, fixture_begin, fixture_end);
    tcase_add_loop_test(test, products, 0, sizeof shapes / sizeof shapes[0]);
    tcase_add_loop_test(test, gate_and_up, 0, sizeof shapes / sizeof shapes[0]);
    suite_add_tcase(suite, test);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
