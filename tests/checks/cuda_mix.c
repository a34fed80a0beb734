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
 * and "most" are the shortest and the longest of the ways around it that meet the most matrix
 * instructions, then the most copies from memory, then the most steps of decoding: how often a
 * group ends decides where between them the mean lies. Loops inside it count once.
 *
 * Usage: cuda_mix FATBIN [kernel]   (with the name of a kernel: every operation of it instead)
 */
#include "kernels/cuda/moe_args.h"

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

/* Instructions from which `last` can be reached without another pass through `first`. */
typedef struct loop {
    int64_t first, last; /* last jumps to first */
    bool *has;           /* [length of the kernel] */
    int64_t length;
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
    /* With zero as the first operand a half is made a float, or a constant. */
    if (in.kind == HFMA2 && (low >> 24 & 0xff) == 0xff)
        in.kind = in.code == 0x030 ? CONVERT : OTHER;
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

/* Where control can go from an instruction: one or two places, or none. */
static int successors(const kernel_t *kernel, int64_t at, int64_t out[2])
{
    const instruction_t *in = &kernel->code[at];
    int found = 0;
    if (in->flow != JUMP && in->flow != LEAVE && at + 1 < kernel->length)
        out[found++] = at + 1;
    if (in->flow != NEXT && in->flow != LEAVE && in->target >= 0 && in->target < kernel->length)
        out[found++] = in->target;
    return found;
}

static int64_t count(const kernel_t *kernel, const loop_t *loop, operation_class_t kind)
{
    int64_t found = 0;
    for (int64_t i = 0; i < kernel->length; i++)
        found += (loop == NULL || loop->has[i]) && kernel->code[i].kind == kind;
    return found;
}

/* The instructions of a loop, given its ends. Branches that lead to an instruction are found again
 * by looking at all of them: until nothing is added, a pass over the code from its end to its
 * start. */
static void fill_loop(const kernel_t *kernel, loop_t *loop)
{
    bool added = true;
    memset(loop->has, 0, (size_t)kernel->length);
    loop->has[loop->last] = loop->has[loop->first] = true;
    while (added) {
        added = false;
        for (int64_t i = kernel->length - 1; i >= 0; i--) {
            int64_t to[2];
            int ways = successors(kernel, i, to);
            for (int w = 0; w < ways && !loop->has[i]; w++)
                if (loop->has[to[w]] && to[w] != loop->first)
                    added = loop->has[i] = true;
        }
    }
    loop->length = 0;
    for (int64_t i = 0; i < kernel->length; i++)
        loop->length += loop->has[i];
}

/* Of the ways from an instruction to the branch back. */
typedef struct way {
    int64_t
        work[3]; /* products (< 0: there is none), copies, HFMA2 (decoding): the more the better */
    int64_t least, most;
} way_t;

static void prefer(way_t *best, const way_t *other)
{
    size_t i = 0;

    while (i < 3 && best->work[i] == other->work[i])
        i++;
    if (i < 3 && best->work[i] < other->work[i])
        *best = *other;
    if (i < 3)
        return;
    best->least = other->least < best->least ? other->least : best->least;
    best->most = other->most > best->most ? other->most : best->most;
}

/* Depth first from the start of the loop; an instruction is done when all that follow it are.
 * Branches back to one that is not done close a loop inside: it counts once. */
static way_t ways_around(const kernel_t *kernel, const loop_t *loop)
{
    enum {
        NEW,
        OPEN,
        DONE
    };
    way_t *way = calloc((size_t)kernel->length, sizeof *way);
    unsigned char *state = calloc((size_t)kernel->length, 1);
    int64_t *stack = calloc((size_t)kernel->length * 2 + 1, sizeof *stack), depth = 0;
    /* Loads are copies where there are no others; else they are what is rarely needed. */
    operation_class_t copy = count(kernel, loop, COPY) > 0 ? COPY : LDG;
    if (way == NULL || state == NULL || stack == NULL)
        die("out of memory");
    stack[depth++] = loop->first;
    while (depth > 0) {
        int64_t at = stack[depth - 1], to[2];
        int ways = successors(kernel, at, to);
        const uint8_t kind = kernel->code[at].kind;
        if (state[at] == NEW && at != loop->last) {
            state[at] = OPEN;
            for (int w = 0; w < ways; w++)
                if (loop->has[to[w]] && state[to[w]] == NEW)
                    stack[depth++] = to[w];
            continue;
        }
        depth--;
        if (state[at] == DONE)
            continue;
        way_t best = {.work = {at == loop->last ? 0 : -1, 0, 0}};
        for (int w = 0; w < ways && at != loop->last; w++)
            if (loop->has[to[w]] && state[to[w]] == DONE)
                prefer(&best, &way[to[w]]);
        if (best.work[0] >= 0) {
            best.work[0] += kind <= IDP;
            best.work[1] += kind == copy;
            best.work[2] += kind == HFMA2;
            best.least++;
            best.most++;
        }
        way[at] = best;
        state[at] = DONE;
    }
    way_t first = way[loop->first];
    free(way);
    free(state);
    free(stack);
    return first;
}

/* False: there is none. */
static bool find_loop(const kernel_t *kernel, loop_t *best, way_t *out_way)
{
    static const operation_class_t product[] = {HGMMA, HMMA, IMMA, IDP, FFMA, LDG, OTHER};
    loop_t loop = {.has = calloc((size_t)kernel->length, 1)};
    int64_t most = 0;

    if (loop.has == NULL)
        die("out of memory");
    for (size_t p = 0; p < sizeof product / sizeof *product && most == 0; p++) {
        for (int64_t i = 0; i < kernel->length; i++) {
            loop.first = kernel->code[i].target;
            loop.last = i;
            if (kernel->code[i].kind != BRANCH || loop.first < 0 || loop.first >= i)
                continue;
            fill_loop(kernel, &loop);
            int64_t found = count(kernel, &loop, product[p]);
            if (found < most || found == 0 || (found == most && loop.length >= best->length))
                continue;
            way_t way = ways_around(kernel, &loop);
            if (way.work[0] < 0)
                continue;
            most = found;
            best->first = loop.first;
            best->last = loop.last;
            *out_way = way;
            best->length = loop.length;
        }
    }
    free(loop.has);
    if (most > 0)
        fill_loop(kernel, best);
    return most > 0;
}

/* Shared memory that a launch asks for, where it does not depend on the problem; else 0. */
static unsigned dynamic_bytes(const char *name)
{
    unsigned rows = 0;
    char dtype[8];
    if (sscanf(name, "ferrum_w4_wgmma_gate_up_%u_%7s", &rows, dtype) == 2 ||
        sscanf(name, "ferrum_w4_wgmma_%u_%7s", &rows, dtype) == 2)
        return FERRUM_W4_WGMMA_SHARED_BYTES(rows);
    if (sscanf(name, "ferrum_w4_gate_up_%u_%7s", &rows, dtype) == 2)
        return FERRUM_W4_SHARED_BYTES(rows, true);
    if (sscanf(name, "ferrum_w4_%u_%7s", &rows, dtype) == 2)
        return FERRUM_W4_SHARED_BYTES(rows, false);
    return 0;
}

static void print_kernel(kernel_t *kernel)
{
    /* The end is a branch to itself and padding. */
    while (kernel->length > 1 && (kernel->code[kernel->length - 1].code == 0x118 ||
                                  kernel->code[kernel->length - 1].target == kernel->length - 1))
        kernel->length--;
    loop_t loop = {.has = calloc((size_t)kernel->length, 1)};
    way_t way = {0};
    if (loop.has == NULL)
        die("out of memory");
    bool found = find_loop(kernel, &loop, &way);

    printf("%s\t%u\t%lld\t%lld\t%lld\t%lld", kernel->name, dynamic_bytes(kernel->name),
           (long long)kernel->length, (long long)loop.length, (long long)way.least,
           (long long)way.most);
    for (int kind = 0; kind < CLASSES; kind++)
        printf("\t%lld", (long long)count(kernel, found ? &loop : NULL, (operation_class_t)kind));
    free(loop.has);
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
        printf("kernel\tdynamic\tall\tloop\tleast\tmost");
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
