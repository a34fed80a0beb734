/* SPDX-License-Identifier: MIT */
/*
 * A host of whichever minor its headers and loader are: open the plugin, use a device, print what
 * came of it. tests/abi/minors.sh builds it for this minor and for the next one and lets both open
 * plugins of both.
 */
#include <ferrum/loader.h>
#include <ferrum/util.h>

#include <inttypes.h>
#include <string.h>

enum {
    ROWS = 3,
    DIM = 48
};

static int fail(const char *what, const ferrum_error_t *err)
{
    printf("%s: %d: %s\n", what, err->status, err->message);
    return 1;
}

/* The bits of a result, as one number. */
static uint64_t hash_floats(const float *values, size_t count)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3u;
    }
    return hash;
}

static ferrum_status_t compute(const ferrum_backend_ops_t *be, ferrum_device_t *device,
                               ferrum_context_t *ctx, ferrum_error_t *err)
{
    ferrum_buffer_t *x = NULL, *out = NULL;
    float values[ROWS * DIM];
    for (int i = 0; i < ROWS * DIM; i++)
        values[i] = (float)(i % 11) / 8;
    ferrum_status_t status = be->buffer_alloc(device, FERRUM_DTYPE_F32, ROWS * DIM, &x, err);
    if (status == FERRUM_OK)
        status = be->buffer_alloc(device, FERRUM_DTYPE_F32, ROWS * DIM, &out, err);
    if (status == FERRUM_OK)
        status = be->buffer_write_f32(ctx, x, 0, values, ROWS * DIM, err);
    if (status == FERRUM_OK)
        status = be->rms_norm(ctx, x, x, 1e-5F, out, ROWS, DIM, err);
    if (status == FERRUM_OK)
        status = be->buffer_read_f32(ctx, out, 0, values, ROWS * DIM, err);
    printf("rms_norm status %d, bits %016" PRIx64 "\n", status, hash_floats(values, ROWS * DIM));
    be->buffer_release(x);
    be->buffer_release(out);
    return status == FERRUM_UNSUPPORTED ? FERRUM_OK : status;
}

static int use(const ferrum_module_t *module)
{
    const ferrum_backend_ops_t *be = ferrum_module_backend(module);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t)};
    ferrum_device_t *device;
    ferrum_context_t *ctx = NULL;
    if (be->device_open(ferrum_module_host(module), NULL, &device, &err) != FERRUM_OK)
        return fail("device_open", &err);
    ferrum_status_t status = be->device_info(device, &info, &err);
    if (status == FERRUM_OK)
        status = be->context_new(device, NULL, &ctx, &err);
    if (status == FERRUM_OK)
        status = compute(be, device, ctx, &err);
    be->context_free(ctx);
    be->device_release(device);
    return status == FERRUM_OK ? 0 : fail("device", &err);
}

int main(int argc, char **argv)
{
    static const char *const how[] = {"native", "composed", "stub"};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_loader_t *loader;
    ferrum_module_t *module;
    ferrum_unload_report_t report;
    if (argc != 2 || ferrum_loader_new(NULL, NULL, NULL, &loader, &err) != FERRUM_OK)
        return 2;
    if (ferrum_loader_open(loader, argv[1], &module, &err) != FERRUM_OK)
        return fail("open", &err);
    const ferrum_candidate_t *facts = ferrum_module_candidate(module);
    printf("host minor %u, plugin %s minor %u\n", FERRUM_ABI_MINOR, facts->name, facts->abi_minor);
    printf("added_in_next_minor is %s\n",
           how[ferrum_module_op_resolution(module, "backend", "added_in_next_minor")]);
    int rc = use(module);
    ferrum_module_release(module, &report);
    ferrum_loader_free(loader);
    printf("%s\n", report.detail);
    return rc ? rc : !report.unloaded;
}
