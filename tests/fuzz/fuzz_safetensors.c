/* SPDX-License-Identifier: MIT */
/* Safetensors files with the GPTQ layers in them; an input that begins with '{' is an index. */
#include "config.h"

#include "host/formats/gptq_checkpoint.h"
#include "host/formats/safetensors.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"
#include "tests/support/safetensors_writer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_gptq(const ferrum_safetensors_t *checkpoint,
                       const ferrum_safetensors_tensor_t *tensor)
{
    static const char suffix[] = ".qweight";
    static const ferrum_gptq_config_t configs[] = {
        {.present = true, .bits = 4, .group_size = 8, .sym = true},
        {.present = true, .bits = 4, .group_size = 0, .desc_act = true},
        {.present = true, .bits = 8, .group_size = 16},
    };
    char prefix[128];
    size_t length = tensor->name.length;
    if (length < sizeof suffix || length >= sizeof prefix ||
        strcmp(tensor->name.data + length - (sizeof suffix - 1), suffix) != 0)
        return;
    memcpy(prefix, tensor->name.data, length);
    prefix[length - (sizeof suffix - 1)] = '\0';
    FUZZ_REQUIRE(ferrum_gptq_checkpoint_has(checkpoint, prefix));
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        ferrum_gptq_tensors_t t;
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_status_t status =
            ferrum_gptq_checkpoint_load(checkpoint, &configs[i], prefix, 0, 0, &t, &err);
        if (status != FERRUM_OK) {
            fuzz_require_refusal(status, &err);
            continue;
        }
        uint64_t codes_per_word = 32 / t.bits;
        fuzz_touch(t.qweight, t.k / codes_per_word * t.n * 4);
        fuzz_touch(t.qzeros, t.n / codes_per_word * t.groups * 4);
        fuzz_touch(t.scales, (uint64_t)t.groups * t.n * 2);
        for (uint32_t r = 0; t.g_idx && r < t.k; r++)
            FUZZ_REQUIRE(t.g_idx[r] >= 0 && (uint32_t)t.g_idx[r] < t.groups);
    }
}

static void check_checkpoint(const ferrum_safetensors_t *checkpoint)
{
    for (uint32_t i = 0; i < ferrum_safetensors_tensor_count(checkpoint); i++) {
        const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_tensor_at(checkpoint, i);
        FUZZ_REQUIRE(strlen(tensor->name.data) == tensor->name.length);
        FUZZ_REQUIRE(ferrum_safetensors_find(checkpoint, tensor->name.data) == tensor);
        FUZZ_REQUIRE(tensor->elements * ferrum_safetensors_dtype_bytes(tensor->dtype) ==
                     tensor->bytes);
        fuzz_touch(tensor->data, tensor->bytes);
        check_gptq(checkpoint, tensor);
    }
}

static void finish(ferrum_status_t status, ferrum_safetensors_t *checkpoint,
                   const ferrum_error_t *err)
{
    if (status == FERRUM_OK)
        check_checkpoint(checkpoint);
    else
        fuzz_require_refusal(status, err);
    ferrum_safetensors_close(checkpoint);
}

/* ---- indices: a directory with one shard, and a link to a memory file that holds the input ----
 */

static ferrum_test_path_t directory, index_path;
static int index_fd = -1;

static void remove_directory(void)
{
    ferrum_test_remove_directory(directory);
}

static void prepare_directory(void)
{
    ferrum_safetensors_writer_t *shard = ferrum_safetensors_writer_new();
    ferrum_test_path_t path, target;
    ferrum_test_make_directory(directory);
    (void)atexit(remove_directory);
    ferrum_safetensors_writer_add(shard, "a", "U8", 1, (uint64_t[]){4}, "1234", 4);
    ferrum_test_join(directory, "s", path);
    ferrum_safetensors_writer_save(shard, path);
    ferrum_safetensors_writer_free(shard);
    index_fd = memfd_create("index", MFD_CLOEXEC);
    (void)snprintf(target, sizeof target, "/proc/self/fd/%d", index_fd);
    ferrum_test_join(directory, "i.json", index_path);
    if (index_fd < 0 || symlink(target, index_path) != 0)
        abort();
}

static void run_index(const uint8_t *data, size_t size)
{
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    if (index_fd < 0)
        prepare_directory();
    if (ftruncate(index_fd, 0) != 0 || pwrite(index_fd, data, size, 0) != (ssize_t)size)
        abort();
    ferrum_status_t status = ferrum_safetensors_open(index_path, &checkpoint, &err);
    finish(status, checkpoint, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ferrum_safetensors_t *checkpoint = NULL;
    ferrum_error_t err = FERRUM_ERROR_INIT;
    if (size && data[0] == '{') {
        run_index(data, size);
        return 0;
    }
    uint8_t *copy = fuzz_copy(data, size);
    ferrum_status_t status = ferrum_safetensors_open_memory(copy, size, "input", &checkpoint, &err);
    finish(status, checkpoint, &err);
    free(copy);
    return 0;
}
