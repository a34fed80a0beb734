/* SPDX-License-Identifier: MIT */
#include "host/model/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "host/formats/gptq_checkpoint.h"
#include "host/formats/name_map.h"

ferrum_status_t ferrum_weights_open(const char *path, ferrum_weights_t *out_weights,
                                    ferrum_error_t *err)
{
    ferrum_weights_t weights = {0};
    struct stat facts;
    if (stat(path, &facts) != 0)
        return ferrum_fail(err, errno == ENOENT || errno == ENOTDIR ? FERRUM_NOT_FOUND : FERRUM_IO,
                           FERRUM_REASON_OTHER, "%.150s: %s", path, strerror(errno));
    ferrum_status_t status;
    if (S_ISDIR(facts.st_mode)) {
        status = ferrum_model_config_from_directory(path, &weights.config, err);
        if (status == FERRUM_OK)
            status = ferrum_safetensors_open(path, &weights.checkpoint, err);
        if (status == FERRUM_OK)
            weights.total_bytes = ferrum_safetensors_bytes(weights.checkpoint);
    } else {
        status = ferrum_gguf_open(path, &weights.gguf, err);
        if (status == FERRUM_OK)
            status = ferrum_model_config_from_gguf(weights.gguf, &weights.config, err);
        if (status == FERRUM_OK)
            weights.total_bytes = ferrum_gguf_bytes(weights.gguf);
    }
    if (status != FERRUM_OK) {
        ferrum_weights_close(&weights);
        return status;
    }
    *out_weights = weights;
    return FERRUM_OK;
}

void ferrum_weights_close(ferrum_weights_t *weights)
{
    ferrum_gguf_close(weights->gguf);
    ferrum_safetensors_close(weights->checkpoint);
    memset(weights, 0, sizeof *weights);
}

ferrum_status_t ferrum_weights_advance(ferrum_weights_t *weights, uint64_t bytes,
                                       ferrum_error_t *err)
{
    weights->loaded_bytes += bytes;
    if (weights->loaded_bytes > weights->total_bytes)
        weights->loaded_bytes = weights->total_bytes;
    if (weights->progress &&
        weights->progress(weights->progress_arg, weights->loaded_bytes, weights->total_bytes))
        return ferrum_fail(err, FERRUM_CANCELLED, FERRUM_REASON_NONE, "loading was cancelled");
    return FERRUM_OK;
}

void ferrum_weights_release_pages(const ferrum_weights_t *weights)
{
    if (weights->gguf)
        ferrum_gguf_release_pages(weights->gguf);
    else
        ferrum_safetensors_release_pages(weights->checkpoint);
}

static ferrum_status_t fail_shape(const char *name, uint64_t rows, uint64_t cols, uint32_t n,
                                  uint32_t k, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_LENGTH,
                       "tensor %.110s is [%" PRIu64 ", %" PRIu64 "], the config needs [%" PRIu32
                       ", %" PRIu32 "]",
                       name, rows, cols, n, k);
}

static void set_blocks(ferrum_weight_format_t format, uint32_t n, uint32_t k, const void *data,
                       uint64_t bytes, ferrum_matrix_t *out)
{
    ferrum_gguf_weights_t *blocks = &out->blocks;
    blocks->head = (ferrum_head_t)FERRUM_HEAD(ferrum_gguf_weights_t);
    blocks->format = format;
    blocks->flags = FERRUM_WEIGHTS_MAPPED;
    blocks->experts = 1;
    blocks->rows = n;
    blocks->cols = k;
    blocks->data = data;
    blocks->bytes = bytes;
    out->n = n;
    out->k = k;
    out->bytes = bytes;
}

static ferrum_status_t plain_dtype(const ferrum_safetensors_tensor_t *tensor,
                                   ferrum_dtype_t *out_dtype, ferrum_error_t *err)
{
    if (ferrum_safetensors_dtype_to_abi(tensor->dtype, out_dtype) &&
        *out_dtype <= FERRUM_DTYPE_BF16)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_DTYPE,
                       "tensor %.150s has dtype %s, not F32, F16 or BF16", tensor->name.data,
                       ferrum_safetensors_dtype_name(tensor->dtype));
}

static ferrum_status_t gguf_tensor(const ferrum_weights_t *weights, const char *hf_name,
                                   const ferrum_gguf_tensor_t **out_tensor, ferrum_error_t *err)
{
    ferrum_tensor_name_t name;
    int64_t expert;
    FERRUM_TRY(ferrum_name_to_gguf(hf_name, name, &expert, err));
    return ferrum_gguf_require_tensor(weights->gguf, name, out_tensor, err);
}

