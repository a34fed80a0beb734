/* SPDX-License-Identifier: MIT */
/* Layers of routed experts in GGUF formats: against f64 over the same weights, alike whatever
 * shares a batch, in tiles for the matrix units where there are some. */
#include "tests/cuda/layers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define F(name) FERRUM_FORMAT_##name

/** Weights as a file may have them, and what runs them. */
typedef struct gguf_case {
    ferrum_weight_format_t format[3]; /* gate, up, down */
    uint32_t hidden, intermediate;    /* no multiple of 16 or 64 where a format allows it */
    bool tiles;                       /* and so int8 where that is asked for */
} gguf_case_t;

static const gguf_case_t cases[] = {
    {{F(Q4_0), F(Q4_0), F(Q4_0)}, 96, 160, true},
    {{F(Q4_1), F(Q4_1), F(Q4_1)}, 160, 96, true},
    {{F(Q5_0), F(Q5_0), F(Q5_0)}, 96, 96, true},
    {{F(Q5_1), F(Q5_1), F(Q5_1)}, 96, 96, true},
    {{F(Q8_0), F(Q8_0), F(Q8_0)}, 160, 32, true},
    {{F(IQ4_NL), F(IQ4_NL), F(IQ4_NL)}, 96, 96, true},
    {{F(MXFP4), F(MXFP4), F(MXFP4)}, 96, 96, true},
    {{F(Q4_K), F(Q4_K), F(Q6_K)}, 256, 256, true},
    {{F(Q5_K), F(Q5_K), F(Q5_K)}, 256, 256, true},
    {{F(Q6_K), F(Q6_K), F(Q4_K)}, 512, 256, true},
    {{F(IQ4_XS), F(IQ4_XS), F(IQ4_XS)}, 256, 256, true},
    /* One launch takes two formats. */
    {{F(Q4_K), F(Q6_K), F(Q8_0)}, 256, 96, true},
    /* Outputs that fill no tile of 16: no format has blocks as short as that for down. */
    {{F(Q4_K), F(Q5_K), F(F32)}, 256, 40, false},
    {{F(Q6_K), F(Q6_K), F(F32)}, 256, 24, false},
    /* No tiles. */
    {{F(Q2_K), F(Q2_K), F(Q3_K)}, 256, 256, false},
    {{F(F32), F(Q4_K), F(Q4_K)}, 256, 256, false},
};
enum {
    CASES = sizeof cases / sizeof cases[0],
    EXPERTS = 4,
    TOP_K = 2
};

static ferrum_expert_ffn_t *ffn;
static layer_t layer;

/** Errors that objects may have: as they are stated. */
static double bound_of(ferrum_dtype_t act, bool int8)
{
    return int8 ? 3.2e-2 : act == FERRUM_DTYPE_F16 ? 2e-3 : 1e-2;
}

static void open_as(const gguf_case_t *c, ferrum_dtype_t act, uint32_t experts,
                    ferrum_precision_t precision)
{
    const bool int8 = c->tiles && precision == FERRUM_PRECISION_FAST;
    const layer_shape_t shape = {false, experts, c->hidden, c->intermediate,
                                 experts < TOP_K ? experts : TOP_K};
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};

    cuda_open_as(act);
    layer_make_of(&layer, &shape, c->format);
    layer.desc.precision = precision;
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &layer.desc, &ffn, &err));
    EXPECT_OK(cuda.mf->expert_ffn_info(ffn, &info, &err));
    ck_assert_msg((strncmp(info.kernel, "mma ", 4) == 0) == (c->tiles && !int8), "%s runs",
                  info.kernel);
    ck_assert_msg((strncmp(info.kernel, "int8 ", 5) == 0) == int8, "%s runs", info.kernel);
    ck_assert(fabs((double)info.error_bound - bound_of(act, int8)) < 1e-6);
}

static void open_case(const gguf_case_t *c, ferrum_dtype_t act, uint32_t experts)
{
    open_as(c, act, experts, FERRUM_PRECISION_DEFAULT);
}

static void close_case(void)
{
    ck_assert_str_eq(cuda.fault(), "");
    cuda.mf->expert_ffn_release(ffn);
    layer_free(&layer);
    cuda_close();
}

