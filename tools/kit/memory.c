/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of the plugin fails once. One round opens the plugin and goes through its life;
 * in round n the n-th allocation returns NULL, until a round gets through without it.
 */
#include "tools/kit/kit.h"

#include "host/runtime/executor.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    HIDDEN = 256,
    EXPERTS = 4,
    TOP_K = 2,
    TOKENS = 3,
    MAX_ROUNDS = 2000
};

/* malloc that fails once. */
typedef struct failing_memory {
    ferrum_allocator_t allocator;
    atomic_long left; /* allocations until the one that fails */
    atomic_long live;
    atomic_bool failed;
} failing_memory_t;

static void *failing_alloc(void *self, size_t bytes, size_t align)
{
    failing_memory_t *memory = self;
    void *block = NULL;
    if (atomic_fetch_sub(&memory->left, 1) == 1) {
        atomic_store(&memory->failed, true);
        return NULL;
    }
    if (posix_memalign(&block, align < sizeof(void *) ? sizeof(void *) : align, bytes) != 0)
        return NULL;
    atomic_fetch_add(&memory->live, 1);
    return block;
}

static void failing_free(void *self, void *block, size_t bytes)
{
    (void)bytes;
    if (block != NULL)
        atomic_fetch_sub(&((failing_memory_t *)self)->live, 1);
    free(block);
}

/* One round: what has been made so far. */
typedef struct life {
    failing_memory_t memory;
    ferrum_team_t *team;
    cf_weights_t slab[2], gptq; /* packed as Q4_K, and as f32 for backends without that */
    ferrum_expert_weights_t role[2];
    ferrum_buffer_t *x, *out, *w, *ids, *weights, *logits;
    ferrum_linear_t *linear, *gptq_linear;
    ferrum_expert_ffn_t *ffn;
} life_t;

typedef ferrum_status_t step_fn(cf_suite_t *suite, life_t *l, ferrum_error_t *err);

static ferrum_status_t open_device(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t),
                                       .set_activation_dtype = s->settings->set_dtype,
                                       .activation_dtype = s->settings->dtype};
    (void)l;
    return s->be->device_open(ferrum_module_host(s->module), &options, &s->device, err);
}

static ferrum_status_t make_context(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->context_new(s->device, ferrum_team_executor(l->team), &s->ctx, err);
}

static ferrum_status_t make_x(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->buffer_alloc(s->device, s->info.activation_dtype, TOKENS * HIDDEN, &l->x, err);
}

static ferrum_status_t make_out(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->buffer_alloc(s->device, s->info.activation_dtype, TOKENS * HIDDEN, &l->out, err);
}

static ferrum_status_t make_w(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->buffer_alloc(s->device, s->info.activation_dtype, HIDDEN, &l->w, err);
}

static ferrum_status_t make_ids(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->buffer_alloc(s->device, FERRUM_DTYPE_I32, TOKENS * TOP_K, &l->ids, err);
}

static ferrum_status_t make_weights(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->buffer_alloc(s->device, FERRUM_DTYPE_F32, TOKENS * TOP_K, &l->weights, err);
}

static ferrum_status_t make_logits(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->buffer_alloc(s->device, s->info.activation_dtype, TOKENS * EXPERTS, &l->logits,
                               err);
}

static ferrum_status_t write_x(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    float values[TOKENS * HIDDEN];
    for (int i = 0; i < TOKENS * HIDDEN; i++)
        values[i] = (float)(i % 17) / 17;
    return s->be->buffer_write_f32(s->ctx, l->x, 0, values, TOKENS * HIDDEN, err);
}

static ferrum_status_t norm(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->rms_norm(s->ctx, l->x, l->w, 1e-5F, l->out, TOKENS, HIDDEN, err);
}

static ferrum_status_t multiply(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->be->gemm(s->ctx, l->x, l->x, l->out, TOKENS, TOKENS, HIDDEN, err);
}

static ferrum_status_t load_linear(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    ferrum_status_t status = FERRUM_UNSUPPORTED;
    for (int i = 0; i < 2 && status == FERRUM_UNSUPPORTED; i++) {
        ferrum_gguf_weights_t one = l->slab[i].gguf;
        one.experts = 1;
        one.bytes /= EXPERTS;
        status = s->ql->load_quant(s->device, &one, NULL, &l->linear, err);
    }
    return status;
}

