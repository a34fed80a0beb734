/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "tools/kit/raw.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cf_raw_open(cf_suite_t *suite, cf_raw_t *out_raw)
{
    char *absolute = realpath(suite->path, NULL);
    cf_raw_t raw = {dlopen(absolute ? absolute : suite->path, RTLD_NOW | RTLD_LOCAL), NULL};
    free(absolute);
    if (raw.handle == NULL) {
        cf_fail(suite, "%s", dlerror());
        return false;
    }
    void *symbol = dlsym(raw.handle, FERRUM_PLUGIN_SYMBOL);
    memcpy(&raw.query, &symbol, sizeof raw.query);
    if (raw.query == NULL) {
        cf_fail(suite, "does not export " FERRUM_PLUGIN_SYMBOL);
        dlclose(raw.handle);
        return false;
    }
    *out_raw = raw;
    return true;
}

void cf_raw_close(cf_raw_t *raw)
{
    dlclose(raw->handle);
}

/* Symbols in the hash table are the defined ones: they begin at its second word and the last chain
 * ends with an odd hash. */
static uint32_t symbols_end(const uint32_t *hash)
{
    uint32_t buckets = hash[0], first = hash[1], bloom_words = hash[2], last = 0;
    const uint32_t *bucket = hash + 4 + bloom_words * (sizeof(ElfW(Addr)) / 4);
    const uint32_t *chain = bucket + buckets;
    for (uint32_t i = 0; i < buckets; i++)
        last = bucket[i] > last ? bucket[i] : last;
    while (last >= first && (chain[last - first] & 1) == 0)
        last++;
    return last >= first ? last + 1 : 0;
}

unsigned cf_raw_exports(const cf_raw_t *raw, char *out_names, size_t size)
{
    struct link_map *map = NULL;
    const ElfW(Sym) *symbols = NULL;
    const uint32_t *hash = NULL;
    const char *names = NULL;
    unsigned others = 0;
    out_names[0] = '\0';
    if (dlinfo(raw->handle, RTLD_DI_LINKMAP, &map) != 0)
        return 0;
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        const void *at = (const void *)(uintptr_t)d->d_un.d_ptr; /* relocated by glibc */
        if (d->d_tag == DT_SYMTAB)
            symbols = at;
        else if (d->d_tag == DT_STRTAB)
            names = at;
        else if (d->d_tag == DT_GNU_HASH)
            hash = at;
    }
    if (symbols == NULL || names == NULL || hash == NULL)
        return 0;
    for (uint32_t i = hash[1], end = symbols_end(hash); i < end; i++) {
        const char *name = names + symbols[i].st_name;
        if (symbols[i].st_shndx == SHN_UNDEF || strcmp(name, FERRUM_PLUGIN_SYMBOL) == 0)
            continue;
        size_t used = strlen(out_names);
        if (others++ < 3)
            snprintf(out_names + used, size - used, "%s%.40s", used ? ", " : "", name);
    }
    return others;
}

enum {
    PATTERN = 0xa5
};

void cf_guard(cf_guarded_t *memory)
{
    memset(memory->bytes, PATTERN, sizeof memory->bytes);
}

bool cf_is_guarded(const cf_guarded_t *memory, size_t size)
{
    for (size_t i = size; i < sizeof memory->bytes; i++)
        if (memory->bytes[i] != PATTERN)
            return false;
    return true;
}
