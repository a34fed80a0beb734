/* SPDX-License-Identifier: MIT */
/*
 * How fast the multipliers of this processor run: for each kind of arithmetic, independent chains
 * of its widest multiply-add in registers. One table row is one instruction; the first row of a
 * kind that the processor has is its peak.
 */
#include "tools/ferrum/bench.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

enum {
    STEPS = 2000000,
    CHAINS = 12 /* hides the latency of a multiply-add on every known core */
};

/* Without it the sums live in memory and a loop measures store forwarding. */
#define UNROLL _Pragma("GCC unroll 16")

/* A function that runs CHAINS chains of `STEP(sum)`, and returns something of every sum. The empty
 * asm keeps the compiler from folding steps. */
#define CHAIN_FUNCTION(name, isa, type, first, step, add, low)                                     \
    __attribute__((target(isa))) static int name(void)                                             \
    {                                                                                              \
        type sums[CHAINS];                                                                         \
        UNROLL for (int j = 0; j < CHAINS; j++) sums[j] = (first);                                 \
        for (long i = 0; i < STEPS; i++)                                                           \
            UNROLL for (int j = 0; j < CHAINS; j++)                                                \
            {                                                                                      \
                type sum = sums[j];                                                                \
                sum = (step);                                                                      \
                __asm__ volatile("" : "+v"(sum));                                                  \
                sums[j] = sum;                                                                     \
            }                                                                                      \
        UNROLL for (int j = 1; j < CHAINS; j++) sums[0] = add(sums[0], sums[j]);                   \
        return low(sums[0]);                                                                       \
    }

#if defined(__x86_64__)
#define LOW_512(v) _mm_cvtsi128_si32(_mm512_castsi512_si128(v))
#define LOW_256(v) _mm_cvtsi128_si32(_mm256_castsi256_si128(v))
#define LOW_512F(v) _mm_cvtss_si32(_mm512_castps512_ps128(v))
#define LOW_256F(v) _mm_cvtss_si32(_mm256_castps256_ps128(v))
#define BYTES_512 _mm512_set1_epi32(0x03fe03fe)
#define BYTES_256 _mm256_set1_epi32(0x03fe03fe)

CHAIN_FUNCTION(f32_avx512, "avx512f", __m512, _mm512_set1_ps(1.0F),
               _mm512_fmadd_ps(sum, _mm512_set1_ps(0.999F), _mm512_set1_ps(1e-3F)), _mm512_add_ps,
               LOW_512F)
CHAIN_FUNCTION(f32_avx2, "avx2,fma", __m256, _mm256_set1_ps(1.0F),
               _mm256_fmadd_ps(sum, _mm256_set1_ps(0.999F), _mm256_set1_ps(1e-3F)), _mm256_add_ps,
               LOW_256F)
CHAIN_FUNCTION(int8_avx512vnni, "avx512f,avx512vnni", __m512i, _mm512_set1_epi32(1),
               _mm512_dpbusd_epi32(sum, BYTES_512, BYTES_512), _mm512_add_epi32, LOW_512)
CHAIN_FUNCTION(int8_avxvnni, "avx2,avxvnni", __m256i, _mm256_set1_epi32(1),
               _mm256_dpbusd_avx_epi32(sum, BYTES_256, BYTES_256), _mm256_add_epi32, LOW_256)
CHAIN_FUNCTION(int8_avx2, "avx2", __m256i, _mm256_set1_epi32(1),
               _mm256_add_epi32(sum,
                                _mm256_madd_epi16(_mm256_maddubs_epi16(BYTES_256, sum), BYTES_256)),
               _mm256_add_epi32, LOW_256)
CHAIN_FUNCTION(int16_avx512vnni, "avx512f,avx512vnni", __m512i, _mm512_set1_epi32(1),
               _mm512_dpwssd_epi32(sum, BYTES_512, BYTES_512), _mm512_add_epi32, LOW_512)
CHAIN_FUNCTION(int16_avx2, "avx2", __m256i, _mm256_set1_epi32(1),
               _mm256_add_epi32(sum, _mm256_madd_epi16(sum, BYTES_256)), _mm256_add_epi32, LOW_256)
CHAIN_FUNCTION(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_set1_ps(1.0F),
               _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(0x3f803f80),
                                (__m512bh)_mm512_set1_epi32(0x38003800)),
               _mm512_add_ps, LOW_512F)

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

static bool has_avx512vnni(void)
{
    return __builtin_cpu_supports("avx512vnni");
}

static bool has_leaf_7_1(unsigned bit)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
           (a >> bit & 1) != 0;
}

static bool has_avxvnni(void)
{
    return has_leaf_7_1(4);
}

static bool has_avx512bf16(void)
{
    return has_avx512() && has_leaf_7_1(5);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

static int f32_scalar(void)
{
    volatile float seed = 1.0F;
    float sums[CHAINS];
    for (int j = 0; j < CHAINS; j++)
        sums[j] = seed;
    for (long i = 0; i < STEPS; i++)
        for (int j = 0; j < CHAINS; j++)
            sums[j] = sums[j] * 0.999F + 1e-3F;
    float total = 0;
    for (int j = 0; j < CHAINS; j++)
        total += sums[j];
    return (int)total;
}

static bool always(void)
{
    return true;
}

static const struct peak {
    bench_arithmetic_t arithmetic;
    bool (*present)(void);
    int (*run)(void);
    double ops; /* multiplies and adds of one step of one chain */
} peaks[] = {
#if defined(__x86_64__)
    {BENCH_F32, has_avx512, f32_avx512, 32},
    {BENCH_F32, has_avx2, f32_avx2, 16},
    {BENCH_INT8, has_avx512vnni, int8_avx512vnni, 128},
    {BENCH_INT8, has_avxvnni, int8_avxvnni, 64},
    {BENCH_INT8, has_avx2, int8_avx2, 64},
    {BENCH_INT16, has_avx512vnni, int16_avx512vnni, 64},
    {BENCH_INT16, has_avx2, int16_avx2, 32},
    {BENCH_BF16, has_avx512bf16, bf16_avx512, 64},
#endif
    {BENCH_F32, always, f32_scalar, 2},
};

double bench_peak_run(bench_arithmetic_t arithmetic, int *sink)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    for (size_t i = 0; i < sizeof peaks / sizeof peaks[0]; i++)
        if (peaks[i].arithmetic == arithmetic && peaks[i].present()) {
            *sink ^= peaks[i].run();
            return peaks[i].ops * CHAINS * STEPS;
        }
    return 0;
}
