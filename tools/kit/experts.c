/* SPDX-License-Identifier: MIT */
/* Stacks of experts: the gemv and gemm forms of GGUF stacks, the phases of GPTQ stacks. */
#include "tools/kit/kit.h"

#include <string.h>

enum {
    EXPERTS = 5,
    TOP_K = 3
};

static void release_stacked(cf_suite_t *suite, void *object)
{
    suite->ql->stacked_experts->release(object);
}

static void release_marlin(cf_suite_t *suite, void *object)
{
    suite->ql->marlin_stack->release(object);
}

static ferrum_stacked_experts_t *load_stacked(cf_suite_t *suite, const cf_weights_t *weights)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_stacked_experts_t *stack = NULL;
    if (!cf_ok(suite, suite->ql->load_quant_experts(suite->device, &weights->gguf, &stack, &err),
               &err))
        return NULL;
    cf_own(suite, stack, release_stacked);
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    if (cf_ok(suite, suite->ql->stacked_experts->info(stack, &info, &err), &err))
        cf_state_error(suite, (double)info.error_bound);
    return stack;
}

static void random_ids(cf_suite_t *suite, int32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        ids[i] = (int32_t)cf_below(suite, EXPERTS);
}

/* Formats of gate (and down) and of up. */
static void gemv_cases(cf_suite_t *suite, ferrum_weight_format_t format,
                       ferrum_weight_format_t other, uint32_t n, uint32_t k)
{
    enum {
        SEL = 4,
        A_OFFSET = 5,
        IDS_OFFSET = 2,
        OUT_OFFSET = 3
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    const char *name = ferrum_format_traits(format)->name;
    int32_t ids[IDS_OFFSET + SEL];
    random_ids(suite, ids, IDS_OFFSET + SEL);
    for (int broadcast = 0; broadcast < 2; broadcast++) {
        uint64_t stride = broadcast ? 0 : k + 1;
        cf_begin(suite, "gemv_moe_id %s n=%u k=%u stride=%llu", name, n, k,
                 (unsigned long long)stride);
        cf_weights_t w = cf_random_blocks(suite, format, EXPERTS, n, k);
        ferrum_stacked_experts_t *stack = load_stacked(suite, &w);
        cf_tensor_t a = cf_input(suite, A_OFFSET + SEL * (uint64_t)(k + 1), 1);
        cf_tensor_t out = cf_output(suite, OUT_OFFSET + SEL * (uint64_t)n);
        cf_ints_t dev = cf_ints(suite, ids, IDS_OFFSET + SEL);
        double *reference = cf_memory(suite, SEL * n * sizeof *reference);
        for (uint32_t i = 0; i < SEL; i++)
            cf_ref_matvec(&w, (uint32_t)ids[IDS_OFFSET + i], a.v + A_OFFSET + i * stride,
                          reference + i * n);
        if (stack != NULL && cf_ok(suite,
                                   suite->ql->stacked_experts->gemv_moe_id(
                                       suite->ctx, stack, a.buffer, A_OFFSET, dev.buffer,
                                       IDS_OFFSET, out.buffer, OUT_OFFSET, SEL, stride, &err),
                                   &err)) {
            /* Move the rows to the front so that rows of n can be compared. */
            cf_tensor_t rows = cf_output(suite, SEL * (uint64_t)n);
            cf_ok(suite,
                  suite->be->buffer_copy(suite->ctx, out.buffer, OUT_OFFSET, rows.buffer, 0,
                                         SEL * (uint64_t)n, &err),
                  &err);
            cf_read(suite, &out);
            cf_expect_rows(suite, &rows, reference, n, 4);
        }
        cf_end(suite);
    }

    cf_begin(suite, "gemv_moe_id_gate_up_silu %s/%s n=%u k=%u", name,
             ferrum_format_traits(other)->name, n, k);
    cf_weights_t wg = cf_random_blocks(suite, format, EXPERTS, n, k);
    cf_weights_t wu = cf_random_blocks(suite, other, EXPERTS, n, k);
    ferrum_stacked_experts_t *gate = load_stacked(suite, &wg), *up = load_stacked(suite, &wu);
    cf_tensor_t a = cf_input(suite, k, 1), out = cf_output(suite, SEL * (uint64_t)n);
    cf_ints_t dev = cf_ints(suite, ids, SEL);
    double *reference = cf_memory(suite, SEL * n * sizeof *reference);
    double *raised = cf_memory(suite, n * sizeof *raised);
    for (uint32_t i = 0; i < SEL; i++) {
        cf_ref_matvec(&wg, (uint32_t)ids[i], a.v, reference + i * n);
        cf_ref_matvec(&wu, (uint32_t)ids[i], a.v, raised);
        for (uint32_t j = 0; j < n; j++)
            reference[i * n + j] = cf_silu(reference[i * n + j]) * raised[j];
    }
    if (gate && up &&
        cf_ok(suite,
              suite->ql->stacked_experts->gemv_moe_id_gate_up_silu(
                  suite->ctx, gate, up, a.buffer, dev.buffer, out.buffer, SEL, &err),
              &err))
        cf_expect_rows(suite, &out, reference, n, 6);
    cf_end(suite);
}

static void batched_cases(cf_suite_t *suite, ferrum_weight_format_t format, uint32_t m, uint32_t n,
                          uint32_t k)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    const char *name = ferrum_format_traits(format)->name;
    const ferrum_stacked_experts_ops_t *ops = suite->ql->stacked_experts;
    uint32_t pairs = m * TOP_K;
    int32_t *ids = cf_memory(suite, (pairs + 1) * sizeof *ids);
    random_ids(suite, ids, pairs);
    for (int per_pair = 0; per_pair < 2; per_pair++) {
        cf_begin(suite, "gemv_moe_id_batched %s m=%u, one row per %s", name, m,
                 per_pair ? "pair" : "token");
        uint64_t outer = per_pair ? (uint64_t)TOP_K * k : k, inner = per_pair ? k : 0;
        cf_weights_t w = cf_random_blocks(suite, format, EXPERTS, n, k);
        int32_t *own = cf_memory(suite, (pairs + 1) * sizeof *own);
        random_ids(suite, own, pairs);
        ferrum_stacked_experts_t *stack = load_stacked(suite, &w);
        cf_tensor_t a = cf_input(suite, m * outer, 1), out = cf_output(suite, (uint64_t)pairs * n);
        cf_ints_t dev = cf_ints(suite, own, pairs);
        double *reference = cf_memory(suite, out.count * sizeof *reference);
        for (uint32_t p = 0; p < pairs; p++)
            cf_ref_matvec(&w, (uint32_t)own[p], a.v + p / TOP_K * outer + p % TOP_K * inner,
                          reference + (size_t)p * n);
        if (stack && cf_ok(suite,
                           ops->gemv_moe_id_batched(suite->ctx, stack, a.buffer, dev.buffer,
                                                    out.buffer, m, TOP_K, outer, inner, &err),
                           &err))
            cf_expect_rows(suite, &out, reference, n, 4);
        cf_end(suite);
    }

    for (int form = 0; form < 4; form++) {
        uint32_t ne11 = form & 1 ? TOP_K : 1;
        bool indirect = form >= 2;
        cf_begin(suite, "gemm_moe_id%s %s m=%u ne11=%u", indirect ? "_indirect" : "", name, m,
                 ne11);
        cf_weights_t w = cf_random_blocks(suite, format, EXPERTS, n, k);
        ferrum_stacked_experts_t *stack = load_stacked(suite, &w);
        uint32_t longest = 1;
        int32_t tpe[EXPERTS] = {0};
        int32_t *lists = cf_memory(suite, (size_t)EXPERTS * (pairs + 1) * sizeof *lists);
        int32_t *own = cf_memory(suite, (pairs + 1) * sizeof *own);
        random_ids(suite, own, pairs);
        for (uint32_t p = 0; p < pairs; p++)
            lists[(uint32_t)own[p] * (pairs + 1) + (uint32_t)tpe[own[p]]++] = (int32_t)p;
        for (int e = 0; e < EXPERTS; e++)
            longest = (uint32_t)tpe[e] > longest ? (uint32_t)tpe[e] : longest;
        uint32_t stride = indirect ? (pairs ? pairs : 1) : longest;
        int32_t *packed = cf_memory(suite, (size_t)EXPERTS * stride * sizeof *packed);
        for (int e = 0; e < EXPERTS; e++)
            memcpy(packed + (uint32_t)e * stride, lists + (uint32_t)e * (pairs + 1),
                   (size_t)tpe[e] * sizeof *packed);
        cf_ints_t dev = cf_ints(suite, packed, (uint64_t)EXPERTS * stride);
        cf_ints_t counts = cf_ints(suite, tpe, EXPERTS);
        cf_tensor_t a = cf_input(suite, (uint64_t)m * ne11 * k, 1);
        cf_tensor_t out = cf_output(suite, (uint64_t)pairs * n);
        double *reference = cf_memory(suite, out.count * sizeof *reference);
        for (uint32_t p = 0; p < pairs; p++)
            cf_ref_matvec(&w, (uint32_t)own[p], a.v + (size_t)(ne11 == 1 ? p / TOP_K : p) * k,
                          reference + (size_t)p * n);
        const uint32_t triple[3] = {(longest + 31) / 32, (n + 63) / 64, EXPERTS};
        ferrum_buffer_t *args = NULL;
        ferrum_status_t status = FERRUM_OK;
        if (stack != NULL && indirect) {
            if (cf_ok(suite,
                      suite->be->buffer_alloc(suite->device, FERRUM_DTYPE_U32, 3, &args, &err),
                      &err) &&
                cf_ok(
                    suite,
                    suite->be->buffer_write(suite->ctx, args, 0, FERRUM_DTYPE_U32, triple, 3, &err),
                    &err))
                status = ops->gemm_moe_id_indirect(suite->ctx, stack, a.buffer, dev.buffer,
                                                   counts.buffer, out.buffer, args, ne11, TOP_K,
                                                   stride, m, &err);
        } else if (stack != NULL) {
            status = ops->gemm_moe_id(suite->ctx, stack, a.buffer, dev.buffer, counts.buffer,
                                      out.buffer, ne11, TOP_K, stride, m, &err);
        }
        if (stack != NULL && cf_ok(suite, status, &err))
            cf_expect_rows(suite, &out, reference, n, 4);
        suite->be->buffer_release(args);
        cf_end(suite);
    }
}

