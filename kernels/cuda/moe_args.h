/* SPDX-License-Identifier: MIT */
/**
 * @file moe_args.h
 * @brief The parameters of the kernels over quantised weights and routed experts; see args.h.
 */
#ifndef FERRUM_KERNELS_CUDA_MOE_ARGS_H
#define FERRUM_KERNELS_CUDA_MOE_ARGS_H

#include "kernels/cuda/args.h"

/**
 * How the weights of a matrix [n,k] lie in device memory. Rows are row_bytes apart, matrices of a
 * stack expert_bytes. Numbers are never reused: a change of a layout is a new number.
 */
enum {
    FERRUM_LAYOUT_F32 = 0, /**< plain elements; also F16, BF16 */
    FERRUM_LAYOUT_F16 = 1,
    FERRUM_LAYOUT_BF16 = 2,
    FERRUM_LAYOUT_Q4_0 = 3, /**< blocks as in a GGUF file; also Q8_0, Q4_K, Q6_K */
    FERRUM_LAYOUT_Q8_0 = 4,
    FERRUM_LAYOUT_Q4_K = 5,
    FERRUM_LAYOUT_Q6_K = 6,
    FERRUM_LAYOUT_W4 = 7, /**< codes along k, low bits first, rows padded to 16 codes; scales f32
                               and zeros u16 [n, groups] per matrix; group_of u32 [k] or 0 */
    FERRUM_LAYOUT_W8 = 8,
    FERRUM_LAYOUT_W4_TILES_F16 = 9, /**< tiles of w4.cuh, version 1, scales f16; group_of: the input
                                         of each place (act-order), u16 [experts, k padded to 64],
                                         or 0 */
    FERRUM_LAYOUT_W4_TILES_BF16 = 10,
    FERRUM_LAYOUT_Q4_1 = 16, /**< blocks as in a GGUF file, up to MXFP4 */
    FERRUM_LAYOUT_Q5_0 = 17,
    FERRUM_LAYOUT_Q5_1 = 18,
    FERRUM_LAYOUT_Q2_K = 19,
    FERRUM_LAYOUT_Q3_K = 20,
    FERRUM_LAYOUT_Q5_K = 21,
    FERRUM_LAYOUT_IQ4_NL = 22,
    FERRUM_LAYOUT_IQ4_XS = 23,
    FERRUM_LAYOUT_MXFP4 = 24,
    FERRUM_LAYOUT_GGUF_TILES_F16 = 32, /**< tiles of gguf.cuh, version 1, for f16 activations; rows
                                            of tiles are row_bytes apart; scales: f32 of each row,
                                            n padded to 16 */
    FERRUM_LAYOUT_GGUF_TILES_BF16 = 33,
    FERRUM_LAYOUT_GGUF_TILES_INT8 = 34 /**< the same for int8 activations: int8.cuh */
};

/** The weights of one matrix or of a stack of equal ones. */
typedef struct ferrum_gpu_weights {
    ferrum_gpu_ptr_t data;
    ferrum_gpu_ptr_t scales, zeros; /**< W4, W8 */
    ferrum_gpu_ptr_t group_of; /**< W4, W8: group of each k; 0: k / group_size. W4_TILES: above */
    ferrum_gpu_ptr_t bias;     /**< f32 [experts, expert_rows] or 0 */
    uint64_t expert_bytes;
    uint64_t row_bytes;
    uint32_t layout;      /**< FERRUM_LAYOUT_* */
    uint32_t n, k;        /**< rows to compute, inputs */
    uint32_t expert_rows; /**< rows of a whole matrix: n, unless this is a view */
    uint32_t groups, group_size;
    uint32_t format; /**< GGUF tiles: ferrum_weight_format_t of the blocks */
    uint32_t reserved;
} ferrum_gpu_weights_t;

