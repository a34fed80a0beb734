# SPDX-License-Identifier: MIT
# The embedded model, how it was trained, and what it must say. Not installed.
EXTRA_DIST += \
	models/tiny-qwen3moe-q4_k.gguf \
	models/tiny-qwen3moe-gptq \
	models/README.md \
	models/expected.json \
	models/heldout.json \
	models/train/README.md \
	models/train/calibrate.py \
	models/train/common.py \
	models/train/export_gguf.py \
	models/train/export_gptq.py \
	models/train/kquants.py \
	models/train/loss.csv \
	models/train/make_expected.py \
	models/train/reference.py \
	models/train/requirements.txt \
	models/train/sample.py \
	models/train/train.py
