/* SPDX-License-Identifier: MIT */
/* Running one operation, and checking that the device memory it was given is still there. */
#include "tests/cuda_emu/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t emu_kernels_run;

static void note(emu_op_t *op, uint32_t param, uintptr_t address)
{
    const emu_allocation_t *a = emu_memory_find(address, 0);

    op->references = realloc(op->references, (op->reference_count + 1) * sizeof *op->references);
    if (op->references == NULL)
        abort();
    op->references[op->reference_count++] =
        (emu_reference_t){address, a == NULL ? 0 : a->serial, param};
}

/* Whatever in the parameters looks like a device address is one: no other number is up there. */
static void note_params(emu_op_t *op)
{
    const ferrum_emu_kernel_t *kernel = op->launch.kernel;

    for (uint32_t i = 0; i < kernel->param_count; i++) {
        for (size_t at = 0; at + sizeof(uintptr_t) <= kernel->param_sizes[i];
             at += sizeof(uintptr_t)) {
            uintptr_t word;

            memcpy(&word, (const char *)op->params[i] + at, sizeof word);
            if (emu_memory_owns(word))
                note(op, i, word);
        }
    }
}

void emu_note_references(emu_op_t *op)
{
    if (op->kind == EMU_OP_KERNEL) {
        note_params(op);
    } else if (op->kind == EMU_OP_COPY || op->kind == EMU_OP_SET) {
        if (emu_memory_owns(op->to))
            note(op, 0, op->to);
        if (emu_memory_owns(op->from))
            note(op, 1, op->from);
    }
}

static bool references_hold(CUcontext context, const emu_op_t *op, bool replay)
{
    const char *what = op->kind == EMU_OP_KERNEL ? op->launch.kernel->name
                       : op->kind == EMU_OP_COPY ? "a copy"
                                                 : "a memset";

    for (size_t i = 0; i < op->reference_count; i++) {
        const emu_reference_t *r = &op->references[i];
        const emu_allocation_t *a = emu_memory_find(r->address, 0);

        const bool there = r->serial != 0 && a != NULL && a->serial == r->serial;

        if (there && a->device == context->device)
            continue;
        emu_report("%s%s: parameter %u points to device memory that %s", replay ? "replay of " : "",
                   what, r->param,
                   there            ? "is another device's"
                   : r->serial == 0 ? "is not allocated"
                                    : "has been freed");
        return false;
    }
    return true;
}

static bool range_holds(uintptr_t address, size_t bytes)
{
    if (!emu_memory_owns(address) || emu_memory_find(address, bytes) != NULL)
        return true;
    emu_report("a copy or memset of %zu bytes goes beyond its allocation", bytes);
    return false;
}

static CUresult run_copy(const emu_op_t *op)
{
    const void *from = op->staged != NULL ? op->staged : (const void *)op->from;

    if (!range_holds(op->to, op->bytes) || !range_holds(op->from, op->bytes))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    emu_memory_open();
    memcpy((void *)op->to, from, op->bytes);
    emu_memory_close();
    return CUDA_SUCCESS;
}

static CUresult run_set(const emu_op_t *op)
{
    if (!range_holds(op->to, op->bytes))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    emu_memory_open();
    for (size_t i = 0; i < op->bytes; i += op->width)
        memcpy((char *)op->to + i, &op->value, op->width);
    emu_memory_close();
    return CUDA_SUCCESS;
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static CUresult run_graph(CUcontext context, const emu_op_t *op)
{
    for (emu_op_t *o = op->exec->ops->first; o != NULL; o = o->next) {
        const CUresult result = emu_execute(context, o, true);

        if (result != CUDA_SUCCESS)
            return result;
    }
    return CUDA_SUCCESS;
}

CUresult emu_execute(CUcontext context, emu_op_t *op, bool replay)
{
    if (!references_hold(context, op, replay))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    switch (op->kind) {
    case EMU_OP_KERNEL:
        emu_kernels_run++;
        op->launch.kernel->runs++;
        op->launch.params = op->params;
        op->launch.device = context->device;
        return emu_launch_run(&op->launch);
    case EMU_OP_COPY:
        return run_copy(op);
    case EMU_OP_SET:
        return run_set(op);
    case EMU_OP_RECORD:
        op->event->time_ms = now_ms();
        op->event->done = op->sequence;
        return CUDA_SUCCESS;
    case EMU_OP_WAIT:
        return CUDA_SUCCESS;
    case EMU_OP_GRAPH:
        return run_graph(context, op);
    }
    return CUDA_ERROR_UNKNOWN;
}
