#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes all golden files anew; with --check makes them in a scratch directory and compares them with the committed ones.
# Needs the packages of models/train/requirements.txt (PYTHON names the interpreter that has them); exits 77 without.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
"$python" -c 'import gguf, numpy, safetensors, tokenizers, torch, transformers' 2>/dev/null || {
    echo "SKIP: $python lacks a package of models/train/requirements.txt"
    exit 77
}
out=$here
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
for script in gguf_blocks gptq_cases tiny_logits tokenizer_cases trained_logits; do
    "$python" -B "$here/make_$script.py" --out "$out"
done
[ "$out" = "$here" ] || "$python" -B "$here/compare.py" "$out" "$here"
