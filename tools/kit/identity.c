/* SPDX-License-Identifier: MIT */
/* What a plugin says about itself, asked through the loader and directly. */
#include "plugin/text.h"
#include "tools/kit/raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(cf_suite_t *suite, const char *key, const char *value)
{
    if (value[0] != '\0')
        suite->report(suite->report_arg, CF_FACT, key, value);
}

static void say_facts(cf_suite_t *suite, const ferrum_candidate_t *facts)
{
    char abi[64];
    snprintf(abi, sizeof abi, "%u.%u, needs %u.%u or newer", FERRUM_ABI_MAJOR, facts->abi_minor,
             FERRUM_ABI_MAJOR, facts->abi_minor_min);
    say(suite, "name", facts->name);
    say(suite, "version", facts->version);
    say(suite, "about", facts->description);
    say(suite, "abi", abi);
    say(suite, "license", facts->license);
    say(suite, "pinned", facts->pinned_reason);
    say(suite, "machine", facts->status == FERRUM_OK ? facts->summary : facts->error.message);
}

static bool is_line(const char *text)
{
    size_t length;
    while ((length = ferrum_text_char((const unsigned char *)text)) > 0)
        text += length;
    return *text == '\0';
}

static void judge_facts(cf_suite_t *suite, const ferrum_candidate_t *facts,
                        const ferrum_plugin_t *said)
{
    const char *slash = strrchr(suite->path, '/'), *file = slash ? slash + 1 : suite->path;
    char expected[80];
    cf_begin(suite, "the file is named after the plugin");
    snprintf(expected, sizeof expected, "%.64s.so", facts->name);
    if (strcmp(file, expected) != 0)
        cf_advise(suite, "it is %.64s, FERRUM_BACKEND=%.64s will look for %.70s", file, facts->name,
                  expected);
    cf_end(suite);

    cf_begin(suite, "version, description and license say something");
    if (!facts->version[0] || !facts->description[0] || !facts->license[0])
        cf_fail(suite, "version \"%s\", description \"%s\", license \"%s\"", facts->version,
                facts->description, facts->license);
    else if (!is_line(said->version) || !is_line(said->description) || !is_line(said->license))
        cf_fail(suite, "they are not one line of UTF-8 each");
    cf_end(suite);

    cf_begin(suite, "it can be unloaded");
    if (facts->pinned)
        cf_advise(suite, "it is never unloaded: %s", facts->pinned_reason);
    cf_end(suite);

    cf_begin(suite, "the probe says what it found");
    if (facts->status == FERRUM_OK && facts->summary[0] == '\0')
        cf_advise(suite, "its summary is empty");
    else if (facts->status != FERRUM_OK && cf_error_flaw(facts->status, &facts->error) != NULL)
        cf_fail(suite, "it fails, but the error struct is not right: %s",
                cf_error_flaw(facts->status, &facts->error));
    cf_end(suite);
}

/* ---- the query itself ---- */

typedef struct counting_host {
    ferrum_host_t host;
    ferrum_allocator_t allocator;
    ferrum_logger_t logger;
    unsigned allocations;
    const ferrum_options_t *options;
} counting_host_t;

static void *count_alloc(void *self, size_t bytes, size_t align)
{
    (void)align;
    ((counting_host_t *)self)->allocations++;
    return calloc(1, bytes);
}

static void count_free(void *self, void *block, size_t bytes)
{
    (void)self;
    (void)bytes;
    free(block);
}

static void drop_line(void *self, ferrum_log_level_t level, const char *message)
{
    (void)self;
    (void)level;
    (void)message;
}

static const char *host_option(void *self, const char *name)
{
    return ferrum_options_get(((counting_host_t *)self)->options, name);
}

static void init_host(cf_suite_t *suite, counting_host_t *h)
{
    *h = (counting_host_t){.options = ferrum_loader_options(suite->loader)};
    h->allocator =
        (ferrum_allocator_t){FERRUM_HEAD(ferrum_allocator_t), h, count_alloc, count_free};
    h->logger = (ferrum_logger_t){FERRUM_HEAD(ferrum_logger_t), h, FERRUM_LOG_ERROR, 0, drop_line};
    h->host = (ferrum_host_t){.head = FERRUM_HEAD(ferrum_host_t),
                              .abi_minor = FERRUM_ABI_MINOR,
                              .allocator = &h->allocator,
                              .logger = &h->logger,
                              .self = h,
                              .option = host_option};
}

/* One query into guarded memory of `size` bytes. */
static ferrum_status_t ask(const cf_raw_t *raw, const ferrum_host_t *host, uint32_t size,
                           cf_guarded_t *memory)
{
    cf_guard(memory);
    memset(memory->bytes, 0, size);
    memory->head = (ferrum_head_t){size, host->abi_minor};
    return raw->query(host, (ferrum_plugin_t *)(void *)memory);
}

