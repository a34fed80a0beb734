/* SPDX-License-Identifier: MIT */
/* What every call begins and ends with, and the calls of tests. */
#include "tests/cuda_emu/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emu/control.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t calls[EMU_CALLS];

#define SYMBOL(name, symbol, parameters) #symbol,
static const char *const symbols[] = {FERRUM_CUDA_DRIVER_API(SYMBOL)};
#undef SYMBOL

/* Calls that work without a context, and after it is lost. */
static bool is_context_free(emu_call_t call)
{
    return call <= EMU_CALL_cuCtxGetDevice || call == EMU_CALL_cuGetProcAddress;
}

CUresult emu_enter(emu_call_t call)
{
    CUcontext context;
    CUresult result;

    pthread_mutex_lock(&mutex);
    calls[call]++;
    context = emu_context();
    emu_options_need();
    result = emu_injected(symbols[call], calls[call]);
    if (result != CUDA_SUCCESS) {
        if (emu_is_fatal(result) && context != NULL)
            context->sticky = result;
        return emu_leave(result);
    }
    if (call == EMU_CALL_cuInit || call == EMU_CALL_cuDriverGetVersion ||
        call == EMU_CALL_cuGetErrorName || call == EMU_CALL_cuGetErrorString ||
        call == EMU_CALL_cuGetProcAddress)
        return CUDA_SUCCESS;
    if (!emu_initialised)
        return emu_leave(CUDA_ERROR_NOT_INITIALIZED);
    if (!is_context_free(call)) {
        if (context == NULL)
            return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
        if (context->retained == 0)
            return emu_leave(CUDA_ERROR_CONTEXT_IS_DESTROYED);
        if (context->sticky != CUDA_SUCCESS)
            return emu_leave(context->sticky);
    }
    return CUDA_SUCCESS;
}

CUresult emu_leave(CUresult result)
{
    pthread_mutex_unlock(&mutex);
    return result;
}

void ferrum_emu_reset(void)
{
    pthread_mutex_lock(&mutex);
    for (CUdevice d = 0; d < EMU_MAX_DEVICES; d++) {
        emu_contexts[d].sticky = CUDA_ERROR_UNKNOWN; /* what is queued is dropped */
        emu_contexts[d].device = d;
        emu_context_free(&emu_contexts[d]);
    }
    emu_objects_free();
    memset(calls, 0, sizeof calls);
    emu_kernels_run = 0;
    emu_kernels_reset();
    emu_report_clear();
    emu_options_load();
    emu_initialised = false;
    emu_epoch++;
    pthread_mutex_unlock(&mutex);
}

uint64_t ferrum_emu_count(const char *what)
{
    uint64_t count = 0;

    pthread_mutex_lock(&mutex);
    if (strcmp(what, "kernels") == 0)
        count = emu_kernels_run;
    else if (emu_kernel_find(what) != NULL)
        count = emu_kernel_find(what)->runs;
    for (int i = 0; i < EMU_CALLS; i++) {
        if (strcmp(what, symbols[i]) == 0)
            count = calls[i];
    }
    for (CUdevice d = 0; d < EMU_MAX_DEVICES; d++) {
        if (strcmp(what, "streams") == 0) {
            for (CUstream s = emu_contexts[d].streams; s != NULL; s = s->next)
                count++;
        } else if (strcmp(what, "memory") == 0) {
            count += emu_memory_used(d);
        }
    }
    if (strcmp(what, "events") == 0) {
        for (CUevent e = emu_events; e != NULL; e = e->next)
            count++;
    } else if (strcmp(what, "graphs") == 0) {
        for (CUgraph g = emu_graphs; g != NULL; g = g->next)
            count++;
        for (CUgraphExec e = emu_execs; e != NULL; e = e->next)
            count++;
    }
    pthread_mutex_unlock(&mutex);
    return count;
}

/* LOG names a file that gets the counts of all calls when the process ends. */
__attribute__((destructor)) static void write_log(void)
{
    const char *path = getenv("FERRUM_TEST_CUDA_EMU_LOG");
    FILE *file = path == NULL ? NULL : fopen(path, "a");

    if (file == NULL)
        return;
    fprintf(file, "kernels run: %llu\n", (unsigned long long)emu_kernels_run);
    for (int i = 0; i < EMU_CALLS; i++) {
        if (calls[i] > 0)
            fprintf(file, "%s: %llu\n", symbols[i], (unsigned long long)calls[i]);
    }
    fclose(file);
}
