/* SPDX-License-Identifier: MIT */
/*
 * What the machine code for sm_90a in kernels/cuda/image.fatbin consists of, one line per kernel:
 * how many instructions there are of each class in the main loop, and how many a warp issues on its
 * way around it. A disassembler is not needed: Volta to Hopper have instructions of 16 bytes whose
 * low 9 bits name the operation, and here only branches are of interest beyond that. Where
 * cuobjdump is installed, cuda-evidence.sh compares the two.
 *
 * The main loop is the one with the most products: of matrices, of packed bytes, of floats,
 * whatever comes first in this list and occurs at all; of loops with as many, the shortest. "least"
 * and "most" are the shortest and the longest way around it that meet all its matrix instructions
 * and as many copies from memory as any way does: how often a group ends decides where between them
 * the mean lies. Loops inside it count once.
 *
 * Usage: cuda_mix FATBIN [kernel]   (with the name of a kernel: every operation of it instead)
 */
#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FATBIN_MAGIC = 0xba55ed50,
    FATBIN_ELF = 2, /* kind of an entry */
    ARCH = 90,
    CODE_BYTES = 16,
    OPERATIONS = 512,
    MOST_CODE = 1 << 20 /* instructions of a kernel */
};

/* Columns of the table, in order. */
typedef enum operation_class {
    HGMMA,
    HMMA,
    IMMA,
    IDP,
    LDG,
    COPY,
    LDS,
    LDSM,
    STS,
    FFMA,
    HFMA2,
    LOP3,
    SHF,
    PRMT,
    IMAD,
    CONVERT,
    BAR,
    BRANCH,
    OTHER,
    CLASSES
} operation_class_t;

static const char *const class_name[CLASSES] = {
    "hgmma", "hmma", "imma", "idp",  "ldg",  "copy",    "lds", "ldsm",   "sts",   "ffma",
    "hfma2", "lop3", "shf",  "prmt", "imad", "convert", "bar", "branch", "other",
};

/* Low 9 bits, name, class. Whatever is not here is OTHER. */
static const struct {
    uint16_t code;
    const char *name;
    operation_class_t kind;
} operations[] = {
    {0x1f0, "HGMMA", HGMMA},   {0x03c, "HMMA", HMMA},    {0x037, "IMMA", IMMA},
    {0x026, "IDP", IDP},       {0x181, "LDG", LDG},      {0x1ae, "LDGSTS", COPY},
    {0x1ba, "UBLKCP", COPY},   {0x1b4, "UTMALDG", COPY}, {0x184, "LDS", LDS},
    {0x03b, "LDSM", LDSM},     {0x188, "STS", STS},      {0x023, "FFMA", FFMA},
    {0x020, "FMUL", FFMA},     {0x021, "FADD", FFMA},    {0x031, "HFMA2", HFMA2},
    {0x035, "HFMA2", HFMA2},   {0x030, "HADD2", HFMA2},  {0x032, "HMUL2", HFMA2},
    {0x012, "LOP3", LOP3},     {0x019, "SHF", SHF},      {0x016, "PRMT", PRMT},
    {0x024, "IMAD", IMAD},     {0x025, "IMAD", IMAD},    {0x027, "IMAD", IMAD},
    {0x010, "IADD3", IMAD},    {0x036, "VIADD", IMAD},   {0x011, "LEA", IMAD},
    {0x104, "F2F", CONVERT},   {0x105, "F2I", CONVERT},  {0x106, "I2F", CONVERT},
    {0x112, "I2F", CONVERT},   {0x111, "F2I", CONVERT},  {0x110, "F2F", CONVERT},
    {0x045, "I2FP", CONVERT},  {0x03e, "F2FP", CONVERT}, {0x11d, "BAR", BAR},
    {0x1a7, "SYNCS", BAR},     {0x1b2, "SYNCS", BAR},    {0x148, "WARPSYNC", BAR},
    {0x1c5, "WARPGROUP", BAR}, {0x11a, "DEPBAR", BAR},   {0x1af, "LDGDEPBAR", BAR},
    {0x147, "BRA", BRANCH},    {0x149, "BRX", BRANCH},   {0x145, "BSSY", BRANCH},
    {0x141, "BSYNC", BRANCH},  {0x142, "BREAK", BRANCH}, {0x144, "CALL", BRANCH},
    {0x150, "RET", BRANCH},    {0x14d, "EXIT", BRANCH},
};

/* What becomes of control after an instruction. */
typedef enum flow {
    NEXT,
    JUMP,     /* to `target` */
    MAY_JUMP, /* or next */
    LEAVE
} flow_t;

typedef struct instruction {
    uint16_t code;
    uint8_t kind; /* operation_class_t */
    uint8_t flow; /* flow_t */
    int64_t target;
} instruction_t;

typedef struct kernel {
    const char *name;
    instruction_t *code;
    int64_t length;
} kernel_t;

