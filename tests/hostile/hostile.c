/* SPDX-License-Identifier: MIT */
/*
 * A plugin that does its worst. It is metal-stub under another name; the words in FERRUM_CPU_MASK,
 * an option that the loader passes on unread, say what goes wrong and where. What has to be in the
 * file itself (another symbol, imports, linker flags) is chosen when it is compiled.
 */
#include "config.h"

#define ferrum_plugin_query_v1 metal_stub_query
#include "backends/metal-stub/metal_stub.c"
#undef ferrum_plugin_query_v1

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef HOSTILE_SYMBOL
#define HOSTILE_SYMBOL ferrum_plugin_query_v1
#endif
#ifndef HOSTILE_NAME
#define HOSTILE_NAME "hostile"
#endif
FERRUM_PLUGIN_EXPORT ferrum_plugin_query_fn HOSTILE_SYMBOL;

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

static int *volatile nowhere; /* so that the compiler cannot see what comes of it */

/* Crimes that a sanitizer would report before they crash. */
#define UNWATCHED __attribute__((no_sanitize("undefined", "address")))

UNWATCHED static void crash(void)
{
    *nowhere = 1;
}

static void hang(void)
{
    for (;;)
        (void)pause();
}

/* Whatever ends a process, at the place that the word before the dash names. */
static void misbehave_at(const char *place)
{
    static const struct {
        const char *word;
        void (*deed)(void);
    } deeds[] = {{"crash", crash}, {"hang", hang}, {"abort", abort}};
    char word[64];
    for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        (void)snprintf(word, sizeof word, "%s-%s", deeds[i].word, place);
        if (wants(word))
            deeds[i].deed();
    }
    (void)snprintf(word, sizeof word, "exit-%s", place);
    if (wants(word))
        _Exit(0);
    (void)snprintf(word, sizeof word, "print-%s", place);
    if (wants(word))
        (void)!write(STDOUT_FILENO, "hello\n", 6);
    (void)snprintf(word, sizeof word, "deaf-%s", place);
    if (wants(word)) { /* cannot be asked to stop */
        sigset_t all;
        (void)sigfillset(&all);
        (void)sigprocmask(SIG_BLOCK, &all, NULL);
        hang();
    }
}

#ifdef HOSTILE_CONSTRUCTOR
__attribute__((constructor)) static void before_the_query(void)
{
    crash();
}
#endif

#ifdef HOSTILE_IMPORTS
/* Reasons to keep the code mapped; none of them is called. */
FERRUM_PLUGIN_EXPORT void *const hostile_imports[] = {(void *)pthread_key_create};
#endif

#ifdef HOSTILE_UNDEFINED
extern int hostile_function_that_nobody_has(void);
FERRUM_PLUGIN_EXPORT int (*const hostile_undefined)(void) = hostile_function_that_nobody_has;
#endif

#ifdef HOSTILE_THREAD
static void *stay(void *arg)
{
    hang();
    return arg;
}
#endif

/* ---- objects and operations ---- */

static ferrum_status_t hostile_device_open(const ferrum_host_t *host,
                                           const ferrum_device_options_t *options,
                                           ferrum_device_t **out_device, ferrum_error_t *err)
{
    misbehave_at("create");
    if (wants("null-device")) {
        *out_device = NULL;
        return FERRUM_OK;
    }
    if (wants("silent-create"))
        return FERRUM_DEVICE_ERROR;
    if (wants("lines-create"))
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "no device\nsorry");
    return ferrum_plain_device_open(host, options, out_device, err);
}

static void hostile_device_release(ferrum_device_t *device)
{
    if (!device && wants("crash-null"))
        crash();
    ferrum_plain_device_release(device);
}

static ferrum_status_t hostile_device_info(const ferrum_device_t *device,
                                           ferrum_device_info_t *out_info, ferrum_error_t *err)
{
    ferrum_status_t status = device_info(device, out_info, err);
    if (wants("scribble-info")) /* as if every host knew as much as this plugin */
        memset((char *)out_info + sizeof *out_info - 8, 0, 40);
    return status;
}

UNWATCHED static ferrum_status_t add_inplace(ferrum_context_t *ctx, ferrum_buffer_t *r,
                                             const ferrum_buffer_t *x, uint64_t len,
                                             ferrum_error_t *err)
{
    unsigned char *to, *from;
    static uint32_t calls;
    misbehave_at("forward");
    if (wants("unchecked-forward")) { /* believes whatever it is given */
        to = r->data, from = x->data;
    } else {
        to = ferrum_plain_range(r, FERRUM_DTYPE_F32, 0, len, err);
        if (to && wants("half-forward")) /* writes before it has looked at everything */
            memset(to, 0, len * sizeof(float));
        from = to ? ferrum_plain_range(x, FERRUM_DTYPE_F32, 0, len, err) : NULL;
        if (!from)
            return FERRUM_INVALID_ARGUMENT;
    }
    if (wants("refuse-forward"))
        return FERRUM_UNSUPPORTED; /* and does not say why */
    for (uint64_t i = 0; i < len; i++)
        ((float *)to)[i] += ((const float *)from)[i];
    if (wants("wrong-forward") && len > 0)
        ((float *)to)[len - 1] += 1;
    if (wants("random-forward") && len > 0) /* right to seven digits, but never the same twice */
        ((float *)to)[0] += (float)(++calls % 7) * 1e-7F;
    if (wants("beyond-forward"))
        ((float *)to)[len] = 0;
    if (wants("leak-forward"))
        (void)ctx->device->host->allocator->alloc(ctx->device->host->allocator->self, 48, 8);
    return FERRUM_OK;
}

