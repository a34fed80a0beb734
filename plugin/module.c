/* SPDX-License-Identifier: MIT */
#include "internal.h"
#include "sys.h"
#include "text.h"

#include <pthread.h>

bool ferrum_is_plugin_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n > 0 && name[n] == '\0' && n < sizeof((ferrum_candidate_t *)0)->name;
}

static const char *module_option(void *self, const char *name)
{
    return ferrum_options_get(((ferrum_module_t *)self)->loader->options, name);
}

static void module_spread(void *self, ferrum_task_fn *fn, void *arg)
{
    const ferrum_loader_t *loader = ((ferrum_module_t *)self)->loader;
    if (loader->spread)
        loader->spread(loader->spread_self, fn, arg);
    else
        fn(arg, 0, 1);
}

static void init_host(ferrum_module_t *module)
{
    ferrum_loader_t *loader = module->loader;
    ferrum_counted_memory_init(&module->memory, &loader->allocator);
    module->host = (ferrum_host_t){
        .head = FERRUM_HEAD(ferrum_host_t),
        .abi_minor = loader->abi_minor,
        .abi_minor_min = loader->abi_minor_min,
        .allocator = &module->memory.allocator,
        .logger = &loader->logger,
        .self = module,
        .option = module_option,
        .spread = module_spread,
    };
}

/* ---- negotiation ---- */

static ferrum_status_t fail_window(const ferrum_module_t *module, const char *path,
                                   ferrum_error_t *err)
{
    const ferrum_plugin_t *p = &module->plugin;
    const ferrum_host_t *h = &module->host;
    bool plugin_newer = p->abi_minor_min > h->abi_minor;
    return ferrum_fail(err, FERRUM_VERSION_MISMATCH, FERRUM_REASON_NONE,
                       "%s was built with ABI %u.%u and needs %u.%u or later; this libferrum has "
                       "%u.%u and takes %u.%u or later: update %s",
                       path, FERRUM_ABI_MAJOR, p->abi_minor, FERRUM_ABI_MAJOR, p->abi_minor_min,
                       FERRUM_ABI_MAJOR, h->abi_minor, FERRUM_ABI_MAJOR, h->abi_minor_min,
                       plugin_newer ? "libferrum" : "the plugin");
}

static ferrum_status_t query_plugin(ferrum_module_t *module, const char *path, ferrum_error_t *err)
{
    ferrum_plugin_t *plugin = &module->plugin;
    plugin->head = (ferrum_head_t)FERRUM_HEAD(ferrum_plugin_t);
    ferrum_status_t status = ferrum_library_query(module->library)(&module->host, plugin);
    if (status != FERRUM_OK && status != FERRUM_VERSION_MISMATCH)
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                           "%s: its query failed with status %d", path, (int)status);
    if (status == FERRUM_OK && plugin->head.size < FERRUM_PLUGIN_MIN_SIZE)
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_LENGTH,
                           "%s describes itself in %u bytes, at least %u are needed", path,
                           plugin->head.size, FERRUM_PLUGIN_MIN_SIZE);
    if (status != FERRUM_OK || plugin->abi_minor_min > module->host.abi_minor ||
        plugin->abi_minor < module->host.abi_minor_min)
        return fail_window(module, path, err);
    if (plugin->abi_minor_min > plugin->abi_minor)
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_RANGE,
                           "%s needs ABI minor %u but was built with %u", path,
                           plugin->abi_minor_min, plugin->abi_minor);
    return FERRUM_OK;
}

static ferrum_status_t copy_facts(ferrum_module_t *module, const char *path, ferrum_error_t *err)
{
    const ferrum_plugin_t *plugin = &module->plugin;
    ferrum_candidate_t *facts = &module->facts;
    if (!plugin->name || !plugin->version || !plugin->description || !plugin->license)
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_NULL,
                           "%s lacks its name, version, description or license", path);
    if (!ferrum_is_plugin_name(plugin->name))
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                           "%s calls itself '%.64s'; a name consists of a-z, 0-9 and '-'", path,
                           plugin->name);
    FERRUM_COPY_TEXT(facts->name, plugin->name);
    FERRUM_COPY_TEXT(facts->version, plugin->version);
    FERRUM_COPY_TEXT(facts->description, plugin->description);
    FERRUM_COPY_TEXT(facts->license, plugin->license);
    ferrum_text_clean(facts->version);
    ferrum_text_clean(facts->description);
    ferrum_text_clean(facts->license);
    facts->abi_minor = plugin->abi_minor;
    facts->abi_minor_min = plugin->abi_minor_min;
    facts->plugin_flags = plugin->flags;
    return FERRUM_OK;
}

