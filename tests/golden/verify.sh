#!/bin/sh
# SPDX-License-Identifier: MIT
# The ecosystem's own readers agree with ours on the embedded model: logits of transformers, tensors
# of the gguf package. Needs their Python packages (models/train/requirements.txt); PYTHON names an
# interpreter that has them.
program=$FERRUM_TEST_BUILDDIR/tests/golden/ferrum-dump
command -v "${PYTHON:-python3}" >/dev/null || { echo "SKIP: no python3"; exit 77; }
FERRUM_BACKEND=cpu
export FERRUM_BACKEND
exec "${PYTHON:-python3}" "$FERRUM_TEST_SRCDIR/tests/golden/verify_ecosystem.py" \
    --program "$program" --logits-bound 1e-3
