/* SPDX-License-Identifier: MIT */
/* Opening and unloading one plugin: negotiation, resolution, pinning, and the proof at the end. */
#include "config.h"

#include "tests/loader/support.h"

#include <stdlib.h>
#include <unistd.h>

static ferrum_test_path_t fixture;

static void setup(void)
{
    plugin_path("fixture", fixture);
}

/* Open, look at the facts, close; expect a proven unload. */
START_TEST(plain_plugin_opens_and_is_gone)
{
    ferrum_module_t *module;
    ferrum_unload_report_t report;
    trace_t before = take_trace();
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    const ferrum_candidate_t *facts = ferrum_module_candidate(module);
    ck_assert_str_eq(ferrum_module_name(module), "fixture");
    ck_assert_str_eq(ferrum_module_path(module), fixture);
    ck_assert_str_eq(facts->summary, "a test plugin");
    ck_assert_str_eq(facts->license, "MIT");
    ck_assert_int_eq(facts->score, 5);
    ck_assert_int_eq(facts->status, FERRUM_OK);
    ck_assert_uint_eq(facts->pinned, 0);
    ck_assert_int_gt(take_trace().mappings, 0);
    ferrum_module_retain(module);
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader); /* the module keeps what it needs */
    ck_assert_ptr_nonnull(
        ferrum_module_host(module)->option(ferrum_module_host(module)->self, "FERRUM_CPU_MASK"));
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 1);
    ck_assert_uint_eq(report.pinned, 0);
    ck_assert_uint_eq(report.leaked_blocks, 0);
    ck_assert_str_eq(report.detail, "unloaded: no mapping, thread or memory left");
    expect_same_trace(&before);
    ferrum_module_release(NULL, NULL);
}
END_TEST

static void count_member(void *arg, uint32_t thread, uint32_t width)
{
    unsigned *members = arg;
    ck_assert_uint_lt(thread, width);
    members[thread]++;
}

/* As if it had three threads. */
static void lend(void *self, ferrum_task_fn *fn, void *arg)
{
    ++*(unsigned *)self;
    for (uint32_t thread = 0; thread < 3; thread++)
        fn(arg, thread, 3);
}