static ferrum_status_t resolve(ferrum_module_t *module, const char *path, ferrum_error_t *err)
{
    const ferrum_plugin_t *plugin = &module->plugin;
    char missing[1024] = "", too_small[128] = "";
    ferrum_offer_t offer = {NULL, NULL, NULL};
    if (!plugin->probe)
        FERRUM_COPY_TEXT(missing, "plugin.probe");
    if (!plugin->get_interface) {
        ferrum_text_append(missing, sizeof missing, "%splugin.get_interface",
                           missing[0] ? ", " : "");
    } else {
        offer.backend = plugin->get_interface(FERRUM_INTERFACE_BACKEND, 0);
        offer.quant_llm = plugin->get_interface(FERRUM_INTERFACE_QUANT_LLM, 0);
        offer.moe_fused = plugin->get_interface(FERRUM_INTERFACE_MOE_FUSED, 0);
    }
    ferrum_tables_resolve(&offer, &module->tables, missing, sizeof missing, too_small,
                          sizeof too_small);
    if (too_small[0])
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_LENGTH,
                           "%s: these tables are smaller than ABI 1.0 allows: %s", path, too_small);
    if (missing[0]) {
        ferrum_log(&module->loader->logger, FERRUM_LOG_INFO, "%s lacks: %s", path, missing);
        return ferrum_fail(err, FERRUM_BAD_PLUGIN, FERRUM_REASON_NOT_IMPLEMENTED,
                           "%s lacks mandatory entries: %s", path, missing);
    }
    return FERRUM_OK;
}

/* A plugin that cannot work here stays open: its facts say why. */
static void probe_plugin(ferrum_module_t *module)
{
    ferrum_candidate_t *facts = &module->facts;
    ferrum_probe_t probe = {.head = FERRUM_HEAD(ferrum_probe_t)};
    ferrum_error_t error = FERRUM_ERROR_INIT;
    facts->status = module->plugin.probe(&module->host, &probe, &error);
    if (facts->status == FERRUM_OK) {
        probe.summary[sizeof probe.summary - 1] = '\0';
        FERRUM_COPY_TEXT(facts->summary, probe.summary);
        ferrum_text_clean(facts->summary);
        facts->score = probe.score;
        facts->device_count = probe.device_count;
        return;
    }
    if (error.status == FERRUM_OK)
        (void)ferrum_fail(&error, facts->status, FERRUM_REASON_OTHER,
                          "its probe failed with status %d and gave no reason", (int)facts->status);
    error.message[sizeof error.message - 1] = '\0';
    ferrum_text_clean(error.message);
    facts->error = error;
}

static void pin_if_asked(ferrum_module_t *module)
{
    if (module->plugin.flags & FERRUM_PLUGIN_PINNED)
        ferrum_library_pin(module->library, "the plugin asks for it");
    if (ferrum_options_switch(module->loader->options, "FERRUM_DISABLE_UNLOAD"))
        ferrum_library_pin(module->library, "FERRUM_DISABLE_UNLOAD is 1");
}

static void note_pinned(ferrum_module_t *module)
{
    const char *reason = ferrum_library_pinned_reason(module->library);
    module->facts.pinned = reason[0] != '\0';
    FERRUM_COPY_TEXT(module->facts.pinned_reason, reason);
}

static ferrum_status_t compose(ferrum_module_t *module, ferrum_error_t *err)
{
    uint64_t tokens = ferrum_options_uint(module->loader->options, "FERRUM_MOE_PREFILL_THRESHOLD");
    return ferrum_compose_expert_ffn(&module->tables, &module->loader->logger,
                                     tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX,
                                     &module->compose, err);
}

/* ---- life ---- */

/* Modules whose plugin still holds memory: its objects may call back into them. */
static pthread_mutex_t kept_mutex = PTHREAD_MUTEX_INITIALIZER;
static ferrum_module_t *kept_modules;

