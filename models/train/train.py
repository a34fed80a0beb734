# SPDX-License-Identifier: MIT
"""Trains the embedded model: a tokenizer and a four-layer Qwen3-MoE on the King James text.

    python train.py --minutes 84            schedule fitted to a wall-clock budget (how the shipped weights were made)
    python train.py --steps 8000            schedule fitted to a number of steps (repeatable on one machine)

Writes build/tokenizer.json (kept when already there, so that token ids never move), build/checkpoint.pt (weights with
the lowest held-out loss so far), build/latest.pt and loss.csv.
"""

import argparse
import csv
import functools
import math
import os
import time

import torch
import torch.nn.functional as F
from transformers import Qwen3MoeForCausalLM

from common import BUILD, HERE, encode_chapters, load_tokenizer, model_config, read_chapters, split_chapters
from common import train_tokenizer

TOKENS_PER_STEP = 2048
SHORT, LONG = 256, 512      # three steps in four use short windows; the long ones keep positions past 256 usable


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--minutes", type=float, help="wall-clock budget")
    group.add_argument("--steps", type=int, help="number of optimizer steps")
    parser.add_argument("--text", help="output of `bible -f genesis1:1-revelation22:21` (default: run it)")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1611)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 matrix products (float32 weights)")
    parser.add_argument("--out", default=str(BUILD), help="folder of the checkpoints")
    parser.add_argument("--log", default=str(HERE / "loss.csv"))
    return parser.parse_args()


def prepare_for_training(model, probability):
    """Qwen3-MoE has no dropout on its residual branches, but this text is read over a dozen times."""
    def drop(module, _inputs, output):
        return F.dropout(output, probability, training=module.training)

    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.register_forward_hook(drop)
        layer.mlp.experts.forward = functools.partial(experts_forward, layer.mlp.experts)
    model.model.embed_tokens.register_forward_hook(drop)


def experts_forward(experts, hidden, selected, weights):
    """Qwen3MoeExperts.forward, but for unbind: indexing the stacked weights expert by expert, as transformers does,
    makes the backward pass fill a zero tensor as large as the whole stack for every expert."""
    result = torch.zeros_like(hidden)
    stacks = zip(experts.gate_up_proj.unbind(0), experts.down_proj.unbind(0))
    for expert, (gate_up_weight, down_weight) in enumerate(stacks):
        rows, slots = torch.where(selected == expert)
        gate, up = F.linear(hidden[rows], gate_up_weight).chunk(2, dim=-1)
        down = F.linear(F.silu(gate) * up, down_weight)
        result = result.index_add(0, rows, down * weights[rows, slots, None])
    return result


def balance_loss(router_logits, top_k):
    """Keeps the experts evenly used; 1 for each layer where they are.

    Layer by layer, unlike transformers' load_balancing_loss_func, which sums the layers up first: under that one an
    expert may die in one layer as long as another layer makes up for it, and some did.
    """
    total = 0.0
    for logits in router_logits:
        probabilities = logits.softmax(-1)
        counts = torch.bincount(logits.topk(top_k, dim=-1).indices.flatten(), minlength=logits.shape[-1])
        share = counts / counts.sum()
        total = total + logits.shape[-1] * (share * probabilities.mean(0)).sum()
    return total


def random_windows(ids, length, generator):
    count = TOKENS_PER_STEP // length
    starts = torch.randint(0, len(ids) - length - 1, (count,), generator=generator)
    windows = torch.stack([ids[s:s + length + 1] for s in starts])
    return windows[:, :-1], windows[:, 1:]


@torch.no_grad()
def held_out_loss(model, ids):
    """Mean loss over consecutive short windows of the held-out chapters (the same windows every time)."""
    model.eval()
    count = (len(ids) - 1) // SHORT
    inputs = ids[:count * SHORT].view(count, SHORT)
    targets = ids[1:count * SHORT + 1].view(count, SHORT)
    total = 0.0
    for i in range(0, count, 8):
        logits = model(input_ids=inputs[i:i + 8]).logits.float()
        total += F.cross_entropy(logits.flatten(0, 1), targets[i:i + 8].flatten(), reduction="sum").item()
    model.train()
    return total / (count * SHORT)


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out = BUILD if args.out == str(BUILD) else type(BUILD)(args.out)
    BUILD.mkdir(exist_ok=True)
    out.mkdir(exist_ok=True)

    train_text, held_out_text = split_chapters(read_chapters(args.text))
    if not (BUILD / "tokenizer.json").exists():
        train_tokenizer(train_text).save(str(BUILD / "tokenizer.json"), pretty=False)
    tokenizer = load_tokenizer()
    train_ids = torch.tensor(encode_chapters(tokenizer, train_text))
    held_out_ids = torch.tensor(encode_chapters(tokenizer, held_out_text))
    print(f"{len(train_ids)} training tokens, {len(held_out_ids)} held out", flush=True)

    config = model_config()
    model = Qwen3MoeForCausalLM._from_config(config, attn_implementation="sdpa", experts_implementation="eager")
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    # The branches' last matrices start smaller, so that the residual stream keeps its size whatever the depth.
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight /= math.sqrt(2 * config.num_hidden_layers)
            layer.mlp.experts.down_proj /= math.sqrt(2 * config.num_hidden_layers)
    prepare_for_training(model, args.dropout)
    model.train()

    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.95), fused=True)
    generator = torch.Generator().manual_seed(args.seed)

    log_file = open(args.log, "w", newline="")
    log = csv.writer(log_file, lineterminator="\n")
    log.writerow(["step", "tokens", "loss", "val_loss"])
    best = float("inf")
    running, running_count = 0.0, 0
    start = last_validation = time.monotonic()
    step = 0
    while True:
        elapsed = time.monotonic() - start
        progress = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        finished = progress >= 1
        validate = finished or (step % 400 == 0 if args.steps else time.monotonic() - last_validation > 150)
        if validate and step > 0:
            val_loss = held_out_loss(model, held_out_ids)
            last_validation = time.monotonic()
            log.writerow([step, step * TOKENS_PER_STEP, f"{running / running_count:.4f}", f"{val_loss:.4f}"])
            log_file.flush()
            print(f"step {step} loss {running / running_count:.4f} val {val_loss:.4f} "
                  f"{step * TOKENS_PER_STEP / (last_validation - start):.0f} tokens/s", flush=True)
            running, running_count = 0.0, 0
            names = ["latest.pt"]
            if val_loss < best:
                best = val_loss
                names.append("checkpoint.pt")
            for name in names:      # written aside first: an exporter may be reading the old one
                torch.save({"step": step, "val_loss": val_loss, "model": model.state_dict()}, out / (name + ".part"))
                os.replace(out / (name + ".part"), out / name)
        if finished:
            break

        warm_up = min(1.0, (step + 1) / 100)
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm_up * (0.01 + 0.99 * cosine)

        inputs, targets = random_windows(train_ids, LONG if step % 4 == 3 else SHORT, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            output = model(input_ids=inputs, output_router_logits=True, use_cache=False)
            loss = F.cross_entropy(output.logits.flatten(0, 1).float(), targets.flatten())
            balance = balance_loss(output.router_logits, config.num_experts_per_tok)
            total = loss + 0.01 * balance
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running += loss.item()
        running_count += 1
        step += 1
        if step in (1, 10, 50) or step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} balance {balance.item() / config.num_hidden_layers:.3f} "
                  f"{step * TOKENS_PER_STEP / (time.monotonic() - start):.0f} tokens/s", flush=True)
    print(f"done: {step} steps, best held-out loss {best:.4f}", flush=True)


if __name__ == "__main__":
    main()
