/* SPDX-License-Identifier: MIT */
/*
 * A plugin that misbehaves on request. It is metal-stub under another name; the words in
 * FERRUM_CPU_MASK, an option that the loader passes on unread, say what goes wrong. What has to be
 * in the file itself (another symbol, linker flags, libraries) is chosen when it is compiled.
 */
#include "config.h"

#define ferrum_plugin_query_v1 metal_stub_query
#include "backends/metal-stub/metal_stub.c"
#undef ferrum_plugin_query_v1

#ifdef FIXTURE_THREAD
#include <pthread.h>
#include <unistd.h>
#endif

#ifndef FIXTURE_SYMBOL
#define FIXTURE_SYMBOL ferrum_plugin_query_v1
#endif
FERRUM_PLUGIN_EXPORT ferrum_plugin_query_fn FIXTURE_SYMBOL;

#ifdef FIXTURE_GOMP
/* A reason to link libgomp. Its threads are not even started. */
extern int omp_get_max_threads(void);
FERRUM_PLUGIN_EXPORT int (*const fixture_gomp)(void) = omp_get_max_threads;
#endif

#ifdef FIXTURE_UNIQUE
FERRUM_PLUGIN_EXPORT extern int fixture_unique;
__asm__(".pushsection .data\n"
        ".globl fixture_unique\n"
        ".type fixture_unique, %gnu_unique_object\n"
        ".size fixture_unique, 4\n"
        "fixture_unique: .long 1\n"
        ".popsection\n");
#endif

/* Test plugins may have state; real ones may not. */
static const char *wanted;

static int wants(const char *word)
{
    size_t n = strlen(word);
    for (const char *at = wanted; at && *at; at += strcspn(at, " "), at += *at == ' ')
        if (strncmp(at, word, n) == 0 && (at[n] == '\0' || at[n] == ' '))
            return 1;
    return 0;
}

#ifdef FIXTURE_THREAD
static void *stay(void *arg)
{
    for (;;)
        (void)pause();
    return arg;
}

static void *leave(void *arg)
{
    return arg;
}

static void start_threads(void)
{
    pthread_t thread;
    if (wants("thread-joined") && pthread_create(&thread, NULL, leave, NULL) == 0)
        (void)pthread_join(thread, NULL);
    if (wants("thread-stays") && pthread_create(&thread, NULL, stay, NULL) == 0)
        (void)pthread_detach(thread);
}
#endif

static ferrum_status_t fixture_probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                                     ferrum_error_t *err)
{
    static const char summary[] = "a test plugin";
    if (wants("probe-fails"))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DRIVER, "no fixture driver");
    if (wants("probe-silent"))
        return FERRUM_DEVICE_ERROR;
    if (wants("leak"))
        (void)host->allocator->alloc(host->allocator->self, 100, 8);
#ifdef FIXTURE_THREAD
    start_threads();
#endif
    out_probe->score = FIXTURE_SCORE;
    out_probe->device_count = 1;
    memcpy(out_probe->summary, summary, sizeof summary);
    return FERRUM_OK;
}

/* Tables as a plugin of another minor has them: `size` bytes, filler where ours end. */
typedef union table {
    ferrum_backend_ops_t backend;
    ferrum_quant_llm_ops_t quant_llm;
    ferrum_moe_fused_ops_t moe_fused;
    unsigned char bytes[1024];
} table_t;
static table_t tables[3];

static const void *copy_table(table_t *copy, const void *from, size_t size, size_t min_size)
{
    memset(copy->bytes, 0xa5, sizeof copy->bytes); /* entries that must not be looked at */
    memcpy(copy->bytes, from, size);
    if (wants("newer"))
        copy->backend.head.size = sizeof copy->bytes;
    if (wants("older")) {
        memset(copy->bytes + min_size, 0xa5, sizeof copy->bytes - min_size);
        copy->backend.head.size = (uint32_t)min_size;
    }
    if (wants("tiny-table"))
        copy->backend.head.size = (uint32_t)min_size - 1;
    return copy;
}

static const void *fixture_interface(const char *id, uint32_t min_version)
{
    if (strcmp(id, FERRUM_INTERFACE_BACKEND) == 0) {
        (void)copy_table(&tables[0], &backend_ops, sizeof backend_ops, FERRUM_BACKEND_OPS_MIN_SIZE);
        if (wants("missing")) {
            tables[0].backend.device_open = NULL;
            tables[0].backend.buffer_zero = NULL;
        }
        return wants("no-backend") ? NULL : &tables[0];
    }
    if (wants("older") && strcmp(id, FERRUM_INTERFACE_MOE_FUSED) == 0)
        return NULL;
    if (strcmp(id, FERRUM_INTERFACE_QUANT_LLM) == 0)
        return copy_table(&tables[1], &quant_llm_ops, sizeof quant_llm_ops,
                          FERRUM_QUANT_LLM_OPS_MIN_SIZE);
    if (strcmp(id, FERRUM_INTERFACE_MOE_FUSED) == 0)
        return copy_table(&tables[2], &moe_fused_ops, sizeof moe_fused_ops,
                          FERRUM_MOE_FUSED_OPS_MIN_SIZE);
    return NULL;
}

ferrum_status_t FIXTURE_SYMBOL(const ferrum_host_t *host, ferrum_plugin_t *out_plugin)
{
    wanted = host->option(host->self, "FERRUM_CPU_MASK");
    ferrum_status_t status = metal_stub_query(host, out_plugin);
    out_plugin->name = wants("no-name") ? NULL : wants("bad-name") ? "Bad/Name" : FIXTURE_NAME;
    out_plugin->probe = wants("missing") ? NULL : fixture_probe;
    out_plugin->get_interface = wants("no-interfaces") ? NULL : fixture_interface;
    if (wants("newer")) {
        out_plugin->abi_minor = 7;
        out_plugin->abi_minor_min = 0;
    }
    if (wants("needs-newer")) {
        out_plugin->abi_minor = 7;
        out_plugin->abi_minor_min = 5;
    }
    if (wants("contradictory"))
        out_plugin->abi_minor_min = out_plugin->abi_minor + 1;
    if (wants("pinned"))
        out_plugin->flags |= FERRUM_PLUGIN_PINNED;
    if (wants("tiny"))
        out_plugin->head.size = FERRUM_PLUGIN_MIN_SIZE - 1;
    if (wants("mismatch"))
        return FERRUM_VERSION_MISMATCH;
    if (wants("query-fails"))
        return FERRUM_INTERNAL;
    return status;
}
