/* SPDX-License-Identifier: MIT */
/* Decoders of every set against golden values that an independent implementation made, and against
 * the scalar decoders on random blocks. Both comparisons are for equal bits: products of a scale
 * and a code are exact in f32, so a decoded value has at most one rounding wherever it is computed.
 */
#include "tests/kernels/fixture.h"

#include <stdlib.h>
#include <string.h>

/** Decode @p blocks at an odd address into memory that ends at a trap, and compare bits. */
static void check_decoder(const char *set_name, ferrum_dequant_fn *dequant,
                          const ferrum_format_traits_t *traits, const uint8_t *blocks,
                          const float *expected, size_t n)
{
    const size_t bytes = fixture_row_bytes(traits, n);
    uint8_t *w = fixture_alloc(bytes, 0);
    float *out = fixture_alloc(n * sizeof *out, 0);
    memcpy(w, blocks, bytes);
    dequant(w, out, n);
    for (size_t i = 0; i < n; i++)
        FIXTURE_REQUIRE(memcmp(&out[i], &expected[i], sizeof out[i]) == 0,
                        "%s %s: value %zu is %a, expected %a", set_name, traits->name, i,
                        (double)out[i], (double)expected[i]);
    fixture_free(out, n * sizeof *out, 0);
    fixture_free(w, bytes, 0);
}

START_TEST(decoders_match_golden)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    if (!set)
        return;
    for (size_t f = 0; f < set->matmul_count; f++) {
        const ferrum_format_traits_t *traits = ferrum_format_traits(set->matmul[f].format);
        char name[64];
        size_t blocks_size, values_size;
        if (traits->format == FERRUM_FORMAT_F32)
            continue; /* the values are the blocks */
        (void)snprintf(name, sizeof name, "blocks_%s.bin", traits->name);
        uint8_t *blocks = fixture_read_golden(name, &blocks_size);
        (void)snprintf(name, sizeof name, "values_%s.bin", traits->name);
        float *values = (void *)fixture_read_golden(name, &values_size);
        const size_t n = values_size / sizeof *values;
        ck_assert_uint_eq(fixture_row_bytes(traits, n), blocks_size);
        printf("%s %s: %zu golden values\n", set->name, traits->name, n);
        check_decoder(set->name, set->matmul[f].dequant, traits, blocks, values, n);
        free(values);
        free(blocks);
    }
}
END_TEST

START_TEST(decoders_match_scalar)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x9e3779b97f4a7c15u};
    if (!set)
        return;
    for (size_t f = 0; f < set->matmul_count; f++) {
        const ferrum_format_traits_t *traits = ferrum_format_traits(set->matmul[f].format);
        for (size_t count = 0; count < 40; count++) {
            const size_t n = count * traits->block_values;
            uint8_t *blocks = malloc(count * traits->block_bytes + 1);
            float *expected = malloc((n + 1) * sizeof *expected);
            ck_assert(blocks && expected);
            fixture_fill_blocks(&rng, traits, blocks, count);
            ferrum_kernel_dequant(traits->format)(blocks, expected, n);
            check_decoder(set->name, set->matmul[f].dequant, traits, blocks, expected, n);
            free(expected);
            free(blocks);
        }
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {decoders_match_golden, decoders_match_scalar};
    return fixture_main("dequant", tests, sizeof tests / sizeof tests[0]);
}
