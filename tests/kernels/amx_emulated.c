/* SPDX-License-Identifier: MIT */
/* The AMX kernels over tiles in memory. They stand before kernels/x86/amx_tiles.h, which says what
 * each instruction does; what the hardware would refuse ends the program. */
#include "tests/kernels/amx_emulated.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FERRUM_KERNELS_AMX_TILES_H

enum {
    TILES = 8,
    TILE_ROWS = 16,
    TILE_BYTES = 64
};

typedef struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config_t;

static struct {
    tile_config_t config;
    uint8_t data[TILES][TILE_ROWS][TILE_BYTES];
} amx;

static void require(int condition, const char *what)
{
    if (!condition) {
        (void)fprintf(stderr, "emulated tiles: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

static void tiles_configure(const tile_config_t *config)
{
    require(sizeof *config == 64 && config->palette == 1 && config->start_row == 0, "palette");
    for (int i = 0; i < 16; i++) {
        require(config->rows[i] <= TILE_ROWS && config->row_bytes[i] <= TILE_BYTES, "tile size");
        require(i < TILES || (config->rows[i] == 0 && config->row_bytes[i] == 0), "tile number");
        require((config->rows[i] == 0) == (config->row_bytes[i] == 0), "half a tile");
    }
    memset(&amx, 0, sizeof amx);
    amx.config = *config;
}

static void tiles_release(void)
{
    memset(&amx, 0, sizeof amx);
}

static void tile_zero(int tile)
{
    require(amx.config.rows[tile] > 0, "tile is not configured");
    memset(amx.data[tile], 0, sizeof amx.data[tile]);
}

static void tile_load(int tile, const void *base, size_t stride)
{
    tile_zero(tile);
    for (size_t r = 0; r < amx.config.rows[tile]; r++)
        memcpy(amx.data[tile][r], (const uint8_t *)base + r * stride, amx.config.row_bytes[tile]);
}

static void tile_store(int tile, void *base, size_t stride)
{
    require(amx.config.rows[tile] > 0, "tile is not configured");
    for (size_t r = 0; r < amx.config.rows[tile]; r++)
        memcpy((uint8_t *)base + r * stride, amx.data[tile][r], amx.config.row_bytes[tile]);
}

/** Signed bytes of @p a times unsigned ones of @p b, added to @p sum. */
static void tile_multiply(int sum, int a, int b)
{
    const tile_config_t *c = &amx.config;
    require(c->rows[sum] == c->rows[a] && c->row_bytes[sum] == c->row_bytes[b] &&
                c->row_bytes[a] == 4 * c->rows[b],
            "shapes do not match");
    for (size_t m = 0; m < c->rows[sum]; m++)
        for (size_t n = 0; n < c->row_bytes[sum] / 4u; n++) {
            int32_t total;
            memcpy(&total, &amx.data[sum][m][4 * n], sizeof total);
            for (size_t k = 0; k < c->row_bytes[a]; k++)
                total += (int8_t)amx.data[a][m][k] * amx.data[b][k / 4][4 * n + k % 4];
            memcpy(&amx.data[sum][m][4 * n], &total, sizeof total);
        }
}

#define TILES_CONFIGURE(config) tiles_configure(config)
#define TILES_RELEASE() tiles_release()
#define TILE_ZERO(tile) tile_zero(tile)
#define TILE_LOAD(tile, base, stride) tile_load(tile, base, stride)
#define TILE_STORE(tile, base, stride) tile_store(tile, base, stride)
#define TILE_MULTIPLY(sum, a, b) tile_multiply(sum, a, b)

#include <immintrin.h>

#define ferrum_packed_product_amx test_product_amx_emulated
#include "kernels/x86/packed_amx.c"
