/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "tests/loader/compose_fixture.h"

#include <math.h>
#include <stdlib.h>

ferrum_loader_t *loader;
ferrum_module_t *module;
ferrum_device_t *device;
ferrum_context_t *ctx;
ferrum_tables_t tables;
ferrum_compose_t *compose;
static trace_t before;

float dense[FERRUM_ROLES][LOCAL * WIDTH * HIDDEN];

static uint64_t random_state;

static float random_value(void) /* in [-1, 1) */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(random_state >> 32) * 0x1p-31f;
}

/* ---- tables ---- */

void take_tables(void)
{
    static const char *const own[] = {"expert_ffn_create", "expert_ffn_retain",
                                      "expert_ffn_release", "expert_ffn_info",
                                      "expert_ffn_forward"};
    tables = module->tables;
    tables.quant_llm.linear = &tables.linear;
    tables.quant_llm.stacked_experts = &tables.stacked_experts;
    tables.quant_llm.marlin_stack = &tables.marlin_stack;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        ferrum_tables_drop(&tables, "moe_fused", own[i]);
}

void start_compose(uint32_t gemm_tokens)
{
    EXPECT_OK(ferrum_compose_expert_ffn(&tables, NULL, gemm_tokens, &compose, &err));
}

void compose_setup(void)
{
    ferrum_test_path_t path;
    plugin_path("cpu", path);
    before = take_trace();
    loader = fixture_loader(NULL, NULL);
    EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
    EXPECT_OK(module->tables.backend.device_open(ferrum_module_host(module), NULL, &device, &err));
    EXPECT_OK(module->tables.backend.context_new(device, NULL, &ctx, &err));
    take_tables();
    compose = NULL;
    random_state = 7;
    for (int role = 0; role < FERRUM_ROLES; role++)
        for (size_t i = 0; i < sizeof dense[role] / sizeof *dense[role]; i++)
            dense[role][i] = random_value();
}

void compose_teardown(void)
{
    ferrum_unload_report_t report;
    tables.backend.context_free(ctx);
    ferrum_compose_free(compose);
    module->tables.backend.device_release(device);
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.leaked_blocks, 0);
    ferrum_loader_free(loader);
    if (report.unloaded)
        expect_same_trace(&before);
}

/* ---- weights ---- */

static uint32_t rows_of(int role)
{
    return role == FERRUM_DOWN ? HIDDEN : WIDTH;
}

static uint32_t cols_of(int role)
{
    return role == FERRUM_DOWN ? WIDTH : HIDDEN;
}

/* Random 4-bit codes with symmetric zeros; `dense` becomes what they mean. */
static void make_gptq(layer_t *layer, int role, int e)
{
    uint32_t n = rows_of(role), k = cols_of(role), groups = k / GROUP;
    int32_t *codes = calloc((size_t)k / 8 * n, sizeof *codes);
    float *scales = calloc((size_t)groups * n, sizeof *scales);
    ck_assert(codes && scales);
    for (size_t i = 0; i < (size_t)groups * n; i++)
        scales[i] = 0.05f + 0.02f * random_value();
    for (uint32_t row = 0; row < k; row++) {
        for (uint32_t col = 0; col < n; col++) {
            uint32_t code = (uint32_t)((random_value() + 1.0f) * 8.0f) & 15u;
            codes[row / 8 * n + col] |= (int32_t)(code << (4 * (row % 8)));
            dense[role][((size_t)e * n + col) * k + row] =
                (float)((int)code - 8) * scales[row / GROUP * n + col];
        }
    }
    layer->codes[role][e] = codes;
    layer->scales[role][e] = scales;
    layer->matrices[role][e] = (ferrum_gptq_t){.head = FERRUM_HEAD(ferrum_gptq_t),
                                               .bits = 4,
                                               .group_size = GROUP,
                                               .k = k,
                                               .n = n,
                                               .qweight = codes,
                                               .qweight_count = (uint64_t)k / 8 * n,
                                               .scales = scales,
                                               .scales_count = (uint64_t)groups * n,
                                               .scales_dtype = FERRUM_DTYPE_F32};
    layer->pointers[role][e] = &layer->matrices[role][e];
}

void make_layer(layer_t *layer, bool gptq)
{
    memset(layer, 0, sizeof *layer);
    layer->gptq = gptq;
    for (int role = 0; role < FERRUM_ROLES; role++) {
        for (int e = 0; gptq && e < LOCAL; e++)
            make_gptq(layer, role, e);
        layer->gguf[role] = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                                    .format = FERRUM_FORMAT_F32,
                                                    .experts = LOCAL,
                                                    .rows = rows_of(role),
                                                    .cols = cols_of(role),
                                                    .data = dense[role],
                                                    .bytes = sizeof dense[role]};
        layer->weights[role] =
            (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                      .gguf = gptq ? NULL : &layer->gguf[role],
                                      .gptq = gptq ? layer->pointers[role] : NULL};
    }
    layer->desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                             .hidden = HIDDEN,
                                             .intermediate = WIDTH,
                                             .num_experts = EXPERTS,
                                             .first_expert = FIRST,
                                             .local_experts = LOCAL,
                                             .gate = &layer->weights[FERRUM_GATE],
                                             .up = &layer->weights[FERRUM_UP],
                                             .down = &layer->weights[FERRUM_DOWN]};
}

