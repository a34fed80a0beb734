/* SPDX-License-Identifier: MIT */
/*
 * metal-stub: the least that a Ferrum backend can be, and the skeleton to start a new one from.
 *
 * Devices, contexts and buffers live; nothing computes. Every entry that a table leaves out is
 * answered by the loader: FERRUM_UNSUPPORTED, with a message that names the entry. To make a
 * backend of it, give it a name, fill in entries one by one, and run the conformance suite after
 * each: docs/writing-a-backend.md walks through it.
 *
 * What every backend keeps to: memory comes from host->allocator; no threads, no printing, no
 * getenv, no global state that changes. That is why a plugin can be unloaded again.
 */
#include <ferrum/backend.h>
#include <ferrum/moe_fused.h>
#include <ferrum/plugin.h>
#include <ferrum/quant_llm.h>
#include <ferrum/util.h>

#include <stdatomic.h>
#include <string.h>

/* ---- objects: each holds a reference on its parent ---- */

struct ferrum_device {
    atomic_uint refs;
    const ferrum_host_t *host;
};

struct ferrum_context {
    ferrum_device_t *device;
};

struct ferrum_buffer {
    atomic_uint refs;
    ferrum_dtype_t dtype;
    ferrum_device_t *device;
    uint64_t count;
    uint64_t bytes;
    unsigned char *data; /* a GPU backend keeps a device address here */
};

static ferrum_status_t fail_memory(ferrum_error_t *err, uint64_t bytes)
{
    return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                       "metal-stub: no memory for %llu bytes", (unsigned long long)bytes);
}

static void *alloc_zeroed(const ferrum_host_t *host, size_t bytes)
{
    void *block = host->allocator->alloc(host->allocator->self, bytes, 64);
    return block ? memset(block, 0, bytes) : NULL;
}

/* ---- devices and contexts ---- */

static ferrum_status_t device_open(const ferrum_host_t *host,
                                   const ferrum_device_options_t *options,
                                   ferrum_device_t **out_device, ferrum_error_t *err)
{
    if (options && options->ordinal != 0)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NO_DEVICE,
                           "metal-stub has device 0 only, not %u", options->ordinal);
    if (options && options->set_activation_dtype && options->activation_dtype != FERRUM_DTYPE_F32)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                           "metal-stub has f32 activations only, not %s",
                           ferrum_dtype_name(options->activation_dtype));
    ferrum_device_t *device = alloc_zeroed(host, sizeof *device);
    if (!device)
        return fail_memory(err, sizeof *device);
    atomic_init(&device->refs, 1);
    device->host = host;
    *out_device = device;
    return FERRUM_OK;
}

static void device_retain(ferrum_device_t *device)
{
    atomic_fetch_add(&device->refs, 1);
}

static void device_release(ferrum_device_t *device)
{
    if (device && atomic_fetch_sub(&device->refs, 1) == 1) {
        const ferrum_allocator_t *allocator = device->host->allocator;
        allocator->free(allocator->self, device, sizeof *device);
    }
}

static ferrum_status_t device_info(const ferrum_device_t *device, ferrum_device_info_t *out_info,
                                   ferrum_error_t *err)
{
    /* The caller's struct may be smaller than ours: fill our own, copy what fits. */
    ferrum_device_info_t info = {.head = {out_info->head.size, FERRUM_ABI_MINOR},
                                 .activation_dtype = FERRUM_DTYPE_F32,
                                 .name = "metal-stub",
                                 .detail = "computes nothing"};
    memcpy(out_info, &info, info.head.size < sizeof info ? info.head.size : sizeof info);
    return FERRUM_OK;
}

static ferrum_status_t context_new(ferrum_device_t *device, const ferrum_executor_t *executor,
                                   ferrum_context_t **out_context, ferrum_error_t *err)
{
    ferrum_context_t *ctx = alloc_zeroed(device->host, sizeof *ctx);
    if (!ctx)
        return fail_memory(err, sizeof *ctx);
    device_retain(device);
    ctx->device = device;
    *out_context = ctx;
    return FERRUM_OK;
}

static void context_free(ferrum_context_t *ctx)
{
    if (!ctx)
        return;
    ferrum_device_t *device = ctx->device;
    device->host->allocator->free(device->host->allocator->self, ctx, sizeof *ctx);
    device_release(device); /* last, it may free the device */
}

static ferrum_status_t context_sync(ferrum_context_t *ctx, ferrum_error_t *err)
{
    return FERRUM_OK; /* nothing is ever pending */
}