static void close_module(ferrum_module_t *module, ferrum_unload_report_t *out_report)
{
    ferrum_unload_report_t report = {0};
    char leak[96] = "";
    uint64_t blocks = atomic_load(&module->memory.blocks);
    report.leaked_blocks = blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks;
    report.leaked_bytes = atomic_load(&module->memory.bytes);
    if (blocks)
        (void)snprintf(leak, sizeof leak,
                       "%llu blocks with %llu bytes of host memory were not freed",
                       (unsigned long long)blocks, (unsigned long long)report.leaked_bytes);
    ferrum_library_fate_t fate = ferrum_library_close(module->library, blocks ? leak : NULL,
                                                      report.detail, sizeof report.detail);
    report.unloaded = fate == FERRUM_LIBRARY_GONE;
    report.pinned = fate == FERRUM_LIBRARY_PINNED;
    if (fate == FERRUM_LIBRARY_PINNED && blocks)
        ferrum_text_append(report.detail, sizeof report.detail, "; %s", leak);
    bool bad = blocks || fate == FERRUM_LIBRARY_ZOMBIE;
    ferrum_log(&module->loader->logger, bad ? FERRUM_LOG_WARN : FERRUM_LOG_DEBUG, "%s: %s",
               module->facts.path, report.detail);
    if (bad) {
        (void)pthread_mutex_lock(&kept_mutex);
        module->next_kept = kept_modules;
        kept_modules = module;
        (void)pthread_mutex_unlock(&kept_mutex);
    } else {
        ferrum_compose_free(module->compose);
        ferrum_loader_free(module->loader);
        ferrum_sys->release(module);
    }
    if (out_report)
        *out_report = report;
}

ferrum_status_t ferrum_module_open(ferrum_loader_t *loader, const char *path, ferrum_asked_t asked,
                                   ferrum_candidate_t *out_facts, ferrum_module_t **out_module,
                                   ferrum_error_t *err)
{
    const char *shown = ferrum_path_tail(path);
    ferrum_status_t status;
    ferrum_module_t *module = ferrum_sys->alloc(sizeof *module);
    if (!module)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE, "no memory to open %s",
                           shown);
    atomic_init(&module->refs, 1);
    module->loader = loader;
    init_host(module);
    FERRUM_COPY_TEXT(module->facts.path, path);
    module->facts.error.size = sizeof module->facts.error;

    status =
        ferrum_library_open(path, asked, loader->options, &loader->logger, &module->library, err);
    if (status != FERRUM_OK) {
        ferrum_sys->release(module);
        return status;
    }
    ferrum_loader_retain(loader);
    status = query_plugin(module, shown, err);
    if (status == FERRUM_OK)
        status = copy_facts(module, shown, err);
    if (status == FERRUM_OK)
        status = resolve(module, shown, err);
    if (status == FERRUM_OK)
        pin_if_asked(module);
    if (status == FERRUM_OK)
        status = compose(module, err);
    note_pinned(module);
    if (status == FERRUM_OK)
        probe_plugin(module);
    if (out_facts)
        *out_facts = module->facts;
    if (status != FERRUM_OK) {
        close_module(module, NULL);
        return status;
    }
    *out_module = module;
    return FERRUM_OK;
}

void ferrum_module_retain(ferrum_module_t *module)
{
    atomic_fetch_add(&module->refs, 1);
}

void ferrum_module_release(ferrum_module_t *module, ferrum_unload_report_t *out_report)
{
    if (module && atomic_fetch_sub(&module->refs, 1) == 1)
        close_module(module, out_report);
}

void ferrum_module_usage(const ferrum_module_t *module, uint32_t *out_references,
                         uint64_t *out_blocks, uint64_t *out_bytes)
{
    if (out_references)
        *out_references = atomic_load(&module->refs);
    if (out_blocks)
        *out_blocks = atomic_load(&module->memory.blocks);
    if (out_bytes)
        *out_bytes = atomic_load(&module->memory.bytes);
}

/* ---- facts ---- */

const char *ferrum_module_name(const ferrum_module_t *module)
{
    return module->facts.name;
}

const char *ferrum_module_path(const ferrum_module_t *module)
{
    return module->facts.path;
}

const ferrum_candidate_t *ferrum_module_candidate(const ferrum_module_t *module)
{
    return &module->facts;
}

const ferrum_plugin_t *ferrum_module_plugin(const ferrum_module_t *module)
{
    return &module->plugin;
}

const ferrum_host_t *ferrum_module_host(const ferrum_module_t *module)
{
    return &module->host;
}

const ferrum_backend_ops_t *ferrum_module_backend(const ferrum_module_t *module)
{
    return &module->tables.backend;
}

const ferrum_quant_llm_ops_t *ferrum_module_quant_llm(const ferrum_module_t *module)
{
    return &module->tables.quant_llm;
}

const ferrum_moe_fused_ops_t *ferrum_module_moe_fused(const ferrum_module_t *module)
{
    return &module->tables.moe_fused;
}

size_t ferrum_module_op_count(const ferrum_module_t *module)
{
    return ferrum_tables_count();
}

ferrum_resolved_op_t ferrum_module_op(const ferrum_module_t *module, size_t index)
{
    return ferrum_tables_op(&module->tables, index);
}

ferrum_resolution_t ferrum_module_op_resolution(const ferrum_module_t *module, const char *table,
                                                const char *name)
{
    return ferrum_tables_how(&module->tables, table, name);
}