void cf_group_stacked(cf_suite_t *suite)
{
    for (size_t f = 0; f < cf_format_count; f++) {
        gemv_cases(suite, cf_formats[f], cf_formats[f], 32, 256);
        batched_cases(suite, cf_formats[f], 3, 32, 256);
    }
    gemv_cases(suite, FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K, 48, 512);
    batched_cases(suite, FERRUM_FORMAT_Q4_K, 0, 32, 256);
    batched_cases(suite, FERRUM_FORMAT_Q4_K, 1, 32, 256);
    batched_cases(suite, FERRUM_FORMAT_Q4_K, 40, 64, 256);
    batched_cases(suite, FERRUM_FORMAT_Q8_0, 130, 32, 256); /* more than 64 rows per expert */
}

static ferrum_marlin_stack_t *load_marlin(cf_suite_t *suite, const cf_weights_t *weights)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_marlin_stack_t *stack = NULL;
    if (!cf_ok(suite,
               suite->ql->load_gptq_stacked(suite->device, weights->gptq_list, weights->experts,
                                            &stack, &err),
               &err))
        return NULL;
    cf_own(suite, stack, release_marlin);
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    if (cf_ok(suite, suite->ql->marlin_stack->info(stack, &info, &err), &err))
        cf_state_error(suite, (double)info.error_bound);
    return stack;
}

