/* SPDX-License-Identifier: MIT */
#include "elf_view.h"
#include "text.h"

#if defined(__x86_64__)
#define HOST_MACHINE EM_X86_64
#define HOST_MACHINE_NAME "x86-64"
#elif defined(__aarch64__)
#define HOST_MACHINE EM_AARCH64
#define HOST_MACHINE_NAME "aarch64"
#else
#error "teach plugin/elf_view.c this machine"
#endif

ferrum_status_t ferrum_elf_corrupt(const ferrum_elf_t *elf, const char *what)
{
    return ferrum_fail(elf->err, FERRUM_CORRUPT, FERRUM_REASON_OTHER,
                       "%s is truncated or corrupt (%s); build or copy it again", elf->path, what);
}

bool ferrum_elf_fetch(const ferrum_elf_t *elf, uint64_t offset, void *out, uint64_t bytes)
{
    if (offset > elf->size || bytes > elf->size - offset)
        return false;
    memcpy(out, elf->bytes + offset, (size_t)bytes);
    return true;
}

bool ferrum_elf_locate(const ferrum_elf_t *elf, uint64_t address, uint64_t bytes,
                       uint64_t *out_offset)
{
    for (unsigned i = 0; i < elf->load_count; i++) {
        const Elf64_Phdr *load = &elf->loads[i];
        uint64_t within = address - load->p_vaddr;
        if (address >= load->p_vaddr && within <= load->p_filesz &&
            bytes <= load->p_filesz - within) {
            *out_offset = load->p_offset + within;
            return true;
        }
    }
    return false;
}

/* Loaded segments end within the file, see add_load(). */
bool ferrum_elf_read(const ferrum_elf_t *elf, uint64_t address, void *out, uint64_t bytes)
{
    uint64_t offset;
    if (!ferrum_elf_locate(elf, address, bytes, &offset))
        return false;
    return ferrum_elf_fetch(elf, offset, out, bytes);
}

bool ferrum_elf_in_memory(const ferrum_elf_t *elf, uint64_t address, uint64_t bytes, uint32_t flags)
{
    for (unsigned i = 0; i < elf->load_count; i++) {
        const Elf64_Phdr *load = &elf->loads[i];
        uint64_t within = address - load->p_vaddr;
        if (address >= load->p_vaddr && within <= load->p_memsz && bytes <= load->p_memsz - within)
            return (load->p_flags & flags) == flags;
    }
    return false;
}

const char *ferrum_elf_string(const ferrum_elf_t *elf, uint64_t offset)
{
    return offset < elf->tags[DT_STRSZ] ? (const char *)elf->bytes + elf->strings + offset : NULL;
}

Elf64_Sym ferrum_elf_symbol(const ferrum_elf_t *elf, uint64_t index)
{
    Elf64_Sym symbol = {0};
    (void)ferrum_elf_fetch(elf, elf->symbols + index * sizeof symbol, &symbol, sizeof symbol);
    return symbol;
}

Elf64_Dyn ferrum_elf_dynamic(const ferrum_elf_t *elf, uint64_t index)
{
    Elf64_Dyn entry = {0};
    if (index < elf->dynamic.p_filesz / sizeof entry)
        (void)ferrum_elf_fetch(elf, elf->dynamic.p_offset + index * sizeof entry, &entry,
                               sizeof entry);
    return entry;
}

/* ---- headers ---- */

