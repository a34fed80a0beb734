/* SPDX-License-Identifier: MIT */
/* A `tokenizer.json`; what follows a NUL byte is a text. One that is no tokenizer is a text too,
 * for a small vocabulary that works. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_text.h"
#include "tests/text/tiny_vocab.h"

#include <stdlib.h>
#include <string.h>

static ferrum_tokenizer_t *tiny;

static void free_tiny(void)
{
    ferrum_tokenizer_free(tiny);
}

static void make_tiny(void)
{
    const tiny_json_t parts = {
        .pre_tokenizer =
            "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
            "{\"Regex\":\"[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|\\\\s+(?!\\\\S)|\\\\s+"
            "\"},"
            "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
            "\"add_prefix_space\":false,\"use_regex\":false}]}"};
    char *json = tiny_vocab_json(&parts);
    ferrum_error_t err = FERRUM_ERROR_INIT;
    FUZZ_REQUIRE(ferrum_tokenizer_from_json(json, strlen(json), "tiny", &tiny, &err) == FERRUM_OK);
    free(json);
    (void)atexit(free_tiny);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ferrum_tokenizer_t *tokenizer = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    const uint8_t *end = size ? memchr(data, '\0', size) : NULL;
    size_t json_size = end ? (size_t)(end - data) : size;
    uint8_t *copy = fuzz_copy(data, json_size);
    if (!tiny)
        make_tiny();
    ferrum_status_t status =
        ferrum_tokenizer_from_json((const char *)copy, json_size, "input", &tokenizer, &err);
    free(copy);
    if (status == FERRUM_OK) {
        const uint8_t fixed[] = "<|end|>a  b\r\n\xc3\xa9 \xf0\x9f\x98\x80<t>1'll";
        fuzz_text_round_trip(tokenizer, fixed, sizeof fixed - 1);
        if (end)
            fuzz_text_round_trip(tokenizer, end + 1, size - json_size - 1);
    } else {
        fuzz_require_refusal(status, &err);
        fuzz_text_round_trip(tiny, data, size);
    }
    ferrum_tokenizer_free(tokenizer);
    return 0;
}
