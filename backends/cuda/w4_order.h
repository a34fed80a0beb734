/* SPDX-License-Identifier: MIT */
/**
 * @file w4_order.h
 * @brief Act-order, where the groups of a GPTQ matrix do not lie one after the other: in what order
 * tiles have its inputs and outputs.
 *
 * Tiles have the inputs of a group beside each other. gate and up get x in its own order and gather
 * it through a table. down's order is that in which gate and up have their outputs, so that what
 * they write lies as down needs it: it costs nothing.
 */
#ifndef FERRUM_CUDA_W4_ORDER_H
#define FERRUM_CUDA_W4_ORDER_H

#include <ferrum/quant_llm.h>

#include <stdbool.h>

enum {
    FERRUM_CUDA_MOST_ORDERED = 65536 /**< inputs: their numbers are u16 */
};

/** Which input and which output of a file lies at each place of the tiles. */
typedef struct ferrum_cuda_w4_order {
    const uint16_t *inputs;  /**< [matrices, k]; NULL: as in the file */
    const uint16_t *outputs; /**< [matrices, n]; NULL: as in the file */
    bool folded;             /**< x has the order of inputs: nothing to gather */
} ferrum_cuda_w4_order_t;

/** g_idx, if there is one, says no more than group_size does. */
bool ferrum_cuda_w4_in_order(const ferrum_gptq_t *source);
/** Its groups, wherever they lie, have group_size inputs each, as the tiles need. */
bool ferrum_cuda_w4_groups_fit(const ferrum_gptq_t *source);
/** Fill @p out_inputs [k] of such a matrix: sorted by group, then by number. */
void ferrum_cuda_w4_sort_inputs(const ferrum_gptq_t *source, uint16_t *out_inputs);

#endif /* FERRUM_CUDA_W4_ORDER_H */
