/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host/formats/gguf_internal.h"

#define DEFAULT_ALIGNMENT 32u
#define LEAST_ALIGNMENT 8u
/* Fewest bytes of an entry: an empty name's length, a type and a value; a tensor's fixed fields. */
#define LEAST_KEY_BYTES (8u + 4u + 1u)
#define LEAST_TENSOR_BYTES (8u + 4u + 8u + 4u + 8u)

/* Reads the header from front to back. `at` never passes `end`. */
typedef struct reader {
    ferrum_gguf_t *gguf;
    uint64_t at;
    uint64_t end;
    ferrum_error_t *err;
} reader_t;

static ferrum_status_t fail_at(const reader_t *r, uint64_t offset, const char *what)
{
    return ferrum_fail(r->err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                       "%.120s: %s at offset %" PRIu64 " runs past the end of the file (%" PRIu64
                       " bytes): truncated or corrupt",
                       r->gguf->path, what, offset, r->end);
}

static ferrum_status_t take(reader_t *r, uint64_t bytes, const char *what, const uint8_t **out)
{
    if (bytes > r->end - r->at)
        return fail_at(r, r->at, what);
    *out = r->gguf->data + r->at;
    r->at += bytes;
    return FERRUM_OK;
}

static uint64_t little_endian(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static ferrum_status_t take_u32(reader_t *r, const char *what, uint32_t *out)
{
    const uint8_t *at;
    FERRUM_TRY(take(r, 4, what, &at));
    *out = (uint32_t)little_endian(at, 4);
    return FERRUM_OK;
}

static ferrum_status_t take_u64(reader_t *r, const char *what, uint64_t *out)
{
    const uint8_t *at;
    FERRUM_TRY(take(r, 8, what, &at));
    *out = little_endian(at, 8);
    return FERRUM_OK;
}

static ferrum_status_t take_string(reader_t *r, const char *what, ferrum_string_view_t *out)
{
    uint64_t length;
    const uint8_t *at;
    FERRUM_TRY(take_u64(r, what, &length));
    FERRUM_TRY(take(r, length, what, &at));
    out->data = (const char *)at;
    out->length = (size_t)length;
    return FERRUM_OK;
}

static ferrum_status_t take_name(reader_t *r, const char *what, ferrum_string_view_t *out)
{
    uint64_t offset = r->at;
    FERRUM_TRY(take_string(r, what, out));
    if (out->length == 0 || out->length > FERRUM_GGUF_MAX_NAME_BYTES)
        return ferrum_fail(r->err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.120s: %s at offset %" PRIu64 " has %zu bytes, not 1 to %u",
                           r->gguf->path, what, offset, out->length, FERRUM_GGUF_MAX_NAME_BYTES);
    return FERRUM_OK;
}

/* Add a name to an index; a duplicate is an error. */
static ferrum_status_t add_name(reader_t *r, ferrum_name_index_t *index, const char *what,
                                ferrum_string_view_t name, uint32_t value, uint64_t offset)
{
    uint32_t existing;
    FERRUM_TRY(ferrum_name_index_add(index, name, value, &existing, r->err));
    if (existing != FERRUM_NAME_NONE)
        return ferrum_fail(r->err, FERRUM_CORRUPT, FERRUM_REASON_OTHER,
                           "%.80s: %s %.*s at offset %" PRIu64 " is there twice", r->gguf->path,
                           what, FERRUM_VIEW_ARGS(name), offset);
    return FERRUM_OK;
}

/* Step over the items of a value, checking that they are inside the file. */
static ferrum_status_t take_items(reader_t *r, const ferrum_gguf_key_t *key)
{
    uint32_t item_bytes = ferrum_gguf_scalar_bytes(key->item_type);
    if (item_bytes) {
        uint64_t bytes;
        const uint8_t *ignored;
        if (!ferrum_mul_u64(key->count, item_bytes, &bytes))
            return fail_at(r, r->at, "a metadata array");
        return take(r, bytes, "a metadata value", &ignored);
    }
    for (uint64_t i = 0; i < key->count; i++) {
        ferrum_string_view_t ignored;
        FERRUM_TRY(take_string(r, "a metadata string", &ignored));
    }
    return FERRUM_OK;
}

static ferrum_status_t fail_key_type(reader_t *r, const ferrum_gguf_key_t *key,
                                     ferrum_status_t status, const char *what, uint32_t type)
{
    return ferrum_fail(r->err, status, FERRUM_REASON_DTYPE,
                       "%.80s: metadata key %.*s before offset %" PRIu64 " has %s %" PRIu32,
                       r->gguf->path, FERRUM_VIEW_ARGS(key->name), r->at, what, type);
}

static ferrum_status_t take_key(reader_t *r, ferrum_gguf_key_t *key)
{
    FERRUM_TRY(take_name(r, "a metadata key", &key->name));
    FERRUM_TRY(take_u32(r, "the type of a metadata key", &key->type));
    key->item_type = key->type;
    key->count = 1;
    if (key->type == FERRUM_GGUF_ARRAY) {
        FERRUM_TRY(take_u32(r, "the item type of an array", &key->item_type));
        FERRUM_TRY(take_u64(r, "the length of an array", &key->count));
        if (key->item_type == FERRUM_GGUF_ARRAY)
            return fail_key_type(r, key, FERRUM_UNSUPPORTED, "nested arrays of type",
                                 key->item_type);
    }
    if (key->item_type != FERRUM_GGUF_STRING && !ferrum_gguf_scalar_bytes(key->item_type))
        return fail_key_type(r, key, FERRUM_CORRUPT, "the unknown type", key->item_type);
    key->offset = r->at;
    key->items = r->gguf->data + r->at;
    return take_items(r, key);
}

/* Refuse counts that cannot fit before anything is allocated for them. */
static ferrum_status_t check_count(const reader_t *r, uint64_t count, uint64_t most,
                                   uint64_t least_bytes, const char *what)
{
    if (count > most || count > (r->end - r->at) / least_bytes)
        return ferrum_fail(r->err, FERRUM_CORRUPT, FERRUM_REASON_LENGTH,
                           "%.120s: the header states %" PRIu64 " %s, more than %s can hold",
                           r->gguf->path, count, what, count > most ? "any file" : "this file");
    return FERRUM_OK;
}

static ferrum_status_t take_keys(reader_t *r, uint64_t count)
{
    ferrum_gguf_t *gguf = r->gguf;
    FERRUM_TRY(check_count(r, count, FERRUM_GGUF_MAX_KEYS, LEAST_KEY_BYTES, "metadata keys"));
    gguf->keys = calloc(count ? (size_t)count : 1, sizeof *gguf->keys);
    if (!gguf->keys)
        return ferrum_fail(r->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "%.120s: no memory for %" PRIu64 " metadata keys", gguf->path, count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = r->at;
        ferrum_gguf_key_t *key = &gguf->keys[i];
        FERRUM_TRY(take_key(r, key));
        FERRUM_TRY(add_name(r, &gguf->key_index, "metadata key", key->name, i, offset));
        gguf->key_count = i + 1;
    }
    return FERRUM_OK;
}

static ferrum_status_t read_alignment(reader_t *r)
{
    ferrum_gguf_t *gguf = r->gguf;
    gguf->alignment = DEFAULT_ALIGNMENT;
    if (!ferrum_gguf_find_key(gguf, "general.alignment"))
        return FERRUM_OK;
    uint32_t alignment;
    FERRUM_TRY(ferrum_gguf_get_u32(gguf, "general.alignment", &alignment, r->err));
    if (alignment < LEAST_ALIGNMENT || (alignment & (alignment - 1)))
        return ferrum_fail(r->err, FERRUM_CORRUPT, FERRUM_REASON_ALIGNMENT,
                           "%.120s: general.alignment is %" PRIu32
                           ", not a power of two from %u on",
                           gguf->path, alignment, LEAST_ALIGNMENT);
    gguf->alignment = alignment;
    return FERRUM_OK;
}

static ferrum_status_t fail_tensor(const reader_t *r, const ferrum_gguf_tensor_t *tensor,
                                   ferrum_reason_t reason, const char *what, uint64_t value)
{
    return ferrum_fail(r->err, FERRUM_CORRUPT, reason,
                       "%.60s: tensor %.*s before offset %" PRIu64 ": %s %" PRIu64, r->gguf->path,
                       FERRUM_VIEW_ARGS(tensor->name), r->at, what, value);
}

/* One entry of the tensor list; `offset` still counts from the data's start. */
static ferrum_status_t take_tensor(reader_t *r, ferrum_gguf_tensor_t *tensor)
{
    FERRUM_TRY(take_name(r, "a tensor's name", &tensor->name));
    FERRUM_TRY(take_u32(r, "a tensor's dimension count", &tensor->dims_count));
    if (tensor->dims_count < 1 || tensor->dims_count > FERRUM_GGUF_MAX_DIMS)
        return fail_tensor(r, tensor, FERRUM_REASON_RANGE, "dimensions are not 1 to 4 but",
                           tensor->dims_count);
    tensor->elements = 1;
    for (uint32_t i = 0; i < FERRUM_GGUF_MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        if (i < tensor->dims_count)
            FERRUM_TRY(take_u64(r, "a tensor's dimension", &tensor->dims[i]));
        if (tensor->dims[i] == 0)
            return fail_tensor(r, tensor, FERRUM_REASON_RANGE, "this dimension is 0:", i);
        if (!ferrum_mul_u64(tensor->elements, tensor->dims[i], &tensor->elements))
            return fail_tensor(r, tensor, FERRUM_REASON_OVERFLOW,
                               "the element count overflows at dimension", i);
    }
    FERRUM_TRY(take_u32(r, "a tensor's type", &tensor->format));
    FERRUM_TRY(take_u64(r, "a tensor's offset", &tensor->offset));
    tensor->traits = ferrum_format_traits(tensor->format);
    if (!tensor->traits)
        return FERRUM_OK;
    if (tensor->dims[0] % tensor->traits->block_values)
        return fail_tensor(r, tensor, FERRUM_REASON_K,
                           "its rows are not whole blocks; first dimension", tensor->dims[0]);
    if (!ferrum_mul_u64(tensor->elements / tensor->traits->block_values,
                        tensor->traits->block_bytes, &tensor->bytes))
        return fail_tensor(r, tensor, FERRUM_REASON_OVERFLOW, "its size overflows; elements",
                           tensor->elements);
    return FERRUM_OK;
}

static ferrum_status_t take_tensors(reader_t *r, uint64_t count)
{
    ferrum_gguf_t *gguf = r->gguf;
    FERRUM_TRY(check_count(r, count, FERRUM_GGUF_MAX_TENSORS, LEAST_TENSOR_BYTES, "tensors"));
    gguf->tensors = calloc(count ? (size_t)count : 1, sizeof *gguf->tensors);
    if (!gguf->tensors)
        return ferrum_fail(r->err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "%.120s: no memory for %" PRIu64 " tensors", gguf->path, count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = r->at;
        ferrum_gguf_tensor_t *tensor = &gguf->tensors[i];
        FERRUM_TRY(take_tensor(r, tensor));
        FERRUM_TRY(add_name(r, &gguf->tensor_index, "tensor", tensor->name, i, offset));
        gguf->tensor_count = i + 1;
    }
    return FERRUM_OK;
}

/* Turn the offsets into pointers once it is known where the data begin. */
static ferrum_status_t place_tensors(reader_t *r)
{
    ferrum_gguf_t *gguf = r->gguf;
    uint64_t mask = (uint64_t)gguf->alignment - 1;
    uint64_t start = (r->at + mask) & ~mask;
    for (uint32_t i = 0; i < gguf->tensor_count; i++) {
        ferrum_gguf_tensor_t *tensor = &gguf->tensors[i];
        uint64_t relative = tensor->offset;
        uint64_t end;
        if (relative & mask)
            return fail_tensor(r, tensor, FERRUM_REASON_ALIGNMENT,
                               "its data offset is not aligned:", relative);
        if (!ferrum_add_u64(relative, start, &tensor->offset) ||
            !ferrum_add_u64(tensor->offset, tensor->bytes, &end) || end > r->end)
            return fail_tensor(r, tensor, FERRUM_REASON_LENGTH,
                               "its data run past the end of the file; data offset", relative);
        if (tensor->traits)
            tensor->data = gguf->data + tensor->offset;
    }
    return FERRUM_OK;
}

static ferrum_status_t parse(ferrum_gguf_t *gguf, ferrum_error_t *err)
{
    reader_t r = {gguf, 0, gguf->bytes, err};
    const uint8_t *magic;
    uint64_t tensors;
    uint64_t keys;
    if (gguf->bytes < 4 || memcmp(gguf->data, "GGUF", 4) != 0)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_FORMAT,
                           "%.160s is not a GGUF file: it does not begin with \"GGUF\"",
                           gguf->path);
    FERRUM_TRY(take(&r, 4, "the magic", &magic));
    FERRUM_TRY(take_u32(&r, "the version", &gguf->version));
    if (gguf->version != 2 && gguf->version != 3)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "%.120s: GGUF version %" PRIu32 " is not supported%s; 2 and 3 are",
                           gguf->path, gguf->version,
                           gguf->version && !(gguf->version & 0xffff) ? " (a big-endian file)"
                                                                      : "");
    FERRUM_TRY(take_u64(&r, "the tensor count", &tensors));
    FERRUM_TRY(take_u64(&r, "the key count", &keys));
    FERRUM_TRY(take_keys(&r, keys));
    FERRUM_TRY(read_alignment(&r));
    FERRUM_TRY(take_tensors(&r, tensors));
    return place_tensors(&r);
}

