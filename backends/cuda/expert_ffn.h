/* SPDX-License-Identifier: MIT */
/**
 * @file expert_ffn.h
 * @brief The object behind expert_ffn: gate, up and down of one layer's local experts.
 */
#ifndef FERRUM_CUDA_EXPERT_FFN_H
#define FERRUM_CUDA_EXPERT_FFN_H

#include "backends/cuda/weights.h"

#include <ferrum/moe_fused.h>

struct ferrum_expert_ffn {
    atomic_uint refs;
    ferrum_device_t *device;
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t num_experts;
    uint32_t first_expert;
    uint32_t local_experts;
    ferrum_activation_t activation;
    ferrum_cuda_weights_t gate;
    ferrum_cuda_weights_t up;
    ferrum_cuda_weights_t down;
    bool int8;        /**< all three in tiles for int8 activations */
    const char *note; /**< why not in tiles, or how: for info; never NULL */
};

#endif /* FERRUM_CUDA_EXPERT_FFN_H */
