/* SPDX-License-Identifier: MIT */
/*
 * Capture and replay. A graph remembers the blocks of device memory that its kernels were given;
 * once one of them has been freed, its replay finds that out and drops the graph.
 */
#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"

#include <string.h>

struct ferrum_cuda_graph {
    ferrum_graph_key_t key;
    CUgraphExec exec;
    ferrum_cuda_memory_t **noted;
    uint32_t noted_count, noted_capacity;
    ferrum_cuda_graph_t *next;
};

static void graph_free(ferrum_context_t *ctx, ferrum_cuda_graph_t *graph)
{
    const ferrum_host_t *host = ctx->device->host;

    if (graph->exec) {
        /* The driver lets a graph be destroyed while it runs. */
        ferrum_cuda_enter(ctx->device);
        (void)ctx->device->driver.cuGraphExecDestroy(graph->exec);
        ferrum_cuda_leave(ctx->device);
    }
    for (uint32_t i = 0; i < graph->noted_count; i++)
        ferrum_cuda_memory_drop(graph->noted[i]);
    ferrum_cuda_host_free(host, graph->noted, graph->noted_capacity * sizeof *graph->noted);
    ferrum_cuda_host_free(host, graph, sizeof *graph);
}

ferrum_status_t ferrum_cuda_note(ferrum_context_t *ctx, ferrum_cuda_memory_t *memory,
                                 ferrum_error_t *err)
{
    ferrum_cuda_graph_t *graph = ctx->capturing;

    if (!graph)
        return FERRUM_OK;
    for (uint32_t i = graph->noted_count; i > 0; i--)
        if (graph->noted[i - 1] == memory)
            return FERRUM_OK;
    if (graph->noted_count == graph->noted_capacity) {
        const ferrum_host_t *host = ctx->device->host;
        const uint32_t capacity = graph->noted_capacity ? 2 * graph->noted_capacity : 64;
        ferrum_cuda_memory_t **larger =
            ferrum_cuda_host_alloc(host, capacity * sizeof *larger, "a graph", err);
        if (!larger)
            return FERRUM_OUT_OF_MEMORY;
        if (graph->noted)
            memcpy(larger, graph->noted, graph->noted_count * sizeof *larger);
        ferrum_cuda_host_free(host, graph->noted, graph->noted_capacity * sizeof *larger);
        graph->noted = larger;
        graph->noted_capacity = capacity;
    }
    ferrum_cuda_memory_keep(memory);
    graph->noted[graph->noted_count++] = memory;
    return FERRUM_OK;
}

/** End the capture that is in flight, if any, and drop what it recorded. */
static void abandon(ferrum_context_t *ctx)
{
    CUgraph recorded = NULL;

    if (!ctx->capturing)
        return;
    ferrum_cuda_enter(ctx->device);
    (void)ctx->device->driver.cuStreamEndCapture(ctx->stream, &recorded);
    if (recorded)
        (void)ctx->device->driver.cuGraphDestroy(recorded);
    ferrum_cuda_leave(ctx->device);
    graph_free(ctx, ctx->capturing);
    ctx->capturing = NULL;
}

static void free_all(ferrum_context_t *ctx)
{
    while (ctx->graphs) {
        ferrum_cuda_graph_t *graph = ctx->graphs;
        ctx->graphs = graph->next;
        graph_free(ctx, graph);
    }
}

void ferrum_cuda_graphs_free(ferrum_context_t *ctx)
{
    abandon(ctx);
    free_all(ctx);
}

/** The link that points to the graph of @p key, or the last link. */
static ferrum_cuda_graph_t **find(ferrum_context_t *ctx, const ferrum_graph_key_t *key)
{
    ferrum_cuda_graph_t **link = &ctx->graphs;

    while (*link && ((*link)->key.model != key->model || (*link)->key.shape != key->shape))
        link = &(*link)->next;
    return link;
}

static void remove_graph(ferrum_context_t *ctx, const ferrum_graph_key_t *key)
{
    ferrum_cuda_graph_t **link = find(ctx, key);
    ferrum_cuda_graph_t *graph = *link;

    if (!graph)
        return;
    *link = graph->next;
    graph_free(ctx, graph);
}