/* Takes over the mapping, also when it fails. */
static ferrum_status_t open_bytes(const uint8_t *data, uint64_t bytes, const char *path,
                                  ferrum_mapped_file_t mapping, ferrum_gguf_t **out_gguf,
                                  ferrum_error_t *err)
{
    ferrum_status_t status = FERRUM_OUT_OF_MEMORY;
    size_t path_bytes = strlen(path) + 1;
    ferrum_gguf_t *gguf = calloc(1, sizeof *gguf);
    char *path_copy = malloc(path_bytes);
    if (!gguf || !path_copy) {
        free(gguf);
        free(path_copy);
        ferrum_mapped_file_close(&mapping);
        return ferrum_fail(err, status, FERRUM_REASON_OTHER, "no memory to open %.160s", path);
    }
    memcpy(path_copy, path, path_bytes);
    gguf->path = path_copy;
    gguf->mapping = mapping;
    gguf->data = data;
    gguf->bytes = bytes;
    status = parse(gguf, err);
    if (status != FERRUM_OK) {
        ferrum_gguf_close(gguf);
        return status;
    }
    *out_gguf = gguf;
    return FERRUM_OK;
}

ferrum_status_t ferrum_gguf_open(const char *path, ferrum_gguf_t **out_gguf, ferrum_error_t *err)
{
    ferrum_mapped_file_t mapping;
    FERRUM_TRY(ferrum_mapped_file_open(path, FERRUM_MAP_WILL_NEED, &mapping, err));
    return open_bytes(mapping.data, mapping.bytes, path, mapping, out_gguf, err);
}

