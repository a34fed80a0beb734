/* SPDX-License-Identifier: MIT */
/* Streams as queues of work, run when somebody waits. */
#include "tests/cuda_emu/driver.h"

#include <stdlib.h>

emu_op_t *emu_op_create(emu_op_kind_t kind)
{
    emu_op_t *op = calloc(1, sizeof *op);

    if (op == NULL)
        abort();
    op->kind = kind;
    return op;
}

void emu_op_destroy(emu_op_t *op)
{
    if (op->event != NULL)
        emu_event_release(op->event);
    if (op->exec != NULL)
        emu_exec_release(op->exec);
    if (op->params != NULL)
        free(op->params[0]);
    free(op->params);
    free(op->references);
    free(op->staged);
    free(op);
}

emu_op_list_t *emu_ops_create(void)
{
    emu_op_list_t *ops = calloc(1, sizeof *ops);

    if (ops == NULL)
        abort();
    ops->last = &ops->first;
    ops->references = 1;
    return ops;
}

void emu_ops_release(emu_op_list_t *ops)
{
    if (--ops->references > 0)
        return;
    while (ops->first != NULL) {
        emu_op_t *op = ops->first;

        ops->first = op->next;
        emu_op_destroy(op);
    }
    free(ops);
}

CUstream emu_stream(CUstream handle)
{
    CUcontext context = emu_context();

    if (context == NULL)
        return NULL;
    if (handle == NULL || (uintptr_t)handle == 1)
        return &context->default_stream;
    for (CUstream s = context->streams; s != NULL; s = s->next) {
        if (s == handle)
            return s;
    }
    return NULL;
}

/* Run the oldest operation of a stream; a wait runs what it waits for. */
static void run_first(CUstream stream)
{
    emu_op_t *op = stream->first;
    CUcontext context = stream->context;
    CUresult result;

    stream->first = op->next;
    if (stream->first == NULL)
        stream->last = &stream->first;
    if (op->kind == EMU_OP_WAIT)
        emu_drain_event(op->event, op->sequence);
    if (context->sticky == CUDA_SUCCESS) {
        result = emu_execute(context, op, false);
        if (result != CUDA_SUCCESS)
            context->sticky = result;
    } else if (op->kind == EMU_OP_RECORD) {
        op->event->done = op->sequence;
    }
    emu_op_destroy(op);
}

void emu_drain(CUstream stream)
{
    while (stream->first != NULL)
        run_first(stream);
}

void emu_drain_event(CUevent event, uint64_t sequence)
{
    while (event->done < sequence && event->stream->first != NULL)
        run_first(event->stream);
}

/* One step of a stream with work: the first, or with a seed any. */
static bool step_context(CUcontext context)
{
    CUstream found = NULL;
    uint32_t candidates = 0;

    if (context->default_stream.first != NULL) {
        found = &context->default_stream;
        candidates = 1;
    }
    for (CUstream s = context->streams; s != NULL; s = s->next) {
        if (s->first == NULL)
            continue;
        candidates++;
        if (found == NULL || (emu_options.seed != 0 && emu_random(candidates) == 0))
            found = s;
    }
    if (found != NULL)
        run_first(found);
    return found != NULL;
}

void emu_drain_context(CUcontext context)
{
    while (step_context(context)) {
    }
}

CUresult emu_drain_default(CUcontext context)
{
    for (CUstream s = context->streams; s != NULL; s = s->next) {
        if ((s->flags & CU_STREAM_NON_BLOCKING) != 0)
            continue;
        if (s->capture != NULL) {
            s->capture->invalid = true;
            return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
        emu_drain(s);
    }
    emu_drain(&context->default_stream);
    return CUDA_SUCCESS;
}

CUresult emu_unsafe_during_capture(void)
{
    CUresult result = CUDA_SUCCESS;

    for (emu_capture_t *c = emu_captures; c != NULL; c = c->next) {
        if (c->mode == CU_STREAM_CAPTURE_MODE_RELAXED ||
            (c->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
             !pthread_equal(c->thread, pthread_self())))
            continue;
        c->invalid = true;
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

static CUresult capture_op(CUstream stream, emu_op_t *op)
{
    emu_capture_t *capture = stream->capture;

    if (capture->invalid || op->kind == EMU_OP_GRAPH) {
        const bool invalid = capture->invalid;

        emu_op_destroy(op);
        return invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_ERROR_NOT_SUPPORTED;
    }
    *capture->ops->last = op;
    capture->ops->last = &op->next;
    capture->ops->count++;
    stream->captured++;
    return CUDA_SUCCESS;
}

CUresult emu_submit(CUstream stream, emu_op_t *op)
{
    CUcontext context = stream->context;

    emu_note_references(op);
    if (stream->capture != NULL)
        return capture_op(stream, op);
    if (stream == &context->default_stream) {
        const CUresult result = emu_drain_default(context);

        if (result != CUDA_SUCCESS) {
            emu_op_destroy(op);
            return result;
        }
    } else if ((stream->flags & CU_STREAM_NON_BLOCKING) == 0) {
        emu_drain(&context->default_stream);
    }
    *stream->last = op;
    stream->last = &op->next;
    if (emu_options.eager_streams)
        emu_drain(stream);
    else if (emu_options.seed != 0 && emu_random(2) == 0)
        step_context(context);
    return CUDA_SUCCESS;
}
