# SPDX-License-Identifier: MIT
"""What the quantisers want to know about a layer's inputs: X^T X over some training text, for every matrix."""

import functools

import torch
import torch.nn.functional as F
from transformers import Qwen3MoeForCausalLM

from common import BUILD, encode_chapters, load_tokenizer, model_config, read_chapters, split_chapters

WINDOW = 256
torch.set_num_threads(1)    # results that do not depend on the machine's number of cores


def load_checkpoint():
    checkpoint = torch.load(BUILD / "checkpoint.pt", weights_only=True)
    model = Qwen3MoeForCausalLM._from_config(model_config(), attn_implementation="sdpa",
                                             experts_implementation="eager")
    model.load_state_dict(checkpoint["model"])
    return model.eval(), checkpoint


def calibration_windows(count, text=None):
    """`count` windows spread evenly over the training chapters."""
    train, _ = split_chapters(read_chapters(text))
    ids = torch.tensor(encode_chapters(load_tokenizer(), train))
    starts = torch.linspace(0, len(ids) - WINDOW, count).long()
    return torch.stack([ids[s:s + WINDOW] for s in starts])


@torch.no_grad()
def record_gram_matrices(model, windows, layers=None):
    """{(layer, role, expert): X^T X / rows} with roles "attn" (input of q, k, v), "o", "ffn" (input of gate, up)
    and "down"; expert is None for the attention. An expert only sees the tokens routed to it."""
    sums, rows = {}, {}

    def record(key, x):
        x = x.reshape(-1, x.shape[-1]).double()
        sums[key] = sums.get(key, 0) + x.T @ x
        rows[key] = rows.get(key, 0) + len(x)

    def experts_forward(layer, experts, hidden, selected, weights):
        result = torch.zeros_like(hidden)
        for e in range(experts.num_experts):
            tokens, slots = torch.where(selected == e)
            x = hidden[tokens]
            gate, up = F.linear(x, experts.gate_up_proj[e]).chunk(2, dim=-1)
            inner = F.silu(gate) * up
            record((layer, "ffn", e), x)
            record((layer, "down", e), inner)
            result.index_add_(0, tokens, F.linear(inner, experts.down_proj[e]) * weights[tokens, slots, None])
        return result

    hooks, experts_modules = [], []
    for i, layer in enumerate(model.model.layers):
        if layers is not None and i not in layers:
            continue
        for role, module in (("attn", layer.self_attn.q_proj), ("o", layer.self_attn.o_proj)):
            hooks.append(module.register_forward_pre_hook(lambda _m, args, key=(i, role, None): record(key, args[0])))
        layer.mlp.experts.forward = functools.partial(experts_forward, i, layer.mlp.experts)
        experts_modules.append(layer.mlp.experts)
    for batch in windows.split(8):
        model(input_ids=batch, use_cache=False)
    for hook in hooks:
        hook.remove()
    for module in experts_modules:
        del module.forward          # the class's own again
    return {key: (sums[key] / max(rows[key], 1)).numpy() for key in sums}
