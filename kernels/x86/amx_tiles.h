/* SPDX-License-Identifier: MIT */
/**
 * @file amx_tiles.h
 * @brief The tile instructions that packed_amx.c uses, under names that a test can emulate.
 *
 * Tiles have 16 rows of up to 64 bytes. Tile arguments are literal numbers or macros of
 * them.
 */
#ifndef FERRUM_KERNELS_AMX_TILES_H
#define FERRUM_KERNELS_AMX_TILES_H

#include <immintrin.h>
#include <stdint.h>

/** Operand of LDTILECFG, palette 1. */
typedef struct tile_config {
    _Alignas(64) uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config_t;

#define TILES_CONFIGURE(config) _tile_loadconfig(config)
#define TILES_RELEASE() _tile_release()
#define TILE_ZERO(tile) _tile_zero(tile)
#define TILE_LOAD(tile, base, stride) _tile_loadd(tile, base, stride)
#define TILE_STORE(tile, base, stride) _tile_stored(tile, base, stride)
/** sum[m][n] += sum over k, i < 4 of (signed) a[m][4k + i] * (unsigned) b[k][4n + i], in 32 bits.
 */
#define TILE_MULTIPLY(sum, a, b) _tile_dpbsud(sum, a, b)

#endif /* FERRUM_KERNELS_AMX_TILES_H */
