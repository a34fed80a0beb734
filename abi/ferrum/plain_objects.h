/* SPDX-License-Identifier: MIT */
/**
 * @file plain_objects.h
 * @brief Devices, contexts and buffers in the host's memory, ready made: the 17 mandatory entries
 * of ferrum_backend_ops_t but device_info, for backends that compute on the processor and for the
 * first version of any other. Optional, inline: not part of the binary ABI.
 *
 * A plugin includes this header in one file, says FERRUM_PLAIN_OBJECTS in its table, and is left
 * with what is its own:
 *
 *     static const ferrum_backend_ops_t ops = {FERRUM_HEAD(ferrum_backend_ops_t),
 *                                              FERRUM_PLAIN_OBJECTS(device_info),
 *                                              .add_inplace = add_inplace};
 *
 * There is one device, number 0, with f32 activations. Work is done when a call returns, so that
 * there is nothing to wait for. Every range is checked before anything is written; memory comes
 * from the host's allocator; objects keep their parents alive. A backend with memory of its own
 * replaces the entries one by one.
 */
#ifndef FERRUM_PLAIN_OBJECTS_H
#define FERRUM_PLAIN_OBJECTS_H

#include <ferrum/backend.h>
#include <ferrum/util.h>

#include <string.h>

/** The one device. */
struct ferrum_device {
    uint32_t refs;
    const ferrum_host_t *host;
};

/** A context; @p executor is NULL where the calling thread is all there is. */
struct ferrum_context {
    ferrum_device_t *device;
    const ferrum_executor_t *executor;
};

/** A buffer; its data lie behind it, at a multiple of 64 bytes. */
struct ferrum_buffer {
    uint32_t refs;
    ferrum_dtype_t dtype;
    ferrum_device_t *device;
    uint64_t count;
    unsigned char *data;
};

/** @p bytes of the host's memory, zeroed; NULL: OUT_OF_MEMORY, and @p err says so. [any-thread] */
static inline void *ferrum_plain_alloc(const ferrum_host_t *host, uint64_t bytes,
                                       ferrum_error_t *err)
{
    void *block = NULL;
    if (bytes <= SIZE_MAX)
        block = host->allocator->alloc(host->allocator->self, (size_t)bytes, 64);
    if (!block)
        (void)ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE, "no memory for %llu bytes",
                          (unsigned long long)bytes);
    return block ? memset(block, 0, (size_t)bytes) : NULL;
}

/** Give back @p block, of as many bytes as were asked for. [any-thread] */
static inline void ferrum_plain_free(const ferrum_host_t *host, void *block, uint64_t bytes)
{
    host->allocator->free(host->allocator->self, block, (size_t)bytes);
}

/** One reference more, or less; ferrum_plain_unref() tells whether it was the last. [any-thread] */
static inline void ferrum_plain_ref(uint32_t *refs)
{
    (void)__atomic_fetch_add(refs, 1, __ATOMIC_RELAXED);
}
static inline bool ferrum_plain_unref(uint32_t *refs)
{
    return __atomic_fetch_sub(refs, 1, __ATOMIC_ACQ_REL) == 1;
}

/**
 * Answer a question for a struct: copy @p full, of @p bytes, as far as the asking side's @p out
 * goes, whose head says how much that is. [any-thread]
 */
static inline ferrum_status_t ferrum_plain_answer(void *out, const void *full, size_t bytes)
{
    uint32_t size; /* the first field of every head */
    memcpy(&size, out, sizeof size);
    size = size < bytes ? size : (uint32_t)bytes;
    memcpy(out, full, size);
    memcpy(out, &size, sizeof size);
    return FERRUM_OK;
}

/**
 * The address of `buffer[offset .. offset + count)`, what every op asks for first, of each of its
 * buffers; NULL: INVALID_ARGUMENT, and @p err says why. [any-thread]
 */
static inline void *ferrum_plain_range(const ferrum_buffer_t *buffer, ferrum_dtype_t dtype,
                                       uint64_t offset, uint64_t count, ferrum_error_t *err)
{
    if (buffer && buffer->dtype == dtype && offset <= buffer->count &&
        count <= buffer->count - offset)
        return buffer->data + offset * ferrum_dtype_bytes(dtype);
    if (!buffer || buffer->dtype != dtype)
        (void)ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                          "a %s buffer is needed, this one is %s", ferrum_dtype_name(dtype),
                          buffer ? ferrum_dtype_name(buffer->dtype) : "NULL");
    else
        (void)ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                          "%llu elements from %llu on exceed the buffer's %llu",
                          (unsigned long long)count, (unsigned long long)offset,
                          (unsigned long long)buffer->count);
    return NULL;
}

