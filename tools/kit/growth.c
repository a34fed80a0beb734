/* SPDX-License-Identifier: MIT */
/* Hosts of other minors: structs that end earlier, or go on where the plugin's own end. */
#include "tools/kit/raw.h"

#include <string.h>

/* A struct that the caller hands in for filling, through one call that fills it. */
typedef struct info_call {
    const char *name;
    uint32_t min_size, full_size;
    ferrum_status_t (*call)(cf_suite_t *suite, void *out, ferrum_error_t *err);
} info_call_t;

static ferrum_status_t call_device_info(cf_suite_t *suite, void *out, ferrum_error_t *err)
{
    return suite->be->device_info(suite->device, out, err);
}

static ferrum_status_t call_context_stats(cf_suite_t *suite, void *out, ferrum_error_t *err)
{
    return suite->be->context_stats(suite->ctx, out, err);
}

static ferrum_status_t call_buffer_info(cf_suite_t *suite, void *out, ferrum_error_t *err)
{
    ferrum_buffer_t *buffer;
    FERRUM_TRY(suite->be->buffer_alloc(suite->device, FERRUM_DTYPE_F32, 4, &buffer, err));
    ferrum_status_t status = suite->be->buffer_info(buffer, out, err);
    suite->be->buffer_release(buffer);
    return status;
}

static ferrum_status_t call_linear_info(cf_suite_t *suite, void *out, ferrum_error_t *err)
{
    cf_weights_t w = cf_random_blocks(suite, FERRUM_FORMAT_Q8_0, 1, 32, 64);
    ferrum_linear_t *linear;
    FERRUM_TRY(suite->ql->load_quant(suite->device, &w.gguf, NULL, &linear, err));
    ferrum_status_t status = suite->ql->linear->info(linear, out, err);
    suite->ql->linear->release(linear);
    return status;
}

static ferrum_status_t call_stack_info(cf_suite_t *suite, void *out, ferrum_error_t *err)
{
    cf_weights_t w = cf_random_blocks(suite, FERRUM_FORMAT_Q8_0, 2, 32, 64);
    ferrum_stacked_experts_t *stack;
    FERRUM_TRY(suite->ql->load_quant_experts(suite->device, &w.gguf, &stack, err));
    ferrum_status_t status = suite->ql->stacked_experts->info(stack, out, err);
    suite->ql->stacked_experts->release(stack);
    return status;
}

static const info_call_t info_calls[] = {
    {"ferrum_device_info_t", FERRUM_DEVICE_INFO_MIN_SIZE, sizeof(ferrum_device_info_t),
     call_device_info},
    {"ferrum_context_stats_t", FERRUM_CONTEXT_STATS_MIN_SIZE, sizeof(ferrum_context_stats_t),
     call_context_stats},
    {"ferrum_buffer_info_t", FERRUM_BUFFER_INFO_MIN_SIZE, sizeof(ferrum_buffer_info_t),
     call_buffer_info},
    {"ferrum_linear_info_t", FERRUM_LINEAR_INFO_MIN_SIZE, sizeof(ferrum_linear_info_t),
     call_linear_info},
    {"ferrum_expert_stack_info_t", FERRUM_EXPERT_STACK_INFO_MIN_SIZE,
     sizeof(ferrum_expert_stack_info_t), call_stack_info},
};

static void info_case(cf_suite_t *suite, const info_call_t *info, uint32_t size)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    cf_guarded_t memory;
    cf_begin(suite, "%s of %u bytes (here it has %u)", info->name, size, info->full_size);
    cf_guard(&memory);
    memory.head = (ferrum_head_t){size, size > info->full_size ? 1000 : 0};
    if (cf_ok(suite, info->call(suite, &memory, &err), &err)) {
        if (!cf_is_guarded(&memory, size))
            cf_fail(suite, "writes behind the caller's struct");
        else if (memory.head.size > size)
            cf_fail(suite, "says that it filled %u bytes", memory.head.size);
    }
    cf_end(suite);
}

