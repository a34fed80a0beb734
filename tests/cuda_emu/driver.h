/* SPDX-License-Identifier: MIT */
/**
 * @file driver.h
 * @brief What the exported functions share: objects, and work that waits in streams or graphs.
 *
 * Work is queued when it is submitted and runs when somebody waits for it (STREAMS=deferred), so a
 * missing wait shows. Legacy default stream: it runs everything of blocking streams first, and they
 * run everything of it.
 */
#ifndef FERRUM_TESTS_CUDA_EMU_DRIVER_H
#define FERRUM_TESTS_CUDA_EMU_DRIVER_H

#include <pthread.h>

#include "tests/cuda_emu/emulator.h"

/* clang-format off */
#define EMU_DECLARE(name, symbol, parameters) EMU_EXPORT CUresult symbol parameters;
FERRUM_CUDA_DRIVER_API(EMU_DECLARE)
#undef EMU_DECLARE
#define EMU_ENUMERATOR(name, symbol, parameters) EMU_CALL_##name,
typedef enum emu_call { FERRUM_CUDA_DRIVER_API(EMU_ENUMERATOR) EMU_CALLS } emu_call_t;
#undef EMU_ENUMERATOR
/* clang-format on */

/** Begin a call: take the lock, count it, and refuse it if it cannot be made now or is to fail. */
CUresult emu_enter(emu_call_t call);
CUresult emu_leave(CUresult result);
/** The same, with a context: the current one goes to the variable `context`. */
#define EMU_ENTER(name)                                                                            \
    do {                                                                                           \
        const CUresult refused = emu_enter(EMU_CALL_##name);                                       \
        if (refused != CUDA_SUCCESS)                                                               \
            return refused;                                                                        \
    } while (0)

/* ---- work ---- */

/** A pointer into device memory that a piece of work was given. */
typedef struct emu_reference {
    uintptr_t address;
    uint64_t serial; /**< of the allocation it then pointed into; 0 if none */
    uint32_t param;
} emu_reference_t;

typedef enum emu_op_kind {
    EMU_OP_KERNEL,
    EMU_OP_COPY,
    EMU_OP_SET,
    EMU_OP_RECORD,
    EMU_OP_WAIT,
    EMU_OP_GRAPH
} emu_op_kind_t;

typedef struct emu_op {
    emu_op_kind_t kind;
    struct emu_op *next;
    /* kernel */
    CUfunction function;
    emu_launch_t launch;
    void **params;
    emu_reference_t *references;
    size_t reference_count;
    /* copy and set */
    uintptr_t to, from;
    size_t bytes;
    void *staged; /**< a pageable source, as it was when the copy was submitted */
    uint32_t value;
    uint32_t width;
    uint64_t to_serial, from_serial; /**< 0 for the host's */
    /* record and wait */
    CUevent event;
    uint64_t sequence;
    /* graph */
    CUgraphExec exec;
} emu_op_t;

typedef struct emu_op_list {
    emu_op_t *first, **last;
    size_t count;
    uint32_t references;
} emu_op_list_t;

typedef struct emu_capture {
    CUstream origin;
    CUstreamCaptureMode mode;
    pthread_t thread;
    bool invalid;
    emu_op_list_t *ops;
    struct emu_capture *next;
} emu_capture_t;

/* ---- objects ---- */

struct CUstream_st {
    CUcontext context;
    unsigned int flags;
    emu_op_t *first, **last;
    emu_capture_t *capture;
    uint64_t captured; /**< operations captured in this stream */
    uint64_t joined;   /**< of those, how many the origin waits for */
    CUstream next;
};

struct CUevent_st {
    CUcontext context;
    unsigned int flags;
    uint32_t references;
    CUstream stream; /**< of the latest record */
    uint64_t recorded, done;
    double time_ms;
    emu_capture_t *capture; /**< the latest record was captured, not submitted */
    uint64_t captured;      /**< then: what the stream had captured */
    bool live;
    CUevent next;
};

struct CUgraph_st {
    emu_op_list_t *ops;
    CUgraph next;
};

struct CUgraphExec_st {
    emu_op_list_t *ops;
    uint32_t references;
    bool live;
    CUgraphExec next;
};

struct CUfunc_st {
    ferrum_emu_kernel_t *kernel;
    int max_dynamic_bytes;
    CUfunction next;
};

struct CUmod_st {
    CUcontext context;
    CUfunction functions;
    CUmodule next;
};

struct CUctx_st {
    CUdevice device;
    unsigned int flags;
    uint32_t retained;
    CUresult sticky;
    CUmodule modules;
    struct CUstream_st default_stream;
    CUstream streams;
};

#define EMU_MAX_DEVICES 8
extern bool emu_initialised;
extern uint64_t emu_epoch; /**< counts resets: contexts that threads had before are void */
extern struct CUctx_st emu_contexts[EMU_MAX_DEVICES];
extern emu_capture_t *emu_captures;
extern CUevent emu_events;
extern CUgraph emu_graphs;
extern CUgraphExec emu_execs;
extern uint64_t emu_kernels_run;

/** The calling thread's context, or NULL. */
CUcontext emu_context(void);
bool emu_is_fatal(CUresult result);
/** Finish its work and free all that belongs to it. */
void emu_context_free(CUcontext context);

/* ---- queue.c ---- */

emu_op_t *emu_op_create(emu_op_kind_t kind);
void emu_op_destroy(emu_op_t *op);
emu_op_list_t *emu_ops_create(void);
void emu_ops_release(emu_op_list_t *ops);

/** The stream that a handle means in the current context, or NULL. */
CUstream emu_stream(CUstream handle);
/** Queue @p op, or capture it. Takes it over, also on failure. */
CUresult emu_submit(CUstream stream, emu_op_t *op);
/** Run what is queued in a stream, in a context, or up to an event. */
void emu_drain(CUstream stream);
void emu_drain_context(CUcontext context);
void emu_drain_event(CUevent event, uint64_t sequence);
/** Before a call that has to wait for the default stream: it and all blocking streams run. */
CUresult emu_drain_default(CUcontext context);
/** CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, and captures become invalid, if a capture forbids it. */
CUresult emu_unsafe_during_capture(void);

/** Execute @p op now. */
CUresult emu_execute(CUcontext context, emu_op_t *op, bool replay);
void emu_note_references(emu_op_t *op);

void emu_event_release(CUevent event);
void emu_exec_release(CUgraphExec exec);
void emu_objects_free(void);

#endif