START_TEST(threads_are_lent)
{
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    ferrum_module_t *module;
    unsigned members[3] = {0}, lent = 0;
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    const ferrum_host_t *host = ferrum_module_host(module);
    host->spread(host->self, count_member, members);
    ck_assert(members[0] == 1 && members[1] == 0); /* the calling thread alone */
    ferrum_loader_set_spread(loader, lend, &lent);
    host->spread(host->self, count_member, members);
    ck_assert(lent == 1 && members[0] == 2 && members[1] == 1 && members[2] == 1);
    ferrum_loader_set_spread(loader, NULL, NULL);
    host->spread(host->self, count_member, members);
    ck_assert(lent == 1 && members[0] == 3 && members[2] == 1);
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(absent_entries_are_stubs)
{
    ferrum_module_t *module;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    const ferrum_quant_llm_ops_t *q = ferrum_module_quant_llm(module);
    ck_assert_ptr_nonnull(q->linear);
    ck_assert_ptr_nonnull(q->stacked_experts);
    ck_assert_ptr_nonnull(q->marlin_stack);
    EXPECT_FAILS(ferrum_module_backend(module)->gemm(NULL, NULL, NULL, NULL, 1, 1, 1, &err),
                 FERRUM_UNSUPPORTED, "backend.gemm");
    EXPECT_FAILS(q->linear->forward(NULL, NULL, NULL, 0, NULL, 0, 1, &err), FERRUM_UNSUPPORTED,
                 "linear.forward");
    EXPECT_FAILS(ferrum_module_moe_fused(module)->moe_combine(NULL, NULL, NULL, NULL, NULL, 1, 1, 1,
                                                              1, &err),
                 FERRUM_UNSUPPORTED, "moe_fused.moe_combine");
    ferrum_error_t error = FERRUM_ERROR_INIT;
    ck_assert_int_eq(q->load_quant(NULL, NULL, NULL, NULL, &error), FERRUM_UNSUPPORTED);
    ck_assert_uint_eq(error.reason, FERRUM_REASON_NOT_IMPLEMENTED);
    ck_assert_int_eq(q->load_quant(NULL, NULL, NULL, NULL, NULL), FERRUM_UNSUPPORTED);
    ferrum_module_backend(module)->event_free(NULL);
    q->linear->release(NULL);

    ck_assert_int_eq(ferrum_module_op_resolution(module, "backend", "device_open"),
                     FERRUM_RESOLVED_NATIVE);
    ck_assert_int_eq(ferrum_module_op_resolution(module, "linear", "forward"),
                     FERRUM_RESOLVED_STUB);
    ck_assert_int_eq(ferrum_module_op_resolution(module, "linear", "nosuch"), FERRUM_RESOLVED_STUB);
    size_t count = ferrum_module_op_count(module), natives = 0;
    for (size_t i = 0; i < count; i++) {
        ferrum_resolved_op_t op = ferrum_module_op(module, i);
        natives += op.how == FERRUM_RESOLVED_NATIVE;
        ck_assert(!op.mandatory || op.how == FERRUM_RESOLVED_NATIVE);
        ck_assert_int_eq(ferrum_module_op_resolution(module, op.table, op.name), op.how);
    }
    ck_assert_uint_eq(count, 113);
    ck_assert_uint_eq(natives, 19); /* 17 mandatory ones and two times supports */
    ck_assert_ptr_null(ferrum_module_op(module, count).name);
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(objects_work_through_the_resolved_table)
{
    ferrum_module_t *module;
    ferrum_device_t *device;
    ferrum_context_t *ctx;
    ferrum_buffer_t *buffer;
    ferrum_unload_report_t report;
    float in[3] = {1, 2, 3}, out[3] = {0};
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    const ferrum_backend_ops_t *b = ferrum_module_backend(module);
    EXPECT_OK(b->device_open(ferrum_module_host(module), NULL, &device, &err));
    EXPECT_OK(b->context_new(device, NULL, &ctx, &err));
    EXPECT_OK(b->buffer_alloc(device, FERRUM_DTYPE_F32, 3, &buffer, &err));
    b->device_release(device); /* its children keep it */
    EXPECT_OK(b->buffer_write_f32(ctx, buffer, 0, in, 3, &err));
    EXPECT_OK(b->buffer_read_f32(ctx, buffer, 0, out, 3, &err));
    ck_assert_mem_eq(in, out, sizeof in);
    EXPECT_FAILS(b->buffer_write_f32(ctx, buffer, 1, in, 3, &err), FERRUM_INVALID_ARGUMENT,
                 "exceed");
    b->buffer_release(buffer);
    b->context_free(ctx);
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 1);
    ferrum_loader_free(loader);
}
END_TEST

/* ---- negotiation ---- */

static const struct {
    const char *words;
    ferrum_status_t status; /* FERRUM_OK: opens */
    const char *text;
} queries[] = {
    {"newer", FERRUM_OK, ""},
    {"older", FERRUM_OK, ""},
    {"needs-newer", FERRUM_VERSION_MISMATCH,
     "was built with ABI 1.7 and needs 1.5 or later; this libferrum has 1.0 and takes 1.0 or "
     "later: update libferrum"},
    {"mismatch", FERRUM_VERSION_MISMATCH, "this libferrum has 1.0"},
    {"contradictory", FERRUM_VERSION_MISMATCH, "needs 1.1 or later"},
    {"tiny", FERRUM_BAD_PLUGIN, "71 bytes, at least 72"},
    {"tiny-table", FERRUM_BAD_PLUGIN, "backend, quant_llm, moe_fused"},
    {"no-name", FERRUM_BAD_PLUGIN, "lacks its name"},
    {"bad-name", FERRUM_BAD_PLUGIN, "'Bad/Name'"},
    {"query-fails", FERRUM_BAD_PLUGIN, "its query failed with status -18"},
    {"missing", FERRUM_BAD_PLUGIN,
     "lacks mandatory entries: plugin.probe, backend.device_open, backend.buffer_zero"},
    {"no-interfaces", FERRUM_BAD_PLUGIN,
     "plugin.get_interface, backend.device_open, backend.device_retain"},
    {"no-backend", FERRUM_BAD_PLUGIN, "lacks mandatory entries: backend.device_open"},
};

START_TEST(negotiation)
{
    ferrum_module_t *module = NULL;
    trace_t before = take_trace();
    ferrum_loader_t *loader = fixture_loader(NULL, queries[_i].words);
    if (queries[_i].status == FERRUM_OK) {
        EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
        /* Neither bytes beyond an old table nor beyond our own are taken for entries. */
        EXPECT_FAILS(ferrum_module_backend(module)->gemm(NULL, NULL, NULL, NULL, 1, 1, 1, &err),
                     FERRUM_UNSUPPORTED, "backend.gemm");
        ck_assert_uint_eq(ferrum_module_backend(module)->head.size, sizeof(ferrum_backend_ops_t));
        ferrum_module_release(module, NULL);
    } else {
        EXPECT_FAILS(ferrum_loader_open(loader, fixture, &module, &err), queries[_i].status,
                     queries[_i].text);
        ck_assert_ptr_null(module);
    }
    ferrum_loader_free(loader);
    expect_same_trace(&before);
}
END_TEST

/* A later host that no longer takes plugins of minor 0 or 1, and one that is itself newer. */
START_TEST(host_window_moves)
{
    ferrum_module_t *module;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    loader->abi_minor = 4;
    loader->abi_minor_min = 2;
    EXPECT_FAILS(ferrum_loader_open(loader, fixture, &module, &err), FERRUM_VERSION_MISMATCH,
                 "was built with ABI 1.0 and needs 1.0 or later; this libferrum has 1.4 and takes "
                 "1.2 or later: update the plugin");
    ferrum_loader_free(loader);
    loader = fixture_loader(NULL, "contradictory");
    loader->abi_minor = 5;
    EXPECT_FAILS(ferrum_loader_open(loader, fixture, &module, &err), FERRUM_BAD_PLUGIN,
                 "needs ABI minor 1 but was built with 0");
    ferrum_loader_free(loader);
    loader = fixture_loader(NULL, "needs-newer");
    loader->abi_minor = 5;
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(failed_probe_is_a_fact)
{
    ferrum_module_t *module;
    ferrum_loader_t *loader = fixture_loader(NULL, "probe-fails");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    ck_assert_int_eq(ferrum_module_candidate(module)->status, FERRUM_UNSUPPORTED);
    ck_assert_str_eq(ferrum_module_candidate(module)->error.message, "no fixture driver");
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
    loader = fixture_loader(NULL, "probe-silent");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    ck_assert_int_eq(ferrum_module_candidate(module)->status, FERRUM_DEVICE_ERROR);
    ck_assert_ptr_nonnull(strstr(ferrum_module_candidate(module)->error.message, "gave no reason"));
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(other_major_is_named)
{
    ferrum_test_path_t path;
    ferrum_module_t *module;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    plugin_path("fixture-v2", path);
    EXPECT_FAILS(ferrum_loader_open(loader, path, &module, &err), FERRUM_VERSION_MISMATCH,
                 "exports ferrum_plugin_query_v2");
    ferrum_loader_free(loader);
}
END_TEST

/* ---- pinned ---- */

static const struct {
    const char *plugin, *words, *unload, *reason;
} pinned[] = {
    {"fixture-nodelete", "", NULL, "-z nodelete"}, {"fixture-unique", "", NULL, "fixture_unique"},
    {"fixture-gomp", "", NULL, "libgomp.so.1"},    {"fixture", "pinned", NULL, "asks for it"},
    {"fixture", "", "1", "FERRUM_DISABLE_UNLOAD"},
};

START_TEST(pinned_plugins_stay_once)
{
    ferrum_test_path_t path;
    ferrum_unload_report_t report;
    trace_t after_first = {0, 0};
    plugin_path(pinned[_i].plugin, path);
    for (int round = 0; round < 20; round++) {
        ferrum_module_t *module;
        ferrum_loader_t *loader = new_loader(NULL, "FERRUM_CPU_MASK", pinned[_i].words,
                                             "FERRUM_DISABLE_UNLOAD", pinned[_i].unload, NULL);
        EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
        const ferrum_candidate_t *facts = ferrum_module_candidate(module);
        ck_assert_uint_eq(facts->pinned, 1);
        ck_assert_msg(strstr(facts->pinned_reason, pinned[_i].reason) != NULL, "reason: %s",
                      facts->pinned_reason);
        ferrum_module_release(module, &report);
        ferrum_loader_free(loader);
        ck_assert_uint_eq(report.unloaded, 0);
        ck_assert_uint_eq(report.pinned, 1);
        ck_assert_ptr_nonnull(strstr(report.detail, pinned[_i].reason));
        if (round == 0)
            after_first = take_trace();
    }
    ck_assert_int_gt(after_first.mappings, 0);
    expect_same_trace(&after_first);
}
END_TEST

/* ---- what is left behind ---- */

/* An allocator that remembers its last block, for the plugin that forgets it. */
static void *forgotten;

static void *remembering_alloc(void *self, size_t bytes, size_t align)
{
    forgotten = ferrum_default_allocator.alloc(NULL, bytes, align);
    return forgotten;
}

START_TEST(leaked_memory_is_reported)
{
    log_capture_t log;
    ferrum_module_t *module;
    ferrum_unload_report_t report;
    ferrum_options_t *options;
    ferrum_loader_t *loader;
    ferrum_allocator_t allocator = ferrum_default_allocator;
    allocator.alloc = remembering_alloc;
    capture_init(&log, FERRUM_LOG_WARN);
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_options_set(options, "FERRUM_CPU_MASK", "leak", &err));
    EXPECT_OK(ferrum_loader_new(options, &allocator, &log.logger, &loader, &err));
    ferrum_options_free(options);
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 0);
    ck_assert_uint_eq(report.leaked_blocks, 1);
    ck_assert_uint_eq(report.leaked_bytes, 100);
    ck_assert_ptr_nonnull(strstr(report.detail, "1 blocks with 100 bytes"));
    ck_assert_ptr_nonnull(strstr(log.text, report.detail));
    free(forgotten);
    ck_assert_int_gt(take_trace().mappings, 0); /* kept, never forced */
    /* The same file opens again beside it. */
    ferrum_loader_t *second = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(second, fixture, &module, &err));
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 1);
    ferrum_loader_free(second);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(object_left_alive_keeps_the_plugin)
{
    ferrum_module_t *module;
    ferrum_device_t *device;
    ferrum_unload_report_t report;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, fixture, &module, &err));
    ferrum_backend_ops_t b = *ferrum_module_backend(module);
    EXPECT_OK(b.device_open(ferrum_module_host(module), NULL, &device, &err));
    ferrum_module_release(module, &report);
    ferrum_loader_free(loader);
    ck_assert_uint_eq(report.unloaded, 0);
    ck_assert_uint_eq(report.leaked_blocks, 1);
    b.device_release(device); /* a mistake of the caller's, but no crash */
}
END_TEST

