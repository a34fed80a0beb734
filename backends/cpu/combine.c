/* SPDX-License-Identifier: MIT */
#include "backends/cpu/combine.h"

#include <string.h>

void ferrum_cpu_combine_item(void *arg, uint64_t item, uint32_t thread)
{
    const ferrum_cpu_combine_t *c = arg;
    const uint64_t blocks = ferrum_cpu_blocks(c->hidden, FERRUM_CPU_COMBINE_COLUMNS);
    const size_t token = (size_t)(item / blocks);
    const size_t column = (size_t)(item % blocks) * FERRUM_CPU_COMBINE_COLUMNS;
    const size_t columns =
        (size_t)ferrum_cpu_block_length(c->hidden, FERRUM_CPU_COMBINE_COLUMNS, item % blocks);
    float sum[FERRUM_CPU_COMBINE_COLUMNS] = {0};
    float *out = c->out + token * c->hidden + column;
    bool any = c->rows == NULL;

    for (uint32_t j = 0; j < c->top_k; j++) {
        const size_t pair = token * c->top_k + j;
        if (c->rows && c->rows[pair] < 0)
            continue;
        const size_t row = c->rows ? (size_t)c->rows[pair] : pair;
        c->vector->axpy(c->weights[pair], c->slots + row * c->hidden + column, sum, columns);
        any = true;
    }
    if (!c->accumulate)
        memcpy(out, sum, columns * sizeof *out);
    else if (any)
        c->vector->add(out, sum, columns);
}
