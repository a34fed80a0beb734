/* SPDX-License-Identifier: MIT */
/* expert_ffn_forward out of granular ops; compose.h says how. */
#include "compose.h"
#include "sys.h"
#include "text.h"

typedef ferrum_compose_scratch_t scratch_t;

/* One call. Pairs are local: -1 for those that are skipped, with weight 0. */
typedef struct call {
    ferrum_context_t *ctx;
    const ferrum_composed_ffn_t *ffn;
    const ferrum_tables_t *tables;
    const ferrum_expert_ffn_args_t *args;
    scratch_t *scratch;
    uint32_t pairs;
    uint32_t kept;  /* pairs that are not skipped */
    int32_t *ids;   /* [pairs] */
    float *weights; /* [pairs] */
    int32_t *work;  /* [pairs + 4 * local_experts] */
    ferrum_error_t *err;
} call_t;

/* ---- scratch ---- */

static void release_scratch(const ferrum_backend_ops_t *backend, scratch_t *s)
{
    ferrum_buffer_t *const buffers[] = {s->ids,  s->weights, s->lists,  s->counts, s->packed_x,
                                        s->gate, s->up,      s->hidden, s->slots,  s->sum};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        if (buffers[i])
            backend->buffer_release(buffers[i]);
    ferrum_sys->release(s->host);
    ferrum_sys->release(s->host_lists);
    ferrum_sys->release(s);
}

void ferrum_compose_drop_scratch(ferrum_compose_t *compose, const ferrum_context_t *ctx)
{
    scratch_t *dropped = NULL;
    (void)pthread_mutex_lock(&compose->mutex);
    for (scratch_t **link = &compose->scratch; *link;) {
        scratch_t *s = *link;
        if (ctx && s->ctx != ctx) {
            link = &s->next;
            continue;
        }
        *link = s->next;
        s->next = dropped;
        dropped = s;
    }
    (void)pthread_mutex_unlock(&compose->mutex);
    while (dropped) {
        scratch_t *next = dropped->next;
        release_scratch(&compose->tables->backend, dropped);
        dropped = next;
    }
}

