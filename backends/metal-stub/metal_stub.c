/* SPDX-License-Identifier: MIT */
/*
 * metal-stub: the least that a Ferrum backend can be, and the skeleton to start a new one from.
 *
 * Devices, contexts and buffers live; nothing computes. Every entry that a table leaves out is
 * answered by the loader: FERRUM_UNSUPPORTED, with a message that names the entry. To make a
 * backend of it, give it a name, fill in entries one by one, and run the conformance suite after
 * each: docs/writing-a-backend.md walks through it.
 *
 * What every backend keeps to: memory comes from host->allocator; no threads, no printing, no
 * getenv, no global state that changes. That is why a plugin can be unloaded again.
 */
#include <ferrum/backend.h>
#include <ferrum/moe_fused.h>
#include <ferrum/plain_objects.h>
#include <ferrum/plugin.h>
#include <ferrum/quant_llm.h>
#include <ferrum/util.h>

#include <string.h>

/* ---- the device ---- */

/* Contexts and buffers are those of plain_objects.h, in the host's memory. A backend with memory of
 * its own writes these entries itself, with a device address where the data pointer is. */
static ferrum_status_t device_info(const ferrum_device_t *device, ferrum_device_info_t *out_info,
                                   ferrum_error_t *err)
{
    const ferrum_device_info_t info = {.head = FERRUM_HEAD(ferrum_device_info_t),
                                       .activation_dtype = FERRUM_DTYPE_F32,
                                       .name = "metal-stub",
                                       .detail = "computes nothing"};
    return ferrum_plain_answer(out_info, &info, sizeof info);
}

/* ---- what is not there ---- */

/* Asked before a loader or op is called. A real backend looks at the problem and refuses with the
 * reason that fits: FERRUM_REASON_BITS, FERRUM_REASON_GROUP_SIZE, ... */
static ferrum_status_t supports(ferrum_device_t *device, const ferrum_problem_t *problem,
                                ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_NOT_IMPLEMENTED,
                       "metal-stub computes nothing; choose another backend with FERRUM_BACKEND");
}

/* ---- the tables: an entry that is left out is NULL, and the loader answers for it ---- */

static const ferrum_backend_ops_t backend_ops = {
    .head = FERRUM_HEAD(ferrum_backend_ops_t),
    FERRUM_PLAIN_OBJECTS(device_info),
};

static const ferrum_quant_llm_ops_t quant_llm_ops = {
    .head = FERRUM_HEAD(ferrum_quant_llm_ops_t),
    .supports = supports,
};

static const ferrum_moe_fused_ops_t moe_fused_ops = {
    .head = FERRUM_HEAD(ferrum_moe_fused_ops_t),
    .supports = supports,
};

static const void *get_interface(const char *id, uint32_t min_version)
{
    if (min_version > FERRUM_ABI_MINOR)
        return NULL; /* a host that wants more than this minor has */
    if (strcmp(id, FERRUM_INTERFACE_BACKEND) == 0)
        return &backend_ops;
    if (strcmp(id, FERRUM_INTERFACE_QUANT_LLM) == 0)
        return &quant_llm_ops;
    if (strcmp(id, FERRUM_INTERFACE_MOE_FUSED) == 0)
        return &moe_fused_ops;
    return NULL;
}

/* A score of 0 keeps it out of every choice; a real backend looks for its device here. */
static ferrum_status_t probe(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                             ferrum_error_t *err)
{
    const ferrum_probe_t found = {.head = FERRUM_HEAD(ferrum_probe_t),
                                  .score = 0,
                                  .device_count = 1,
                                  .summary = "a skeleton for new backends, it computes nothing"};
    return ferrum_plain_answer(out_probe, &found, sizeof found);
}

ferrum_status_t ferrum_plugin_query_v1(const ferrum_host_t *host, ferrum_plugin_t *out_plugin)
{
    const ferrum_plugin_t plugin = {
        .head = FERRUM_HEAD(ferrum_plugin_t),
        .abi_minor = FERRUM_ABI_MINOR,
        .abi_minor_min = 0,
        .name = "metal-stub",
        .version = "0.1.0",
        .description = "Skeleton of a backend: objects live, nothing computes",
        .license = "MIT",
        .probe = probe,
        .get_interface = get_interface,
    };
    if (out_plugin->head.size < FERRUM_PLUGIN_MIN_SIZE)
        return FERRUM_VERSION_MISMATCH;
    return ferrum_plain_answer(out_plugin, &plugin, sizeof plugin);
}
