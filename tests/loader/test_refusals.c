/* SPDX-License-Identifier: MIT */
/*
 * What the loader refuses beyond test_bad_files: segments and tags that ask for too much, files
 * that change under the reader, and callers that pass nothing.
 */
#include "config.h"

#include "plugin/options.h"
#include "tests/loader/support.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static ferrum_test_path_t dir, path, good;
static uint8_t *plugin;
static size_t plugin_bytes;
static ferrum_sys_t sys;

static void setup(void)
{
    plugin_path("fixture", good);
    plugin = ferrum_test_read_file(good, &plugin_bytes);
    ck_assert_ptr_nonnull(plugin);
    ferrum_test_make_directory(dir);
    ferrum_test_join(dir, "bad.so", path);
    sys = ferrum_sys_real;
    ferrum_sys = &sys;
}

static void teardown(void)
{
    ferrum_sys = &ferrum_sys_real;
    free(plugin);
    ferrum_test_remove_directory(dir);
}

static void expect_refused(ferrum_status_t status, const char *text)
{
    ferrum_module_t *module = NULL;
    trace_t before = take_trace();
    ferrum_test_write_file(path, plugin, plugin_bytes);
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_FAILS(ferrum_loader_open(loader, path, &module, &err), status, text);
    ferrum_loader_free(loader);
    expect_same_trace(&before);
}

/* ---- segments ---- */

static Elf64_Phdr *segment_of(uint32_t type, uint32_t flags)
{
    Elf64_Ehdr head;
    memcpy(&head, plugin, sizeof head);
    for (unsigned i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr *segment =
            (Elf64_Phdr *)(void *)(plugin + head.e_phoff + i * sizeof(Elf64_Phdr));
        if (segment->p_type == type && (segment->p_flags & flags) == flags)
            return segment;
    }
    ck_abort_msg("no segment of type %u", type);
}

START_TEST(writable_code)
{
    segment_of(PT_LOAD, PF_X)->p_flags |= PF_W;
    expect_refused(FERRUM_BAD_PLUGIN, "is writable and executable");
}
END_TEST

START_TEST(executable_stacks)
{
    segment_of(PT_GNU_STACK, 0)->p_flags |= PF_X;
    expect_refused(FERRUM_BAD_PLUGIN, "-z noexecstack");
}
END_TEST

/* Its resolver would run while it is being loaded. */
START_TEST(indirect_functions)
{
    Elf64_Ehdr head;
    int changed = 0;
    memcpy(&head, plugin, sizeof head);
    for (unsigned i = 0; i < head.e_shnum; i++) {
        const Elf64_Shdr *section =
            (const Elf64_Shdr *)(const void *)(plugin + head.e_shoff + i * sizeof(Elf64_Shdr));
        Elf64_Sym *symbols = (Elf64_Sym *)(void *)(plugin + section->sh_offset);
        for (size_t j = 1; section->sh_type == SHT_DYNSYM && j < section->sh_size / sizeof *symbols;
             j++) {
            if (symbols[j].st_shndx == SHN_UNDEF)
                continue;
            symbols[j].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_GNU_IFUNC);
            changed++;
        }
    }
    ck_assert_int_gt(changed, 0);
    expect_refused(FERRUM_CORRUPT, "a symbol");
}
END_TEST

/* ---- tags of the dynamic section ---- */

static const struct {
    Elf64_Sxword tag;
    uint64_t value;
    ferrum_status_t status;
    const char *text;
} tags[] = {
    {DT_TEXTREL, 0, FERRUM_BAD_PLUGIN, "compile it with -fPIC"},
    {DT_AUDIT, 1, FERRUM_BAD_PLUGIN, "auditing or filter library"},
    {DT_DEPAUDIT, 1, FERRUM_BAD_PLUGIN, "auditing or filter library"},
    {DT_AUXILIARY, 1, FERRUM_BAD_PLUGIN, "auditing or filter library"},
    {DT_FILTER, 1, FERRUM_BAD_PLUGIN, "auditing or filter library"},
    {DT_RPATH, 1u << 30, FERRUM_CORRUPT, "library name"},
    {DT_RUNPATH, 1u << 30, FERRUM_CORRUPT, "library name"},
    {DT_REL, 0, FERRUM_CORRUPT, "relocation format"},
    {DT_RELR, 0, FERRUM_CORRUPT, "lacks a tag"},
    {DT_RELRSZ, 3, FERRUM_CORRUPT, "packed relocation table"},
    {DT_STRTAB, 0, FERRUM_CORRUPT, "occurs twice"},
};

