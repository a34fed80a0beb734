/* SPDX-License-Identifier: MIT */
/* Open, use, close, a thousand times in one process: no file, mapping, thread or byte left. */
#include "config.h"

#include "tests/loader/support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const plugins[] = {"metal-stub", "fixture", "fixture-thread", "cpu"};

/* An allocator that counts what it has given out. */
static size_t live_bytes, live_blocks;

static void *counting_alloc(void *self, size_t bytes, size_t align)
{
    void *block = ferrum_default_allocator.alloc(NULL, bytes, align);
    live_bytes += block ? bytes : 0;
    live_blocks += block != NULL;
    return block;
}

static void counting_free(void *self, void *block, size_t bytes)
{
    live_bytes -= block ? bytes : 0;
    live_blocks -= block != NULL;
    ferrum_default_allocator.free(NULL, block, bytes);
}

static const ferrum_allocator_t counting = {
    .head = FERRUM_HEAD(ferrum_allocator_t), .alloc = counting_alloc, .free = counting_free};

static void use(ferrum_module_t *module)
{
    const ferrum_backend_ops_t *b = ferrum_module_backend(module);
    ferrum_device_t *device;
    ferrum_context_t *ctx;
    ferrum_buffer_t *buffer;
    float in[4] = {1, 2, 3, 4}, out[4];
    EXPECT_OK(b->device_open(ferrum_module_host(module), NULL, &device, &err));
    EXPECT_OK(b->context_new(device, NULL, &ctx, &err));
    EXPECT_OK(b->buffer_alloc(device, FERRUM_DTYPE_F32, 4, &buffer, &err));
    EXPECT_OK(b->buffer_write_f32(ctx, buffer, 0, in, 4, &err));
    EXPECT_OK(b->buffer_read_f32(ctx, buffer, 0, out, 4, &err));
    ck_assert_mem_eq(in, out, sizeof in);
    b->buffer_release(buffer);
    b->context_free(ctx);
    b->device_release(device);
}

START_TEST(a_thousand_times)
{
    ferrum_test_path_t path;
    ferrum_loader_t *loader;
    ferrum_options_t *options;
    trace_t before = {0, 0};
    int rounds = is_sanitized() ? 50 : 1000;
    plugin_path(plugins[_i], path);
    if (!file_exists(path)) {
        printf("not run: %s was not built\n", path);
        return;
    }
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_loader_new(options, &counting, NULL, &loader, &err));
    ferrum_options_free(options);
    for (int i = 0; i < rounds; i++) {
        ferrum_module_t *module;
        ferrum_unload_report_t report;
        EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
        ck_assert_uint_eq(ferrum_module_candidate(module)->pinned, 0);
        use(module);
        ferrum_module_release(module, &report);
        ck_assert_msg(report.unloaded == 1, "round %d: %s", i, report.detail);
        ck_assert_uint_eq(live_bytes, 0);
        ck_assert_uint_eq(live_blocks, 0);
        if (i == 0) /* the first dlopen() may leave the C library richer by something */
            before = take_trace();
    }
    expect_same_trace(&before);
    ck_assert_int_eq(before.mappings, 0);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(several_at_once)
{
    ferrum_test_path_t path;
    ferrum_module_t *modules[40]; /* more than dlmopen() could do */
    trace_t before = take_trace();
    plugin_path("fixture", path);
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    for (size_t i = 0; i < 40; i++)
        EXPECT_OK(ferrum_loader_open(loader, path, &modules[i], &err));
    for (size_t i = 0; i < 40; i++) { /* not in the order of opening */
        ferrum_unload_report_t report;
        use(modules[i * 7 % 40]);
        ferrum_module_release(modules[i * 7 % 40], &report);
        ck_assert_uint_eq(report.unloaded, 1);
    }
    ferrum_loader_free(loader);
    expect_same_trace(&before);
}
END_TEST

static void *open_and_close(void *path)
{
    ferrum_loader_t *loader = fixture_loader(NULL, NULL);
    for (int i = 0; i < 25; i++) {
        ferrum_module_t *module;
        ferrum_unload_report_t report;
        EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
        use(module);
        ferrum_module_release(module, &report);
        ck_assert_uint_eq(report.unloaded, 1);
    }
    ferrum_loader_free(loader);
    return NULL;
}

START_TEST(from_several_threads)
{
    ferrum_test_path_t path;
    pthread_t threads[4];
    plugin_path("metal-stub", path);
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, open_and_close, path), 0);
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_int_eq(take_trace().mappings, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/reopen");
    TCase *tests = tcase_create("reopen");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, a_thousand_times, 0, sizeof plugins / sizeof plugins[0]);
    tcase_add_test(tests, several_at_once);
    tcase_add_test(tests, from_several_threads);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
