/* SPDX-License-Identifier: MIT */
/** @file fuzz_text.h  What a tokenizer, however it was made, must do with any text. */
#ifndef FERRUM_TEST_FUZZ_TEXT_H
#define FERRUM_TEST_FUZZ_TEXT_H

#include "host/text/tokenizer.h"

/** Encode @p text in every mode, decode the ids, and compare. */
void fuzz_text_round_trip(const ferrum_tokenizer_t *tokenizer, const uint8_t *text, size_t size);

#endif /* FERRUM_TEST_FUZZ_TEXT_H */