static ferrum_status_t matrix_of_gguf(const ferrum_weights_t *weights, const char *name, uint32_t n,
                                      uint32_t k, ferrum_matrix_t *out, ferrum_error_t *err)
{
    const ferrum_gguf_tensor_t *tensor;
    FERRUM_TRY(gguf_tensor(weights, name, &tensor, err));
    if (tensor->dims_count > 2 || tensor->dims[0] != k || tensor->dims[1] != n) {
        ferrum_tensor_name_t own;
        int64_t expert;
        FERRUM_TRY(ferrum_name_to_gguf(name, own, &expert, err));
        return fail_shape(own, tensor->dims[1], tensor->dims[0], n, k, err);
    }
    set_blocks(tensor->format, n, k, tensor->data, tensor->bytes, out);
    return FERRUM_OK;
}

static ferrum_status_t matrix_of_checkpoint(const ferrum_weights_t *weights, const char *name,
                                            uint32_t n, uint32_t k, ferrum_matrix_t *out,
                                            ferrum_error_t *err)
{
    static const ferrum_weight_format_t formats[] = {FERRUM_FORMAT_F32, FERRUM_FORMAT_F16,
                                                     FERRUM_FORMAT_BF16};
    const ferrum_safetensors_tensor_t *tensor;
    ferrum_dtype_t dtype = FERRUM_DTYPE_F32;
    FERRUM_TRY(ferrum_safetensors_require(weights->checkpoint, name, &tensor, err));
    if (tensor->dims_count != 2 || tensor->dims[0] != n || tensor->dims[1] != k)
        return fail_shape(name, tensor->dims[0], tensor->dims[1], n, k, err);
    FERRUM_TRY(plain_dtype(tensor, &dtype, err));
    set_blocks(formats[dtype], n, k, tensor->data, tensor->bytes, out);
    return FERRUM_OK;
}

static ferrum_status_t matrix_of_gptq(const ferrum_weights_t *weights, const char *prefix,
                                      uint32_t n, uint32_t k, ferrum_matrix_t *out,
                                      ferrum_error_t *err)
{
    ferrum_gptq_tensors_t t;
    FERRUM_TRY(ferrum_gptq_checkpoint_load(weights->checkpoint, &weights->config.gptq, prefix, k, n,
                                           &t, err));
    uint64_t words_per_column = (uint64_t)k * t.bits / 32;
    ferrum_gptq_t *gptq = &out->gptq;
    gptq->head = (ferrum_head_t)FERRUM_HEAD(ferrum_gptq_t);
    gptq->flags = FERRUM_WEIGHTS_MAPPED;
    gptq->bits = t.bits;
    gptq->group_size = t.groups == 1 ? 0 : t.group_size;
    gptq->zero_convention = t.zero_convention;
    gptq->k = k;
    gptq->n = n;
    gptq->qweight = t.qweight;
    gptq->qweight_count = words_per_column * n;
    gptq->qzeros = t.qzeros;
    gptq->qzeros_count = (uint64_t)t.groups * n * t.bits / 32;
    gptq->scales = t.scales;
    gptq->scales_count = (uint64_t)t.groups * n;
    gptq->scales_dtype = t.scales_dtype;
    gptq->g_idx = t.g_idx_trivial ? NULL : t.g_idx;
    gptq->g_idx_count = gptq->g_idx ? k : 0;
    out->is_gptq = true;
    out->n = n;
    out->k = k;
    out->bytes = (gptq->qweight_count + gptq->qzeros_count + gptq->g_idx_count) * 4 +
                 gptq->scales_count * ferrum_dtype_bytes(t.scales_dtype);
    out->bias = t.bias;
    out->bias_dtype = t.bias_dtype;
    return FERRUM_OK;
}

typedef char module_name_t[FERRUM_TENSOR_NAME_BYTES];

static ferrum_status_t name_part(const char *prefix, const char *part, module_name_t out_name,
                                 ferrum_error_t *err)
{
    int length = snprintf(out_name, sizeof(module_name_t), "%s.%s", prefix, part);
    if (length < 0 || (size_t)length >= sizeof(module_name_t))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "tensor name %.100s… is too long", prefix);
    return FERRUM_OK;
}

