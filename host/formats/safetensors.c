/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ferrum/util.h>

#include "host/formats/json_text.h"
#include "host/formats/safetensors_internal.h"

#define LENGTH_BYTES 8u
#define NO_ABI_DTYPE UINT32_MAX

static const struct {
    const char *name;
    uint32_t bytes;
    ferrum_dtype_t abi;
} dtypes[FERRUM_SAFETENSORS_DTYPES] = {
    [FERRUM_SAFETENSORS_F64] = {"F64", 8, NO_ABI_DTYPE},
    [FERRUM_SAFETENSORS_F32] = {"F32", 4, FERRUM_DTYPE_F32},
    [FERRUM_SAFETENSORS_F16] = {"F16", 2, FERRUM_DTYPE_F16},
    [FERRUM_SAFETENSORS_BF16] = {"BF16", 2, FERRUM_DTYPE_BF16},
    [FERRUM_SAFETENSORS_F8_E4M3] = {"F8_E4M3", 1, NO_ABI_DTYPE},
    [FERRUM_SAFETENSORS_F8_E5M2] = {"F8_E5M2", 1, NO_ABI_DTYPE},
    [FERRUM_SAFETENSORS_I64] = {"I64", 8, NO_ABI_DTYPE},
    [FERRUM_SAFETENSORS_I32] = {"I32", 4, FERRUM_DTYPE_I32},
    [FERRUM_SAFETENSORS_I16] = {"I16", 2, NO_ABI_DTYPE},
    [FERRUM_SAFETENSORS_I8] = {"I8", 1, FERRUM_DTYPE_I8},
    [FERRUM_SAFETENSORS_U64] = {"U64", 8, NO_ABI_DTYPE},
    [FERRUM_SAFETENSORS_U32] = {"U32", 4, FERRUM_DTYPE_U32},
    [FERRUM_SAFETENSORS_U16] = {"U16", 2, NO_ABI_DTYPE},
    [FERRUM_SAFETENSORS_U8] = {"U8", 1, FERRUM_DTYPE_U8},
    [FERRUM_SAFETENSORS_BOOL] = {"BOOL", 1, NO_ABI_DTYPE},
};

uint32_t ferrum_safetensors_dtype_bytes(ferrum_safetensors_dtype_t dtype)
{
    return dtype < FERRUM_SAFETENSORS_DTYPES ? dtypes[dtype].bytes : 0;
}

const char *ferrum_safetensors_dtype_name(ferrum_safetensors_dtype_t dtype)
{
    return dtype < FERRUM_SAFETENSORS_DTYPES ? dtypes[dtype].name : "?";
}

bool ferrum_safetensors_dtype_to_abi(ferrum_safetensors_dtype_t dtype, ferrum_dtype_t *out_dtype)
{
    if (dtype >= FERRUM_SAFETENSORS_DTYPES || dtypes[dtype].abi == NO_ABI_DTYPE)
        return false;
    *out_dtype = dtypes[dtype].abi;
    return true;
}

/* One shard's header while it is read. */
typedef struct header {
    ferrum_safetensors_t *checkpoint;
    const ferrum_safetensors_shard_t *shard;
    uint64_t data_start;
    uint64_t data_bytes;
    ferrum_error_t *err;
} header_t;

static ferrum_status_t fail_tensor(const header_t *header, const char *name, ferrum_status_t status,
                                   ferrum_reason_t reason, const char *what)
{
    return ferrum_fail(header->err, status, reason, "%.70s: tensor %.90s: %s", header->shard->path,
                       name, what);
}

static ferrum_status_t read_dtype(const header_t *header, const char *name, const json_t *entry,
                                  ferrum_safetensors_tensor_t *tensor)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    if (!text)
        return fail_tensor(header, name, FERRUM_CORRUPT, FERRUM_REASON_DTYPE, "no dtype");
    for (unsigned i = 0; i < FERRUM_SAFETENSORS_DTYPES; i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            tensor->dtype = (ferrum_safetensors_dtype_t)i;
            return FERRUM_OK;
        }
    }
    return ferrum_fail(header->err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                       "%.70s: tensor %.90s: dtype %.20s is not supported", header->shard->path,
                       name, text);
}

