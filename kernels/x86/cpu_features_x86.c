/* SPDX-License-Identifier: MIT */
/* Processor features on x86: what CPUID reports, less what the operating system does not save on a
 * context switch (XCR0). Baseline instructions only. */
#include "kernels/kernels.h"

#include <cpuid.h>

enum {
    XCR0_AVX = 0x6,     /* xmm and ymm */
    XCR0_AVX512 = 0xe6, /* and opmask, zmm low halves, zmm 16-31 */
    XCR0_AMX = 0x60000  /* tile configuration and data */
};

/** One CPUID bit (or several) and the feature that it stands for. */
typedef struct feature_bits {
    uint32_t mask;
    uint32_t feature;
} feature_bits_t;

static uint32_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static uint32_t match(uint32_t reg, const feature_bits_t *table, size_t count)
{
    uint32_t features = 0;
    for (size_t i = 0; i < count; i++)
        if ((reg & table[i].mask) == table[i].mask)
            features |= table[i].feature;
    return features;
}

uint32_t ferrum_cpu_features(void)
{
    enum {
        FMA_OSXSAVE_AVX_F16C = 1 << 12 | 1 << 27 | 1 << 28 | 1 << 29
    };
    static const uint32_t avx512_base = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F DQ BW VL */
    static const feature_bits_t leaf7_ecx[] = {{1u << 1, FERRUM_CPU_AVX512_VBMI},
                                               {1u << 11, FERRUM_CPU_AVX512_VNNI}};
    static const feature_bits_t leaf7_edx[] = {{1u << 24 | 1u << 25, FERRUM_CPU_AMX_INT8},
                                               {1u << 24 | 1u << 22, FERRUM_CPU_AMX_BF16}};
    static const feature_bits_t leaf7_1_eax[] = {{1u << 4, FERRUM_CPU_AVX_VNNI},
                                                 {1u << 5, FERRUM_CPU_AVX512_BF16}};
    const uint32_t only_avx512 = FERRUM_CPU_AVX512 | FERRUM_CPU_AVX512_VBMI |
                                 FERRUM_CPU_AVX512_VNNI | FERRUM_CPU_AVX512_BF16;
    uint32_t a, b, c, d, features;

    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & FMA_OSXSAVE_AVX_F16C) != FMA_OSXSAVE_AVX_F16C)
        return 0;
    const uint32_t xcr0 = read_xcr0();
    if ((xcr0 & XCR0_AVX) != XCR0_AVX || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 5))
        return 0;

    const uint32_t subleaves = a;
    features = FERRUM_CPU_AVX2 | match(c, leaf7_ecx, 2) | match(d, leaf7_edx, 2);
    if ((b & avx512_base) == avx512_base)
        features |= FERRUM_CPU_AVX512;
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
        features |= match(a, leaf7_1_eax, 2);
    if ((xcr0 & XCR0_AVX512) != XCR0_AVX512 || !(features & FERRUM_CPU_AVX512))
        features &= ~only_avx512;
    if ((xcr0 & XCR0_AMX) != XCR0_AMX)
        features &= ~(uint32_t)(FERRUM_CPU_AMX_INT8 | FERRUM_CPU_AMX_BF16);
    return features;
}