static void query_cases(cf_suite_t *suite, const cf_raw_t *raw)
{
    counting_host_t h;
    cf_guarded_t first, again;
    init_host(suite, &h);
    cf_begin(suite, "two queries say the same and allocate nothing");
    ferrum_status_t status = ask(raw, &h.host, sizeof(ferrum_plugin_t), &first);
    if (status != FERRUM_OK || ask(raw, &h.host, sizeof(ferrum_plugin_t), &again) != FERRUM_OK)
        cf_fail(suite, "the query fails with status %d", status);
    else if (memcmp(&first, &again, sizeof first) != 0)
        cf_fail(suite, "the second query fills in something else");
    else if (h.allocations > 0)
        cf_fail(suite, "the query allocates");
    cf_end(suite);

    static const uint32_t sizes[] = {FERRUM_PLUGIN_MIN_SIZE, sizeof(ferrum_plugin_t),
                                     sizeof(ferrum_plugin_t) + 64};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        cf_begin(suite, "query by a host that knows %u bytes of ferrum_plugin_t", sizes[i]);
        status = ask(raw, &h.host, sizes[i], &again);
        if (status != FERRUM_OK)
            cf_fail(suite, "status %d", status);
        else if (!cf_is_guarded(&again, sizes[i]) || again.head.size > sizes[i])
            cf_fail(suite, "writes, or says it wrote, more than the host has room for");
        cf_end(suite);
    }

    cf_begin(suite, "query by a much newer host");
    h.host.abi_minor = 1000;
    status = ask(raw, &h.host, sizeof(ferrum_plugin_t), &again);
    if (status != FERRUM_OK)
        cf_fail(suite, "status %d; a newer host only knows more", status);
    cf_end(suite);

    cf_begin(suite, "query by a host that takes only later plugins");
    h.host.abi_minor_min = 1000;
    status = ask(raw, &h.host, sizeof(ferrum_plugin_t), &again);
    if (status != FERRUM_OK && status != FERRUM_VERSION_MISMATCH)
        cf_fail(suite, "status %d, expected success or VERSION_MISMATCH", status);
    cf_end(suite);
}

static void interface_cases(cf_suite_t *suite, const cf_raw_t *raw)
{
    counting_host_t h;
    cf_guarded_t memory;
    const ferrum_plugin_t *plugin = (const ferrum_plugin_t *)(const void *)&memory;
    init_host(suite, &h);
    cf_begin(suite, "interfaces");
    if (ask(raw, &h.host, sizeof *plugin, &memory) == FERRUM_OK && plugin->get_interface != NULL) {
        const void *table = plugin->get_interface(FERRUM_INTERFACE_BACKEND, 0);
        if (plugin->get_interface("ferrum.nosuch/1", 0) != NULL)
            cf_fail(suite, "an unknown id gets a table");
        else if (plugin->get_interface(FERRUM_INTERFACE_BACKEND, 1000000) != NULL)
            cf_fail(suite, "a table of version 1000000 is promised: mind min_version");
        else if (table == NULL || table != plugin->get_interface(FERRUM_INTERFACE_BACKEND, 0))
            cf_fail(suite, "two questions for one table get two answers");
    }
    cf_end(suite);

    cf_begin(suite, "probe by hosts that know less and more");
    static const uint32_t sizes[] = {FERRUM_PROBE_MIN_SIZE, sizeof(ferrum_probe_t) + 64};
    for (size_t i = 0; i < 2 && plugin->probe != NULL; i++) {
        cf_guarded_t probe;
        ferrum_error_t err = FERRUM_ERROR_INIT;
        cf_guard(&probe);
        memset(probe.bytes, 0, sizes[i]);
        probe.head = (ferrum_head_t){sizes[i], FERRUM_ABI_MINOR};
        (void)plugin->probe(&h.host, (ferrum_probe_t *)(void *)&probe, &err);
        if (!cf_is_guarded(&probe, sizes[i]))
            cf_fail(suite, "writes behind a ferrum_probe_t of %u bytes", sizes[i]);
    }
    cf_end(suite);

    char names[160];
    cf_begin(suite, "exports one symbol");
    unsigned others = cf_raw_exports(raw, names, sizeof names);
    if (others > 0)
        cf_advise(suite, "%u more than " FERRUM_PLUGIN_SYMBOL ": %s; link with -fvisibility=hidden",
                  others, names);
    cf_end(suite);
}

void cf_group_identity(cf_suite_t *suite)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_unload_report_t report;
    ferrum_module_t *module = NULL;
    if (ferrum_loader_open(suite->loader, suite->path, &module, &err) != FERRUM_OK) {
        cf_fail(suite, "%s", err.message);
        cf_end(suite);
        return;
    }
    cf_end(suite);
    say_facts(suite, ferrum_module_candidate(module));
    judge_facts(suite, ferrum_module_candidate(module), ferrum_module_plugin(module));
    cf_begin(suite, "unloading");
    ferrum_module_release(module, &report);
    cf_judge_unload(suite, &report);
    cf_end(suite);

    cf_raw_t raw;
    cf_begin(suite, "mapping without the loader");
    bool mapped = cf_raw_open(suite, &raw);
    cf_end(suite);
    if (!mapped)
        return;
    query_cases(suite, &raw);
    interface_cases(suite, &raw);
    cf_raw_close(&raw);
}
