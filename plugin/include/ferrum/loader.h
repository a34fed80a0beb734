/* SPDX-License-Identifier: MIT */
/**
 * @file loader.h
 * @brief Finding, verifying, opening and unloading backend plugins; the FERRUM_* options.
 *
 * The usual way in is a runtime (ferrum/moe.h), which does all this. Use the loader directly to
 * list plugins or to drive a backend's tables yourself.
 */
#ifndef FERRUM_LOADER_H
#define FERRUM_LOADER_H

#include <ferrum/backend.h>
#include <ferrum/host.h>
#include <ferrum/moe_fused.h>
#include <ferrum/plugin.h>
#include <ferrum/quant_llm.h>
#include <ferrum/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FERRUM_API __attribute__((visibility("default")))
#else
#define FERRUM_API
#endif

/* ---- options: one table of every FERRUM_* variable ---- */

/** How the text of an option is read. */
typedef enum ferrum_option_kind {
    FERRUM_OPTION_TEXT,       /**< any text */
    FERRUM_OPTION_PATHS,      /**< absolute directories separated by ':' */
    FERRUM_OPTION_UINT,       /**< decimal number; the default when it does not parse */
    FERRUM_OPTION_ON_IF_1,    /**< on only for exactly "1" */
    FERRUM_OPTION_OFF_IF_0,   /**< off only for exactly "0" */
    FERRUM_OPTION_IF_PRESENT, /**< on for any value */
    FERRUM_OPTION_TRISTATE    /**< "1" forces, "0" forbids, unset decides by itself */
} ferrum_option_kind_t;

/** One row of the table. All strings are static. */
typedef struct ferrum_option_info {
    const char *name; /**< "FERRUM_BACKEND" */
    ferrum_option_kind_t kind;
    const char *default_value; /**< text of the default; "" when unset is the default */
    const char *meaning;       /**< one line */
} ferrum_option_info_t;

/** A snapshot of all options. Immutable once a loader or runtime holds it. */
typedef struct ferrum_options ferrum_options_t;

/** The table of all options, sorted by name. [any-thread] */
FERRUM_API const ferrum_option_info_t *ferrum_option_table(size_t *out_count);
/** All defaults, environment not consulted. Free with ferrum_options_free. [any-thread] */
FERRUM_API ferrum_status_t ferrum_options_new(ferrum_options_t **out_options, ferrum_error_t *err);
/** Read the environment once: known FERRUM_* variables are taken, unknown ones and values that
 *  cannot be read are reported one per line to @p logger (may be NULL) as warnings. An empty value
 *  counts as unset, except for IF_PRESENT. FERRUM_TEST_* is left alone. In a setuid program nothing
 *  is taken. [init] */
FERRUM_API ferrum_status_t ferrum_options_from_env(const ferrum_logger_t *logger,
                                                   ferrum_options_t **out_options,
                                                   ferrum_error_t *err);
/** Set one option to @p value (copied; NULL unsets). NOT_FOUND for a name not in the table. */
FERRUM_API ferrum_status_t ferrum_options_set(ferrum_options_t *options, const char *name,
                                              const char *value, ferrum_error_t *err);
/** The text that was set, or NULL when unset (the default then applies). */
FERRUM_API const char *ferrum_options_get(const ferrum_options_t *options, const char *name);
/** Number of a UINT option, default included; 0 for names that are not UINT. */
FERRUM_API uint64_t ferrum_options_uint(const ferrum_options_t *options, const char *name);
/** Whether a switch is on. TRISTATE: 1 forced, 0 forbidden, -1 undecided. */
FERRUM_API int ferrum_options_switch(const ferrum_options_t *options, const char *name);
/** A deep copy. */
FERRUM_API ferrum_status_t ferrum_options_copy(const ferrum_options_t *options,
                                               ferrum_options_t **out_options, ferrum_error_t *err);
FERRUM_API void ferrum_options_free(ferrum_options_t *options);

/* ---- the loader ---- */

typedef struct ferrum_loader ferrum_loader_t; /**< search path, options and the host table */
typedef struct ferrum_module ferrum_module_t; /**< one opened plugin (one generation) */

/** Where one plugin file was found and what became of it, for `ferrum info`. */
typedef struct ferrum_candidate {
    char path[512];
    char name[64]; /**< plugin name, or the file's stem when it could not be opened */
    char version[32];
    char description[128];
    char license[32];
    char summary[128]; /**< probe summary */
    int32_t score;
    uint32_t device_count;
    uint32_t abi_minor, abi_minor_min;
    uint64_t plugin_flags;
    uint32_t pinned; /**< non-zero: loadable, but will never be unloaded */
    char pinned_reason[128];
    ferrum_status_t status; /**< FERRUM_OK, or why it cannot be used */
    ferrum_error_t error;   /**< details when status is not OK */
} ferrum_candidate_t;

/** What happened at the end of a module. */
typedef struct ferrum_unload_report {
    uint32_t unloaded;      /**< non-zero: proven gone (no mapping, thread or allocation left) */
    uint32_t pinned;        /**< non-zero: kept on purpose */
    uint32_t leaked_blocks; /**< host allocations that the plugin did not free */
    uint32_t reserved;
    uint64_t leaked_bytes;
    char detail[160]; /**< one line for people */
} ferrum_unload_report_t;

/**
 * Make a loader.
 * @param options   copied; NULL: from the environment
 * @param allocator memory for plugins; NULL: malloc. The struct is copied, what its `self` points
 *                  to must outlive every module
 * @param logger    copied in the same way; NULL: messages are dropped
 * [any-thread]
 */
FERRUM_API ferrum_status_t ferrum_loader_new(const ferrum_options_t *options,
                                             const ferrum_allocator_t *allocator,
                                             const ferrum_logger_t *logger,
                                             ferrum_loader_t **out_loader, ferrum_error_t *err);
