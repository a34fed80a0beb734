/* SPDX-License-Identifier: MIT */
/*
 * Files that are no good plugin. Whatever is wrong, the answer is an error with a message, and
 * nothing stays behind. Files whose headers are wrong are opened in a child process, so that one
 * that brings the dynamic linker down is a failed test and not the end of it.
 */
#include "config.h"

#include "tests/loader/support.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static ferrum_test_path_t dir, path;
static uint8_t *plugin; /* a good one */
static size_t plugin_bytes;

static void setup(void)
{
    ferrum_test_path_t good;
    plugin_path("fixture", good);
    plugin = ferrum_test_read_file(good, &plugin_bytes);
    ck_assert_ptr_nonnull(plugin);
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "bad.so", path);
}

static void teardown(void)
{
    free(plugin);
    ferrum_test_remove_directory(dir);
}

static void expect_refused(ferrum_status_t status, const char *text)
{
    ferrum_module_t *module = NULL;
    trace_t before = take_trace();
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_FAILS(ferrum_loader_open(loader, path, &module, &err), status, text);
    ck_assert_ptr_null(module);
    ferrum_loader_free(loader);
    expect_same_trace(&before);
}

START_TEST(other_kinds_of_files)
{
    ferrum_test_path_t sub;
    expect_refused(FERRUM_NOT_FOUND, "does not exist");
    ferrum_test_write_file(path, "", 0);
    expect_refused(FERRUM_CORRUPT, "is empty");
    ferrum_test_write_file(path, "#!/bin/sh\n", 10);
    expect_refused(FERRUM_CORRUPT, "is not an ELF shared object");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_refused(FERRUM_BAD_PLUGIN, "is a FIFO"); /* and does not wait for a writer */
    ck_assert_int_eq(unlink(path), 0);
    ferrum_test_join(dir, "bad.so", sub);
    ck_assert_int_eq(mkdir(sub, 0755), 0);
    expect_refused(FERRUM_BAD_PLUGIN, "is a directory");
    ck_assert_int_eq(rmdir(sub), 0);
    ck_assert_int_eq(symlink("/dev/null", path), 0);
    expect_refused(FERRUM_PERMISSION, "is a symbolic link");
    ck_assert_int_eq(unlink(path), 0);
}
END_TEST

