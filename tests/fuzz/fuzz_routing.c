/* SPDX-License-Identifier: MIT */
/* Routing and grouping of pairs: the host's code and the cpu backend's, over any logits and ids,
 * and each against the other. */
#include "backends/cpu/entries.h"
#include "host/moe/align.h"
#include "host/moe/bucket_plan.h"
#include "host/moe/router.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/test_host.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <ferrum/moe.h>

#define BK (&ferrum_cpu_backend_ops)
#define MF (&ferrum_cpu_moe_fused_ops)

enum {
    MAX_BATCH = 40,
    MAX_EXPERTS = 70,
    MAX_TOP_K = 9
};

/* Opened once: a device holds no state that an op changes, a context only scratch. */
static test_host_t host;
static ferrum_device_t *device;
static ferrum_context_t *ctx;

static void close_cpu(void)
{
    BK->context_free(ctx);
    BK->device_release(device);
}

static void open_cpu(void)
{
    test_host_init(&host);
    FUZZ_REQUIRE(BK->device_open(&host.host, NULL, &device, NULL) == FERRUM_OK);
    FUZZ_REQUIRE(BK->context_new(device, NULL, &ctx, NULL) == FERRUM_OK);
    (void)atexit(close_cpu);
}

/* Memory of exactly n words of 4 bytes, as a buffer. */
static ferrum_buffer_t *wrap(void *words, ferrum_dtype_t dtype, size_t n)
{
    ferrum_buffer_t *buffer = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    FUZZ_REQUIRE(BK->buffer_wrap_host(device, words, dtype, n, &buffer, &err) == FERRUM_OK);
    return buffer;
}

static void *words(size_t n)
{
    void *memory = aligned_alloc(64, (n * 4 + 63) / 64 * 64 + 64);
    if (!memory)
        abort();
    memset(memory, 0x5a, n * 4 + 1);
    return memory;
}

/* One input, decoded. */
typedef struct shape {
    uint32_t batch;
    uint32_t experts;
    uint32_t top_k;
    uint32_t block_size;
    bool norm_topk;
} shape_t;

/* ---- routing ---- */

static void check_row(const uint32_t *ids, const float *weights, const shape_t *s)
{
    for (uint32_t i = 0; i < s->top_k; i++) {
        FUZZ_REQUIRE(ids[i] < s->experts);
        for (uint32_t j = 0; j < i; j++)
            FUZZ_REQUIRE(ids[i] != ids[j]);
        FUZZ_REQUIRE(!isnan(weights[i]));
    }
}

static void run_host_route(const shape_t *s, const float *logits, uint32_t *ids, float *weights,
                           ferrum_status_t *out_status)
{
    float *probs = words(s->experts);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    *out_status = ferrum_moe_route(logits, (uint64_t)s->batch * s->experts, s->batch, s->experts,
                                   s->top_k, s->norm_topk, probs, (int32_t *)ids, weights, &err);
    if (*out_status != FERRUM_OK)
        fuzz_require_refusal(*out_status, &err);
    for (uint32_t row = 0; *out_status == FERRUM_OK && row < s->batch; row++) {
        float sum = 0.0f;
        check_row(ids + (size_t)row * s->top_k, weights + (size_t)row * s->top_k, s);
        for (uint32_t j = 0; j < s->top_k; j++) {
            float w = weights[(size_t)row * s->top_k + j];
            FUZZ_REQUIRE(w >= 0.0f && (j == 0 || w <= weights[(size_t)row * s->top_k + j - 1]));
            sum += w;
        }
        FUZZ_REQUIRE(sum <= 1.001f && (!s->norm_topk || sum >= 0.999f));
    }
    free(probs);
}

static void run_cpu_route(const shape_t *s, float *logits, const ferrum_routing_t *routing,
                          const uint32_t *host_ids, ferrum_status_t host_status)
{
    uint32_t *ids = words((size_t)s->batch * s->top_k);
    float *weights = words((size_t)s->batch * s->top_k);
    ferrum_buffer_t *buffer = wrap(logits, FERRUM_DTYPE_F32, (size_t)s->batch * s->experts);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t status = MF->route_topk_into_host(
        ctx, buffer, ids, weights, s->batch, s->experts, s->top_k, s->norm_topk, routing, &err);
    if (status != FERRUM_OK)
        fuzz_require_refusal(status, &err);
    for (uint32_t row = 0; status == FERRUM_OK && row < s->batch; row++)
        check_row(ids + (size_t)row * s->top_k, weights + (size_t)row * s->top_k, s);
    if (!routing && s->batch > 0) {
        FUZZ_REQUIRE((status == FERRUM_OK) == (host_status == FERRUM_OK));
        FUZZ_REQUIRE(status != FERRUM_OK ||
                     memcmp(ids, host_ids, (size_t)s->batch * s->top_k * sizeof *ids) == 0);
    }
    BK->buffer_release(buffer);
    free(ids);
    free(weights);
}

