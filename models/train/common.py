# SPDX-License-Identifier: MIT
"""What the training script and the exporters share: the text, the tokenizer and the model's shape."""

import hashlib
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent
BUILD = HERE / "build"          # checkpoints and the trained tokenizer; ignored by git

VOCAB_SIZE = 4096

# The first three are control tokens, as in Qwen. The last two are ordinary added tokens (not "special"), also as
# in Qwen3: a tokenizer must match both kinds inside the text but may only hide the first kind when decoding.
CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED_TOKENS = ["<think>", "</think>"]

# Qwen2's pre-tokenizer pattern: contractions, words, single digits, punctuation runs, line breaks, other white space.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def model_config():
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=512,           # of a dense layer; this model has none, but the key is expected
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=256,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        initializer_range=0.03,
        attention_bias=False,
        bos_token_id=None,
        eos_token_id=VOCAB_SIZE - len(CONTROL_TOKENS) - len(ADDED_TOKENS),
        pad_token_id=VOCAB_SIZE - len(CONTROL_TOKENS) - len(ADDED_TOKENS),
    )


def read_chapters(path=None):
    """The King James text as a list of chapters, one verse per line.

    `path` is the output of `bible -f genesis1:1-revelation22:21` (Debian: bible-kjv-text); without it the program
    itself is run. Each line there begins with a reference such as "Ge1:1 ", which is dropped.
    """
    if path:
        text = Path(path).read_text(encoding="utf-8")
    else:
        text = subprocess.run(["bible", "-f", "genesis1:1-revelation22:21"], check=True, capture_output=True,
                              text=True).stdout
    chapters = {}
    for line in text.splitlines():
        match = re.match(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)", line)
        if not match:
            raise SystemExit(f"not a verse: {line!r}")
        verse = re.sub(r"\s+", " ", match[4]).strip()
        chapters.setdefault((match[1], int(match[2])), []).append(verse)
    return ["\n".join(verses) + "\n" for verses in chapters.values()]


def split_chapters(chapters):
    """Every 40th chapter is held out; whole chapters, so that no held-out verse stands in a training window."""
    train = [c for i, c in enumerate(chapters) if i % 40 != 7]
    held_out = [c for i, c in enumerate(chapters) if i % 40 == 7]
    return train, held_out


def train_tokenizer(texts):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import trainers

    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(CONTROL_TOKENS) - len(ADDED_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),   # all 256 bytes: nothing is ever unknown
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Added after training, so that their ids follow the vocabulary's, as Qwen's do.
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ADDED_TOKENS])
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, tokenizer.get_vocab_size()
    return tokenizer


def load_tokenizer():
    from tokenizers import Tokenizer

    path = BUILD / "tokenizer.json"
    if not path.exists():       # nothing was trained here: use the shipped one
        path = MODELS / "tiny-qwen3moe-gptq" / "tokenizer.json"
    return Tokenizer.from_file(str(path))


def encode_chapters(tokenizer, chapters):
    """All chapters as one list of ids, each chapter closed by <|endoftext|>."""
    end = tokenizer.token_to_id("<|endoftext|>")
    ids = []
    for encoding in tokenizer.encode_batch(chapters):
        ids += encoding.ids + [end]
    return ids


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