/* ---- the plugin ---- */

/* A table in memory of which not a byte more than said is there. */
static _Alignas(16) unsigned char tables[3][2048];

static const void *make_table(int index, const void *from, size_t size, size_t min_size,
                              const char *word)
{
    ferrum_head_t *head = (ferrum_head_t *)(void *)tables[index];
    char short_word[32], empty_word[32], huge_word[32];
    memcpy(tables[index], from, size);
    (void)snprintf(short_word, sizeof short_word, "short-%s", word);
    (void)snprintf(empty_word, sizeof empty_word, "empty-%s", word);
    (void)snprintf(huge_word, sizeof huge_word, "huge-%s", word);
    if (wants(short_word))
        head->size = (uint32_t)min_size - 1;
    if (wants(empty_word))
        head->size = 0;
    if (wants(huge_word))
        head->size = UINT32_MAX;
    return tables[index];
}

static const void *hostile_interface(const char *id, uint32_t min_version)
{
    misbehave_at("interface");
    if (min_version > FERRUM_ABI_MINOR && !wants("promise"))
        return NULL;
    if (strcmp(id, FERRUM_INTERFACE_BACKEND) == 0) {
        ferrum_backend_ops_t ops = backend_ops;
        ops.device_open = hostile_device_open;
        ops.device_release = hostile_device_release;
        ops.device_info = hostile_device_info;
        ops.add_inplace = add_inplace;
        if (wants("null-slot"))
            ops.context_new = NULL;
        if (wants("null-slots"))
            memset((char *)&ops + sizeof ops.head, 0, sizeof ops - sizeof ops.head);
        if (wants("half-events"))
            ops.event_new = (ferrum_status_t(*)(ferrum_device_t *, ferrum_event_t **,
                                                ferrum_error_t *))(void *)hostile_device_info;
        return wants("no-backend")
                   ? NULL
                   : make_table(0, &ops, sizeof ops, FERRUM_BACKEND_OPS_MIN_SIZE, "backend");
    }
    if (strcmp(id, FERRUM_INTERFACE_QUANT_LLM) == 0)
        return make_table(1, &quant_llm_ops, sizeof quant_llm_ops, FERRUM_QUANT_LLM_OPS_MIN_SIZE,
                          "quant");
    if (strcmp(id, FERRUM_INTERFACE_MOE_FUSED) == 0)
        return make_table(2, &moe_fused_ops, sizeof moe_fused_ops, FERRUM_MOE_FUSED_OPS_MIN_SIZE,
                          "moe");
    return wants("promise") ? tables[0] : NULL;
}

static ferrum_status_t hostile_probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                                     ferrum_error_t *err)
{
    misbehave_at("probe");
    out_probe->score = 1000;
    out_probe->device_count = 1;
    if (wants("silent-probe"))
        return FERRUM_DEVICE_ERROR;
    if (wants("odd-probe"))
        return 4711;
    if (wants("unterminated"))
        memset(out_probe->summary, 'x', sizeof out_probe->summary);
    if (wants("leak-probe"))
        (void)host->allocator->alloc(host->allocator->self, 100, 8);
    if (wants("useless"))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NO_DEVICE, "nothing here");
#ifdef HOSTILE_THREAD
    pthread_t thread;
    if (wants("thread-stays") && pthread_create(&thread, NULL, stay, NULL) == 0)
        (void)pthread_detach(thread);
#endif
    return FERRUM_OK;
}

static void lie_about_versions(ferrum_plugin_t *out_plugin)
{
    if (wants("needs-newer"))
        out_plugin->abi_minor = out_plugin->abi_minor_min = 900;
    if (wants("contradicts"))
        out_plugin->abi_minor_min = out_plugin->abi_minor + 1;
    if (wants("future"))
        out_plugin->abi_minor = UINT32_MAX, out_plugin->abi_minor_min = 0;
    if (wants("short-plugin"))
        out_plugin->head.size = FERRUM_PLUGIN_MIN_SIZE - 1;
    if (wants("huge-plugin"))
        out_plugin->head.size = UINT32_MAX;
}

ferrum_status_t HOSTILE_SYMBOL(const ferrum_host_t *host, ferrum_plugin_t *out_plugin)
{
    static const char long_name[] = "a-name-that-is-much-longer-than-any-name-of-a-backend-has-to-"
                                    "be-and-than-a-candidate-has-room-for";
    wanted = host->option(host->self, "FERRUM_CPU_MASK");
    misbehave_at("query");
    if (wants("lazy"))
        return FERRUM_OK; /* and fills nothing in */
    if (wants("odd-query"))
        return 12345;
    if (wants("mismatch"))
        return FERRUM_VERSION_MISMATCH;
    ferrum_status_t status = metal_stub_query(host, out_plugin);
    out_plugin->name = wants("null-name")    ? NULL
                       : wants("empty-name") ? ""
                       : wants("path-name")  ? "../cpu"
                       : wants("long-name")  ? long_name
                                             : HOSTILE_NAME;
    if (wants("null-version"))
        out_plugin->version = NULL;
    if (wants("null-license"))
        out_plugin->license = NULL;
    if (wants("lines"))
        out_plugin->description = "two\nlines";
    out_plugin->probe = wants("null-probe") ? NULL : hostile_probe;
    out_plugin->get_interface = wants("null-interface") ? NULL : hostile_interface;
    if (wants("overflow")) /* as if every host had room for more */
        memset((char *)out_plugin + sizeof *out_plugin, 0, 64);
    lie_about_versions(out_plugin);
    return status;
}