static void forward(void *arg)
{
    const layer_call_t *call = arg;
    const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           .x = call->x,
                                           .ids = call->ids,
                                           .weights = call->weights,
                                           .out = call->out,
                                           .tokens = call->tokens,
                                           .top_k = layer.shape.top_k};

    EXPECT_OK(cuda.mf->expert_ffn_forward(cuda.ctx, ffn, &args, &err));
}

/** The same for the first token, however many there are. */
static void set_weights(layer_call_t *call)
{
    const uint64_t pairs = (uint64_t)call->tokens * layer.shape.top_k;

    for (uint64_t i = 0; i < pairs; i++)
        call->host_weights[i] = (float)(1 + i % 5) / 4.0f;
    EXPECT_OK(
        cuda.be->buffer_write_f32(cuda.ctx, call->weights, 0, call->host_weights, pairs, &err));
}

/** The layer for @p tokens tokens is right; its first row, as floats, in @p out_row. */
static void check_tokens(uint32_t tokens, int32_t only, double bound, float *out_row)
{
    layer_call_t call;

    call_make(&call, &layer, tokens);
    call_fill(&call, &layer, 1, only);
    if (only >= 0)
        set_weights(&call);
    forward(&call);
    const double error = call_error(&call, &layer);
    ck_assert_msg(error <= bound, "%u tokens: error %g, bound %g", tokens, error, bound);
    EXPECT_OK(cuda.be->buffer_read_f32(cuda.ctx, call.out, 0, out_row, layer.shape.hidden, &err));
    call_free(&call);
}

/** One row per tile, tiles of 8 and of 32: right, and the first token has the same bits in each. */
START_TEST(right_and_alike)
{
    static const uint32_t tokens[] = {1, 3, 9, 40};
    const gguf_case_t *c = &cases[_i / 4];
    const ferrum_dtype_t act = _i % 2 ? FERRUM_DTYPE_BF16 : FERRUM_DTYPE_F16;
    const bool fast = _i / 2 % 2;
    float first[512], row[512];

    open_as(c, act, EXPERTS, fast ? FERRUM_PRECISION_FAST : FERRUM_PRECISION_ACCURATE);
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        check_tokens(tokens[i], 2, bound_of(act, fast && c->tiles), i ? row : first);
        if (i)
            ck_assert_msg(memcmp(row, first, c->hidden * sizeof *row) == 0,
                          "the first of %u tokens has other bits than alone", tokens[i]);
    }
    close_case();
}
END_TEST

/** Pairs spread over experts, some of which have none; a single expert. */
START_TEST(spread)
{
    const gguf_case_t *c = &cases[_i / 2];
    const ferrum_precision_t precision = _i % 2 ? FERRUM_PRECISION_FAST : FERRUM_PRECISION_DEFAULT;
    const double bound = bound_of(FERRUM_DTYPE_F16, _i % 2 && c->tiles);
    float row[512];

    open_as(c, FERRUM_DTYPE_F16, EXPERTS * 4, precision);
    check_tokens(7, -1, bound, row);
    check_tokens(40, -1, bound, row);
    close_case();
    open_as(c, FERRUM_DTYPE_F16, 1, precision);
    check_tokens(5, -1, bound, row);
    close_case();
}
END_TEST

/** A steady step launches four kernels at most, in `fast` always so many, and calls nothing else; a
 * graph of it gives the same bits. */
START_TEST(steady_and_captured)
{
    layer_call_t call;

    open_as(&cases[7], FERRUM_DTYPE_F16, EXPERTS,
            _i / 2 ? FERRUM_PRECISION_FAST : FERRUM_PRECISION_DEFAULT);
    call_make(&call, &layer, _i % 2 ? 40 : 1);
    call_fill(&call, &layer, 1, -1);
    ck_assert_uint_eq(cuda_steady(forward, &call, 4), _i ? 4 : 3);
    cuda_capture(forward, &call, 1);
    call_fill(&call, &layer, 2, -1);
    forward(&call);
    uint16_t *eager = call_read(&call, &layer);
    EXPECT_OK(cuda.be->buffer_zero(cuda.ctx, call.out, 0, 1, &err));
    cuda_replay(1);
    uint16_t *replayed = call_read(&call, &layer);
    ck_assert_mem_eq(replayed, eager, (size_t)call.tokens * layer.shape.hidden * sizeof *eager);
    free(eager);
    free(replayed);
    call_free(&call);
    close_case();
}
END_TEST

