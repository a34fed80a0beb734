/* SPDX-License-Identifier: MIT */
/**
 * @file entries.h
 * @brief The functions behind the tables: an entry is implemented by ferrum_cpu_<prefix><entry>.
 */
#ifndef FERRUM_CPU_ENTRIES_H
#define FERRUM_CPU_ENTRIES_H

#include "backends/common/entries.h"

/** Declares the function behind one entry, with the type that the table gives it. */
#define FERRUM_CPU_DECLARE(ops, prefix, entry)                                                     \
    extern __typeof__(*((const ops *)0)->entry) ferrum_cpu_##prefix##entry;
FERRUM_ALL_ENTRIES(FERRUM_CPU_DECLARE)

/** The tables, filled in plugin.c; tests reach them without the loader. */
extern const ferrum_backend_ops_t ferrum_cpu_backend_ops;
extern const ferrum_quant_llm_ops_t ferrum_cpu_quant_llm_ops;
extern const ferrum_moe_fused_ops_t ferrum_cpu_moe_fused_ops;

#endif /* FERRUM_CPU_ENTRIES_H */