static ferrum_status_t parse_head(ferrum_elf_t *elf)
{
    Elf64_Ehdr *head = &elf->head;
    size_t magic = elf->size < SELFMAG ? (size_t)elf->size : SELFMAG;
    if (memcmp(elf->bytes, ELFMAG, magic) != 0)
        return ferrum_fail(elf->err, FERRUM_CORRUPT, FERRUM_REASON_OTHER,
                           "%s is not an ELF shared object", elf->path);
    if (!ferrum_elf_fetch(elf, 0, head, sizeof *head))
        return ferrum_elf_corrupt(elf, "its header is incomplete");
    if (head->e_ident[EI_CLASS] != ELFCLASS64 || head->e_ident[EI_DATA] != ELFDATA2LSB ||
        head->e_machine != HOST_MACHINE)
        return ferrum_fail(elf->err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "%s is for another machine (ELF class %u, machine %u); this is " //
                           HOST_MACHINE_NAME,
                           elf->path, head->e_ident[EI_CLASS], head->e_machine);
    if (head->e_ident[EI_VERSION] != EV_CURRENT || head->e_version != EV_CURRENT ||
        (head->e_ident[EI_OSABI] != ELFOSABI_SYSV && head->e_ident[EI_OSABI] != ELFOSABI_GNU))
        return ferrum_elf_corrupt(elf, "ELF version or system");
    for (size_t i = EI_ABIVERSION; i < EI_NIDENT; i++)
        if (head->e_ident[i] != 0)
            return ferrum_elf_corrupt(elf, "ELF identification");
    if (head->e_type != ET_DYN)
        return ferrum_fail(elf->err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                           "%s is not a shared object (ELF type %u); link it with -shared",
                           elf->path, head->e_type);
    if (head->e_ehsize != sizeof *head || head->e_phentsize != sizeof(Elf64_Phdr) ||
        head->e_phnum == 0 || head->e_phnum > 64)
        return ferrum_elf_corrupt(elf, "program header table");
    if (head->e_shnum > 0 && (head->e_shentsize != sizeof(Elf64_Shdr) ||
                              head->e_shstrndx >= head->e_shnum || head->e_shoff > elf->size ||
                              head->e_shnum > (elf->size - head->e_shoff) / sizeof(Elf64_Shdr)))
        return ferrum_elf_corrupt(elf, "section header table");
    return FERRUM_OK;
}

static ferrum_status_t add_load(ferrum_elf_t *elf, const Elf64_Phdr *load)
{
    const Elf64_Phdr *before = elf->load_count ? &elf->loads[elf->load_count - 1] : NULL;
    if (elf->load_count == FERRUM_ELF_MAX_LOADS)
        return ferrum_elf_corrupt(elf, "too many segments");
    if (load->p_offset > elf->size || load->p_filesz > elf->size - load->p_offset)
        return ferrum_elf_corrupt(elf, "a segment ends beyond the file");
    if (load->p_filesz > load->p_memsz || load->p_vaddr >> 32 || load->p_memsz >> 32 ||
        load->p_align < 4096 || (load->p_align & (load->p_align - 1)) != 0 || load->p_align >> 30 ||
        ((load->p_vaddr - load->p_offset) & (load->p_align - 1)) != 0 ||
        (before && load->p_vaddr < before->p_vaddr + before->p_memsz))
        return ferrum_elf_corrupt(elf, "segment layout");
    if ((load->p_flags & (PF_W | PF_X)) == (PF_W | PF_X))
        return ferrum_fail(elf->err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                           "%s has a segment that is writable and executable", elf->path);
    elf->loads[elf->load_count++] = *load;
    return FERRUM_OK;
}

/* Notes that the dynamic linker reads: sizes within the segment. */
static bool check_notes(const ferrum_elf_t *elf, const Elf64_Phdr *notes)
{
    uint64_t at = notes->p_offset, end = notes->p_offset + notes->p_filesz;
    uint64_t align = notes->p_align == 8 ? 8 : 4;
    while (end - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        if (!ferrum_elf_fetch(elf, at, &note, sizeof note))
            return false;
        uint64_t description = (sizeof note + (uint64_t)note.n_namesz + align - 1) & ~(align - 1);
        if (description > end - at || note.n_descsz > end - at - description)
            return false;
        uint64_t next = (description + note.n_descsz + align - 1) & ~(align - 1);
        at = next < end - at ? at + next : end;
    }
    return true;
}

/* It is made read-only in whole pages, and may end with the last page of its segment. */
static bool relro_is_ours(const ferrum_elf_t *elf, const Elf64_Phdr *relro)
{
    for (unsigned i = 0; i < elf->load_count; i++) {
        const Elf64_Phdr *load = &elf->loads[i];
        uint64_t end = (load->p_vaddr + load->p_memsz + 4095) & ~(uint64_t)4095;
        if (relro->p_vaddr >= load->p_vaddr && relro->p_vaddr < end)
            return (load->p_flags & PF_W) && relro->p_memsz <= end - relro->p_vaddr;
    }
    return false;
}

