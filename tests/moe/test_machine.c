/* SPDX-License-Identifier: MIT */
/* What the host learns from the machine: limits of control groups, and the allocator's blocks. */
#define _POSIX_C_SOURCE 200809L
#include <config.h>

#include "host/runtime/memory.h"
#include "host/runtime/topology.h"
#include "tests/support/expect.h"
#include "tests/support/files.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Directories and files below the root of a made-up system, in the order in which they are made. */
static const char *const directories[] = {"proc",
                                          "proc/self",
                                          "sys",
                                          "sys/fs",
                                          "sys/fs/cgroup",
                                          "sys/fs/cgroup/a",
                                          "sys/fs/cgroup/a/b",
                                          "sys/fs/cgroup/cpu",
                                          "sys/fs/cgroup/cpu/c"};
static const char *const files[] = {
    "proc/self/cgroup", "sys/fs/cgroup/a/cpu.max", "sys/fs/cgroup/a/b/cpu.max",
    "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/c/cpu.cfs_period_us"};
enum {
    DIRECTORIES = sizeof directories / sizeof directories[0],
    FILES = sizeof files / sizeof files[0]
};

static uint32_t quota_of(const char *const texts[FILES])
{
    ferrum_test_path_t root, path;
    ferrum_test_make_directory(root);
    for (int i = 0; i < DIRECTORIES; i++) {
        ferrum_test_join(root, directories[i], path);
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    for (int i = 0; i < FILES; i++) {
        ferrum_test_join(root, files[i], path);
        if (texts[i])
            ferrum_test_write_file(path, texts[i], strlen(texts[i]));
    }
    const uint32_t quota = ferrum_topology_quota(root);
    for (int i = DIRECTORIES - 1; i >= 0; i--) {
        ferrum_test_join(root, directories[i], path);
        ferrum_test_remove_directory(path);
    }
    ferrum_test_remove_directory(root);
    return quota;
}

START_TEST(quotas)
{
    static const struct {
        const char *texts[FILES];
        uint32_t quota;
    } cases[] = {
        {{NULL}, UINT32_MAX},
        {{"0::/\n"}, UINT32_MAX},
        {{"0::/a/b\n", "max 100000\n", "max 100000\n"}, UINT32_MAX},
        {{"0::/a/b\n", "max 100000\n", "150000 100000\n"}, 2},
        {{"0::/a/b\n", "300000 100000\n", "max 100000\n"}, 3}, /* a group above has the limit */
        {{"0::/a/b\n", "300000 100000\n", "900000 100000\n"}, 3},
        {{"0::/a/b\n", "50000 100000\n", "nonsense\n"}, 1},
        {{"3:cpuset:/c\n2:cpuacct,cpu:/c\n", NULL, NULL, "400000\n", "100000\n"}, 4},
        {{"2:cpu:/c\n", NULL, NULL, "-1\n", "100000\n"}, UINT32_MAX},
        {{"2:cpu:/c\n", NULL, NULL, "400000\n", NULL}, UINT32_MAX},
        {{"2:cpuset:/c\n", NULL, NULL, "400000\n", "100000\n"}, UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(quota_of(cases[i].texts) == cases[i].quota, "case %zu", i);
    ck_assert_uint_ge(ferrum_topology_quota(""), 1);
}
END_TEST

/* Every size around the border can be written from end to end, and is aligned as promised. */
START_TEST(blocks)
{
    static const char *const places[] = {NULL, "none", "interleave"};
    const size_t large = FERRUM_MEMORY_LARGE_BYTES;
    const size_t sizes[] = {1, 100, large - 1, large, large + 1, 3 * large + 4097};
    for (size_t p = 0; p < 3; p++) {
        ferrum_options_t *options;
        ferrum_memory_t *memory;
        uint32_t nodes = 7;
        EXPECT_OK(ferrum_options_new(&options, &err));
        if (places[p])
            EXPECT_OK(ferrum_options_set(options, "FERRUM_NUMA", places[p], &err));
        EXPECT_OK(ferrum_memory_new(&memory, &err));
        EXPECT_OK(ferrum_memory_place(memory, options, &nodes, &err));
        ck_assert_uint_eq(nodes > 0, p == 2);
        const ferrum_allocator_t *allocator = ferrum_memory_allocator(memory);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            unsigned char *block = allocator->alloc(allocator->self, sizes[i], 64);
            ck_assert_ptr_nonnull(block);
            ck_assert_uint_eq((uintptr_t)block % (sizes[i] < large ? 64 : 2 << 20), 0);
            memset(block, 7, sizes[i]);
            ck_assert_uint_eq(block[sizes[i] - 1], 7);
            allocator->free(allocator->self, block, sizes[i]);
        }
        ck_assert_ptr_null(allocator->alloc(allocator->self, SIZE_MAX / 2, 64));
        allocator->free(allocator->self, NULL, 0);
        ferrum_memory_free(memory);
        ferrum_options_free(options);
    }
}
END_TEST

/* A machine that hwloc is told of. Unless it is also told that this machine is meant, binding
 * succeeds without doing anything; if it is, this machine has not got that many nodes. */
START_TEST(several_nodes)
{
    ferrum_options_t *options;
    ferrum_memory_t *memory;
    uint32_t nodes = 0;
    const bool real = _i != 0;
    ck_assert_int_eq(setenv("HWLOC_SYNTHETIC", "numa:64 core:1 pu:1", 1), 0);
    ck_assert_int_eq(setenv("HWLOC_THISSYSTEM", real ? "1" : "0", 1), 0);
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_options_set(options, "FERRUM_NUMA", "interleave", &err));
    EXPECT_OK(ferrum_memory_new(&memory, &err));
    EXPECT_OK(ferrum_memory_place(memory, options, &nodes, &err));
    ck_assert_uint_eq(nodes, 64);
    const ferrum_allocator_t *allocator = ferrum_memory_allocator(memory);
    void *small = allocator->alloc(allocator->self, 100, 64);
    void *large = allocator->alloc(allocator->self, FERRUM_MEMORY_LARGE_BYTES, 64);
    ck_assert_ptr_nonnull(small);
    if (!real) {
        ck_assert_ptr_nonnull(large);
        memset(large, 7, FERRUM_MEMORY_LARGE_BYTES);
    }
    allocator->free(allocator->self, small, 100);
    allocator->free(allocator->self, large, FERRUM_MEMORY_LARGE_BYTES);
    if (real && large)
        printf("note: binding to 64 nodes was accepted, so a refusal could not be seen\n");
    ferrum_memory_free(memory);
    ferrum_options_free(options);
}
END_TEST

START_TEST(unknown_place)
{
    ferrum_options_t *options;
    ferrum_memory_t *memory;
    uint32_t nodes;
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_options_set(options, "FERRUM_NUMA", "near", &err));
    EXPECT_OK(ferrum_memory_new(&memory, &err));
    EXPECT_FAILS(ferrum_memory_place(memory, options, &nodes, &err), FERRUM_INVALID_ARGUMENT,
                 "FERRUM_NUMA=near: choose none or interleave");
    ferrum_memory_free(memory);
    ferrum_memory_free(NULL);
    ferrum_options_free(options);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine");
    TCase *tcase = tcase_create("machine");
    tcase_add_test(tcase, quotas);
    tcase_add_test(tcase, blocks);
    tcase_add_loop_test(tcase, several_nodes, 0, 2);
    tcase_add_test(tcase, unknown_place);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