static ferrum_status_t read_shape(const header_t *header, const char *name, const json_t *entry,
                                  ferrum_safetensors_tensor_t *tensor)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return fail_tensor(header, name, FERRUM_CORRUPT, FERRUM_REASON_LENGTH, "no shape");
    size_t count = json_array_size(shape);
    if (count > FERRUM_SAFETENSORS_MAX_DIMS)
        return fail_tensor(header, name, FERRUM_UNSUPPORTED, FERRUM_REASON_LENGTH,
                           "it has more than 8 dimensions");
    tensor->dims_count = (uint32_t)count;
    tensor->elements = 1;
    for (size_t i = 0; i < FERRUM_SAFETENSORS_MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        if (i >= count)
            continue;
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return fail_tensor(header, name, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                               "a dimension is not a non-negative integer");
        tensor->dims[i] = (uint64_t)json_integer_value(dim);
        if (!ferrum_mul_u64(tensor->elements, tensor->dims[i], &tensor->elements))
            return fail_tensor(header, name, FERRUM_CORRUPT, FERRUM_REASON_OVERFLOW,
                               "its element count overflows");
    }
    if (!ferrum_mul_u64(tensor->elements, dtypes[tensor->dtype].bytes, &tensor->bytes))
        return fail_tensor(header, name, FERRUM_CORRUPT, FERRUM_REASON_OVERFLOW,
                           "its size overflows");
    return FERRUM_OK;
}

static ferrum_status_t read_range(const header_t *header, const char *name, const json_t *entry,
                                  ferrum_safetensors_tensor_t *tensor)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin_json = json_array_get(offsets, 0);
    const json_t *end_json = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin_json) ||
        !json_is_integer(end_json) || json_integer_value(begin_json) < 0)
        return fail_tensor(header, name, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "data_offsets are not two non-negative integers");
    uint64_t begin = (uint64_t)json_integer_value(begin_json);
    uint64_t end = (uint64_t)json_integer_value(end_json);
    if (json_integer_value(end_json) < json_integer_value(begin_json) || end > header->data_bytes)
        return ferrum_fail(header->err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.60s: tensor %.80s: data offsets %" PRIu64 " to %" PRIu64
                           " are not inside the file's %" PRIu64 " data bytes: truncated?",
                           header->shard->path, name, begin, end, header->data_bytes);
    if (end - begin != tensor->bytes)
        return ferrum_fail(header->err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.60s: tensor %.80s: its shape needs %" PRIu64
                           " bytes, its offsets hold %" PRIu64,
                           header->shard->path, name, tensor->bytes, end - begin);
    tensor->offset = header->data_start + begin;
    tensor->data = header->shard->data + tensor->offset;
    return FERRUM_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const ferrum_safetensors_tensor_t *x = *(const ferrum_safetensors_tensor_t *const *)a;
    const ferrum_safetensors_tensor_t *y = *(const ferrum_safetensors_tensor_t *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return 0;
}

/* Tensors from number `first` on belong to this shard: no two may share a byte. */
static ferrum_status_t check_overlaps(const header_t *header, uint32_t first)
{
    const ferrum_safetensors_t *checkpoint = header->checkpoint;
    uint32_t count = checkpoint->tensor_count - first;
    if (count < 2)
        return FERRUM_OK;
    const ferrum_safetensors_tensor_t **sorted = malloc(count * sizeof *sorted);
    if (!sorted)
        return ferrum_fail(header->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "%.120s: no memory to check %" PRIu32 " tensors", header->shard->path,
                           count);
    uint32_t filled = 0;
    for (uint32_t i = 0; i < count; i++)
        if (checkpoint->tensors[first + i].bytes)
            sorted[filled++] = &checkpoint->tensors[first + i];
    qsort(sorted, filled, sizeof *sorted, compare_offsets);
    ferrum_status_t status = FERRUM_OK;
    for (uint32_t i = 1; i < filled && status == FERRUM_OK; i++)
        if (sorted[i - 1]->offset + sorted[i - 1]->bytes > sorted[i]->offset)
            status = ferrum_fail(header->err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                                 "%.60s: tensors %.70s and %.70s overlap", header->shard->path,
                                 sorted[i - 1]->name.data, sorted[i]->name.data);
    free(sorted);
    return status;
}

static ferrum_status_t reserve(const header_t *header, size_t more)
{
    ferrum_safetensors_t *checkpoint = header->checkpoint;
    size_t needed = checkpoint->tensor_count + more;
    if (needed > FERRUM_SAFETENSORS_MAX_TENSORS)
        return ferrum_fail(header->err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.140s: more than %u tensors", checkpoint->path,
                           FERRUM_SAFETENSORS_MAX_TENSORS);
    FERRUM_TRY(ferrum_name_index_reserve(&checkpoint->index, needed, header->err));
    if (needed <= checkpoint->tensor_capacity)
        return FERRUM_OK;
    size_t capacity =
        needed > 2 * checkpoint->tensor_capacity ? needed : 2 * checkpoint->tensor_capacity;
    ferrum_safetensors_tensor_t *grown =
        realloc(checkpoint->tensors, capacity * sizeof *checkpoint->tensors);
    if (!grown)
        return ferrum_fail(header->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "%.140s: no memory for %zu tensors", checkpoint->path, capacity);
    checkpoint->tensors = grown;
    checkpoint->tensor_capacity = capacity;
    return FERRUM_OK;
}