/* One segment that is not loaded by itself but describes loaded bytes. */
static ferrum_status_t check_segment(ferrum_elf_t *elf, const Elf64_Phdr *segment)
{
    uint64_t offset;
    switch (segment->p_type) {
    case PT_DYNAMIC:
        if (elf->dynamic.p_filesz || !segment->p_filesz || segment->p_memsz != segment->p_filesz ||
            !ferrum_elf_locate(elf, segment->p_vaddr, segment->p_filesz, &offset) ||
            offset != segment->p_offset)
            return ferrum_elf_corrupt(elf, "dynamic section");
        elf->dynamic = *segment;
        return FERRUM_OK;
    case PT_GNU_STACK:
        return segment->p_flags & PF_X
                   ? ferrum_fail(elf->err, FERRUM_BAD_PLUGIN, FERRUM_REASON_OTHER,
                                 "%s asks for executable stacks; link it with -z noexecstack",
                                 elf->path)
                   : FERRUM_OK;
    case PT_GNU_RELRO:
        return relro_is_ours(elf, segment)
                   ? FERRUM_OK
                   : ferrum_elf_corrupt(elf, "read-only-after-relocation segment");
    case PT_PHDR:
    case PT_TLS:
    case PT_NOTE:
    case PT_GNU_PROPERTY:
        if (segment->p_filesz > segment->p_memsz || segment->p_memsz >> 32 ||
            (segment->p_align & (segment->p_align - 1)) != 0 || segment->p_align > 4096)
            return ferrum_elf_corrupt(elf, "segment table");
        if (segment->p_filesz == 0)
            return FERRUM_OK;
        if (!ferrum_elf_locate(elf, segment->p_vaddr, segment->p_filesz, &offset) ||
            offset != segment->p_offset)
            return ferrum_elf_corrupt(elf, "segment table");
        if (segment->p_type == PT_PHDR && offset != elf->head.e_phoff)
            return ferrum_elf_corrupt(elf, "segment table");
        if (segment->p_type == PT_TLS)
            return FERRUM_OK;
        return segment->p_type == PT_PHDR || check_notes(elf, segment)
                   ? FERRUM_OK
                   : ferrum_elf_corrupt(elf, "notes");
    default:
        return FERRUM_OK;
    }
}

static ferrum_status_t parse_segments(ferrum_elf_t *elf)
{
    for (int loads = 1; loads >= 0; loads--) { /* loads first: the others lie within them */
        for (unsigned i = 0; i < elf->head.e_phnum; i++) {
            Elf64_Phdr segment;
            uint64_t offset = elf->head.e_phoff + i * sizeof segment;
            if (elf->head.e_phoff > elf->size ||
                !ferrum_elf_fetch(elf, offset, &segment, sizeof segment))
                return ferrum_elf_corrupt(elf, "program header table");
            if (loads && segment.p_type == PT_LOAD)
                FERRUM_TRY(add_load(elf, &segment));
            else if (!loads && segment.p_type != PT_LOAD)
                FERRUM_TRY(check_segment(elf, &segment));
        }
    }
    if (elf->load_count == 0 || !elf->dynamic.p_filesz)
        return ferrum_elf_corrupt(elf, "it has no dynamic section");
    return FERRUM_OK;
}

/* Sections, where there are any, must agree with the segments that will be mapped. */
static ferrum_status_t check_sections(const ferrum_elf_t *elf)
{
    for (unsigned i = 0; i < elf->head.e_shnum; i++) {
        Elf64_Shdr section;
        (void)ferrum_elf_fetch(elf, elf->head.e_shoff + i * sizeof section, &section,
                               sizeof section);
        if (!(section.sh_flags & SHF_ALLOC) || (section.sh_flags & SHF_TLS))
            continue;
        uint32_t flags = (section.sh_flags & SHF_WRITE ? PF_W : 0u) |
                         (section.sh_flags & SHF_EXECINSTR ? PF_X : 0u) | PF_R;
        uint64_t offset;
        if (section.sh_size > 0 &&
            (!ferrum_elf_in_memory(elf, section.sh_addr, section.sh_size, flags) ||
             (section.sh_type != SHT_NOBITS &&
              (!ferrum_elf_locate(elf, section.sh_addr, section.sh_size, &offset) ||
               offset != section.sh_offset))))
            return ferrum_elf_corrupt(elf, "sections and segments differ");
    }
    return FERRUM_OK;
}