ferrum_status_t ferrum_gguf_open_memory(const void *data, size_t bytes, const char *label,
                                        ferrum_gguf_t **out_gguf, ferrum_error_t *err)
{
    ferrum_mapped_file_t none = {NULL, 0};
    if ((uintptr_t)data % LEAST_ALIGNMENT)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_ALIGNMENT,
                           "%.120s: GGUF bytes in memory must be aligned to %u", label,
                           LEAST_ALIGNMENT);
    return open_bytes(data, bytes, label, none, out_gguf, err);
}

void ferrum_gguf_close(ferrum_gguf_t *gguf)
{
    if (!gguf)
        return;
    ferrum_name_index_clear(&gguf->key_index);
    ferrum_name_index_clear(&gguf->tensor_index);
    ferrum_mapped_file_close(&gguf->mapping);
    free(gguf->keys);
    free(gguf->tensors);
    free(gguf->path);
    free(gguf);
}

const char *ferrum_gguf_path(const ferrum_gguf_t *gguf)
{
    return gguf->path;
}

uint32_t ferrum_gguf_version(const ferrum_gguf_t *gguf)
{
    return gguf->version;
}

void ferrum_gguf_release_pages(const ferrum_gguf_t *gguf)
{
    ferrum_mapped_file_release_pages(&gguf->mapping);
}

