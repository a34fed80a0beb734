# SPDX-License-Identifier: MIT
"""Peer: the routed experts of one layer as a loop over experts in PyTorch, bf16 weights.

What a model's own Python code does. Which experts have rows is known on the host only, so no graph
can hold it: it is timed as it is launched. It reads four times the bytes of 4-bit weights.
"""

import torch

import peer

WEIGHT = 0.02


class Layer:
    def __init__(self, args, seed):
        generator = torch.Generator(args.device).manual_seed(seed)

        def matrix(rows, columns):
            shape = (args.experts, rows, columns)
            values = torch.empty(shape, dtype=torch.bfloat16, device=args.device)
            return values.normal_(std=WEIGHT, generator=generator)

        self.gate_up = matrix(2 * args.intermediate, args.hidden)
        self.down = matrix(args.hidden, args.intermediate)

    def matrices(self, expert):
        gate, up = self.gate_up[expert].double().cpu().chunk(2)
        return gate, up, self.down[expert].double().cpu()

    def forward(self, x, ids, weights):
        out = torch.zeros_like(x)
        for expert in ids.unique().tolist():
            token, slot = torch.where(ids == expert)
            gate, up = (x[token] @ self.gate_up[expert].T).chunk(2, dim=-1)
            rows = (torch.nn.functional.silu(gate) * up) @ self.down[expert].T
            out.index_add_(0, token, rows * weights[token, slot, None].to(rows.dtype))
        return out


def main():
    args = peer.arguments()
    layers = [Layer(args, i) for i in range(args.layers)]

    @torch.inference_mode()
    def measure(tokens):
        x = torch.randn(tokens, args.hidden, device=args.device).to(torch.bfloat16)
        routings = [peer.routing(tokens, args, i) for i in range(args.layers)]
        rows = min(tokens, peer.ORACLE_TOKENS)
        ids, weights = (part[:rows] for part in routings[0])
        wanted = peer.reference(x[:rows], ids, weights, layers[0].matrices)
        error = peer.worst_error(layers[0].forward(x, *routings[0]), wanted)

        def step():
            for layer, pairs in zip(layers, routings):
                layer.forward(x, *pairs)

        micros = peer.times_us(step, args.seconds, args.device, least=3)
        return [us / args.layers for us in micros], error, "eager"

    peer.serve(measure)


if __name__ == "__main__":
    main()
