/* SPDX-License-Identifier: MIT */
#include "host/swap/swap_steps.h"

#include <ferrum/util.h>

#include <string.h>

#define DEFAULT_DRAIN_MS 30000u
#define DEFAULT_RELEASE_MS 2000u

static const char *const step_names[] = {
    [FERRUM_SWAP_NONE] = "begin",      [FERRUM_SWAP_OPEN] = "open",
    [FERRUM_SWAP_REBUILD] = "rebuild", [FERRUM_SWAP_SELF_TEST] = "self-test",
    [FERRUM_SWAP_DRAIN] = "drain",     [FERRUM_SWAP_MIGRATE] = "migrate",
    [FERRUM_SWAP_PUBLISH] = "publish", [FERRUM_SWAP_RELEASE] = "release",
    [FERRUM_SWAP_UNLOAD] = "unload",   [FERRUM_SWAP_DONE] = "done",
};

const char *ferrum_swap_step_name(ferrum_swap_step_t step)
{
    return step < sizeof step_names / sizeof step_names[0] ? step_names[step] : "?";
}

static ferrum_status_t read_options(const ferrum_swap_options_t *given, ferrum_swap_options_t *out,
                                    ferrum_error_t *err)
{
    *out = (ferrum_swap_options_t){.head = FERRUM_HEAD(ferrum_swap_options_t)};
    if (given && given->head.size < FERRUM_SWAP_OPTIONS_MIN_SIZE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "swap options of %u bytes: initialise head with FERRUM_HEAD",
                           given->head.size);
    if (given)
        memcpy(out, given, given->head.size < sizeof *out ? given->head.size : sizeof *out);
    if (out->drain_timeout_ms == 0)
        out->drain_timeout_ms = DEFAULT_DRAIN_MS;
    if (out->release_timeout_ms == 0)
        out->release_timeout_ms = DEFAULT_RELEASE_MS;
    return FERRUM_OK;
}

static ferrum_status_t begin(ferrum_registry_t *registry, ferrum_error_t *err)
{
    const char *why = NULL;
    (void)pthread_mutex_lock(&registry->lock);
    if (registry->closing)
        why = "the runtime is being closed";
    else if (registry->swapping)
        why = "another swap is running";
    else
        registry->swapping = true;
    (void)pthread_mutex_unlock(&registry->lock);
    return why ? ferrum_fail(err, FERRUM_BUSY, FERRUM_REASON_NONE, "%s", why) : FERRUM_OK;
}

static void end(ferrum_registry_t *registry)
{
    (void)pthread_mutex_lock(&registry->lock);
    registry->swapping = false;
    (void)pthread_cond_broadcast(&registry->changed);
    (void)pthread_mutex_unlock(&registry->lock);
}

static double since_ms(int64_t *last_ns)
{
    int64_t now = ferrum_now_ns(), begun = *last_ns;
    *last_ns = now;
    return (double)(now - begun) * 1e-6;
}

static ferrum_status_t open_next(ferrum_swap_t *swap, ferrum_error_t *err)
{
    char path[sizeof((ferrum_candidate_t *)0)->path];
    const char *spec = swap->options.backend;
    FERRUM_TRY(ferrum_swap_ask(swap, FERRUM_SWAP_OPEN, 0, 0, err));
    if (!spec) {
        (void)snprintf(path, sizeof path, "%s", ferrum_module_path(swap->old->module));
        spec = path;
    }
    FERRUM_TRY(ferrum_generation_open(ferrum_runtime_loader(swap->runtime), spec,
                                      ferrum_runtime_moe_env(swap->runtime), swap->old->number + 1,
                                      &swap->next, err));
    (void)snprintf(swap->report.to, sizeof swap->report.to, "%s",
                   ferrum_module_name(swap->next->module));
    return FERRUM_OK;
}

/* Steps 1 to 6. */
static ferrum_status_t build_and_exchange(ferrum_swap_t *swap, ferrum_error_t *err)
{
    int64_t clock = ferrum_now_ns();
    FERRUM_TRY(open_next(swap, err));
    swap->report.open_ms = since_ms(&clock);
    FERRUM_TRY(ferrum_swap_rebuild(swap, err));
    swap->report.rebuild_ms = since_ms(&clock);
    FERRUM_TRY(ferrum_swap_self_test(swap, err));
    swap->report.self_test_ms = since_ms(&clock);
    return ferrum_swap_exchange(swap, err);
}

