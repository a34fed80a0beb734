/* SPDX-License-Identifier: MIT */
#include "backends/cuda/w4_order.h"
#include "backends/common/gptq.h"

enum {
    LEAST_GROUP = 32,
    MOST_GROUPS = FERRUM_CUDA_MOST_ORDERED / LEAST_GROUP
};

static uint32_t group_size(const ferrum_gptq_t *source)
{
    return source->group_size ? source->group_size : source->k;
}

bool ferrum_cuda_w4_in_order(const ferrum_gptq_t *source)
{
    for (uint32_t k = 0; source->g_idx && k < source->k; k++)
        if (ferrum_gptq_u32(source->g_idx, k) != k / group_size(source))
            return false;
    return true;
}

bool ferrum_cuda_w4_groups_fit(const ferrum_gptq_t *source)
{
    uint32_t counts[MOST_GROUPS] = {0};

    if (ferrum_cuda_w4_in_order(source))
        return true;
    if (source->k > FERRUM_CUDA_MOST_ORDERED || ferrum_gptq_groups(source) > MOST_GROUPS)
        return false;
    for (uint32_t k = 0; k < source->k; k++)
        if (++counts[ferrum_gptq_u32(source->g_idx, k)] > group_size(source))
            return false;
    return true;
}

void ferrum_cuda_w4_sort_inputs(const ferrum_gptq_t *source, uint16_t *out_inputs)
{
    uint32_t used[MOST_GROUPS] = {0};

    for (uint32_t k = 0; k < source->k; k++) {
        const uint32_t group =
            source->g_idx ? ferrum_gptq_u32(source->g_idx, k) : k / group_size(source);
        out_inputs[group * group_size(source) + used[group]++] = (uint16_t)k;
    }
}
