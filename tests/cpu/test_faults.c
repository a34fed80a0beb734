/* SPDX-License-Identifier: MIT */
/* Every allocation fails once: each failure is OUT_OF_MEMORY, nothing is written, nothing leaks. */
#include "tests/cpu/fixture.h"
#include "tests/cpu/weights.h"

#include <ferrum/util.h>

#include <stdlib.h>

enum {
    E = 3,
    N = 64,
    TOKENS = 5,
    K = 2
};

/** Everything a scenario may hold; what is NULL was not made. */
typedef struct objects {
    ferrum_device_t *device;
    ferrum_context_t *ctx;
    ferrum_event_t *event;
    ferrum_timer_t *timer;
    ferrum_buffer_t *x, *y, *ids, *weights;
    ferrum_linear_t *quant, *fused, *gptq, *view;
    ferrum_stacked_experts_t *stacked;
    ferrum_marlin_stack_t *marlin;
    ferrum_expert_ffn_t *ffn;
} objects_t;

/** Weights that all runs load from. */
typedef struct sources {
    test_blocks_t matrix, slab;
    test_gptq_t experts[E];
    const ferrum_gptq_t *descs[E];
    float *bias;
} sources_t;

static ferrum_status_t make_objects(const test_host_t *host, const ferrum_executor_t *executor,
                                    const sources_t *s, objects_t *o, ferrum_error_t *err)
{
    const ferrum_gguf_weights_t *parts[] = {&s->matrix.desc, &s->matrix.desc};
    FERRUM_TRY(BK->device_open(&host->host, NULL, &o->device, err));
    FERRUM_TRY(BK->context_new(o->device, executor, &o->ctx, err));
    FERRUM_TRY(BK->event_new(o->device, &o->event, err));
    FERRUM_TRY(BK->timer_new(o->device, &o->timer, err));
    FERRUM_TRY(BK->buffer_alloc(o->device, FERRUM_DTYPE_F32, TOKENS * K * N, &o->x, err));
    FERRUM_TRY(BK->buffer_alloc(o->device, FERRUM_DTYPE_F32, TOKENS * K * N * 2, &o->y, err));
    FERRUM_TRY(BK->buffer_alloc(o->device, FERRUM_DTYPE_I32, TOKENS * K, &o->ids, err));
    FERRUM_TRY(BK->buffer_wrap_host(o->device, s->bias, FERRUM_DTYPE_F32, N, &o->weights, err));
    FERRUM_TRY(QL->load_quant(o->device, &s->matrix.desc, s->bias, &o->quant, err));
    FERRUM_TRY(QL->load_quant_fused(o->device, parts, 2, &o->fused, err));
    FERRUM_TRY(QL->load_gptq(o->device, s->descs[0], &o->gptq, err));
    FERRUM_TRY(QL->load_quant_experts(o->device, &s->slab.desc, &o->stacked, err));
    FERRUM_TRY(QL->load_gptq_stacked(o->device, s->descs, E, &o->marlin, err));
    FERRUM_TRY(QL->marlin_stack->make_expert_linear(o->marlin, N + 8, 16, s->bias, &o->view, err));
    const ferrum_expert_weights_t block_role = {
        .head = FERRUM_HEAD(ferrum_expert_weights_t), .gguf = &s->slab.desc, .bias = s->bias};
    const ferrum_expert_weights_t gptq_role = {.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                               .gptq = s->descs};
    const ferrum_expert_ffn_desc_t desc = {.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                           .hidden = N,
                                           .intermediate = N,
                                           .num_experts = E,
                                           .gate = &gptq_role,
                                           .up = &block_role,
                                           .down = &gptq_role};
    return MF->expert_ffn_create(o->device, &desc, &o->ffn, err);
}

/** Ops that need scratch. */
static ferrum_status_t run_ops(const objects_t *o, ferrum_error_t *err)
{
    const ferrum_attn_config_t config = {.head = FERRUM_HEAD(ferrum_attn_config_t),
                                         .num_heads = 2,
                                         .num_kv_heads = 2,
                                         .head_dim = 8,
                                         .scale = 1.0f};
    const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           .x = o->x,
                                           .ids = o->ids,
                                           .weights = o->weights,
                                           .out = o->y,
                                           .tokens = TOKENS,
                                           .top_k = K};
    FERRUM_TRY(QL->linear->forward(o->ctx, o->fused, o->x, 0, o->y, 0, TOKENS, err));
    FERRUM_TRY(QL->linear->forward(o->ctx, o->gptq, o->x, 0, o->y, 0, TOKENS, err));
    FERRUM_TRY(QL->linear->forward(o->ctx, o->view, o->x, 0, o->y, 0, TOKENS, err));
    FERRUM_TRY(QL->stacked_experts->gemv_moe_id_batched(o->ctx, o->stacked, o->x, o->ids, o->y,
                                                        TOKENS, K, N, 0, err));
    FERRUM_TRY(BK->flash_attention(o->ctx, o->x, o->x, o->x, o->y, 1, 4, 4, 0, &config, err));
    FERRUM_TRY(MF->expert_ffn_forward(o->ctx, o->ffn, &args, err));
    return MF->route_topk_softmax(o->ctx, o->x, o->ids, o->y, TOKENS, E, K, 1, NULL, err);
}

