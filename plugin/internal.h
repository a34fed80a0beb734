/* SPDX-License-Identifier: MIT */
/* The loader's own structs; shared by its source files and its tests, by nobody else. */
#ifndef FERRUM_PLUGIN_INTERNAL_H
#define FERRUM_PLUGIN_INTERNAL_H

#include "compose.h"
#include "library.h"
#include "memory.h"
#include "tables.h"

#include <stdatomic.h>

/** Least plugin minor that this host still understands. */
#define FERRUM_HOST_MINOR_MIN 0u

struct ferrum_loader {
    atomic_uint refs; /**< the user's, and one per module */
    ferrum_options_t *options;
    ferrum_allocator_t allocator;
    ferrum_logger_t logger;
    ferrum_spread_fn *spread; /**< NULL: the calling thread alone */
    void *spread_self;
    uint32_t abi_minor; /**< this host's window; tests move it */
    uint32_t abi_minor_min;
};

struct ferrum_module {
    atomic_uint refs;
    ferrum_loader_t *loader;
    ferrum_library_t *library;
    ferrum_counted_memory_t memory;
    ferrum_host_t host;
    ferrum_plugin_t plugin;
    ferrum_candidate_t facts;
    ferrum_tables_t tables;
    ferrum_compose_t *compose;  /**< NULL when the plugin has its own expert_ffn */
    ferrum_module_t *next_kept; /**< in the list of modules whose objects outlived them */
};

void ferrum_loader_retain(ferrum_loader_t *loader);

/**
 * Open one file; as ferrum_loader_open, but silent.
 * @param asked     how the path was come by
 * @param out_facts what is known about the file, also on failure
 */
ferrum_status_t ferrum_module_open(ferrum_loader_t *loader, const char *path, ferrum_asked_t asked,
                                   ferrum_candidate_t *out_facts, ferrum_module_t **out_module,
                                   ferrum_error_t *err);

/** Whether @p name is a valid plugin name, [a-z0-9-]+ and shorter than a candidate's field. */
bool ferrum_is_plugin_name(const char *name);

#endif /* FERRUM_PLUGIN_INTERNAL_H */
