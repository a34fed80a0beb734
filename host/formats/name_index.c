/* SPDX-License-Identifier: MIT */
#include "host/formats/name_index.h"

#include <stdlib.h>

#include <ferrum/util.h>

/* FNV-1a, then a finaliser: FNV alone leaves the low bits of similar names close together. */
static uint64_t hash_name(ferrum_string_view_t name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < name.length; i++)
        hash = (hash ^ (uint8_t)name.data[i]) * 0x100000001b3u;
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93u;
    return hash ^ (hash >> 32);
}

/* The slot that holds the name, or the free one where it belongs. */
static ferrum_name_slot_t *find_slot(const ferrum_name_index_t *index, ferrum_string_view_t name,
                                     uint64_t hash)
{
    size_t mask = index->capacity - 1;
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        ferrum_name_slot_t *slot = &index->slots[i];
        if (!slot->name)
            return slot;
        ferrum_string_view_t held = {slot->name, slot->length};
        if (slot->tag == tag && ferrum_view_equal(held, name))
            return slot;
    }
}

static ferrum_status_t resize(ferrum_name_index_t *index, size_t capacity, ferrum_error_t *err)
{
    ferrum_name_index_t grown = {calloc(capacity, sizeof *grown.slots), capacity, index->count};
    if (!grown.slots)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OTHER,
                           "no memory for an index of %zu names", capacity / 2);
    for (size_t i = 0; i < index->capacity; i++) {
        const ferrum_name_slot_t *slot = &index->slots[i];
        if (slot->name) {
            ferrum_string_view_t name = {slot->name, slot->length};
            *find_slot(&grown, name, hash_name(name)) = *slot;
        }
    }
    free(index->slots);
    *index = grown;
    return FERRUM_OK;
}

ferrum_status_t ferrum_name_index_reserve(ferrum_name_index_t *index, size_t names,
                                          ferrum_error_t *err)
{
    size_t capacity = 16;
    while (capacity / 2 < names) {
        if (capacity > SIZE_MAX / 2 / sizeof(ferrum_name_slot_t))
            return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_OVERFLOW,
                               "an index of %zu names is too large", names);
        capacity *= 2;
    }
    return capacity > index->capacity ? resize(index, capacity, err) : FERRUM_OK;
}

ferrum_status_t ferrum_name_index_add(ferrum_name_index_t *index, ferrum_string_view_t name,
                                      uint32_t value, uint32_t *out_existing, ferrum_error_t *err)
{
    if (name.length >= UINT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "a name of %zu bytes is too long", name.length);
    FERRUM_TRY(ferrum_name_index_reserve(index, index->count + 1, err));
    uint64_t hash = hash_name(name);
    ferrum_name_slot_t *slot = find_slot(index, name, hash);
    if (slot->name) {
        *out_existing = slot->value;
        return FERRUM_OK;
    }
    slot->name = name.data ? name.data : "";
    slot->length = (uint32_t)name.length;
    slot->value = value;
    slot->tag = (uint32_t)(hash >> 32);
    index->count++;
    *out_existing = FERRUM_NAME_NONE;
    return FERRUM_OK;
}

uint32_t ferrum_name_index_find(const ferrum_name_index_t *index, ferrum_string_view_t name)
{
    if (index->count == 0)
        return FERRUM_NAME_NONE;
    const ferrum_name_slot_t *slot = find_slot(index, name, hash_name(name));
    return slot->name ? slot->value : FERRUM_NAME_NONE;
}

void ferrum_name_index_clear(ferrum_name_index_t *index)
{
    free(index->slots);
    memset(index, 0, sizeof *index);
}
