/* SPDX-License-Identifier: MIT */
/* GGUF files: the reader, its getters and tensor views, and the model configs made of them. */
#include "host/formats/gguf.h"
#include "host/formats/model_config.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t *file;
static size_t file_bytes;

static void require_inside(const void *data, uint64_t bytes)
{
    uint64_t offset = (uint64_t)((const uint8_t *)data - file);
    FUZZ_REQUIRE(offset <= file_bytes && bytes <= file_bytes - offset);
    fuzz_touch(data, bytes);
}

static void check_getters(const ferrum_gguf_t *gguf, const char *name)
{
    const ferrum_gguf_key_t *array;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_string_view_t text;
    uint32_t u32;
    uint64_t u64;
    double f64;
    bool truth;
    if (ferrum_gguf_get_u64(gguf, name, &u64, &err) != FERRUM_OK)
        fuzz_require_refusal(err.status, &err);
    else if (ferrum_gguf_get_u32(gguf, name, &u32, &err) == FERRUM_OK)
        FUZZ_REQUIRE(u32 == u64);
    (void)ferrum_gguf_get_f64(gguf, name, &f64, &err);
    (void)ferrum_gguf_get_bool(gguf, name, &truth, &err);
    (void)ferrum_gguf_get_array(gguf, name, FERRUM_GGUF_I32, &array, &err);
    if (ferrum_gguf_get_string(gguf, name, &text, &err) == FERRUM_OK)
        require_inside(text.data, text.length);
}

static void check_items(const ferrum_gguf_key_t *key)
{
    if (key->item_type != FERRUM_GGUF_STRING) {
        for (uint64_t i = 0; i < key->count; i++) {
            (void)ferrum_gguf_item_i64(key, i);
            (void)ferrum_gguf_item_f64(key, i);
        }
        return;
    }
    FUZZ_REQUIRE(key->count <= file_bytes / 8);
    ferrum_string_view_t *views = malloc(((size_t)key->count + 1) * sizeof *views);
    if (!views)
        abort();
    ferrum_gguf_array_strings(key, views);
    for (uint64_t i = 0; i < key->count; i++)
        require_inside(views[i].data, views[i].length);
    free(views);
}

static void check_key(const ferrum_gguf_t *gguf, uint32_t i)
{
    const ferrum_gguf_key_t *key = ferrum_gguf_key_at(gguf, i);
    char name[64];
    require_inside(key->name.data, key->name.length);
    FUZZ_REQUIRE(strcmp(ferrum_gguf_type_name(key->type), "?") != 0);
    check_items(key);
    if (key->name.length >= sizeof name || memchr(key->name.data, '\0', key->name.length))
        return;
    memcpy(name, key->name.data, key->name.length);
    name[key->name.length] = '\0';
    FUZZ_REQUIRE(ferrum_gguf_find_key(gguf, name) == key);
    check_getters(gguf, name);
}

static void check_tensor(const ferrum_gguf_t *gguf, uint32_t i)
{
    const ferrum_gguf_tensor_t *tensor = ferrum_gguf_tensor_at(gguf, i), *found;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    char name[64];
    uint64_t elements = 1;
    require_inside(tensor->name.data, tensor->name.length);
    FUZZ_REQUIRE((tensor->data != NULL) == (tensor->traits != NULL));
    FUZZ_REQUIRE(tensor->dims_count >= 1 && tensor->dims_count <= FERRUM_GGUF_MAX_DIMS);
    for (uint32_t d = 0; d < FERRUM_GGUF_MAX_DIMS; d++)
        elements *= tensor->dims[d];
    FUZZ_REQUIRE(elements == tensor->elements);
    if (tensor->data) {
        require_inside(tensor->data, tensor->bytes);
        FUZZ_REQUIRE((uintptr_t)tensor->data % 8 == 0);
        FUZZ_REQUIRE(tensor->bytes ==
                     elements / tensor->traits->block_values * tensor->traits->block_bytes);
    }
    if (tensor->name.length >= sizeof name || memchr(tensor->name.data, '\0', tensor->name.length))
        return;
    memcpy(name, tensor->name.data, tensor->name.length);
    name[tensor->name.length] = '\0';
    FUZZ_REQUIRE(ferrum_gguf_find_tensor(gguf, name) == tensor);
    ferrum_status_t status = ferrum_gguf_require_tensor(gguf, name, &found, &err);
    if (status != FERRUM_OK)
        fuzz_require_refusal(status, &err);
    else
        FUZZ_REQUIRE(found == tensor && tensor->traits);
}

static void check_config(const ferrum_gguf_t *gguf)
{
    ferrum_model_config_t config;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_status_t status = ferrum_model_config_from_gguf(gguf, &config, &err);
    if (status == FERRUM_OK)
        FUZZ_REQUIRE(ferrum_model_config_validate(&config, &err) == FERRUM_OK);
    else
        fuzz_require_refusal(status, &err);
    status = ferrum_model_config_dense_from_gguf(gguf, &config, &err);
    if (status == FERRUM_OK)
        FUZZ_REQUIRE(ferrum_model_config_validate(&config, &err) == FERRUM_OK);
    else
        fuzz_require_refusal(status, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ferrum_gguf_t *gguf = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    uint8_t *copy = fuzz_copy(data, size);
    file = copy;
    file_bytes = size;
    ferrum_status_t status = ferrum_gguf_open_memory(copy, size, "input", &gguf, &err);
    if (status != FERRUM_OK) {
        fuzz_require_refusal(status, &err);
        FUZZ_REQUIRE(gguf == NULL);
    } else {
        for (uint32_t i = 0; i < ferrum_gguf_key_count(gguf); i++)
            check_key(gguf, i);
        for (uint32_t i = 0; i < ferrum_gguf_tensor_count(gguf); i++)
            check_tensor(gguf, i);
        check_config(gguf);
    }
    ferrum_gguf_close(gguf);
    free(copy);
    return 0;
}