static void phase_batched(cf_suite_t *suite, const cf_gptq_kind_t *kind, const uint32_t *rows,
                          uint32_t n, uint32_t k)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_begin(suite, "gemm_phase_batched %u-bit group %u%s rows %u %u %u %u %u", kind->bits,
             kind->group_size, kind->act_order ? " act-order" : "", rows[0], rows[1], rows[2],
             rows[3], rows[4]);
    cf_weights_t w = cf_random_gptq(suite, kind, EXPERTS, n, k);
    ferrum_marlin_stack_t *stack = load_marlin(suite, &w);
    ferrum_moe_dispatch_t dispatch[EXPERTS];
    uint32_t total = 0, count = 0;
    for (uint32_t e = 0; e < EXPERTS; e++) {
        if (rows[e] > 0)
            dispatch[count++] = (ferrum_moe_dispatch_t){e, total, total, rows[e]};
        total += rows[e];
    }
    /* Output rows in another order than input rows. */
    for (uint32_t i = 0, at = 0; i < count; i++) {
        dispatch[count - 1 - i].out_row = at;
        at += dispatch[count - 1 - i].rows;
    }
    cf_tensor_t in = cf_input(suite, (uint64_t)total * k, 1);
    cf_tensor_t out = cf_output(suite, (uint64_t)total * n);
    double *reference = cf_memory(suite, out.count * sizeof *reference);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t r = 0; r < dispatch[i].rows; r++)
            cf_ref_matvec(&w, dispatch[i].expert, in.v + (size_t)(dispatch[i].in_row + r) * k,
                          reference + (size_t)(dispatch[i].out_row + r) * n);
    ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
    if (stack && cf_ok(suite, suite->ql->marlin_stack->info(stack, &info, &err), &err) &&
        !info.requires_vllm &&
        cf_ok(suite, suite->ql->marlin_stack->zero_workspace(suite->ctx, stack, &err), &err) &&
        cf_ok(suite,
              suite->ql->marlin_stack->gemm_phase_batched(suite->ctx, stack, in.buffer, dispatch,
                                                          count, out.buffer, k, &err),
              &err))
        cf_expect_rows(suite, &out, reference, n, 4);
    cf_end(suite);
}

