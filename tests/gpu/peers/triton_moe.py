# SPDX-License-Identifier: MIT
"""Peer: W4A16 experts (groups of 128) in Triton, written for this comparison and tuned per token count.

Few tokens: a block of programs per (token, slot) pair, nothing to plan. More: two small kernels sort
the pairs by expert into blocks of BM rows. Then gate and up with SiLU in one kernel, down, and the
sum over slots in order. A byte of weights holds inputs j and j + 64 of a group, so that codes are
unpacked without moving them between lanes; they become exact numbers by their bits, and a group's
sum is scaled in f32, or the weights are: whatever tuning finds faster. The zero is the constant 8,
which saves loads that ferrum's kernels do.
"""

import time

import torch
import triton
import triton.compiler.errors
import triton.language as tl
import triton.runtime.errors

import peer

HALF = tl.constexpr(64)  # bytes of a group in a column
MAGIC = tl.constexpr(0x6400)  # 1024 in f16: its mantissa has room for a code
AWAY = tl.constexpr(1032.0)


@triton.jit(do_not_specialize=["pairs"])
def count_kernel(ids, counts, pairs, CHUNK: tl.constexpr):
    """counts[expert]: pairs of it. One program per expert."""
    expert = tl.program_id(0)
    lane = tl.arange(0, CHUNK)
    found = tl.zeros([CHUNK], tl.int32)
    for first in range(0, pairs, CHUNK):
        mine = tl.load(ids + first + lane, mask=first + lane < pairs, other=-1) == expert
        found += mine.to(tl.int32)
    tl.store(counts + expert, tl.sum(found))


@triton.jit(do_not_specialize=["pairs"])
def place_kernel(
    ids, counts, rows, owners, used, pairs, EXPERTS: tl.constexpr, BM: tl.constexpr, CHUNK: tl.constexpr
):
    """rows: pairs by expert, each expert padded to blocks of BM with `pairs`; owners[block]: expert."""
    expert = tl.program_id(0)
    lane = tl.arange(0, CHUNK)
    all_experts = tl.arange(0, EXPERTS)
    blocks = (tl.load(counts + all_experts) + BM - 1) // BM
    before = tl.sum(tl.where(all_experts < expert, blocks, 0))
    mine_blocks = tl.sum(tl.where(all_experts == expert, blocks, 0))
    if expert == 0:
        tl.store(used, tl.sum(blocks))
    for block in range(0, mine_blocks):
        tl.store(owners + before + block, expert)
    at = before * BM
    for first in range(0, pairs, CHUNK):
        mine = (tl.load(ids + first + lane, mask=first + lane < pairs, other=-1) == expert).to(tl.int32)
        place = at + tl.cumsum(mine, 0) - mine
        tl.store(rows + place, first + lane, mask=mine != 0)
        at += tl.sum(mine)
    pad = at + tl.arange(0, BM)
    tl.store(rows + pad, pairs, mask=pad < (before + mine_blocks) * BM)


@triton.jit
def exact(codes):
    """Codes 0..15 less 8, by the bits of a power of two."""
    return (codes.to(tl.uint16) | MAGIC).to(tl.float16, bitcast=True) - AWAY


@triton.jit
def tile_product(sums, low_x, high_x, codes, scale, SCALE_SUMS: tl.constexpr):
    low = exact(codes & 15)
    high = exact(codes >> 4)
    if SCALE_SUMS:
        group = tl.dot(high_x, high, tl.dot(low_x, low))
        return sums + group * scale[None, :].to(tl.float32)
    scale = scale[None, :]
    return tl.dot(high_x, high * scale, tl.dot(low_x, low * scale, sums))


@triton.jit
def tile_of(rows, owners, used, ids, pairs, N: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, ALONE: tl.constexpr):
    """Of this program: its pairs, their expert (-1: none), its columns."""
    tiles: tl.constexpr = N // BN
    block = tl.program_id(0) // tiles
    columns = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    lane = tl.arange(0, BM)
    if ALONE:
        pair = tl.where(lane == 0, block, pairs)
        expert = tl.load(ids + block)
    else:
        within = block < tl.load(used)
        pair = tl.load(rows + block * BM + lane)  # of a block that is not used: anything
        expert = tl.where(within, tl.load(owners + block), -1)
    return pair, expert.to(tl.int64), columns