uint64_t ferrum_gguf_bytes(const ferrum_gguf_t *gguf)
{
    return gguf->bytes;
}

uint32_t ferrum_gguf_alignment(const ferrum_gguf_t *gguf)
{
    return gguf->alignment;
}

uint32_t ferrum_gguf_key_count(const ferrum_gguf_t *gguf)
{
    return gguf->key_count;
}

const ferrum_gguf_key_t *ferrum_gguf_key_at(const ferrum_gguf_t *gguf, uint32_t i)
{
    return i < gguf->key_count ? &gguf->keys[i] : NULL;
}

const ferrum_gguf_key_t *ferrum_gguf_find_key(const ferrum_gguf_t *gguf, const char *name)
{
    return ferrum_gguf_key_at(gguf, ferrum_name_index_find(&gguf->key_index, ferrum_view(name)));
}

uint32_t ferrum_gguf_tensor_count(const ferrum_gguf_t *gguf)
{
    return gguf->tensor_count;
}

const ferrum_gguf_tensor_t *ferrum_gguf_tensor_at(const ferrum_gguf_t *gguf, uint32_t i)
{
    return i < gguf->tensor_count ? &gguf->tensors[i] : NULL;
}

const ferrum_gguf_tensor_t *ferrum_gguf_find_tensor(const ferrum_gguf_t *gguf, const char *name)
{
    return ferrum_gguf_tensor_at(gguf,
                                 ferrum_name_index_find(&gguf->tensor_index, ferrum_view(name)));
}

ferrum_status_t ferrum_gguf_require_tensor(const ferrum_gguf_t *gguf, const char *name,
                                           const ferrum_gguf_tensor_t **out_tensor,
                                           ferrum_error_t *err)
{
    const ferrum_gguf_tensor_t *tensor = ferrum_gguf_find_tensor(gguf, name);
    if (!tensor)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                           "%.100s: tensor %.100s is missing", gguf->path, name);
    if (!tensor->traits)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "%.80s: tensor %.80s has the unsupported GGUF type %" PRIu32
                           "; re-quantise the model",
                           gguf->path, name, tensor->format);
    *out_tensor = tensor;
    return FERRUM_OK;
}
