# SPDX-License-Identifier: MIT
"""Writes blocks_<type>.bin (24 raw blocks) and values_<type>.bin (what the gguf package decodes them to)."""

import json

import numpy as np
from gguf import GGML_QUANT_SIZES, dequantize
from gguf import GGMLQuantizationType as Type

from paths import output_folder

BLOCKS = 24

# Byte offsets of the f16 scales (and minima) within a block; everything else in a block is codes or packed scales,
# where any byte is valid.
F16_OFFSETS = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0],
}

# Block number -> f16 bit pattern of its (first) scale.
SPECIAL_SCALES = {
    2: 0x0000,      # zero
    3: 0xB800,      # -0.5
    4: 0x0001,      # the least subnormal
    5: 0x03FF,      # the largest subnormal
    6: 0x8200,      # a negative subnormal
    7: 0x8000,      # minus zero
    12: 0x63D0,     # 1000
}
# Block number -> the byte that fills the rest of it. 0x00 and 0xFF are the extreme codes (and packed scales).
SPECIAL_CODES = {0: 0x00, 1: 0xFF, 8: 0x55, 9: 0xAA, 10: 0x0F, 11: 0xF0, 13: 0x80, 14: 0x7F}


def random_f16(rng):
    """A scale of a size that occurs in models, of either sign."""
    return np.float16(rng.choice([-1, 1]) * 2.0 ** rng.uniform(-12, -2))


def make_blocks(kind, rng):
    size = GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for number, byte in SPECIAL_CODES.items():
        blocks[number] = byte
    if kind == Type.MXFP4:      # one shared exponent, 2^(e-128) times the (doubled) code; 0 and 1 are subnormal
        blocks[:, 0] = rng.integers(110, 135, BLOCKS)
        blocks[2:8, 0] = [0, 1, 2, 3, 127, 250]
        return blocks
    for number in range(BLOCKS):
        for i, offset in enumerate(F16_OFFSETS[kind]):
            value = random_f16(rng)
            if i == 0 and number in SPECIAL_SCALES:
                value = np.uint16(SPECIAL_SCALES[number]).view(np.float16)
            blocks[number, offset:offset + 2] = np.frombuffer(value.tobytes(), np.uint8)
    return blocks


def make_f16(rng):
    bits = rng.integers(0, 1 << 16, BLOCKS * 32).astype(np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] &= 0xBFFF       # no infinities and NaNs
    bits[:8] = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF]
    return bits.view(np.uint8).reshape(BLOCKS, -1)


def make_bf16(rng):
    bits = rng.integers(0, 1 << 16, BLOCKS * 32).astype(np.uint16)
    bits[(bits & 0x7F80) == 0x7F80] &= 0xBFFF
    bits[:8] = [0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x7F7F, 0xFF7F]
    return bits.view(np.uint8).reshape(BLOCKS, -1)


def main():
    folder = output_folder(__doc__)
    index = {"blocks": BLOCKS, "types": {}}
    for kind in [*F16_OFFSETS, Type.MXFP4, Type.F16, Type.BF16]:
        rng = np.random.default_rng([2024, int(kind)])
        if kind in (Type.F16, Type.BF16):
            blocks = make_f16(rng) if kind == Type.F16 else make_bf16(rng)
            per_block = 32
        else:
            blocks, per_block = make_blocks(kind, rng), GGML_QUANT_SIZES[kind][0]
        values = dequantize(blocks, kind).astype("<f4").reshape(BLOCKS, per_block)
        assert np.isfinite(values).all(), kind
        name = kind.name.lower()
        (folder / f"blocks_{name}.bin").write_bytes(blocks.tobytes())
        (folder / f"values_{name}.bin").write_bytes(values.tobytes())
        index["types"][name] = {"ggml_type": int(kind), "values_per_block": per_block,
                                "bytes_per_block": blocks.shape[1]}
    (folder / "gguf_blocks.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