START_TEST(long_paths_leave_room_for_the_reason)
{
    char deep[700] = "/nowhere/";
    ferrum_module_t *module;
    while (strlen(deep) < 600)
        (void)strcat(deep, "a-long-name/");
    (void)strcat(deep, "plugin.so");
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_FAILS(ferrum_loader_open(loader, deep, &module, &err), FERRUM_NOT_FOUND,
                 "a-long-name/plugin.so does not exist");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(devices)
{
    ferrum_module_t *module;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_FAILS(ferrum_loader_open(loader, "/dev/zero", &module, &err), FERRUM_BAD_PLUGIN,
                 "is a device");
    EXPECT_FAILS(ferrum_loader_open(loader, "/proc/self/cmdline", &module, &err), FERRUM_CORRUPT,
                 "is empty");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(programs_and_other_libraries)
{
    ferrum_test_path_t other;
    plugin_path("fixture-v2", other);
    copy_file(other, path);
    expect_refused(FERRUM_VERSION_MISMATCH, "ferrum_plugin_query_v2");
    copy_file("/proc/self/exe", path);
    expect_refused(FERRUM_BAD_PLUGIN, "is a program, not a shared object");
}
END_TEST

/* ---- header fields with a known answer ---- */

static const struct {
    size_t offset;
    uint8_t value;
    ferrum_status_t status;
    const char *text;
} header_bytes[] = {
    {EI_MAG0, 0, FERRUM_CORRUPT, "is not an ELF shared object"},
    {EI_CLASS, ELFCLASS32, FERRUM_UNSUPPORTED, "is for another machine"},
    {EI_DATA, ELFDATA2MSB, FERRUM_UNSUPPORTED, "is for another machine"},
    {EI_VERSION, 9, FERRUM_CORRUPT, "ELF version"},
    {EI_OSABI, 9, FERRUM_CORRUPT, "ELF version or system"},
    {offsetof(Elf64_Ehdr, e_machine), EM_SPARC, FERRUM_UNSUPPORTED, "is for another machine"},
    {offsetof(Elf64_Ehdr, e_type), ET_EXEC, FERRUM_BAD_PLUGIN, "is not a shared object"},
    {offsetof(Elf64_Ehdr, e_type), ET_REL, FERRUM_BAD_PLUGIN, "link it with -shared"},
    {offsetof(Elf64_Ehdr, e_phnum), 0, FERRUM_CORRUPT, "program header table"},
    {offsetof(Elf64_Ehdr, e_phoff) + 5, 1, FERRUM_CORRUPT, "program header table"},
    {offsetof(Elf64_Ehdr, e_shoff) + 5, 1, FERRUM_CORRUPT, "section header table"},
};

START_TEST(header_fields)
{
    plugin[header_bytes[_i].offset] = header_bytes[_i].value;
    ferrum_test_write_file(path, plugin, plugin_bytes);
    expect_refused(header_bytes[_i].status, header_bytes[_i].text);
}
END_TEST

/* ---- any damage ---- */

/* In a child: open the file; exit 0 when it was refused with a message, 1 when it opened (some
 * damage does not matter), 2 when there was no message or something stayed behind. */
static int open_in_child(void)
{
    (void)fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        ferrum_module_t *module = NULL;
        ferrum_error_t error = FERRUM_ERROR_INIT;
        trace_t before = take_trace();
        ferrum_loader_t *loader = fixture_loader(NULL, "");
        ferrum_status_t status = ferrum_loader_open(loader, path, &module, &error);
        ferrum_module_release(module, NULL);
        ferrum_loader_free(loader);
        trace_t after = take_trace();
        if (status == FERRUM_OK)
            _exit(1);
        _exit(error.message[0] && after.fds == before.fds && after.mappings == before.mappings ? 0
                                                                                               : 2);
    }
    int state;
    ck_assert_int_eq(waitpid(child, &state, 0), child);
    return WIFEXITED(state) ? WEXITSTATUS(state) : 1000 + WTERMSIG(state);
}

START_TEST(truncated_at_any_length)
{
    size_t step = is_sanitized() ? 1999 : 487;
    for (size_t length = 1; length < plugin_bytes; length += length < 128 ? 9 : step) {
        ferrum_test_write_file(path, plugin, length);
        expect_refused(FERRUM_CORRUPT, path);
    }
    ferrum_test_write_file(path, plugin, plugin_bytes - 1);
    expect_refused(FERRUM_CORRUPT, "section header table");
}
END_TEST

START_TEST(every_byte_of_the_header)
{
    for (size_t i = 0; i < sizeof(Elf64_Ehdr); i++) {
        uint8_t kept = plugin[i];
        plugin[i] = (uint8_t)(kept ^ (i % 3 ? 0xff : 0x01));
        ferrum_test_write_file(path, plugin, plugin_bytes);
        int result = open_in_child();
        ck_assert_msg(result == 0 || result == 1, "byte %zu of the ELF header: %d", i, result);
        plugin[i] = kept;
    }
}
END_TEST

static uint64_t random_state = 42;

static uint64_t random_below(uint64_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % limit;
}

/* Ranges of the file that the dynamic linker interprets. Code and data are not among them, nor are
 * names and addresses of symbols and the relocations: which of two valid ones was meant, nobody can
 * tell. */
typedef struct range {
    uint64_t start, bytes, stride, used;
} range_t;

static Elf64_Shdr section_of(uint32_t type)
{
    Elf64_Ehdr head;
    Elf64_Shdr section = {0};
    memcpy(&head, plugin, sizeof head);
    for (unsigned i = 0; i < head.e_shnum; i++) {
        memcpy(&section, plugin + head.e_shoff + i * sizeof section, sizeof section);
        if (section.sh_type == type && (section.sh_flags & SHF_ALLOC))
            return section;
    }
    ck_abort_msg("no section of type %u", type);
}

static size_t find_ranges(range_t *ranges)
{
    static const uint32_t types[] = {SHT_DYNAMIC,  SHT_DYNSYM,      SHT_STRTAB,
                                     SHT_GNU_HASH, SHT_GNU_verneed, SHT_GNU_versym};
    Elf64_Ehdr head;
    size_t count = 0;
    memcpy(&head, plugin, sizeof head);
    ranges[count++] = (range_t){head.e_phoff, head.e_phnum * sizeof(Elf64_Phdr), 1, 1};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        Elf64_Shdr section = section_of(types[i]);
        ranges[count] = (range_t){section.sh_offset, section.sh_size, 1, 1};
        if (types[i] == SHT_DYNSYM) { /* kind and section of a symbol, not its name and value */
            ranges[count].start += offsetof(Elf64_Sym, st_info);
            ranges[count].stride = sizeof(Elf64_Sym);
            ranges[count].used = offsetof(Elf64_Sym, st_value) - offsetof(Elf64_Sym, st_info);
        }
        count++;
    }
    return count;
}

