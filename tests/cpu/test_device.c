/* SPDX-License-Identifier: MIT */
/* Query, probe, devices, contexts, buffers, transfers, events and timers. */
#include "tests/cpu/fixture.h"

#include <ferrum/plugin.h>

#include <math.h>
#include <stdlib.h>

START_TEST(query_fills_what_fits)
{
    test_host_t host;
    ferrum_plugin_t plugin = {.head = FERRUM_HEAD(ferrum_plugin_t)};
    test_host_init(&host);
    ck_assert_int_eq(ferrum_plugin_query_v1(&host.host, &plugin), FERRUM_OK);
    ck_assert_str_eq(plugin.name, "cpu");
    ck_assert_uint_eq(plugin.head.size, sizeof plugin);
    ck_assert_uint_eq(plugin.flags, 0);
    ck_assert_uint_eq(host.allocations, 0);

    plugin.head.size = FERRUM_PLUGIN_MIN_SIZE - 1;
    ck_assert_int_eq(ferrum_plugin_query_v1(&host.host, &plugin), FERRUM_VERSION_MISMATCH);
    plugin.head.size = sizeof plugin;
    host.host.abi_minor_min = FERRUM_ABI_MINOR + 1;
    ck_assert_int_eq(ferrum_plugin_query_v1(&host.host, &plugin), FERRUM_VERSION_MISMATCH);
    ck_assert_int_eq(ferrum_plugin_query_v1(NULL, &plugin), FERRUM_INVALID_ARGUMENT);
}
END_TEST

START_TEST(every_entry_is_there)
{
    test_host_t host;
    ferrum_plugin_t plugin = {.head = FERRUM_HEAD(ferrum_plugin_t)};
    test_host_init(&host);
    ck_assert_int_eq(ferrum_plugin_query_v1(&host.host, &plugin), FERRUM_OK);
    static const struct {
        const char *id;
        size_t first;
        size_t bytes;
    } tables[] = {
        {FERRUM_INTERFACE_BACKEND, sizeof(ferrum_head_t), sizeof(ferrum_backend_ops_t)},
        {FERRUM_INTERFACE_QUANT_LLM, sizeof(ferrum_head_t), sizeof(ferrum_quant_llm_ops_t)},
        {FERRUM_INTERFACE_MOE_FUSED, sizeof(ferrum_head_t), sizeof(ferrum_moe_fused_ops_t)}};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const char *table = plugin.get_interface(tables[i].id, 0);
        ck_assert_ptr_nonnull(table);
        for (size_t at = tables[i].first; at < tables[i].bytes; at += sizeof(void *)) {
            void *entry;
            memcpy(&entry, table + at, sizeof entry);
            ck_assert_msg(entry != NULL, "%s has no entry at %zu", tables[i].id, at);
        }
    }
    ck_assert_ptr_null(plugin.get_interface("ferrum.backend/2", 0));
    ck_assert_ptr_null(plugin.get_interface(FERRUM_INTERFACE_BACKEND, FERRUM_ABI_MINOR + 1));
}
END_TEST

START_TEST(mask_chooses_the_kernel_set)
{
    test_host_t host;
    ferrum_plugin_t plugin = {.head = FERRUM_HEAD(ferrum_plugin_t)};
    ferrum_probe_t probe = {.head = FERRUM_HEAD(ferrum_probe_t)};
    ferrum_device_t *device = NULL;
    test_host_init(&host);
    ck_assert_int_eq(ferrum_plugin_query_v1(&host.host, &plugin), FERRUM_OK);
    EXPECT_OK(plugin.probe(&host.host, &probe, &err));
    const int32_t widest = probe.score;
    ck_assert_int_gt(widest, 0);
    ck_assert_uint_eq(probe.device_count, 1);

    host.cpu_mask = "scalar";
    EXPECT_OK(plugin.probe(&host.host, &probe, &err));
    ck_assert_int_le(probe.score, widest);
    EXPECT_OK(BK->device_open(&host.host, NULL, &device, &err));
    ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t)};
    EXPECT_OK(BK->device_info(device, &info, &err));
    ck_assert_ptr_nonnull(strstr(info.detail, "scalar"));
    ck_assert_int_gt((int)strlen(info.name), 0);
    ck_assert_uint_gt(info.memory_total_bytes, 0);
    BK->device_release(device);

    host.cpu_mask = "sse9";
    EXPECT_FAILS(BK->device_open(&host.host, NULL, &device, &err), FERRUM_INVALID_ARGUMENT,
                 "scalar");
    EXPECT_FAILS(plugin.probe(&host.host, &probe, &err), FERRUM_INVALID_ARGUMENT, "sse9");
    ck_assert_uint_eq(host.live_blocks, 0);
}
END_TEST