/** As ferrum_host_t.spread, with a `self` of its own. */
typedef void ferrum_spread_fn(void *self, ferrum_task_fn *fn, void *arg);
/** Lend threads to plugins, see ferrum_host_t.spread; @p spread NULL takes them back. Not while a
 *  plugin loads weights. [init] */
FERRUM_API void ferrum_loader_set_spread(ferrum_loader_t *loader, ferrum_spread_fn *spread,
                                         void *self);
/** Free; modules that are still open keep what they need. NULL is ignored. */
FERRUM_API void ferrum_loader_free(ferrum_loader_t *loader);
/** The loader's options. */
FERRUM_API const ferrum_options_t *ferrum_loader_options(const ferrum_loader_t *loader);

/** Open every plugin on the search path, probe it and close it again.
 *  @param out_list allocated array, freed with ferrum_candidates_free */
FERRUM_API ferrum_status_t ferrum_loader_scan(ferrum_loader_t *loader,
                                              ferrum_candidate_t **out_list, size_t *out_count,
                                              ferrum_error_t *err);
FERRUM_API void ferrum_candidates_free(ferrum_candidate_t *list);

/**
 * Open the plugin that @p spec asks for: a name (strict), an ordered list "cuda,cpu", a path with
 * a '/', or "auto" (best score). NULL takes FERRUM_BACKEND. A plugin whose probe fails, or whose
 * score is not positive, is not used, however it was asked for. Every candidate that failed is
 * listed with its reason in @p err and, one per line, in the log; a list that falls back says so in
 * the log at WARN. [any-thread]
 */
FERRUM_API ferrum_status_t ferrum_loader_select(ferrum_loader_t *loader, const char *spec,
                                                ferrum_module_t **out_module, ferrum_error_t *err);
/**
 * Open one plugin file, wherever it lies and whatever its score. A failed probe is no failure here:
 * it is in the module's candidate. A pinned file of the same content that was open before is used
 * again instead of mapping it twice.
 * Errors: NOT_FOUND, PERMISSION, IO, OUT_OF_MEMORY; CORRUPT (no ELF file, or a damaged one),
 * UNSUPPORTED (another machine), VERSION_MISMATCH, BAD_PLUGIN. [any-thread]
 */
FERRUM_API ferrum_status_t ferrum_loader_open(ferrum_loader_t *loader, const char *path,
                                              ferrum_module_t **out_module, ferrum_error_t *err);

/** Add a reference. [any-thread] */
FERRUM_API void ferrum_module_retain(ferrum_module_t *module);
/**
 * Drop a reference; the last one unloads the plugin and proves it. All objects of the plugin must
 * have been released before. @p out_report may be NULL; it is filled when this was the last
 * reference. NULL module is ignored. [any-thread]
 */
FERRUM_API void ferrum_module_release(ferrum_module_t *module, ferrum_unload_report_t *out_report);

/**
 * Who still needs a module: its references, and the blocks and bytes of host memory that the plugin
 * holds (objects that have not been released, or leaks). Each of the outputs may be NULL.
 * [any-thread]
 */
FERRUM_API void ferrum_module_usage(const ferrum_module_t *module, uint32_t *out_references,
                                    uint64_t *out_blocks, uint64_t *out_bytes);

FERRUM_API const char *ferrum_module_name(const ferrum_module_t *module);
/** Path it was loaded from. */
FERRUM_API const char *ferrum_module_path(const ferrum_module_t *module);
/** Facts found while opening. */
FERRUM_API const ferrum_candidate_t *ferrum_module_candidate(const ferrum_module_t *module);
/** What the plugin's query filled in. Valid while the module is referenced. */
FERRUM_API const ferrum_plugin_t *ferrum_module_plugin(const ferrum_module_t *module);
/** The host table that its objects were (or are to be) opened with. */
FERRUM_API const ferrum_host_t *ferrum_module_host(const ferrum_module_t *module);

/** The resolved tables: full size of this header's minor, no entry NULL (stubs return
 *  FERRUM_UNSUPPORTED with reason NOT_IMPLEMENTED), sub-tables never NULL. Valid while the module
 *  is referenced. */
FERRUM_API const ferrum_backend_ops_t *ferrum_module_backend(const ferrum_module_t *module);
FERRUM_API const ferrum_quant_llm_ops_t *ferrum_module_quant_llm(const ferrum_module_t *module);
FERRUM_API const ferrum_moe_fused_ops_t *ferrum_module_moe_fused(const ferrum_module_t *module);

/** How one entry was resolved. */
typedef enum ferrum_resolution {
    FERRUM_RESOLVED_NATIVE,   /**< the plugin's own */
    FERRUM_RESOLVED_COMPOSED, /**< built by the loader from other entries */
    FERRUM_RESOLVED_STUB      /**< absent: returns UNSUPPORTED */
} ferrum_resolution_t;

/** One resolved entry, for `ferrum info`. */
typedef struct ferrum_resolved_op {
    const char *table; /**< "backend", "quant_llm", "linear", ... */
    const char *name;
    ferrum_resolution_t how;
    uint32_t mandatory;
} ferrum_resolved_op_t;

/** Number of entries over all tables. */
FERRUM_API size_t ferrum_module_op_count(const ferrum_module_t *module);
/** Entry @p index in table order. */
FERRUM_API ferrum_resolved_op_t ferrum_module_op(const ferrum_module_t *module, size_t index);
/** How the entry @p table.@p name was resolved; STUB for unknown names. */
FERRUM_API ferrum_resolution_t ferrum_module_op_resolution(const ferrum_module_t *module,
                                                           const char *table, const char *name);

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_LOADER_H */
