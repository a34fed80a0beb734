#!/bin/sh
# SPDX-License-Identifier: MIT
# What cuda-evidence.tsv lets expect of one MoE layer on an H200, as a table for docs/performance.md.
# Nothing here is measured: times are bounds, the largest of
#
#   bytes     experts in use x bytes of an expert / bandwidth
#   issue     instructions of the main loops / issue slots of all multiprocessors
#   products  multiply-adds with the padding of tiles / rate of the matrix units
#
# Experts in use and tiles are the mean over uniform routing. Tiles are those that tile_choice.c
# takes. Two tables: 4-bit GPTQ, and Q4_0 with activations as they are and as int8. Launches, waiting, other instructions and uneven work are not in it.
set -eu
table=${1:-${0%/*}/cuda-evidence.tsv}
awk '
    BEGIN {
        FS = "\t"
        hidden = 2048; inner = 768; experts = 128; top_k = 8    # Qwen3-30B-A3B
        bandwidth = 4.3e12; schedulers = 132 * 4; clock = 1.755e9
        rate = 788e12 / 2                                       # multiply-adds of bf16
        weights = 3 * hidden * inner
    }
    /^#/ { next }
    $1 == "kernel" {
        for (i = 1; i <= NF; i++)
            column[$i] = i
        next
    }
    $column["weights"] != "-" {
        name = substr($1, 8)
        least[name] = $column["slots_least"]
        most[name] = $column["slots_most"]
    }
    function kernel_rows(tokens)
    {
        return tokens <= 8 ? 1 : tokens < 80 ? 8 : tokens < 192 ? 16 : tokens < 384 ? 32 : 64
    }
    function block_rows(tokens)
    {
        return tokens <= 8 ? 1 : tokens < 128 ? 8 : 32
    }
    # Mean over the experts: tiles of one (rows > 0), or the chance that it is in use (rows = 0).
    function tiles(tokens, rows,    n, p, chance, sum)
    {
        p = top_k / experts
        chance = exp(tokens * log(1 - p))
        sum = 0
        for (n = 1; n <= tokens; n++) {
            chance *= (tokens - n + 1) / n * p / (1 - p)
            sum += chance * (rows ? int((n + rows - 1) / rows) : 1)
        }
        return sum
    }
    function larger(a, b)
    {
        return a > b ? a : b
    }
    function bound(reading, issue, products)
    {
        return larger(larger(reading, issue), products)
    }
    # Microseconds of issue for a number of tiles by the slots of gate and up, and of down.
    function issue(count, up, down)
    {
        return count * weights / 256 * (2 * up + down) / 3 / schedulers / clock * 1e6
    }
    # bytes: of an expert; speed: of products, of those of bf16.
    function line(tokens, rows, prefix, bytes, speed,    act, count, up, down, low, high, products, reading, floor)
    {
        act = prefix == "int8_" ? "" : "_f16"
        up = prefix "gate_up_" rows act
        down = prefix rows act
        count = rows == 1 ? tokens * top_k : experts * tiles(tokens, rows)
        low = issue(count, least[up], least[down])
        high = issue(count, most[up], most[down])
        products = speed ? count * (rows < 8 ? 8 : rows) * weights / rate / speed * 1e6 : 0
        reading = experts * tiles(tokens, 0) * bytes / bandwidth * 1e6
        floor = larger(reading, tokens * top_k * weights / rate * 1e6)
        printf "| %d | %s%d | %.0f | %.1f | %.1f to %.1f | %.1f | %.1f to %.1f |\n", tokens, prefix, rows, count,
            reading, low, high, products, bound(reading, low, products) / floor,
            bound(reading, high, products) / floor
    }
    function head()
    {
        print "| tokens | kernels | tiles | bytes, us | issue, us | products, us | x floor, at least |"
        print "|---:|---|---:|---:|---:|---:|---:|"
    }
    END {
        head()
        w4 = weights / 2 + weights / 128 * 2    # codes, f16 scales
        n = split("1 2 4 8 16 32 64 128 512 4096", list, " ")
        for (i = 1; i <= n; i++)
            line(list[i], kernel_rows(list[i]), "w4_", w4, 1)
        line(1024, 64, "w4_wgmma_", w4, 1)
        line(4096, 128, "w4_wgmma_", w4, 1)
        print ""
        head()
        q4_0 = weights / 32 * 18
        n = split("1 8 32 128 512 4096", list, " ")
        for (i = 1; i <= n; i++) {
            rows = block_rows(list[i])
            line(list[i], rows, "gguf_", q4_0, 1)
            line(list[i], rows, "int8_", q4_0, rows == 1 ? 0 : 2)    # dp4a: its slots are all there is
        }
    }' "$table"
