/* SPDX-License-Identifier: MIT */
/* A small backend that computes one thing, add_inplace: what each of the 17 mandatory entries
 * needs. cc -shared -fPIC -fvisibility=hidden $(pkg-config --cflags ferrum) sample.c -o sample.so
 *     ferrum check-plugin sample.so */
#include <ferrum/backend.h>
#include <ferrum/plugin.h>
#include <ferrum/util.h>

#include <stdatomic.h>
#include <string.h>

/* Device, context and buffer in one: each counts references and keeps its parent alive. */
typedef struct object {
    atomic_uint refs;
    ferrum_dtype_t dtype;
    const ferrum_host_t *host;
    struct object *parent;
    uint64_t count, bytes; /* of the data behind the struct; bytes of all */
    double data[];
} object_t;

static ferrum_status_t make(const ferrum_host_t *host, void *parent, ferrum_dtype_t dtype,
                            uint64_t count, void *out, ferrum_error_t *err)
{
    uint64_t bytes;
    if (ferrum_dtype_bytes(dtype) == 0 ||
        !ferrum_mul_u64(count, ferrum_dtype_bytes(dtype), &bytes) ||
        !ferrum_add_u64(bytes, sizeof(object_t), &bytes))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_DTYPE,
                           "sample: no buffer of %llu elements of dtype %u",
                           (unsigned long long)count, dtype);
    object_t *object = host->allocator->alloc(host->allocator->self, bytes, 64);
    if (!object)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "sample: no memory for %llu bytes", (unsigned long long)bytes);
    memset(object, 0, bytes);
    atomic_init(&object->refs, 1);
    object->dtype = dtype, object->host = host, object->parent = parent, object->count = count,
    object->bytes = bytes;
    if (parent)
        atomic_fetch_add(&((object_t *)parent)->refs, 1);
    memcpy(out, &object, sizeof object);
    return FERRUM_OK;
}

static void release(void *handle)
{
    object_t *object = handle;
    while (object && atomic_fetch_sub(&object->refs, 1) == 1) {
        object_t *parent = object->parent;
        object->host->allocator->free(object->host->allocator->self, object, object->bytes);
        object = parent;
    }
}
static void retain(void *handle)
{
    atomic_fetch_add(&((object_t *)handle)->refs, 1);
}
static void device_retain(ferrum_device_t *d)
{
    retain(d);
}
static void device_release(ferrum_device_t *d)
{
    release(d);
}
static void context_free(ferrum_context_t *c)
{
    release(c);
}
static void buffer_retain(ferrum_buffer_t *b)
{
    retain(b);
}
static void buffer_release(ferrum_buffer_t *b)
{
    release(b);
}

static ferrum_status_t device_open(const ferrum_host_t *host,
                                   const ferrum_device_options_t *options,
                                   ferrum_device_t **out_device, ferrum_error_t *err)
{
    if (options && options->ordinal != 0)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_NO_DEVICE,
                           "sample has device 0 only");
    if (options && options->set_activation_dtype && options->activation_dtype != FERRUM_DTYPE_F32)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                           "sample computes in f32 only");
    return make(host, NULL, FERRUM_DTYPE_U8, 0, out_device, err);
}

/* The caller's struct may be smaller than ours: copy what fits. */
static ferrum_status_t fill(void *out, const void *full, uint32_t size)
{
    uint32_t theirs = ((ferrum_head_t *)out)->size, n = theirs < size ? theirs : size;
    memcpy(out, full, n);
    ((ferrum_head_t *)out)->size = n;
    return FERRUM_OK;
}
static ferrum_status_t device_info(const ferrum_device_t *device, ferrum_device_info_t *out_info,
                                   ferrum_error_t *err)
{
    const ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t),
                                       .activation_dtype = FERRUM_DTYPE_F32,
                                       .name = "sample",
                                       .detail = "plain loops"};
    return fill(out_info, &info, sizeof info);
}
static ferrum_status_t context_new(ferrum_device_t *device, const ferrum_executor_t *executor,
                                   ferrum_context_t **out_context, ferrum_error_t *err)
{
    return make(((object_t *)device)->host, device, FERRUM_DTYPE_U8, 0, out_context, err);
}
static ferrum_status_t context_sync(ferrum_context_t *ctx, ferrum_error_t *err)
{
    return FERRUM_OK;
}

static ferrum_status_t buffer_alloc(ferrum_device_t *device, ferrum_dtype_t dtype, uint64_t count,
                                    ferrum_buffer_t **out_buffer, ferrum_error_t *err)
{
    return make(((object_t *)device)->host, device, dtype, count, out_buffer, err);
}
static ferrum_status_t buffer_info(const ferrum_buffer_t *buffer, ferrum_buffer_info_t *out_info,
                                   ferrum_error_t *err)
{
    const object_t *b = (const object_t *)buffer;
    const ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t),
                                       .dtype = b->dtype,
                                       .count = b->count,
                                       .host_ptr = (void *)(uintptr_t)b->data};
    return fill(out_info, &info, sizeof info);
}

