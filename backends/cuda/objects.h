/* SPDX-License-Identifier: MIT */
/**
 * @file objects.h
 * @brief The objects behind the opaque handles of backend.h, and the primitives that ops are made
 * of.
 *
 * A device owns the driver's library, the primary context and the loaded kernels. Everything else
 * keeps a device reference. Only the files that implement this header call the driver; an op checks
 * its arguments (check.h), fills a struct of kernels/cuda/args.h and calls ferrum_cuda_launch.
 */
#ifndef FERRUM_CUDA_OBJECTS_H
#define FERRUM_CUDA_OBJECTS_H

#include "backends/cuda/driver.h"
#include "backends/cuda/kernel_list.h"

#include <ferrum/backend.h>
#include <ferrum/moe_fused.h>
#include <ferrum/quant_llm.h>

#include <stdatomic.h>

typedef struct ferrum_cublaslt ferrum_cublaslt_t;
typedef struct ferrum_cublaslt_products ferrum_cublaslt_products_t;

struct ferrum_device {
    atomic_uint refs;
    const ferrum_host_t *host;
    ferrum_cuda_driver_t driver;
    uint32_t ordinal;
    CUdevice id;
    CUcontext primary;
    ferrum_dtype_t act; /**< f16 or bf16 */
    int capability;     /**< 10*major + minor */
    int processors;     /**< multiprocessors */
    int shared_bytes;   /**< most dynamic shared memory of a block */
    bool wgmma;         /**< FERRUM_CUDA_WGMMA: products of many rows by warpgroup kernels */
    ferrum_precision_t precision; /**< FERRUM_PRECISION: of objects that do not ask for one */
    CUmodule module;              /**< all kernels */
    CUfunction functions[FERRUM_CUDA_KERNEL_COUNT];
    ferrum_cublaslt_t *cublaslt; /**< NULL: dense products are our own */
};

/**
 * A block of device memory. The struct outlives the block for as long as a captured graph refers to
 * it, so that a replay can see that the block is gone.
 */
typedef struct ferrum_cuda_memory {
    atomic_uint refs;
    atomic_bool freed;
    ferrum_device_t *device;
    CUdeviceptr address; /**< 0 when bytes is 0 */
    uint64_t bytes;
} ferrum_cuda_memory_t;

struct ferrum_buffer {
    atomic_uint refs;
    ferrum_dtype_t dtype;
    uint64_t count;
    ferrum_cuda_memory_t *memory;
};

/** What a context's scratch blocks are for; each is in use by one op at a time. */
typedef enum ferrum_cuda_scratch {
    FERRUM_CUDA_SCRATCH_UPLOAD,  /**< host arrays that one launch reads: ids */
    FERRUM_CUDA_SCRATCH_RESULT,  /**< what a launch tells the host: argmax, flags */
    FERRUM_CUDA_SCRATCH_GATHER,  /**< activations in packed order, permuted for act-order */
    FERRUM_CUDA_SCRATCH_PARTIAL, /**< f32 partial sums */
    FERRUM_CUDA_SCRATCH_PLAN,    /**< routing, sorted pairs, offsets */
    FERRUM_CUDA_SCRATCH_HIDDEN,  /**< FFN: activated rows */
    FERRUM_CUDA_SCRATCH_INT8,    /**< FFN: x as int8 */
    FERRUM_CUDA_SCRATCH_DOWN,    /**< FFN: rows before they are combined */
    FERRUM_CUDA_SCRATCH_FAULT,   /**< ferrum_fault_t: what kernels found wrong with data */
    FERRUM_CUDA_SCRATCH_STATE,   /**< graph_set_decode_state: token, step */
    FERRUM_CUDA_SCRATCH_TICKETS, /**< u32, 0 between launches */
    FERRUM_CUDA_SCRATCH_GEMM,    /**< workspace of cuBLASLt */
    FERRUM_CUDA_SCRATCH_KINDS
} ferrum_cuda_scratch_t;