void free_layer(layer_t *layer)
{
    for (int role = 0; role < FERRUM_ROLES; role++) {
        for (int e = 0; e < LOCAL; e++) {
            free(layer->codes[role][e]);
            free(layer->scales[role][e]);
        }
    }
}

/* ---- one call and its oracle ---- */

static ferrum_buffer_t *upload(ferrum_dtype_t dtype, const void *data, uint64_t count)
{
    ferrum_buffer_t *buffer;
    EXPECT_OK(tables.backend.buffer_alloc(device, dtype, count, &buffer, &err));
    EXPECT_OK(tables.backend.buffer_write(ctx, buffer, 0, dtype, data, count, &err));
    return buffer;
}

/* Routing with skipped pairs, experts that are elsewhere, and one token without any that is here.
 */
void make_problem(problem_t *p, uint32_t tokens)
{
    memset(p, 0, sizeof *p);
    p->tokens = tokens;
    for (uint32_t i = 0; i < tokens * HIDDEN; i++) {
        p->x[i] = random_value();
        p->out[i] = random_value(); /* dirty */
    }
    for (uint32_t i = 0; i < tokens * TOP_K; i++) {
        static const int32_t skipped[TOP_K] = {-1, 0, EXPERTS - 1};
        p->ids[i] = (int32_t)((random_value() + 1.0f) * 0.5f * (EXPERTS + 1)) - 1;
        if (i / TOP_K == 2)
            p->ids[i] = skipped[i % TOP_K];
        bool kept = p->ids[i] >= FIRST && p->ids[i] < FIRST + LOCAL;
        p->weights[i] = kept ? 0.5f + 0.4f * random_value() : NAN; /* not to be looked at */
    }
    p->bx = upload(FERRUM_DTYPE_F32, p->x, tokens * HIDDEN);
    p->bids = upload(FERRUM_DTYPE_I32, p->ids, tokens * TOP_K);
    p->bweights = upload(FERRUM_DTYPE_F32, p->weights, tokens * TOP_K);
    p->bout = upload(FERRUM_DTYPE_F32, p->out, tokens * HIDDEN);
    p->args = (ferrum_expert_ffn_args_t){.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                         .x = p->bx,
                                         .ids = p->bids,
                                         .weights = p->bweights,
                                         .out = p->bout,
                                         .tokens = tokens,
                                         .top_k = TOP_K};
}

void free_problem(problem_t *p)
{
    tables.backend.buffer_release(p->bx);
    tables.backend.buffer_release(p->bids);
    tables.backend.buffer_release(p->bweights);
    tables.backend.buffer_release(p->bout);
}

static double dot(const float *w, const double *x, uint32_t k)
{
    double sum = 0;
    for (uint32_t i = 0; i < k; i++)
        sum += (double)w[i] * x[i];
    return sum;
}

static void add_expert(int32_t e, double weight, const float *x, double *sum)
{
    double in[HIDDEN], hidden[WIDTH];
    for (int i = 0; i < HIDDEN; i++)
        in[i] = (double)x[i];
    for (size_t i = 0; i < WIDTH; i++) {
        size_t row = ((size_t)e * WIDTH + i) * HIDDEN;
        double gate = dot(&dense[FERRUM_GATE][row], in, HIDDEN);
        hidden[i] = gate / (1.0 + exp(-gate)) * dot(&dense[FERRUM_UP][row], in, HIDDEN);
    }
    for (size_t i = 0; i < HIDDEN; i++)
        sum[i] +=
            weight * dot(&dense[FERRUM_DOWN][((size_t)e * HIDDEN + i) * WIDTH], hidden, WIDTH);
}

/* Within the bound that the object states. */
void expect_right(const ferrum_expert_ffn_t *ffn, const problem_t *p, bool accumulate)
{
    float got[MAX_TOKENS * HIDDEN];
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    EXPECT_OK(tables.moe_fused.expert_ffn_info(ffn, &info, &err));
    double bound = (double)info.error_bound;
    EXPECT_OK(tables.backend.buffer_read_f32(ctx, p->args.out, 0, got, (uint64_t)p->tokens * HIDDEN,
                                             &err));
    for (uint32_t t = 0; t < p->tokens; t++) {
        double sum[HIDDEN] = {0}, error = 0, norm = 0;
        for (uint32_t j = 0; j < TOP_K; j++) {
            int32_t local = p->ids[t * TOP_K + j] - FIRST;
            if (p->ids[t * TOP_K + j] >= 0 && local >= 0 && local < LOCAL)
                add_expert(local, (double)p->weights[t * TOP_K + j], &p->x[t * HIDDEN], sum);
        }
        for (uint32_t i = 0; i < HIDDEN; i++) {
            double want = sum[i] + (accumulate ? (double)p->out[t * HIDDEN + i] : 0.0);
            error += pow((double)got[t * HIDDEN + i] - want, 2);
            norm += want * want;
        }
        ck_assert_msg(sqrt(error) <= bound * sqrt(norm), "token %u: error %g of %g", t, sqrt(error),
                      sqrt(norm));
    }
}
