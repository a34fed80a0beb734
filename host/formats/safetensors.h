/* SPDX-License-Identifier: MIT */
/**
 * @file safetensors.h
 * @brief Reader of safetensors checkpoints: one file, or shards with an index.
 *
 * A file is a little-endian u64 header length, a JSON header, then the data. All shards are mapped;
 * tensor data are pointers into the mappings and live until ferrum_safetensors_close. Opening
 * checks every tensor once: known dtype, shape x dtype = bytes, range inside its file, no two
 * tensors of a file overlapping, no name twice. Bytes that no tensor claims are accepted.
 *
 * An opened checkpoint is immutable: all functions but open and close are [any-thread].
 */
#ifndef FERRUM_HOST_SAFETENSORS_H
#define FERRUM_HOST_SAFETENSORS_H

#include <ferrum/types.h>

#include "host/formats/string_view.h"

#define FERRUM_SAFETENSORS_MAX_DIMS 8
/** Longest header (the format's own limit), most shards and most tensors that are accepted. */
#define FERRUM_SAFETENSORS_MAX_HEADER_BYTES 100000000u
#define FERRUM_SAFETENSORS_MAX_SHARDS 4096u
#define FERRUM_SAFETENSORS_MAX_TENSORS (1u << 24)

/** Element type; values are ours, the file spells them as text. */
typedef enum ferrum_safetensors_dtype {
    FERRUM_SAFETENSORS_F64,
    FERRUM_SAFETENSORS_F32,
    FERRUM_SAFETENSORS_F16,
    FERRUM_SAFETENSORS_BF16,
    FERRUM_SAFETENSORS_F8_E4M3,
    FERRUM_SAFETENSORS_F8_E5M2,
    FERRUM_SAFETENSORS_I64,
    FERRUM_SAFETENSORS_I32,
    FERRUM_SAFETENSORS_I16,
    FERRUM_SAFETENSORS_I8,
    FERRUM_SAFETENSORS_U64,
    FERRUM_SAFETENSORS_U32,
    FERRUM_SAFETENSORS_U16,
    FERRUM_SAFETENSORS_U8,
    FERRUM_SAFETENSORS_BOOL,
    FERRUM_SAFETENSORS_DTYPES /**< how many there are */
} ferrum_safetensors_dtype_t;

typedef struct ferrum_safetensors ferrum_safetensors_t;

/** One tensor. */
typedef struct ferrum_safetensors_tensor {
    ferrum_string_view_t name; /**< here also NUL-terminated */
    ferrum_safetensors_dtype_t dtype;
    uint32_t dims_count;                        /**< 0 for a scalar */
    uint64_t dims[FERRUM_SAFETENSORS_MAX_DIMS]; /**< outermost first; unused ones are 1 */
    uint64_t elements;
    uint64_t bytes;
    uint32_t shard;   /**< index for ferrum_safetensors_shard_path */
    uint64_t offset;  /**< from the shard's start */
    const void *data; /**< the format does not promise alignment: check before casting */
} ferrum_safetensors_tensor_t;

/**
 * Open @p path, which is one of: a directory (its `model.safetensors`, else its
 * `model.safetensors.index.json`), an index (`*.json`), or a safetensors file. An index may name
 * only plain files of its own directory. [init]
 *
 * Errors: NOT_FOUND (file, shard, or an indexed tensor that its shard lacks), IO, PERMISSION (the
 * index names a path outside its directory), CORRUPT, UNSUPPORTED (unknown dtype, too many dims),
 * OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_safetensors_open(const char *path, ferrum_safetensors_t **out_checkpoint,
                                        ferrum_error_t *err);

/** One file over bytes in memory, borrowed; for tests and fuzzing. [init] */
ferrum_status_t ferrum_safetensors_open_memory(const void *data, size_t bytes, const char *label,
                                               ferrum_safetensors_t **out_checkpoint,
                                               ferrum_error_t *err);

/** Unmap and free; NULL is fine. [init] */
void ferrum_safetensors_close(ferrum_safetensors_t *checkpoint);

/** Number of tensors; tensor @p i (order unspecified but fixed), NULL beyond the end. */
uint32_t ferrum_safetensors_tensor_count(const ferrum_safetensors_t *checkpoint);
const ferrum_safetensors_tensor_t *
ferrum_safetensors_tensor_at(const ferrum_safetensors_t *checkpoint, uint32_t i);
/** Tensor named @p name or NULL. */
const ferrum_safetensors_tensor_t *ferrum_safetensors_find(const ferrum_safetensors_t *checkpoint,
                                                           const char *name);
/** Tensor named @p name; NOT_FOUND naming it and the checkpoint otherwise. */
ferrum_status_t ferrum_safetensors_require(const ferrum_safetensors_t *checkpoint, const char *name,
                                           const ferrum_safetensors_tensor_t **out_tensor,
                                           ferrum_error_t *err);

/** The path that it was opened with. */
const char *ferrum_safetensors_path(const ferrum_safetensors_t *checkpoint);
/** Number of files, and the path of one; NULL beyond the end. */
uint32_t ferrum_safetensors_shard_count(const ferrum_safetensors_t *checkpoint);
const char *ferrum_safetensors_shard_path(const ferrum_safetensors_t *checkpoint, uint32_t shard);
/** As ferrum_mapped_file_release_pages, for all shards. */
void ferrum_safetensors_release_pages(const ferrum_safetensors_t *checkpoint);
/** Bytes of all files together. */
uint64_t ferrum_safetensors_bytes(const ferrum_safetensors_t *checkpoint);

/** Bytes per element. */
uint32_t ferrum_safetensors_dtype_bytes(ferrum_safetensors_dtype_t dtype);
/** As the file spells it ("BF16"); "?" for an unknown one. */
const char *ferrum_safetensors_dtype_name(ferrum_safetensors_dtype_t dtype);
/** The ABI's element type, true when there is one (F32, F16, BF16, I32, U32, I8, U8). */
bool ferrum_safetensors_dtype_to_abi(ferrum_safetensors_dtype_t dtype, ferrum_dtype_t *out_dtype);

#endif /* FERRUM_HOST_SAFETENSORS_H */
