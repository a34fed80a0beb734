/* SPDX-License-Identifier: MIT */
/**
 * @file objects.h
 * @brief The objects behind the opaque handles of backend.h, their memory and their references.
 *
 * A device keeps the host's pointer; everything else keeps a device reference. All memory comes
 * from the host's allocator. Calls run to their end before they return, so events and waits have
 * nothing to wait for.
 */
#ifndef FERRUM_CPU_OBJECTS_H
#define FERRUM_CPU_OBJECTS_H

#include "kernels/kernels.h"

#include <ferrum/backend.h>
#include <ferrum/util.h>

#include <stdatomic.h>

/** Stated errors of a product: f32 activations; packed weights with 16- and 8-bit activations. */
#define FERRUM_CPU_F32_ERROR_BOUND 5e-6F
#define FERRUM_CPU_ACCURATE_ERROR_BOUND 2.5e-4F
#define FERRUM_CPU_FAST_ERROR_BOUND 1.6e-2F

/** A block from the host's allocator; ptr NULL: none. */
typedef struct ferrum_cpu_memory {
    void *ptr;
    size_t bytes;
} ferrum_cpu_memory_t;

struct ferrum_device {
    atomic_uint refs;
    const ferrum_host_t *host;
    uint32_t features; /**< FERRUM_CPU_* that kernels may use */
    const ferrum_kernel_set_t *kernels;
    ferrum_gptq_matmul_fn *gptq_matmul;
    const ferrum_packed_ops_t *packed;   /**< NULL: weights are not packed */
    ferrum_packed_precision_t precision; /**< default of objects that do not ask for one */
};

struct ferrum_buffer {
    atomic_uint refs;
    ferrum_device_t *device;
    ferrum_dtype_t dtype;
    uint64_t count;
    void *data;
    ferrum_cpu_memory_t owned; /**< none for wrapped memory */
};

/** What a context's scratch blocks are for; each is in use by one op at a time. */
typedef enum ferrum_cpu_scratch {
    FERRUM_CPU_SCRATCH_GATHER,     /**< activations in packed order, permuted for act-order */
    FERRUM_CPU_SCRATCH_GATHER_UP,  /**< the same for an up role that permutes its inputs */
    FERRUM_CPU_SCRATCH_GATHER_MID, /**< the same between the two halves of an FFN */
    FERRUM_CPU_SCRATCH_BUCKETS,    /**< buckets of a product, twice for an FFN */
    FERRUM_CPU_SCRATCH_OFFSETS,    /**< where packed rows lie */
    FERRUM_CPU_SCRATCH_COUNTS,     /**< counters per expert, marks per row, pair lists */
    FERRUM_CPU_SCRATCH_UNITS,      /**< FFN: its plan of work */
    FERRUM_CPU_SCRATCH_HIDDEN,     /**< FFN: activated rows */
    FERRUM_CPU_SCRATCH_DOWN,       /**< FFN: rows before they are combined */
    FERRUM_CPU_SCRATCH_THREADS,    /**< per thread: attention scores, router scores */
    FERRUM_CPU_SCRATCH_KINDS
} ferrum_cpu_scratch_t;

struct ferrum_context {
    ferrum_device_t *device;
    const ferrum_executor_t *executor; /**< NULL: the calling thread alone */
    uint32_t width;
    ferrum_cpu_memory_t scratch[FERRUM_CPU_SCRATCH_KINDS];
    ferrum_context_stats_t stats;
};

/** Take @p bytes (any number) aligned to a cache line; OUT_OF_MEMORY names @p what. */
ferrum_status_t ferrum_cpu_alloc(const ferrum_device_t *device, uint64_t bytes, const char *what,
                                 ferrum_cpu_memory_t *out_memory, ferrum_error_t *err);
/** Give a block back and forget it. */
void ferrum_cpu_free(const ferrum_device_t *device, ferrum_cpu_memory_t *memory);

/** An object of @p bytes zeroed, with one reference to @p device; NULL when memory ran out. */
void *ferrum_cpu_object_new(ferrum_device_t *device, size_t bytes, const char *what,
                            ferrum_error_t *err);
/** Free such an object, then drop its device reference. */
void ferrum_cpu_object_free(ferrum_device_t *device, void *object, size_t bytes);

/**
 * At least @p count elements of scratch, contents undefined, valid until the next request of the
 * same kind. NULL (and @p err filled) when memory ran out; then the old block is still there.
 */
void *ferrum_cpu_scratch(ferrum_context_t *ctx, ferrum_cpu_scratch_t kind, uint64_t count,
                         size_t element_bytes, ferrum_error_t *err);

/** One more reference. */
static inline void ferrum_cpu_ref(atomic_uint *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/** One reference less; true for the last one, whose holder frees the object. */
static inline bool ferrum_cpu_unref(atomic_uint *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

static inline float *ferrum_cpu_f32(const ferrum_buffer_t *buffer)
{
    return (float *)buffer->data;
}

static inline int32_t *ferrum_cpu_i32(const ferrum_buffer_t *buffer)
{
    return (int32_t *)buffer->data;
}

static inline uint32_t *ferrum_cpu_u32(const ferrum_buffer_t *buffer)
{
    return (uint32_t *)buffer->data;
}

/** The vector operations that a context's device uses. */
static inline const ferrum_vector_ops_t *ferrum_cpu_vector(const ferrum_context_t *ctx)
{
    return &ctx->device->kernels->vector;
}

#endif /* FERRUM_CPU_OBJECTS_H */
