/* SPDX-License-Identifier: MIT */
/**
 * @file pretokenizer.h
 * @brief Cuts text into words, within which merging stays: one or more regular expressions.
 *
 * Each pattern cuts every piece of the one before into its matches and what lies between them.
 * Patterns are PCRE2 with UTF and UCP, compiled by its JIT where there is one (the result does not
 * depend on that). Characters are classified as of PCRE2's Unicode version; letters that Unicode
 * added later count as "other" until PCRE2 knows them.
 */
#ifndef FERRUM_HOST_PRETOKENIZER_H
#define FERRUM_HOST_PRETOKENIZER_H

#include <ferrum/types.h>

#define FERRUM_PRETOKENIZER_MAX_PATTERNS 8

struct pcre2_real_code_8;

/** Zeroed cuts nothing. Immutable after the last add: cutting is [any-thread]. */
typedef struct ferrum_pretokenizer {
    struct pcre2_real_code_8 *patterns[FERRUM_PRETOKENIZER_MAX_PATTERNS];
    uint32_t count;
} ferrum_pretokenizer_t;

/** Called for each word in order; an error ends the cutting. */
typedef ferrum_status_t (*ferrum_word_fn_t)(void *context, const char *word, size_t bytes,
                                            ferrum_error_t *err);

/** Errors: CORRUPT (the pattern does not compile: where and why), UNSUPPORTED (too many). */
ferrum_status_t ferrum_pretokenizer_add(ferrum_pretokenizer_t *pretokenizer, const char *pattern,
                                        ferrum_error_t *err);
void ferrum_pretokenizer_clear(ferrum_pretokenizer_t *pretokenizer);

/**
 * Cut @p text, valid UTF-8. Words are pointers into it. Errors: what @p on_word returns,
 * OUT_OF_MEMORY, UNSUPPORTED (a pattern gives up on this text).
 */
ferrum_status_t ferrum_pretokenizer_cut(const ferrum_pretokenizer_t *pretokenizer, const char *text,
                                        size_t bytes, ferrum_word_fn_t on_word, void *context,
                                        ferrum_error_t *err);

#endif /* FERRUM_HOST_PRETOKENIZER_H */
