/* SPDX-License-Identifier: MIT */
#define _DEFAULT_SOURCE
#include "tests/kernels/fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    CANARY = 0xa5,
    CANARY_BYTES = 256
};

size_t fixture_format_count(void)
{
    return ferrum_kernel_sets[ferrum_kernel_set_count - 1]->matmul_count;
}

const ferrum_format_traits_t *fixture_format(size_t index)
{
    return ferrum_format_traits(
        ferrum_kernel_sets[ferrum_kernel_set_count - 1]->matmul[index].format);
}

const ferrum_kernel_set_t *fixture_set(int index)
{
    const ferrum_kernel_set_t *set = ferrum_kernel_sets[index];
    if (set->features & ~ferrum_cpu_features()) {
        printf("%s: not run, this processor lacks its features\n", set->name);
        return NULL;
    }
    return set;
}

/** Pages of an allocation, the trap not included. */
static size_t mapped_bytes(size_t size, size_t slack)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + slack + CANARY_BYTES + page - 1) / page * page;
}

void *fixture_alloc(size_t size, size_t slack)
{
    const size_t bytes = mapped_bytes(size, slack), page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *base =
        mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_msg(base != MAP_FAILED, "mmap of %zu bytes failed", bytes + page);
    ck_assert_int_eq(mprotect(base + bytes, page, PROT_NONE), 0);
    memset(base, CANARY, bytes);
    return base + bytes - slack - size;
}

void fixture_free(void *memory, size_t size, size_t slack)
{
    const size_t bytes = mapped_bytes(size, slack), page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *start = memory;
    for (size_t i = 1; i <= CANARY_BYTES; i++)
        FIXTURE_REQUIRE(start[-(ptrdiff_t)i] == CANARY, "a byte before the operand was written");
    for (size_t i = 0; i < slack; i++)
        FIXTURE_REQUIRE(start[size + i] == CANARY, "a byte behind the operand was written");
    munmap(start + size + slack - bytes, bytes + page);
}

uint32_t fixture_random(fixture_rng_t *rng)
{
    rng->state ^= rng->state << 13;
    rng->state ^= rng->state >> 7;
    rng->state ^= rng->state << 17;
    return (uint32_t)(rng->state >> 32);
}

float fixture_random_f32(fixture_rng_t *rng)
{
    return (float)((int32_t)(fixture_random(rng) >> 8) - (1 << 23)) * 0x1p-23f;
}

void fixture_fill_f32(fixture_rng_t *rng, float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = fixture_random_f32(rng);
}

size_t fixture_row_bytes(const ferrum_format_traits_t *traits, size_t k)
{
    return k / traits->block_values * traits->block_bytes;
}

static void store_u16(uint8_t *p, uint32_t bits)
{
    p[0] = (uint8_t)bits;
    p[1] = (uint8_t)(bits >> 8);
}

/** A half of either sign with an exponent between 2^-8 and 2^-1. */
static uint32_t random_f16(fixture_rng_t *rng)
{
    const uint32_t bits = fixture_random(rng);
    return (bits & 0x83ffu) | (7u + (bits >> 16) % 8u) << 10;
}

void fixture_fill_blocks(fixture_rng_t *rng, const ferrum_format_traits_t *traits, uint8_t *blocks,
                         size_t count)
{
    /* where a block's halves are; the other bytes may be anything */
    static const struct {
        ferrum_weight_format_t format;
        int offsets[2];
    } halves[] = {
        {FERRUM_FORMAT_F16, {0, -1}},    {FERRUM_FORMAT_Q4_0, {0, -1}},
        {FERRUM_FORMAT_Q4_1, {0, 2}},    {FERRUM_FORMAT_Q5_0, {0, -1}},
        {FERRUM_FORMAT_Q5_1, {0, 2}},    {FERRUM_FORMAT_Q8_0, {0, -1}},
        {FERRUM_FORMAT_Q2_K, {80, 82}},  {FERRUM_FORMAT_Q3_K, {108, -1}},
        {FERRUM_FORMAT_Q4_K, {0, 2}},    {FERRUM_FORMAT_Q5_K, {0, 2}},
        {FERRUM_FORMAT_Q6_K, {208, -1}}, {FERRUM_FORMAT_IQ4_NL, {0, -1}},
        {FERRUM_FORMAT_IQ4_XS, {0, -1}},
    };

    for (size_t b = 0; b < count; b++, blocks += traits->block_bytes) {
        for (size_t i = 0; i < traits->block_bytes; i += 4) {
            const uint32_t word = fixture_random(rng);
            memcpy(blocks + i, &word, traits->block_bytes - i < 4 ? traits->block_bytes - i : 4);
        }
        for (size_t h = 0; h < sizeof halves / sizeof halves[0]; h++)
            for (size_t i = 0; i < 2 && halves[h].format == traits->format; i++)
                if (halves[h].offsets[i] >= 0)
                    store_u16(blocks + halves[h].offsets[i], random_f16(rng));
        if (traits->format == FERRUM_FORMAT_MXFP4)
            blocks[0] = (uint8_t)(120 + blocks[0] % 8);
        if (traits->format == FERRUM_FORMAT_BF16)
            blocks[1] = (uint8_t)((blocks[1] & 0x80) | 0x3d);
        if (traits->format == FERRUM_FORMAT_F32) {
            const float value = fixture_random_f32(rng);
            memcpy(blocks, &value, sizeof value);
        }
    }
}

uint8_t *fixture_read_golden(const char *name, size_t *out_size)
{
    const char *root = getenv("FERRUM_TEST_SRCDIR");
    char path[1024];
    ck_assert_msg(root != NULL, "set FERRUM_TEST_SRCDIR to the source tree");
    (void)snprintf(path, sizeof path, "%s/tests/golden/%s", root, name);
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot open %s", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    const long size = ftell(file);
    ck_assert_msg(size > 0, "%s is empty", path);
    rewind(file);
    uint8_t *bytes = malloc((size_t)size);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)size, file), (size_t)size);
    (void)fclose(file);
    *out_size = (size_t)size;
    return bytes;
}

int fixture_main(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create("sets");
    tcase_set_timeout(tcase, 300);
    for (size_t i = 0; i < count; i++)
        tcase_add_loop_test(tcase, tests[i], 0, (int)ferrum_kernel_set_count);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