static void run_routing(const shape_t *s, fuzz_source_t *source)
{
    size_t values = (size_t)s->batch * s->experts;
    float *logits = words(values), *bias_values = words(s->experts);
    uint32_t *ids = words((size_t)s->batch * s->top_k);
    float *weights = words((size_t)s->batch * s->top_k);
    ferrum_routing_t routing = {.head = FERRUM_HEAD(ferrum_routing_t),
                                .score_function = fuzz_up_to(source, 4),
                                .renormalise = fuzz_up_to(source, 1),
                                .num_groups = fuzz_up_to(source, 9),
                                .topk_groups = fuzz_up_to(source, 9)};
    bool biased = fuzz_u8(source) & 1;
    ferrum_status_t status;
    for (size_t i = 0; i < values; i++) {
        uint32_t bits = fuzz_u32(source);
        memcpy(&logits[i], &bits, sizeof bits);
    }
    for (size_t i = 0; i < s->experts; i++)
        bias_values[i] = (float)(int8_t)fuzz_u8(source) * 3e36f;
    ferrum_buffer_t *bias = wrap(bias_values, FERRUM_DTYPE_F32, s->experts);
    routing.selection_bias = biased ? bias : NULL;

    run_host_route(s, logits, ids, weights, &status);
    run_cpu_route(s, logits, NULL, ids, status);
    run_cpu_route(s, logits, &routing, NULL, FERRUM_OK);
    BK->buffer_release(bias);
    free(logits);
    free(bias_values);
    free(ids);
    free(weights);
}

/* ---- grouping ---- */

static void check_plan(const ferrum_bucket_plan_t *plan, const uint32_t *ids, const shape_t *s)
{
    FUZZ_REQUIRE(plan->expert_offsets[plan->num_experts] == plan->pairs);
    for (uint32_t p = 0; p < plan->pairs; p++) {
        uint32_t row = (uint32_t)plan->pairs_by_token[p];
        FUZZ_REQUIRE(row >= plan->expert_offsets[ids[p]] && row < plan->expert_offsets[ids[p] + 1]);
        FUZZ_REQUIRE(plan->packed_pairs[row] == p && plan->packed_token_idx[row] == p / s->top_k);
    }
}

/* The host's padded rows and the backend's are the same numbers. */
static void compare_alignment(const ferrum_bucket_plan_t *plan, ferrum_buffer_t *id_buffer,
                              const shape_t *s, ferrum_align_rows_t kind)
{
    ferrum_moe_alignment_t host_side = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t room = plan->pairs + s->experts * s->block_size;
    int32_t *sorted = words(room), *blocks = words(room / s->block_size), *total = words(1);
    ferrum_buffer_t *buffers[] = {wrap(sorted, FERRUM_DTYPE_I32, room),
                                  wrap(blocks, FERRUM_DTYPE_I32, room / s->block_size),
                                  wrap(total, FERRUM_DTYPE_I32, 1)};
    ferrum_status_t (*op)(ferrum_context_t *, const ferrum_buffer_t *, ferrum_buffer_t *,
                          ferrum_buffer_t *, ferrum_buffer_t *, uint32_t, uint32_t, uint32_t,
                          uint32_t, ferrum_error_t *) = kind == FERRUM_ALIGN_PAIR_IDS
                                                            ? MF->moe_align_block_size_pair_ids
                                                            : MF->moe_align_block_size;
    FUZZ_REQUIRE(ferrum_moe_align(plan, s->block_size, kind, &host_side, &err) == FERRUM_OK);
    FUZZ_REQUIRE(op(ctx, id_buffer, buffers[0], buffers[1], buffers[2], plan->pairs, s->experts,
                    s->block_size, room, &err) == FERRUM_OK);
    FUZZ_REQUIRE((uint32_t)total[0] == host_side.total && host_side.total <= room);
    FUZZ_REQUIRE(memcmp(sorted, host_side.sorted, host_side.total * sizeof *sorted) == 0);
    FUZZ_REQUIRE(memcmp(blocks, host_side.block_ids, host_side.blocks * sizeof *blocks) == 0);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        BK->buffer_release(buffers[i]);
    free(sorted);
    free(blocks);
    free(total);
    ferrum_moe_alignment_free(&host_side);
}

/* Lists of the backend have a stride of all pairs, the host's of the longest list. */
static void compare_lists(uint32_t *ids, ferrum_buffer_t *id_buffer, const shape_t *s)
{
    ferrum_ids_tpe_t lists = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t pairs = s->batch * s->top_k;
    int32_t *tpe = words(s->experts), *entries = words((size_t)s->experts * pairs);
    uint32_t *args = words(3);
    ferrum_buffer_t *buffers[] = {wrap(tpe, FERRUM_DTYPE_I32, s->experts),
                                  wrap(entries, FERRUM_DTYPE_I32, (size_t)s->experts * pairs),
                                  wrap(args, FERRUM_DTYPE_U32, 3)};
    FUZZ_REQUIRE(ferrum_compute_ids_tpe(ids, pairs, s->experts, &lists, &err) == FERRUM_OK);
    FUZZ_REQUIRE(MF->compute_ids_tpe(ctx, id_buffer, buffers[0], buffers[1], buffers[2], buffers[2],
                                     s->batch, s->experts, s->top_k, 1, 1, &err) == FERRUM_OK);
    FUZZ_REQUIRE(memcmp(tpe, lists.tpe, s->experts * sizeof *tpe) == 0);
    for (uint32_t e = 0; e < s->experts; e++)
        FUZZ_REQUIRE(memcmp(entries + (size_t)e * pairs,
                            lists.ids + (size_t)e * lists.max_per_expert,
                            (size_t)tpe[e] * sizeof *entries) == 0);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        BK->buffer_release(buffers[i]);
    free(tpe);
    free(entries);
    free(args);
    ferrum_ids_tpe_free(&lists);
}

