/* SPDX-License-Identifier: MIT */
#include "host/runtime/executor.h"
#include "host/runtime/memory.h"
#include "host/runtime/runtime_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

struct ferrum_runtime {
    ferrum_memory_t *memory; /* NULL: the caller's allocator */
    ferrum_loader_t *loader;
    ferrum_module_t *module;
    ferrum_device_t *device;
    ferrum_ops_t ops;
    ferrum_moe_env_t moe_env;
    uint32_t threads;
};

/* What the caller's options say, field by field, whatever minor he was compiled with. */
static ferrum_status_t read_options(const ferrum_runtime_options_t *given,
                                    ferrum_runtime_options_t *out_options, ferrum_error_t *err)
{
    *out_options = (ferrum_runtime_options_t){.head = FERRUM_HEAD(ferrum_runtime_options_t)};
    if (!given)
        return FERRUM_OK;
    if (given->head.size < FERRUM_RUNTIME_OPTIONS_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "runtime options of %u bytes: initialise head with FERRUM_HEAD",
                           given->head.size);
    size_t bytes = given->head.size < sizeof *given ? given->head.size : sizeof *given;
    memcpy(out_options, given, bytes);
    return FERRUM_OK;
}

static ferrum_status_t parse_precision(const ferrum_options_t *options,
                                       ferrum_precision_t *out_precision, ferrum_error_t *err)
{
    const char *text = ferrum_options_get(options, "FERRUM_PRECISION");
    if (!text)
        *out_precision = FERRUM_PRECISION_DEFAULT;
    else if (strcmp(text, "accurate") == 0)
        *out_precision = FERRUM_PRECISION_ACCURATE;
    else if (strcmp(text, "fast") == 0)
        *out_precision = FERRUM_PRECISION_FAST;
    else
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_PRECISION,
                           "FERRUM_PRECISION=%.40s: choose accurate or fast", text);
    return FERRUM_OK;
}

/* A stub backend opens devices and then refuses every problem. Say so now, in one line, and not in
 * the middle of loading a model. */
static ferrum_status_t check_computes(const ferrum_ops_t *ops, ferrum_error_t *err)
{
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_weight_format_t formats[64] = {FERRUM_FORMAT_GPTQ};
    size_t count = 1;
    for (ferrum_weight_format_t f = 0; f < 64 && count < 64; f++)
        if (ferrum_format_traits(f))
            formats[count++] = f;
    for (size_t i = 0; i < count; i++) {
        ferrum_problem_t problem = {.head = FERRUM_HEAD(ferrum_problem_t),
                                    .kind = FERRUM_PROBLEM_EXPERT_FFN,
                                    .format = formats[i],
                                    .format_down = formats[i],
                                    .bits = formats[i] == FERRUM_FORMAT_GPTQ ? 4 : 0,
                                    .group_size = formats[i] == FERRUM_FORMAT_GPTQ ? 128 : 0,
                                    .k = 2048,
                                    .n = 768,
                                    .experts = 128,
                                    .top_k = 8,
                                    .activation_dtype = ops->info.activation_dtype};
        if (ops->moe->supports(ops->device, &problem, &why) == FERRUM_OK)
            return FERRUM_OK;
        problem.kind = FERRUM_PROBLEM_LINEAR;
        if (ops->quant->supports(ops->device, &problem, &why) == FERRUM_OK)
            return FERRUM_OK;
    }
    return ferrum_fail(err, FERRUM_UNSUPPORTED, why.reason,
                       "it takes no weight format at all (%.120s)", why.message);
}

