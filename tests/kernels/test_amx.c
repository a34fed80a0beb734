/* SPDX-License-Identifier: MIT */
/* All of test_packed for the AMX kernels, with tiles in memory: the sums are exact integers, so
 * that emulation leaves nothing open but the instructions themselves. */
#include "kernels/x86/packed_avx512vnni.h"
#include "tests/kernels/amx_emulated.h"
#include "tests/kernels/fixture.h"

static const ferrum_packed_ops_t packed_ops = {ferrum_packed_quantise_avx512vnni,
                                               test_product_amx_emulated};
static const ferrum_kernel_set_t emulated = {.name = "amx, emulated", .packed = &packed_ops};

int test_packed_main(void);

#define fixture_set(index) ((index) == 0 ? &emulated : NULL)
#define main test_packed_main
#include "tests/kernels/test_packed.c"
#undef main

int main(void)
{
    const uint32_t needed = FERRUM_CPU_AVX512 | FERRUM_CPU_AVX512_VNNI;
    if ((ferrum_cpu_features() & needed) != needed) {
        printf("skipped: the kernels around the tiles need AVX-512 VNNI\n");
        return 77;
    }
    return test_packed_main();
}
