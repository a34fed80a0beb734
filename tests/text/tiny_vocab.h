/* SPDX-License-Identifier: MIT */
/**
 * @file tiny_vocab.h
 * @brief A hand-made vocabulary for tests: the 256 byte tokens (id = byte), then
 *        256 "ab", 257 "abc", 258 " a" (a space and a), 259 "<|end|>" (control), 260 "<t>" (user),
 *        261 "é" (both bytes merged), 262 unused.
 *        Merges: a b; ab c; space a; C3 A9.
 */
#ifndef FERRUM_TEST_TINY_VOCAB_H
#define FERRUM_TEST_TINY_VOCAB_H

#include "host/text/tokenizer.h"
#include "tests/support/gguf_writer.h"

enum {
    TINY_AB = 256,
    TINY_ABC,
    TINY_SPACE_A,
    TINY_END,
    TINY_T,
    TINY_E_ACUTE,
    TINY_UNUSED,
    TINY_VOCAB
};

/** Pieces of a tokenizer.json that a test may replace; NULL means the usual. */
typedef struct tiny_json {
    const char *model_options; /**< fields of the model, before vocab: "\"type\":\"BPE\"," */
    const char *merges;        /**< the whole array */
    const char *added_tokens;  /**< the whole array */
    const char *more_vocab;    /**< further vocab entries, with a leading comma */
    const char *normalizer;
    const char *pre_tokenizer;
    const char *post_processor;
} tiny_json_t;

/** The document; release with free(). */
char *tiny_vocab_json(const tiny_json_t *parts);

/** The text of a byte token in the byte alphabet. */
void tiny_vocab_spell(unsigned byte, char out_text[3]);

/** Add the vocabulary's metadata to a GGUF writer; NULL texts leave the key out. */
void tiny_vocab_gguf(ferrum_gguf_writer_t *writer, const char *model, const char *pre,
                     const char *const *merges, uint64_t merges_count);
/** The usual merges. */
extern const char *const tiny_merges[];
#define TINY_MERGES 4

#endif /* FERRUM_TEST_TINY_VOCAB_H */
