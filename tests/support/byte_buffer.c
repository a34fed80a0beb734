/* SPDX-License-Identifier: MIT */
#include "tests/support/byte_buffer.h"

#include <stdlib.h>
#include <string.h>

void ferrum_byte_buffer_append(ferrum_byte_buffer_t *buffer, const void *data, size_t bytes)
{
    if (buffer->bytes + bytes > buffer->capacity) {
        size_t capacity = 2 * (buffer->bytes + bytes) + 64;
        uint8_t *grown = realloc(buffer->data, capacity);
        if (!grown)
            abort();
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    if (bytes)
        memcpy(buffer->data + buffer->bytes, data, bytes);
    buffer->bytes += bytes;
}

void ferrum_byte_buffer_pad(ferrum_byte_buffer_t *buffer, size_t alignment)
{
    static const uint8_t zero = 0;
    while (buffer->bytes % alignment)
        ferrum_byte_buffer_append(buffer, &zero, 1);
}

void ferrum_byte_buffer_u32(ferrum_byte_buffer_t *buffer, uint32_t value)
{
    uint8_t bytes[4];
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    ferrum_byte_buffer_append(buffer, bytes, sizeof bytes);
}

void ferrum_byte_buffer_u64(ferrum_byte_buffer_t *buffer, uint64_t value)
{
    ferrum_byte_buffer_u32(buffer, (uint32_t)value);
    ferrum_byte_buffer_u32(buffer, (uint32_t)(value >> 32));
}

void ferrum_byte_buffer_free(ferrum_byte_buffer_t *buffer)
{
    free(buffer->data);
    memset(buffer, 0, sizeof *buffer);
}