/* Steps 7 and 8, for whichever generation is given up. */
static void release(ferrum_swap_t *swap, ferrum_generation_t *generation)
{
    ferrum_unload_report_t unload = {0};
    ferrum_swap_report_t *report = &swap->report;
    int held = 0;
    ferrum_swap_discard(swap);
    if (!generation)
        return;
    ferrum_generation_close(generation, swap->options.release_timeout_ms, &unload, &held);
    if (held) {
        report->fate = FERRUM_SWAP_FATE_HELD;
        (void)snprintf(unload.detail, sizeof unload.detail,
                       "kept: the application holds a reference to its module");
    } else if (unload.unloaded) {
        report->fate = FERRUM_SWAP_FATE_UNLOADED;
    } else if (unload.pinned && unload.leaked_blocks == 0) {
        report->fate = FERRUM_SWAP_FATE_PINNED;
    } else {
        report->fate = FERRUM_SWAP_FATE_ZOMBIE;
        ferrum_runtime_note_zombie(swap->runtime);
    }
    (void)snprintf(report->detail, sizeof report->detail, "%s", unload.detail);
}

/* Name the step in the message, and the new backend if there is one. */
static ferrum_status_t fail_step(const ferrum_swap_t *swap, ferrum_status_t status,
                                 const ferrum_error_t *why, ferrum_error_t *err)
{
    const char *to = swap->report.to;
    return ferrum_fail(err, status, why->reason, "the swap%s%.40s failed at its %s step: %.150s",
                       to[0] ? " to " : "", to, ferrum_swap_step_name(swap->report.step),
                       why->message);
}

static void write_report(const ferrum_swap_t *swap, ferrum_swap_report_t *out_report)
{
    ferrum_swap_report_t report = swap->report;
    if (!out_report)
        return;
    report.head = out_report->head;
    memcpy(out_report, &report,
           report.head.size < sizeof report ? report.head.size : sizeof report);
}

static void log_result(const ferrum_swap_t *swap, ferrum_status_t status)
{
    const ferrum_ops_t *ops = ferrum_runtime_ops(swap->runtime);
    const ferrum_swap_report_t *r = &swap->report;
    if (status == FERRUM_OK)
        ferrum_ops_log(ops, FERRUM_LOG_INFO,
                       "swapped %s for %s (generation %llu): %u sessions held for at most %.2f ms; "
                       "the old one: %s",
                       r->from, r->to, (unsigned long long)r->generation, r->sessions, r->pause_ms,
                       r->detail);
}

ferrum_status_t ferrum_runtime_swap(ferrum_runtime_t *runtime, const ferrum_swap_options_t *options,
                                    ferrum_swap_report_t *out_report, ferrum_error_t *err)
{
    if (!runtime || (out_report && out_report->head.size < FERRUM_SWAP_REPORT_MIN_SIZE))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "a swap needs a runtime, and a report with its head set");
    ferrum_swap_t swap = {.runtime = runtime, .registry = ferrum_runtime_registry(runtime)};
    ferrum_error_t why = FERRUM_ERROR_INIT;
    int64_t begun = ferrum_now_ns();
    FERRUM_TRY(read_options(options, &swap.options, err));
    ferrum_status_t status = begin(swap.registry, &why);
    if (status != FERRUM_OK) {
        swap.report.generation = ferrum_runtime_generation(runtime);
        write_report(&swap, out_report);
        return fail_step(&swap, status, &why, err);
    }
    swap.old = ferrum_runtime_serving(runtime);
    (void)snprintf(swap.report.from, sizeof swap.report.from, "%s",
                   ferrum_module_name(swap.old->module));
    /* The processors are left to those who serve. */
    const bool held = ferrum_spread_hold(ferrum_runtime_spread(runtime));
    status = build_and_exchange(&swap, &why);
    ferrum_spread_give_back(ferrum_runtime_spread(runtime), held);
    ferrum_swap_step_t failed = swap.report.step;
    int64_t clock = ferrum_now_ns();
    release(&swap, status == FERRUM_OK ? swap.old : swap.next);
    swap.report.release_ms = since_ms(&clock);
    swap.report.total_ms = since_ms(&begun);
    swap.report.step = status == FERRUM_OK ? FERRUM_SWAP_DONE : failed;
    swap.report.generation = ferrum_runtime_generation(runtime);
    log_result(&swap, status);
    write_report(&swap, out_report);
    if (status != FERRUM_OK)
        status = fail_step(&swap, status, &why, err);
    end(swap.registry);
    return status;
}
