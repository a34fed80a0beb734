/* SPDX-License-Identifier: MIT */
#include "host/formats/gptq_checkpoint.h"

#include <inttypes.h>

#include <ferrum/util.h>

#define WORD_BITS 32u

/* What every step below needs. */
typedef struct loader {
    const ferrum_safetensors_t *checkpoint;
    const ferrum_gptq_config_t *config;
    const char *prefix;
    ferrum_gptq_tensors_t *out;
    ferrum_error_t *err;
} loader_t;

typedef char part_name_t[256];

static bool name_part(const char *prefix, const char *part, part_name_t out_name)
{
    int length = snprintf(out_name, sizeof(part_name_t), "%s.%s", prefix, part);
    return length > 0 && (size_t)length < sizeof(part_name_t);
}

bool ferrum_gptq_checkpoint_has(const ferrum_safetensors_t *checkpoint, const char *prefix)
{
    part_name_t name;
    return name_part(prefix, "qweight", name) && ferrum_safetensors_find(checkpoint, name);
}

/* NULL when there is no such tensor. */
static const ferrum_safetensors_tensor_t *find_part(const loader_t *l, const char *part)
{
    part_name_t name;
    return name_part(l->prefix, part, name) ? ferrum_safetensors_find(l->checkpoint, name) : NULL;
}

static ferrum_status_t require_part(const loader_t *l, const char *part,
                                    const ferrum_safetensors_tensor_t **out_tensor)
{
    *out_tensor = find_part(l, part);
    if (!*out_tensor)
        return ferrum_fail(l->err, FERRUM_NOT_FOUND, FERRUM_REASON_OTHER,
                           "%.80s: tensor %.110s.%s is missing",
                           ferrum_safetensors_path(l->checkpoint), l->prefix, part);
    return FERRUM_OK;
}

static ferrum_status_t fail_part(const loader_t *l, const ferrum_safetensors_tensor_t *tensor,
                                 ferrum_reason_t reason, const char *wanted)
{
    return ferrum_fail(l->err, FERRUM_CORRUPT, reason,
                       "tensor %.100s has dtype %s and shape [%" PRIu64 ", %" PRIu64 "] (%" PRIu32
                       " dims), not %s",
                       tensor->name.data, ferrum_safetensors_dtype_name(tensor->dtype),
                       tensor->dims[0], tensor->dims[1], tensor->dims_count, wanted);
}

static ferrum_status_t check_aligned(const loader_t *l, const ferrum_safetensors_tensor_t *tensor)
{
    uint32_t bytes = ferrum_safetensors_dtype_bytes(tensor->dtype);
    if ((uintptr_t)tensor->data % bytes)
        return ferrum_fail(l->err, FERRUM_UNSUPPORTED, FERRUM_REASON_ALIGNMENT,
                           "tensor %.100s at offset %" PRIu64 " is not aligned to %" PRIu32
                           " bytes; save the file again with the safetensors package",
                           tensor->name.data, tensor->offset, bytes);
    return FERRUM_OK;
}

/* A tensor of i32 with exactly this shape; `cols` 0 means one dimension. */
static ferrum_status_t check_i32(const loader_t *l, const ferrum_safetensors_tensor_t *tensor,
                                 uint64_t rows, uint64_t cols, const int32_t **out_data)
{
    uint32_t dims = cols ? 2 : 1;
    if (tensor->dtype != FERRUM_SAFETENSORS_I32 || tensor->dims_count != dims ||
        tensor->dims[0] != rows || (cols && tensor->dims[1] != cols)) {
        char wanted[80];
        (void)snprintf(wanted, sizeof wanted, "I32 with shape [%" PRIu64 "%s%.0" PRIu64 "]", rows,
                       cols ? ", " : "", cols);
        return fail_part(l, tensor, FERRUM_REASON_LENGTH, wanted);
    }
    FERRUM_TRY(check_aligned(l, tensor));
    *out_data = tensor->data;
    return FERRUM_OK;
}