@triton.jit(do_not_specialize=["pairs"])
def gate_up_kernel(
    x, codes, scales, out, rows, owners, used, ids, pairs,
    TOP_K: tl.constexpr, K: tl.constexpr, N: tl.constexpr, ALONE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SCALE_SUMS: tl.constexpr,
):  # fmt: skip
    """out[pair] = silu(gate x) * (up x). codes [experts, 2, K/2, N], scales [experts, 2, K/128, N]."""
    pair, expert, columns = tile_of(rows, owners, used, ids, pairs, N, BM, BN, ALONE)
    if expert >= 0:
        there = (pair < pairs)[:, None]
        x_rows = x + (pair // TOP_K)[:, None] * K
        code_tile = codes + expert * K * N + columns[None, :]
        scale_row = scales + expert * (K // HALF) * N + columns
        gate = tl.zeros([BM, BN], tl.float32)
        up = tl.zeros([BM, BN], tl.float32)
        for byte in range(0, K // 2, BK):
            group = byte // HALF
            k = (byte + group * HALF + tl.arange(0, BK))[None, :]
            low_x = tl.load(x_rows + k, mask=there, other=0.0)
            high_x = tl.load(x_rows + k + HALF, mask=there, other=0.0)
            at = (byte + tl.arange(0, BK))[:, None] * N
            gate_codes = tl.load(code_tile + at)
            up_codes = tl.load(code_tile + at + K // 2 * N)
            gate_scale = tl.load(scale_row + group * N)
            up_scale = tl.load(scale_row + group * N + K // (2 * HALF) * N)
            gate = tile_product(gate, low_x, high_x, gate_codes, gate_scale, SCALE_SUMS)
            up = tile_product(up, low_x, high_x, up_codes, up_scale, SCALE_SUMS)
        value = gate / (1.0 + tl.exp(-gate)) * up
        tl.store(out + pair[:, None] * N + columns[None, :], value.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["pairs"])
def down_kernel(
    x, codes, scales, out, weights, rows, owners, used, ids, pairs,
    K: tl.constexpr, N: tl.constexpr, ALONE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SCALE_SUMS: tl.constexpr,
):  # fmt: skip
    """out[pair] = weights[pair] * down x[pair]. codes [experts, K/2, N], scales [experts, K/128, N]."""
    pair, expert, columns = tile_of(rows, owners, used, ids, pairs, N, BM, BN, ALONE)
    if expert >= 0:
        there = (pair < pairs)[:, None]
        x_rows = x + pair[:, None] * K
        code_tile = codes + expert * (K // 2) * N + columns[None, :]
        scale_row = scales + expert * (K // (2 * HALF)) * N + columns
        sums = tl.zeros([BM, BN], tl.float32)
        for byte in range(0, K // 2, BK):
            group = byte // HALF
            k = (byte + group * HALF + tl.arange(0, BK))[None, :]
            low_x = tl.load(x_rows + k, mask=there, other=0.0)
            high_x = tl.load(x_rows + k + HALF, mask=there, other=0.0)
            tile = tl.load(code_tile + (byte + tl.arange(0, BK))[:, None] * N)
            scale = tl.load(scale_row + group * N)
            sums = tile_product(sums, low_x, high_x, tile, scale, SCALE_SUMS)
        sums *= tl.load(weights + pair, mask=pair < pairs, other=0.0)[:, None]
        tl.store(out + pair[:, None] * N + columns[None, :], sums.to(out.dtype.element_ty), mask=there)


@triton.jit
def combine_kernel(x, out, columns, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < columns
    sums = tl.zeros([BLOCK], tl.float32)
    for slot in range(TOP_K):
        row = tl.load(x + (token * TOP_K + slot) * columns + at, mask=there, other=0.0)
        sums += row.to(tl.float32)
    tl.store(out + token * columns + at, sums.to(out.dtype.element_ty), mask=there)


class Layer:
    def __init__(self, args, seed):
        generator = torch.Generator(args.device).manual_seed(seed)
        width, experts = (args.hidden, args.intermediate), args.experts

        def codes(*shape):
            return torch.randint(256, shape, dtype=torch.uint8, device=args.device, generator=generator)

        def scales(*shape):  # about 0.002, as in ferrum's bench
            values = torch.rand(shape, device=args.device, generator=generator)
            return (2.0**-9 * (1 + values / 4)).to(torch.float16)

        hidden, inner = width
        self.gate_up = codes(experts, 2, hidden // 2, inner)
        self.gate_up_scales = scales(experts, 2, hidden // peer.GROUP, inner)
        self.down = codes(experts, inner // 2, hidden)
        self.down_scales = scales(experts, inner // peer.GROUP, hidden)

    def matrices(self, expert):
        gate, up = (unpack(self.gate_up[expert, i], self.gate_up_scales[expert, i]) for i in range(2))
        return gate, up, unpack(self.down[expert], self.down_scales[expert])


def unpack(codes, scales):
    """f64 [N, K] of bytes [K/2, N]."""
    groups = codes.cpu().reshape(-1, HALF.value, codes.shape[1])
    values = torch.cat([groups & 15, groups >> 4], dim=1).double() - 8
    return (values * scales.double().cpu()[:, None, :]).reshape(-1, codes.shape[1]).T


class Moe:
    """Scratch and kernels for one token count."""

    def __init__(self, args, tokens):
        self.args, self.tokens, self.pairs = args, tokens, tokens * args.top_k

        def empty(*shape, kind=torch.float16):
            return torch.empty(shape, dtype=kind, device=args.device)

        self.x = torch.randn(tokens, args.hidden, device=args.device).to(torch.float16)
        self.out, self.inner = empty(tokens, args.hidden), empty(self.pairs, args.intermediate)
        self.outer = empty(self.pairs, args.hidden)
        self.counts = empty(args.experts, kind=torch.int32)
        self.rows = empty(self.pairs + (args.experts + 1) * 128, kind=torch.int32)
        self.owners = empty(self.pairs + args.experts, kind=torch.int32)
        self.used = empty(1, kind=torch.int32)

    def blocks(self, rows):
        return self.pairs if rows == 1 else min(self.pairs, triton.cdiv(self.pairs, rows) + self.args.experts)

    def plan(self, ids, rows):
        if rows == 1:
            return
        grid, chunk = (self.args.experts,), 1024 if self.pairs >= 1024 else 128
        count_kernel[grid](ids, self.counts, self.pairs, CHUNK=chunk)
        place_kernel[grid](
            ids, self.counts, self.rows, self.owners, self.used, self.pairs,
            EXPERTS=self.args.experts, BM=rows, CHUNK=chunk,
        )  # fmt: skip

    def products(self, layer, ids, weights, rows, first, second):
        args = self.args
        for up, config in ((True, first), (False, second)):
            bn, bk, scale_sums, warps, stages = config
            width = args.intermediate if up else args.hidden
            common = dict(
                N=width, ALONE=rows == 1, BM=max(16, rows), BN=bn, BK=bk,
                SCALE_SUMS=scale_sums, num_warps=warps, num_stages=stages,
            )  # fmt: skip
            grid = (self.blocks(rows) * (width // bn),)
            where = (self.rows, self.owners, self.used, ids, self.pairs)
            if up:
                gate_up_kernel[grid](
                    self.x, layer.gate_up, layer.gate_up_scales, self.inner, *where,
                    TOP_K=args.top_k, K=args.hidden, **common,
                )  # fmt: skip
            else:
                down_kernel[grid](
                    self.inner, layer.down, layer.down_scales, self.outer, weights, *where,
                    K=args.intermediate, **common,
                )  # fmt: skip

    def forward(self, layer, ids, weights, choice):
        rows, first, second = choice
        self.plan(ids, rows)
        self.products(layer, ids, weights, rows, first, second)
        grid = (self.tokens, triton.cdiv(self.args.hidden, 1024))
        combine_kernel[grid](self.outer, self.out, self.args.hidden, TOP_K=self.args.top_k, BLOCK=1024)


def candidates(tokens):
    """(rows of a block or 1 for pairs alone, [configuration]): BN, BK, scaled sums, warps, stages."""
    few = [(32, 64, False, 4, 4), (32, 64, True, 4, 4), (64, 64, False, 4, 4), (64, 64, True, 4, 5),
           (64, 32, False, 4, 5), (128, 64, False, 4, 4), (128, 32, False, 8, 4)]  # fmt: skip
    many = [(64, 64, False, 4, 3), (128, 64, False, 4, 3), (128, 64, False, 8, 3), (128, 64, True, 8, 3),
            (128, 32, False, 4, 4), (64, 64, True, 4, 4)]  # fmt: skip
    if tokens <= 8:
        return [(1, few), (16, few)]
    if tokens <= 128:
        return [(16, few), (32, few)]
    if tokens <= 1024:
        return [(32, many), (64, many), (16, few[:3])]
    return [(128, many), (64, many)]


class Tuner:
    """Tries configurations until its time is up. Each kind of token count has a quarter of it."""

    def __init__(self, seconds):
        self.seconds, self.left, self.chosen = seconds, {}, {}

    def choose(self, moe, layers, routings):
        if moe.tokens not in self.chosen:
            options = candidates(moe.tokens)
            left = self.left.get(options[0][0], self.seconds / 4)
            began = time.monotonic()
            self.chosen[moe.tokens] = self.search(moe, layers, routings, options, began + left * 0.6)
            self.left[options[0][0]] = left - (time.monotonic() - began)
        return self.chosen[moe.tokens]

    def search(self, moe, layers, routings, options, end):
        best, best_us = None, float("inf")
        for rows, configs in options:
            here, here_us = [configs[0], configs[0]], float("inf")
            for part in range(2):  # first gate and up, then down
                for config in configs:
                    if best is not None and time.monotonic() > end:
                        return best
                    trial = list(here)
                    trial[part] = config
                    us = self.time(moe, layers, routings, (rows, *trial))
                    if us < here_us:
                        here, here_us = trial, us
                    if us < best_us:
                        best, best_us = (rows, *trial), us
        if best is None:
            raise RuntimeError("no configuration works")
        return best

    @staticmethod
    def time(moe, layers, routings, choice):
        def step():
            for layer, (ids, weights) in zip(layers, routings):
                moe.forward(layer, ids, weights, choice)

        try:
            return min(peer.times_us(peer.capture(step, moe.args.device), 0.01, moe.args.device))
        except (triton.runtime.errors.OutOfResources, triton.compiler.errors.CompilationError):
            return float("inf")


def main():
    args = peer.arguments()
    layers = [Layer(args, i) for i in range(args.layers)]
    tuner = Tuner(args.tuning)

    @torch.inference_mode()
    def measure(tokens):
        moe = Moe(args, tokens)
        calls = peer.calls_of(tokens, args)
        routings = [peer.routing(tokens, args, i) for i in range(calls)]
        choice = tuner.choose(moe, layers, routings)

        def step():
            for i, (ids, weights) in enumerate(routings):
                moe.forward(layers[i % args.layers], ids, weights, choice)

        rows = min(tokens, peer.ORACLE_TOKENS)
        ids, weights = (part[:rows] for part in routings[0])
        wanted = peer.reference(moe.x[:rows], ids, weights, layers[0].matrices)
        moe.forward(layers[0], *routings[0], choice)
        error = peer.worst_error(moe.out, wanted)
        micros = peer.times_us(peer.capture(step, args.device), args.seconds, args.device)
        return [us / calls for us in micros], error, str(choice).replace(" ", "")

    peer.serve(measure)


if __name__ == "__main__":
    main()
