/* SPDX-License-Identifier: MIT */
#include "host/text/utf8.h"

/* Length of the character that begins with this byte; 0 when none does. */
static uint8_t length_from_lead(uint8_t byte)
{
    if (byte < 0x80)
        return 1;
    if (byte < 0xc2)
        return 0;
    if (byte < 0xe0)
        return 2;
    if (byte < 0xf0)
        return 3;
    return byte < 0xf5 ? 4 : 0;
}

/* The second byte's range excludes overlong forms, surrogates and what is above U+10FFFF. */
static bool continues(const ferrum_utf8_state_t *state, uint8_t byte)
{
    uint8_t least = 0x80;
    uint8_t most = 0xbf;
    if (state->count == 1) {
        switch (state->bytes[0]) {
        case 0xe0:
            least = 0xa0;
            break;
        case 0xed:
            most = 0x9f;
            break;
        case 0xf0:
            least = 0x90;
            break;
        case 0xf4:
            most = 0x8f;
            break;
        default:
            break;
        }
    }
    return byte >= least && byte <= most;
}

ferrum_utf8_step_t ferrum_utf8_feed(ferrum_utf8_state_t *state, uint8_t byte)
{
    if (state->count == 0) {
        state->needed = length_from_lead(byte);
        if (state->needed == 0)
            return FERRUM_UTF8_BROKEN;
    } else if (!continues(state, byte)) {
        state->count = 0;
        return FERRUM_UTF8_RESTART;
    }
    state->bytes[state->count++] = byte;
    return state->count == state->needed ? FERRUM_UTF8_COMPLETE : FERRUM_UTF8_MORE;
}

size_t ferrum_utf8_valid_prefix(const char *text, size_t bytes)
{
    ferrum_utf8_state_t state = {{0}, 0, 0};
    size_t valid = 0;
    for (size_t i = 0; i < bytes; i++) {
        ferrum_utf8_step_t step = ferrum_utf8_feed(&state, (uint8_t)text[i]);
        if (step == FERRUM_UTF8_BROKEN || step == FERRUM_UTF8_RESTART)
            return valid;
        if (step == FERRUM_UTF8_COMPLETE) {
            state.count = 0;
            valid = i + 1;
        }
    }
    return valid;
}