static void compare_pairs(const ferrum_bucket_plan_t *plan, ferrum_buffer_t *id_buffer,
                          const shape_t *s, bool all_valid)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t pairs = s->batch * s->top_k;
    int32_t *rows = words(pairs), *tokens = words(pairs), *offsets = words(s->experts + 1);
    ferrum_buffer_t *buffers[] = {wrap(rows, FERRUM_DTYPE_I32, pairs),
                                  wrap(tokens, FERRUM_DTYPE_I32, pairs),
                                  wrap(offsets, FERRUM_DTYPE_I32, s->experts + 1)};
    FUZZ_REQUIRE(MF->moe_build_pairs_by_token(ctx, id_buffer, buffers[0], buffers[1], buffers[2],
                                              pairs, s->experts, s->top_k, &err) == FERRUM_OK);
    FUZZ_REQUIRE(offsets[0] == 0 && (uint32_t)offsets[s->experts] <= pairs);
    for (uint32_t p = 0; p < pairs; p++)
        FUZZ_REQUIRE(rows[p] >= -1 && rows[p] < offsets[s->experts]);
    if (all_valid) {
        FUZZ_REQUIRE(memcmp(rows, plan->pairs_by_token, pairs * sizeof *rows) == 0);
        FUZZ_REQUIRE(memcmp(tokens, plan->packed_token_idx, pairs * sizeof *tokens) == 0);
        FUZZ_REQUIRE(memcmp(offsets, plan->expert_offsets, (s->experts + 1) * sizeof *offsets) ==
                     0);
    }
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        BK->buffer_release(buffers[i]);
    free(rows);
    free(tokens);
    free(offsets);
}

static void run_grouping(const shape_t *s, fuzz_source_t *source)
{
    uint32_t pairs = s->batch * s->top_k;
    uint32_t *ids = words(pairs);
    float *weights = words(pairs);
    ferrum_bucket_plan_t plan = {0};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    bool wild = fuzz_u8(source) & 1, all_valid = true;
    for (uint32_t p = 0; p < pairs; p++) {
        ids[p] =
            wild ? (uint32_t)(int32_t)(int8_t)fuzz_u8(source) : fuzz_up_to(source, s->experts - 1);
        all_valid = all_valid && ids[p] < s->experts;
    }
    ferrum_buffer_t *id_buffer = wrap(ids, FERRUM_DTYPE_I32, pairs);
    const ferrum_router_output_t output = {
        .batch = s->batch, .top_k = s->top_k, .expert_ids = ids, .expert_weights = weights};
    ferrum_status_t status = ferrum_bucket_plan_rebuild(&output, s->experts, &plan, &err);
    FUZZ_REQUIRE((status == FERRUM_OK) == all_valid);
    if (status == FERRUM_OK) {
        const uint32_t picked = ferrum_moe_pick_block_size(&plan);
        FUZZ_REQUIRE(ferrum_moe_block_size_valid(picked));
        check_plan(&plan, ids, s);
        compare_alignment(&plan, id_buffer, s, FERRUM_ALIGN_PACKED_ROWS);
        compare_alignment(&plan, id_buffer, s, FERRUM_ALIGN_PAIR_IDS);
    } else {
        fuzz_require_refusal(status, &err);
        FUZZ_REQUIRE(plan.pairs == 0);
    }
    compare_pairs(&plan, id_buffer, s, all_valid);
    compare_lists(ids, id_buffer, s);
    BK->buffer_release(id_buffer);
    ferrum_bucket_plan_free(&plan);
    free(ids);
    free(weights);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_source_t source = {data, size};
    if (!device)
        open_cpu();
    bool routing = fuzz_u8(&source) & 1;
    shape_t s = {.batch = fuzz_up_to(&source, MAX_BATCH),
                 .experts = 1 + fuzz_up_to(&source, MAX_EXPERTS - 1),
                 .top_k = 1 + fuzz_up_to(&source, MAX_TOP_K - 1),
                 .block_size = 1 + fuzz_up_to(&source, 99),
                 .norm_topk = fuzz_u8(&source) & 1};
    if (routing)
        run_routing(&s, &source);
    else
        run_grouping(&s, &source);
    return 0;
}