typedef struct loop {
    int64_t first, last; /* last: the branch back to first */
} loop_t;

static void die(const char *what)
{
    fprintf(stderr, "cuda_mix: %s\n", what);
    exit(1);
}

static instruction_t decode(const unsigned char *at, int64_t index)
{
    uint64_t low, high;
    memcpy(&low, at, sizeof low);
    memcpy(&high, at + sizeof low, sizeof high);
    instruction_t in = {.code = low & 0x1ff, .kind = OTHER, .flow = NEXT, .target = -1};
    /* Guarded by anything but the predicate that is always true; BRA has a second one and .DIV. */
    bool guarded = (low >> 12 & 0xf) != 7;

    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (operations[i].code == in.code)
            in.kind = (uint8_t)operations[i].kind;
    if (in.code == 0x147) {
        /* In units of 4 bytes from the next one: bits 0 to 7 are at 16, the rest from 34 on. */
        uint64_t offset = (low >> 16 & 0xff) | low >> 34 << 8 | (high & 0x3ffff) << 38;
        int64_t words = (int64_t)(offset << 8) >> 8;
        guarded = guarded || (high >> 23 & 0xf) != 7 || (high >> 27 & 1) != 0;
        in.target = index + 1 + words / (CODE_BYTES / 4);
        in.flow = guarded ? MAY_JUMP : JUMP;
    } else if (in.code == 0x149 || in.code == 0x150 || in.code == 0x14d) {
        in.flow = guarded ? NEXT : LEAVE;
    }
    return in;
}

static int64_t count(const kernel_t *kernel, loop_t loop, operation_class_t kind)
{
    int64_t found = 0;
    for (int64_t i = loop.first; i <= loop.last; i++)
        found += kernel->code[i].kind == kind;
    return found;
}

static loop_t find_loop(const kernel_t *kernel)
{
    static const operation_class_t product[] = {HGMMA, HMMA, IMMA, IDP, FFMA, LDG, OTHER};
    loop_t best = {0, kernel->length - 1};

    for (size_t p = 0; p < sizeof product / sizeof *product; p++) {
        int64_t most = 0;
        for (int64_t i = 0; i < kernel->length; i++) {
            loop_t loop = {kernel->code[i].target, i};
            if (kernel->code[i].kind != BRANCH || loop.first < 0 || loop.first >= i)
                continue;
            int64_t found = count(kernel, loop, product[p]);
            if (found > most ||
                (found > 0 && found == most && i - loop.first < best.last - best.first)) {
                most = found;
                best = loop;
            }
        }
        if (most > 0)
            return best;
    }
    return best;
}

/* Of the ways from an instruction to the branch back. */
typedef struct way {
    int64_t products, copies, least, most;
} way_t;

static void prefer(way_t *best, const way_t *other)
{
    if (other->products < 0 || other->products < best->products ||
        (other->products == best->products && other->copies < best->copies))
        return;
    if (other->products == best->products && other->copies == best->copies) {
        best->least = other->least < best->least ? other->least : best->least;
        best->most = other->most > best->most ? other->most : best->most;
    } else {
        *best = *other;
    }
}

static way_t ways_around(const kernel_t *kernel, loop_t loop)
{
    int64_t length = loop.last - loop.first + 1;
    /* Loads are copies where there are no others; else they are what is rarely needed. */
    operation_class_t copy = count(kernel, loop, COPY) > 0 ? COPY : LDG;
    way_t *way = calloc((size_t)length, sizeof *way);
    if (way == NULL)
        die("out of memory");
    for (int64_t i = length - 1; i >= 0; i--) {
        const instruction_t *in = &kernel->code[loop.first + i];
        int64_t target = in->target - loop.first;
        way_t best = {.products = -1};
        if (i == length - 1) {
            best = (way_t){0};
        } else {
            if (in->flow != JUMP && in->flow != LEAVE)
                best = way[i + 1];
            if (in->flow != NEXT && in->flow != LEAVE && target > i && target < length)
                prefer(&best, &way[target]);
        }
        if (best.products >= 0) {
            best.products += in->kind <= IDP;
            best.copies += in->kind == copy;
            best.least++;
            best.most++;
        }
        way[i] = best;
    }
    way_t first = way[0];
    free(way);
    return first;
}

static void print_kernel(kernel_t *kernel)
{
    /* The end is a branch to itself and padding. */
    while (kernel->length > 1 && (kernel->code[kernel->length - 1].code == 0x118 ||
                                  kernel->code[kernel->length - 1].target == kernel->length - 1))
        kernel->length--;
    loop_t loop = find_loop(kernel);
    way_t way = ways_around(kernel, loop);
    bool whole = loop.first == 0 && loop.last == kernel->length - 1;

    /* Without a loop there is no way around it. */
    printf("%s\t%lld\t%lld\t%lld\t%lld", kernel->name, (long long)kernel->length,
           whole ? 0LL : (long long)(loop.last - loop.first + 1),
           whole ? 0LL : (long long)way.least, whole ? 0LL : (long long)way.most);
    for (int kind = 0; kind < CLASSES; kind++)
        printf("\t%lld", (long long)count(kernel, loop, (operation_class_t)kind));
    putchar('\n');
}