ferrum_status_t ferrum_cuda_graph_begin(ferrum_context_t *ctx, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    ferrum_cuda_graph_t *graph =
        ferrum_cuda_host_alloc(ctx->device->host, sizeof *graph, "a graph", err);
    if (!graph)
        return FERRUM_OUT_OF_MEMORY;
    /* Relaxed: what other contexts do meanwhile on this thread is theirs; ours is checked. */
    ferrum_cuda_enter(ctx->device);
    const CUresult result =
        ctx->device->driver.cuStreamBeginCapture(ctx->stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    ferrum_cuda_leave(ctx->device);
    const ferrum_status_t status =
        ferrum_cuda_context_check(ctx, result, "cuStreamBeginCapture", err);
    if (status == FERRUM_OK)
        ctx->capturing = graph;
    else
        graph_free(ctx, graph);
    return status;
}

/** From the capture to something that can be launched; the device is current. */
static CUresult instantiate(ferrum_context_t *ctx, ferrum_cuda_graph_t *graph)
{
    const ferrum_cuda_driver_t *driver = &ctx->device->driver;
    CUgraph recorded = NULL;

    CUresult result = driver->cuStreamEndCapture(ctx->stream, &recorded);
    if (result == CUDA_SUCCESS)
        result = driver->cuGraphInstantiate(&graph->exec, recorded, 0);
    if (result == CUDA_SUCCESS)
        result = driver->cuGraphUpload(graph->exec, ctx->stream);
    if (recorded)
        (void)driver->cuGraphDestroy(recorded);
    return result;
}

ferrum_status_t ferrum_cuda_graph_end(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                      ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(key, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    ferrum_cuda_graph_t *graph = ctx->capturing;
    if (!graph)
        return FERRUM_REFUSE(err, FERRUM_REASON_OTHER, "%s",
                             "no capture is in flight; call graph_begin first");
    ctx->capturing = NULL;
    ferrum_cuda_enter(ctx->device);
    const CUresult result = instantiate(ctx, graph);
    ferrum_cuda_leave(ctx->device);
    if (result != CUDA_SUCCESS) {
        graph_free(ctx, graph);
        return ferrum_cuda_context_check(ctx, result, "ending the graph capture", err);
    }
    remove_graph(ctx, key);
    graph->key = *key;
    graph->next = ctx->graphs;
    ctx->graphs = graph;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_graph_replay(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                         uint32_t *out_launched, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(key, err);
    FERRUM_CHECK_POINTER(out_launched, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    const ferrum_cuda_graph_t *graph = *find(ctx, key);
    for (uint32_t i = 0; graph && i < graph->noted_count; i++)
        if (atomic_load(&graph->noted[i]->freed)) {
            remove_graph(ctx, key);
            graph = NULL;
        }
    if (!graph) {
        *out_launched = 0;
        return FERRUM_OK;
    }
    ferrum_cuda_enter(ctx->device);
    const CUresult result = ctx->device->driver.cuGraphLaunch(graph->exec, ctx->stream);
    ferrum_cuda_leave(ctx->device);
    FERRUM_TRY(ferrum_cuda_context_check(ctx, result, "cuGraphLaunch", err));
    ctx->stats.graph_replays++;
    *out_launched = 1;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_graph_reset(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                        ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(key, err);
    remove_graph(ctx, key);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_graph_reset_all(ferrum_context_t *ctx, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    free_all(ctx);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_graph_in_flight(ferrum_context_t *ctx, uint32_t *out_in_flight,
                                            ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(out_in_flight, err);
    *out_in_flight = ctx->capturing != NULL;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_graph_set_decode_state(ferrum_context_t *ctx, uint32_t token,
                                                   uint32_t step, ferrum_error_t *err)
{
    const uint32_t words[] = {token, step};
    CUdeviceptr state;

    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_STATE, sizeof words, &state, err));
    return ferrum_cuda_upload(ctx, state, words, 2, sizeof words[0], NULL, err);
}

ferrum_status_t ferrum_cuda_graph_set_device_state_mode(ferrum_context_t *ctx, uint32_t on,
                                                        ferrum_error_t *err)
{
    CUdeviceptr state;

    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    if (on)
        FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_STATE, 8, &state, err));
    ctx->device_state = on != 0;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_step_word(ferrum_context_t *ctx, CUdeviceptr *out_step,
                                      ferrum_error_t *err)
{
    CUdeviceptr state = 0;

    if (ctx->device_state)
        FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_STATE, 8, &state, err));
    *out_step = state ? state + sizeof(uint32_t) : 0;
    return FERRUM_OK;
}