/* ---- dynamic section ---- */

/* Where the view keeps a tag, or FERRUM_ELF_TAGS. */
static unsigned slot_of(Elf64_Sxword tag)
{
    if (tag > 0 && tag < FERRUM_ELF_BASE_TAGS)
        return (unsigned)tag;
    switch (tag) {
    case DT_GNU_HASH:
        return FERRUM_ELF_GNU_HASH;
    case DT_VERSYM:
        return FERRUM_ELF_VERSYM;
    case DT_VERDEF:
        return FERRUM_ELF_VERDEF;
    case DT_VERDEFNUM:
        return FERRUM_ELF_VERDEFNUM;
    case DT_VERNEED:
        return FERRUM_ELF_VERNEED;
    case DT_VERNEEDNUM:
        return FERRUM_ELF_VERNEEDNUM;
    case DT_RELACOUNT:
        return FERRUM_ELF_RELACOUNT;
    case DT_FLAGS_1:
        return FERRUM_ELF_FLAGS_1;
    default:
        return FERRUM_ELF_TAGS;
    }
}

static ferrum_status_t parse_dynamic(ferrum_elf_t *elf)
{
    uint64_t count = elf->dynamic.p_filesz / sizeof(Elf64_Dyn), i = 0;
    for (; i < count; i++) {
        Elf64_Dyn entry = ferrum_elf_dynamic(elf, i);
        unsigned slot = slot_of(entry.d_tag);
        if (entry.d_tag == DT_NULL)
            break;
        if (slot == FERRUM_ELF_TAGS)
            continue;
        if (elf->has_tag[slot] && slot != DT_NEEDED)
            return ferrum_elf_corrupt(elf, "a tag of the dynamic section occurs twice");
        elf->has_tag[slot] = true;
        elf->tags[slot] = entry.d_un.d_val;
    }
    if (i == count)
        return ferrum_elf_corrupt(elf, "the dynamic section has no end");
    if (!elf->has_tag[DT_STRTAB] || !elf->has_tag[DT_STRSZ] || !elf->has_tag[DT_SYMTAB] ||
        elf->tags[DT_STRSZ] == 0 ||
        !ferrum_elf_locate(elf, elf->tags[DT_STRTAB], elf->tags[DT_STRSZ], &elf->strings) ||
        elf->bytes[elf->strings + elf->tags[DT_STRSZ] - 1] != '\0')
        return ferrum_elf_corrupt(elf, "string table");
    return FERRUM_OK;
}

/* ---- symbols: their number is known only from the hash tables ---- */

static bool count_by_sysv_hash(ferrum_elf_t *elf)
{
    uint32_t head[2]; /* buckets, chains */
    uint64_t at;
    if (!ferrum_elf_read(elf, elf->tags[DT_HASH], head, sizeof head) || head[0] == 0 ||
        !ferrum_elf_locate(elf, elf->tags[DT_HASH], sizeof head + 4 * ((uint64_t)head[0] + head[1]),
                           &at))
        return false;
    for (uint64_t i = 0; i < (uint64_t)head[0] + head[1]; i++) {
        uint32_t index = UINT32_MAX;
        (void)ferrum_elf_fetch(elf, at + sizeof head + 4 * i, &index, sizeof index);
        if (index >= head[1])
            return false;
    }
    elf->symbol_count = head[1];
    return true;
}

