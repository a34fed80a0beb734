# SPDX-License-Identifier: MIT
"""Writes gptq_cases.json and gptq_cases.bin: packed GPTQ matrices and their dequantised values."""

import json

import numpy as np

from paths import output_folder

# (bits, group_size, symmetric, zeros stored minus one, act-order, K, N); group_size -1 is one group per column.
CASES = [
    (4, 32, True, True, False, 128, 16),
    (4, 32, False, True, False, 128, 16),
    (4, 32, False, True, True, 128, 16),
    (4, 32, False, False, False, 128, 24),
    (4, 32, False, False, True, 128, 16),
    (4, 64, True, True, True, 128, 16),
    (4, 64, False, True, False, 192, 16),
    (4, 64, False, False, True, 128, 32),
    (4, 128, True, True, False, 256, 16),
    (4, 128, True, False, False, 256, 16),
    (4, 128, False, True, False, 256, 16),
    (4, 128, True, True, True, 256, 16),
    (4, 128, False, False, True, 256, 16),
    (4, -1, True, True, False, 128, 16),
    (4, -1, False, True, False, 128, 16),
    (4, -1, False, False, False, 128, 16),
    (8, 32, True, True, False, 128, 16),
    (8, 32, False, True, True, 128, 16),
    (8, 32, False, False, False, 128, 16),
    (8, 64, False, True, False, 128, 16),
    (8, 64, False, False, True, 128, 16),
    (8, 128, True, True, False, 256, 16),
    (8, 128, False, False, True, 256, 16),
    (8, -1, True, True, False, 128, 16),
    (8, -1, False, False, False, 128, 16),
]


def pack_rows(codes, bits):
    """codes[K, N] -> int32[K * bits / 32, N]; the lowest bits hold the first of the neighbouring rows."""
    per_word = 32 // bits
    words = np.zeros((codes.shape[0] // per_word, codes.shape[1]), np.uint32)
    for i in range(per_word):
        words |= codes[i::per_word].astype(np.uint32) << np.uint32(bits * i)
    return words.view(np.int32)


def pack_columns(codes, bits):
    """codes[G, N] -> int32[G, N * bits / 32]."""
    return np.ascontiguousarray(pack_rows(np.ascontiguousarray(codes.T), bits).T)


def make_g_idx(columns, group_size, act_order, rng):
    """Group of every K-row. Act-order makes it any assignment with full groups."""
    g_idx = np.arange(columns) // group_size
    if act_order:
        g_idx = rng.permutation(g_idx)
    return g_idx.astype(np.int32)


def make_zeros(shape, bits, symmetric, stored_minus_one, rng):
    """The zeros themselves. Asymmetric ones stay within what both conventions can store without wrapping round:
    stored minus one there is no way to write 0, and programs disagree on what the largest stored code means."""
    if symmetric:
        return np.full(shape, 1 << (bits - 1))
    return rng.integers(1 if stored_minus_one else 0, 1 << bits, shape)


def dequantize(codes, zeros, scales, g_idx):
    """float64 [K, N]: (code - zero of its group) * scale of its group."""
    values = np.zeros(codes.shape)
    for k in range(codes.shape[0]):
        g = g_idx[k]
        values[k] = (codes[k].astype(np.float64) - zeros[g]) * scales[g].astype(np.float64)
    return values


def main():
    folder = output_folder(__doc__)
    rng = np.random.default_rng(4096)
    data, cases = bytearray(), []
    for bits, group_size, symmetric, stored_minus_one, act_order, k, n in CASES:
        size = k if group_size == -1 else group_size
        groups = k // size
        codes = rng.integers(0, 1 << bits, (k, n))
        codes[0], codes[-1] = 0, (1 << bits) - 1        # the extreme codes in every column
        zeros = make_zeros((groups, n), bits, symmetric, stored_minus_one, rng)
        scales = (2.0 ** rng.uniform(-10, -3, (groups, n))).astype(np.float16)
        scales[0, 0] = 0                                # a dead column
        scales[0, 1] = np.float16(2.0 ** -20)           # a subnormal scale
        g_idx = make_g_idx(k, size, act_order, rng)
        values = dequantize(codes, zeros, scales, g_idx)
        # f16 (11 bits) times at most 9 bits: float32 holds every product exactly.
        assert (values.astype("<f4").astype(np.float64) == values).all()
        case = {"bits": bits, "group_size": group_size, "sym": symmetric,
                "checkpoint_format": "gptq" if stored_minus_one else "gptq_v2", "desc_act": act_order,
                "k": k, "n": n, "groups": groups}
        arrays = {"qweight": pack_rows(codes, bits),
                  "qzeros": pack_columns(zeros - 1 if stored_minus_one else zeros, bits),
                  "scales": scales, "g_idx": g_idx, "values": values.astype("<f4")}
        for name, array in arrays.items():
            case[name + "_offset"] = len(data)
            data += array.tobytes()
            data += bytes(-len(data) % 4)
        cases.append(case)
    (folder / "gptq_cases.bin").write_bytes(data)
    lines = ",\n  ".join(json.dumps(case) for case in cases)
    (folder / "gptq_cases.json").write_text(f'{{"cases": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    main()
