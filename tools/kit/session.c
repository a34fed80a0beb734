/* SPDX-License-Identifier: MIT */
/* The list of groups, and what stands around each: loader, module, device, proof of unloading. */
#include "tools/kit/kit.h"

#include "host/runtime/executor.h"

#include <stdio.h>
#include <string.h>

#define OPS_REMEDY                                                                                 \
    "the entry's comment in ferrum/backend.h, quant_llm.h or moe_fused.h says what it computes"

const cf_group_t cf_groups[] = {
    {"identity", CF_NEEDS_FILE, cf_group_identity,
     "opening, name, version window, what the query leaves alone",
     "fill in ferrum_plugin_t as ferrum/plugin.h says; the query only fills in structs"},
    {"tables", CF_NEEDS_FILE, cf_group_tables,
     "sizes, mandatory entries, entries that only work together",
     "set head.size to sizeof the table; leave what you do not have NULL"},
    {"growth", CF_NEEDS_DEVICE, cf_group_growth,
     "structs of older and newer hosts, smaller and larger than the plugin's own",
     "write no more than the caller's head.size, read fields with FERRUM_HAS"},
    {"objects", CF_NEEDS_DEVICE, cf_group_objects, "devices, contexts, events, timers",
     "each object keeps its parent alive; release(NULL) does nothing"},
    {"buffers", CF_NEEDS_DEVICE, cf_group_buffers, "allocation, bounds, dtypes, copies",
     "check offset and count without overflow before you touch anything"},
    {"core", CF_NEEDS_DEVICE, cf_group_core, "transformer operations against f64", OPS_REMEDY},
    {"refusals", CF_NEEDS_DEVICE, cf_group_refusals, "arguments that no call may accept",
     "check lengths, dtypes and NULL first, and write outputs on FERRUM_OK only"},
    {"misuse", CF_NEEDS_DEVICE, cf_group_misuse,
     "every buffer of every operation NULL, too short and of a wrong dtype",
     "check every buffer before the first write; INVALID_ARGUMENT, never a crash"},
    {"attention", CF_NEEDS_DEVICE, cf_group_attention, "attention over a contiguous cache",
     OPS_REMEDY},
    {"paged", CF_NEEDS_DEVICE, cf_group_paged, "attention over the paged cache", OPS_REMEDY},
    {"linear", CF_NEEDS_DEVICE, cf_group_linear, "linear layers of block formats", OPS_REMEDY},
    {"gptq", CF_NEEDS_DEVICE, cf_group_gptq, "linear layers of GPTQ matrices",
     "honour zero convention, group size and g_idx, or refuse them with a reason"},
    {"stacked", CF_NEEDS_DEVICE, cf_group_stacked, "experts in one slab", OPS_REMEDY},
    {"marlin", CF_NEEDS_DEVICE, cf_group_marlin, "experts in GPTQ stacks", OPS_REMEDY},
    {"route", CF_NEEDS_DEVICE, cf_group_route, "top-k routing",
     "the lowest index wins a tie; a logit that is not finite is an error, not expert 0"},
    {"plan", CF_NEEDS_DEVICE, cf_group_plan, "grouping and alignment of pairs",
     "sorts are stable; unused entries hold what the header says"},
    {"combine", CF_NEEDS_DEVICE, cf_group_combine, "what stands between and after the products",
     OPS_REMEDY},
    {"ffn", CF_NEEDS_DEVICE, cf_group_ffn, "the whole expert FFN",
     "state an error bound that holds; skip id -1; sum pairs in slot order"},
    {"paths", CF_NEEDS_DEVICE, cf_group_paths, "all ways through a layer agree", OPS_REMEDY},
    {"graph", CF_NEEDS_DEVICE, cf_group_graph, "capture and replay", OPS_REMEDY},
    {"determinism", CF_NEEDS_DEVICE, cf_group_determinism,
     "the same bits on every run and for every number of threads",
     "fixed order of sums, stable sorts, no floating-point atomics"},
    {"threads", CF_NEEDS_DEVICE, cf_group_threads, "two contexts on two threads at once",
     "no state outside contexts; [any-thread] entries count references atomically"},
    {"memory", CF_NEEDS_FILE, cf_group_memory, "every allocation of the plugin fails once",
     "OUT_OF_MEMORY, nothing kept, nothing written, and the next attempt works"},
    {"cycles", CF_NEEDS_FILE, cf_group_cycles, "opening and closing again and again",
     "free what you allocate; start no threads; use no thread keys and no exit handlers"},
};
const size_t cf_group_count = sizeof cf_groups / sizeof cf_groups[0];