/* ---- buffers: typed memory, every range checked ---- */

static ferrum_status_t buffer_alloc(ferrum_device_t *device, ferrum_dtype_t dtype, uint64_t count,
                                    ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    uint64_t bytes;
    if (ferrum_dtype_bytes(dtype) == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "metal-stub: unknown dtype %u", dtype);
    if (!ferrum_mul_u64(count, ferrum_dtype_bytes(dtype), &bytes) ||
        bytes > SIZE_MAX - sizeof(ferrum_buffer_t))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "metal-stub: %llu elements are too many", (unsigned long long)count);
    ferrum_buffer_t *buffer = alloc_zeroed(device->host, sizeof *buffer + (size_t)bytes);
    if (!buffer)
        return fail_memory(err, bytes);
    device_retain(device);
    atomic_init(&buffer->refs, 1);
    buffer->device = device;
    buffer->dtype = dtype;
    buffer->count = count;
    buffer->bytes = bytes;
    buffer->data = (unsigned char *)(buffer + 1);
    *out_buffer = buffer;
    return FERRUM_OK;
}

static void buffer_retain(ferrum_buffer_t *buffer)
{
    atomic_fetch_add(&buffer->refs, 1);
}

static void buffer_release(ferrum_buffer_t *buffer)
{
    if (buffer && atomic_fetch_sub(&buffer->refs, 1) == 1) {
        ferrum_device_t *device = buffer->device;
        device->host->allocator->free(device->host->allocator->self, buffer,
                                      sizeof *buffer + (size_t)buffer->bytes);
        device_release(device);
    }
}

static ferrum_status_t buffer_info(const ferrum_buffer_t *buffer, ferrum_buffer_info_t *out_info,
                                   ferrum_error_t *err)
{
    ferrum_buffer_info_t info = {.head = {out_info->head.size, FERRUM_ABI_MINOR},
                                 .dtype = buffer->dtype,
                                 .count = buffer->count,
                                 .host_ptr = buffer->data};
    memcpy(out_info, &info, info.head.size < sizeof info ? info.head.size : sizeof info);
    return FERRUM_OK;
}

/* Address of `buffer[offset .. +count)` in *out; the one check that all transfers share. */
static ferrum_status_t range_of(const ferrum_buffer_t *buffer, ferrum_dtype_t dtype,
                                uint64_t offset, uint64_t count, unsigned char **out,
                                ferrum_error_t *err)
{
    if (!buffer || buffer->dtype != dtype)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "metal-stub: a %s buffer is needed, this one is %s",
                           ferrum_dtype_name(dtype),
                           buffer ? ferrum_dtype_name(buffer->dtype) : "NULL");
    if (offset > buffer->count || count > buffer->count - offset)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "metal-stub: %llu elements from %llu on exceed the buffer's %llu",
                           (unsigned long long)count, (unsigned long long)offset,
                           (unsigned long long)buffer->count);
    *out = buffer->data + offset * ferrum_dtype_bytes(dtype);
    return FERRUM_OK;
}

static ferrum_status_t buffer_write(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                    uint64_t dst_offset, ferrum_dtype_t dtype, const void *src,
                                    uint64_t count, ferrum_error_t *err)
{
    unsigned char *to = NULL;
    FERRUM_TRY(range_of(dst, dtype, dst_offset, count, &to, err));
    if (count)
        memcpy(to, src, (size_t)count * ferrum_dtype_bytes(dtype));
    return FERRUM_OK;
}

static ferrum_status_t buffer_write_f32(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                        uint64_t dst_offset, const float *src, uint64_t count,
                                        ferrum_error_t *err)
{
    return buffer_write(ctx, dst, dst_offset, FERRUM_DTYPE_F32, src, count, err);
}

static ferrum_status_t buffer_read(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                   uint64_t src_offset, ferrum_dtype_t dtype, void *out_dst,
                                   uint64_t count, ferrum_error_t *err)
{
    unsigned char *from = NULL;
    FERRUM_TRY(range_of(src, dtype, src_offset, count, &from, err));
    if (count)
        memcpy(out_dst, from, (size_t)count * ferrum_dtype_bytes(dtype));
    return FERRUM_OK;
}

static ferrum_status_t buffer_read_f32(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                       uint64_t src_offset, float *out_dst, uint64_t count,
                                       ferrum_error_t *err)
{
    return buffer_read(ctx, src, src_offset, FERRUM_DTYPE_F32, out_dst, count, err);
}

