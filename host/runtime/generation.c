/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include "host/runtime/generation.h"

#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

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

static ferrum_status_t open_device(ferrum_generation_t *generation, const ferrum_options_t *options,
                                   const ferrum_moe_env_t *env, ferrum_error_t *err)
{
    const char *name = ferrum_module_name(generation->module);
    ferrum_device_options_t device_options = {.head = FERRUM_HEAD(ferrum_device_options_t)};
    if (strcmp(name, "cuda") == 0)
        device_options.ordinal = (uint32_t)ferrum_options_uint(options, "FERRUM_CUDA_DEVICE");
    ferrum_error_t why = FERRUM_ERROR_INIT;
    ferrum_status_t status = ferrum_module_backend(generation->module)
                                 ->device_open(ferrum_module_host(generation->module),
                                               &device_options, &generation->device, &why);
    if (status == FERRUM_OK)
        status = ferrum_ops_init(generation->module, generation->device, &generation->ops, &why);
    if (status == FERRUM_OK)
        status = check_computes(&generation->ops, &why);
    if (status != FERRUM_OK)
        return ferrum_fail(err, status, why.reason,
                           "backend %.40s cannot be used: %.120s; FERRUM_BACKEND picks another",
                           name, why.message);
    generation->ops.load_trace = env->load_trace;
    return parse_precision(options, &generation->ops.precision, err);
}

ferrum_status_t ferrum_generation_open(ferrum_loader_t *loader, const char *spec,
                                       const ferrum_moe_env_t *env, uint64_t number,
                                       ferrum_generation_t **out_generation, ferrum_error_t *err)
{
    ferrum_generation_t *generation = calloc(1, sizeof *generation);
    if (!generation)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for an opened backend");
    generation->number = number;
    ferrum_status_t status = ferrum_loader_select(loader, spec, &generation->module, err);
    if (status == FERRUM_OK)
        status = open_device(generation, ferrum_loader_options(loader), env, err);
    if (status != FERRUM_OK) {
        ferrum_generation_close(generation, 0, NULL, NULL);
        return status;
    }
    *out_generation = generation;
    return FERRUM_OK;
}

/* Objects that the application made through the tables itself. */
static void wait_for_blocks(const ferrum_module_t *module, uint32_t timeout_ms)
{
    const struct timespec nap = {0, 1000000};
    for (uint32_t waited = 0; waited < timeout_ms; waited++) {
        uint64_t blocks;
        ferrum_module_usage(module, NULL, &blocks, NULL);
        if (blocks == 0)
            return;
        (void)nanosleep(&nap, NULL);
    }
}

void ferrum_generation_close(ferrum_generation_t *generation, uint32_t timeout_ms,
                             ferrum_unload_report_t *out_report, int *out_held)
{
    ferrum_unload_report_t report = {0};
    if (!generation)
        return;
    if (generation->device)
        ferrum_module_backend(generation->module)->device_release(generation->device);
    if (generation->module)
        wait_for_blocks(generation->module, timeout_ms);
    ferrum_module_release(generation->module, &report);
    if (out_report)
        *out_report = report;
    if (out_held)
        *out_held = generation->module && report.detail[0] == '\0';
    free(generation);
}
