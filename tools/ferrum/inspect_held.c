/* SPDX-License-Identifier: MIT */
#include "tools/ferrum/inspect_held.h"

#include "host/formats/gptq_checkpoint.h"

#include <ferrum/util.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHAPES = 256,
    SAMPLE_ROWS = 64
};

/* A shape that was tried: bytes held for a sample of so many bytes in the file. */
typedef struct shape {
    ferrum_weight_format_t format;
    uint64_t n, k;
    uint64_t held, file;
} shape_t;

typedef struct sampler {
    const ferrum_quant_llm_ops_t *ops;
    ferrum_device_t *device;
    shape_t shape[SHAPES];
    size_t count;
} sampler_t;

/* What is mapped is not held by the backend, but is memory all the same. */
static ferrum_status_t measure(const sampler_t *self, ferrum_linear_t *linear, shape_t *shape,
                               ferrum_error_t *err)
{
    ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
    const ferrum_status_t status = self->ops->linear->info(linear, &info, err);
    self->ops->linear->release(linear);
    shape->held = info.bytes > 0 ? info.bytes : shape->file;
    return status;
}

/* Rows are alike: some of them will do, if what is left over when the backend groups them is the
 * same. */
static ferrum_status_t sample_blocks(const sampler_t *self, shape_t *shape, ferrum_error_t *err)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(shape->format);
    const uint64_t rows =
        shape->n <= 2 * SAMPLE_ROWS ? shape->n : SAMPLE_ROWS + shape->n % SAMPLE_ROWS;
    ferrum_linear_t *linear;
    if (shape->k % traits->block_values != 0 || shape->k > UINT32_MAX)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_K,
                           "%s needs a multiple of %u inputs, not %llu", traits->name,
                           traits->block_values, (unsigned long long)shape->k);
    shape->file = rows * (shape->k / traits->block_values) * traits->block_bytes;
    void *data = calloc(1, shape->file);
    if (data == NULL)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "out of memory for a sample");
    const ferrum_gguf_weights_t weights = {.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                           .flags = FERRUM_WEIGHTS_MAPPED,
                                           .format = shape->format,
                                           .experts = 1,
                                           .rows = (uint32_t)rows,
                                           .cols = (uint32_t)shape->k,
                                           .data = data,
                                           .bytes = shape->file};
    ferrum_status_t status = self->ops->load_quant(self->device, &weights, NULL, &linear, err);
    if (status == FERRUM_OK)
        status = measure(self, linear, shape, err);
    free(data);
    return status;
}

static ferrum_status_t sample_gptq(const sampler_t *self, const ferrum_gptq_tensors_t *tensors,
                                   shape_t *shape, ferrum_error_t *err)
{
    const uint64_t per_word = 32 / tensors->bits, k = tensors->k, n = tensors->n;
    ferrum_linear_t *linear;
    const ferrum_gptq_t weights = {
        .head = FERRUM_HEAD(ferrum_gptq_t),
        .flags = FERRUM_WEIGHTS_MAPPED,
        .bits = tensors->bits,
        .group_size = tensors->group_size == k ? 0 : tensors->group_size,
        .zero_convention = tensors->zero_convention,
        .k = tensors->k,
        .n = tensors->n,
        .qweight = tensors->qweight,
        .qweight_count = k / per_word * n,
        .qzeros = tensors->qzeros,
        .qzeros_count = tensors->groups * (n / per_word),
        .scales = tensors->scales,
        .scales_count = tensors->groups * n,
        .scales_dtype = tensors->scales_dtype,
        .g_idx = tensors->g_idx_trivial ? NULL : tensors->g_idx,
        .g_idx_count = tensors->g_idx_trivial ? 0 : k,
    };
    shape->file = (weights.qweight_count + weights.qzeros_count + (tensors->g_idx ? k : 0)) * 4 +
                  weights.scales_count * ferrum_dtype_bytes(tensors->scales_dtype);
    const ferrum_status_t status = self->ops->load_gptq(self->device, &weights, &linear, err);
    return status == FERRUM_OK ? measure(self, linear, shape, err) : status;
}

/* The shape as tried before, or tried now: @p tensors is NULL for blocks. */
static ferrum_status_t try_shape(sampler_t *self, const shape_t *wanted,
                                 const ferrum_gptq_tensors_t *tensors, const shape_t **out_shape,
                                 ferrum_error_t *err)
{
    for (size_t i = 0; i < self->count; i++) {
        const shape_t *s = &self->shape[i];
        if (s->format == wanted->format && s->n == wanted->n && s->k == wanted->k) {
            *out_shape = s;
            return FERRUM_OK;
        }
    }
    if (self->count == SHAPES)
        return ferrum_fail(err, FERRUM_RESOURCE_EXHAUSTED, FERRUM_REASON_OTHER,
                           "more than %d shapes of matrices", SHAPES);
    shape_t *shape = &self->shape[self->count];
    *shape = *wanted;
    FERRUM_TRY(tensors ? sample_gptq(self, tensors, shape, err) : sample_blocks(self, shape, err));
    self->count++;
    *out_shape = shape;
    return FERRUM_OK;
}

/* As a model counts it: an embedding stays in the file, or it is the head as well, which is made of
 * it. */
static ferrum_status_t add_blocks(sampler_t *self, const shape_t *wanted, uint64_t file_bytes,
                                  bool stays, held_t *held, ferrum_error_t *err)
{
    const shape_t *shape;
    if (stays) {
        held->bytes += file_bytes;
        return FERRUM_OK;
    }
    FERRUM_TRY(try_shape(self, wanted, NULL, &shape, err));
    held->bytes += (uint64_t)((double)file_bytes * (double)shape->held / (double)shape->file);
    return FERRUM_OK;
}

