/* SPDX-License-Identifier: MIT */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "host/text/pretokenizer.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

/* A pattern comes out of a file: what one match of it may cost. PCRE2 would allow 20 GB. */
#define MOST_STEPS 10000000u
#define MOST_HEAP_KIB (256u << 10)

/* Everything that one call of cut hands down. */
typedef struct cutter {
    const ferrum_pretokenizer_t *pretokenizer;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    const char *text;    /* what words are pointers into */
    const char *subject; /* what is matched; as long as `text` */
    ferrum_word_fn_t on_word;
    void *context;
    ferrum_error_t *err;
} cutter_t;

ferrum_status_t ferrum_pretokenizer_add(ferrum_pretokenizer_t *pretokenizer, const char *pattern,
                                        ferrum_error_t *err)
{
    int error;
    PCRE2_SIZE offset;
    if (pretokenizer->count == FERRUM_PRETOKENIZER_MAX_PATTERNS)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_LENGTH,
                           "pre-tokenizer: more than %d patterns",
                           FERRUM_PRETOKENIZER_MAX_PATTERNS);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, NULL);
    if (!code) {
        PCRE2_UCHAR text[128];
        if (error == PCRE2_ERROR_HEAP_FAILED)
            return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                               "pre-tokenizer: no memory for a pattern of %zu bytes",
                               strlen(pattern));
        (void)pcre2_get_error_message(error, text, sizeof text);
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                           "pre-tokenizer: bad pattern at character %zu: %s", offset,
                           (const char *)text);
    }
    /* No JIT here is no error: matching interprets the pattern then. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    pretokenizer->patterns[pretokenizer->count++] = code;
    return FERRUM_OK;
}

void ferrum_pretokenizer_clear(ferrum_pretokenizer_t *pretokenizer)
{
    for (uint32_t i = 0; i < pretokenizer->count; i++)
        pcre2_code_free(pretokenizer->patterns[i]);
    memset(pretokenizer, 0, sizeof *pretokenizer);
}

/*
 * PCRE2 still counts U+180E as white space; Unicode has not since 6.3, nor do the libraries that
 * models were trained with. Matching sees U+200B in its place: as long, and of the same category.
 * Returns NULL when there is none in the text.
 */
static char *replace_vowel_separator(const char *text, size_t bytes, bool *out_failed)
{
    static const char separator[] = "\xe1\xa0\x8e";
    static const char stand_in[] = "\xe2\x80\x8b";
    const size_t width = sizeof separator - 1;
    char *copy = NULL;
    *out_failed = false;
    for (size_t i = 0; i + width <= bytes; i++) {
        if (memcmp(text + i, separator, width) != 0)
            continue;
        if (!copy) {
            copy = malloc(bytes);
            if (!copy) {
                *out_failed = true;
                return NULL;
            }
            memcpy(copy, text, bytes);
        }
        memcpy(copy + i, stand_in, width);
    }
    return copy;
}

static ferrum_status_t cut_level(const cutter_t *c, uint32_t level, size_t begin, size_t end);

/* A piece goes to the next pattern, or is a word after the last one. */
static ferrum_status_t hand_down(const cutter_t *c, uint32_t level, size_t begin, size_t end)
{
    if (begin == end)
        return FERRUM_OK;
    if (level + 1 < c->pretokenizer->count)
        return cut_level(c, level + 1, begin, end);
    return c->on_word(c->context, c->text + begin, end - begin, c->err);
}

/* Next match from `from` on inside [begin, end); false in *out_found when there is none. */
static ferrum_status_t find(const cutter_t *c, uint32_t level, size_t begin, size_t end,
                            size_t from, bool *out_found, size_t *out_begin, size_t *out_end)
{
    const pcre2_code *code = c->pretokenizer->patterns[level];
    PCRE2_SPTR piece = (PCRE2_SPTR)(c->subject + begin);
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int rc = pcre2_match(code, piece, end - begin, from - begin, options, c->match, c->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, piece, end - begin, from - begin, options | PCRE2_NO_JIT, c->match,
                         c->limits);
    *out_found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH)
        return FERRUM_OK;
    if (rc < 0) {
        PCRE2_UCHAR text[128];
        (void)pcre2_get_error_message(rc, text, sizeof text);
        return ferrum_fail(c->err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "pre-tokenizer: the pattern gives up at byte %zu: %s", from,
                           (const char *)text);
    }
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(c->match);
    *out_begin = begin + span[0];
    *out_end = begin + span[1];
    if (*out_begin < from || *out_end <= *out_begin)
        return ferrum_fail(c->err, FERRUM_UNSUPPORTED, FERRUM_REASON_OTHER,
                           "pre-tokenizer: the pattern moves backwards at byte %zu", from);
    return FERRUM_OK;
}

static ferrum_status_t cut_level(const cutter_t *c, uint32_t level, size_t begin, size_t end)
{
    size_t at = begin;
    while (at < end) {
        bool found;
        size_t match_begin = end;
        size_t match_end = end;
        FERRUM_TRY(find(c, level, begin, end, at, &found, &match_begin, &match_end));
        FERRUM_TRY(hand_down(c, level, at, match_begin));
        FERRUM_TRY(hand_down(c, level, match_begin, match_end));
        at = match_end;
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_pretokenizer_cut(const ferrum_pretokenizer_t *pretokenizer, const char *text,
                                        size_t bytes, ferrum_word_fn_t on_word, void *context,
                                        ferrum_error_t *err)
{
    if (bytes == 0)
        return FERRUM_OK;
    if (pretokenizer->count == 0)
        return on_word(context, text, bytes, err);
    bool failed;
    char *copy = replace_vowel_separator(text, bytes, &failed);
    cutter_t c = {.pretokenizer = pretokenizer,
                  .match = pcre2_match_data_create(1, NULL),
                  .limits = pcre2_match_context_create(NULL),
                  .text = text,
                  .subject = copy ? copy : text,
                  .on_word = on_word,
                  .context = context,
                  .err = err};
    ferrum_status_t status;
    if (c.limits) {
        (void)pcre2_set_match_limit(c.limits, MOST_STEPS);
        (void)pcre2_set_heap_limit(c.limits, MOST_HEAP_KIB);
    }
    if (failed || !c.match || !c.limits)
        status = ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                             "no memory to cut %zu bytes of text", bytes);
    else
        status = cut_level(&c, 0, 0, bytes);
    pcre2_match_data_free(c.match);
    pcre2_match_context_free(c.limits);
    free(copy);
    return status;
}