/** Which rows a product's tiles are made of; "row i" means tile*BM + i. */
enum {
    FERRUM_ROWS_DENSE = 0, /**< row i of x to row i of out, matrix 0 */
    FERRUM_ROWS_PAIRS = 1, /**< pair i: matrix ids[i], x at (i/top_k)*outer + (i%top_k)*inner */
    FERRUM_ROWS_LISTS = 2, /**< pairs ids[e, 0 .. experts[e]) of matrix e = block_y */
    FERRUM_ROWS_DISPATCHES = 3, /**< rows of dispatch block_y */
    FERRUM_ROWS_ALIGNED = 4     /**< pairs ids[s] of padded slots s < total[0], matrix
                                     experts[s/block_size]; a pair >= rows is padding */
};

/** ROWS_DISPATCHES: consecutive rows of one matrix. */
typedef struct ferrum_row_dispatch {
    uint32_t expert, in_row, out_row, rows;
} ferrum_row_dispatch_t;

/**
 * product_*: out[row,:] = W x[row] + bias, and gate_up_*: act(W x, up x); BM rows by 32 outputs per
 * block, grid (tiles, lists or dispatches or 1, ceil(n/32)).
 */
typedef struct ferrum_product_args {
    ferrum_gpu_weights_t w;
    ferrum_gpu_weights_t up; /**< gate_up: same shape as w */
    ferrum_gpu_ptr_t x, out;
    ferrum_gpu_ptr_t ids;     /**< i32 */
    ferrum_gpu_ptr_t experts; /**< i32 */
    ferrum_gpu_ptr_t total;   /**< i32 [1] */
    uint64_t outer, inner;    /**< PAIRS: strides in elements of x */
    uint64_t out_stride;      /**< elements between rows of out */
    uint32_t mode;            /**< FERRUM_ROWS_* */
    uint32_t rows;            /**< rows (DENSE) or pairs in all */
    uint32_t num_experts;     /**< an id outside [first_expert, + num_experts) is skipped */
    uint32_t first_expert;
    uint32_t top_k;      /**< LISTS, ALIGNED: pairs that share an input row; PAIRS: slots */
    uint32_t block_size; /**< ALIGNED */
    uint32_t ids_count;  /**< of one list, or of the alignment */
    uint32_t out_is_f32; /**< else act */
    uint32_t activation; /**< ferrum_activation_kind_t */
    float alpha, limit;
    uint32_t reserved;
} ferrum_product_args_t;

/** How codes lie in the records of gguf.cuh. */
enum {
    FERRUM_CODES_NIBBLES = 0,
    FERRUM_CODES_FIVE = 1,
    FERRUM_CODES_SIX = 2,
    FERRUM_CODES_BYTES = 3,
    FERRUM_CODES_LEVELS = 4
};

/** What the kernels over GGUF tiles need to know of a format, ready for use. */
typedef struct ferrum_gguf_codes {
    uint32_t kind;            /**< FERRUM_CODES_* */
    uint32_t record_bytes;    /**< of a tile */
    uint32_t scales_at;       /**< of the scales, in a record */
    uint32_t scales_next;     /**< from the scales of one half to those of the other */
    uint32_t offset;          /**< act, twice: see gguf_numbers */
    uint32_t scale_bit[2][2]; /**< in a word of scales, for each half and its blocks of 16 */
    uint32_t sixteenths;      /**< blocks of 16 have scales of their own */
    uint32_t shifted;         /**< words have a shift in the high half */
    uint32_t level[4];        /**< LEVELS: a byte each, as in BYTES */
    float unit;               /**< INT8: codes are decoded as so many times their numbers */
} ferrum_gguf_codes_t;

/** gguf_*: a product over GGUF tiles. */
typedef struct ferrum_gguf_args {
    ferrum_product_args_t product;
    ferrum_gguf_codes_t codes[2]; /**< of w and up */
    uint32_t stage_bytes;         /**< FERRUM_GGUF_STAGE_BYTES */
    uint32_t reserved;
} ferrum_gguf_args_t;

/** gguf_*: shared memory of a stage and of a block for tiles of @p rows rows; @p records: bytes of
 *  the records of w and up together. */
#define FERRUM_GGUF_STAGES 4u
#define FERRUM_GGUF_STAGE_BYTES(rows, records)                                                     \
    (4u * (records) + ((rows) == 1u ? 4u : (rows)) * 128u)