static ferrum_status_t run_linear(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->ql->linear->forward(s->ctx, l->linear, l->x, 0, l->out, 0, TOKENS, err);
}

static ferrum_status_t load_gptq(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->ql->load_gptq(s->device, &l->gptq.gptq[0], &l->gptq_linear, err);
}

static ferrum_status_t run_gptq(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->ql->linear->forward(s->ctx, l->gptq_linear, l->x, 0, l->out, 0, TOKENS, err);
}

static ferrum_status_t route(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    return s->mf->route_topk_softmax(s->ctx, l->logits, l->ids, l->weights, TOKENS, EXPERTS, TOP_K,
                                     1, NULL, err);
}

static ferrum_status_t make_ffn(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    ferrum_expert_ffn_desc_t desc = {.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                     .hidden = HIDDEN,
                                     .intermediate = HIDDEN,
                                     .num_experts = EXPERTS,
                                     .gate = &l->role[0],
                                     .up = &l->role[0],
                                     .down = &l->role[0]};
    ferrum_status_t status = s->mf->expert_ffn_create(s->device, &desc, &l->ffn, err);
    if (status != FERRUM_UNSUPPORTED)
        return status;
    desc.gate = desc.up = desc.down = &l->role[1];
    return s->mf->expert_ffn_create(s->device, &desc, &l->ffn, err);
}

static ferrum_status_t run_ffn(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    const ferrum_expert_ffn_args_t args = {FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                           l->x,
                                           l->ids,
                                           l->weights,
                                           l->out,
                                           TOKENS,
                                           TOP_K,
                                           0,
                                           0};
    return s->mf->expert_ffn_forward(s->ctx, l->ffn, &args, err);
}

static ferrum_status_t sync_all(cf_suite_t *s, life_t *l, ferrum_error_t *err)
{
    (void)l;
    return s->be->context_sync(s->ctx, err);
}

/* A step that another needs and that was refused takes the other with it. */
static const struct {
    const char *name;
    step_fn *run;
    size_t needs; /* offset in life_t of an object that must be there; 0: none */
} steps[] = {
    {"context_new", make_context, 0},
    {"buffer_alloc", make_x, 0},
    {"buffer_alloc", make_out, 0},
    {"buffer_alloc", make_w, 0},
    {"buffer_alloc", make_ids, 0},
    {"buffer_alloc", make_weights, 0},
    {"buffer_alloc", make_logits, 0},
    {"buffer_write_f32", write_x, 0},
    {"rms_norm", norm, 0},
    {"gemm", multiply, 0},
    {"load_quant", load_linear, 0},
    {"linear.forward", run_linear, offsetof(life_t, linear)},
    {"load_gptq", load_gptq, 0},
    {"linear.forward (GPTQ)", run_gptq, offsetof(life_t, gptq_linear)},
    {"route_topk_softmax", route, 0},
    {"expert_ffn_create", make_ffn, 0},
    {"expert_ffn_forward", run_ffn, offsetof(life_t, ffn)},
    {"context_sync", sync_all, 0},
};

/* Run one step; when the failing allocation hits it, it must say so, and work the second time. */
static bool take(cf_suite_t *suite, life_t *l, const char *name, step_fn *run)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    bool had_failed = atomic_load(&l->memory.failed);
    ferrum_status_t status = run(suite, l, &err);
    bool hit = !had_failed && atomic_load(&l->memory.failed);
    if (hit && status != FERRUM_OK) {
        if (status != FERRUM_OUT_OF_MEMORY)
            cf_fail(suite, "%s returns status %d instead of OUT_OF_MEMORY: %.160s", name, status,
                    err.message);
        else if (cf_error_flaw(status, &err) != NULL)
            cf_fail(suite, "%s: %s", name, cf_error_flaw(status, &err));
        err = (ferrum_error_t)FERRUM_ERROR_INIT;
        status = run(suite, l, &err);
    }
    if (status != FERRUM_OK && status != FERRUM_UNSUPPORTED)
        cf_fail(suite, "%s %s: status %d, %.160s", name, hit ? "fails again" : "fails", status,
                err.message);
    return status == FERRUM_OK;
}

