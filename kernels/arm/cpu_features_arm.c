/* SPDX-License-Identifier: MIT */
/* Processor features on AArch64, as Linux reports them to the process. Elsewhere only
 * what all of AArch64 has. */
#include "kernels/kernels.h"

#ifdef __linux__
#include <sys/auxv.h>

enum {
    HWCAP_ASIMDDP_BIT = 20, /* AT_HWCAP: signed and unsigned dot products */
    HWCAP2_I8MM_BIT = 13    /* AT_HWCAP2: int8 matrix multiply */
};

uint32_t ferrum_cpu_features(void)
{
    uint32_t features = FERRUM_CPU_NEON;
    if (getauxval(AT_HWCAP) >> HWCAP_ASIMDDP_BIT & 1)
        features |= FERRUM_CPU_NEON_DOTPROD;
    if (getauxval(AT_HWCAP2) >> HWCAP2_I8MM_BIT & 1)
        features |= FERRUM_CPU_NEON_I8MM;
    return features;
}
#else
uint32_t ferrum_cpu_features(void)
{
    return FERRUM_CPU_NEON;
}
#endif