/* What one stored output may be off by, relative to its row. */
static double tolerance_of(ferrum_dtype_t dtype)
{
    return dtype == FERRUM_DTYPE_F32 ? 5e-6 : dtype == FERRUM_DTYPE_F16 ? 5e-4 : 4e-3;
}

static void say_device(cf_suite_t *suite)
{
    char text[300];
    snprintf(text, sizeof text, "%.96s (%.96s), activations %s", suite->info.name,
             suite->info.detail, ferrum_dtype_name(suite->info.activation_dtype));
    suite->report(suite->report_arg, CF_FACT, "device", text);
}

/* Open device and context with a team of two, run, close. */
static void with_device(cf_suite_t *suite, const cf_group_t *group)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_team_t *team = NULL;
    ferrum_device_options_t options = {.head = FERRUM_HEAD(ferrum_device_options_t),
                                       .set_activation_dtype = suite->settings->set_dtype,
                                       .activation_dtype = suite->settings->dtype};
    cf_begin(suite, "device and context for the group");
    ferrum_status_t status =
        suite->be->device_open(ferrum_module_host(suite->module), &options, &suite->device, &err);
    if (status == FERRUM_UNSUPPORTED && cf_error_flaw(status, &err) == NULL) {
        suite->report(suite->report_arg, CF_SKIPPED, "no device", err.message);
        return;
    }
    suite->info.head.size = sizeof suite->info;
    if (cf_ok(suite, status, &err) &&
        cf_ok(suite, suite->be->device_info(suite->device, &suite->info, &err), &err) &&
        cf_ok(suite, ferrum_team_new(2, &team, &err), &err) &&
        cf_ok(suite,
              suite->be->context_new(suite->device, ferrum_team_executor(team), &suite->ctx, &err),
              &err)) {
        say_device(suite);
        suite->tolerance = tolerance_of(suite->info.activation_dtype);
        group->run(suite);
    } else {
        cf_fail(suite, "a mandatory entry refuses: %.240s", err.message);
        cf_end(suite);
    }
    cf_begin(suite, "closing context and device");
    suite->be->context_free(suite->ctx);
    ferrum_team_free(team);
    suite->be->device_release(suite->device);
    cf_end(suite);
}

void cf_judge_unload(cf_suite_t *suite, const ferrum_unload_report_t *report)
{
    if (report->leaked_blocks > 0)
        cf_fail(suite, "%u blocks (%llu bytes) of host memory were not freed",
                report->leaked_blocks, (unsigned long long)report->leaked_bytes);
    else if (!report->unloaded && !report->pinned)
        cf_fail(suite, "%s", report->detail);
}

void cf_run_group(const cf_group_t *group, const char *path, const cf_settings_t *settings,
                  cf_report_fn *report, void *report_arg)
{
    cf_suite_t suite = {.path = path,
                        .settings = settings,
                        .random = 1,
                        .report = report,
                        .report_arg = report_arg};
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_unload_report_t unload;
    cf_begin(&suite, "opening the plugin");
    if (!cf_ok(&suite,
               ferrum_loader_new(settings->options, NULL, settings->logger, &suite.loader, &err),
               &err)) {
        cf_end(&suite);
        return;
    }
    if (group->needs == CF_NEEDS_FILE) {
        group->run(&suite);
    } else if (ferrum_loader_open(suite.loader, path, &suite.module, &err) != FERRUM_OK) {
        cf_fail(&suite, "%s", err.message);
        cf_end(&suite);
    } else {
        suite.be = ferrum_module_backend(suite.module);
        suite.ql = ferrum_module_quant_llm(suite.module);
        suite.mf = ferrum_module_moe_fused(suite.module);
        with_device(&suite, group);
        cf_begin(&suite, "unloading after the group");
        ferrum_module_release(suite.module, &unload);
        cf_judge_unload(&suite, &unload);
        cf_end(&suite);
    }
    ferrum_loader_free(suite.loader);
}
