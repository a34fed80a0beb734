/* SPDX-License-Identifier: MIT */
/*
 * What the dynamic linker would act on: relocations, versions, initialisers. It writes where they
 * say and calls what they name, so each must stay within the plugin's own segments.
 */
#include "elf_view.h"
#include "text.h"

#if defined(__x86_64__)
enum {
    COPY = R_X86_64_COPY,
    RELATIVE = R_X86_64_RELATIVE,
    IRELATIVE = R_X86_64_IRELATIVE
};
#else
enum {
    COPY = R_AARCH64_COPY,
    RELATIVE = R_AARCH64_RELATIVE,
    IRELATIVE = R_AARCH64_IRELATIVE
};
#endif

static bool within(uint64_t value, uint64_t start, uint64_t bytes)
{
    return value >= start && value - start < bytes;
}

/* Whether the relocated word is one of those that hold initialisers and finalisers. */
static bool is_function_slot(const ferrum_elf_t *elf, uint64_t address)
{
    return within(address, elf->tags[DT_INIT_ARRAY], elf->tags[DT_INIT_ARRAYSZ]) ||
           within(address, elf->tags[DT_FINI_ARRAY], elf->tags[DT_FINI_ARRAYSZ]);
}

static ferrum_status_t check_relocation(const ferrum_elf_t *elf, const Elf64_Rela *rela)
{
    uint64_t type = ELF64_R_TYPE(rela->r_info);
    if (type == 0)
        return FERRUM_OK;
    if (!ferrum_elf_in_memory(elf, rela->r_offset, 8, PF_W))
        return ferrum_elf_corrupt(elf, "a relocation outside writable memory");
    if (ELF64_R_SYM(rela->r_info) >= elf->symbol_count)
        return ferrum_elf_corrupt(elf, "a relocation against a symbol that does not exist");
    if (type == COPY)
        return ferrum_elf_corrupt(elf, "a copy relocation");
    if ((type == IRELATIVE || (type == RELATIVE && is_function_slot(elf, rela->r_offset))) &&
        !ferrum_elf_in_memory(elf, (uint64_t)rela->r_addend, 1, PF_X))
        return ferrum_elf_corrupt(elf, "an initialiser outside executable memory");
    return FERRUM_OK;
}

static ferrum_status_t check_rela(const ferrum_elf_t *elf, unsigned table, unsigned bytes)
{
    uint64_t offset;
    if (!elf->has_tag[table] && !elf->tags[bytes])
        return FERRUM_OK;
    if (elf->tags[bytes] % sizeof(Elf64_Rela) != 0 ||
        !ferrum_elf_locate(elf, elf->tags[table], elf->tags[bytes], &offset))
        return ferrum_elf_corrupt(elf, "relocation table");
    uint64_t count = elf->tags[bytes] / sizeof(Elf64_Rela);
    uint64_t relative = table == DT_RELA ? elf->tags[FERRUM_ELF_RELACOUNT] : 0;
    if (relative > count)
        return ferrum_elf_corrupt(elf, "relocation table");
    for (uint64_t i = 0; i < count; i++) {
        Elf64_Rela rela;
        (void)ferrum_elf_fetch(elf, offset + i * sizeof rela, &rela, sizeof rela);
        if (i < relative && ELF64_R_TYPE(rela.r_info) != RELATIVE)
            return ferrum_elf_corrupt(elf, "order of relocations");
        FERRUM_TRY(check_relocation(elf, &rela));
    }
    return FERRUM_OK;
}

/* Packed relative relocations: an even word is an address, an odd one a bitmap of the 63 words
 * after the last address. */
static ferrum_status_t check_relr(const ferrum_elf_t *elf)
{
    uint64_t offset, address = 0;
    if (!elf->has_tag[DT_RELR] && !elf->tags[DT_RELRSZ])
        return FERRUM_OK;
    if (elf->tags[DT_RELRSZ] % 8 != 0 || elf->tags[DT_RELRENT] != 8 ||
        !ferrum_elf_locate(elf, elf->tags[DT_RELR], elf->tags[DT_RELRSZ], &offset))
        return ferrum_elf_corrupt(elf, "packed relocation table");
    for (uint64_t i = 0; i < elf->tags[DT_RELRSZ] / 8; i++) {
        uint64_t word, bits;
        (void)ferrum_elf_fetch(elf, offset + 8 * i, &word, sizeof word);
        if (!(word & 1)) {
            if (!ferrum_elf_in_memory(elf, word, 8, PF_W))
                return ferrum_elf_corrupt(elf, "a relocation outside writable memory");
            address = word + 8;
            continue;
        }
        bits = word >> 1;
        for (uint64_t at = address; bits; bits >>= 1, at += 8)
            if ((bits & 1) && !ferrum_elf_in_memory(elf, at, 8, PF_W))
                return ferrum_elf_corrupt(elf, "a relocation outside writable memory");
        address += 63 * 8;
    }
    return FERRUM_OK;
}

