/* SPDX-License-Identifier: MIT */
/*
 * A whole backend: it computes two things, on the processor and in f32. Everything else is refused
 * with a reason, and not by this file: the loader answers for entries that a table leaves out.
 *
 *     cc -shared -fPIC -fvisibility=hidden $(pkg-config --cflags ferrum) sample.c -o sample.so
 *     ferrum check-plugin sample.so
 *     FERRUM_PLUGIN_PATH=$PWD ferrum info
 */
#include <ferrum/backend.h>
#include <ferrum/plain_objects.h>
#include <ferrum/plugin.h>

static ferrum_status_t device_info(const ferrum_device_t *device, ferrum_device_info_t *out_info,
                                   ferrum_error_t *err)
{
    const ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t),
                                       .activation_dtype = FERRUM_DTYPE_F32,
                                       .name = "sample",
                                       .detail = "plain loops"};
    return ferrum_plain_answer(out_info, &info, sizeof info);
}

/* ---- what it computes: look at every argument, then write ---- */

/* `r += x` */
static ferrum_status_t add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *r,
                                   const ferrum_buffer_t *x, uint64_t len, ferrum_error_t *err)
{
    float *to = ferrum_plain_range(r, FERRUM_DTYPE_F32, 0, len, err);
    const float *from = to ? ferrum_plain_range(x, FERRUM_DTYPE_F32, 0, len, err) : NULL;
    if (!from)
        return FERRUM_INVALID_ARGUMENT;
    for (uint64_t i = 0; i < len; i++)
        to[i] += from[i];
    return FERRUM_OK;
}

/* `dst += scale * src` */
static ferrum_status_t scaled_add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *dst,
                                          const ferrum_buffer_t *src, float scale, uint64_t len,
                                          ferrum_error_t *err)
{
    float *to = ferrum_plain_range(dst, FERRUM_DTYPE_F32, 0, len, err);
    const float *from = to ? ferrum_plain_range(src, FERRUM_DTYPE_F32, 0, len, err) : NULL;
    if (!from)
        return FERRUM_INVALID_ARGUMENT;
    for (uint64_t i = 0; i < len; i++)
        to[i] += scale * from[i];
    return FERRUM_OK;
}

/* ---- how the host finds it ---- */

static const void *get_interface(const char *id, uint32_t min_version)
{
    static const ferrum_backend_ops_t ops = {
        .head = FERRUM_HEAD(ferrum_backend_ops_t),
        FERRUM_PLAIN_OBJECTS(device_info),
        .add_inplace = add_inplace,
        .scaled_add_inplace = scaled_add_inplace,
    };
    bool known = strcmp(id, FERRUM_INTERFACE_BACKEND) == 0 && min_version <= FERRUM_ABI_MINOR;
    return known ? &ops : NULL;
}

/* Can it work on this machine, and how gladly should `auto` take it? */
static ferrum_status_t probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                             ferrum_error_t *err)
{
    const ferrum_probe_t found = {.head = FERRUM_HEAD(ferrum_probe_t),
                                  .score = 1,
                                  .device_count = 1,
                                  .summary = "plain loops"};
    return ferrum_plain_answer(out_probe, &found, sizeof found);
}

/* The one exported symbol. The name is that of the file, without .so. */
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
    return ferrum_plain_answer(out_plugin, &plugin, sizeof plugin);
}
