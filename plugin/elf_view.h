/* SPDX-License-Identifier: MIT */
/*
 * A 64-bit ELF file as a bounds-checked view: program headers, dynamic section, strings, symbols.
 * Nothing that the file says is used as an address or a length before it was checked.
 */
#ifndef FERRUM_PLUGIN_ELF_VIEW_H
#define FERRUM_PLUGIN_ELF_VIEW_H

#include <ferrum/types.h>

#include <elf.h>
#include <stdbool.h>

/** More loadable segments than any linker makes. */
#define FERRUM_ELF_MAX_LOADS 16
/** Tags that the view keeps: those below this number, and the GNU ones of ferrum_elf_gnu_tag. */
#define FERRUM_ELF_BASE_TAGS 40

enum ferrum_elf_gnu_tag {
    FERRUM_ELF_GNU_HASH = FERRUM_ELF_BASE_TAGS,
    FERRUM_ELF_VERSYM,
    FERRUM_ELF_VERDEF,
    FERRUM_ELF_VERDEFNUM,
    FERRUM_ELF_VERNEED,
    FERRUM_ELF_VERNEEDNUM,
    FERRUM_ELF_FLAGS_1,
    FERRUM_ELF_RELACOUNT,
    FERRUM_ELF_TAGS
};

typedef struct ferrum_elf {
    const unsigned char *bytes;
    uint64_t size;
    const char *path;    /**< for messages */
    ferrum_error_t *err; /**< where they go */
    Elf64_Ehdr head;
    Elf64_Phdr loads[FERRUM_ELF_MAX_LOADS];
    unsigned load_count;
    Elf64_Phdr dynamic;
    uint64_t tags[FERRUM_ELF_TAGS]; /**< value of each tag; DT_NEEDED's is not kept */
    bool has_tag[FERRUM_ELF_TAGS];
    uint64_t strings; /**< file offset of the string table */
    uint64_t symbols; /**< file offset of the symbol table */
    uint64_t symbol_count;
} ferrum_elf_t;

/** Report that the file contradicts itself. */
ferrum_status_t ferrum_elf_corrupt(const ferrum_elf_t *elf, const char *what);

/** Parse everything up to the symbol table. */
ferrum_status_t ferrum_elf_parse(ferrum_elf_t *out_elf, const void *bytes, uint64_t size,
                                 const char *path, ferrum_error_t *err);

/** Copy @p bytes from file offset @p offset; false when they are not all there. */
bool ferrum_elf_fetch(const ferrum_elf_t *elf, uint64_t offset, void *out, uint64_t bytes);
/** File offset of the addresses `[address, address+bytes)`; false when they do not lie within the
 *  file's part of one segment. */
bool ferrum_elf_locate(const ferrum_elf_t *elf, uint64_t address, uint64_t bytes,
                       uint64_t *out_offset);
/** Copy @p bytes from address @p address; false when they do not lie so. */
bool ferrum_elf_read(const ferrum_elf_t *elf, uint64_t address, void *out, uint64_t bytes);
/** Whether `[address, address+bytes)` lies in the memory of one segment with all of @p flags. */
bool ferrum_elf_in_memory(const ferrum_elf_t *elf, uint64_t address, uint64_t bytes,
                          uint32_t flags);
/** A string of the string table; NULL when @p offset is outside. */
const char *ferrum_elf_string(const ferrum_elf_t *elf, uint64_t offset);
/** Entry @p index < symbol_count of the symbol table. */
Elf64_Sym ferrum_elf_symbol(const ferrum_elf_t *elf, uint64_t index);
/** Entry @p index of the dynamic section; DT_NULL beyond its end. */
Elf64_Dyn ferrum_elf_dynamic(const ferrum_elf_t *elf, uint64_t index);

/** Check what the dynamic linker would act on: relocations, versions, initialisers. */
ferrum_status_t ferrum_elf_check_links(const ferrum_elf_t *elf);

#endif /* FERRUM_PLUGIN_ELF_VIEW_H */
