# SPDX-License-Identifier: MIT
"""What the peers of `ferrum bench moe` share: shapes, weights, routing, timing, the protocol.

A peer prints "ready", then for each token count read from its standard input one line with its
median time of one layer, "us=NUMBER" (and min, error, how). Like `ferrum bench moe` it rotates over
several layers with many routings, so that few tokens read memory and not a cache.
"""

import argparse
import statistics
import sys
import time

import torch

GROUP = 128
ROUTED_TOKENS = 2048  # routings for so many tokens in all, as in ferrum
ORACLE_TOKENS = 2


def arguments():
    """Command line: shapes as of Qwen3-30B-A3B."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--intermediate", type=int, default=768)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--calls", type=int, default=64, help="most calls in a graph")
    parser.add_argument("--seconds", type=float, default=0.2, help="time per request")
    parser.add_argument("--tuning", type=float, default=60, help="seconds for tuning, of a whole run")
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def synchronize(device):
    if device != "cpu":
        torch.cuda.synchronize()


def routing(tokens, args, seed):
    """ids i32 [tokens, top_k], distinct and uniform; weights f32 that add up to 1."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.rand(tokens, args.experts, generator=generator).topk(args.top_k).indices
    weights = 0.1 + torch.rand(tokens, args.top_k, generator=generator)
    weights = weights / weights.sum(1, keepdim=True)
    return ids.to(torch.int32).to(args.device), weights.to(args.device)


def calls_of(tokens, args):
    rounds = max(1, ROUTED_TOKENS // tokens // args.layers)
    return min(args.layers * rounds, max(args.layers, args.calls // args.layers * args.layers))


def reference(x, ids, weights, matrices):
    """f64, over dequantised weights; matrices(expert) gives gate, up [I, H] and down [H, I]."""
    out = torch.zeros(x.shape, dtype=torch.float64)
    x = x.double().cpu()
    for token, (row, share) in enumerate(zip(ids.tolist(), weights.double().cpu())):
        for slot, expert in enumerate(row):
            gate, up, down = matrices(expert)
            g = gate @ x[token]
            out[token] += share[slot] * (down @ (g * torch.sigmoid(g) * (up @ x[token])))
    return out


def worst_error(out, wanted):
    """The largest ||o - r|| / ||r|| over rows."""
    difference = out[: wanted.shape[0]].double().cpu() - wanted
    return (difference.norm(dim=1) / wanted.norm(dim=1)).max().item()


def capture(step, device):
    """One function that runs `step` again: from a graph where the device has them."""
    if device == "cpu":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def times_us(run, seconds, device, least=5):
    """Times of `run`, by the device's clock."""
    micros = []
    run()
    synchronize(device)
    began = time.monotonic()
    while len(micros) < least or time.monotonic() - began < seconds:
        if device == "cpu":
            start = time.perf_counter()
            run()
            micros.append((time.perf_counter() - start) * 1e6)
            continue
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        run()
        events[1].record()
        events[1].synchronize()
        micros.append(events[0].elapsed_time(events[1]) * 1e3)
    return micros


def serve(measure):
    """measure(tokens) gives the micros of calls, the error against f64 and a remark."""
    print("ready", flush=True)
    for line in sys.stdin:
        micros, error, how = measure(int(line))
        print(
            f"us={statistics.median(micros):.2f} min={min(micros):.2f} error={error:.1e} how={how}",
            flush=True,
        )