static ferrum_status_t open_device(ferrum_runtime_t *runtime, ferrum_error_t *err)
{
    const ferrum_options_t *options = ferrum_loader_options(runtime->loader);
    const char *name = ferrum_module_name(runtime->module);
    ferrum_device_options_t device_options = {.head = FERRUM_HEAD(ferrum_device_options_t)};
    if (strcmp(name, "cuda") == 0)
        device_options.ordinal = (uint32_t)ferrum_options_uint(options, "FERRUM_CUDA_DEVICE");
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_status_t status = ferrum_module_backend(runtime->module)
                                 ->device_open(ferrum_module_host(runtime->module), &device_options,
                                               &runtime->device, &why);
    if (status == FERRUM_OK)
        status = ferrum_ops_init(runtime->module, runtime->device, &runtime->ops, &why);
    if (status == FERRUM_OK)
        status = check_computes(&runtime->ops, &why);
    if (status != FERRUM_OK)
        return ferrum_fail(err, status, why.reason,
                           "backend %.40s cannot be used: %.120s; FERRUM_BACKEND picks another",
                           name, why.message);
    runtime->ops.load_trace = runtime->moe_env.load_trace;
    return parse_precision(options, &runtime->ops.precision, err);
}

static ferrum_status_t make_loader(ferrum_runtime_t *runtime, const ferrum_runtime_options_t *given,
                                   ferrum_error_t *err)
{
    if (given->allocator)
        return ferrum_loader_new(given->options, given->allocator, given->logger, &runtime->loader,
                                 err);
    FERRUM_TRY(ferrum_memory_new(&runtime->memory, err));
    FERRUM_TRY(ferrum_loader_new(given->options, ferrum_memory_allocator(runtime->memory),
                                 given->logger, &runtime->loader, err));
    return ferrum_memory_place(runtime->memory, ferrum_loader_options(runtime->loader), err);
}

ferrum_status_t ferrum_runtime_open(const ferrum_runtime_options_t *options,
                                    ferrum_runtime_t **out_runtime, ferrum_error_t *err)
{
    ferrum_runtime_options_t given;
    if (!out_runtime)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL, "out_runtime is NULL");
    FERRUM_TRY(read_options(options, &given, err));
    ferrum_runtime_t *runtime = calloc(1, sizeof *runtime);
    if (!runtime)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for a runtime");
    ferrum_status_t status = make_loader(runtime, &given, err);
    if (status == FERRUM_OK)
        status =
            ferrum_moe_env_parse(ferrum_loader_options(runtime->loader), &runtime->moe_env, err);
    if (status == FERRUM_OK)
        status = ferrum_loader_select(runtime->loader, given.backend, &runtime->module, err);
    if (status == FERRUM_OK)
        status = open_device(runtime, err);
    if (status != FERRUM_OK) {
        ferrum_runtime_close(runtime);
        return status;
    }
    runtime->threads =
        ferrum_team_choose_width(given.threads, ferrum_loader_options(runtime->loader));
    *out_runtime = runtime;
    return FERRUM_OK;
}

void ferrum_runtime_close(ferrum_runtime_t *runtime)
{
    if (!runtime)
        return;
    if (runtime->device)
        ferrum_module_backend(runtime->module)->device_release(runtime->device);
    ferrum_module_release(runtime->module, NULL);
    ferrum_loader_free(runtime->loader);
    ferrum_memory_free(runtime->memory);
    free(runtime);
}

ferrum_module_t *ferrum_runtime_module(const ferrum_runtime_t *runtime)
{
    return runtime->module;
}

ferrum_device_t *ferrum_runtime_device(const ferrum_runtime_t *runtime)
{
    return runtime->device;
}

const ferrum_device_info_t *ferrum_runtime_device_info(const ferrum_runtime_t *runtime)
{
    return &runtime->ops.info;
}

const ferrum_options_t *ferrum_runtime_get_options(const ferrum_runtime_t *runtime)
{
    return ferrum_loader_options(runtime->loader);
}

uint32_t ferrum_runtime_threads(const ferrum_runtime_t *runtime)
{
    return runtime->threads;
}

const ferrum_ops_t *ferrum_runtime_ops(const ferrum_runtime_t *runtime)
{
    return &runtime->ops;
}

const ferrum_moe_env_t *ferrum_runtime_moe_env(const ferrum_runtime_t *runtime)
{
    return &runtime->moe_env;
}
