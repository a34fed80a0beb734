/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <string.h>

#include "host/formats/gguf_internal.h"

/* Everything that depends on a value's type. */
static const struct {
    const char *name;
    uint32_t bytes; /* 0: not a scalar */
    bool integer;
} types[] = {
    [FERRUM_GGUF_U8] = {"u8", 1, true},          [FERRUM_GGUF_I8] = {"i8", 1, true},
    [FERRUM_GGUF_U16] = {"u16", 2, true},        [FERRUM_GGUF_I16] = {"i16", 2, true},
    [FERRUM_GGUF_U32] = {"u32", 4, true},        [FERRUM_GGUF_I32] = {"i32", 4, true},
    [FERRUM_GGUF_F32] = {"f32", 4, false},       [FERRUM_GGUF_BOOL] = {"bool", 1, false},
    [FERRUM_GGUF_STRING] = {"string", 0, false}, [FERRUM_GGUF_ARRAY] = {"array", 0, false},
    [FERRUM_GGUF_U64] = {"u64", 8, true},        [FERRUM_GGUF_I64] = {"i64", 8, true},
    [FERRUM_GGUF_F64] = {"f64", 8, false},
};

static bool known(ferrum_gguf_type_t type)
{
    return type < sizeof types / sizeof types[0];
}

const char *ferrum_gguf_type_name(ferrum_gguf_type_t type)
{
    return known(type) ? types[type].name : "?";
}

uint32_t ferrum_gguf_scalar_bytes(ferrum_gguf_type_t type)
{
    return known(type) ? types[type].bytes : 0;
}

/* A value's bits, sign-extended for signed types. */
static uint64_t load_bits(const uint8_t *at, ferrum_gguf_type_t type)
{
    uint64_t bits = 0;
    uint32_t bytes = ferrum_gguf_scalar_bytes(type);
    for (uint32_t i = 0; i < bytes; i++)
        bits |= (uint64_t)at[i] << (8 * i);
    switch (type) {
    case FERRUM_GGUF_I8:
        return (uint64_t)(int64_t)(int8_t)bits;
    case FERRUM_GGUF_I16:
        return (uint64_t)(int64_t)(int16_t)bits;
    case FERRUM_GGUF_I32:
        return (uint64_t)(int64_t)(int32_t)bits;
    default:
        return bits;
    }
}

static const uint8_t *item_at(const ferrum_gguf_key_t *array, uint64_t i)
{
    return array->items + i * ferrum_gguf_scalar_bytes(array->item_type);
}

int64_t ferrum_gguf_item_i64(const ferrum_gguf_key_t *array, uint64_t i)
{
    ferrum_gguf_type_t type = array->item_type;
    if (!known(type) || !(types[type].integer || type == FERRUM_GGUF_BOOL))
        return 0;
    uint64_t bits = load_bits(item_at(array, i), type);
    if (type == FERRUM_GGUF_U64 && bits > INT64_MAX)
        return INT64_MAX;
    return (int64_t)bits;
}

double ferrum_gguf_item_f64(const ferrum_gguf_key_t *array, uint64_t i)
{
    float f32;
    double f64;
    switch (array->item_type) {
    case FERRUM_GGUF_F32:
        memcpy(&f32, item_at(array, i), sizeof f32);
        return (double)f32;
    case FERRUM_GGUF_F64:
        memcpy(&f64, item_at(array, i), sizeof f64);
        return f64;
    case FERRUM_GGUF_U64:
        return (double)load_bits(item_at(array, i), FERRUM_GGUF_U64);
    default:
        return (double)ferrum_gguf_item_i64(array, i);
    }
}

static ferrum_status_t require_key(const ferrum_gguf_t *gguf, const char *name,
                                   const ferrum_gguf_key_t **out_key, ferrum_error_t *err)
{
    *out_key = ferrum_gguf_find_key(gguf, name);
    if (!*out_key)
        return ferrum_fail(err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                           "%.100s: metadata key %.100s is missing", gguf->path, name);
    return FERRUM_OK;
}

static ferrum_status_t fail_type(const ferrum_gguf_t *gguf, const ferrum_gguf_key_t *key,
                                 const char *wanted, ferrum_error_t *err)
{
    bool array = key->type == FERRUM_GGUF_ARRAY;
    return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_DTYPE,
                       "%.80s: metadata key %.*s at offset %" PRIu64 " is %s%s, not %s", gguf->path,
                       FERRUM_VIEW_ARGS(key->name), key->offset, array ? "an array of " : "",
                       ferrum_gguf_type_name(key->item_type), wanted);
}