static void phase_vllm(cf_suite_t *suite, const cf_gptq_kind_t *kind, uint32_t m, uint32_t top_k,
                       uint32_t block, uint32_t n, uint32_t k)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint32_t pairs = m * top_k, padded = 0, blocks = 0;
    cf_begin(suite, "gemm_phase_vllm %u-bit m=%u top_k=%u block=%u%s", kind->bits, m, top_k, block,
             kind->act_order ? " act-order" : "");
    cf_weights_t w = cf_random_gptq(suite, kind, EXPERTS, n, k);
    ferrum_marlin_stack_t *stack = load_marlin(suite, &w);
    int32_t *ids = cf_memory(suite, (pairs + 1) * sizeof *ids);
    random_ids(suite, ids, pairs);
    uint32_t most = pairs + EXPERTS * block;
    int32_t *sorted = cf_memory(suite, most * sizeof *sorted);
    int32_t *owner = cf_memory(suite, (most / block + 1) * sizeof *owner);
    for (uint32_t i = 0; i < most; i++)
        sorted[i] = (int32_t)pairs;
    for (int e = 0; e < EXPERTS; e++) {
        uint32_t start = padded;
        for (uint32_t p = 0; p < pairs; p++)
            if (ids[p] == e)
                sorted[padded++] = (int32_t)p;
        padded = start + (padded - start + block - 1) / block * block;
        for (; blocks < padded / block; blocks++)
            owner[blocks] = e;
    }
    const int32_t total[1] = {(int32_t)padded};
    cf_ints_t sorted_dev = cf_ints(suite, sorted, most);
    cf_ints_t owner_dev = cf_ints(suite, owner, most / block + 1);
    cf_ints_t total_dev = cf_ints(suite, total, 1);
    ferrum_moe_routing_t routing = {.head = FERRUM_HEAD(ferrum_moe_routing_t),
                                    .sorted_token_ids = sorted_dev.buffer,
                                    .expert_ids = owner_dev.buffer,
                                    .num_tokens_past_padded = total_dev.buffer};
    cf_tensor_t in = cf_input(suite, (uint64_t)m * k, 1);
    cf_tensor_t out = cf_output(suite, (uint64_t)pairs * n);
    double *reference = cf_memory(suite, out.count * sizeof *reference);
    for (uint32_t p = 0; p < pairs; p++)
        cf_ref_matvec(&w, (uint32_t)ids[p], in.v + (size_t)(p / top_k) * k,
                      reference + (size_t)p * n);
    if (stack &&
        cf_ok(suite,
              suite->ql->marlin_stack->gemm_phase_vllm(suite->ctx, stack, in.buffer, &routing,
                                                       out.buffer, m, block, top_k, &err),
              &err))
        cf_expect_rows(suite, &out, reference, n, 4);
    cf_end(suite);
}

