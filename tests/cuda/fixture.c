/* SPDX-License-Identifier: MIT */
#include "tests/cuda/fixture.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

cuda_fixture_t cuda;

static char plugin_path[1024], driver_path[1024];

static void find_paths(void)
{
    const char *build = getenv("FERRUM_TEST_BUILDDIR");

    (void)snprintf(plugin_path, sizeof plugin_path, "%s/backends/cuda/.libs/cuda.so",
                   build ? build : ".");
    (void)snprintf(driver_path, sizeof driver_path, "%s/tests/cuda_emu/.libs/libcuda-emu.so",
                   build ? build : ".");
}

bool cuda_built(void)
{
    find_paths();
    if (access(plugin_path, R_OK) == 0 && access(driver_path, R_OK) == 0)
        return true;
    puts("skipped: this build has no cuda backend (nvcc) or no emulated driver (g++)");
    return false;
}

static const char *option(void *self, const char *name)
{
    (void)self;
    return strcmp(name, "FERRUM_CUDA_DRIVER") == 0 ? cuda.driver : NULL;
}

static void symbol(void *library, const char *name, void *out_function)
{
    void *found = dlsym(library, name);
    ck_assert_msg(found != NULL, "no %s", name);
    memcpy(out_function, &found, sizeof found);
}

void cuda_load(void)
{
    ferrum_plugin_query_fn *query;
    void *plugin = dlopen(plugin_path, RTLD_NOW | RTLD_LOCAL);
    void *driver = dlopen(driver_path, RTLD_NOW | RTLD_LOCAL);

    ck_assert_msg(plugin && driver, "%s", dlerror());
    symbol(plugin, FERRUM_PLUGIN_SYMBOL, &query);
    symbol(driver, "ferrum_emu_reset", &cuda.reset);
    symbol(driver, "ferrum_emu_set", &cuda.set);
    symbol(driver, "ferrum_emu_count", &cuda.count);
    symbol(driver, "ferrum_emu_fault", &cuda.fault);
    test_host_init(&cuda.host);
    cuda.host.host.option = option;
    cuda.driver = driver_path;
    cuda.plugin.head.size = sizeof cuda.plugin;
    ck_assert_int_eq(query(&cuda.host.host, &cuda.plugin), FERRUM_OK);
    cuda.be = cuda.plugin.get_interface(FERRUM_INTERFACE_BACKEND, 0);
    cuda.ql = cuda.plugin.get_interface(FERRUM_INTERFACE_QUANT_LLM, 0);
}

void cuda_open(void)
{
    cuda_load();
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, NULL, &cuda.device, &err));
    EXPECT_OK(cuda.be->context_new(cuda.device, NULL, &cuda.ctx, &err));
}

void cuda_close(void)
{
    static const char *const kinds[] = {"memory", "streams", "events", "graphs"};

    cuda.be->context_free(cuda.ctx);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        ck_assert_msg(cuda.count(kinds[i]) == 0, "%llu of %s are left",
                      (unsigned long long)cuda.count(kinds[i]), kinds[i]);
    cuda.be->device_release(cuda.device);
    ck_assert_uint_eq(atomic_load(&cuda.host.live_blocks), 0);
    cuda.ctx = NULL;
    cuda.device = NULL;
}

static ferrum_buffer_t *ramp(ferrum_dtype_t dtype, uint64_t n, float base, float step)
{
    ferrum_buffer_t *buffer;
    float *values = calloc(n ? n : 1, sizeof *values);

    ck_assert_ptr_nonnull(values);
    for (uint64_t i = 0; i < n; i++)
        values[i] = base + (float)i * step;
    EXPECT_OK(cuda.be->buffer_alloc(cuda.device, dtype, n, &buffer, &err));
    EXPECT_OK(cuda.be->buffer_write_f32(cuda.ctx, buffer, 0, values, n, &err));
    free(values);
    return buffer;
}

ferrum_buffer_t *cuda_ramp(uint64_t n, float base, float step)
{
    return ramp(FERRUM_DTYPE_F16, n, base, step);
}

ferrum_buffer_t *cuda_f32(uint64_t n, float base, float step)
{
    return ramp(FERRUM_DTYPE_F32, n, base, step);
}

ferrum_buffer_t *cuda_i32(const int32_t *values, uint64_t n)
{
    ferrum_buffer_t *buffer;

    EXPECT_OK(cuda.be->buffer_alloc(cuda.device, FERRUM_DTYPE_I32, n, &buffer, &err));
    EXPECT_OK(cuda.be->buffer_write(cuda.ctx, buffer, 0, FERRUM_DTYPE_I32, values, n, &err));
    return buffer;
}

float cuda_at(ferrum_buffer_t *buffer, uint64_t index)
{
    float value;

    EXPECT_OK(cuda.be->buffer_read_f32(cuda.ctx, buffer, index, &value, 1, &err));
    return value;
}
