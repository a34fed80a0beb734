# SPDX-License-Identifier: MIT
"""Prints sampled text from a model file, to judge it by eye."""

import argparse

import numpy as np

from common import MODELS, load_tokenizer
from reference import all_logits, load_model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(MODELS / "tiny-qwen3moe-q4_k.gguf"))
    parser.add_argument("--prompt", default="And it came to pass")
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-k", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model, tokenizer = load_model(args.model), load_tokenizer()
    rng = np.random.default_rng(args.seed)
    ids = tokenizer.encode(args.prompt).ids
    for _ in range(args.tokens):
        logits = all_logits(model, ids)[-1] / args.temperature
        best = np.argsort(logits)[-args.top_k:]
        p = np.exp(logits[best] - logits[best].max())
        ids.append(int(rng.choice(best, p=p / p.sum())))
    print(tokenizer.decode(ids, skip_special_tokens=False))


if __name__ == "__main__":
    main()