static ferrum_status_t buffer_zero(ferrum_context_t *ctx, ferrum_buffer_t *buffer, uint64_t offset,
                                   uint64_t count, ferrum_error_t *err)
{
    unsigned char *to = NULL;
    FERRUM_TRY(range_of(buffer, buffer ? buffer->dtype : 0, offset, count, &to, err));
    memset(to, 0, (size_t)count * ferrum_dtype_bytes(buffer->dtype));
    return FERRUM_OK;
}

static ferrum_status_t buffer_copy(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                   uint64_t src_offset, ferrum_buffer_t *dst, uint64_t dst_offset,
                                   uint64_t count, ferrum_error_t *err)
{
    unsigned char *from, *to;
    FERRUM_TRY(range_of(src, src ? src->dtype : 0, src_offset, count, &from, err));
    FERRUM_TRY(range_of(dst, src->dtype, dst_offset, count, &to, err));
    memcpy(to, from, (size_t)count * ferrum_dtype_bytes(src->dtype));
    return FERRUM_OK;
}

/* ---- what is not there ---- */

/* Asked before a loader or op is called. A real backend looks at the problem and refuses with the
 * reason that fits: FERRUM_REASON_BITS, FERRUM_REASON_GROUP_SIZE, ... */
static ferrum_status_t supports(ferrum_device_t *device, const ferrum_problem_t *problem,
                                ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                       "metal-stub computes nothing; choose another backend with FERRUM_BACKEND");
}

/* ---- the tables: an entry that is left out is NULL, and the loader answers for it ---- */

static const ferrum_backend_ops_t backend_ops = {
    .head = FERRUM_HEAD(ferrum_backend_ops_t),
    .device_open = device_open,
    .device_retain = device_retain,
    .device_release = device_release,
    .device_info = device_info,
    .context_new = context_new,
    .context_free = context_free,
    .context_sync = context_sync,
    .buffer_alloc = buffer_alloc,
    .buffer_retain = buffer_retain,
    .buffer_release = buffer_release,
    .buffer_info = buffer_info,
    .buffer_write = buffer_write,
    .buffer_write_f32 = buffer_write_f32,
    .buffer_read = buffer_read,
    .buffer_read_f32 = buffer_read_f32,
    .buffer_zero = buffer_zero,
    .buffer_copy = buffer_copy,
};

static const ferrum_quant_llm_ops_t quant_llm_ops = {
    .head = FERRUM_HEAD(ferrum_quant_llm_ops_t),
    .supports = supports,
};

static const ferrum_moe_fused_ops_t moe_fused_ops = {
    .head = FERRUM_HEAD(ferrum_moe_fused_ops_t),
    .supports = supports,
};

static const void *get_interface(const char *id, uint32_t min_version)
{
    if (min_version > FERRUM_ABI_MINOR)
        return NULL; /* a host that wants more than this minor has */
    if (strcmp(id, FERRUM_INTERFACE_BACKEND) == 0)
        return &backend_ops;
    if (strcmp(id, FERRUM_INTERFACE_QUANT_LLM) == 0)
        return &quant_llm_ops;
    if (strcmp(id, FERRUM_INTERFACE_MOE_FUSED) == 0)
        return &moe_fused_ops;
    return NULL;
}

/* A score of 0 keeps it out of every choice; a real backend looks for its device here. */
static ferrum_status_t probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                             ferrum_error_t *err)
{
    static const char summary[] = "a skeleton for new backends, it computes nothing";
    out_probe->score = 0;
    out_probe->device_count = 1;
    memcpy(out_probe->summary, summary, sizeof summary);
    return FERRUM_OK;
}

ferrum_status_t ferrum_plugin_query_v1(const ferrum_host_t *host, ferrum_plugin_t *out_plugin)
{
    /* A host with a smaller struct than ours knows the first `size` bytes of it. */
    ferrum_plugin_t plugin = {
        .head = FERRUM_HEAD(ferrum_plugin_t),
        .abi_minor = FERRUM_ABI_MINOR,
        .abi_minor_min = 0,
        .name = "metal-stub",
        .version = "0.1.0",
        .description = "Skeleton of a backend: objects live, nothing computes",
        .license = "MIT",
        .probe = probe,
        .get_interface = get_interface,
    };
    if (out_plugin->head.size < FERRUM_PLUGIN_MIN_SIZE)
        return FERRUM_VERSION_MISMATCH;
    if (plugin.head.size > out_plugin->head.size)
        plugin.head.size = out_plugin->head.size;
    memcpy(out_plugin, &plugin, plugin.head.size);
    return FERRUM_OK;
}