static void end_life(cf_suite_t *suite, life_t *l)
{
    ferrum_buffer_t *const buffers[] = {l->x, l->out, l->w, l->ids, l->weights, l->logits};
    ferrum_unload_report_t report;
    suite->mf->expert_ffn_release(l->ffn);
    suite->ql->linear->release(l->gptq_linear);
    suite->ql->linear->release(l->linear);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        suite->be->buffer_release(buffers[i]);
    suite->be->context_free(suite->ctx);
    suite->be->device_release(suite->device);
    suite->ctx = NULL;
    suite->device = NULL;
    ferrum_module_release(suite->module, &report);
    suite->module = NULL;
    cf_judge_unload(suite, &report);
    if (atomic_load(&l->memory.live) != 0)
        cf_fail(suite, "%ld blocks were not freed", atomic_load(&l->memory.live));
}

static void live(cf_suite_t *suite, life_t *l)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    suite->be = ferrum_module_backend(suite->module);
    suite->ql = ferrum_module_quant_llm(suite->module);
    suite->mf = ferrum_module_moe_fused(suite->module);
    suite->info.head.size = sizeof suite->info;
    if (!take(suite, l, "device_open", open_device)) {
        suite->case_refused = true;
        strcpy(suite->reason, "there is no device");
        return;
    }
    if (!cf_ok(suite, suite->be->device_info(suite->device, &suite->info, &err), &err))
        return;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        void *needed = l->team;
        if (steps[i].needs != 0)
            memcpy(&needed, (char *)l + steps[i].needs, sizeof needed);
        if (needed != NULL && !take(suite, l, steps[i].name, steps[i].run) && i < 8)
            return; /* nothing goes on without context and buffers */
    }
}

/* One life in which allocation `n` fails (0: none); false when no such allocation came. */
static bool round_case(cf_suite_t *suite, const life_t *start, long n)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    life_t l = *start;
    l.memory.allocator = (ferrum_allocator_t){FERRUM_HEAD(ferrum_allocator_t), &l.memory,
                                              failing_alloc, failing_free};
    atomic_init(&l.memory.left, n);
    atomic_init(&l.memory.live, 0);
    atomic_init(&l.memory.failed, false);
    ferrum_loader_t *loader = NULL;
    ferrum_status_t status = ferrum_loader_new(suite->settings->options, &l.memory.allocator,
                                               suite->settings->logger, &loader, &err);
    if (status == FERRUM_OK)
        status = ferrum_loader_open(loader, suite->path, &suite->module, &err);
    if (status == FERRUM_OK) {
        live(suite, &l);
        end_life(suite, &l);
    } else if (!atomic_load(&l.memory.failed)) {
        cf_fail(suite, "%s", err.message);
    }
    ferrum_loader_free(loader);
    return atomic_load(&l.memory.failed);
}

void cf_group_memory(cf_suite_t *suite)
{
    static const cf_gptq_kind_t kind = {
        4, 64, false, true, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    life_t start = {.team = NULL};
    cf_suite_t keeper = *suite; /* owns the weights over all cases */
    cf_end(suite);
    static const ferrum_weight_format_t formats[2] = {FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_F32};
    start.gptq = cf_random_gptq(&keeper, &kind, 1, HIDDEN, HIDDEN);
    for (int i = 0; i < 2; i++) {
        start.slab[i] = cf_random_blocks(&keeper, formats[i], EXPERTS, HIDDEN, HIDDEN);
        start.role[i] = (ferrum_expert_weights_t){FERRUM_HEAD(ferrum_expert_weights_t),
                                                  &start.slab[i].gguf, NULL, NULL};
    }
    cf_begin(suite, "a life without failures");
    if (cf_ok(suite, ferrum_team_new(2, &start.team, &err), &err))
        round_case(suite, &start, 0);
    bool sound = !suite->case_failed && !suite->case_refused;
    cf_end(suite);
    for (long n = 1; sound && n <= MAX_ROUNDS; n++) {
        cf_begin(suite, "allocation %ld fails", n);
        bool came = round_case(suite, &start, n);
        if (came && n == MAX_ROUNDS)
            cf_advise(suite, "only the first %d allocations were made to fail", MAX_ROUNDS);
        if (came)
            cf_end(suite);
        else
            break;
    }
    ferrum_team_free(start.team);
    while (keeper.objects > 0) {
        keeper.objects--;
        keeper.release[keeper.objects](&keeper, keeper.object[keeper.objects]);
    }
}
