/* SPDX-License-Identifier: MIT */
/**
 * @file plugin.h
 * @brief The one symbol a plugin exports, and how its interfaces are found.
 */
#ifndef FERRUM_PLUGIN_H
#define FERRUM_PLUGIN_H

#include <ferrum/host.h>
#include <ferrum/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Interface ids for ferrum_plugin_t.get_interface. The number is the interface's own major.
 *  The tables are ferrum_backend_ops_t, ferrum_quant_llm_ops_t and ferrum_moe_fused_ops_t. */
#define FERRUM_INTERFACE_BACKEND "ferrum.backend/1"
#define FERRUM_INTERFACE_QUANT_LLM "ferrum.quant_llm/1"
#define FERRUM_INTERFACE_MOE_FUSED "ferrum.moe_fused/1"

/** Name of the exported symbol. It carries the ABI major, so another major fails at dlsym. */
#define FERRUM_PLUGIN_SYMBOL "ferrum_plugin_query_v1"

/** Flags of ferrum_plugin_t. Unknown bits are ignored by older hosts. */
enum {
    /** The code must stay mapped for the life of the process (a driver keeps threads in it, say).
     *  The host never unloads it and says why. */
    FERRUM_PLUGIN_PINNED = 1u << 0
};

/**
 * Whether and how well a plugin can work on this machine, filled by ferrum_plugin_t.probe.
 */
typedef struct ferrum_probe {
    ferrum_head_t head;
    int32_t score;         /**< larger is better; `auto` picks the largest; 0 or less: not usable */
    uint32_t device_count; /**< devices that device_open accepts: ordinals 0 .. device_count-1 */
    char summary[128];     /**< one line for people: "AVX-512, 2 threads" */
} ferrum_probe_t;

/** Frozen least size of ferrum_probe_t. */
#define FERRUM_PROBE_MIN_SIZE 144u

/**
 * What a plugin says about itself. The host zeroes it, sets `head` to its own size and passes it
 * to the query; the plugin fills what fits and sets head.size to what it has filled.
 */
typedef struct ferrum_plugin {
    ferrum_head_t head;
    uint32_t abi_minor;      /**< minor that the plugin was built with */
    uint32_t abi_minor_min;  /**< least host minor that it can work with */
    const char *name;        /**< short, [a-z0-9-]+, the name used in FERRUM_BACKEND; static */
    const char *version;     /**< the plugin's own version; static */
    const char *description; /**< one line; static */
    const char *license;     /**< SPDX expression; static */
    uint64_t flags;          /**< FERRUM_PLUGIN_* */
    /**
     * Look at the machine. May open devices but must close them again. Mandatory.
     * @param host      the host passed to the query
     * @param out_probe head is set by the caller
     * @return FERRUM_OK, or FERRUM_UNSUPPORTED with a reason (no driver, missing CPU features)
     * [init] Since 1.0.
     */
    ferrum_status_t (*probe)(const ferrum_host_t *host, ferrum_probe_t *out_probe,
                             ferrum_error_t *err);
    /**
     * Find a table by id (FERRUM_INTERFACE_*). Mandatory.
     * @param min_version least table version (its head.version) the host can use
     * @return the table, valid while the plugin is loaded, or NULL. Entries that the plugin does
     *         not implement are NULL in it; the loader substitutes stubs in its own copy.
     * [any-thread] Since 1.0.
     */
    const void *(*get_interface)(const char *id, uint32_t min_version);
} ferrum_plugin_t;

/** Frozen least size of ferrum_plugin_t. */
#define FERRUM_PLUGIN_MIN_SIZE 72u

/**
 * The exported function of every plugin.
 *
 * It is pure: it starts nothing, touches no device, and executes no instruction beyond the
 * architecture's baseline. @p host may be kept only by objects that are created later through the
 * tables (device_open receives it again); the query itself stores nothing.
 *
 * @return FERRUM_OK, or FERRUM_VERSION_MISMATCH when the host's window does not fit
 * [init] Since 1.0.
 */
typedef ferrum_status_t ferrum_plugin_query_fn(const ferrum_host_t *host,
                                               ferrum_plugin_t *out_plugin);

#if defined(__GNUC__)
#define FERRUM_PLUGIN_EXPORT __attribute__((visibility("default")))
#else
#define FERRUM_PLUGIN_EXPORT
#endif

/** The definition that a plugin provides; see ferrum_plugin_query_fn. */
FERRUM_PLUGIN_EXPORT ferrum_status_t ferrum_plugin_query_v1(const ferrum_host_t *host,
                                                            ferrum_plugin_t *out_plugin);

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_PLUGIN_H */
