/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fuzz_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: broken promise: %s\n", file, line, what);
    abort();
}

void fuzz_require_refusal(ferrum_status_t status, const ferrum_error_t *err)
{
    FUZZ_REQUIRE(status != FERRUM_OK);
    FUZZ_REQUIRE(status != FERRUM_INTERNAL);
    FUZZ_REQUIRE(err->status == status);
    FUZZ_REQUIRE(err->message[0] != '\0');
    FUZZ_REQUIRE(memchr(err->message, '\0', sizeof err->message) != NULL);
    for (const char *c = err->message; *c; c++)
        FUZZ_REQUIRE((unsigned char)*c >= 0x20 && *c != 0x7f);
}

uint8_t *fuzz_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    return copy;
}

void fuzz_touch(const void *data, uint64_t bytes)
{
    const volatile uint8_t *at = data;
    for (uint64_t i = 0; i < bytes; i++)
        (void)at[i];
}

uint8_t fuzz_u8(fuzz_source_t *source)
{
    if (!source->left)
        return 0;
    source->left--;
    return *source->at++;
}

uint32_t fuzz_u32(fuzz_source_t *source)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
        value |= (uint32_t)fuzz_u8(source) << (8 * i);
    return value;
}

uint32_t fuzz_up_to(fuzz_source_t *source, uint32_t limit)
{
    uint32_t value = limit < 256 ? fuzz_u8(source) : fuzz_u32(source);
    return limit == UINT32_MAX ? value : value % (limit + 1);
}
