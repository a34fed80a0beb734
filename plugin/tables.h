/* SPDX-License-Identifier: MIT */
/*
 * The resolved tables: full-size copies of what a plugin offers, with a stub in place of every
 * entry that it lacks. After resolution nobody has to ask whether an entry is there.
 */
#ifndef FERRUM_PLUGIN_TABLES_H
#define FERRUM_PLUGIN_TABLES_H

#include <ferrum/loader.h>

#include <stdbool.h>

/** Upper bound of the number of entries; tables.c checks it. */
#define FERRUM_OPS_MAX 128

typedef struct ferrum_tables {
    ferrum_backend_ops_t backend;
    ferrum_quant_llm_ops_t quant_llm; /**< its sub-tables are the three below */
    ferrum_linear_ops_t linear;
    ferrum_stacked_experts_ops_t stacked_experts;
    ferrum_marlin_stack_ops_t marlin_stack;
    ferrum_moe_fused_ops_t moe_fused;
    uint8_t how[FERRUM_OPS_MAX]; /**< ferrum_resolution_t of each entry */
} ferrum_tables_t;

/** What a plugin offers; absent tables are NULL. */
typedef struct ferrum_offer {
    const ferrum_backend_ops_t *backend;
    const ferrum_quant_llm_ops_t *quant_llm;
    const ferrum_moe_fused_ops_t *moe_fused;
} ferrum_offer_t;

/**
 * Copy and complete. Appends the name of every missing mandatory entry to @p missing, separated by
 * commas, and names of tables that are smaller than their frozen least size to @p too_small.
 */
void ferrum_tables_resolve(const ferrum_offer_t *offer, ferrum_tables_t *out_tables, char *missing,
                           size_t missing_size, char *too_small, size_t too_small_size);

/** Number of entries over all tables. */
size_t ferrum_tables_count(void);
/** Entry @p index; all NULL beyond the last one. */
ferrum_resolved_op_t ferrum_tables_op(const ferrum_tables_t *tables, size_t index);
/** Resolution of one entry; STUB for unknown names. */
ferrum_resolution_t ferrum_tables_how(const ferrum_tables_t *tables, const char *table,
                                      const char *name);
/** Record how an entry was resolved that the loader has replaced. */
void ferrum_tables_mark(ferrum_tables_t *tables, const char *table, const char *name,
                        ferrum_resolution_t how);
/** Put the stub back in place of one entry, as if the plugin did not have it. */
void ferrum_tables_drop(ferrum_tables_t *tables, const char *table, const char *name);

#endif /* FERRUM_PLUGIN_TABLES_H */