START_TEST(device_options_are_checked)
{
    test_host_t host;
    ferrum_device_t *device = NULL;
    test_host_init(&host);
    ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t), .ordinal = 1};
    EXPECT_FAILS(BK->device_open(&host.host, &options, &device, &err), FERRUM_NOT_FOUND, "1");
    options.ordinal = 0;
    options.set_activation_dtype = 1;
    options.activation_dtype = FERRUM_DTYPE_F16;
    EXPECT_FAILS(BK->device_open(&host.host, &options, &device, &err), FERRUM_UNSUPPORTED, "f16");
    EXPECT_FAILS(BK->device_open(&host.host, NULL, NULL, &err), FERRUM_INVALID_ARGUMENT,
                 "out_device");
    EXPECT_FAILS(BK->device_open(NULL, NULL, &device, &err), FERRUM_INVALID_ARGUMENT, "host");
    ck_assert_ptr_null(device);
}
END_TEST

START_TEST(objects_keep_the_device)
{
    cpu_fixture_t f;
    ferrum_event_t *event;
    ferrum_timer_t *timer;
    ferrum_buffer_t *buffer;
    cpu_open(&f, NULL, 2);
    EXPECT_OK(BK->event_new(f.device, &event, &err));
    EXPECT_OK(BK->timer_new(f.device, &timer, &err));
    EXPECT_OK(BK->buffer_alloc(f.device, FERRUM_DTYPE_F32, 3, &buffer, &err));
    BK->device_release(f.device);
    BK->context_free(f.ctx);
    BK->buffer_retain(buffer);
    BK->buffer_release(buffer);
    ferrum_device_t *alive = NULL;
    ck_assert_uint_eq(f.host.live_blocks, 5); /* device, event, timer, buffer and its memory */
    BK->timer_free(timer);
    BK->event_free(event);
    BK->buffer_release(buffer);
    ck_assert_uint_eq(f.host.live_blocks, 0);
    f.device = alive;
    f.ctx = NULL;
    cpu_close(&f);
}
END_TEST

START_TEST(executors_are_checked)
{
    cpu_fixture_t f;
    ferrum_context_t *ctx;
    cpu_open(&f, NULL, 1);
    ferrum_executor_t executor = {.head = FERRUM_HEAD(ferrum_executor_t), .width = 2};
    EXPECT_FAILS(BK->context_new(f.device, &executor, &ctx, &err), FERRUM_INVALID_ARGUMENT,
                 "executor");
    executor.head.size = 8;
    EXPECT_FAILS(BK->context_new(f.device, &executor, &ctx, &err), FERRUM_INVALID_ARGUMENT, "40");
    cpu_close(&f);
}
END_TEST