START_TEST(thread_left_behind_makes_a_zombie)
{
    ferrum_test_path_t path;
    ferrum_module_t *module;
    ferrum_unload_report_t report;
    plugin_path("fixture-thread", path);
    trace_t before = take_trace();
    ferrum_loader_t *loader = fixture_loader(NULL, "thread-joined");
    EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
    ferrum_module_release(module, &report);
    ck_assert_msg(report.unloaded == 1, "%s", report.detail);
    expect_same_trace(&before);
    ferrum_loader_free(loader);

    loader = fixture_loader(NULL, "thread-stays");
    EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 0);
    ck_assert_uint_eq(report.pinned, 0);
    ck_assert_ptr_nonnull(strstr(report.detail, "1 started since it was opened"));
    ck_assert_int_gt(take_trace().mappings, before.mappings);
    ferrum_loader_free(loader);
}
END_TEST

/* ---- the file on disk is no longer needed ---- */

START_TEST(file_may_change_while_loaded)
{
    ferrum_test_path_t dir, path, other;
    ferrum_module_t *first, *second;
    ferrum_device_t *device;
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "fixture.so", path);
    copy_file(fixture, path);
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, path, &first, &err));
    ck_assert_int_eq(truncate(path, 100), 0); /* would be SIGBUS in a mapped file */
    const ferrum_backend_ops_t *b = ferrum_module_backend(first);
    EXPECT_OK(b->device_open(ferrum_module_host(first), NULL, &device, &err));
    b->device_release(device);
    EXPECT_FAILS(ferrum_loader_open(loader, path, &second, &err), FERRUM_CORRUPT, path);

    plugin_path("fixture-thread", other); /* another plugin at the same path */
    copy_file(other, path);
    EXPECT_OK(ferrum_loader_open(loader, path, &second, &err));
    ck_assert_str_eq(ferrum_module_name(first), "fixture");
    ck_assert_str_eq(ferrum_module_name(second), "fixture-thread");
    ck_assert_int_eq(unlink(path), 0);
    ferrum_module_release(second, NULL);
    EXPECT_OK(b->device_open(ferrum_module_host(first), NULL, &device, &err));
    b->device_release(device);
    ferrum_module_release(first, NULL);
    ferrum_loader_free(loader);
    ferrum_test_remove_directory(dir);
}
END_TEST

