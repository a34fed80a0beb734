/* SPDX-License-Identifier: MIT */
/**
 * @file gguf_writer.h
 * @brief Makes GGUF files for tests: metadata and tensors of any type, given as raw bytes.
 *
 * It writes what it is told, nonsense included; only the layout is its own. Running out of memory
 * or failing to write ends the test.
 *
 *     ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
 *     ferrum_gguf_writer_string(w, "general.architecture", "qwen3moe");
 *     ferrum_gguf_writer_u32(w, "qwen3moe.block_count", 2);
 *     ferrum_gguf_writer_tensor(w, "token_embd.weight", FERRUM_FORMAT_F32, 2,
 *                               (uint64_t[]){8, 16}, values, 8 * 16 * 4);
 *     ferrum_gguf_writer_save(w, path);
 *     ferrum_gguf_writer_free(w);
 */
#ifndef FERRUM_TEST_GGUF_WRITER_H
#define FERRUM_TEST_GGUF_WRITER_H

#include <ferrum/types.h>
#include <stdbool.h>

typedef struct ferrum_gguf_writer ferrum_gguf_writer_t;

/** Version 3, alignment 32. */
ferrum_gguf_writer_t *ferrum_gguf_writer_new(void);
void ferrum_gguf_writer_free(ferrum_gguf_writer_t *writer);
/** Version field of the header. */
void ferrum_gguf_writer_set_version(ferrum_gguf_writer_t *writer, uint32_t version);
/** Alignment of the data; adds the key `general.alignment`. */
void ferrum_gguf_writer_set_alignment(ferrum_gguf_writer_t *writer, uint32_t alignment);

/** One metadata entry each. */
void ferrum_gguf_writer_u32(ferrum_gguf_writer_t *writer, const char *key, uint32_t value);
void ferrum_gguf_writer_u64(ferrum_gguf_writer_t *writer, const char *key, uint64_t value);
void ferrum_gguf_writer_i32(ferrum_gguf_writer_t *writer, const char *key, int32_t value);
void ferrum_gguf_writer_f32(ferrum_gguf_writer_t *writer, const char *key, float value);
void ferrum_gguf_writer_bool(ferrum_gguf_writer_t *writer, const char *key, bool value);
void ferrum_gguf_writer_string(ferrum_gguf_writer_t *writer, const char *key, const char *value);
void ferrum_gguf_writer_strings(ferrum_gguf_writer_t *writer, const char *key,
                                const char *const *values, uint64_t count);
void ferrum_gguf_writer_i32s(ferrum_gguf_writer_t *writer, const char *key, const int32_t *values,
                             uint64_t count);
/** A value of type id @p type given as the bytes that follow the type in the file. */
void ferrum_gguf_writer_raw(ferrum_gguf_writer_t *writer, const char *key, uint32_t type,
                            const void *bytes, size_t size);

/** A tensor; @p dims innermost first (so a matrix W[N,K] has dims {K, N}). Data are copied. */
void ferrum_gguf_writer_tensor(ferrum_gguf_writer_t *writer, const char *name, uint32_t type,
                               uint32_t dims_count, const uint64_t *dims, const void *data,
                               size_t bytes);

/** The file's bytes; release with free(). May be called more than once. */
void ferrum_gguf_writer_bytes(const ferrum_gguf_writer_t *writer, uint8_t **out_data,
                              size_t *out_bytes);
/** Where the header ends, unpadded: the end of the tensor list. */
size_t ferrum_gguf_writer_header_bytes(const ferrum_gguf_writer_t *writer);
/** Write the file. */
void ferrum_gguf_writer_save(const ferrum_gguf_writer_t *writer, const char *path);

#endif /* FERRUM_TEST_GGUF_WRITER_H */
