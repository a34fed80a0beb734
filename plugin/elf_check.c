/* SPDX-License-Identifier: MIT */
#include "elf_check.h"
#include "text.h"

#include <elf.h>

ferrum_status_t ferrum_elf_check(const void *bytes, uint64_t size, const char *path,
                                 ferrum_elf_facts_t *out_facts, ferrum_error_t *err)
{
    if (size < sizeof(Elf64_Ehdr) || memcmp(bytes, ELFMAG, SELFMAG) != 0)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_OTHER,
                           "%s is not an ELF shared object", path);
    *out_facts = (ferrum_elf_facts_t){0};
    return FERRUM_OK;
}
