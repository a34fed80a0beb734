/* SPDX-License-Identifier: MIT */
#include "host/text/byte_alphabet.h"

#include <stdint.h>

#define SHIFTED 0x100u /* first code point of bytes that do not print */

static bool prints(uint32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) ||
           (byte >= 174 && byte <= 255);
}

/* The byte that a code point stands for; false when it is none of the 256. */
static bool byte_of(uint32_t code_point, uint8_t *out_byte)
{
    if (code_point < SHIFTED) {
        *out_byte = (uint8_t)code_point;
        return prints(code_point);
    }
    uint32_t rank = code_point - SHIFTED;
    for (uint32_t byte = 0; byte < 256; byte++) {
        if (!prints(byte) && rank-- == 0) {
            *out_byte = (uint8_t)byte;
            return true;
        }
    }
    return false;
}

bool ferrum_byte_alphabet_decode(ferrum_string_view_t text, char *out_bytes, size_t *out_count)
{
    size_t count = 0;
    for (size_t i = 0; i < text.length;) {
        /* The alphabet ends at U+0143, so one or two UTF-8 bytes per character. */
        uint32_t code_point = (uint8_t)text.data[i++];
        if (code_point >= 0x80) {
            if (code_point < 0xc2 || code_point > 0xdf || i == text.length ||
                ((uint8_t)text.data[i] & 0xc0) != 0x80)
                return false;
            code_point = (code_point & 0x1f) << 6 | ((uint8_t)text.data[i++] & 0x3f);
        }
        uint8_t byte;
        if (!byte_of(code_point, &byte))
            return false;
        out_bytes[count++] = (char)byte;
    }
    *out_count = count;
    return true;
}
