/* SPDX-License-Identifier: MIT */
#include "tests/support/gguf_writer.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/byte_buffer.h"
#include "tests/support/files.h"

enum {
    TYPE_U32 = 4,
    TYPE_I32 = 5,
    TYPE_F32 = 6,
    TYPE_BOOL = 7,
    TYPE_STRING = 8,
    TYPE_ARRAY = 9
};
enum {
    TYPE_U64 = 10
};

struct ferrum_gguf_writer {
    uint32_t version;
    uint32_t alignment;
    uint64_t keys;
    uint64_t tensors;
    ferrum_byte_buffer_t metadata;
    ferrum_byte_buffer_t infos;
    ferrum_byte_buffer_t data;
};

ferrum_gguf_writer_t *ferrum_gguf_writer_new(void)
{
    ferrum_gguf_writer_t *writer = calloc(1, sizeof *writer);
    if (!writer)
        abort();
    writer->version = 3;
    writer->alignment = 32;
    return writer;
}

void ferrum_gguf_writer_free(ferrum_gguf_writer_t *writer)
{
    ferrum_byte_buffer_free(&writer->metadata);
    ferrum_byte_buffer_free(&writer->infos);
    ferrum_byte_buffer_free(&writer->data);
    free(writer);
}

void ferrum_gguf_writer_set_version(ferrum_gguf_writer_t *writer, uint32_t version)
{
    writer->version = version;
}

void ferrum_gguf_writer_set_alignment(ferrum_gguf_writer_t *writer, uint32_t alignment)
{
    writer->alignment = alignment;
    ferrum_gguf_writer_u32(writer, "general.alignment", alignment);
}

static void append_string(ferrum_byte_buffer_t *buffer, const char *text)
{
    ferrum_byte_buffer_u64(buffer, strlen(text));
    ferrum_byte_buffer_append(buffer, text, strlen(text));
}

void ferrum_gguf_writer_raw(ferrum_gguf_writer_t *writer, const char *key, uint32_t type,
                            const void *bytes, size_t size)
{
    append_string(&writer->metadata, key);
    ferrum_byte_buffer_u32(&writer->metadata, type);
    ferrum_byte_buffer_append(&writer->metadata, bytes, size);
    writer->keys++;
}

void ferrum_gguf_writer_u32(ferrum_gguf_writer_t *writer, const char *key, uint32_t value)
{
    ferrum_gguf_writer_raw(writer, key, TYPE_U32, &value, sizeof value);
}

void ferrum_gguf_writer_u64(ferrum_gguf_writer_t *writer, const char *key, uint64_t value)
{
    ferrum_gguf_writer_raw(writer, key, TYPE_U64, &value, sizeof value);
}

void ferrum_gguf_writer_i32(ferrum_gguf_writer_t *writer, const char *key, int32_t value)
{
    ferrum_gguf_writer_raw(writer, key, TYPE_I32, &value, sizeof value);
}

void ferrum_gguf_writer_f32(ferrum_gguf_writer_t *writer, const char *key, float value)
{
    ferrum_gguf_writer_raw(writer, key, TYPE_F32, &value, sizeof value);
}

void ferrum_gguf_writer_bool(ferrum_gguf_writer_t *writer, const char *key, bool value)
{
    uint8_t byte = value;
    ferrum_gguf_writer_raw(writer, key, TYPE_BOOL, &byte, 1);
}

void ferrum_gguf_writer_string(ferrum_gguf_writer_t *writer, const char *key, const char *value)
{
    ferrum_gguf_writer_raw(writer, key, TYPE_STRING, NULL, 0);
    append_string(&writer->metadata, value);
}

static void begin_array(ferrum_gguf_writer_t *writer, const char *key, uint32_t type,
                        uint64_t count)
{
    ferrum_gguf_writer_raw(writer, key, TYPE_ARRAY, &type, sizeof type);
    ferrum_byte_buffer_u64(&writer->metadata, count);
}

void ferrum_gguf_writer_strings(ferrum_gguf_writer_t *writer, const char *key,
                                const char *const *values, uint64_t count)
{
    begin_array(writer, key, TYPE_STRING, count);
    for (uint64_t i = 0; i < count; i++)
        append_string(&writer->metadata, values[i]);
}

void ferrum_gguf_writer_i32s(ferrum_gguf_writer_t *writer, const char *key, const int32_t *values,
                             uint64_t count)
{
    begin_array(writer, key, TYPE_I32, count);
    ferrum_byte_buffer_append(&writer->metadata, values, (size_t)count * sizeof *values);
}

void ferrum_gguf_writer_tensor(ferrum_gguf_writer_t *writer, const char *name, uint32_t type,
                               uint32_t dims_count, const uint64_t *dims, const void *data,
                               size_t bytes)
{
    append_string(&writer->infos, name);
    ferrum_byte_buffer_u32(&writer->infos, dims_count);
    for (uint32_t i = 0; i < dims_count; i++)
        ferrum_byte_buffer_u64(&writer->infos, dims[i]);
    ferrum_byte_buffer_u32(&writer->infos, type);
    ferrum_byte_buffer_pad(&writer->data, writer->alignment);
    ferrum_byte_buffer_u64(&writer->infos, writer->data.bytes);
    ferrum_byte_buffer_append(&writer->data, data, bytes);
    writer->tensors++;
}

static void build(const ferrum_gguf_writer_t *writer, ferrum_byte_buffer_t *file)
{
    ferrum_byte_buffer_append(file, "GGUF", 4);
    ferrum_byte_buffer_u32(file, writer->version);
    ferrum_byte_buffer_u64(file, writer->tensors);
    ferrum_byte_buffer_u64(file, writer->keys);
    ferrum_byte_buffer_append(file, writer->metadata.data, writer->metadata.bytes);
    ferrum_byte_buffer_append(file, writer->infos.data, writer->infos.bytes);
    ferrum_byte_buffer_pad(file, writer->alignment ? writer->alignment : 1);
    ferrum_byte_buffer_append(file, writer->data.data, writer->data.bytes);
}

size_t ferrum_gguf_writer_header_bytes(const ferrum_gguf_writer_t *writer)
{
    return 4 + 4 + 8 + 8 + writer->metadata.bytes + writer->infos.bytes;
}

void ferrum_gguf_writer_bytes(const ferrum_gguf_writer_t *writer, uint8_t **out_data,
                              size_t *out_bytes)
{
    ferrum_byte_buffer_t file = {0};
    build(writer, &file);
    *out_data = file.data;
    *out_bytes = file.bytes;
}

void ferrum_gguf_writer_save(const ferrum_gguf_writer_t *writer, const char *path)
{
    ferrum_byte_buffer_t file = {0};
    build(writer, &file);
    ferrum_test_write_file(path, file.data, file.bytes);
    ferrum_byte_buffer_free(&file);
}