/* Bias of a matrix that is not GPTQ; left NULL when the file has none. */
static ferrum_status_t find_bias(const ferrum_weights_t *weights, const char *prefix, uint32_t n,
                                 ferrum_matrix_t *out, ferrum_error_t *err)
{
    module_name_t name;
    FERRUM_TRY(name_part(prefix, "bias", name, err));
    uint64_t count;
    if (weights->gguf) {
        ferrum_tensor_name_t own;
        int64_t expert;
        if (ferrum_name_to_gguf(name, own, &expert, NULL) != FERRUM_OK)
            return FERRUM_OK;
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_find_tensor(weights->gguf, own);
        if (!tensor)
            return FERRUM_OK;
        if (tensor->format != FERRUM_FORMAT_F32)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_BIAS,
                               "tensor %.150s has type %u, a bias must be F32", own,
                               tensor->format);
        count = tensor->elements;
        out->bias = tensor->data;
    } else {
        const ferrum_safetensors_tensor_t *tensor =
            ferrum_safetensors_find(weights->checkpoint, name);
        if (!tensor)
            return FERRUM_OK;
        FERRUM_TRY(plain_dtype(tensor, &out->bias_dtype, err));
        count = tensor->elements;
        out->bias = tensor->data;
    }
    if (count != n)
        return fail_shape(name, count, 1, n, 1, err);
    return FERRUM_OK;
}

bool ferrum_weights_has(const ferrum_weights_t *weights, const char *prefix)
{
    module_name_t name;
    if (weights->checkpoint && ferrum_gptq_checkpoint_has(weights->checkpoint, prefix))
        return true;
    if (name_part(prefix, "weight", name, NULL) != FERRUM_OK)
        return false;
    if (weights->checkpoint)
        return ferrum_safetensors_find(weights->checkpoint, name) != NULL;
    ferrum_tensor_name_t own;
    int64_t expert;
    return ferrum_name_to_gguf(name, own, &expert, NULL) == FERRUM_OK &&
           ferrum_gguf_find_tensor(weights->gguf, own) != NULL;
}

ferrum_status_t ferrum_weights_matrix(const ferrum_weights_t *weights, const char *prefix,
                                      uint32_t n, uint32_t k, ferrum_matrix_t *out_matrix,
                                      ferrum_error_t *err)
{
    ferrum_matrix_t matrix = {0};
    module_name_t name;
    if (weights->checkpoint && ferrum_gptq_checkpoint_has(weights->checkpoint, prefix)) {
        FERRUM_TRY(matrix_of_gptq(weights, prefix, n, k, &matrix, err));
    } else {
        FERRUM_TRY(name_part(prefix, "weight", name, err));
        if (weights->gguf)
            FERRUM_TRY(matrix_of_gguf(weights, name, n, k, &matrix, err));
        else
            FERRUM_TRY(matrix_of_checkpoint(weights, name, n, k, &matrix, err));
        FERRUM_TRY(find_bias(weights, prefix, n, &matrix, err));
    }
    *out_matrix = matrix;
    return FERRUM_OK;
}

ferrum_status_t ferrum_weights_values(const ferrum_weights_t *weights, const char *name,
                                      uint32_t count, const void **out_data,
                                      ferrum_dtype_t *out_dtype, ferrum_error_t *err)
{
    if (weights->gguf) {
        static const ferrum_weight_format_t formats[] = {FERRUM_FORMAT_F32, FERRUM_FORMAT_F16,
                                                         FERRUM_FORMAT_BF16};
        const ferrum_gguf_tensor_t *tensor;
        FERRUM_TRY(gguf_tensor(weights, name, &tensor, err));
        if (tensor->elements != count)
            return fail_shape(name, tensor->elements, 1, count, 1, err);
        for (ferrum_dtype_t dtype = FERRUM_DTYPE_F32; dtype <= FERRUM_DTYPE_BF16; dtype++) {
            if (formats[dtype] == tensor->format) {
                *out_data = tensor->data;
                *out_dtype = dtype;
                return FERRUM_OK;
            }
        }
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "tensor for %.120s is %s, not f32, f16 or bf16", name,
                           tensor->traits->name);
    }
    const ferrum_safetensors_tensor_t *tensor;
    FERRUM_TRY(ferrum_safetensors_require(weights->checkpoint, name, &tensor, err));
    FERRUM_TRY(plain_dtype(tensor, out_dtype, err));
    if (tensor->elements != count)
        return fail_shape(name, tensor->elements, 1, count, 1, err);
    *out_data = tensor->data;
    return FERRUM_OK;
}