START_TEST(buffers_are_zeroed_and_bounded)
{
    cpu_fixture_t f;
    ferrum_buffer_t *buffer = NULL, *empty = NULL, *wrapped = NULL;
    float host[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8] = {0};
    cpu_open(&f, NULL, 1);
    EXPECT_OK(BK->buffer_alloc(f.device, FERRUM_DTYPE_F32, 8, &buffer, &err));
    EXPECT_OK(BK->buffer_alloc(f.device, FERRUM_DTYPE_I8, 0, &empty, &err));
    for (int i = 0; i < 8; i++)
        ck_assert(cpu_floats(buffer)[i] == 0.0f);
    EXPECT_OK(BK->buffer_write(f.ctx, buffer, 2, FERRUM_DTYPE_F32, host, 6, &err));
    EXPECT_FAILS(BK->buffer_write(f.ctx, buffer, 3, FERRUM_DTYPE_F32, host, 6, &err),
                 FERRUM_INVALID_ARGUMENT, "8 elements");
    EXPECT_FAILS(BK->buffer_write(f.ctx, buffer, UINT64_MAX, FERRUM_DTYPE_F32, host, 2, &err),
                 FERRUM_INVALID_ARGUMENT, "dst");
    EXPECT_FAILS(BK->buffer_write(f.ctx, buffer, 0, FERRUM_DTYPE_I32, host, 1, &err),
                 FERRUM_INVALID_ARGUMENT, "i32");
    EXPECT_OK(BK->buffer_read_f32(f.ctx, buffer, 0, back, 8, &err));
    ck_assert(back[1] == 0.0f && back[2] == 1.0f && back[7] == 6.0f);
    EXPECT_OK(BK->buffer_copy(f.ctx, buffer, 2, buffer, 5, 3, &err));
    ck_assert(cpu_floats(buffer)[5] == 1.0f);
    EXPECT_FAILS(BK->buffer_copy(f.ctx, buffer, 2, buffer, 4, 3, &err), FERRUM_INVALID_ARGUMENT,
                 "overlap");
    EXPECT_FAILS(BK->buffer_copy(f.ctx, buffer, 0, empty, 0, 0, &err), FERRUM_INVALID_ARGUMENT,
                 "i8");
    EXPECT_OK(BK->buffer_zero(f.ctx, buffer, 1, 6, &err));
    ck_assert(cpu_floats(buffer)[6] == 0.0f && cpu_floats(buffer)[7] != 0.0f);

    EXPECT_OK(BK->buffer_wrap_host(f.device, host, FERRUM_DTYPE_F32, 8, &wrapped, &err));
    EXPECT_OK(BK->buffer_zero(f.ctx, wrapped, 0, 1, &err));
    ck_assert(host[0] == 0.0f);
    ferrum_buffer_t *none = NULL;
    EXPECT_FAILS(BK->buffer_wrap_host(f.device, (char *)host + 1, FERRUM_DTYPE_F32, 1, &none, &err),
                 FERRUM_INVALID_ARGUMENT, "aligned");
    EXPECT_FAILS(BK->buffer_alloc(f.device, FERRUM_DTYPE_F32, UINT64_MAX / 2, &none, &err),
                 FERRUM_INVALID_ARGUMENT, "overflows");
    EXPECT_FAILS(BK->buffer_alloc(f.device, 99, 1, &none, &err), FERRUM_INVALID_ARGUMENT, "99");
    ck_assert_ptr_null(none);
    cpu_release(buffer, empty, wrapped, NULL);
    cpu_close(&f);
}
END_TEST

/** Every half is read back as it was written, and values between two round to even. */
START_TEST(halves_round_to_nearest_even)
{
    enum {
        ALL = 65536
    };
    cpu_fixture_t f;
    float *values = malloc(ALL * sizeof *values);
    cpu_open(&f, NULL, 1);
    for (ferrum_dtype_t dtype = FERRUM_DTYPE_F16; dtype <= FERRUM_DTYPE_BF16; dtype++) {
        ferrum_buffer_t *all = NULL, *again = NULL;
        EXPECT_OK(BK->buffer_alloc(f.device, dtype, ALL, &all, &err));
        EXPECT_OK(BK->buffer_alloc(f.device, dtype, ALL, &again, &err));
        uint16_t *bits = (uint16_t *)(void *)cpu_ints(all);
        for (int i = 0; i < ALL; i++)
            bits[i] = (uint16_t)i;
        EXPECT_OK(BK->buffer_read_f32(f.ctx, all, 0, values, ALL, &err));
        EXPECT_OK(BK->buffer_write_f32(f.ctx, again, 0, values, ALL, &err));
        const uint16_t *rounded = (const uint16_t *)(const void *)cpu_ints(again);
        for (int i = 0; i < ALL; i++)
            if (rounded[i] != i && !isnan(values[i]))
                ck_abort_msg("%x became %x", (unsigned)i, rounded[i]);
        /* Half-way between neighbours of one sign, and a little to both sides of it. */
        const int infinity = dtype == FERRUM_DTYPE_F16 ? 0x7c00 : 0x7f80;
        for (int i = 0; i + 1 < infinity; i++) {
            const float middle = (float)(((double)values[i] + (double)values[i + 1]) / 2.0);
            const float three[3] = {middle, nextafterf(middle, 0.0f), nextafterf(middle, INFINITY)};
            const uint16_t wanted[3] = {(uint16_t)(i + (i & 1)), (uint16_t)i, (uint16_t)(i + 1)};
            if (BK->buffer_write_f32(f.ctx, again, 0, three, 3, NULL) != FERRUM_OK)
                ck_abort_msg("buffer_write_f32 failed");
            for (int j = 0; j < 3; j++)
                if (rounded[j] != wanted[j])
                    ck_abort_msg("dtype %u: %a became %x, not %x", dtype, (double)three[j],
                                 rounded[j], wanted[j]);
        }
        cpu_release(all, again, NULL);
    }
    free(values);
    cpu_close(&f);
}
END_TEST

