/* SPDX-License-Identifier: MIT */
/**
 * @file safetensors_writer.h
 * @brief Makes safetensors files for tests, tensors given as raw bytes.
 *
 * It writes what it is told; names must not need JSON escapes. Running out of memory or failing to
 * write ends the test. For shards make one writer each, and an index with
 * ferrum_safetensors_index_*.
 */
#ifndef FERRUM_TEST_SAFETENSORS_WRITER_H
#define FERRUM_TEST_SAFETENSORS_WRITER_H

#include <stddef.h>
#include <stdint.h>

typedef struct ferrum_safetensors_writer ferrum_safetensors_writer_t;

ferrum_safetensors_writer_t *ferrum_safetensors_writer_new(void);
void ferrum_safetensors_writer_free(ferrum_safetensors_writer_t *writer);

/** A tensor: @p dtype as the file spells it ("F16", "I32"), @p dims outermost first. Copied. */
void ferrum_safetensors_writer_add(ferrum_safetensors_writer_t *writer, const char *name,
                                   const char *dtype, uint32_t dims_count, const uint64_t *dims,
                                   const void *data, size_t bytes);

/** The file's bytes, header padded to 8; release with free(). */
void ferrum_safetensors_writer_bytes(const ferrum_safetensors_writer_t *writer, uint8_t **out_data,
                                     size_t *out_bytes);
/** Write the file. */
void ferrum_safetensors_writer_save(const ferrum_safetensors_writer_t *writer, const char *path);

/** A file from a header given as text, for malformed ones; release with free(). */
void ferrum_safetensors_assemble(const char *header_json, const void *data, size_t data_bytes,
                                 uint8_t **out_data, size_t *out_bytes);

/** `model.safetensors.index.json`: which file holds which tensor. */
typedef struct ferrum_safetensors_index ferrum_safetensors_index_t;
ferrum_safetensors_index_t *ferrum_safetensors_index_new(void);
void ferrum_safetensors_index_add(ferrum_safetensors_index_t *index, const char *tensor,
                                  const char *file);
void ferrum_safetensors_index_save(const ferrum_safetensors_index_t *index, const char *path);
void ferrum_safetensors_index_free(ferrum_safetensors_index_t *index);

#endif /* FERRUM_TEST_SAFETENSORS_WRITER_H */
