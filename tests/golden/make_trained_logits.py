# SPDX-License-Identifier: MIT
"""Writes trained_logits.json and trained_logits.bin: final-position logits of the two trained model files for the
prompts of models/expected.json, by transformers in float64 over the dequantised weights."""

import json

import numpy as np

from paths import MODELS, output_folder
from reference import all_logits, load_model


def main():
    folder = output_folder(__doc__)
    expected = json.loads((MODELS / "expected.json").read_text(encoding="utf-8"))
    data, rows = bytearray(), []
    for name in ("gguf", "gptq"):
        entry = expected["models"][name]
        model = load_model(MODELS / entry["path"])
        for prompt in entry["prompts"]:
            logits = all_logits(model, prompt["prompt_ids"])[-1].astype("<f4")
            rows.append({"model": entry["path"], "prompt": prompt["prompt"], "ids": prompt["prompt_ids"],
                         "offset": len(data), "best": int(np.argmax(logits))})
            data += logits.tobytes()
    (folder / "trained_logits.bin").write_bytes(data)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    (folder / "trained_logits.json").write_text(f'{{"vocab": {len(logits)}, "rows": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    main()