START_TEST(dynamic_tags)
{
    const Elf64_Phdr *dynamic = segment_of(PT_DYNAMIC, 0);
    Elf64_Dyn *entry = (Elf64_Dyn *)(void *)(plugin + dynamic->p_offset);
    Elf64_Dyn *end = entry + dynamic->p_filesz / sizeof *entry;
    while (entry < end && entry->d_tag != DT_NULL)
        entry++;
    ck_assert_msg(end - entry >= 2, "the linker left no room for another tag");
    entry->d_tag = tags[_i].tag;
    entry->d_un.d_val = tags[_i].value;
    expect_refused(tags[_i].status, tags[_i].text);
}
END_TEST

/* ---- a file that changes while it is read; calls that are interrupted ---- */

static int interruptions;
static bool grows, shrinks;

static ssize_t odd_read(int fd, void *out, size_t bytes)
{
    if (interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    if (shrinks)
        return 0;
    ssize_t n = ferrum_sys_real.read(fd, out, bytes < 1000 ? bytes : 1000);
    if (n == 0 && grows) {
        memset(out, 0, 10);
        return 10;
    }
    return n;
}

static ssize_t odd_write(int fd, const void *data, size_t bytes)
{
    static int calls;
    if (calls++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return ferrum_sys_real.write(fd, data, bytes < 100 ? bytes : 100);
}

START_TEST(interrupted_and_short_calls)
{
    ferrum_module_t *module;
    ferrum_unload_report_t report;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    interruptions = 3;
    sys.read = odd_read;
    sys.write = odd_write;
    EXPECT_OK(ferrum_loader_open(loader, good, &module, &err));
    interruptions = 3;
    ferrum_module_release(module, &report);
    ck_assert_uint_eq(report.unloaded, 1);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(files_that_change_while_they_are_read)
{
    sys.read = odd_read;
    grows = _i == 0;
    shrinks = _i == 1;
    expect_refused(FERRUM_CORRUPT, "changed while it was read; try again");
}
END_TEST

static int enormous(int fd, struct stat *out)
{
    int failed = ferrum_sys_real.stat_fd(fd, out);
    out->st_size = (off_t)FERRUM_IMAGE_MAX_BYTES + 1;
    return failed;
}

START_TEST(enormous_files)
{
    sys.stat_fd = enormous;
    expect_refused(FERRUM_CORRUPT, "too large for a plugin");
}
END_TEST

/* ---- callers ---- */

static void *no_alloc(void *self, size_t bytes, size_t align)
{
    return NULL;
}

START_TEST(missing_arguments)
{
    ferrum_loader_t *loader = fixture_loader(NULL, ""), *other = NULL;
    ferrum_module_t *module;
    ferrum_candidate_t *list;
    size_t count;
    ferrum_allocator_t no_free = {.head = FERRUM_HEAD(ferrum_allocator_t), .alloc = no_alloc};
    ferrum_allocator_t small = {.head = {8, 0}};
    ferrum_logger_t no_log = {.head = FERRUM_HEAD(ferrum_logger_t)};
    EXPECT_FAILS(ferrum_loader_new(NULL, NULL, NULL, NULL, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_new(NULL, &no_free, NULL, &other, &err), FERRUM_INVALID_ARGUMENT,
                 "lacks alloc or free");
    EXPECT_FAILS(ferrum_loader_new(NULL, &small, NULL, &other, &err), FERRUM_INVALID_ARGUMENT,
                 "too small");
    EXPECT_FAILS(ferrum_loader_new(NULL, NULL, &no_log, &other, &err), FERRUM_INVALID_ARGUMENT,
                 "lacks log");
    EXPECT_FAILS(ferrum_loader_open(NULL, good, &module, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_select(NULL, "cpu", &module, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_select(loader, "cpu", NULL, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_scan(NULL, &list, &count, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_scan(loader, NULL, &count, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_loader_scan(loader, &list, NULL, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(missing_options)
{
    ferrum_options_t *options;
    EXPECT_FAILS(ferrum_options_new(NULL, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_options_from_env(NULL, NULL, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_options_copy(NULL, &options, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_options_set(NULL, "FERRUM_BACKEND", "x", &err), FERRUM_INVALID_ARGUMENT,
                 "NULL");
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_FAILS(ferrum_options_set(options, NULL, "x", &err), FERRUM_INVALID_ARGUMENT, "NULL");
    EXPECT_FAILS(ferrum_options_set(options, "FERRUM_NO_SUCH", "x", &err), FERRUM_NOT_FOUND,
                 "there is no option FERRUM_NO_SUCH");
    ck_assert_ptr_null(ferrum_options_get(NULL, "FERRUM_BACKEND"));
    ck_assert_ptr_null(ferrum_options_get(options, NULL));
    ck_assert_uint_eq(ferrum_options_uint(options, "FERRUM_BACKEND"), 0); /* is no number */
    ck_assert_uint_eq(ferrum_options_uint(options, "FERRUM_NO_SUCH"), 0);
    ck_assert_int_eq(ferrum_options_switch(options, "FERRUM_NO_SUCH"), 0);
    ck_assert_ptr_nonnull(ferrum_option_table(NULL));
    ck_assert_ptr_null(ferrum_option_complaint("FERRUM_NO_SUCH", "1"));
    ck_assert_ptr_null(ferrum_option_complaint("FERRUM_MOE_PROFILE", "1"));
    ck_assert_str_eq(ferrum_option_complaint("FERRUM_PROBE_SECONDS", "soon"),
                     "is not a decimal number");
    ck_assert_str_eq(ferrum_option_complaint("FERRUM_DISABLE_UNLOAD", "maybe"),
                     "is neither 0 nor 1");
    ferrum_options_free(options);
    ferrum_options_free(NULL);
}
END_TEST

START_TEST(directories_that_are_not_searched)
{
    char paths[2000] = "relative:";
    ferrum_candidate_t *list;
    size_t count;
    log_capture_t log;
    memset(paths + strlen(paths), 'x', 600);
    (void)snprintf(paths + 609, sizeof paths - 609, "::%.1000s", path); /* a file */
    ferrum_test_write_file(path, plugin, plugin_bytes);
    capture_init(&log, FERRUM_LOG_WARN);
    ferrum_loader_t *loader = new_loader(&log.logger, "FERRUM_PLUGIN_PATH", paths, NULL);
    EXPECT_OK(ferrum_loader_scan(loader, &list, &count, &err));
    ck_assert_ptr_nonnull(strstr(log.text, "'relative' is not an absolute path"));
    ck_assert_ptr_nonnull(strstr(log.text, "longer than 511 bytes"));
    ck_assert_ptr_nonnull(strstr(log.text, "cannot search"));
    ferrum_candidates_free(list);
    ferrum_loader_free(loader);
}
END_TEST

START_TEST(what_modules_tell)
{
    ferrum_module_t *module;
    uint32_t references;
    uint64_t blocks, bytes;
    ferrum_loader_t *loader = fixture_loader(NULL, "");
    EXPECT_OK(ferrum_loader_open(loader, good, &module, &err));
    ferrum_module_usage(module, NULL, NULL, NULL);
    ferrum_module_usage(module, &references, &blocks, &bytes);
    ck_assert_uint_eq(references, 1);
    ck_assert_uint_eq(blocks, 0);
    ck_assert_uint_eq(bytes, 0);
    ck_assert_int_eq(ferrum_module_op_resolution(module, NULL, "x"), FERRUM_RESOLVED_STUB);
    ck_assert_int_eq(ferrum_module_op_resolution(module, "backend", NULL), FERRUM_RESOLVED_STUB);
    ck_assert_int_eq(ferrum_module_op_resolution(module, "backend", "no_such_op"),
                     FERRUM_RESOLVED_STUB);
    ferrum_module_release(module, NULL);
    ferrum_module_release(NULL, NULL);
    ferrum_loader_free(loader);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader/refusals");
    TCase *tests = tcase_create("refusals");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, writable_code);
    tcase_add_test(tests, executable_stacks);
    tcase_add_test(tests, indirect_functions);
    tcase_add_loop_test(tests, dynamic_tags, 0, sizeof tags / sizeof tags[0]);
    tcase_add_test(tests, interrupted_and_short_calls);
    tcase_add_loop_test(tests, files_that_change_while_they_are_read, 0, 2);
    tcase_add_test(tests, enormous_files);
    tcase_add_test(tests, missing_arguments);
    tcase_add_test(tests, missing_options);
    tcase_add_test(tests, directories_that_are_not_searched);
    tcase_add_test(tests, what_modules_tell);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