static ferrum_status_t fail_features(const loader_t *l, ferrum_reason_t reason, const char *what,
                                     uint64_t found, uint32_t wanted)
{
    return ferrum_fail(l->err, FERRUM_INVALID_INPUT, reason,
                       "%.120s: %s is %" PRIu64 ", the model needs %" PRIu32, l->prefix, what,
                       found, wanted);
}

static ferrum_status_t load_qweight(const loader_t *l, uint32_t want_k, uint32_t want_n)
{
    const ferrum_safetensors_tensor_t *tensor;
    ferrum_gptq_tensors_t *out = l->out;
    uint64_t per_word = WORD_BITS / out->bits;
    FERRUM_TRY(require_part(l, "qweight", &tensor));
    if (tensor->dtype != FERRUM_SAFETENSORS_I32 || tensor->dims_count != 2 || tensor->elements == 0)
        return fail_part(l, tensor, FERRUM_REASON_DTYPE, "I32 with two dimensions");
    if (tensor->dims[0] > UINT32_MAX / per_word || tensor->dims[1] > UINT32_MAX)
        return fail_part(l, tensor, FERRUM_REASON_OVERFLOW, "below 2^32 in each dimension");
    out->k = (uint32_t)(tensor->dims[0] * per_word);
    out->n = (uint32_t)tensor->dims[1];
    if (out->n % per_word)
        return fail_part(l, tensor, FERRUM_REASON_N, "of a width that fills whole zero words");
    if (want_k && out->k != want_k)
        return fail_features(l, FERRUM_REASON_K, "K (input features)", out->k, want_k);
    if (want_n && out->n != want_n)
        return fail_features(l, FERRUM_REASON_N, "N (output features)", out->n, want_n);
    return check_i32(l, tensor, tensor->dims[0], tensor->dims[1], &out->qweight);
}

static ferrum_status_t choose_groups(const loader_t *l)
{
    ferrum_gptq_tensors_t *out = l->out;
    out->group_size = l->config->group_size ? l->config->group_size : out->k;
    if (out->k % out->group_size)
        return ferrum_fail(l->err, FERRUM_INVALID_INPUT, FERRUM_REASON_GROUP_SIZE,
                           "%.120s: group size %" PRIu32 " does not divide K = %" PRIu32, l->prefix,
                           out->group_size, out->k);
    out->groups = out->k / out->group_size;
    return FERRUM_OK;
}

static bool is_float(ferrum_dtype_t dtype)
{
    return dtype == FERRUM_DTYPE_F32 || dtype == FERRUM_DTYPE_F16 || dtype == FERRUM_DTYPE_BF16;
}

static ferrum_status_t load_scales(const loader_t *l)
{
    const ferrum_safetensors_tensor_t *tensor;
    ferrum_gptq_tensors_t *out = l->out;
    FERRUM_TRY(require_part(l, "scales", &tensor));
    bool known = ferrum_safetensors_dtype_to_abi(tensor->dtype, &out->scales_dtype);
    if (!known || !is_float(out->scales_dtype) || tensor->dims_count != 2 ||
        tensor->dims[0] != out->groups || tensor->dims[1] != out->n) {
        char wanted[80];
        (void)snprintf(wanted, sizeof wanted,
                       "F16, BF16 or F32 with shape [%" PRIu32 ", %" PRIu32 "]", out->groups,
                       out->n);
        return fail_part(l, tensor, FERRUM_REASON_GROUP_SIZE, wanted);
    }
    FERRUM_TRY(check_aligned(l, tensor));
    out->scales = tensor->data;
    return FERRUM_OK;
}

static bool all_words_equal(const int32_t *words, uint64_t count, uint32_t word)
{
    for (uint64_t i = 0; i < count; i++)
        if ((uint32_t)words[i] != word)
            return false;
    return true;
}

