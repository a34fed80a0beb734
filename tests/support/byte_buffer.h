/* SPDX-License-Identifier: MIT */
/**
 * @file byte_buffer.h
 * @brief A growing byte buffer for tests that make files. Running out of memory ends the test.
 */
#ifndef FERRUM_TEST_BYTE_BUFFER_H
#define FERRUM_TEST_BYTE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/** Zeroed is empty. */
typedef struct ferrum_byte_buffer {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
} ferrum_byte_buffer_t;

void ferrum_byte_buffer_append(ferrum_byte_buffer_t *buffer, const void *data, size_t bytes);
/** Zero bytes up to a multiple of @p alignment. */
void ferrum_byte_buffer_pad(ferrum_byte_buffer_t *buffer, size_t alignment);
/** Little endian. */
void ferrum_byte_buffer_u32(ferrum_byte_buffer_t *buffer, uint32_t value);
void ferrum_byte_buffer_u64(ferrum_byte_buffer_t *buffer, uint64_t value);
void ferrum_byte_buffer_free(ferrum_byte_buffer_t *buffer);

#endif /* FERRUM_TEST_BYTE_BUFFER_H */
