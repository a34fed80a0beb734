# SPDX-License-Identifier: MIT
"""Writes models/heldout.json and models/expected.json: what a correct program must get from the two model files.

Everything is computed by transformers in float64 over the dequantised weights (see reference.py).
"""

import argparse
import json
import re

from calibrate import load_checkpoint
from common import MODELS, encode_chapters, load_tokenizer, read_chapters, split_chapters
from reference import build_model, greedy, load_model, mean_nll

PROMPTS = ["In the beginning", "And the LORD said unto Moses,", "Blessed are"]
NEW_TOKENS = 48
WINDOW = 256
WINDOWS = 6


def unquantised_model():
    """The checkpoint as a float64 model of the same kind, for comparison."""
    model, _ = load_checkpoint()
    config = model.config
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            for e, weight in enumerate(tensor):
                base = name.removesuffix("gate_up_proj") + str(e)
                state[f"{base}.gate_proj.weight"] = weight[:config.moe_intermediate_size]
                state[f"{base}.up_proj.weight"] = weight[config.moe_intermediate_size:]
        elif name.endswith("experts.down_proj"):
            for e, weight in enumerate(tensor):
                state[f"{name.removesuffix('down_proj')}{e}.down_proj.weight"] = weight
        elif name != "lm_head.weight":
            state[name] = tensor
    return build_model(config.to_dict(), state)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", help="as for train.py")
    args = parser.parse_args()
    tokenizer = load_tokenizer()

    _, held_out = split_chapters(read_chapters(args.text))
    passage = encode_chapters(tokenizer, held_out)[:WINDOW * WINDOWS + 1]
    (MODELS / "heldout.json").write_text(json.dumps({"window": WINDOW, "ids": passage}) + "\n")

    result = {"new_tokens": NEW_TOKENS, "heldout_window": WINDOW, "models": {}}
    for name, path in (("gguf", "tiny-qwen3moe-q4_k.gguf"), ("gptq", "tiny-qwen3moe-gptq"), ("unquantised", None)):
        model = load_model(MODELS / path) if path else unquantised_model()
        nll, count = mean_nll(model, passage, WINDOW)
        entry = {"path": path, "heldout_nll": round(nll, 6), "heldout_tokens": count}
        if path:
            entry["prompts"] = []
            for prompt in PROMPTS:
                ids = tokenizer.encode(prompt).ids
                new, margins = greedy(model, ids, NEW_TOKENS)
                entry["prompts"].append({
                    "prompt": prompt, "prompt_ids": ids, "new_ids": new,
                    "new_text": tokenizer.decode(new, skip_special_tokens=False),
                    "margins": [round(m, 6) for m in margins],
                })
        result["models"][name] = entry
        print(name, entry["heldout_nll"], flush=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    # One line per list of numbers: readable, and small diffs.
    text = re.sub(r"\[[\s\d.,e+-]+\]", lambda m: "[" + ", ".join(m[0][1:-1].replace(",", " ").split()) + "]", text)
    (MODELS / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
