/* SPDX-License-Identifier: MIT */
/**
 * @file utf8.h
 * @brief UTF-8 as of RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#ifndef FERRUM_HOST_UTF8_H
#define FERRUM_HOST_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A character that arrives byte by byte. Zeroed is the start. */
typedef struct ferrum_utf8_state {
    uint8_t bytes[4]; /**< what has come of an unfinished character */
    uint8_t count;
    uint8_t needed; /**< its whole length */
} ferrum_utf8_state_t;

/** What one more byte did. */
typedef enum ferrum_utf8_step {
    FERRUM_UTF8_MORE,     /**< the character is not complete yet */
    FERRUM_UTF8_COMPLETE, /**< state->bytes[0…count) is a character; clear count before going on */
    FERRUM_UTF8_BROKEN,   /**< the byte cannot begin a character: it alone is broken */
    FERRUM_UTF8_RESTART,  /**< what had come is broken, and cleared; feed the same byte again */
} ferrum_utf8_step_t;

/** Feed one byte. Each BROKEN and RESTART stands for one maximal broken sequence. */
ferrum_utf8_step_t ferrum_utf8_feed(ferrum_utf8_state_t *state, uint8_t byte);

/** Length of the longest valid prefix of @p text that ends at a character's border. */
size_t ferrum_utf8_valid_prefix(const char *text, size_t bytes);

#endif /* FERRUM_HOST_UTF8_H */
