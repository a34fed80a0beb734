# SPDX-License-Identifier: MIT
"""Where the scripts of this folder find each other's parts, and the one option they share."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1] / "models"
sys.path.insert(0, str(MODELS / "train"))       # reference.py, common.py


def output_folder(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: beside the script)")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    return folder