static bool is_needed(const ferrum_elf_t *elf, const char *library)
{
    for (uint64_t i = 0;; i++) {
        Elf64_Dyn entry = ferrum_elf_dynamic(elf, i);
        if (entry.d_tag == DT_NULL)
            return false;
        const char *name =
            entry.d_tag == DT_NEEDED ? ferrum_elf_string(elf, entry.d_un.d_val) : NULL;
        if (name && strcmp(name, library) == 0)
            return true;
    }
}

/* Versions wanted from other libraries; *top becomes the highest version number in use. */
static bool check_version_needs(const ferrum_elf_t *elf, unsigned *top)
{
    uint64_t at = elf->tags[FERRUM_ELF_VERNEED];
    uint64_t count = elf->tags[FERRUM_ELF_VERNEEDNUM];
    if (!elf->has_tag[FERRUM_ELF_VERNEED])
        return true;
    if (count == 0 || count > 4096)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        Elf64_Verneed need;
        if (!ferrum_elf_read(elf, at, &need, sizeof need) || need.vn_version != 1)
            return false;
        const char *library = ferrum_elf_string(elf, need.vn_file);
        if (!library || !is_needed(elf, library) || need.vn_cnt == 0)
            return false;
        uint64_t aux_at = at + need.vn_aux;
        for (unsigned j = 0; j < need.vn_cnt; j++) {
            Elf64_Vernaux aux;
            if (!ferrum_elf_read(elf, aux_at, &aux, sizeof aux) ||
                !ferrum_elf_string(elf, aux.vna_name) ||
                (aux.vna_next == 0) != (j + 1u == need.vn_cnt))
                return false;
            unsigned number = aux.vna_other & 0x7fffu;
            *top = number > *top ? number : *top;
            aux_at += aux.vna_next;
        }
        if ((need.vn_next == 0) != (i + 1 == count))
            return false;
        at += need.vn_next;
    }
    return true;
}

/* Versions that the plugin defines. */
static bool check_version_definitions(const ferrum_elf_t *elf, unsigned *top)
{
    uint64_t at = elf->tags[FERRUM_ELF_VERDEF];
    uint64_t count = elf->tags[FERRUM_ELF_VERDEFNUM];
    if (!elf->has_tag[FERRUM_ELF_VERDEF])
        return true;
    if (count == 0 || count > 4096)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        Elf64_Verdef definition;
        Elf64_Verdaux aux;
        if (!ferrum_elf_read(elf, at, &definition, sizeof definition) ||
            definition.vd_version != 1 ||
            !ferrum_elf_read(elf, at + definition.vd_aux, &aux, sizeof aux) ||
            !ferrum_elf_string(elf, aux.vda_name) || (definition.vd_next == 0) != (i + 1 == count))
            return false;
        unsigned number = definition.vd_ndx & 0x7fffu;
        *top = number > *top ? number : *top;
        at += definition.vd_next;
    }
    return true;
}

static ferrum_status_t check_versions(const ferrum_elf_t *elf)
{
    uint64_t offset;
    unsigned top = 1;
    if (!check_version_needs(elf, &top) || !check_version_definitions(elf, &top))
        return ferrum_elf_corrupt(elf, "symbol versions");
    if (!elf->has_tag[FERRUM_ELF_VERSYM])
        return FERRUM_OK;
    if (!ferrum_elf_locate(elf, elf->tags[FERRUM_ELF_VERSYM], 2 * elf->symbol_count, &offset))
        return ferrum_elf_corrupt(elf, "symbol versions");
    for (uint64_t i = 0; i < elf->symbol_count; i++) {
        uint16_t number;
        (void)ferrum_elf_fetch(elf, offset + 2 * i, &number, sizeof number);
        if ((number & 0x7fffu) > top)
            return ferrum_elf_corrupt(elf, "symbol versions");
    }
    return FERRUM_OK;
}

static ferrum_status_t check_functions(const ferrum_elf_t *elf)
{
    static const unsigned single[] = {DT_INIT, DT_FINI};
    static const unsigned arrays[][2] = {{DT_INIT_ARRAY, DT_INIT_ARRAYSZ},
                                         {DT_FINI_ARRAY, DT_FINI_ARRAYSZ}};
    for (size_t i = 0; i < 2; i++) {
        if (elf->has_tag[single[i]] && !ferrum_elf_in_memory(elf, elf->tags[single[i]], 1, PF_X))
            return ferrum_elf_corrupt(elf, "an initialiser outside executable memory");
        uint64_t bytes = elf->tags[arrays[i][1]];
        if (elf->has_tag[arrays[i][0]] &&
            (bytes % 8 != 0 || !ferrum_elf_in_memory(elf, elf->tags[arrays[i][0]], bytes, PF_W)))
            return ferrum_elf_corrupt(elf, "array of initialisers");
    }
    return FERRUM_OK;
}