static void free_objects(objects_t *o)
{
    cpu_release(o->x, NULL);
    cpu_release(o->y, NULL);
    cpu_release(o->ids, NULL);
    cpu_release(o->weights, NULL);
    QL->marlin_stack->release(o->marlin);
    QL->linear->release(o->quant);
    QL->linear->release(o->fused);
    QL->linear->release(o->gptq);
    QL->linear->release(o->view);
    QL->stacked_experts->release(o->stacked);
    MF->expert_ffn_release(o->ffn);
    BK->event_free(o->event);
    BK->timer_free(o->timer);
    BK->context_free(o->ctx);
    BK->device_release(o->device);
}

static void sources_init(sources_t *s)
{
    const test_gptq_shape_t shape = {.bits = 4,
                                     .group_size = 16,
                                     .k = N,
                                     .n = N,
                                     .asymmetric = true,
                                     .act_order = true,
                                     .bias = true};
    s->matrix = test_blocks_new(FERRUM_FORMAT_Q8_0, 1, N, N, 1);
    s->slab = test_blocks_new(FERRUM_FORMAT_Q4_0, E, N, N, 1);
    s->bias = cpu_random_values(1, E * N);
    for (size_t e = 0; e < E; e++) {
        s->experts[e] = test_gptq_new(&shape, e);
        s->descs[e] = &s->experts[e].desc;
    }
}

static void sources_free(sources_t *s)
{
    test_blocks_free(&s->matrix);
    test_blocks_free(&s->slab);
    free(s->bias);
    for (size_t e = 0; e < E; e++)
        test_gptq_free(&s->experts[e]);
}

START_TEST(every_allocation_fails_once)
{
    sources_t sources;
    test_executor_t *team = test_executor_new(2);
    uint64_t n = 0;
    ferrum_status_t status;
    sources_init(&sources);
    do {
        objects_t o = {0};
        test_host_t host;
        ferrum_error_t e = FERRUM_ERROR_INIT;
        test_host_init(&host);
        host.fail_at = ++n;
        status = make_objects(&host, test_executor_get(team), &sources, &o, &e);
        if (status == FERRUM_OK)
            status = run_ops(&o, &e);
        ck_assert_msg(status == FERRUM_OK || status == FERRUM_OUT_OF_MEMORY,
                      "allocation %llu: status %d: %s", (unsigned long long)n, status, e.message);
        if (status != FERRUM_OK) {
            ck_assert_int_eq(e.status, FERRUM_OUT_OF_MEMORY);
            ck_assert_ptr_nonnull(strstr(e.message, "bytes for"));
        }
        if (o.ctx && o.ffn) /* the context is usable after a failure */
            EXPECT_OK(run_ops(&o, &err));
        free_objects(&o);
        ck_assert_msg(host.live_blocks == 0 && host.live_bytes == 0,
                      "allocation %llu: %llu blocks are left", (unsigned long long)n,
                      (unsigned long long)host.live_blocks);
    } while (status != FERRUM_OK);
    ck_assert_uint_gt(n, 40);
    sources_free(&sources);
    test_executor_free(team);
}
END_TEST

/** When scratch cannot be had, outputs stay as they were. */
START_TEST(failing_ops_write_nothing)
{
    sources_t sources;
    sources_init(&sources);
    for (uint64_t n = 1;; n++) {
        objects_t o = {0};
        test_host_t host;
        test_host_init(&host);
        EXPECT_OK(make_objects(&host, NULL, &sources, &o, &err));
        const ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                               .x = o.x,
                                               .ids = o.ids,
                                               .weights = o.weights,
                                               .out = o.y,
                                               .tokens = TOKENS,
                                               .top_k = K};
        memset(cpu_floats(o.y), 0x55, TOKENS * N * sizeof(float));
        host.fail_at = host.allocations + n;
        const ferrum_status_t status = MF->expert_ffn_forward(o.ctx, o.ffn, &args, NULL);
        for (size_t i = 0; status != FERRUM_OK && i < TOKENS * N; i++)
            if (cpu_ints(o.y)[i] != 0x55555555)
                ck_abort_msg("allocation %llu: element %zu was written", (unsigned long long)n, i);
        free_objects(&o);
        if (status == FERRUM_OK) {
            ck_assert_uint_gt(n, 5);
            break;
        }
        ck_assert_int_eq(status, FERRUM_OUT_OF_MEMORY);
    }
    sources_free(&sources);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu faults");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_allocation_fails_once);
    tcase_add_test(tc, failing_ops_write_nothing);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
