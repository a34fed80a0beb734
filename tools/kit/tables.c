/* SPDX-License-Identifier: MIT */
/* The tables as the plugin has them, before the loader completes its copy. */
#include "tools/kit/raw.h"

#include <stdio.h>
#include <string.h>

/* ---- sizes ---- */

typedef struct table {
    const char *name;
    const void *at;
    uint32_t min_size;
} table_t;

static void judge_table(cf_suite_t *suite, const table_t *table, uint32_t plugin_minor)
{
    ferrum_head_t head;
    cf_begin(suite, "head of table %s", table->name);
    if (table->at == NULL) {
        suite->case_refused = true;
        snprintf(suite->reason, sizeof suite->reason, "the plugin has no such table");
        cf_end(suite);
        return;
    }
    memcpy(&head, table->at, sizeof head);
    if (head.size < table->min_size)
        cf_fail(suite, "%u bytes, ABI 1.0 has %u", head.size, table->min_size);
    else if (head.size % sizeof(void *) != 0 || head.size > 65536)
        cf_fail(suite, "%u bytes cannot be a table of functions", head.size);
    else if (head.version != plugin_minor)
        cf_fail(suite, "says minor %u, the plugin says %u", head.version, plugin_minor);
    cf_end(suite);
}

static void table_cases(cf_suite_t *suite)
{
    const ferrum_plugin_t *plugin = ferrum_module_plugin(suite->module);
    const ferrum_quant_llm_ops_t *q = plugin->get_interface(FERRUM_INTERFACE_QUANT_LLM, 0);
    const table_t tables[] = {
        {"backend", plugin->get_interface(FERRUM_INTERFACE_BACKEND, 0),
         FERRUM_BACKEND_OPS_MIN_SIZE},
        {"quant_llm", q, FERRUM_QUANT_LLM_OPS_MIN_SIZE},
        {"linear", q ? q->linear : NULL, FERRUM_LINEAR_OPS_MIN_SIZE},
        {"stacked_experts", q ? q->stacked_experts : NULL, FERRUM_STACKED_EXPERTS_OPS_MIN_SIZE},
        {"marlin_stack", q ? q->marlin_stack : NULL, FERRUM_MARLIN_STACK_OPS_MIN_SIZE},
        {"moe_fused", plugin->get_interface(FERRUM_INTERFACE_MOE_FUSED, 0),
         FERRUM_MOE_FUSED_OPS_MIN_SIZE},
    };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        judge_table(suite, &tables[i], plugin->abi_minor);
}

/* ---- entries that make no sense without others ---- */

static const struct {
    const char *table, *entry, *needs_table, *needs;
} together[] = {
    {"backend", "event_new", "backend", "event_record event_wait event_sync event_free"},
    {"backend", "timer_new", "backend",
     "timer_record_start timer_record_end timer_elapsed_ms timer_free"},
    {"quant_llm", "load_quant", "linear", "retain release info forward"},
    {"quant_llm", "load_quant", "quant_llm", "supports"},
    {"quant_llm", "load_quant_fused", "linear", "retain release info forward"},
    {"quant_llm", "load_gptq", "linear", "retain release info forward"},
    {"quant_llm", "load_gptq", "quant_llm", "supports"},
    {"quant_llm", "load_quant_experts", "stacked_experts", "retain release info"},
    {"quant_llm", "load_gptq_stacked", "marlin_stack", "retain release info"},
    {"marlin_stack", "make_expert_linear", "linear", "retain release info forward"},
    {"quant_llm", "graph_begin", "quant_llm", "graph_end graph_replay graph_reset graph_reset_all"},
    {"moe_fused", "expert_ffn_create", "moe_fused",
     "expert_ffn_retain expert_ffn_release expert_ffn_info expert_ffn_forward supports"},
};

static bool is_native(const cf_suite_t *suite, const char *table, const char *entry)
{
    return ferrum_module_op_resolution(suite->module, table, entry) == FERRUM_RESOLVED_NATIVE;
}

static void together_case(cf_suite_t *suite, size_t row)
{
    char missing[160] = "", names[160];
    cf_begin(suite, "what %s.%s needs of %s", together[row].table, together[row].entry,
             together[row].needs_table);
    if (is_native(suite, together[row].table, together[row].entry)) {
        snprintf(names, sizeof names, "%s", together[row].needs);
        char *rest = names;
        for (char *name = strtok_r(names, " ", &rest); name; name = strtok_r(NULL, " ", &rest)) {
            size_t used = strlen(missing);
            if (!is_native(suite, together[row].needs_table, name))
                snprintf(missing + used, sizeof missing - used, "%s%s", used ? ", " : "", name);
        }
        if (missing[0] != '\0')
            cf_fail(suite, "lacks %s", missing);
    } else {
        suite->case_refused = true;
        snprintf(suite->reason, sizeof suite->reason, "the plugin has no %s", together[row].entry);
    }
    cf_end(suite);
}

void cf_group_tables(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_unload_report_t report;
    if (!cf_ok(suite, ferrum_loader_open(suite->loader, suite->path, &suite->module, &err), &err)) {
        cf_end(suite);
        return;
    }
    cf_end(suite);
    table_cases(suite);
    for (size_t i = 0; i < sizeof together / sizeof together[0]; i++)
        together_case(suite, i);
    cf_begin(suite, "unloading after the group");
    ferrum_module_release(suite->module, &report);
    cf_judge_unload(suite, &report);
    cf_end(suite);
}
