/* SPDX-License-Identifier: MIT */
/* The list of kernel sets: order, completeness and the choice for every feature mask; and the
 * processor features against what the operating system says. */
#include "tests/kernels/fixture.h"

#include <stdlib.h>
#include <string.h>

START_TEST(sets_are_complete)
{
    const ferrum_kernel_set_t *set = ferrum_kernel_sets[_i];
    const ferrum_vector_ops_t *v = &set->vector;
    ck_assert(v->dot && v->axpy && v->silu_mul && v->rms_norm && v->exp_sum && v->add && v->scale);
    for (size_t f = 0; f < set->matmul_count; f++) {
        const ferrum_matmul_entry_t *entry = &set->matmul[f];
        ck_assert_ptr_nonnull(ferrum_format_traits(entry->format));
        ck_assert(entry->matmul && entry->dequant);
        for (size_t g = 0; g < f; g++)
            ck_assert_uint_ne(set->matmul[g].format, entry->format);
    }
    if ((size_t)_i + 1 == ferrum_kernel_set_count) {
        ck_assert_str_eq(set->name, "scalar");
        ck_assert_uint_eq(set->features, 0);
        ck_assert_uint_eq(set->matmul_count, 16);
        ck_assert_ptr_nonnull(set->gptq_matmul);
    }
}
END_TEST

/** Whether anything in @p set may run with @p features. */
static bool allowed(const ferrum_kernel_set_t *set, uint32_t features)
{
    return (set->features & features) == set->features;
}

START_TEST(choice_follows_the_features)
{
    const ferrum_kernel_set_t *from = ferrum_kernel_sets[_i];
    for (uint32_t features = 0; features < 1u << 11; features++) {
        const ferrum_kernel_set_t *chosen = ferrum_kernel_select(features);
        ck_assert(allowed(chosen, features));
        for (size_t i = 0; ferrum_kernel_sets[i] != chosen; i++)
            ck_assert(!allowed(ferrum_kernel_sets[i], features));

        ck_assert_ptr_nonnull(ferrum_kernel_gptq_matmul(from, features));
        for (size_t f = 0; f < fixture_format_count(); f++) {
            ferrum_matmul_fn *found =
                ferrum_kernel_matmul(from, features, fixture_format(f)->format);
            const ferrum_kernel_set_t *owner = NULL;
            for (size_t i = (size_t)_i; i < ferrum_kernel_set_count; i++)
                for (size_t m = 0; m < ferrum_kernel_sets[i]->matmul_count; m++)
                    if (ferrum_kernel_sets[i]->matmul[m].matmul == found)
                        owner = ferrum_kernel_sets[i];
            ck_assert_ptr_nonnull(owner);
            ck_assert(allowed(owner, features));
        }
    }
}
END_TEST

START_TEST(unknown_formats_have_no_kernel)
{
    static const ferrum_weight_format_t unknown[] = {4, 5, 9, 15, 31, 1000, FERRUM_FORMAT_GPTQ};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        ck_assert_ptr_null(ferrum_kernel_dequant(unknown[i]));
        ck_assert_ptr_null(ferrum_kernel_matmul(ferrum_kernel_sets[_i], UINT32_MAX, unknown[i]));
    }
    ck_assert_ptr_nonnull(ferrum_kernel_dequant(FERRUM_FORMAT_F32));
}
END_TEST

#if defined(__x86_64__) && defined(__linux__)
/** The "flags" line of the first processor, with a blank before and after each word. */
static void read_flags(char *line, size_t size)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    ck_assert_msg(file != NULL, "cannot open /proc/cpuinfo");
    while (fgets(line, (int)size - 1, file) && strncmp(line, "flags", 5) != 0)
        line[0] = '\0';
    (void)fclose(file);
    char *end = strchr(line, '\n');
    if (end)
        *end = ' ';
}

START_TEST(features_match_the_operating_system)
{
    static const struct {
        uint32_t feature;
        const char *flags[4];
    } table[] = {
        {FERRUM_CPU_AVX2, {" avx2 ", " fma ", " f16c ", NULL}},
        {FERRUM_CPU_AVX512, {" avx512f ", " avx512bw ", " avx512dq ", " avx512vl "}},
        {FERRUM_CPU_AVX_VNNI, {" avx_vnni ", NULL, NULL, NULL}},
        {FERRUM_CPU_AVX512_VNNI, {" avx512_vnni ", NULL, NULL, NULL}},
        {FERRUM_CPU_AVX512_BF16, {" avx512_bf16 ", NULL, NULL, NULL}},
        {FERRUM_CPU_AVX512_VBMI, {" avx512vbmi ", NULL, NULL, NULL}},
        {FERRUM_CPU_AMX_INT8, {" amx_int8 ", NULL, NULL, NULL}},
        {FERRUM_CPU_AMX_BF16, {" amx_bf16 ", NULL, NULL, NULL}},
    };
    char line[8192] = "";
    read_flags(line, sizeof line);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        bool expected = true;
        for (size_t f = 0; f < 4 && table[i].flags[f]; f++)
            expected = expected && strstr(line, table[i].flags[f]);
        ck_assert_msg(((ferrum_cpu_features() & table[i].feature) != 0) == expected,
                      "feature%s: the kernel says %d", table[i].flags[0], expected);
    }
}
END_TEST
#endif

int main(void)
{
    const TTest *const tests[] = {
        sets_are_complete,
        choice_follows_the_features,
        unknown_formats_have_no_kernel,
#if defined(__x86_64__) && defined(__linux__)
        features_match_the_operating_system,
#endif
    };
    return fixture_main("select", tests, sizeof tests / sizeof tests[0]);
}
