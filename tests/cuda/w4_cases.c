/* SPDX-License-Identifier: MIT */
#include "tests/cuda/w4_cases.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/moe_args.h"
#include "tests/cuda_emu/fixture.h"

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

static void make_weights(const w4_shape_t *shape, w4_weights_t *out)
{
    const uint32_t group = shape->group ? shape->group : shape->k;
    const uint32_t tiles = (shape->n + 15) / 16, steps = (shape->k + 63) / 64;
    const uint32_t groups = out->groups =
        group == 32 ? (shape->k + 63) / 64 * 2 : shape->k / group; /* pairs of 32 */
    const size_t words = (size_t)W4_EXPERTS * tiles * steps * 128;
    const size_t cells = (size_t)W4_EXPERTS * tiles * groups * 16;
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

static void free_weights(const w4_weights_t *weights)
{
    fixture_free(weights->codes);
    fixture_free(weights->scales);
}

static void make_inputs(w4_case_t *c)
{
    const uint32_t padded = (c->shape->k + 63) / 64 * 64;
    uint16_t table[W4_EXPERTS * W4_MAX_K] = {0};

    for (uint32_t e = 0; e < W4_EXPERTS; e++)
        for (uint32_t k = 0; k < c->shape->k; k++) {
            const uint32_t other = c->shape->act_order ? fixture_random() % (k + 1) : k;
            c->inputs[e][k] = c->inputs[e][other];
            c->inputs[e][other] = (uint16_t)k;
        }
    for (uint32_t e = 0; e < W4_EXPERTS; e++)
        memcpy(table + e * padded, c->inputs[e], c->shape->k * sizeof *table);
    c->order = c->shape->act_order ? fixture_upload(table, W4_EXPERTS * padded * sizeof *table) : 0;
}

static void make_x(w4_case_t *c)
{
    static uint16_t bits[1 + W4_MAX_TOKENS * W4_MAX_K];
    const w4_shape_t *shape = c->shape;

    for (uint32_t i = 0; i < c->tokens * shape->k; i++) {
        bits[1 + i] =
            (uint16_t)((shape->bfloat ? 0x3f00u : 0x3800u) | (fixture_random() & 0x807fu));
        c->x_value[i / shape->k][i % shape->k] = half_value(bits[1 + i], shape->bfloat);
    }
    c->odd = fixture_upload(bits, (1 + c->tokens * shape->k) * 2);
    c->x = fixture_upload(bits + 1, c->tokens * shape->k * 2);
}

void w4_case_make(w4_case_t *c, const w4_shape_t *shape, uint32_t tokens, bool gate_up)
{
    static const unsigned char zeros[W4_MAX_BYTES];

    c->shape = shape;
    c->tokens = tokens;
    c->pairs = tokens * W4_TOP_K;
    c->gate_up = gate_up;
    make_weights(shape, &c->w);
    if (gate_up)
        make_weights(shape, &c->up);
    make_x(c);
    make_inputs(c);
    c->out_bytes = (size_t)c->pairs * shape->n * (gate_up ? 2 : 4);
    c->out = fixture_upload(zeros, c->out_bytes);
}

void w4_case_free(const w4_case_t *c)
{
    free_weights(&c->w);
    if (c->gate_up)
        free_weights(&c->up);
    fixture_free(c->x);
    fixture_free(c->odd);
    if (c->order != 0)
        fixture_free(c->order);
    fixture_free(c->out);
}

/* Experts of pairs: one has none, -1 means skip. */
static int32_t expert_of(uint32_t pair)
{
    return pair % 7 == 3 ? -1 : pair % 3 == 0 ? 2 : 0;
}

/* Sorted by expert, lists padded to `rows` entries. */
static uint32_t make_plan(uint32_t pairs, uint32_t rows, int32_t *ids, int32_t *experts)
{
    uint32_t count = 0;

    for (int32_t e = 0; e < W4_EXPERTS; e++) {
        for (uint32_t p = 0; p < pairs; p++)
            if (expert_of(p) == e) {
                experts[count / rows] = e;
                ids[count++] = (int32_t)p;
            }
        while (count % rows != 0)
            ids[count++] = (int32_t)pairs;
    }
    return count;
}

static ferrum_gpu_weights_t describe(const w4_shape_t *shape, const w4_weights_t *weights)
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

static CUresult launch(const w4_case_t *c, const w4_kernel_t *kernel, const char *name,
                       ferrum_product_args_t *args)
{
    const uint32_t outputs = c->gate_up ? kernel->gate_up_outputs : kernel->outputs;
    const uint32_t shared_bytes = c->gate_up ? kernel->gate_up_shared_bytes : kernel->shared_bytes;
    CUfunction function = fixture_kernel(name);
    CUresult result = cu.cuFuncSetAttribute(
        function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared_bytes);

    if (result == CUDA_SUCCESS)
        result = cu.cuLaunchKernel(function, args->ids_count / kernel->rows, 1,
                                   (c->shape->n + outputs - 1) / outputs, kernel->threads, 1, 1,
                                   shared_bytes, NULL, (void *[]){args}, NULL);
    return result == CUDA_SUCCESS ? fixture_wait() : result;
}

void w4_case_run(const w4_case_t *c, const w4_kernel_t *kernel, bool odd, unsigned char *out)
{
    static int32_t ids[W4_MAX_PAIRS + W4_EXPERTS * 128], experts[W4_MAX_PAIRS + W4_EXPERTS * 128];
    const w4_shape_t *shape = c->shape;
    const uint32_t rows = kernel->rows;
    uint32_t total = c->pairs;
    char name[64];

    if (rows == 1)
        for (uint32_t p = 0; p < c->pairs; p++)
            ids[p] = expert_of(p);
    else
        total = make_plan(c->pairs, rows, ids, experts);
    CUdeviceptr device_ids = fixture_upload(ids, total * 4);
    CUdeviceptr device_experts = fixture_upload(experts, rows == 1 ? 4 : total / rows * 4);
    CUdeviceptr device_total = fixture_upload(&total, 4);
    ferrum_product_args_t args = {
        .w = describe(shape, &c->w),
        .x = odd ? c->odd + 2 : c->x,
        .out = c->out,
        .ids = device_ids,
        .experts = device_experts,
        .total = device_total,
        .outer = shape->k,
        .out_stride = shape->n,
        .mode = rows == 1 ? FERRUM_ROWS_PAIRS : FERRUM_ROWS_ALIGNED,
        .rows = c->pairs,
        .num_experts = W4_EXPERTS,
        .top_k = W4_TOP_K,
        .block_size = rows,
        .ids_count = total,
        .out_is_f32 = !c->gate_up,
    };
    if (c->gate_up)
        args.up = describe(shape, &c->up);
    args.w.group_of = args.up.group_of = c->order;
    snprintf(name, sizeof name, "ferrum_%s%s_%u_%s", kernel->family, c->gate_up ? "_gate_up" : "",
             rows, shape->bfloat ? "bf16" : "f16");
    cu.cuMemsetD8(c->out, 0xff, c->out_bytes);
    const CUresult result = launch(c, kernel, name, &args);
    ck_assert_msg(result == CUDA_SUCCESS, "%s: %d; %s", name, (int)result,
                  cu.fault ? cu.fault() : "");
    fixture_download(out, c->out, c->out_bytes);
    fixture_free(device_ids);
    fixture_free(device_experts);
    fixture_free(device_total);
}

/* Of out[pair], with NaN where a pair is skipped. */
static double expected(const w4_case_t *c, uint32_t pair, uint32_t n)
{
    const int32_t e = expert_of(pair);
    double sum = 0, other = 0;

    if (e < 0)
        return (double)NAN;
    for (uint32_t k = 0; k < c->shape->k; k++) {
        const double x = c->x_value[pair / W4_TOP_K][c->inputs[e][k]];
        sum += c->w.value[e][n][k] * x;
        other += c->gate_up ? c->up.value[e][n][k] * x : 0;
    }
    return c->gate_up ? sum / (1 + exp(-sum)) * other : sum;
}

void w4_case_check(const w4_case_t *c, const unsigned char *out)
{
    const double bound = !c->gate_up ? 2e-6 : c->shape->bfloat ? 1e-2 : 2e-3;

    for (uint32_t pair = 0; pair < c->pairs; pair++) {
        double difference = 0, norm = 0;
        for (uint32_t n = 0; n < c->shape->n; n++) {
            const double r = expected(c, pair, n);
            const size_t at = (size_t)pair * c->shape->n + n;
            uint16_t half;
            float single;
            memcpy(&half, out + (c->gate_up ? at * 2 : 0), 2);
            memcpy(&single, out + (c->gate_up ? 0 : at * 4), 4);
            const double o = c->gate_up ? half_value(half, c->shape->bfloat) : (double)single;
            if (isnan(r)) {
                ck_assert_msg(isnan(o), "pair %u was to be skipped", pair);
                continue;
            }
            difference += (o - r) * (o - r);
            norm += r * r;
        }
        const double error = norm > 0 ? sqrt(difference / norm) : 0;
        ck_assert_msg(error <= bound, "error %g in pair %u (n %u, k %u, group %u)", error, pair,
                      c->shape->n, c->shape->k, c->shape->group);
    }
}