START_TEST(arguments_are_checked)
{
    ferrum_module_t *module;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    ferrum_allocator_t bad = {.head = FERRUM_HEAD(ferrum_allocator_t)};
    ferrum_logger_t small = {.head = {8, 0}};
    EXPECT_FAILS(ferrum_loader_open(loader, NULL, &module, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_open(loader, fixture, NULL, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_new(NULL, &bad, NULL, &loader, &err), FERRUM_INVALID_ARGUMENT,
                 "allocator");
    EXPECT_FAILS(ferrum_loader_new(NULL, NULL, &small, &loader, &err), FERRUM_INVALID_ARGUMENT,
                 "logger");
    ferrum_loader_free(loader);
    ferrum_loader_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/open");
    TCase *tests = tcase_create("open");
    tcase_add_unchecked_fixture(tests, setup, NULL);
    tcase_add_test(tests, plain_plugin_opens_and_is_gone);
    tcase_add_test(tests, threads_are_lent);
    tcase_add_test(tests, absent_entries_are_stubs);
    tcase_add_test(tests, objects_work_through_the_resolved_table);
    tcase_add_loop_test(tests, negotiation, 0, sizeof queries / sizeof queries[0]);
    tcase_add_test(tests, host_window_moves);
    tcase_add_test(tests, failed_probe_is_a_fact);
    tcase_add_test(tests, other_major_is_named);
    tcase_add_loop_test(tests, pinned_plugins_stay_once, 0, sizeof pinned / sizeof pinned[0]);
    tcase_add_test(tests, leaked_memory_is_reported);
    tcase_add_test(tests, object_left_alive_keeps_the_plugin);
    tcase_add_test(tests, thread_left_behind_makes_a_zombie);
    tcase_add_test(tests, file_may_change_while_loaded);
    tcase_add_test(tests, arguments_are_checked);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
