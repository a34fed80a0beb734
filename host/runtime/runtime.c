/* SPDX-License-Identifier: MIT */
#include "host/runtime/executor.h"
#include "host/runtime/memory.h"
#include "host/runtime/runtime_internal.h"

#include <ferrum/swap.h>
#include <ferrum/util.h>

#include <stdlib.h>
#include <string.h>

struct ferrum_runtime {
    ferrum_memory_t *memory; /* NULL: the caller's allocator */
    ferrum_loader_t *loader;
    ferrum_moe_env_t moe_env;
    ferrum_spread_t spread;
    uint32_t threads;
    uint32_t nodes; /* of memory that blocks are spread over; 0: not asked for */
    bool has_registry;
    bool has_zombies; /* plugins that may still use the memory; written by swaps */
    ferrum_registry_t registry;
    _Atomic(ferrum_generation_t *) serving; /* changes only in the exchange of a swap */
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

static ferrum_status_t make_loader(ferrum_runtime_t *runtime, const ferrum_runtime_options_t *given,
                                   ferrum_error_t *err)
{
    if (given->allocator)
        return ferrum_loader_new(given->options, given->allocator, given->logger, &runtime->loader,
                                 err);
    FERRUM_TRY(ferrum_memory_new(&runtime->memory, err));
    FERRUM_TRY(ferrum_loader_new(given->options, ferrum_memory_allocator(runtime->memory),
                                 given->logger, &runtime->loader, err));
    return ferrum_memory_place(runtime->memory, ferrum_loader_options(runtime->loader),
                               &runtime->nodes, err);
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
    ferrum_generation_t *first = NULL;
    if (status == FERRUM_OK)
        status = ferrum_generation_open(runtime->loader, given.backend, &runtime->moe_env, 1,
                                        &first, err);
    atomic_init(&runtime->serving, first);
    if (status == FERRUM_OK) {
        status = ferrum_registry_init(&runtime->registry, err);
        runtime->has_registry = status == FERRUM_OK;
    }
    if (status != FERRUM_OK) {
        ferrum_runtime_close(runtime);
        return status;
    }
    runtime->threads =
        ferrum_team_choose_width(given.threads, ferrum_loader_options(runtime->loader));
    runtime->spread.width = runtime->threads;
    atomic_init(&runtime->spread.busy, false);
    ferrum_loader_set_spread(runtime->loader, ferrum_spread_run, &runtime->spread);
    if (runtime->nodes == 1)
        ferrum_ops_log(ferrum_runtime_ops(runtime), FERRUM_LOG_WARN,
                       "FERRUM_NUMA=interleave has no effect: this machine has one memory node");
    *out_runtime = runtime;
    return FERRUM_OK;
}

/* A swap that runs looks at `closing` between its steps. */
static void stop_swaps(ferrum_registry_t *registry)
{
    (void)pthread_mutex_lock(&registry->lock);
    registry->closing = true;
    while (registry->swapping)
        (void)pthread_cond_wait(&registry->changed, &registry->lock);
    (void)pthread_mutex_unlock(&registry->lock);
}

void ferrum_runtime_close(ferrum_runtime_t *runtime)
{
    if (!runtime)
        return;
    if (runtime->has_registry) {
        stop_swaps(&runtime->registry);
        ferrum_registry_destroy(&runtime->registry);
    }
    ferrum_unload_report_t report = {.unloaded = 0};
    ferrum_generation_close(atomic_load(&runtime->serving), 0, &report, NULL);
    if (runtime->loader) /* a module that could not be closed keeps it */
        ferrum_loader_set_spread(runtime->loader, NULL, NULL);
    ferrum_loader_free(runtime->loader);
    if (!runtime->has_zombies && report.leaked_blocks == 0)
        ferrum_memory_free(runtime->memory);
    free(runtime);
}

/* ---- what serves ---- */

ferrum_generation_t *ferrum_runtime_serving(const ferrum_runtime_t *runtime)
{
    return atomic_load_explicit(&runtime->serving, memory_order_acquire);
}

void ferrum_runtime_serve(ferrum_runtime_t *runtime, ferrum_generation_t *generation)
{
    atomic_store_explicit(&runtime->serving, generation, memory_order_release);
}

void ferrum_runtime_note_zombie(ferrum_runtime_t *runtime)
{
    runtime->has_zombies = true;
}

ferrum_registry_t *ferrum_runtime_registry(ferrum_runtime_t *runtime)
{
    return &runtime->registry;
}

ferrum_loader_t *ferrum_runtime_loader(const ferrum_runtime_t *runtime)
{
    return runtime->loader;
}

uint64_t ferrum_runtime_generation(const ferrum_runtime_t *runtime)
{
    return ferrum_runtime_serving(runtime)->number;
}

ferrum_module_t *ferrum_runtime_module(const ferrum_runtime_t *runtime)
{
    return ferrum_runtime_serving(runtime)->module;
}

ferrum_device_t *ferrum_runtime_device(const ferrum_runtime_t *runtime)
{
    return ferrum_runtime_serving(runtime)->device;
}

const ferrum_device_info_t *ferrum_runtime_device_info(const ferrum_runtime_t *runtime)
{
    return &ferrum_runtime_serving(runtime)->ops.info;
}

const ferrum_ops_t *ferrum_runtime_ops(const ferrum_runtime_t *runtime)
{
    return &ferrum_runtime_serving(runtime)->ops;
}

/* ---- what stays ---- */

const ferrum_options_t *ferrum_runtime_get_options(const ferrum_runtime_t *runtime)
{
    return ferrum_loader_options(runtime->loader);
}

uint32_t ferrum_runtime_threads(const ferrum_runtime_t *runtime)
{
    return runtime->threads;
}

ferrum_spread_t *ferrum_runtime_spread(ferrum_runtime_t *runtime)
{
    return &runtime->spread;
}

const ferrum_moe_env_t *ferrum_runtime_moe_env(const ferrum_runtime_t *runtime)
{
    return &runtime->moe_env;
}