static ferrum_status_t load_qzeros(const loader_t *l)
{
    const ferrum_safetensors_tensor_t *tensor;
    ferrum_gptq_tensors_t *out = l->out;
    uint32_t columns = out->n / (WORD_BITS / out->bits);
    FERRUM_TRY(require_part(l, "qzeros", &tensor));
    FERRUM_TRY(check_i32(l, tensor, out->groups, columns, &out->qzeros));
    uint32_t code = 1u << (out->bits - 1);
    if (out->zero_convention == FERRUM_ZERO_STORED_MINUS_ONE)
        code--;
    uint32_t word = 0;
    for (uint32_t bit = 0; bit < WORD_BITS; bit += out->bits)
        word |= code << bit;
    out->zeros_symmetric = all_words_equal(out->qzeros, tensor->elements, word);
    return FERRUM_OK;
}

static ferrum_status_t load_g_idx(const loader_t *l)
{
    ferrum_gptq_tensors_t *out = l->out;
    const ferrum_safetensors_tensor_t *tensor = find_part(l, "g_idx");
    out->g_idx = NULL;
    out->g_idx_trivial = true;
    if (!tensor) {
        if (!l->config->desc_act)
            return FERRUM_OK;
        return ferrum_fail(l->err, FERRUM_NOT_FOUND, FERRUM_REASON_ACT_ORDER,
                           "tensor %.120s.g_idx is missing, but the checkpoint has desc_act",
                           l->prefix);
    }
    FERRUM_TRY(check_i32(l, tensor, out->k, 0, &out->g_idx));
    for (uint32_t r = 0; r < out->k; r++) {
        int32_t group = out->g_idx[r];
        if (group < 0 || (uint32_t)group >= out->groups)
            return ferrum_fail(l->err, FERRUM_CORRUPT, FERRUM_REASON_ACT_ORDER,
                               "tensor %.110s.g_idx: row %" PRIu32 " names group %" PRId32
                               " of %" PRIu32,
                               l->prefix, r, group, out->groups);
        out->g_idx_trivial = out->g_idx_trivial && (uint32_t)group == r / out->group_size;
    }
    return FERRUM_OK;
}

static ferrum_status_t load_bias(const loader_t *l)
{
    ferrum_gptq_tensors_t *out = l->out;
    const ferrum_safetensors_tensor_t *tensor = find_part(l, "bias");
    out->bias = NULL;
    out->bias_dtype = FERRUM_DTYPE_F32;
    if (!tensor)
        return FERRUM_OK;
    bool known = ferrum_safetensors_dtype_to_abi(tensor->dtype, &out->bias_dtype);
    if (!known || !is_float(out->bias_dtype) || tensor->dims_count != 1 ||
        tensor->dims[0] != out->n)
        return fail_part(l, tensor, FERRUM_REASON_BIAS, "F16, BF16 or F32 with one value per N");
    FERRUM_TRY(check_aligned(l, tensor));
    out->bias = tensor->data;
    return FERRUM_OK;
}

ferrum_status_t ferrum_gptq_checkpoint_load(const ferrum_safetensors_t *checkpoint,
                                            const ferrum_gptq_config_t *config, const char *prefix,
                                            uint32_t k, uint32_t n,
                                            ferrum_gptq_tensors_t *out_tensors, ferrum_error_t *err)
{
    ferrum_gptq_tensors_t tensors = {0};
    loader_t l = {checkpoint, config, prefix, &tensors, err};
    if (!config->present || (config->bits != 4 && config->bits != 8))
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_BITS,
                           "%.120s: GPTQ with %" PRIu32 " bits is not supported; 4 and 8 are",
                           prefix, config->bits);
    tensors.bits = config->bits;
    tensors.zero_convention = config->zero_convention;
    FERRUM_TRY(load_qweight(&l, k, n));
    FERRUM_TRY(choose_groups(&l));
    FERRUM_TRY(load_scales(&l));
    FERRUM_TRY(load_qzeros(&l));
    FERRUM_TRY(load_g_idx(&l));
    FERRUM_TRY(load_bias(&l));
    *out_tensors = tensors;
    return FERRUM_OK;
}
