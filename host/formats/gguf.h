/* SPDX-License-Identifier: MIT */
/**
 * @file gguf.h
 * @brief Reader of GGUF model files, versions 2 and 3, little endian.
 *
 * The file is mapped, never read as a whole; names, strings, arrays and tensor data are pointers
 * into the mapping and live until ferrum_gguf_close. Opening checks everything once: every length,
 * count and offset against the file's end with overflow checks, names for duplicates, alignment,
 * and each tensor's bytes. So an opened file needs no further checks by its users.
 *
 * Counts in the header are never trusted: an entry is stored only after its bytes were seen.
 *
 * An opened file is immutable: all functions but open and close are [any-thread].
 * Every message names the file, the key or tensor, and the byte offset at fault.
 */
#ifndef FERRUM_HOST_GGUF_H
#define FERRUM_HOST_GGUF_H

#include <ferrum/types.h>
#include <ferrum/util.h>

#include "host/formats/string_view.h"

#define FERRUM_GGUF_MAX_DIMS 4
/** Limits beyond any real file; more is refused as corrupt. */
#define FERRUM_GGUF_MAX_KEYS (1u << 16)
#define FERRUM_GGUF_MAX_TENSORS (1u << 20)
#define FERRUM_GGUF_MAX_NAME_BYTES 65535u

/** Type of a metadata value, as in the file. */
typedef uint32_t ferrum_gguf_type_t;
enum {
    FERRUM_GGUF_U8 = 0,
    FERRUM_GGUF_I8 = 1,
    FERRUM_GGUF_U16 = 2,
    FERRUM_GGUF_I16 = 3,
    FERRUM_GGUF_U32 = 4,
    FERRUM_GGUF_I32 = 5,
    FERRUM_GGUF_F32 = 6,
    FERRUM_GGUF_BOOL = 7,
    FERRUM_GGUF_STRING = 8,
    FERRUM_GGUF_ARRAY = 9,
    FERRUM_GGUF_U64 = 10,
    FERRUM_GGUF_I64 = 11,
    FERRUM_GGUF_F64 = 12
};

typedef struct ferrum_gguf ferrum_gguf_t;

/** One metadata entry. */
typedef struct ferrum_gguf_key {
    ferrum_string_view_t name;
    ferrum_gguf_type_t type;
    ferrum_gguf_type_t item_type; /**< of an array's items; otherwise the same as `type` */
    uint64_t count;               /**< items of an array; otherwise 1 */
    uint64_t offset;              /**< of the first item, from the file's start */
    const uint8_t *items;         /**< unaligned, as in the file; strings carry their lengths */
} ferrum_gguf_key_t;

/** One tensor. */
typedef struct ferrum_gguf_tensor {
    ferrum_string_view_t name;
    uint32_t dims_count;                  /**< 1…4 */
    uint64_t dims[FERRUM_GGUF_MAX_DIMS];  /**< innermost first; unused ones are 1 */
    ferrum_weight_format_t format;        /**< the file's type id, also when unknown to us */
    const ferrum_format_traits_t *traits; /**< NULL: a type that Ferrum cannot read */
    uint64_t elements;                    /**< product of the dims */
    uint64_t offset;                      /**< of the data, from the file's start */
    uint64_t bytes;                       /**< 0 when `traits` is NULL */
    const void *data;                     /**< aligned to 8 at least; NULL when unsupported */
} ferrum_gguf_tensor_t;

/**
 * Map and check @p path. [init]
 * Errors: NOT_FOUND, IO, CORRUPT (not GGUF, truncated, contradicts itself), UNSUPPORTED (version,
 * big endian, nested arrays), OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_gguf_open(const char *path, ferrum_gguf_t **out_gguf, ferrum_error_t *err);

/**
 * The same over bytes in memory, which are borrowed and must outlive the object. @p data must be
 * aligned to 8 (INVALID_ARGUMENT otherwise). @p label stands for the path in messages. [init]
 */
ferrum_status_t ferrum_gguf_open_memory(const void *data, size_t bytes, const char *label,
                                        ferrum_gguf_t **out_gguf, ferrum_error_t *err);

/** Unmap and free; NULL is fine. Every pointer got from the object dies. [init] */
void ferrum_gguf_close(ferrum_gguf_t *gguf);