static void view_case(cf_suite_t *suite, const cf_gptq_kind_t *kind, uint32_t offset, uint32_t n)
{
    enum {
        N = 128,
        K = 128,
        M = 3
    };
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_t *linear = NULL;
    cf_begin(suite, "make_expert_linear [%u, +%u)%s outlives its stack", offset, n,
             kind->act_order ? " act-order" : "");
    cf_weights_t w = cf_random_gptq(suite, kind, EXPERTS, N, K);
    ferrum_marlin_stack_t *stack = NULL;
    if (cf_ok(suite,
              suite->ql->load_gptq_stacked(suite->device, w.gptq_list, EXPERTS, &stack, &err),
              &err)) {
        ferrum_status_t status =
            suite->ql->marlin_stack->make_expert_linear(stack, offset, n, NULL, &linear, &err);
        suite->ql->marlin_stack->release(stack);
        ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
        if (cf_ok(suite, status, &err) &&
            cf_ok(suite, suite->ql->linear->info(linear, &info, &err), &err)) {
            cf_state_error(suite, (double)info.error_bound);
            cf_tensor_t x = cf_input(suite, M * K, 1), y = cf_output(suite, M * (uint64_t)n);
            double *reference = cf_memory(suite, y.count * sizeof *reference);
            double all[N];
            for (int t = 0; t < M; t++) {
                cf_ref_matvec(&w, offset / N, x.v + t * K, all);
                memcpy(reference + (size_t)t * n, all + offset % N, n * sizeof *reference);
            }
            if (cf_ok(suite,
                      suite->ql->linear->forward(suite->ctx, linear, x.buffer, 0, y.buffer, 0, M,
                                                 &err),
                      &err))
                cf_expect_rows(suite, &y, reference, n, 4);
            suite->ql->linear->release(linear);
        }
    }
    cf_end(suite);
}

static void marlin_refusals(cf_suite_t *suite, const cf_gptq_kind_t *kind)
{
    static const struct {
        const char *what;
        ferrum_moe_dispatch_t dispatch;
        uint32_t k;
    } bad[] = {
        {"an expert out of range", {EXPERTS, 0, 0, 1}, 128},
        {"input rows out of range", {0, 1u << 20, 0, 1}, 128},
        {"output rows out of range", {0, 0, 1u << 20, 1}, 128},
        {"rows that overflow", {0, UINT32_MAX, 0, UINT32_MAX}, 128},
        {"another K", {0, 0, 0, 1}, 64},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cf_begin(suite, "gemm_phase_batched with %s", bad[i].what);
        cf_weights_t w = cf_random_gptq(suite, kind, EXPERTS, 64, 128);
        ferrum_marlin_stack_t *stack = load_marlin(suite, &w);
        cf_tensor_t in = cf_input(suite, 4 * 128, 1), out = cf_output(suite, 4 * 64);
        if (stack != NULL) {
            ferrum_status_t status = suite->ql->marlin_stack->gemm_phase_batched(
                suite->ctx, stack, in.buffer, &bad[i].dispatch, 1, out.buffer, bad[i].k, &err);
            cf_expect_error(suite, status, FERRUM_INVALID_ARGUMENT, &err);
            cf_expect_untouched(suite, &out);
        }
        cf_end(suite);
    }
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_linear_t *linear = NULL;
    cf_begin(suite, "make_expert_linear across two experts");
    cf_weights_t w = cf_random_gptq(suite, kind, EXPERTS, 64, 128);
    ferrum_marlin_stack_t *stack = load_marlin(suite, &w);
    if (stack != NULL)
        cf_expect_error(
            suite, suite->ql->marlin_stack->make_expert_linear(stack, 32, 64, NULL, &linear, &err),
            FERRUM_INVALID_ARGUMENT, &err);
    cf_end(suite);
}

void cf_group_marlin(cf_suite_t *suite)
{
    static const cf_gptq_kind_t kinds[] = {
        {4, 128, true, false, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false},
        {4, 32, false, false, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false},
        {4, 64, false, true, FERRUM_ZERO_STORED, FERRUM_DTYPE_F16, false},
        {8, 64, true, false, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false},
        {4, 0, true, false, FERRUM_ZERO_STORED_MINUS_ONE, FERRUM_DTYPE_F16, false},
    };
    static const uint32_t rows[][EXPERTS] = {
        {0, 0, 0, 0, 0}, {1, 0, 0, 0, 0}, {2, 3, 0, 1, 17}, {0, 0, 150, 0, 0}, {16, 8, 12, 4, 1}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
            phase_batched(suite, &kinds[i], rows[r], 128, 128);
        for (uint32_t block = 8; block <= 64; block += block < 16 ? 8 : 16) {
            phase_vllm(suite, &kinds[i], 7, TOP_K, block, 128, 128);
            phase_vllm(suite, &kinds[i], 21, 1, block, 128, 128);
        }
        view_case(suite, &kinds[i], 0, 128);
        view_case(suite, &kinds[i], 128 * 3 + 64, 64);
    }
    phase_vllm(suite, &kinds[0], 0, TOP_K, 16, 128, 128);
    phase_vllm(suite, &kinds[1], 200, TOP_K, 64, 64, 128); /* more than 64 rows per expert */
    marlin_refusals(suite, &kinds[0]);
}