/* `name` is a copy that lives as long as the checkpoint. */
static ferrum_status_t add_tensor(const header_t *header, const char *name, const json_t *entry)
{
    ferrum_safetensors_t *checkpoint = header->checkpoint;
    ferrum_safetensors_tensor_t *tensor = &checkpoint->tensors[checkpoint->tensor_count];
    uint32_t existing;
    memset(tensor, 0, sizeof *tensor);
    tensor->name = ferrum_view(name);
    tensor->shard = (uint32_t)(header->shard - checkpoint->shards);
    if (!json_is_object(entry))
        return fail_tensor(header, name, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                           "its entry is not an object");
    FERRUM_TRY(read_dtype(header, name, entry, tensor));
    FERRUM_TRY(read_shape(header, name, entry, tensor));
    FERRUM_TRY(read_range(header, name, entry, tensor));
    FERRUM_TRY(ferrum_name_index_add(&checkpoint->index, tensor->name, checkpoint->tensor_count,
                                     &existing, header->err));
    if (existing != FERRUM_NAME_NONE)
        return ferrum_fail(header->err, FERRUM_CORRUPT, FERRUM_REASON_OTHER,
                           "tensor %.80s is both in %.60s and in %.60s", name,
                           checkpoint->shards[checkpoint->tensors[existing].shard].path,
                           header->shard->path);
    checkpoint->tensor_count++;
    return FERRUM_OK;
}

static ferrum_status_t add_tensors(const header_t *header, json_t *root)
{
    ferrum_safetensors_t *checkpoint = header->checkpoint;
    ferrum_safetensors_shard_t *shard = &checkpoint->shards[header->shard - checkpoint->shards];
    uint32_t first = checkpoint->tensor_count;
    size_t names_bytes = 1;
    const char *key;
    json_t *entry;
    (void)json_object_del(root, "__metadata__");
    FERRUM_TRY(reserve(header, json_object_size(root)));
    json_object_foreach(root, key, entry) names_bytes += strlen(key) + 1;
    shard->names = malloc(names_bytes);
    if (!shard->names)
        return ferrum_fail(header->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "%.140s: no memory for tensor names", shard->path);
    char *name = shard->names;
    json_object_foreach(root, key, entry)
    {
        size_t bytes = strlen(key) + 1;
        memcpy(name, key, bytes);
        FERRUM_TRY(add_tensor(header, name, entry));
        name += bytes;
    }
    return check_overlaps(header, first);
}

ferrum_status_t ferrum_safetensors_add_shard(ferrum_safetensors_t *checkpoint, uint32_t shard,
                                             ferrum_error_t *err)
{
    const ferrum_safetensors_shard_t *file = &checkpoint->shards[shard];
    uint64_t header_bytes = 0;
    json_t *root;
    if (file->bytes < LENGTH_BYTES)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.140s is not a safetensors file: it has %" PRIu64 " bytes", file->path,
                           file->bytes);
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)file->data[i] << (8 * i);
    if (header_bytes > file->bytes - LENGTH_BYTES ||
        header_bytes > FERRUM_SAFETENSORS_MAX_HEADER_BYTES)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.100s: header length %" PRIu64 " does not fit the file's %" PRIu64
                           " bytes: truncated, or not a safetensors file",
                           file->path, header_bytes, file->bytes);
    header_t header = {checkpoint, file, LENGTH_BYTES + header_bytes,
                       file->bytes - LENGTH_BYTES - header_bytes, err};
    FERRUM_TRY(ferrum_json_parse((const char *)file->data + LENGTH_BYTES, (size_t)header_bytes,
                                 file->path, &root, err));
    ferrum_status_t status = add_tensors(&header, root);
    json_decref(root);
    return status;
}

uint32_t ferrum_safetensors_tensor_count(const ferrum_safetensors_t *checkpoint)
{
    return checkpoint->tensor_count;
}

const ferrum_safetensors_tensor_t *
ferrum_safetensors_tensor_at(const ferrum_safetensors_t *checkpoint, uint32_t i)
{
    return i < checkpoint->tensor_count ? &checkpoint->tensors[i] : NULL;
}

const ferrum_safetensors_tensor_t *ferrum_safetensors_find(const ferrum_safetensors_t *checkpoint,
                                                           const char *name)
{
    return ferrum_safetensors_tensor_at(
        checkpoint, ferrum_name_index_find(&checkpoint->index, ferrum_view(name)));
}

ferrum_status_t ferrum_safetensors_require(const ferrum_safetensors_t *checkpoint, const char *name,
                                           const ferrum_safetensors_tensor_t **out_tensor,
                                           ferrum_error_t *err)
{
    const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_find(checkpoint, name);
    if (!tensor)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                           "%.100s: tensor %.110s is missing", checkpoint->path, name);
    *out_tensor = tensor;
    return FERRUM_OK;
}