/** Small enough for a race detector and for many schedules; see races.sh. */
START_TEST(small)
{
    static const gguf_case_t small_cases[] = {
        {{F(Q4_0), F(Q5_1), F(Q8_0)}, 96, 32, true},
        {{F(Q4_K), F(Q6_K), F(MXFP4)}, 256, 32, true},
    };
    float row[512];

    open_as(&small_cases[_i / 2 % 2], FERRUM_DTYPE_F16, 2,
            _i / 4 ? FERRUM_PRECISION_FAST : FERRUM_PRECISION_DEFAULT);
    check_tokens(_i % 2 ? 12 : 1, -1, bound_of(FERRUM_DTYPE_F16, _i / 4), row);
    close_case();
}
END_TEST

/** A value of a normal distribution. */
static float gaussian(uint32_t *seed)
{
    float sum = -6.0f;

    for (int i = 0; i < 12; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        sum += (float)(*seed >> 8) / (float)(1 << 24);
    }
    return sum;
}

/** Rows and weights about zero, as models have them: the error of int8 is small, and not much more
 * with a channel in a hundred that is twenty times the others. */
START_TEST(gaussian_rows)
{
    static const gguf_case_t gaussian_cases[] = {
        {{F(IQ4_XS), F(IQ4_XS), F(Q6_K)}, 2048, 768, true},
        {{F(Q8_0), F(Q8_0), F(Q8_0)}, 2048, 768, true},
    };
    const bool outliers = _i % 2;
    layer_call_t call;
    uint32_t seed = 1;

    open_as(&gaussian_cases[_i / 2], FERRUM_DTYPE_F16, 2, FERRUM_PRECISION_FAST);
    call_make(&call, &layer, 9);
    call_fill(&call, &layer, 1, -1);
    for (uint32_t i = 0; i < 9 * layer.shape.hidden; i++)
        call.host_x[i] =
            rintf(gaussian(&seed) * (outliers && i % 100 == 7 ? 1280.0f : 64.0f)) / 64.0f;
    EXPECT_OK(
        cuda.be->buffer_write_f32(cuda.ctx, call.x, 0, call.host_x, 9 * layer.shape.hidden, &err));
    forward(&call);
    const double error = call_error(&call, &layer);
    ck_assert_msg(error <= (outliers ? 2e-2 : 1.3e-2), "error %g", error);
    call_free(&call);
    close_case();
}
END_TEST

/** Pairs without an expert take no part, as if they had no weight; a row with an input that is no
 *  number has none in its outputs, and leaves the others alone. */
START_TEST(left_out)
{
    const uint32_t tokens = _i ? 20 : 2, h = cases[7].hidden;
    const float infinite = INFINITY;
    const int32_t nobody = -1;
    const float nothing = 0.0f;
    layer_call_t call;

    open_as(&cases[7], FERRUM_DTYPE_F16, EXPERTS, FERRUM_PRECISION_FAST);
    call_make(&call, &layer, tokens);
    call_fill(&call, &layer, 1, -1);
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, call.weights, 1, &nothing, 1, &err));
    forward(&call);
    uint16_t *weightless = call_read(&call, &layer);
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, call.ids, 1, FERRUM_DTYPE_I32, &nobody, 1, &err));
    forward(&call);
    uint16_t *skipped = call_read(&call, &layer);
    ck_assert_mem_eq(skipped, weightless, (size_t)tokens * h * sizeof *skipped);
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, call.x, 5, &infinite, 1, &err));
    forward(&call);
    uint16_t *spoilt = call_read(&call, &layer);
    for (uint32_t i = 0; i < h; i++)
        ck_assert_msg((spoilt[i] & 0x7c00u) == 0x7c00u, "output %u is a number", i);
    ck_assert_mem_eq(spoilt + h, skipped + h, (size_t)(tokens - 1) * h * sizeof *skipped);
    free(weightless);
    free(skipped);
    free(spoilt);
    call_free(&call);
    close_case();
}
END_TEST

