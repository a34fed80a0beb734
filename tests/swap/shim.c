/* SPDX-License-Identifier: MIT */
/*
 * The cpu plugin with one fault, named by FERRUM_TEST_FAULT when it is queried; without one it is
 * the cpu plugin under another name. It passes everything on to the built cpu.so, which it maps
 * itself.
 */
#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include <ferrum/backend.h>
#include <ferrum/moe_fused.h>
#include <ferrum/plugin.h>
#include <ferrum/quant_llm.h>
#include <ferrum/util.h>

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Test plugins may have state; real ones may not. */
static const char *fault = "";
static void *volatile lost; /* not to LeakSanitizer */
static ferrum_plugin_t real;
static const ferrum_backend_ops_t *real_backend;
static const ferrum_moe_fused_ops_t *real_moe;
static ferrum_backend_ops_t backend;
static ferrum_moe_fused_ops_t moe;

static int is(const char *word)
{
    return strcmp(fault, word) == 0;
}

static ferrum_status_t refuse(ferrum_status_t status, ferrum_error_t *err)
{
    return ferrum_fail(err, status, FERRUM_REASON_OTHER, "the shim was told to: %s", fault);
}

static ferrum_status_t device_open(const ferrum_host_t *host,
                                   const ferrum_device_options_t *options,
                                   ferrum_device_t **out_device, ferrum_error_t *err)
{
    if (is("device"))
        return refuse(FERRUM_DEVICE_ERROR, err);
    if (is("leak"))
        lost = host->allocator->alloc(host->allocator->self, 100, 8);
    return real_backend->device_open(host, options, out_device, err);
}

static ferrum_status_t context_new(ferrum_device_t *device, const ferrum_executor_t *executor,
                                   ferrum_context_t **out_context, ferrum_error_t *err)
{
    if (is("context"))
        return refuse(FERRUM_OUT_OF_MEMORY, err);
    return real_backend->context_new(device, executor, out_context, err);
}

/* Keys and values arrive in buffers of FERRUM_TEST_FAULT_COUNT elements. */
static ferrum_status_t buffer_write_f32(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                        uint64_t dst_offset, const float *src, uint64_t count,
                                        ferrum_error_t *err)
{
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    const char *wanted = getenv("FERRUM_TEST_FAULT_COUNT");
    if (is("kv") && wanted && real_backend->buffer_info(dst, &info, NULL) == FERRUM_OK &&
        info.count == strtoul(wanted, NULL, 10))
        return refuse(FERRUM_DEVICE_ERROR, err);
    return real_backend->buffer_write_f32(ctx, dst, dst_offset, src, count, err);
}

static ferrum_status_t expert_ffn_create(ferrum_device_t *device,
                                         const ferrum_expert_ffn_desc_t *desc,
                                         ferrum_expert_ffn_t **out_ffn, ferrum_error_t *err)
{
    if (is("create"))
        return refuse(FERRUM_OUT_OF_MEMORY, err);
    return real_moe->expert_ffn_create(device, desc, out_ffn, err);
}

static ferrum_status_t expert_ffn_forward(ferrum_context_t *ctx, ferrum_expert_ffn_t *ffn,
                                          const ferrum_expert_ffn_args_t *args, ferrum_error_t *err)
{
    const struct timespec nap = {0, 1000000};
    const char *until = getenv("FERRUM_TEST_FAULT_UNTIL");
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    if (is("slow") && args->tokens == 3 && until)
        while (access(until, F_OK) != 0)
            (void)nanosleep(&nap, NULL);
    if (is("forward"))
        return refuse(FERRUM_DEVICE_ERROR, err);
    FERRUM_TRY(real_moe->expert_ffn_forward(ctx, ffn, args, err));
    FERRUM_TRY(real_backend->buffer_info(args->out, &info, err));
    float *values = info.host_ptr;
    if (is("wrong"))
        values[7] *= 1.5f;
    if (is("nan"))
        values[0] = 0.0f / (float)strlen("");
    return FERRUM_OK;
}

static const void *get_interface(const char *id, uint32_t min_version)
{
    const void *table = real.get_interface(id, min_version);
    if (table && strcmp(id, FERRUM_INTERFACE_BACKEND) == 0) {
        real_backend = table;
        backend = *real_backend;
        backend.device_open = device_open;
        backend.context_new = context_new;
        backend.buffer_write_f32 = buffer_write_f32;
        return &backend;
    }
    if (table && strcmp(id, FERRUM_INTERFACE_MOE_FUSED) == 0) {
        real_moe = table;
        moe = *real_moe;
        moe.expert_ffn_create = expert_ffn_create;
        moe.expert_ffn_forward = expert_ffn_forward;
        return &moe;
    }
    return table;
}

ferrum_status_t ferrum_plugin_query_v1(const ferrum_host_t *host, ferrum_plugin_t *out_plugin)
{
    const char *named = getenv("FERRUM_TEST_FAULT");
    void *handle = dlopen(SHIM_CPU, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle ? dlsym(handle, FERRUM_PLUGIN_SYMBOL) : NULL;
    ferrum_plugin_query_fn *query;
    if (!symbol)
        return FERRUM_INTERNAL;
    fault = named ? named : "";
    memcpy(&query, &symbol, sizeof query);
    real.head = (ferrum_head_t)FERRUM_HEAD(ferrum_plugin_t);
    FERRUM_TRY(query(host, &real));
    *out_plugin = real;
    out_plugin->name = "shim";
    out_plugin->get_interface = get_interface;
    return FERRUM_OK;
}
