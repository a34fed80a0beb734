/* SPDX-License-Identifier: MIT */
/* The loader's rules about plugin files: what they export, link to and may do. */
#include "elf_check.h"
#include "elf_view.h"
#include "text.h"

#include <ferrum/plugin.h>

/* Libraries of which nothing outlives dlclose(). The sanitizers' belong to the process anyway. */
static const char *const harmless_libraries[] = {
    "libc.so.",  "libm.so.", "libgcc_s.so.", "ld-linux", "libpthread.so.", "libdl.so.",
    "librt.so.", "libasan.", "libubsan.",    "libtsan.", "liblsan.",
};

/* Imports after which code must stay mapped, because something calls back into it later. */
static const struct {
    const char *symbol;
    const char *reason;
} lasting_imports[] = {
    {"pthread_key_create", "it uses thread-exit handlers (pthread_key_create)"},
    {"tss_create", "it uses thread-exit handlers (tss_create)"},
    {"__cxa_thread_atexit_impl", "it uses thread-exit handlers"},
    {"sigaction", "it installs signal handlers (sigaction)"},
    {"signal", "it installs signal handlers (signal)"},
    {"pthread_atfork", "it uses fork handlers (pthread_atfork)"},
    {"__register_atfork", "it uses fork handlers"},
    {"on_exit", "it uses exit handlers (on_exit)"},
    {"at_quick_exit", "it uses exit handlers (at_quick_exit)"},
};

/* Imports without which a plugin cannot start a thread. */
static const char *const thread_imports[] = {"pthread_create", "thrd_create", "clone",
                                             "clone3",         "syscall",     "dlopen",
                                             "dlmopen",        "dlsym",       "dlvsym"};

static void pin(ferrum_elf_facts_t *facts, const char *before, const char *name, const char *after)
{
    if (!facts->pinned_reason[0])
        ferrum_text_append(facts->pinned_reason, sizeof facts->pinned_reason, "%s%s%s", before,
                           name, after);
}

static void judge_library(ferrum_elf_facts_t *facts, const char *library)
{
    for (size_t i = 0; i < sizeof harmless_libraries / sizeof *harmless_libraries; i++)
        if (strncmp(library, harmless_libraries[i], strlen(harmless_libraries[i])) == 0)
            return;
    facts->may_start_threads = true;
    pin(facts, "it links ", library, ", whose threads and handlers may outlive it");
}

static ferrum_status_t check_dynamic(const ferrum_elf_t *elf, ferrum_elf_facts_t *facts)
{
    for (uint64_t i = 0;; i++) {
        Elf64_Dyn entry = ferrum_elf_dynamic(elf, i);
        const char *name = "";
        switch (entry.d_tag) {
        case DT_NULL:
            if (elf->tags[FERRUM_ELF_FLAGS_1] & DF_1_NODELETE)
                pin(facts, "it is linked with -z nodelete", "", "");
            return elf->tags[FERRUM_ELF_FLAGS_1] & DF_1_PIE
                       ? ferrum_fail(elf->err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                                     "%s is a program, not a shared object", elf->path)
                       : FERRUM_OK;
        case DT_NEEDED:
        case DT_SONAME:
        case DT_RPATH:
        case DT_RUNPATH:
            name = ferrum_elf_string(elf, entry.d_un.d_val);
            if (!name)
                return ferrum_elf_corrupt(elf, "library name");
            if (entry.d_tag == DT_NEEDED)
                judge_library(facts, name);
            break;
        case DT_AUDIT:
        case DT_DEPAUDIT:
        case DT_AUXILIARY:
        case DT_FILTER:
            return ferrum_fail(elf->err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                               "%s is an auditing or filter library, not a plugin", elf->path);
        default:
            break;
        }
    }
}

static void judge_import(ferrum_elf_facts_t *facts, const char *name)
{
    for (size_t i = 0; i < sizeof lasting_imports / sizeof *lasting_imports; i++)
        if (strcmp(name, lasting_imports[i].symbol) == 0)
            pin(facts, lasting_imports[i].reason, "", "");
    for (size_t i = 0; i < sizeof thread_imports / sizeof *thread_imports; i++)
        if (strcmp(name, thread_imports[i]) == 0)
            facts->may_start_threads = true;
}

static ferrum_status_t fail_no_query(const ferrum_elf_t *elf, const char *other)
{
    if (!other)
        return ferrum_fail(elf->err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                           "%s is no Ferrum plugin: it does not export " FERRUM_PLUGIN_SYMBOL,
                           elf->path);
    return ferrum_fail(elf->err, FERRUM_VERSION_MISMATCH, FERRUM_REASON_OTHER,
                       "%s exports %.64s instead of " FERRUM_PLUGIN_SYMBOL
                       ": it was built for another ABI major, this libferrum has %u",
                       elf->path, other, FERRUM_ABI_MAJOR);
}

static ferrum_status_t check_symbols(const ferrum_elf_t *elf, ferrum_elf_facts_t *facts)
{
    static const char any_major[] = "ferrum_plugin_query_v";
    const char *other = NULL;
    bool found = false;
    for (uint64_t i = 0; i < elf->symbol_count; i++) {
        Elf64_Sym symbol = ferrum_elf_symbol(elf, i);
        const char *name = ferrum_elf_string(elf, symbol.st_name);
        if (symbol.st_shndx == SHN_UNDEF) {
            judge_import(facts, name);
            continue;
        }
        if (ELF64_ST_BIND(symbol.st_info) == STB_GNU_UNIQUE)
            pin(facts, "its symbol ", name, " is unique in the process (GNU_UNIQUE)");
        if (strcmp(name, FERRUM_PLUGIN_SYMBOL) == 0) {
            found = true;
            if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC ||
                !ferrum_elf_in_memory(elf, symbol.st_value, 1, PF_X))
                return ferrum_elf_corrupt(elf, FERRUM_PLUGIN_SYMBOL " is no function");
        } else if (strncmp(name, any_major, sizeof any_major - 1) == 0) {
            other = name;
        }
    }
    return found ? FERRUM_OK : fail_no_query(elf, other);
}

ferrum_status_t ferrum_elf_check(const void *bytes, uint64_t size, const char *path,
                                 ferrum_elf_facts_t *out_facts, ferrum_error_t *err)
{
    ferrum_elf_t elf;
    ferrum_elf_facts_t facts = {0};
    FERRUM_TRY(ferrum_elf_parse(&elf, bytes, size, path, err));
    FERRUM_TRY(check_dynamic(&elf, &facts));
    FERRUM_TRY(check_symbols(&elf, &facts));
    FERRUM_TRY(ferrum_elf_check_links(&elf));
    *out_facts = facts;
    return FERRUM_OK;
}