ferrum_status_t ferrum_gguf_get_u64(const ferrum_gguf_t *gguf, const char *name,
                                    uint64_t *out_value, ferrum_error_t *err)
{
    const ferrum_gguf_key_t *key;
    FERRUM_TRY(require_key(gguf, name, &key, err));
    if (!known(key->type) || !types[key->type].integer)
        return fail_type(gguf, key, "an integer", err);
    uint64_t bits = load_bits(key->items, key->type);
    if (key->type != FERRUM_GGUF_U64 && (int64_t)bits < 0)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.100s: metadata key %.80s is negative (%" PRId64 ")", gguf->path, name,
                           (int64_t)bits);
    *out_value = bits;
    return FERRUM_OK;
}

ferrum_status_t ferrum_gguf_get_u32(const ferrum_gguf_t *gguf, const char *name,
                                    uint32_t *out_value, ferrum_error_t *err)
{
    uint64_t value;
    FERRUM_TRY(ferrum_gguf_get_u64(gguf, name, &value, err));
    if (value > UINT32_MAX)
        return ferrum_fail(err, FERRUM_CORRUPT, FERRUM_REASON_RANGE,
                           "%.100s: metadata key %.80s is too large (%" PRIu64 ")", gguf->path,
                           name, value);
    *out_value = (uint32_t)value;
    return FERRUM_OK;
}

ferrum_status_t ferrum_gguf_get_f64(const ferrum_gguf_t *gguf, const char *name, double *out_value,
                                    ferrum_error_t *err)
{
    const ferrum_gguf_key_t *key;
    FERRUM_TRY(require_key(gguf, name, &key, err));
    if (!ferrum_gguf_scalar_bytes(key->type) || key->type == FERRUM_GGUF_BOOL)
        return fail_type(gguf, key, "a number", err);
    *out_value = ferrum_gguf_item_f64(key, 0);
    return FERRUM_OK;
}

ferrum_status_t ferrum_gguf_get_bool(const ferrum_gguf_t *gguf, const char *name, bool *out_value,
                                     ferrum_error_t *err)
{
    const ferrum_gguf_key_t *key;
    FERRUM_TRY(require_key(gguf, name, &key, err));
    if (key->type != FERRUM_GGUF_BOOL)
        return fail_type(gguf, key, "a bool", err);
    *out_value = ferrum_gguf_item_i64(key, 0) != 0;
    return FERRUM_OK;
}

ferrum_status_t ferrum_gguf_get_string(const ferrum_gguf_t *gguf, const char *name,
                                       ferrum_string_view_t *out_value, ferrum_error_t *err)
{
    const ferrum_gguf_key_t *key;
    FERRUM_TRY(require_key(gguf, name, &key, err));
    if (key->type != FERRUM_GGUF_STRING)
        return fail_type(gguf, key, "a string", err);
    ferrum_gguf_array_strings(key, out_value);
    return FERRUM_OK;
}

ferrum_status_t ferrum_gguf_get_array(const ferrum_gguf_t *gguf, const char *name,
                                      ferrum_gguf_type_t item_type,
                                      const ferrum_gguf_key_t **out_array, ferrum_error_t *err)
{
    const ferrum_gguf_key_t *key;
    FERRUM_TRY(require_key(gguf, name, &key, err));
    if (key->type != FERRUM_GGUF_ARRAY || key->item_type != item_type) {
        char wanted[32];
        (void)snprintf(wanted, sizeof wanted, "an array of %s", ferrum_gguf_type_name(item_type));
        return fail_type(gguf, key, wanted, err);
    }
    *out_array = key;
    return FERRUM_OK;
}

void ferrum_gguf_array_strings(const ferrum_gguf_key_t *array, ferrum_string_view_t *out_views)
{
    if (array->item_type != FERRUM_GGUF_STRING)
        return;
    const uint8_t *at = array->items;
    for (uint64_t i = 0; i < array->count; i++) {
        uint64_t length = load_bits(at, FERRUM_GGUF_U64);
        out_views[i].data = (const char *)at + 8;
        out_views[i].length = (size_t)length;
        at += 8 + length;
    }
}