enum {
    FERRUM_CUDA_STAGES = 4,              /**< transfers under way at once */
    FERRUM_CUDA_STAGE_BYTES = 256 * 1024 /**< and their size */
};

typedef struct ferrum_cuda_graph ferrum_cuda_graph_t;
typedef struct ferrum_cuda_plan_ahead ferrum_cuda_plan_ahead_t;

struct ferrum_context {
    ferrum_device_t *device;
    CUstream stream;
    ferrum_cuda_memory_t *scratch[FERRUM_CUDA_SCRATCH_KINDS];
    void *stages; /**< pinned host memory, FERRUM_CUDA_STAGES blocks; NULL until it is needed */
    CUevent stage_done[FERRUM_CUDA_STAGES];
    uint32_t next_stage;
    CUresult lost;                  /**< the sticky error, or success */
    bool device_state;              /**< graph_set_device_state_mode */
    ferrum_cuda_graph_t *capturing; /**< NULL: no capture in flight */
    ferrum_cuda_graph_t *graphs;
    ferrum_cublaslt_products_t *products; /**< NULL: dense products are our own */
    ferrum_cuda_plan_ahead_t *ahead;      /**< NULL: no expert FFN has run */
    ferrum_context_stats_t stats;
};

/* ---- host memory (device.c) ---- */

/** @p bytes (> 0) zeroed from the host's allocator; NULL (and @p err filled) when it has none. */
void *ferrum_cuda_host_alloc(const ferrum_host_t *host, uint64_t bytes, const char *what,
                             ferrum_error_t *err);
void ferrum_cuda_host_free(const ferrum_host_t *host, void *ptr, uint64_t bytes);

/** An object of @p bytes zeroed, with one reference to @p device; NULL when memory ran out. */
void *ferrum_cuda_object_new(ferrum_device_t *device, size_t bytes, const char *what,
                             ferrum_error_t *err);
/** Free such an object, then drop its device reference. */
void ferrum_cuda_object_free(ferrum_device_t *device, void *object, size_t bytes);

/* ---- device memory (memory.c), any thread ---- */

/** Make the device current for the driver calls of this thread, and undo it. */
void ferrum_cuda_enter(ferrum_device_t *device);
void ferrum_cuda_leave(ferrum_device_t *device);

/** Zeroed device memory; OUT_OF_MEMORY says how much was asked for and is free. */
ferrum_status_t ferrum_cuda_memory_new(ferrum_device_t *device, uint64_t bytes, const char *what,
                                       ferrum_cuda_memory_t **out_memory, ferrum_error_t *err);
/** Free the block once queued work is done; NULL is ignored. */
void ferrum_cuda_memory_free(ferrum_cuda_memory_t *memory);
/** Keep the struct (not the block), and let go of it. */
void ferrum_cuda_memory_keep(ferrum_cuda_memory_t *memory);
void ferrum_cuda_memory_drop(ferrum_cuda_memory_t *memory);
/** Fill a block from the host and wait, outside of any context: for loaders. */
ferrum_status_t ferrum_cuda_memory_write(ferrum_cuda_memory_t *memory, uint64_t offset,
                                         const void *src, uint64_t bytes, ferrum_error_t *err);

/* ---- a context's work (context.c, stream.c): one thread per context ---- */

/** What to launch: blocks and threads (one-dimensional) and dynamic shared memory. */
typedef struct ferrum_cuda_grid {
    uint64_t x, y, z; /**< blocks; a launch with none does nothing */
    uint32_t threads;
    uint32_t shared_bytes;
} ferrum_cuda_grid_t;

/** The one launch: @p args is the kernel's only parameter, a struct of kernels/cuda/args.h. */
ferrum_status_t ferrum_cuda_launch(ferrum_context_t *ctx, ferrum_cuda_kernel_t kernel,
                                   ferrum_cuda_grid_t grid, const void *args, ferrum_error_t *err);

/** The context still works; DEVICE_LOST if not. Every call on a context begins with this, and so
 *  ends what holds between two calls only (plan_ahead.h). */
