/* SPDX-License-Identifier: MIT */
#include "tests/support/safetensors_writer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/byte_buffer.h"
#include "tests/support/files.h"

struct ferrum_safetensors_writer {
    ferrum_byte_buffer_t json; /* the tensors' entries, comma separated */
    ferrum_byte_buffer_t data;
};

struct ferrum_safetensors_index {
    ferrum_byte_buffer_t json;
};

__attribute__((format(printf, 2, 3))) static void append_text(ferrum_byte_buffer_t *buffer,
                                                              const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof text)
        abort();
    ferrum_byte_buffer_append(buffer, text, (size_t)length);
}

static void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory)
        abort();
    return memory;
}

ferrum_safetensors_writer_t *ferrum_safetensors_writer_new(void)
{
    return allocate(sizeof(ferrum_safetensors_writer_t));
}

void ferrum_safetensors_writer_free(ferrum_safetensors_writer_t *writer)
{
    ferrum_byte_buffer_free(&writer->json);
    ferrum_byte_buffer_free(&writer->data);
    free(writer);
}

void ferrum_safetensors_writer_add(ferrum_safetensors_writer_t *writer, const char *name,
                                   const char *dtype, uint32_t dims_count, const uint64_t *dims,
                                   const void *data, size_t bytes)
{
    ferrum_byte_buffer_pad(&writer->data, 8);
    append_text(&writer->json, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                writer->json.bytes ? "," : "", name, dtype);
    for (uint32_t i = 0; i < dims_count; i++)
        append_text(&writer->json, "%s%" PRIu64, i ? "," : "", dims[i]);
    append_text(&writer->json, "],\"data_offsets\":[%zu,%zu]}", writer->data.bytes,
                writer->data.bytes + bytes);
    ferrum_byte_buffer_append(&writer->data, data, bytes);
}

static void build(const ferrum_byte_buffer_t *entries, const void *data, size_t data_bytes,
                  ferrum_byte_buffer_t *file)
{
    size_t header_bytes = entries->bytes + 2;
    size_t padded = (header_bytes + 7) / 8 * 8;
    ferrum_byte_buffer_u64(file, padded);
    ferrum_byte_buffer_append(file, "{", 1);
    ferrum_byte_buffer_append(file, entries->data, entries->bytes);
    ferrum_byte_buffer_append(file, "}", 1);
    for (size_t i = header_bytes; i < padded; i++)
        ferrum_byte_buffer_append(file, " ", 1);
    ferrum_byte_buffer_append(file, data, data_bytes);
}

void ferrum_safetensors_writer_bytes(const ferrum_safetensors_writer_t *writer, uint8_t **out_data,
                                     size_t *out_bytes)
{
    ferrum_byte_buffer_t file = {0};
    build(&writer->json, writer->data.data, writer->data.bytes, &file);
    *out_data = file.data;
    *out_bytes = file.bytes;
}

void ferrum_safetensors_writer_save(const ferrum_safetensors_writer_t *writer, const char *path)
{
    ferrum_byte_buffer_t file = {0};
    build(&writer->json, writer->data.data, writer->data.bytes, &file);
    ferrum_test_write_file(path, file.data, file.bytes);
    ferrum_byte_buffer_free(&file);
}

void ferrum_safetensors_assemble(const char *header_json, const void *data, size_t data_bytes,
                                 uint8_t **out_data, size_t *out_bytes)
{
    ferrum_byte_buffer_t file = {0};
    ferrum_byte_buffer_u64(&file, strlen(header_json));
    ferrum_byte_buffer_append(&file, header_json, strlen(header_json));
    ferrum_byte_buffer_append(&file, data, data_bytes);
    *out_data = file.data;
    *out_bytes = file.bytes;
}

ferrum_safetensors_index_t *ferrum_safetensors_index_new(void)
{
    return allocate(sizeof(ferrum_safetensors_index_t));
}

void ferrum_safetensors_index_add(ferrum_safetensors_index_t *index, const char *tensor,
                                  const char *file)
{
    append_text(&index->json, "%s\"%s\":\"%s\"", index->json.bytes ? "," : "", tensor, file);
}

void ferrum_safetensors_index_save(const ferrum_safetensors_index_t *index, const char *path)
{
    ferrum_byte_buffer_t file = {0};
    append_text(&file, "{\"metadata\":{},\"weight_map\":{");
    ferrum_byte_buffer_append(&file, index->json.data, index->json.bytes);
    append_text(&file, "}}");
    ferrum_test_write_file(path, file.data, file.bytes);
    ferrum_byte_buffer_free(&file);
}

void ferrum_safetensors_index_free(ferrum_safetensors_index_t *index)
{
    ferrum_byte_buffer_free(&index->json);
    free(index);
}