static const char *precision_option;

static const char *option(void *self, const char *name)
{
    (void)self;
    return strcmp(name, "FERRUM_PRECISION") == 0     ? precision_option
           : strcmp(name, "FERRUM_CUDA_DRIVER") == 0 ? cuda.driver
                                                     : NULL;
}

/** How an object runs that asks for @p precision. */
static void expect_kernel(ferrum_precision_t precision, const char *kernel)
{
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};

    layer.desc.precision = precision;
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &layer.desc, &ffn, &err));
    EXPECT_OK(cuda.mf->expert_ffn_info(ffn, &info, &err));
    ck_assert_str_eq(info.kernel, kernel);
    cuda.mf->expert_ffn_release(ffn);
}

/** The option is for objects that ask for nothing, and has two values. */
START_TEST(by_option)
{
    const layer_shape_t shape = {false, 1, 32, 32, 1};
    const ferrum_weight_format_t formats[] = {F(Q4_0), F(Q4_0), F(Q8_0)};

    cuda_load();
    cuda.host.host.option = option;
    precision_option = "quick";
    EXPECT_FAILS(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err),
                 FERRUM_INVALID_ARGUMENT, "neither accurate nor fast");
    precision_option = _i ? "fast" : "accurate";
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    EXPECT_OK(cuda.be->context_new(cuda.device, NULL, &cuda.ctx, &err));
    layer_make_of(&layer, &shape, formats);
    expect_kernel(FERRUM_PRECISION_DEFAULT, _i ? "int8 q4_0/q8_0" : "mma q4_0/q8_0");
    expect_kernel(FERRUM_PRECISION_ACCURATE, "mma q4_0/q8_0");
    expect_kernel(FERRUM_PRECISION_FAST, "int8 q4_0/q8_0");
    layer_free(&layer);
    cuda_close();
}
END_TEST

/** A scale beyond the range of its neighbours, zero, infinite: a row does not spoil the others. */
START_TEST(odd_scales)
{
    static const uint16_t scales[] = {0x0000, 0x8400, 0x7bff, 0x0001, 0x7c00};
    const gguf_case_t c = {{F(Q4_0), F(Q4_0), F(Q4_0)}, 64, 64, true};
    const uint32_t blocks_per_row = c.hidden / 32;
    layer_call_t call;

    open_case(&c, FERRUM_DTYPE_F16, 1);
    cuda.mf->expert_ffn_release(ffn);
    for (size_t row = 0; row < sizeof scales / sizeof scales[0]; row++) {
        uint8_t *block = (uint8_t *)layer.data[2] + row * blocks_per_row * 18;
        memcpy(block, &scales[row], sizeof scales[row]);
    }
    EXPECT_OK(cuda.mf->expert_ffn_create(cuda.device, &layer.desc, &ffn, &err));
    call_make(&call, &layer, 1);
    call_fill(&call, &layer, 1, 0);
    forward(&call);
    ck_assert(!isfinite(cuda_at(call.out, 4)));
    for (uint32_t i = 0; i < c.hidden; i++)
        ck_assert_msg(i == 4 || !isnan(cuda_at(call.out, i)), "output %u is no number", i);
    ck_assert(cuda_at(call.out, 8) != 0.0f);
    call_free(&call);
    close_case();
}
END_TEST

int main(void)
{
    if (!cuda_built())
        return 77;
    Suite *suite = suite_create("gguf");
    TCase *test = tcase_create("gguf");
    tcase_set_timeout(test, 240);
    tcase_add_loop_test(test, right_and_alike, 0, 4 * CASES);
    tcase_add_loop_test(test, spread, 0, 2 * CASES);
    tcase_add_loop_test(test, steady_and_captured, 0, 4);
    tcase_add_loop_test(test, gaussian_rows, 0, 4);
    tcase_add_loop_test(test, left_out, 0, 2);
    tcase_add_loop_test(test, by_option, 0, 2);
    tcase_add_test(test, odd_scales);
    suite_add_tcase(suite, test);
    TCase *races = tcase_create("small");
    tcase_set_timeout(races, 240);
    tcase_add_loop_test(races, small, 0, 8);
    suite_add_tcase(suite, races);
    return expect_run(suite);
}
