/* SPDX-License-Identifier: MIT */
/*
 * What can be known about a plugin from its ELF headers, before any of its code runs. dlopen()
 * trusts the file; this does not.
 */
#ifndef FERRUM_PLUGIN_ELF_CHECK_H
#define FERRUM_PLUGIN_ELF_CHECK_H

#include <ferrum/types.h>

#include <stdbool.h>

typedef struct ferrum_elf_facts {
    bool may_start_threads;  /**< imports something that can start threads */
    char pinned_reason[128]; /**< why it must stay mapped; empty: it need not */
} ferrum_elf_facts_t;

/**
 * Check the file in @p bytes.
 * @param path for messages
 * Errors: CORRUPT (truncated, contradictory), UNSUPPORTED (other machine), BAD_PLUGIN (no plugin),
 * VERSION_MISMATCH (a plugin of another ABI major). [any-thread]
 */
ferrum_status_t ferrum_elf_check(const void *bytes, uint64_t size, const char *path,
                                 ferrum_elf_facts_t *out_facts, ferrum_error_t *err);

#endif /* FERRUM_PLUGIN_ELF_CHECK_H */