/* ---- the entries; backend.h says what each promises ---- */

/** One device, number 0, with f32 activations. */
static inline ferrum_status_t ferrum_plain_device_open(const ferrum_host_t *host,
                                                       const ferrum_device_options_t *options,
                                                       ferrum_device_t **out_device,
                                                       ferrum_error_t *err)
{
    if (options && options->ordinal != 0)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NO_DEVICE,
                           "there is device 0 only, not %u", options->ordinal);
    if (options && options->set_activation_dtype && options->activation_dtype != FERRUM_DTYPE_F32)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                           "activations are f32 only, not %s",
                           ferrum_dtype_name(options->activation_dtype));
    ferrum_device_t *device =
        (ferrum_device_t *)ferrum_plain_alloc(host, sizeof(ferrum_device_t), err);
    if (!device)
        return FERRUM_OUT_OF_MEMORY;
    device->refs = 1;
    device->host = host;
    *out_device = device;
    return FERRUM_OK;
}

static inline void ferrum_plain_device_retain(ferrum_device_t *device)
{
    ferrum_plain_ref(&device->refs);
}

static inline void ferrum_plain_device_release(ferrum_device_t *device)
{
    if (device && ferrum_plain_unref(&device->refs))
        ferrum_plain_free(device->host, device, sizeof *device);
}

static inline ferrum_status_t ferrum_plain_context_new(ferrum_device_t *device,
                                                       const ferrum_executor_t *executor,
                                                       ferrum_context_t **out_context,
                                                       ferrum_error_t *err)
{
    ferrum_context_t *ctx =
        (ferrum_context_t *)ferrum_plain_alloc(device->host, sizeof(ferrum_context_t), err);
    if (!ctx)
        return FERRUM_OUT_OF_MEMORY;
    ferrum_plain_device_retain(device);
    ctx->device = device;
    ctx->executor = executor;
    *out_context = ctx;
    return FERRUM_OK;
}

static inline void ferrum_plain_context_free(ferrum_context_t *ctx)
{
    if (!ctx)
        return;
    ferrum_device_t *device = ctx->device;
    ferrum_plain_free(device->host, ctx, sizeof *ctx);
    ferrum_plain_device_release(device); /* last, it may free the device */
}

/** Nothing is ever pending. */
static inline ferrum_status_t ferrum_plain_context_sync(ferrum_context_t *ctx, ferrum_error_t *err)
{
    (void)ctx;
    (void)err;
    return FERRUM_OK;
}

/** Bytes in front of a buffer's data. */
enum {
    FERRUM_PLAIN_BUFFER_BYTES = (sizeof(struct ferrum_buffer) + 63) / 64 * 64
};

static inline ferrum_status_t ferrum_plain_buffer_alloc(ferrum_device_t *device,
                                                        ferrum_dtype_t dtype, uint64_t count,
                                                        ferrum_buffer_t **out_buffer,
                                                        ferrum_error_t *err)
{
    uint64_t bytes;
    if (ferrum_dtype_bytes(dtype) == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE, "unknown dtype %u",
                           dtype);
    if (!ferrum_mul_u64(count, ferrum_dtype_bytes(dtype), &bytes) ||
        !ferrum_add_u64(bytes, FERRUM_PLAIN_BUFFER_BYTES, &bytes))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%llu elements are too many", (unsigned long long)count);
    ferrum_buffer_t *buffer = (ferrum_buffer_t *)ferrum_plain_alloc(device->host, bytes, err);
    if (!buffer)
        return FERRUM_OUT_OF_MEMORY;
    ferrum_plain_device_retain(device);
    buffer->refs = 1;
    buffer->dtype = dtype;
    buffer->device = device;
    buffer->count = count;
    buffer->data = (unsigned char *)buffer + FERRUM_PLAIN_BUFFER_BYTES;
    *out_buffer = buffer;
    return FERRUM_OK;
}

static inline void ferrum_plain_buffer_retain(ferrum_buffer_t *buffer)
{
    ferrum_plain_ref(&buffer->refs);
}

static inline void ferrum_plain_buffer_release(ferrum_buffer_t *buffer)
{
    if (!buffer || !ferrum_plain_unref(&buffer->refs))
        return;
    ferrum_device_t *device = buffer->device;
    ferrum_plain_free(device->host, buffer,
                      FERRUM_PLAIN_BUFFER_BYTES +
                          buffer->count * ferrum_dtype_bytes(buffer->dtype));
    ferrum_plain_device_release(device);
}

