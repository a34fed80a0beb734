/* SPDX-License-Identifier: MIT */
/* The driver: streams, events and capture. */
#include "tests/cuda_emu/driver.h"

#include <stdlib.h>

emu_capture_t *emu_captures;
CUevent emu_events;

CUresult cuStreamCreate(CUstream *out_stream, unsigned int flags)
{
    CUcontext context;
    CUstream stream;

    EMU_ENTER(cuStreamCreate);
    context = emu_context();
    if ((flags & ~(unsigned int)CU_STREAM_NON_BLOCKING) != 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    stream->context = context;
    stream->flags = flags;
    stream->last = &stream->first;
    stream->next = context->streams;
    context->streams = stream;
    *out_stream = stream;
    return emu_leave(CUDA_SUCCESS);
}

static CUstream created(CUstream stream)
{
    CUstream s = emu_stream(stream);

    return s == NULL || s == &s->context->default_stream ? NULL : s;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    CUstream *p;

    EMU_ENTER(cuStreamDestroy);
    if (created(stream) == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (stream->capture != NULL)
        stream->capture->invalid = true;
    emu_drain(stream);
    p = &stream->context->streams;
    while (*p != stream)
        p = &(*p)->next;
    *p = stream->next;
    free(stream);
    return emu_leave(CUDA_SUCCESS);
}

/* Waiting for, or asking about, a stream that captures is illegal in every mode. */
static CUresult check_wait(CUstream s)
{
    if (s == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (s->capture != NULL) {
        s->capture->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return emu_unsafe_during_capture();
}

CUresult cuStreamSynchronize(CUstream stream)
{
    CUstream s;
    CUresult result;

    EMU_ENTER(cuStreamSynchronize);
    s = emu_stream(stream);
    result = check_wait(s);
    if (result != CUDA_SUCCESS)
        return emu_leave(result);
    if (s == &s->context->default_stream)
        result = emu_drain_default(s->context);
    emu_drain(s);
    return emu_leave(result != CUDA_SUCCESS ? result : s->context->sticky);
}

/* Says once that it is not ready, then runs what is queued: polling comes to an end. */
CUresult cuStreamQuery(CUstream stream)
{
    CUstream s;
    CUresult result;

    EMU_ENTER(cuStreamQuery);
    s = emu_stream(stream);
    result = check_wait(s);
    if (result != CUDA_SUCCESS)
        return emu_leave(result);
    if (s->first == NULL)
        return emu_leave(s->context->sticky);
    emu_drain(s);
    return emu_leave(CUDA_ERROR_NOT_READY);
}

CUresult cuEventCreate(CUevent *out_event, unsigned int flags)
{
    CUevent event;

    EMU_ENTER(cuEventCreate);
    event = calloc(1, sizeof *event);
    if (event == NULL)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    event->context = emu_context();
    event->flags = flags;
    event->references = 1;
    event->live = true;
    event->next = emu_events;
    emu_events = event;
    *out_event = event;
    return emu_leave(CUDA_SUCCESS);
}

void emu_event_release(CUevent event)
{
    if (--event->references == 0)
        free(event);
}

static CUevent *find_event(CUevent event)
{
    CUevent *p = &emu_events;

    while (*p != NULL && *p != event)
        p = &(*p)->next;
    return p;
}

CUresult cuEventDestroy_v2(CUevent event)
{
    CUevent *p;

    EMU_ENTER(cuEventDestroy);
    p = find_event(event);
    if (*p == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    *p = event->next;
    emu_event_release(event);
    return emu_leave(CUDA_SUCCESS);
}

static emu_op_t *event_op(emu_op_kind_t kind, CUevent event)
{
    emu_op_t *op = emu_op_create(kind);

    op->event = event;
    op->sequence = event->recorded;
    event->references++;
    return op;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    CUstream s;

    EMU_ENTER(cuEventRecord);
    s = emu_stream(stream);
    if (s == NULL || *find_event(event) == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    event->capture = s->capture;
    event->captured = s->captured;
    event->stream = s;
    if (s->capture != NULL)
        return emu_leave(s->capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                                             : CUDA_SUCCESS);
    event->recorded++;
    return emu_leave(emu_submit(s, event_op(EMU_OP_RECORD, event)));
}

/* A stream that waits for an event of a capture takes part in it from then on. */
static CUresult wait_in_capture(CUstream s, CUevent event)
{
    emu_capture_t *capture = s->capture != NULL ? s->capture : event->capture;

    if (capture->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (event->capture != capture) {
        capture->invalid = true;
        return event->capture == NULL ? CUDA_ERROR_STREAM_CAPTURE_ISOLATION
                                      : CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    if (s->capture == NULL) {
        s->capture = capture;
        s->captured = 1;
        s->joined = 0;
    }
    if (s == capture->origin)
        event->stream->joined = event->captured;
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    CUstream s;

    EMU_ENTER(cuStreamWaitEvent);
    (void)flags;
    s = emu_stream(stream);
    if (s == NULL || *find_event(event) == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (s->capture != NULL || event->capture != NULL)
        return emu_leave(wait_in_capture(s, event));
    if (event->recorded == 0)
        return emu_leave(CUDA_SUCCESS);
    return emu_leave(emu_submit(s, event_op(EMU_OP_WAIT, event)));
}

static CUresult check_event(CUevent event)
{
    if (*find_event(event) == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture != NULL) {
        event->capture->invalid = true;
        return CUDA_ERROR_CAPTURED_EVENT;
    }
    return emu_unsafe_during_capture();
}

CUresult cuEventQuery(CUevent event)
{
    CUresult result;

    EMU_ENTER(cuEventQuery);
    result = check_event(event);
    if (result == CUDA_SUCCESS && event->done < event->recorded) {
        emu_drain_event(event, event->recorded);
        result = CUDA_ERROR_NOT_READY;
    }
    return emu_leave(result);
}

CUresult cuEventSynchronize(CUevent event)
{
    CUresult result;

    EMU_ENTER(cuEventSynchronize);
    result = check_event(event);
    if (result == CUDA_SUCCESS) {
        emu_drain_event(event, event->recorded);
        result = event->context->sticky;
    }
    return emu_leave(result);
}

CUresult cuEventElapsedTime(float *out_ms, CUevent from, CUevent to)
{
    EMU_ENTER(cuEventElapsedTime);
    if (*find_event(from) == NULL || *find_event(to) == NULL || from->recorded == 0 ||
        to->recorded == 0 || ((from->flags | to->flags) & CU_EVENT_DISABLE_TIMING) != 0)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (from->done < from->recorded || to->done < to->recorded)
        return emu_leave(CUDA_ERROR_NOT_READY);
    *out_ms = (float)(to->time_ms - from->time_ms);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    emu_capture_t *capture;

    EMU_ENTER(cuStreamBeginCapture);
    if (created(stream) == NULL)
        return emu_leave(emu_stream(stream) == NULL ? CUDA_ERROR_INVALID_HANDLE
                                                    : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (stream->capture != NULL)
        return emu_leave(CUDA_ERROR_ILLEGAL_STATE);
    if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    capture = calloc(1, sizeof *capture);
    if (capture == NULL)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    capture->origin = stream;
    capture->mode = mode;
    capture->thread = pthread_self();
    capture->ops = emu_ops_create();
    capture->next = emu_captures;
    emu_captures = capture;
    stream->capture = capture;
    stream->captured = 0;
    return emu_leave(CUDA_SUCCESS);
}

/* Take all streams and events out of a capture; tells whether other streams were joined again. */
static bool leave_capture(CUcontext context, emu_capture_t *capture)
{
    bool joined = true;

    for (CUstream s = context->streams; s != NULL; s = s->next) {
        if (s->capture != capture)
            continue;
        if (s != capture->origin && s->joined != s->captured)
            joined = false;
        s->capture = NULL;
    }
    for (CUevent e = emu_events; e != NULL; e = e->next) {
        if (e->capture == capture)
            e->capture = NULL;
    }
    return joined;
}

static CUresult end_capture(CUstream stream, CUgraph *out_graph)
{
    emu_capture_t *capture = stream->capture;
    emu_capture_t **p = &emu_captures;
    CUresult result = CUDA_SUCCESS;

    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
        !pthread_equal(capture->thread, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    if (capture->origin != stream)
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    if (!leave_capture(stream->context, capture))
        result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    if (capture->invalid)
        result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    while (*p != capture)
        p = &(*p)->next;
    *p = capture->next;
    *out_graph = NULL;
    if (result == CUDA_SUCCESS) {
        CUgraph graph = calloc(1, sizeof *graph);

        if (graph == NULL)
            abort();
        graph->ops = capture->ops;
        graph->next = emu_graphs;
        emu_graphs = graph;
        *out_graph = graph;
    } else {
        emu_ops_release(capture->ops);
    }
    free(capture);
    return result;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *out_graph)
{
    EMU_ENTER(cuStreamEndCapture);
    if (created(stream) == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (stream->capture == NULL)
        return emu_leave(CUDA_ERROR_ILLEGAL_STATE);
    return emu_leave(end_capture(stream, out_graph));
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *out_status)
{
    CUstream s;

    EMU_ENTER(cuStreamIsCapturing);
    s = emu_stream(stream);
    if (s == NULL)
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    *out_status = s->capture == NULL    ? CU_STREAM_CAPTURE_STATUS_NONE
                  : s->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                        : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return emu_leave(CUDA_SUCCESS);
}