/** As ferrum_mapped_file_release_pages; nothing for a file in memory. */
void ferrum_gguf_release_pages(const ferrum_gguf_t *gguf);

/** The path (or label) that it was opened with. */
const char *ferrum_gguf_path(const ferrum_gguf_t *gguf);
/** 2 or 3. */
uint32_t ferrum_gguf_version(const ferrum_gguf_t *gguf);
/** Size of the whole file. */
uint64_t ferrum_gguf_bytes(const ferrum_gguf_t *gguf);
/** Alignment of tensor data: `general.alignment` or 32. */
uint32_t ferrum_gguf_alignment(const ferrum_gguf_t *gguf);

/** Number of metadata entries; entry @p i in file order, NULL beyond the end. */
uint32_t ferrum_gguf_key_count(const ferrum_gguf_t *gguf);
const ferrum_gguf_key_t *ferrum_gguf_key_at(const ferrum_gguf_t *gguf, uint32_t i);
/** Entry named @p name or NULL. */
const ferrum_gguf_key_t *ferrum_gguf_find_key(const ferrum_gguf_t *gguf, const char *name);

/** Number of tensors; tensor @p i in file order, NULL beyond the end. */
uint32_t ferrum_gguf_tensor_count(const ferrum_gguf_t *gguf);
const ferrum_gguf_tensor_t *ferrum_gguf_tensor_at(const ferrum_gguf_t *gguf, uint32_t i);
/** Tensor named @p name or NULL, also one of an unsupported type. */
const ferrum_gguf_tensor_t *ferrum_gguf_find_tensor(const ferrum_gguf_t *gguf, const char *name);
/**
 * Tensor that will be used: like find, but a missing one is NOT_FOUND and one whose type Ferrum
 * cannot read is UNSUPPORTED (reason FORMAT, with the type id), both naming it.
 */
ferrum_status_t ferrum_gguf_require_tensor(const ferrum_gguf_t *gguf, const char *name,
                                           const ferrum_gguf_tensor_t **out_tensor,
                                           ferrum_error_t *err);

/*
 * Typed getters. All of them: NOT_FOUND when the key is missing, CORRUPT with reason DTYPE when it
 * has another type (the message says which), CORRUPT with reason RANGE when the value does not fit.
 */

/** Any integer type whose value fits. */
ferrum_status_t ferrum_gguf_get_u32(const ferrum_gguf_t *gguf, const char *name,
                                    uint32_t *out_value, ferrum_error_t *err);
ferrum_status_t ferrum_gguf_get_u64(const ferrum_gguf_t *gguf, const char *name,
                                    uint64_t *out_value, ferrum_error_t *err);
/** F32, F64 or any integer type. */
ferrum_status_t ferrum_gguf_get_f64(const ferrum_gguf_t *gguf, const char *name, double *out_value,
                                    ferrum_error_t *err);
ferrum_status_t ferrum_gguf_get_bool(const ferrum_gguf_t *gguf, const char *name, bool *out_value,
                                     ferrum_error_t *err);
ferrum_status_t ferrum_gguf_get_string(const ferrum_gguf_t *gguf, const char *name,
                                       ferrum_string_view_t *out_value, ferrum_error_t *err);
/** An array whose items have type @p item_type; read it with the functions below. */
ferrum_status_t ferrum_gguf_get_array(const ferrum_gguf_t *gguf, const char *name,
                                      ferrum_gguf_type_t item_type,
                                      const ferrum_gguf_key_t **out_array, ferrum_error_t *err);

/** Fill @p out_views[0…count) with the items of a string array; the bytes stay in the mapping. */
void ferrum_gguf_array_strings(const ferrum_gguf_key_t *array, ferrum_string_view_t *out_views);
/** Item @p i < count of an array (or the scalar, i = 0) of integers or bools. U64 values above
 *  INT64_MAX read as INT64_MAX. 0 for other types. */
int64_t ferrum_gguf_item_i64(const ferrum_gguf_key_t *array, uint64_t i);
/** Item @p i < count of an array (or the scalar, i = 0) of numbers. 0 for other types. */
double ferrum_gguf_item_f64(const ferrum_gguf_key_t *array, uint64_t i);

/** Lower-case name of a value type; "?" for an unknown one. */
const char *ferrum_gguf_type_name(ferrum_gguf_type_t type);

#endif /* FERRUM_HOST_GGUF_H */