/* Values that only their author can judge: addresses of code in the dynamic section, and how much
 * becomes read-only after relocation. */
static bool is_unjudgeable(const range_t *range, uint64_t at)
{
    uint64_t within = at - range->start;
    Elf64_Shdr dynamic = section_of(SHT_DYNAMIC);
    if (range->start == dynamic.sh_offset) {
        Elf64_Dyn entry;
        memcpy(&entry, plugin + at - within % sizeof entry, sizeof entry);
        return entry.d_tag == DT_INIT || entry.d_tag == DT_FINI;
    }
    if (range->start == sizeof(Elf64_Ehdr)) {
        Elf64_Phdr segment;
        memcpy(&segment, plugin + at - within % sizeof segment, sizeof segment);
        return segment.p_type == PT_GNU_RELRO;
    }
    return false;
}

START_TEST(damaged_metadata)
{
    range_t ranges[8];
    size_t count = find_ranges(ranges);
    int rounds = is_sanitized() ? 200 : 2000, refused = 0;
    ck_assert_uint_eq(count, 7);
    for (int round = 0; round < rounds; round++) {
        const range_t *range = &ranges[random_below(count)];
        uint64_t row = random_below(range->bytes / range->stride);
        uint64_t at = range->start + row * range->stride + random_below(range->used);
        if (is_unjudgeable(range, at))
            continue;
        uint8_t kept = plugin[at];
        plugin[at] = (uint8_t)(kept ^ (1u << random_below(8)));
        ferrum_test_write_file(path, plugin, plugin_bytes);
        int result = open_in_child();
        ck_assert_msg(result == 0 || result == 1, "byte %#llx, %#x for %#x: %d",
                      (unsigned long long)at, plugin[at], kept, result);
        refused += result == 0;
        plugin[at] = kept;
    }
    ck_assert_int_gt(refused, rounds / 4);
}
END_TEST

START_TEST(damaged_relocations)
{
    Elf64_Shdr section = section_of(SHT_RELA);
#if defined(__aarch64__)
    const uint64_t copy_type = R_AARCH64_COPY;
#else
    const uint64_t copy_type = R_X86_64_COPY;
#endif
    for (int kind = 0; kind < 4; kind++) {
        Elf64_Rela good, bad;
        memcpy(&good, plugin + section.sh_offset, sizeof good);
        bad = good;
        if (kind == 0)
            bad.r_offset = (uint64_t)1 << 40; /* far away */
        else if (kind == 1)
            bad.r_offset = 0x40; /* read-only */
        else if (kind == 2)
            bad.r_info += (uint64_t)100000 << 32; /* no such symbol */
        else
            bad.r_info = (good.r_info & ~(uint64_t)0xffffffff) | copy_type;
        memcpy(plugin + section.sh_offset, &bad, sizeof bad);
        ferrum_test_write_file(path, plugin, plugin_bytes);
        expect_refused(FERRUM_CORRUPT, "reloc");
        memcpy(plugin + section.sh_offset, &good, sizeof good);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/bad files");
    TCase *tests = tcase_create("bad files");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, other_kinds_of_files);
    tcase_add_test(tests, long_paths_leave_room_for_the_reason);
    tcase_add_test(tests, devices);
    tcase_add_test(tests, programs_and_other_libraries);
    tcase_add_loop_test(tests, header_fields, 0, sizeof header_bytes / sizeof header_bytes[0]);
    tcase_add_test(tests, truncated_at_any_length);
    tcase_add_test(tests, every_byte_of_the_header);
    tcase_add_test(tests, damaged_metadata);
    tcase_add_test(tests, damaged_relocations);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
