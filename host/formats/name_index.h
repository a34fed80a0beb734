/* SPDX-License-Identifier: MIT */
/**
 * @file name_index.h
 * @brief Hash from names to numbers 0…2^32-2. Names are borrowed, not copied.
 *
 * Open addressing with linear probing at a load of at most one half, over a 64-bit hash whose upper
 * half is kept in the slot, so that a miss rarely touches a name. Look-ups are constant time: a
 * GPTQ checkpoint of a large MoE model has about 74,000 tensors.
 */
#ifndef FERRUM_HOST_NAME_INDEX_H
#define FERRUM_HOST_NAME_INDEX_H

#include <ferrum/types.h>

#include "host/formats/string_view.h"

/** "No such name"; never a stored value. */
#define FERRUM_NAME_NONE UINT32_MAX

typedef struct ferrum_name_slot {
    const char *name; /**< NULL: free */
    uint32_t length;
    uint32_t value;
    uint32_t tag; /**< upper half of the hash */
} ferrum_name_slot_t;

/** A zeroed struct is an empty index. */
typedef struct ferrum_name_index {
    ferrum_name_slot_t *slots;
    size_t capacity; /**< power of two, or 0 */
    size_t count;
} ferrum_name_index_t;

/**
 * Make room for @p names entries in advance (optional: ferrum_name_index_add grows too). [init]
 * Errors: OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_name_index_reserve(ferrum_name_index_t *index, size_t names,
                                          ferrum_error_t *err);

/**
 * Add @p name → @p value. The bytes of the name must outlive the index. When the name is there
 * already nothing changes and *out_existing is its value; otherwise it is FERRUM_NAME_NONE. [init]
 * Errors: OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_name_index_add(ferrum_name_index_t *index, ferrum_string_view_t name,
                                      uint32_t value, uint32_t *out_existing, ferrum_error_t *err);

/** Value of @p name or FERRUM_NAME_NONE. [any-thread] once it is filled. */
uint32_t ferrum_name_index_find(const ferrum_name_index_t *index, ferrum_string_view_t name);

/** Release the slots; leaves an empty index. [init] */
void ferrum_name_index_clear(ferrum_name_index_t *index);

#endif /* FERRUM_HOST_NAME_INDEX_H */