/* Address of `buffer[offset .. +count)`, or NULL: the one check that everything shares. */
static void *at(const ferrum_buffer_t *buffer, ferrum_dtype_t dtype, uint64_t offset,
                uint64_t count, ferrum_error_t *err)
{
    const object_t *b = (const object_t *)buffer;
    if (b && b->dtype == dtype && offset <= b->count && count <= b->count - offset)
        return (char *)(uintptr_t)b->data + offset * ferrum_dtype_bytes(dtype);
    (void)ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                      "sample: needs a %s buffer with %llu elements from %llu on",
                      ferrum_dtype_name(dtype), (unsigned long long)count,
                      (unsigned long long)offset);
    return NULL;
}

static ferrum_dtype_t dtype_of(const ferrum_buffer_t *buffer)
{
    return buffer ? ((const object_t *)buffer)->dtype : FERRUM_DTYPE_F32;
}

static ferrum_status_t buffer_write(ferrum_context_t *ctx, ferrum_buffer_t *dst, uint64_t offset,
                                    ferrum_dtype_t dtype, const void *src, uint64_t count,
                                    ferrum_error_t *err)
{
    void *to = at(dst, dtype, offset, count, err);
    if (to && count)
        memcpy(to, src, count * ferrum_dtype_bytes(dtype));
    return to ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;
}

static ferrum_status_t buffer_write_f32(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                        uint64_t offset, const float *src, uint64_t count,
                                        ferrum_error_t *err)
{
    return buffer_write(ctx, dst, offset, FERRUM_DTYPE_F32, src, count, err);
}

static ferrum_status_t buffer_read(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                   uint64_t offset, ferrum_dtype_t dtype, void *out_dst,
                                   uint64_t count, ferrum_error_t *err)
{
    const void *from = at(src, dtype, offset, count, err);
    if (from && count)
        memcpy(out_dst, from, count * ferrum_dtype_bytes(dtype));
    return from ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;
}

static ferrum_status_t buffer_read_f32(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                       uint64_t offset, float *out_dst, uint64_t count,
                                       ferrum_error_t *err)
{
    return buffer_read(ctx, src, offset, FERRUM_DTYPE_F32, out_dst, count, err);
}

static ferrum_status_t buffer_zero(ferrum_context_t *ctx, ferrum_buffer_t *buffer, uint64_t offset,
                                   uint64_t count, ferrum_error_t *err)
{
    void *to = at(buffer, dtype_of(buffer), offset, count, err);
    if (to)
        memset(to, 0, count * ferrum_dtype_bytes(dtype_of(buffer)));
    return to ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;
}

static ferrum_status_t buffer_copy(ferrum_context_t *ctx, const ferrum_buffer_t *src,
                                   uint64_t src_offset, ferrum_buffer_t *dst, uint64_t dst_offset,
                                   uint64_t count, ferrum_error_t *err)
{
    const void *from = at(src, dtype_of(src), src_offset, count, err);
    return from ? buffer_write(ctx, dst, dst_offset, dtype_of(src), from, count, err)
                : FERRUM_INVALID_ARGUMENT;
}

/* The one thing it computes; the loader answers for everything else. */
static ferrum_status_t add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *r,
                                   const ferrum_buffer_t *x, uint64_t len, ferrum_error_t *err)
{
    float *to = at(r, FERRUM_DTYPE_F32, 0, len, err);
    const float *from = to ? at(x, FERRUM_DTYPE_F32, 0, len, err) : NULL;
    for (uint64_t i = 0; from && i < len; i++)
        to[i] += from[i];
    return from ? FERRUM_OK : FERRUM_INVALID_ARGUMENT;
}

static const void *get_interface(const char *id, uint32_t min_version)
{
    static const ferrum_backend_ops_t ops = {
        FERRUM_HEAD(ferrum_backend_ops_t), .device_open = device_open,
        .device_retain = device_retain,    .device_release = device_release,
        .device_info = device_info,        .context_new = context_new,
        .context_free = context_free,      .context_sync = context_sync,
        .buffer_alloc = buffer_alloc,      .buffer_retain = buffer_retain,
        .buffer_release = buffer_release,  .buffer_info = buffer_info,
        .buffer_write = buffer_write,      .buffer_write_f32 = buffer_write_f32,
        .buffer_read = buffer_read,        .buffer_read_f32 = buffer_read_f32,
        .buffer_zero = buffer_zero,        .buffer_copy = buffer_copy,
        .add_inplace = add_inplace,
    };
    return strcmp(id, FERRUM_INTERFACE_BACKEND) == 0 && min_version <= FERRUM_ABI_MINOR ? &ops
                                                                                        : NULL;
}
static ferrum_status_t probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                             ferrum_error_t *err)
{
    const ferrum_probe_t found = {.head = FERRUM_HEAD(ferrum_probe_t),
                                  .score = 1,
                                  .device_count = 1,
                                  .summary = "plain loops"};
    return fill(out_probe, &found, sizeof found);
}
ferrum_status_t ferrum_plugin_query_v1(const ferrum_host_t *host, ferrum_plugin_t *out_plugin)
{
    const ferrum_plugin_t plugin = {.head = FERRUM_HEAD(ferrum_plugin_t),
                                    .abi_minor = FERRUM_ABI_MINOR,
                                    .name = "sample",
                                    .version = "1.0",
                                    .description = "Adds",
                                    .license = "MIT",
                                    .probe = probe,
                                    .get_interface = get_interface};
    return fill(out_plugin, &plugin, sizeof plugin);
}
