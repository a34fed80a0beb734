/* SPDX-License-Identifier: MIT */
/* The list of kernel sets and every look-up in it. Compiled without ISA flags: this code runs
 * before anybody knows the processor. */
#include "kernels/scalar/scalar.h"

const ferrum_kernel_set_t *const ferrum_kernel_sets[] = {
#ifdef FERRUM_HAVE_X86
    &ferrum_kernel_set_amx,     &ferrum_kernel_set_avx512vnni, &ferrum_kernel_set_avx512,
    &ferrum_kernel_set_avxvnni, &ferrum_kernel_set_avx2,
#endif
#ifdef FERRUM_HAVE_ARM
    &ferrum_kernel_set_i8mm,    &ferrum_kernel_set_dotprod,    &ferrum_kernel_set_neon,
#endif
    &ferrum_kernel_set_scalar,
};

const size_t ferrum_kernel_set_count = sizeof ferrum_kernel_sets / sizeof ferrum_kernel_sets[0];

#if !defined(FERRUM_HAVE_X86) && !defined(FERRUM_HAVE_ARM)
uint32_t ferrum_cpu_features(void)
{
    return 0;
}
#endif

static bool set_allowed(const ferrum_kernel_set_t *set, uint32_t features)
{
    return (set->features & ~features) == 0;
}

/** Index of @p set in the list, or the list's length. */
static size_t set_index(const ferrum_kernel_set_t *set)
{
    size_t i = 0;
    while (i < ferrum_kernel_set_count && ferrum_kernel_sets[i] != set)
        i++;
    return i;
}

static const ferrum_matmul_entry_t *find_entry(const ferrum_kernel_set_t *set,
                                               ferrum_weight_format_t format)
{
    for (size_t i = 0; i < set->matmul_count; i++)
        if (set->matmul[i].format == format)
            return &set->matmul[i];
    return NULL;
}

const ferrum_kernel_set_t *ferrum_kernel_select(uint32_t features)
{
    size_t i = 0;
    while (!set_allowed(ferrum_kernel_sets[i], features))
        i++;
    return ferrum_kernel_sets[i];
}

ferrum_dequant_fn *ferrum_kernel_dequant(ferrum_weight_format_t format)
{
    const ferrum_matmul_entry_t *entry = find_entry(&ferrum_kernel_set_scalar, format);
    return entry ? entry->dequant : NULL;
}

ferrum_matmul_fn *ferrum_kernel_matmul(const ferrum_kernel_set_t *set, uint32_t features,
                                       ferrum_weight_format_t format)
{
    for (size_t i = set_index(set); i < ferrum_kernel_set_count; i++) {
        const ferrum_matmul_entry_t *entry = find_entry(ferrum_kernel_sets[i], format);
        if (entry && set_allowed(ferrum_kernel_sets[i], features))
            return entry->matmul;
    }
    return NULL;
}

ferrum_gptq_matmul_fn *ferrum_kernel_gptq_matmul(const ferrum_kernel_set_t *set, uint32_t features)
{
    for (size_t i = set_index(set); i < ferrum_kernel_set_count; i++)
        if (ferrum_kernel_sets[i]->gptq_matmul && set_allowed(ferrum_kernel_sets[i], features))
            return ferrum_kernel_sets[i]->gptq_matmul;
    return ferrum_kernel_set_scalar.gptq_matmul;
}

const ferrum_packed_ops_t *ferrum_kernel_packed(const ferrum_kernel_set_t *set, uint32_t features)
{
    for (size_t i = set_index(set); i < ferrum_kernel_set_count; i++)
        if (ferrum_kernel_sets[i]->packed && set_allowed(ferrum_kernel_sets[i], features))
            return ferrum_kernel_sets[i]->packed;
    return NULL;
}