ferrum_status_t ferrum_cuda_check_alive(ferrum_context_t *ctx, ferrum_error_t *err);
/** What cannot be recorded: BUSY while a capture is in flight. */
ferrum_status_t ferrum_cuda_check_not_capturing(const ferrum_context_t *ctx, const char *function,
                                                ferrum_error_t *err);
/** Remember a sticky result, then as ferrum_cuda_result_check. */
ferrum_status_t ferrum_cuda_context_check(ferrum_context_t *ctx, CUresult result, const char *what,
                                          ferrum_error_t *err);

/** Writes host data: @p count elements from number @p first on, to @p to. */
typedef void ferrum_cuda_fill_fn(const void *source, uint64_t first, uint64_t count, void *to);
/** Host to device, in order; the source is consumed on return. NULL @p fill copies. */
ferrum_status_t ferrum_cuda_upload(ferrum_context_t *ctx, CUdeviceptr to, const void *source,
                                   uint64_t count, uint32_t element_bytes,
                                   ferrum_cuda_fill_fn *fill, ferrum_error_t *err);
/** Takes device data: @p count elements at @p from are numbers @p first on of the result. */
typedef void ferrum_cuda_take_fn(void *result, uint64_t first, uint64_t count, const void *from);
/** Device to host; waits for the context's work. NULL @p take copies. */
ferrum_status_t ferrum_cuda_download(ferrum_context_t *ctx, CUdeviceptr from, void *result,
                                     uint64_t count, uint32_t element_bytes,
                                     ferrum_cuda_take_fn *take, ferrum_error_t *err);
/** In order, may be captured. */
ferrum_status_t ferrum_cuda_zero(ferrum_context_t *ctx, CUdeviceptr to, uint64_t bytes,
                                 ferrum_error_t *err);
ferrum_status_t ferrum_cuda_copy(ferrum_context_t *ctx, CUdeviceptr to, CUdeviceptr from,
                                 uint64_t bytes, ferrum_error_t *err);
/** Report, once, what kernels noted in the fault word; the context's work is done (product.c). */
ferrum_status_t ferrum_cuda_report_fault(ferrum_context_t *ctx, ferrum_error_t *err);
/** Wait for the context's work. */
ferrum_status_t ferrum_cuda_wait(ferrum_context_t *ctx, ferrum_error_t *err);

/**
 * At least @p bytes of device scratch, contents undefined, valid until the next request of the same
 * kind. It does not grow during a capture (BUSY: run the step once before capturing it).
 */
ferrum_status_t ferrum_cuda_scratch(ferrum_context_t *ctx, ferrum_cuda_scratch_t kind,
                                    uint64_t bytes, CUdeviceptr *out_address, ferrum_error_t *err);

/**
 * A capture in flight depends on @p memory: its graph is dropped when the block is freed. Checked
 * buffer operands and scratch are noted by themselves; objects that own memory call this.
 */
ferrum_status_t ferrum_cuda_note(ferrum_context_t *ctx, ferrum_cuda_memory_t *memory,
                                 ferrum_error_t *err);
/** Address of the step that graph_set_decode_state wrote, for kernels that then use it instead of
 * the caller's position; 0 when the context is not in device-state mode. */
ferrum_status_t ferrum_cuda_step_word(ferrum_context_t *ctx, CUdeviceptr *out_step,
                                      ferrum_error_t *err);
/** Drop all graphs; a capture in flight is abandoned. */
void ferrum_cuda_graphs_free(ferrum_context_t *ctx);

/** One more reference. */
static inline void ferrum_cuda_ref(atomic_uint *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/** One reference less; true for the last one, whose holder frees the object. */
static inline bool ferrum_cuda_unref(atomic_uint *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

/** Address of element @p index of a buffer. */
static inline CUdeviceptr ferrum_cuda_at(const ferrum_buffer_t *buffer, uint64_t index)
{
    return buffer->memory->address + index * ferrum_dtype_bytes(buffer->dtype);
}

/** ceil(a / b) */
static inline uint64_t ferrum_cuda_ceil(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

#endif /* FERRUM_CUDA_OBJECTS_H */