/* The symbols of the highest bucket are the last ones; their chain ends at an odd word. */
static bool count_by_gnu_hash(ferrum_elf_t *elf)
{
    uint32_t head[4]; /* buckets, first hashed symbol, filter words, shift */
    uint32_t word, last = 0;
    uint64_t at, table = elf->tags[FERRUM_ELF_GNU_HASH];
    if (!ferrum_elf_read(elf, table, head, sizeof head))
        return false;
    uint64_t buckets = sizeof head + 8 * (uint64_t)head[2];
    uint64_t chains = buckets + 4 * (uint64_t)head[0];
    if (head[0] == 0 || head[2] == 0 || (head[2] & (head[2] - 1)) != 0 || head[3] > 63 ||
        !ferrum_elf_locate(elf, table, chains, &at))
        return false;
    for (uint32_t i = 0; i < head[0]; i++) {
        word = 0;
        (void)ferrum_elf_fetch(elf, at + buckets + 4 * (uint64_t)i, &word, sizeof word);
        if (word != 0 && word < head[1])
            return false;
        last = word > last ? word : last;
    }
    elf->symbol_count = head[1];
    if (last == 0)
        return true;
    uint64_t index = last;
    do {
        if (!ferrum_elf_read(elf, table + chains + 4 * (index - head[1]), &word, sizeof word))
            return false;
        index++;
    } while (!(word & 1));
    elf->symbol_count = index;
    return true;
}

/* An import is looked up elsewhere, which a local or hidden one would not be; a function lies
 * within the plugin. */
static bool is_sound_symbol(const ferrum_elf_t *elf, Elf64_Sym symbol)
{
    unsigned type = ELF64_ST_TYPE(symbol.st_info);
    if (!ferrum_elf_string(elf, symbol.st_name))
        return false;
    if (symbol.st_shndx == SHN_UNDEF)
        return ELF64_ST_BIND(symbol.st_info) != STB_LOCAL &&
               ELF64_ST_VISIBILITY(symbol.st_other) == STV_DEFAULT;
    if (type == STT_GNU_IFUNC) /* its resolver would run while it is being loaded */
        return false;
    if (type == STT_FUNC)
        return ferrum_elf_in_memory(elf, symbol.st_value, 1, PF_X);
    return type != STT_NOTYPE || symbol.st_shndx == SHN_ABS ||
           (symbol.st_value != 0 && ferrum_elf_in_memory(elf, symbol.st_value, 0, 0));
}

static ferrum_status_t parse_symbols(ferrum_elf_t *elf)
{
    bool counted = elf->has_tag[FERRUM_ELF_GNU_HASH] ? count_by_gnu_hash(elf)
                   : elf->has_tag[DT_HASH]           ? count_by_sysv_hash(elf)
                                                     : false;
    if (!counted)
        return ferrum_elf_corrupt(elf, "symbol hash table");
    if (elf->symbol_count > elf->size / sizeof(Elf64_Sym) ||
        !ferrum_elf_locate(elf, elf->tags[DT_SYMTAB], elf->symbol_count * sizeof(Elf64_Sym),
                           &elf->symbols))
        return ferrum_elf_corrupt(elf, "symbol table");
    const Elf64_Sym none = {0}, first = ferrum_elf_symbol(elf, 0);
    if (memcmp(&first, &none, sizeof none) != 0)
        return ferrum_elf_corrupt(elf, "the symbol of number 0");
    for (uint64_t i = 1; i < elf->symbol_count; i++)
        if (!is_sound_symbol(elf, ferrum_elf_symbol(elf, i)))
            return ferrum_elf_corrupt(elf, "a symbol");
    return FERRUM_OK;
}

ferrum_status_t ferrum_elf_parse(ferrum_elf_t *out_elf, const void *bytes, uint64_t size,
                                 const char *path, ferrum_error_t *err)
{
    memset(out_elf, 0, sizeof *out_elf);
    out_elf->bytes = bytes;
    out_elf->size = size;
    out_elf->path = path;
    out_elf->err = err;
    FERRUM_TRY(parse_head(out_elf));
    FERRUM_TRY(parse_segments(out_elf));
    FERRUM_TRY(check_sections(out_elf));
    FERRUM_TRY(parse_dynamic(out_elf));
    return parse_symbols(out_elf);
}
