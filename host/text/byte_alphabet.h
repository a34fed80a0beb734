/* SPDX-License-Identifier: MIT */
/**
 * @file byte_alphabet.h
 * @brief The 256 printable characters that stand for bytes in byte-level BPE vocabularies.
 *
 * Bytes that print in Latin-1 (33…126, 161…172, 174…255) stand for themselves; the 68 others, in
 * rising order, are U+0100, U+0101, … So a space is U+0120.
 */
#ifndef FERRUM_HOST_BYTE_ALPHABET_H
#define FERRUM_HOST_BYTE_ALPHABET_H

#include <stdbool.h>

#include "host/formats/string_view.h"

/**
 * The bytes that @p text spells. @p out_bytes needs room for text.length bytes and may be
 * text.data itself. False when a character is not of the alphabet (or not UTF-8).
 */
bool ferrum_byte_alphabet_decode(ferrum_string_view_t text, char *out_bytes, size_t *out_count);

#endif /* FERRUM_HOST_BYTE_ALPHABET_H */
