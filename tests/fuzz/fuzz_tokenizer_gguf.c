/* SPDX-License-Identifier: MIT */
/* The tokenizer of a GGUF file. The last byte n says that the n bytes before it are a text. */
#include "host/text/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_text.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ferrum_gguf_t *gguf = NULL;
    ferrum_tokenizer_t *tokenizer = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    size_t text_size = size && data[size - 1] < size ? data[size - 1] : 0;
    size_t file_size = size ? size - 1 - text_size : 0;
    uint8_t *copy = fuzz_copy(data, file_size);
    ferrum_status_t status = ferrum_gguf_open_memory(copy, file_size, "input", &gguf, &err);
    if (status == FERRUM_OK)
        status = ferrum_tokenizer_from_gguf(gguf, &tokenizer, &err);
    ferrum_gguf_close(gguf);
    free(copy); /* nothing of the file is referenced */
    if (status == FERRUM_OK)
        fuzz_text_round_trip(tokenizer, data + file_size, text_size);
    else
        fuzz_require_refusal(status, &err);
    ferrum_tokenizer_free(tokenizer);
    return 0;
}
