/* SPDX-License-Identifier: MIT */
/*
 * Eight threads decode while the backend under them is swapped again and again, between two copies
 * of the cpu plugin. No call may fail, no token may differ from an undisturbed run, and nothing of
 * the old generations may be left; where their code was, nothing can be executed any more.
 *
 * FERRUM_TEST_SWAPS: how many (500; 50 under sanitizers). FERRUM_TEST_MODEL: which model; without
 * it a synthesised one that takes microseconds per token.
 */
#include <ferrum/swap.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"
#include "tests/swap/clients.h"
#include "tests/swap/fixture.h"
#include "tests/swap/process.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DEFAULT_SWAPS 50
#define SANITIZED 1 /* which keep address ranges for themselves, and start a thread */
#else
#define DEFAULT_SWAPS 500
#define SANITIZED 0
#endif

enum {
    CLIENTS = 8,
    WARM_SWAPS = 8
};

/* malloc may keep a little per thread or arena; one lost pointer per swap is far more. */
#define HEAP_SLACK_BYTES ((size_t)64 << 10)

static ferrum_test_path_t folder, model_path, copies[2];
static swap_fixture_t fixture;
static client_t clients[CLIENTS];
static atomic_bool stop;
static durations_t pauses;
static uint32_t poisons;

static uint32_t swaps_wanted(void)
{
    const char *text = getenv("FERRUM_TEST_SWAPS");
    long swaps = text ? strtol(text, NULL, 10) : DEFAULT_SWAPS;
    return swaps > 0 ? (uint32_t)swaps : DEFAULT_SWAPS;
}

static void swap_once(uint32_t number)
{
    plugin_range_t ranges[PLUGIN_RANGES];
    ferrum_swap_report_t report = {.head = FERRUM_HEAD(ferrum_swap_report_t)};
    ferrum_swap_options_t options = {.head = FERRUM_HEAD(ferrum_swap_options_t),
                                     .backend = copies[number % 2],
                                     .drain_timeout_ms = 120000};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    int count = process_plugin_ranges(ranges);
    ck_assert_int_gt(count, 0);
    ferrum_status_t status = ferrum_runtime_swap(fixture.runtime, &options, &report, &err);
    ck_assert_msg(status == FERRUM_OK, "swap %u: %s", number, err.message);
    ck_assert_msg(report.fate == FERRUM_SWAP_FATE_UNLOADED, "swap %u: %s", number, report.detail);
    ck_assert_uint_eq(report.sessions, CLIENTS);
    for (int i = 0; i < count; i++)
        poisons += (uint32_t)process_poison(&ranges[i]);
    durations_add(&pauses, (uint64_t)(report.pause_ms * 1e6));
}

static void open_clients(void)
{
    ferrum_model_options_t options = {.head = FERRUM_HEAD(ferrum_model_options_t),
                                      .kv_capacity = 96,
                                      .max_sequences = CLIENT_REQUESTS,
                                      .threads = 1};
    for (uint32_t i = 0; i < CLIENTS; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_status_t status =
            i == 0
                ? ferrum_model_open(fixture.runtime, model_path, &options, &clients[i].model, &err)
                : ferrum_model_share(clients[0].model, &options, &clients[i].model, &err);
        ck_assert_msg(status == FERRUM_OK, "%s", err.message);
        clients[i].stop = &stop;
        clients[i].seed = i + 1;
        clients[i].vocab = ferrum_fixture_vocab(clients[i].model);
        client_learn(&clients[i]);
        ck_assert_msg(clients[i].failed == 0, "%s", clients[i].error.message);
    }
}

static durations_t run_clients(uint32_t swaps)
{
    durations_t all = {.total = 0};
    atomic_store(&stop, false);
    for (int i = 0; i < CLIENTS; i++) {
        memset(&clients[i].durations, 0, sizeof clients[i].durations);
        client_start(&clients[i]);
    }
    if (swaps == 0)
        fixture_sleep_ms(300);
    for (uint32_t i = 0; i < swaps; i++)
        swap_once(i);
    atomic_store(&stop, true);
    for (int i = 0; i < CLIENTS; i++) {
        client_join(&clients[i]);
        durations_merge(&all, &clients[i].durations);
    }
    return all;
}

