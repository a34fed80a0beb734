/* SPDX-License-Identifier: MIT */
/**
 * @file tile_choice.h
 * @brief Which kernel multiplies the pairs of an expert FFN, and by how many rows at a time: one
 * table, keyed by shape and pairs per expert.
 *
 * Every kernel of a family sums in the same order, so the choice decides about time, not about
 * bits; only a row with another kernel (another family of sums) may change them.
 */
#ifndef FERRUM_CUDA_TILE_CHOICE_H
#define FERRUM_CUDA_TILE_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

/** Kinds of weights that have kernels of their own. */
typedef enum ferrum_cuda_tile_family {
    FERRUM_CUDA_TILES_ROWS, /**< rows of codes or blocks: experts.cu */
    FERRUM_CUDA_TILES_W4,   /**< tiled 4-bit codes: w4.cu */
    FERRUM_CUDA_TILES_GGUF  /**< tiled block formats: gguf.cu */
} ferrum_cuda_tile_family_t;

/** What is multiplied, and on what. */
typedef struct ferrum_cuda_tile_problem {
    ferrum_cuda_tile_family_t family;
    uint32_t capability; /**< 10*major + minor */
    uint32_t outputs;    /**< n of one matrix */
    uint32_t experts;
    uint64_t pairs; /**< of all experts together */
    bool wgmma;     /**< the warpgroup kernels may be chosen */
} ferrum_cuda_tile_problem_t;

/** A row of the table: where it applies, then what is chosen. The first that applies wins. */
typedef struct ferrum_cuda_tile {
    ferrum_cuda_tile_family_t family;
    uint32_t least_capability;
    bool wgmma;             /**< by the warpgroup kernels, whose sums may be others */
    uint32_t most_pairs;    /**< 0: any number */
    uint32_t most_density;  /**< pairs per 16 experts, at most; 0: any */
    uint32_t least_density; /**< and at least */
    uint32_t least_blocks;  /**< 64-output blocks of one tile per expert, at least */
    uint32_t rows;          /**< of a tile; 1: a tile per pair, without a plan */
} ferrum_cuda_tile_t;

/** The row for a problem of at least one expert; there is always one. */
const ferrum_cuda_tile_t *ferrum_cuda_choose_tile(const ferrum_cuda_tile_problem_t *problem);

#endif /* FERRUM_CUDA_TILE_CHOICE_H */