/* NAME COUNT of every operation that has a name here. */
static void print_operations(const kernel_t *kernel)
{
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        long long found = 0;
        for (int64_t j = 0; j < kernel->length; j++)
            found += kernel->code[j].code == operations[i].code;
        if (found > 0)
            printf("%s %lld\n", operations[i].name, found);
    }
}

static void read_kernel(const char *name, const unsigned char *code, uint64_t bytes,
                        const char *only)
{
    kernel_t kernel = {.name = name, .length = (int64_t)(bytes / CODE_BYTES)};

    if (only != NULL && strcmp(only, name) != 0)
        return;
    if (kernel.length == 0 || kernel.length > MOST_CODE)
        die("a kernel has no code, or too much");
    kernel.code = calloc((size_t)kernel.length, sizeof *kernel.code);
    if (kernel.code == NULL)
        die("out of memory");
    for (int64_t i = 0; i < kernel.length; i++)
        kernel.code[i] = decode(code + i * CODE_BYTES, i);
    if (only != NULL)
        print_operations(&kernel);
    else
        print_kernel(&kernel);
    free(kernel.code);
}

static void read_cubin(const unsigned char *at, size_t size, const char *only)
{
    static const char prefix[] = ".text.";
    Elf64_Ehdr head;
    Elf64_Shdr names, section;

    if (size < sizeof head || memcmp(at, ELFMAG, SELFMAG) != 0)
        die("the image is compressed");
    memcpy(&head, at, sizeof head);
    if (head.e_shoff > size || (uint64_t)head.e_shnum * sizeof section > size - head.e_shoff ||
        head.e_shstrndx >= head.e_shnum)
        die("section headers lie outside of the file");
    memcpy(&names, at + head.e_shoff + head.e_shstrndx * sizeof names, sizeof names);
    for (unsigned i = 0; i < head.e_shnum; i++) {
        memcpy(&section, at + head.e_shoff + i * sizeof section, sizeof section);
        if (section.sh_type != SHT_PROGBITS)
            continue;
        if (section.sh_offset > size || section.sh_size > size - section.sh_offset ||
            section.sh_name >= names.sh_size || names.sh_offset > size ||
            names.sh_size > size - names.sh_offset)
            die("a section lies outside of the file");
        const char *name = (const char *)at + names.sh_offset + section.sh_name;
        if (strncmp(name, prefix, sizeof prefix - 1) == 0)
            read_kernel(name + sizeof prefix - 1, at + section.sh_offset, section.sh_size, only);
    }
}

static unsigned char *read_file(const char *path, size_t *out_size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        die("cannot read the image");
    long size = ftell(file);
    unsigned char *bytes = size > 0 ? malloc((size_t)size) : NULL;
    rewind(file);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size)
        die("cannot read the image");
    fclose(file);
    *out_size = (size_t)size;
    return bytes;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3)
        die("usage: cuda_mix FATBIN [kernel]");
    size_t size;
    unsigned char *image = read_file(argv[1], &size);
    /* u32 magic, u16 version, u16 header bytes, u64 bytes of entries. An entry: u16 kind, u16
     * version, u32 header bytes, u64 bytes, ..., at 28 u32 architecture. */
    uint32_t magic = 0;
    uint16_t header = 0;
    bool found = false;
    if (size >= 16) {
        memcpy(&magic, image, sizeof magic);
        memcpy(&header, image + 6, sizeof header);
    }
    if (magic != FATBIN_MAGIC)
        die("this is not a fatbin");
    if (argc == 2) {
        printf("kernel\tall\tloop\tleast\tmost");
        for (int kind = 0; kind < CLASSES; kind++)
            printf("\t%s", class_name[kind]);
        putchar('\n');
    }
    for (size_t at = header; at + 64 <= size;) {
        uint16_t kind;
        uint32_t skip, arch;
        uint64_t bytes;
        memcpy(&kind, image + at, sizeof kind);
        memcpy(&skip, image + at + 4, sizeof skip);
        memcpy(&bytes, image + at + 8, sizeof bytes);
        memcpy(&arch, image + at + 28, sizeof arch);
        if (skip < 32 || skip > size - at || bytes > size - at - skip)
            die("an entry lies outside of the file");
        if (kind == FATBIN_ELF && arch == ARCH) {
            read_cubin(image + at + skip, (size_t)bytes, argc > 2 ? argv[2] : NULL);
            found = true;
        }
        at += skip + bytes;
    }
    free(image);
    if (!found)
        die("the image has no code for sm_90a");
    return 0;
}