#define FERRUM_GGUF_SHARED_BYTES(rows, up, records)                                                \
    (FERRUM_GGUF_STAGES * FERRUM_GGUF_STAGE_BYTES(rows, records) +                                 \
     ((up) ? 4096u : 2048u) * ((rows) < 8u ? 1u : (rows) / 8u) + (rows)*16u)

/** A row of @p k inputs as int8: for each 64 of them 64 codes, then for each 64 four floats; see
 *  int8.cuh. Rows are this many bytes apart. */
#define FERRUM_INT8_ROW_BYTES(k) (((uint64_t)(k) + 63u) / 64u * 80u)

/** int8_*: the same as for gguf_*; a block of tiles of one row has eight warps. */
#define FERRUM_INT8_STAGE_BYTES(rows, records)                                                     \
    ((rows) == 1u ? 8u * ((records) + 80u) : 4u * (records) + (rows)*80u)
#define FERRUM_INT8_SHARED_BYTES(rows, up, records)                                                \
    (FERRUM_GGUF_STAGES * FERRUM_INT8_STAGE_BYTES(rows, records) +                                 \
     ((up) ? 2u : 1u) * ((rows) == 1u ? 1024u : (rows)*256u) + (rows)*16u)

/** w4_*: shared memory of a block for tiles of @p rows rows; @p up: gate and up together. */
#define FERRUM_W4_STAGES 4u
#define FERRUM_W4_SHARED_BYTES(rows, up)                                                           \
    (FERRUM_W4_STAGES * (((up) ? 5120u : 2560u) + ((rows) == 1u ? 4u : (rows)) * 128u) +           \
     ((up) ? 4096u : 2048u) * ((rows) < 8u ? 1u : (rows) / 8u) + (rows)*16u)

/** w4_wgmma_*: shared memory of a block for tiles of @p rows rows. */
#define FERRUM_W4_WGMMA_STAGES 6u
#define FERRUM_W4_WGMMA_SHARED_BYTES(rows)                                                         \
    (FERRUM_W4_WGMMA_STAGES * ((rows)*128u + 5136u) + (rows) * (528u + 16u))

enum {
    FERRUM_DISPATCHES = 256 /**< most of one launch; kernels' parameters may have 32764 bytes */
};

/** dispatch_*: a product whose list is part of the launch, so that a captured graph keeps it. */
typedef struct ferrum_dispatch_args {
    ferrum_product_args_t product; /**< mode ROWS_DISPATCHES */
    ferrum_row_dispatch_t list[FERRUM_DISPATCHES];
} ferrum_dispatch_args_t;

/** route: top-k of each row of logits, one warp per row. */
typedef struct ferrum_route_args {
    ferrum_gpu_ptr_t logits;  /**< act or f32 [batch, experts] */
    ferrum_gpu_ptr_t bias;    /**< f32 [experts], added for selection, or 0 */
    ferrum_gpu_ptr_t ids;     /**< i32 [batch, top_k] */
    ferrum_gpu_ptr_t weights; /**< f32 [batch, top_k] */
    ferrum_gpu_ptr_t fault;   /**< ferrum_fault_t, or 0 */
    uint32_t experts, top_k;
    uint32_t logits_f32;
    uint32_t score_function; /**< ferrum_score_function_t */
    uint32_t renormalise;
    float scale;
    uint32_t groups, topk_groups; /**< groups 1: none */
} ferrum_route_args_t;

/** What kernels found wrong with data since the host last looked; 0: nothing. */
typedef struct ferrum_fault {
    uint64_t row; /**< UINT64_MAX - first row with a non-finite logit */
    uint64_t id;  /**< (UINT32_MAX - first pair with an id out of range) << 32 | that id */
} ferrum_fault_t;

/**
 * plan: a stable order by expert and whatever else is made of it; grid experts + 1. An address of
 * 0: not wanted.
 */