/* A failing call, told in an error struct of another size. */
static void error_case(cf_suite_t *suite, uint32_t size)
{
    ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t),
                                       .ordinal = 4096};
    ferrum_device_t *device = NULL;
    cf_guarded_t memory;
    cf_begin(suite, "ferrum_error_t of %u bytes (here it has %zu)", size, sizeof(ferrum_error_t));
    cf_guard(&memory);
    if (size >= FERRUM_ERROR_MIN_SIZE)
        memset(&memory.error, 0, sizeof memory.error);
    memory.error.size = size;
    ferrum_status_t status =
        suite->be->device_open(ferrum_module_host(suite->module), &options, &device, &memory.error);
    if (status == FERRUM_OK)
        cf_fail(suite, "device 4096 was opened");
    else if (!cf_is_guarded(&memory, size < FERRUM_ERROR_MIN_SIZE ? sizeof memory.error.size
                                                                  : sizeof(ferrum_error_t)))
        cf_fail(suite,
                "writes behind the caller's struct, or into one that is too small to be one");
    else if (size >= FERRUM_ERROR_MIN_SIZE && cf_error_flaw(status, &memory.error) != NULL)
        cf_fail(suite, "not filled: %s", cf_error_flaw(status, &memory.error));
    cf_end(suite);
}

/* Descriptors that go on: a host of a later minor, with fields that this plugin cannot know. */
static void longer_options_case(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_device_t *device = NULL;
    for (uint32_t size = FERRUM_DEVICE_OPTIONS_MIN_SIZE; size <= 88; size += 64) {
        cf_guarded_t memory;
        cf_begin(suite, "device_open with options of %u bytes", size);
        cf_guard(&memory);
        memset(memory.bytes, 0, FERRUM_DEVICE_OPTIONS_MIN_SIZE);
        memory.head = (ferrum_head_t){size, 1000};
        if (cf_ok(suite,
                  suite->be->device_open(ferrum_module_host(suite->module),
                                         (const ferrum_device_options_t *)(const void *)&memory,
                                         &device, &err),
                  &err))
            suite->be->device_release(device);
        cf_end(suite);
    }
}

/* `supports` is asked about things that do not exist yet. */
static void unknown_problem_case(cf_suite_t *suite)
{
    typedef ferrum_status_t supports_fn(ferrum_device_t *, const ferrum_problem_t *,
                                        ferrum_error_t *);
    supports_fn *const ask[] = {suite->ql->supports, suite->mf->supports};
    for (int i = 0; i < 2; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cf_begin(suite, "%s.supports of a problem of a later minor", i ? "moe_fused" : "quant_llm");
        cf_guarded_t memory;
        cf_guard(&memory);
        ferrum_problem_t problem = {.head = {sizeof(ferrum_problem_t) + 64, 1000}, .kind = 999};
        memcpy(memory.bytes, &problem, sizeof problem);
        const ferrum_problem_t *asked = (const ferrum_problem_t *)(const void *)&memory;
        cf_expect_error(suite, ask[i](suite->device, asked, &err), FERRUM_UNSUPPORTED, &err);
        cf_end(suite);

        cf_begin(suite, "%s.supports of 4000 random problems", i ? "moe_fused" : "quant_llm");
        for (int round = 0; round < 4000 && !suite->case_failed; round++) {
            uint32_t fields[sizeof problem / 4] = {0};
            for (size_t f = 0; f < sizeof fields / sizeof fields[0]; f++)
                fields[f] = cf_below(suite, 3) ? cf_below(suite, 17) : (uint32_t)cf_random(suite);
            memcpy(&problem, fields, sizeof problem);
            problem.head = (ferrum_head_t)FERRUM_HEAD(ferrum_problem_t);
            problem.kind = cf_below(suite, 8);
            err = (ferrum_error_t)FERRUM_ERROR_INIT;
            ferrum_status_t status = ask[i](suite->device, &problem, &err);
            if (status != FERRUM_OK && status != FERRUM_UNSUPPORTED)
                cf_fail(suite, "status %d for kind %u", status, problem.kind);
            else if (status != FERRUM_OK && cf_error_flaw(status, &err) != NULL)
                cf_fail(suite, "kind %u: %s", problem.kind, cf_error_flaw(status, &err));
        }
        cf_end(suite);
    }
}

void cf_group_growth(cf_suite_t *suite)
{
    for (size_t i = 0; i < sizeof info_calls / sizeof info_calls[0]; i++) {
        info_case(suite, &info_calls[i], info_calls[i].min_size);
        info_case(suite, &info_calls[i], info_calls[i].full_size);
        info_case(suite, &info_calls[i], info_calls[i].full_size + 64);
    }
    error_case(suite, 0);
    error_case(suite, FERRUM_ERROR_MIN_SIZE - 1);
    error_case(suite, FERRUM_ERROR_MIN_SIZE);
    error_case(suite, sizeof(ferrum_error_t) + 64);
    longer_options_case(suite);
    unknown_problem_case(suite);
}