static bool covers(const ferrum_elf_t *elf, unsigned table, unsigned bytes, const Elf64_Shdr *s)
{
    return elf->has_tag[table] && s->sh_addr >= elf->tags[table] &&
           s->sh_addr + s->sh_size <= elf->tags[table] + elf->tags[bytes];
}

/* Sections, where there are any, must agree with the dynamic section: whoever strips or edits a
 * file keeps both or drops the former. */
static bool section_agrees(const ferrum_elf_t *elf, const Elf64_Shdr *s)
{
    switch (s->sh_type) {
    case SHT_INIT_ARRAY:
        return elf->tags[DT_INIT_ARRAY] == s->sh_addr && elf->tags[DT_INIT_ARRAYSZ] == s->sh_size;
    case SHT_FINI_ARRAY:
        return elf->tags[DT_FINI_ARRAY] == s->sh_addr && elf->tags[DT_FINI_ARRAYSZ] == s->sh_size;
    case SHT_DYNSYM:
        return elf->tags[DT_SYMTAB] == s->sh_addr &&
               elf->symbol_count <= s->sh_size / sizeof(Elf64_Sym);
    case SHT_GNU_HASH:
        return elf->tags[FERRUM_ELF_GNU_HASH] == s->sh_addr;
    case SHT_GNU_versym:
        return elf->tags[FERRUM_ELF_VERSYM] == s->sh_addr;
    case SHT_GNU_verneed:
        return elf->tags[FERRUM_ELF_VERNEED] == s->sh_addr;
    case SHT_RELA:
        return covers(elf, DT_RELA, DT_RELASZ, s) || covers(elf, DT_JMPREL, DT_PLTRELSZ, s);
    default:
        return true;
    }
}

static ferrum_status_t check_sections(const ferrum_elf_t *elf)
{
    for (unsigned i = 0; i < elf->head.e_shnum; i++) {
        Elf64_Shdr section;
        (void)ferrum_elf_fetch(elf, elf->head.e_shoff + i * sizeof section, &section,
                               sizeof section);
        if ((section.sh_flags & SHF_ALLOC) && section.sh_size > 0 && !section_agrees(elf, &section))
            return ferrum_elf_corrupt(elf, "sections and dynamic section differ");
    }
    return FERRUM_OK;
}

/* The dynamic linker takes the second for granted where the first is. */
static const unsigned pairs[][2] = {
    {DT_JMPREL, DT_PLTREL},
    {DT_JMPREL, DT_PLTRELSZ},
    {DT_RELA, DT_RELASZ},
    {DT_RELA, DT_RELAENT},
    {DT_RELR, DT_RELRSZ},
    {DT_RELR, DT_RELRENT},
    {DT_INIT_ARRAY, DT_INIT_ARRAYSZ},
    {DT_FINI_ARRAY, DT_FINI_ARRAYSZ},
    {FERRUM_ELF_VERNEED, FERRUM_ELF_VERNEEDNUM},
    {FERRUM_ELF_VERNEED, FERRUM_ELF_VERSYM},
    {FERRUM_ELF_VERDEF, FERRUM_ELF_VERDEFNUM},
    {FERRUM_ELF_VERDEF, FERRUM_ELF_VERSYM},
};

ferrum_status_t ferrum_elf_check_links(const ferrum_elf_t *elf)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (elf->has_tag[pairs[i][0]] && !elf->has_tag[pairs[i][1]])
            return ferrum_elf_corrupt(elf, "the dynamic section lacks a tag");
    if ((elf->has_tag[DT_PLTREL] && elf->tags[DT_PLTREL] != DT_RELA) || elf->has_tag[DT_REL] ||
        (elf->has_tag[DT_RELA] && elf->tags[DT_RELAENT] != sizeof(Elf64_Rela)) ||
        (elf->has_tag[DT_PLTGOT] && !ferrum_elf_in_memory(elf, elf->tags[DT_PLTGOT], 8, PF_W)))
        return ferrum_elf_corrupt(elf, "relocation format");
    if (elf->has_tag[DT_TEXTREL] || (elf->tags[DT_FLAGS] & DF_TEXTREL))
        return ferrum_fail(elf->err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                           "%s has text relocations; compile it with -fPIC", elf->path);
    FERRUM_TRY(check_sections(elf));
    FERRUM_TRY(check_functions(elf));
    FERRUM_TRY(check_rela(elf, DT_RELA, DT_RELASZ));
    FERRUM_TRY(check_rela(elf, DT_JMPREL, DT_PLTRELSZ));
    FERRUM_TRY(check_relr(elf));
    return check_versions(elf);
}