typedef struct ferrum_plan_args {
    ferrum_gpu_ptr_t ids;           /**< i32 [pairs] */
    ferrum_gpu_ptr_t row_of_pair;   /**< i32 [pairs]: packed row, or -1 */
    ferrum_gpu_ptr_t token_of_row;  /**< i32 [pairs]: pair / top_k; 0 in unused rows */
    ferrum_gpu_ptr_t offsets;       /**< i32 [experts + 1] */
    ferrum_gpu_ptr_t sorted;        /**< i32 [sorted_max]: padded; `pairs` marks padding */
    ferrum_gpu_ptr_t block_experts; /**< i32 [sorted_max / block_size]; -1: unused */
    ferrum_gpu_ptr_t total;         /**< i32 [1] */
    ferrum_gpu_ptr_t lists;         /**< i32 [experts, pairs]; unused entries 0 */
    ferrum_gpu_ptr_t lengths;       /**< i32 [experts] */
    ferrum_gpu_ptr_t launch[2];     /**< u32 [3] each, see compute_ids_tpe */
    uint32_t pairs, experts, first_expert, top_k;
    uint32_t block_size, sorted_max;
    uint32_t sorted_pairs; /**< sorted gets pair ids, else packed rows */
    uint32_t launch_rows[2];
    uint32_t reserved;
} ferrum_plan_args_t;

/** plan_quantise: rows of x as int8, and the plan if its blocks are in the grid; grid plan_blocks +
 *  rows * ceil(k / 64 / FERRUM_QUANTISE_STEPS). */
typedef struct ferrum_quantise_args {
    ferrum_plan_args_t plan;
    ferrum_gpu_ptr_t x;   /**< act [rows, k] */
    ferrum_gpu_ptr_t out; /**< rows of FERRUM_INT8_ROW_BYTES(k) */
    uint32_t rows, k;
    uint32_t plan_blocks; /**< experts + 1, or 0 */
    uint32_t reserved;
} ferrum_quantise_args_t;

/** plan_quantise: steps of 64 inputs that a block takes. */
#define FERRUM_QUANTISE_STEPS 4u

/** route_plan: route of rows and, with the ids that it gives, sorted, block_experts and total of
 * the plan, as far as they are used; grid ceil(rows/4). */
typedef struct ferrum_route_plan_args {
    ferrum_route_args_t route;
    ferrum_plan_args_t plan;
    ferrum_gpu_ptr_t ticket; /**< u32, 0 before and after */
    uint32_t rows;
    uint32_t reserved;
} ferrum_route_plan_args_t;

/** route_plan: shared memory for @p experts experts in @p groups groups. */
#define FERRUM_ROUTE_PLAN_SHARED_BYTES(experts, groups) (16u * (2u * (experts) + (groups)) + 16u)

/** combine: out[t,:] = sum_j weights[t,j] * slots[row(t,j),:], f32 sums in slot order. */
typedef struct ferrum_combine_args {
    ferrum_gpu_ptr_t slots;   /**< act, or f32 */
    ferrum_gpu_ptr_t rows;    /**< i32 [batch, top_k]: rows of slots, negative: skip; 0: the pair */
    ferrum_gpu_ptr_t ids;     /**< i32 [batch, top_k]: experts; 0: all pairs take part */
    ferrum_gpu_ptr_t weights; /**< f32 [batch, top_k] */
    ferrum_gpu_ptr_t out;     /**< act [batch, hidden] */
    ferrum_gpu_ptr_t fault;   /**< ferrum_fault_t, with ids */
    uint64_t count;           /**< batch * hidden */
    uint64_t slot_rows;
    uint32_t top_k, hidden;
    uint32_t slots_f32;
    uint32_t accumulate;
    uint32_t first_expert, local_experts; /**< experts whose pairs are summed */
    uint32_t num_experts;                 /**< other ids than -1 .. num_experts - 1 are faults */
    uint32_t reserved;
} ferrum_combine_args_t;

/** moe_silu_mul: out = silu(gate) * up over count elements. */
typedef struct ferrum_moe_silu_mul_args {
    ferrum_gpu_ptr_t gate, up, out;
    uint64_t count;
} ferrum_moe_silu_mul_args_t;

#endif