static void print_durations(const char *what, const durations_t *d)
{
    (void)printf("%-28s n %9llu   p50 %9.3f   p99 %9.3f   max %9.3f ms\n", what,
                 (unsigned long long)d->total, durations_ms(d, 0.5), durations_ms(d, 0.99),
                 (double)d->longest_ns * 1e-6);
}

START_TEST(no_call_fails_and_nothing_stays)
{
    uint32_t swaps = swaps_wanted();
    process_t before = process_look();
    /* prompts in several passes, between which a swap may come; blocks that requests share */
    const char *const options[] = {"FERRUM_MAX_BATCHED_TOKENS", "5", "FERRUM_PREFIX_CACHE", "1",
                                   NULL};
    fixture_open(&fixture, copies[1], options);
    open_clients();
    for (uint32_t i = 0; i < WARM_SWAPS; i++)
        swap_once(i);
    memset(&pauses, 0, sizeof pauses);
    durations_t quiet = run_clients(0);
    process_t warm = process_look();
    durations_t loaded = run_clients(swaps);
    process_t after = process_look();

    uint64_t calls = 0, failed = 0, wrong = 0, rounds = 0;
    for (int i = 0; i < CLIENTS; i++) {
        calls += clients[i].calls;
        failed += clients[i].failed;
        wrong += clients[i].wrong;
        rounds += clients[i].rounds;
    }
    (void)printf("%u swaps under %d threads: %llu calls, %llu failed; %llu rounds, %llu with wrong "
                 "tokens; %u ranges poisoned\n",
                 swaps, CLIENTS, (unsigned long long)calls, (unsigned long long)failed,
                 (unsigned long long)rounds, (unsigned long long)wrong, poisons);
    print_durations("call, no swap running", &quiet);
    print_durations("call, swaps running", &loaded);
    print_durations("sessions held by a swap", &pauses);
    (void)printf("fds %ld -> %ld, threads %ld -> %ld, plugins mapped %ld -> %ld, heap %zu -> %zu "
                 "bytes\n",
                 warm.fds, after.fds, warm.threads, after.threads, warm.plugin_mappings,
                 after.plugin_mappings, warm.heap_bytes, after.heap_bytes);
    for (int i = 0; i < CLIENTS; i++) {
        ck_assert_msg(clients[i].failed == 0, "%s", clients[i].error.message);
        ck_assert_uint_gt(clients[i].rounds, 0);
        ferrum_model_free(clients[i].model);
    }
    ck_assert_uint_eq(wrong, 0);
    ck_assert_int_eq(after.fds, warm.fds);
    ck_assert_int_eq(after.threads, warm.threads);
    ck_assert_int_eq(after.plugin_mappings, warm.plugin_mappings);
    ck_assert_uint_le(after.heap_bytes, warm.heap_bytes + HEAP_SLACK_BYTES);
    ck_assert(SANITIZED || poisons > swaps / 2);
    fixture_close(&fixture); /* no block of a plugin is left */
    process_lift_poison();
    process_t end = process_look();
    ck_assert_int_eq(end.fds, before.fds);
    ck_assert(SANITIZED || end.threads == before.threads);
    ck_assert_int_eq(end.plugin_mappings, 0);
}
END_TEST

static void set_up(void)
{
    const char *asked = getenv("FERRUM_TEST_MODEL");
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "model.gguf", model_path);
    if (asked)
        (void)snprintf(model_path, sizeof model_path, "%s", asked);
    else
        ferrum_synth_write(model_path, NULL);
    ferrum_test_join(folder, "cpu-a.so", copies[0]);
    ferrum_test_join(folder, "cpu-b.so", copies[1]);
    for (int i = 0; i < 2; i++)
        fixture_copy_plugin("cpu", copies[i]);
}

static void tear_down(void)
{
    ferrum_test_remove_directory(folder);
}

int main(void)
{
    Suite *suite = suite_create("swap_load");
    TCase *tcase = tcase_create("load");
    fixture_need_plugin("cpu");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, no_call_fails_and_nothing_stays);
    tcase_set_timeout(tcase, 0);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* the children of Check have other descriptors */
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
