/* SPDX-License-Identifier: MIT */
/*
 * The judge judged: the suite's own decoder against blocks that the `gguf` package decoded
 * (tests/golden, make_gguf_blocks.py).
 */
#include "tools/kit/kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *read_file(const char *directory, const char *kind, const char *name,
                                size_t *out_bytes)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/%s_%s.bin", directory, kind, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    unsigned char *data = malloc(1 << 20);
    *out_bytes = data ? fread(data, 1, 1 << 20, file) : 0;
    fclose(file);
    return data;
}

static int check(const char *directory, const ferrum_format_traits_t *traits)
{
    size_t block_bytes = 0, value_bytes = 0;
    unsigned char *blocks = read_file(directory, "blocks", traits->name, &block_bytes);
    unsigned char *values = read_file(directory, "values", traits->name, &value_bytes);
    int bad = 0;
    if (blocks == NULL || values == NULL || value_bytes == 0 ||
        block_bytes / traits->block_bytes * traits->block_values * 4 != value_bytes) {
        printf("%s: golden files missing or of the wrong size\n", traits->name);
        bad = 1;
    }
    for (size_t i = 0; !bad && i < value_bytes / 4; i++) {
        float want;
        memcpy(&want, values + 4 * i, 4);
        double got =
            cf_decode(traits->format, blocks + i / traits->block_values * traits->block_bytes,
                      (uint32_t)(i % traits->block_values));
        /* The package rounds twice in f32; f64 differs by that much and no more. */
        if (!(fabs(got - (double)want) <= 4e-7 * fabs((double)want) + 1e-6 * fabs(got) + 1e-12)) {
            printf("%s: value %zu is %.9g, the gguf package says %.9g\n", traits->name, i, got,
                   (double)want);
            bad = 1;
        }
    }
    free(blocks);
    free(values);
    return bad;
}

int main(void)
{
    const char *directory = getenv("FERRUM_TEST_SRCDIR");
    int bad = 0;
    for (size_t i = 0; i < cf_format_count; i++) {
        const ferrum_format_traits_t *traits = ferrum_format_traits(cf_formats[i]);
        if (traits->format == FERRUM_FORMAT_F32)
            continue;
        bad |= check(directory ? directory : ".", traits);
    }
    return bad;
}
