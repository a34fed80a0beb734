/* SPDX-License-Identifier: MIT */
#include "backends/cuda/tile_choice.h"

enum {
    BLOCK_OUTPUTS = 64,
    DENSITY = 16
};

/*
 * Single rows, which need no plan, win while few experts are met twice. From then on a tile is
 * chosen that an expert's pairs fill by a third: padding costs less than reading weights twice.
 * Tiles of 64 rows leave room for two blocks on a multiprocessor: matrices that do not make twice
 * as many blocks as a large GPU has multiprocessors are cut into tiles of 32. The warpgroup kernels
 * are for products that are bound by arithmetic: a tile is to be filled once on the average.
 */
static const ferrum_cuda_tile_t tiles[] = {
    {.family = FERRUM_CUDA_TILES_W4, .most_pairs = 2, .rows = 1},
    {.family = FERRUM_CUDA_TILES_W4, .most_pairs = 64, .most_density = 8, .rows = 1},
    {.family = FERRUM_CUDA_TILES_W4, .wgmma = true, .least_density = 128 * DENSITY, .rows = 128},
    {.family = FERRUM_CUDA_TILES_W4, .wgmma = true, .least_density = 64 * DENSITY, .rows = 64},
    {.family = FERRUM_CUDA_TILES_W4,
     .least_density = 24 * DENSITY,
     .least_blocks = 264,
     .rows = 64},
    {.family = FERRUM_CUDA_TILES_W4, .least_density = 12 * DENSITY, .rows = 32},
    {.family = FERRUM_CUDA_TILES_W4, .least_density = 5 * DENSITY, .rows = 16},
    {.family = FERRUM_CUDA_TILES_W4, .rows = 8},
    {.family = FERRUM_CUDA_TILES_GGUF, .most_pairs = 2, .rows = 1},
    {.family = FERRUM_CUDA_TILES_GGUF, .most_pairs = 64, .most_density = 8, .rows = 1},
    {.family = FERRUM_CUDA_TILES_GGUF, .least_density = 8 * DENSITY, .rows = 32},
    {.family = FERRUM_CUDA_TILES_GGUF, .rows = 8},
    {.family = FERRUM_CUDA_TILES_ROWS, .most_pairs = 16, .rows = 1},
    {.family = FERRUM_CUDA_TILES_ROWS, .least_density = 17 * DENSITY, .rows = 32},
    {.family = FERRUM_CUDA_TILES_ROWS, .rows = 8},
};

static bool applies(const ferrum_cuda_tile_t *tile, const ferrum_cuda_tile_problem_t *problem)
{
    const uint64_t scaled = problem->pairs * DENSITY, experts = problem->experts;
    const uint64_t blocks =
        experts * ((problem->outputs + (uint64_t)BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS);

    return tile->family == problem->family && problem->capability >= tile->least_capability &&
           (!tile->wgmma || problem->wgmma) &&
           (tile->most_pairs == 0 || problem->pairs <= tile->most_pairs) &&
           (tile->most_density == 0 || scaled <= tile->most_density * experts) &&
           scaled >= tile->least_density * experts && blocks >= tile->least_blocks;
}

const ferrum_cuda_tile_t *ferrum_cuda_choose_tile(const ferrum_cuda_tile_problem_t *problem)
{
    const ferrum_cuda_tile_t *tile = tiles;

    while (!applies(tile, problem))
        tile++;
    return tile;
}