static inline ferrum_status_t ferrum_plain_buffer_info(const ferrum_buffer_t *buffer,
                                                       ferrum_buffer_info_t *out_info,
                                                       ferrum_error_t *err)
{
    const ferrum_buffer_info_t info = {FERRUM_HEAD(ferrum_buffer_info_t), buffer->dtype, 0,
                                       buffer->count, buffer->data};
    (void)err;
    return ferrum_plain_answer(out_info, &info, sizeof info);
}

static inline ferrum_status_t ferrum_plain_buffer_write(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                                        uint64_t dst_offset, ferrum_dtype_t dtype,
                                                        const void *src, uint64_t count,
                                                        ferrum_error_t *err)
{
    void *to = ferrum_plain_range(dst, dtype, dst_offset, count, err);
    (void)ctx;
    if (to && count)
        memcpy(to, src, (size_t)count * ferrum_dtype_bytes(dtype));
    return to ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;
}

static inline ferrum_status_t ferrum_plain_buffer_write_f32(ferrum_context_t *ctx,
                                                            ferrum_buffer_t *dst,
                                                            uint64_t dst_offset, const float *src,
                                                            uint64_t count, ferrum_error_t *err)
{
    return ferrum_plain_buffer_write(ctx, dst, dst_offset, FERRUM_DTYPE_F32, src, count, err);
}

static inline ferrum_status_t
ferrum_plain_buffer_read(ferrum_context_t *ctx, const ferrum_buffer_t *src, uint64_t src_offset,
                         ferrum_dtype_t dtype, void *out_dst, uint64_t count, ferrum_error_t *err)
{
    const void *from = ferrum_plain_range(src, dtype, src_offset, count, err);
    (void)ctx;
    if (from && count)
        memcpy(out_dst, from, (size_t)count * ferrum_dtype_bytes(dtype));
    return from ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;
}

static inline ferrum_status_t ferrum_plain_buffer_read_f32(ferrum_context_t *ctx,
                                                           const ferrum_buffer_t *src,
                                                           uint64_t src_offset, float *out_dst,
                                                           uint64_t count, ferrum_error_t *err)
{
    return ferrum_plain_buffer_read(ctx, src, src_offset, FERRUM_DTYPE_F32, out_dst, count, err);
}

static inline ferrum_status_t ferrum_plain_buffer_zero(ferrum_context_t *ctx,
                                                       ferrum_buffer_t *buffer, uint64_t offset,
                                                       uint64_t count, ferrum_error_t *err)
{
    ferrum_dtype_t dtype = buffer ? buffer->dtype : (ferrum_dtype_t)FERRUM_DTYPE_F32;
    void *to = ferrum_plain_range(buffer, dtype, offset, count, err);
    (void)ctx;
    if (to)
        memset(to, 0, (size_t)count * ferrum_dtype_bytes(dtype));
    return to ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;
}

static inline ferrum_status_t ferrum_plain_buffer_copy(ferrum_context_t *ctx,
                                                       const ferrum_buffer_t *src,
                                                       uint64_t src_offset, ferrum_buffer_t *dst,
                                                       uint64_t dst_offset, uint64_t count,
                                                       ferrum_error_t *err)
{
    ferrum_dtype_t dtype = src ? src->dtype : (ferrum_dtype_t)FERRUM_DTYPE_F32;
    const void *from = ferrum_plain_range(src, dtype, src_offset, count, err);
    return from ? ferrum_plain_buffer_write(ctx, dst, dst_offset, dtype, from, count, err)
                : FERRUM_INVALID_ARGUMENT;
}

/** The entries, for a table; @p device_info_entry is the plugin's own: it names the device. */
#define FERRUM_PLAIN_OBJECTS(device_info_entry)                                                    \
    .device_open = ferrum_plain_device_open, .device_retain = ferrum_plain_device_retain,          \
    .device_release = ferrum_plain_device_release, .device_info = device_info_entry,               \
    .context_new = ferrum_plain_context_new, .context_free = ferrum_plain_context_free,            \
    .context_sync = ferrum_plain_context_sync, .buffer_alloc = ferrum_plain_buffer_alloc,          \
    .buffer_retain = ferrum_plain_buffer_retain, .buffer_release = ferrum_plain_buffer_release,    \
    .buffer_info = ferrum_plain_buffer_info, .buffer_write = ferrum_plain_buffer_write,            \
    .buffer_write_f32 = ferrum_plain_buffer_write_f32, .buffer_read = ferrum_plain_buffer_read,    \
    .buffer_read_f32 = ferrum_plain_buffer_read_f32, .buffer_zero = ferrum_plain_buffer_zero,      \
    .buffer_copy = ferrum_plain_buffer_copy

#endif /* FERRUM_PLAIN_OBJECTS_H */
