/* SPDX-License-Identifier: MIT */
#include "tests/cuda/fixture.h"

#include "backends/cuda/driver_api.h"

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

const char *cuda_plugin_path(void)
{
    return plugin_path;
}

const char *cuda_driver_path(void)
{
    return driver_path;
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
    cuda.mf = cuda.plugin.get_interface(FERRUM_INTERFACE_MOE_FUSED, 0);
}

void cuda_open(void)
{
    cuda_open_as(FERRUM_DTYPE_F16);
}

void cuda_open_as(ferrum_dtype_t act)
{
    const ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t),
                                             .activation_dtype = act,
                                             .set_activation_dtype = 1};

    cuda_load();
    cuda.act = act;
    EXPECT_OK(cuda.be->device_open(&cuda.host.host, &options, &cuda.device, &err));
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

#define SYMBOL(name, symbol, parameters) #symbol,
static const char *const symbols[] = {FERRUM_CUDA_DRIVER_API(SYMBOL)};
#undef SYMBOL
enum {
    SYMBOLS = sizeof symbols / sizeof symbols[0]
};

/** How often each function of the driver was called. */
static void count_calls(uint64_t counts[SYMBOLS])
{
    for (size_t i = 0; i < SYMBOLS; i++)
        counts[i] = cuda.count(symbols[i]);
}

/** Nothing was called since @p before but @p allowed, and what makes the device current. */
static uint64_t expect_calls(const uint64_t before[SYMBOLS], const char *allowed)
{
    uint64_t now[SYMBOLS], calls = 0;

    count_calls(now);
    for (size_t i = 0; i < SYMBOLS; i++) {
        if (strcmp(symbols[i], allowed) == 0)
            calls = now[i] - before[i];
        else if (!strstr(symbols[i], "PushCurrent") && !strstr(symbols[i], "PopCurrent"))
            ck_assert_msg(now[i] == before[i], "%llu calls of %s in a steady step",
                          (unsigned long long)(now[i] - before[i]), symbols[i]);
    }
    return calls;
}

static ferrum_context_stats_t stats(void)
{
    ferrum_context_stats_t now = {.head = FERRUM_HEAD(ferrum_context_stats_t)};

    EXPECT_OK(cuda.be->context_stats(cuda.ctx, &now, &err));
    return now;
}

uint64_t cuda_steady(cuda_step_fn *step, void *arg, uint64_t most_launches)
{
    uint64_t calls[SYMBOLS];

    step(arg);
    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    ferrum_context_stats_t before = stats();
    count_calls(calls);
    step(arg);
    const uint64_t launches = expect_calls(calls, "cuLaunchKernel");
    const ferrum_context_stats_t after = stats();
    ck_assert_uint_le(launches, most_launches);
    before.launches += launches;
    ck_assert_mem_eq(&after, &before, sizeof after);
    EXPECT_OK(cuda.be->context_sync(cuda.ctx, &err));
    return launches;
}

void cuda_capture(cuda_step_fn *step, void *arg, uint64_t shape)
{
    const ferrum_graph_key_t key = {1, shape};

    EXPECT_OK(cuda.ql->graph_begin(cuda.ctx, &err));
    const ferrum_context_stats_t before = stats();
    step(arg);
    const ferrum_context_stats_t after = stats();
    ck_assert_mem_eq(&after, &before, sizeof after);
    EXPECT_OK(cuda.ql->graph_end(cuda.ctx, &key, &err));
}

void cuda_replay(uint64_t shape)
{
    const ferrum_graph_key_t key = {1, shape};
    uint32_t launched = 0;
    uint64_t calls[SYMBOLS];

    ferrum_context_stats_t before = stats();
    count_calls(calls);
    EXPECT_OK(cuda.ql->graph_replay(cuda.ctx, &key, &launched, &err));
    ck_assert_uint_eq(launched, 1);
    ck_assert_uint_eq(expect_calls(calls, "cuGraphLaunch"), 1);
    const ferrum_context_stats_t after = stats();
    before.graph_replays++;
    ck_assert_mem_eq(&after, &before, sizeof after);
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
    return ramp(cuda.act, n, base, step);
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
