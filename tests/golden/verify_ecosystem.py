# SPDX-License-Identifier: MIT
"""Compares a program's reading of model files with transformers, tokenizers and the gguf package.

    verify_ecosystem.py --program PROGRAM [--prompt TEXT ...] [MODEL ...]

MODEL is a .gguf file or a GPTQ folder; without any, the two in models/ are taken. PROGRAM must understand

    PROGRAM --logits-json MODEL PROMPT     print {"tokens": [ids of PROMPT], "logits": [of the last position]}
    PROGRAM --dump-tensor MODEL NAME       write tensor NAME of a .gguf file to stdout, decoded, as little-endian f32

Exit status: 0 all within bounds, 1 not, 77 a Python package that is needed here is missing.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

try:
    import gguf
    import numpy as np
    import safetensors  # noqa: F401  (reference.py needs it)
    import tokenizers
    import torch        # noqa: F401
    import transformers
except ImportError as error:
    print(f"SKIP: Python package {error.name!r} is not installed")
    sys.exit(77)

from paths import MODELS
from reference import all_logits, load_model

PROMPTS = ["In the beginning", "And the LORD said unto Moses,", "Blessed are", "A"]


def relative_error(result, reference):
    """||result - reference|| / ||reference||"""
    norm = np.linalg.norm(reference)
    return float(np.linalg.norm(result - reference) / norm) if norm else float(np.linalg.norm(result))


def run(program, *arguments):
    command = [*shlex.split(program), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}: exit status {result.returncode}")
    return result.stdout


def gguf_tokenizer(path):
    """A HF tokenizer built from the vocabulary and merges in a GGUF file, by transformers' own converter."""
    return transformers.AutoTokenizer.from_pretrained(str(Path(path).parent), gguf_file=Path(path).name)


def encode(path, prompt, tokenizer_file):
    if tokenizer_file:
        return tokenizers.Tokenizer.from_file(str(tokenizer_file)).encode(prompt, add_special_tokens=False).ids
    if Path(path).is_dir():
        return tokenizers.Tokenizer.from_file(str(Path(path) / "tokenizer.json")).encode(prompt, add_special_tokens=False).ids
    return gguf_tokenizer(path).encode(prompt, add_special_tokens=False)


def check_logits(program, path, prompts, tokenizer_file, bound):
    model = load_model(path)
    good = True
    for prompt in prompts:
        output = json.loads(run(program, "--logits-json", path, prompt))
        ids = encode(path, prompt, tokenizer_file)
        if output["tokens"] != ids:
            print(f"FAIL {path}: {prompt!r}: tokens {output['tokens']}, expected {ids}")
            good = False
            continue
        reference = all_logits(model, ids)[-1]
        result = np.array(output["logits"], dtype=np.float64)
        if result.shape != reference.shape:
            print(f"FAIL {path}: {prompt!r}: {result.size} logits, expected {reference.size}")
            good = False
            continue
        error = relative_error(result, reference)
        ok = bool(np.isfinite(result).all()) and error <= bound
        good &= ok
        same = "same" if result.argmax() == reference.argmax() else "other"
        print(f"{'ok  ' if ok else 'FAIL'} {path}: {prompt!r}: relative error {error:.3e} (bound {bound:.0e}), largest "
              f"{np.abs(result - reference).max():.3e}, {same} best token")
    return good


def check_tensors(program, path, bound):
    worst, worst_name, count, good = 0.0, "", 0, True
    for tensor in gguf.GGUFReader(path).tensors:
        reference = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).ravel()
        result = np.frombuffer(run(program, "--dump-tensor", path, tensor.name), "<f4").astype(np.float64)
        count += 1
        if result.shape != reference.shape:
            print(f"FAIL {path}: {tensor.name}: {result.size} values, expected {reference.size}")
            good = False
            continue
        error = relative_error(result, reference)
        if not error <= bound:      # written so that NaN fails
            print(f"FAIL {path}: {tensor.name} ({tensor.tensor_type.name}): relative error {error:.3e}")
            good = False
        if error >= worst:
            worst, worst_name = error, tensor.name
    print(f"{'ok  ' if good else 'FAIL'} {path}: {count} tensors, worst relative error {worst:.3e} ({worst_name}, "
          f"bound {bound:.0e})")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="command, may have arguments of its own")
    parser.add_argument("--prompt", action="append", help="may be repeated; default: a few that suit the embedded model")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to use instead of the model's own")
    parser.add_argument("--logits-bound", type=float, default=2e-2,
                        help="largest relative error of logits (default %(default)s: 8-bit activations)")
    parser.add_argument("--tensor-bound", type=float, default=1e-6, help="of decoded tensors (default %(default)s)")
    parser.add_argument("--no-tensors", action="store_true", help="skip --dump-tensor")
    parser.add_argument("model", nargs="*")
    args = parser.parse_args()
    models = args.model or [MODELS / "tiny-qwen3moe-q4_k.gguf", MODELS / "tiny-qwen3moe-gptq"]

    good = True
    for path in models:
        try:
            good &= check_logits(args.program, path, args.prompt or PROMPTS, args.tokenizer, args.logits_bound)
            if not args.no_tensors and not Path(path).is_dir():
                good &= check_tensors(args.program, path, args.tensor_bound)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            print(f"FAIL {path}: {error}")
            good = False
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
