/* SPDX-License-Identifier: MIT */
#include "backends/cpu/device.h"
#include "kernels/kernels.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
/* In glibc, but in none of its headers. syscall() would do, but a module that imports it can start
 * threads, and is unloaded only after their number has been looked at. */
int arch_prctl(int code, unsigned long value);

enum {
    ARCH_REQ_XCOMP_PERM = 0x1023,
    XFEATURE_XTILEDATA = 18
};

/** Tile data is 8 KiB in every signal frame, so Linux keeps it from a process until it asks. */
static bool permitted(void)
{
    return arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
static bool permitted(void)
{
    return false;
}
#endif

uint32_t ferrum_cpu_request_tiles(uint32_t features)
{
    const uint32_t tiles = FERRUM_CPU_AMX_INT8 | FERRUM_CPU_AMX_BF16;

    return features & tiles && !permitted() ? features & ~tiles : features;
}