static bool ends_with(ferrum_string_view_t name, const char *end)
{
    const size_t length = strlen(end);
    return name.length >= length && memcmp(name.data + name.length - length, end, length) == 0;
}

static ferrum_status_t add_gguf(const ferrum_gguf_t *gguf, sampler_t *self, held_t *held,
                                ferrum_error_t *err)
{
    const bool has_head = ferrum_gguf_find_tensor(gguf, "output.weight") != NULL;
    for (uint32_t i = 0; i < ferrum_gguf_tensor_count(gguf); i++) {
        const ferrum_gguf_tensor_t *tensor = ferrum_gguf_tensor_at(gguf, i);
        const shape_t wanted = {
            .format = tensor->format, .n = tensor->dims[1], .k = tensor->dims[0]};
        if (tensor->traits == NULL)
            return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                               "tensor %.*s has an unknown format", (int)tensor->name.length,
                               tensor->name.data);
        if (tensor->dims_count < 2)
            held->bytes += tensor->elements * sizeof(float);
        else
            FERRUM_TRY(add_blocks(self, &wanted, tensor->bytes,
                                  has_head && ends_with(tensor->name, "token_embd.weight"), held,
                                  err));
    }
    return FERRUM_OK;
}

static ferrum_status_t add_gptq(const ferrum_safetensors_t *checkpoint,
                                const ferrum_model_config_t *config,
                                const ferrum_safetensors_tensor_t *tensor, sampler_t *self,
                                held_t *held, ferrum_error_t *err)
{
    ferrum_gptq_tensors_t parts;
    char prefix[512];
    const shape_t *shape;
    (void)snprintf(prefix, sizeof prefix, "%.*s", (int)(tensor->name.length - strlen(".qweight")),
                   tensor->name.data);
    FERRUM_TRY(ferrum_gptq_checkpoint_load(checkpoint, &config->gptq, prefix, 0, 0, &parts, err));
    const shape_t wanted = {.format = FERRUM_FORMAT_GPTQ, .n = parts.n, .k = parts.k};
    FERRUM_TRY(try_shape(self, &wanted, &parts, &shape, err));
    held->bytes += shape->held;
    return FERRUM_OK;
}

static ferrum_status_t add_plain(const ferrum_safetensors_t *checkpoint,
                                 const ferrum_safetensors_tensor_t *tensor, sampler_t *self,
                                 held_t *held, ferrum_error_t *err)
{
    static const ferrum_weight_format_t formats[] = {FERRUM_FORMAT_F32, FERRUM_FORMAT_F16,
                                                     FERRUM_FORMAT_BF16};
    ferrum_dtype_t dtype;
    if (!ferrum_safetensors_dtype_to_abi(tensor->dtype, &dtype) || dtype > FERRUM_DTYPE_BF16)
        return FERRUM_OK; /* parts of a GPTQ matrix, counted with it */
    const shape_t wanted = {.format = formats[dtype], .n = tensor->dims[0], .k = tensor->dims[1]};
    if (tensor->dims_count == 2)
        return add_blocks(self, &wanted, tensor->bytes,
                          ends_with(tensor->name, "embed_tokens.weight") &&
                              ferrum_safetensors_find(checkpoint, "lm_head.weight"),
                          held, err);
    held->bytes += tensor->elements * sizeof(float);
    return FERRUM_OK;
}

static ferrum_status_t add_checkpoint(const ferrum_safetensors_t *checkpoint,
                                      const ferrum_model_config_t *config, sampler_t *self,
                                      held_t *held, ferrum_error_t *err)
{
    for (uint32_t i = 0; i < ferrum_safetensors_tensor_count(checkpoint); i++) {
        const ferrum_safetensors_tensor_t *tensor = ferrum_safetensors_tensor_at(checkpoint, i);
        if (ends_with(tensor->name, ".qweight"))
            FERRUM_TRY(add_gptq(checkpoint, config, tensor, self, held, err));
        else if (!ends_with(tensor->name, ".scales"))
            FERRUM_TRY(add_plain(checkpoint, tensor, self, held, err));
    }
    return FERRUM_OK;
}

/* One of the two files. */
static int predict(const ferrum_gguf_t *gguf, const ferrum_safetensors_t *checkpoint,
                   const ferrum_model_config_t *config, held_t *out_held)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_runtime_t *runtime;
    int rc = cli_open_runtime(&runtime);
    if (rc != CLI_OK)
        return rc;
    sampler_t *self = calloc(1, sizeof *self);
    ferrum_status_t status = FERRUM_OUT_OF_MEMORY;
    const ferrum_module_t *module = ferrum_runtime_module(runtime);
    *out_held = (held_t){.bytes = 0};
    if (self != NULL) {
        self->ops = ferrum_module_quant_llm(module);
        self->device = ferrum_runtime_device(runtime);
        status = gguf ? add_gguf(gguf, self, out_held, &err)
                      : add_checkpoint(checkpoint, config, self, out_held, &err);
    }
    (void)snprintf(out_held->backend, sizeof out_held->backend, "%s", ferrum_module_name(module));
    (void)snprintf(out_held->detail, sizeof out_held->detail, "%.63s",
                   ferrum_runtime_device_info(runtime)->detail);
    free(self);
    ferrum_runtime_close(runtime);
    return status == FERRUM_OK ? CLI_OK : cli_fail(&err, status, CLI_MODEL);
}

int held_of_gguf(const ferrum_gguf_t *gguf, held_t *out_held)
{
    return predict(gguf, NULL, NULL, out_held);
}

int held_of_checkpoint(const ferrum_safetensors_t *checkpoint, const ferrum_model_config_t *config,
                       held_t *out_held)
{
    return predict(NULL, checkpoint, config, out_held);
}