START_TEST(infos_fit_smaller_and_larger_callers)
{
    struct {
        ferrum_buffer_info_t info;
        uint64_t later;
    } large = {.info.head = {sizeof large, 7}, .later = 42};
    cpu_fixture_t f;
    cpu_open(&f, NULL, 1);
    ferrum_buffer_t *buffer = cpu_random_f32(&f, 1, 5);
    EXPECT_OK(BK->buffer_info(buffer, &large.info, &err));
    ck_assert_uint_eq(large.info.head.size, sizeof(ferrum_buffer_info_t));
    ck_assert_uint_eq(large.info.count, 5);
    ck_assert_uint_eq(large.later, 42);
    large.info.head.size = FERRUM_BUFFER_INFO_MIN_SIZE - 4;
    EXPECT_FAILS(BK->buffer_info(buffer, &large.info, &err), FERRUM_INVALID_ARGUMENT, "28");
    cpu_release(buffer, NULL);
    cpu_close(&f);
}
END_TEST

START_TEST(timers_need_both_ends)
{
    cpu_fixture_t f;
    ferrum_timer_t *timer;
    ferrum_event_t *event;
    double ms = -1.0;
    cpu_open(&f, NULL, 1);
    EXPECT_OK(BK->timer_new(f.device, &timer, &err));
    EXPECT_OK(BK->timer_record_start(f.ctx, timer, &err));
    EXPECT_OK(BK->timer_elapsed_ms(timer, &ms, &err));
    ck_assert(ms == 0.0);
    EXPECT_OK(BK->timer_record_end(f.ctx, timer, &err));
    EXPECT_OK(BK->timer_elapsed_ms(timer, &ms, &err));
    ck_assert(ms >= 0.0 && ms < 60e3);
    EXPECT_OK(BK->event_new(f.device, &event, &err));
    EXPECT_OK(BK->event_record(f.ctx, event, &err));
    EXPECT_OK(BK->event_wait(f.ctx, event, &err));
    EXPECT_OK(BK->event_sync(event, &err));
    BK->timer_free(timer);
    BK->event_free(event);
    cpu_close(&f);
}
END_TEST

START_TEST(graphs_are_refused_and_harmless)
{
    cpu_fixture_t f;
    const ferrum_graph_key_t key = {1, 2};
    uint32_t launched = 9, in_flight = 9;
    cpu_open(&f, NULL, 1);
    EXPECT_FAILS(QL->graph_begin(f.ctx, &err), FERRUM_UNSUPPORTED, "graph");
    EXPECT_FAILS(QL->graph_end(f.ctx, &key, &err), FERRUM_UNSUPPORTED, "graph");
    EXPECT_OK(QL->graph_replay(f.ctx, &key, &launched, &err));
    EXPECT_OK(QL->graph_in_flight(f.ctx, &in_flight, &err));
    ck_assert_uint_eq(launched, 0);
    ck_assert_uint_eq(in_flight, 0);
    EXPECT_OK(QL->graph_reset(f.ctx, &key, &err));
    EXPECT_OK(QL->graph_reset_all(f.ctx, &err));
    EXPECT_OK(QL->graph_set_decode_state(f.ctx, 1, 2, &err));
    EXPECT_OK(QL->graph_set_device_state_mode(f.ctx, 1, &err));
    EXPECT_OK(BK->context_sync(f.ctx, &err));
    EXPECT_OK(BK->context_sync_before_readback(f.ctx, &err));
    cpu_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu devices");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, query_fills_what_fits);
    tcase_add_test(tc, every_entry_is_there);
    tcase_add_test(tc, mask_chooses_the_kernel_set);
    tcase_add_test(tc, device_options_are_checked);
    tcase_add_test(tc, objects_keep_the_device);
    tcase_add_test(tc, executors_are_checked);
    tcase_add_test(tc, buffers_are_zeroed_and_bounded);
    tcase_add_test(tc, halves_round_to_nearest_even);
    tcase_add_test(tc, infos_fit_smaller_and_larger_callers);
    tcase_add_test(tc, timers_need_both_ends);
    tcase_add_test(tc, graphs_are_refused_and_harmless);
    suite_add_tcase(suite, tc);
    return expect_run(suite);
}