static ferrum_status_t find_scratch(call_t *call)
{
    ferrum_compose_t *compose = call->ffn->compose;
    (void)pthread_mutex_lock(&compose->mutex);
    scratch_t *s = compose->scratch;
    while (s && s->ctx != call->ctx)
        s = s->next;
    if (!s && (s = ferrum_sys->alloc(sizeof *s)) != NULL) {
        s->ctx = call->ctx;
        s->next = compose->scratch;
        compose->scratch = s;
    }
    (void)pthread_mutex_unlock(&compose->mutex);
    call->scratch = s;
    return s ? FERRUM_OK
             : ferrum_fail(call->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for the scratch of expert_ffn");
}

/* Make *buffer at least @p count elements long; the old one goes when its work is done. */
static ferrum_status_t grow(call_t *call, ferrum_buffer_t **buffer, ferrum_dtype_t dtype,
                            uint64_t count)
{
    const ferrum_backend_ops_t *backend = &call->tables->backend;
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    ferrum_buffer_t *grown = NULL;
    if (*buffer) {
        FERRUM_TRY(backend->buffer_info(*buffer, &info, call->err));
        if (info.count >= count)
            return FERRUM_OK;
    }
    FERRUM_TRY(backend->buffer_alloc(call->ffn->device, dtype, count, &grown, call->err));
    if (*buffer)
        backend->buffer_release(*buffer);
    *buffer = grown;
    return FERRUM_OK;
}

static ferrum_status_t grow_act(call_t *call, ferrum_buffer_t **buffer, uint64_t rows,
                                uint32_t cols)
{
    return grow(call, buffer, call->ffn->activation_dtype, rows * cols);
}

static ferrum_status_t grow_host(const call_t *call, int32_t **block, uint64_t *words,
                                 uint64_t needed)
{
    if (*words >= needed)
        return FERRUM_OK;
    int32_t *grown = needed > SIZE_MAX / 4 ? NULL : ferrum_sys->alloc((size_t)needed * 4);
    if (!grown)
        return ferrum_fail(call->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for %u routed pairs", call->pairs);
    ferrum_sys->release(*block);
    *block = grown;
    *words = needed;
    return FERRUM_OK;
}

/* ---- arguments ---- */

static ferrum_status_t check_buffer(const call_t *call, const ferrum_buffer_t *buffer,
                                    const char *name, ferrum_dtype_t dtype, uint64_t count)
{
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    if (!buffer)
        return ferrum_fail(call->err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "expert_ffn_forward: %s is NULL", name);
    FERRUM_TRY(call->tables->backend.buffer_info(buffer, &info, call->err));
    if (info.dtype != dtype)
        return ferrum_fail(call->err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "expert_ffn_forward: %s is %s, not %s", name,
                           ferrum_dtype_name(info.dtype), ferrum_dtype_name(dtype));
    if (info.count < count)
        return ferrum_fail(call->err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "expert_ffn_forward: %s has %llu elements, %llu are needed", name,
                           (unsigned long long)info.count, (unsigned long long)count);
    return FERRUM_OK;
}

static ferrum_status_t check_args(call_t *call)
{
    const ferrum_expert_ffn_args_t *a = call->args;
    const ferrum_composed_ffn_t *ffn = call->ffn;
    uint64_t pairs = (uint64_t)a->tokens * a->top_k;
    uint64_t values = (uint64_t)a->tokens * ffn->hidden;
    if (a->flags & ~(uint32_t)FERRUM_FFN_ACCUMULATE)
        return ferrum_fail(call->err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "expert_ffn_forward: unknown flags 0x%x", a->flags);
    if (pairs > INT32_MAX || pairs * ffn->hidden > UINT64_MAX / 8 ||
        pairs * ffn->intermediate > UINT64_MAX / 8)
        return ferrum_fail(call->err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "expert_ffn_forward: %u tokens of %u experts are too many", a->tokens,
                           a->top_k);
    call->pairs = (uint32_t)pairs;
    FERRUM_TRY(check_buffer(call, a->x, "x", ffn->activation_dtype, values));
    FERRUM_TRY(check_buffer(call, a->out, "out", ffn->activation_dtype, values));
    FERRUM_TRY(check_buffer(call, a->ids, "ids", FERRUM_DTYPE_I32, pairs));
    return check_buffer(call, a->weights, "weights", FERRUM_DTYPE_F32, pairs);
}

/* Read the routing and make it local. */
static ferrum_status_t read_routing(call_t *call)
{
    const ferrum_backend_ops_t *backend = &call->tables->backend;
    const ferrum_composed_ffn_t *ffn = call->ffn;
    scratch_t *s = call->scratch;
    FERRUM_TRY(grow_host(call, &s->host, &s->host_words,
                         3 * (uint64_t)call->pairs + 4 * (uint64_t)ffn->local_experts));
    call->ids = s->host;
    call->weights = (float *)(s->host + call->pairs);
    call->work = s->host + 2 * (size_t)call->pairs;
    FERRUM_TRY(backend->buffer_read(call->ctx, call->args->ids, 0, FERRUM_DTYPE_I32, call->ids,
                                    call->pairs, call->err));
    FERRUM_TRY(backend->buffer_read(call->ctx, call->args->weights, 0, FERRUM_DTYPE_F32,
                                    call->weights, call->pairs, call->err));
    for (uint32_t p = 0; p < call->pairs; p++) {
        int32_t id = call->ids[p];
        if (id < -1 || id >= (int32_t)ffn->num_experts)
            return ferrum_fail(call->err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "expert id %d of token %u is outside 0..%u", id,
                               p / call->args->top_k, ffn->num_experts - 1);
        uint32_t local = (uint32_t)id - ffn->first_expert; /* wraps for ids below */
        bool kept = id >= 0 && local < ffn->local_experts;
        call->ids[p] = kept ? (int32_t)local : -1;
        call->weights[p] = kept ? call->weights[p] : 0.0f;
        call->kept += kept;
    }
    return FERRUM_OK;
}

/* ---- GGUF ---- */

/* Pair ids per expert, as gemm_moe_id takes them. */
static ferrum_status_t upload_lists(call_t *call, uint32_t *out_longest)
{
    const ferrum_backend_ops_t *backend = &call->tables->backend;
    scratch_t *s = call->scratch;
    uint32_t experts = call->ffn->local_experts, longest = 1;
    int32_t *counts = call->work, *lists;
    memset(counts, 0, experts * sizeof *counts);
    for (uint32_t p = 0; p < call->pairs; p++)
        if (call->ids[p] >= 0 && (uint32_t)++counts[call->ids[p]] > longest)
            longest = (uint32_t)counts[call->ids[p]];
    uint64_t words = (uint64_t)experts * longest;
    FERRUM_TRY(grow_host(call, &s->host_lists, &s->host_list_words, words));
    lists = s->host_lists;
    memset(counts, 0, experts * sizeof *counts);
    for (uint32_t p = 0; p < call->pairs; p++) {
        int32_t e = call->ids[p];
        if (e >= 0)
            lists[(uint64_t)e * longest + (uint64_t)counts[e]++] = (int32_t)p;
    }
    *out_longest = longest;
    FERRUM_TRY(grow(call, &s->lists, FERRUM_DTYPE_I32, words));
    FERRUM_TRY(grow(call, &s->counts, FERRUM_DTYPE_I32, experts));
    FERRUM_TRY(
        backend->buffer_write(call->ctx, s->lists, 0, FERRUM_DTYPE_I32, lists, words, call->err));
    return backend->buffer_write(call->ctx, s->counts, 0, FERRUM_DTYPE_I32, counts, experts,
                                 call->err);
}

/* `out[p,:] = W[ids[p]] * in[row of p,:]`; longest != 0 selects the GEMM form. */
static ferrum_status_t project(call_t *call, int role, const ferrum_buffer_t *in,
                               ferrum_buffer_t *out, uint32_t longest)
{
    const ferrum_stacked_experts_ops_t *ops = &call->tables->stacked_experts;
    const ferrum_composed_ffn_t *ffn = call->ffn;
    uint32_t tokens = call->args->tokens, top_k = call->args->top_k;
    bool per_pair = role == FERRUM_DOWN; /* its input has a row per pair, not per token */
    if (longest)
        return ops->gemm_moe_id(call->ctx, ffn->stacked[role], in, call->scratch->lists,
                                call->scratch->counts, out, per_pair ? top_k : 1, top_k, longest,
                                tokens, call->err);
    uint64_t outer = per_pair ? (uint64_t)top_k * ffn->intermediate : ffn->hidden;
    return ops->gemv_moe_id_batched(call->ctx, ffn->stacked[role], in, call->scratch->ids, out,
                                    tokens, top_k, outer, per_pair ? ffn->intermediate : 0,
                                    call->err);
}

static ferrum_status_t run_gguf(call_t *call, ferrum_buffer_t *out)
{
    const ferrum_composed_ffn_t *ffn = call->ffn;
    const ferrum_compose_t *compose = ffn->compose;
    const ferrum_backend_ops_t *backend = &call->tables->backend;
    const ferrum_moe_fused_ops_t *fused = &call->tables->moe_fused;
    scratch_t *s = call->scratch;
    uint32_t longest = 0;
    bool gemm =
        compose->has_gemm && (!compose->has_gemv || call->args->tokens >= compose->gemm_tokens);
    FERRUM_TRY(grow_act(call, &s->gate, call->pairs, ffn->intermediate));
    FERRUM_TRY(grow_act(call, &s->up, call->pairs, ffn->intermediate));
    FERRUM_TRY(grow_act(call, &s->hidden, call->pairs, ffn->intermediate));
    FERRUM_TRY(grow_act(call, &s->slots, call->pairs, ffn->hidden));
    if (gemm) {
        FERRUM_TRY(upload_lists(call, &longest));
    } else {
        FERRUM_TRY(grow(call, &s->ids, FERRUM_DTYPE_I32, call->pairs));
        FERRUM_TRY(backend->buffer_write(call->ctx, s->ids, 0, FERRUM_DTYPE_I32, call->ids,
                                         call->pairs, call->err));
    }
    /* Rows of skipped pairs are left alone by the projections, so they must not be stale. */
    if (call->kept < call->pairs)
        FERRUM_TRY(backend->buffer_zero(call->ctx, s->slots, 0, (uint64_t)call->pairs * ffn->hidden,
                                        call->err));
    FERRUM_TRY(project(call, FERRUM_GATE, call->args->x, s->gate, longest));
    FERRUM_TRY(project(call, FERRUM_UP, call->args->x, s->up, longest));
    FERRUM_TRY(fused->silu_mul_batched(call->ctx, s->gate, s->up, s->hidden, call->pairs,
                                       ffn->intermediate, call->err));
    FERRUM_TRY(project(call, FERRUM_DOWN, s->hidden, s->slots, longest));
    return fused->weighted_sum_batched(call->ctx, s->slots, s->weights, out, call->args->tokens,
                                       call->args->top_k, ffn->hidden, call->err);
}

/* ---- GPTQ ---- */

/* Group the pairs by expert, stably: tokens of packed rows and one dispatch per expert in use.
 * call->ids becomes the packed row of each pair. Returns the number of dispatches. */
static uint32_t plan_rows(call_t *call, uint32_t *row_tokens, ferrum_moe_dispatch_t *dispatches)
{
    uint32_t experts = call->ffn->local_experts, used = 0, row = 0;
    for (uint32_t e = 0; e < experts; e++)
        dispatches[e] = (ferrum_moe_dispatch_t){.expert = e};
    for (uint32_t p = 0; p < call->pairs; p++)
        if (call->ids[p] >= 0)
            dispatches[call->ids[p]].rows++;
    for (uint32_t e = 0; e < experts; e++) {
        dispatches[e].in_row = row;
        row += dispatches[e].rows;
        dispatches[e].out_row = dispatches[e].in_row; /* next free row, for the moment */
    }
    for (uint32_t p = 0; p < call->pairs; p++) {
        if (call->ids[p] < 0)
            continue;
        uint32_t packed = dispatches[call->ids[p]].out_row++;
        row_tokens[packed] = p / call->args->top_k;
        call->ids[p] = (int32_t)packed;
    }
    for (uint32_t e = 0; e < experts; e++) {
        dispatches[e].out_row = dispatches[e].in_row;
        if (dispatches[e].rows)
            dispatches[used++] = dispatches[e];
    }
    return used;
}

static ferrum_status_t phase(call_t *call, int role, const ferrum_buffer_t *in,
                             const ferrum_moe_dispatch_t *dispatches, uint32_t count,
                             ferrum_buffer_t *out)
{
    const ferrum_marlin_stack_ops_t *ops = &call->tables->marlin_stack;
    const ferrum_composed_ffn_t *ffn = call->ffn;
    if (ferrum_tables_how(call->tables, "marlin_stack", "zero_workspace") != FERRUM_RESOLVED_STUB)
        FERRUM_TRY(ops->zero_workspace(call->ctx, ffn->marlin[role], call->err));
    return ops->gemm_phase_batched(call->ctx, ffn->marlin[role], in, dispatches, count, out,
                                   role == FERRUM_DOWN ? ffn->intermediate : ffn->hidden,
                                   call->err);
}

static ferrum_status_t run_gptq(call_t *call, ferrum_buffer_t *out)
{
    const ferrum_composed_ffn_t *ffn = call->ffn;
    const ferrum_backend_ops_t *backend = &call->tables->backend;
    const ferrum_moe_fused_ops_t *fused = &call->tables->moe_fused;
    ferrum_context_t *ctx = call->ctx;
    ferrum_error_t *err = call->err;
    scratch_t *s = call->scratch;
    uint32_t h = ffn->hidden, width = ffn->intermediate, rows = call->kept;
    uint32_t *row_tokens = (uint32_t *)call->work;
    ferrum_moe_dispatch_t *dispatches = (ferrum_moe_dispatch_t *)(call->work + call->pairs);
    uint32_t count = plan_rows(call, row_tokens, dispatches);

    FERRUM_TRY(grow(call, &s->ids, FERRUM_DTYPE_I32, call->pairs));
    FERRUM_TRY(grow_act(call, &s->packed_x, rows, h));
    FERRUM_TRY(grow_act(call, &s->gate, rows, width));
    FERRUM_TRY(grow_act(call, &s->up, rows, width));
    FERRUM_TRY(grow_act(call, &s->hidden, rows, width));
    FERRUM_TRY(grow_act(call, &s->slots, rows, h));
    FERRUM_TRY(
        backend->buffer_write(ctx, s->ids, 0, FERRUM_DTYPE_I32, call->ids, call->pairs, err));
    FERRUM_TRY(
        backend->embedding_lookup(ctx, call->args->x, row_tokens, rows, s->packed_x, h, err));
    FERRUM_TRY(phase(call, FERRUM_GATE, s->packed_x, dispatches, count, s->gate));
    FERRUM_TRY(phase(call, FERRUM_UP, s->packed_x, dispatches, count, s->up));
    FERRUM_TRY(fused->silu_mul_batched(ctx, s->gate, s->up, s->hidden, rows, width, err));
    FERRUM_TRY(phase(call, FERRUM_DOWN, s->hidden, dispatches, count, s->slots));
    return fused->moe_combine(ctx, s->slots, s->ids, s->weights, out, call->args->tokens, h,
                              call->args->top_k, rows, err);
}

/* ---- */

static ferrum_status_t run(call_t *call)
{
    const ferrum_backend_ops_t *backend = &call->tables->backend;
    const ferrum_composed_ffn_t *ffn = call->ffn;
    scratch_t *s = call->scratch;
    uint64_t values = (uint64_t)call->args->tokens * ffn->hidden;
    bool accumulate = call->args->flags & FERRUM_FFN_ACCUMULATE;
    if (call->kept == 0)
        return accumulate ? FERRUM_OK
                          : backend->buffer_zero(call->ctx, call->args->out, 0, values, call->err);
    FERRUM_TRY(grow(call, &s->weights, FERRUM_DTYPE_F32, call->pairs));
    FERRUM_TRY(backend->buffer_write(call->ctx, s->weights, 0, FERRUM_DTYPE_F32, call->weights,
                                     call->pairs, call->err));
    if (accumulate)
        FERRUM_TRY(grow_act(call, &s->sum, call->args->tokens, ffn->hidden));
    ferrum_buffer_t *out = accumulate ? s->sum : call->args->out;
    FERRUM_TRY(ffn->gptq ? run_gptq(call, out) : run_gguf(call, out));
    return accumulate ? backend->add_inplace(call->ctx, call->args->out, s->sum, values, call->err)
                      : FERRUM_OK;
}

ferrum_status_t ferrum_composed_forward(ferrum_context_t *ctx, ferrum_expert_ffn_t *ffn,
                                        const ferrum_expert_ffn_args_t *args, ferrum_error_t *err)
{
    const ferrum_composed_ffn_t *composed = (const ferrum_composed_ffn_t *)ffn;
    if (!ctx || !ffn || !args || args->head.size < FERRUM_EXPERT_FFN_ARGS_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "expert_ffn_forward: ctx, ffn or args is NULL or too small");
    call_t call = {
        .ctx = ctx, .ffn = composed, .tables = composed->compose->tables, .args = args, .err = err};
    FERRUM_TRY(check_args(&call));
    if (args->tokens == 0)
        return FERRUM_OK;
    FERRUM_TRY(find_scratch(&call));
    FERRUM_TRY(read_routing(&call));
    return run(&call);
}
