/* SPDX-License-Identifier: MIT */
/* `config.json` and, behind a NUL byte, `quantize_config.json`. */
#include "host/formats/model_config.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

/* NUL-terminated in memory of its own. */
static char *text_of(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        abort();
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, '\0', size) : NULL;
    size_t first = end ? (size_t)(end - data) : size;
    char *config_json = text_of(data, first);
    char *quantize_json = end ? text_of(end + 1, size - first - 1) : NULL;
    ferrum_model_config_t config;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t status =
        ferrum_model_config_from_json(config_json, quantize_json, &config, &err);
    if (status == FERRUM_OK) {
        FUZZ_REQUIRE(ferrum_model_config_validate(&config, &err) == FERRUM_OK);
        FUZZ_REQUIRE(config.eos_count <= FERRUM_MODEL_MAX_EOS_TOKENS);
        FUZZ_REQUIRE(!config.gptq.present || config.gptq.bits == 4 || config.gptq.bits == 8);
        for (uint32_t i = 0; i < config.eos_count; i++)
            FUZZ_REQUIRE(ferrum_model_config_is_eos(&config, config.eos_tokens[i]));
    } else {
        fuzz_require_refusal(status, &err);
    }
    free(config_json);
    free(quantize_json);
    return 0;
}
