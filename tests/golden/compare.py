# SPDX-License-Identifier: MIT
"""compare.py NEW OLD: are freshly made golden files those that are committed?

Everything must be equal byte for byte, but for logits (*.logits.bin, trained_logits.bin): those went through matrix
products, whose last digits depend on the BLAS; they may differ by 1e-6 of the largest.
"""

import sys
from pathlib import Path

import numpy as np


def main():
    new, old = map(Path, sys.argv[1:3])
    bad = 0
    files = sorted(p.relative_to(new) for p in new.rglob("*") if p.is_file())
    for name in files:
        if not (old / name).exists():
            problem = "not committed"
        elif name.name.endswith("logits.bin"):
            a, b = (np.frombuffer((folder / name).read_bytes(), "<f4") for folder in (new, old))
            same = a.shape == b.shape and np.abs(a - b).max() <= 1e-6 * np.abs(b).max()
            problem = None if same else "logits differ"
        else:
            problem = None if (new / name).read_bytes() == (old / name).read_bytes() else "differs"
        if problem:
            print(f"{name}: {problem}")
            bad += 1
    print(f"{len(files)} files compared, {bad} differ")
    sys.exit(1 if bad or not files else 0)


if __name__ == "__main__":
    main()
