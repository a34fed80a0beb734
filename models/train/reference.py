# SPDX-License-Identifier: MIT
"""The reference result: transformers' Qwen3-MoE in float64 over the dequantised weights of a GGUF file or GPTQ folder.

Used by the exporters (expected.json) and by the scripts in tests/golden.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen3_moe


torch.set_num_threads(1)    # results that do not depend on the machine's number of cores, and no fight for them


# transformers computes norms, rotary angles and router probabilities in float32 even in a float64 model. These are
# the same formulas in the model's own type, so that the reference has float64's precision throughout.

def _norm_forward(self, hidden):
    return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def _router_forward(self, hidden):
    logits = F.linear(hidden.reshape(-1, self.hidden_dim), self.weight)
    weights, experts = torch.topk(torch.softmax(logits, dim=-1), self.top_k, dim=-1)
    if self.norm_topk_prob:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return logits, weights, experts


def _rotary_forward(self, x, position_ids):
    theta = self.config.rope_parameters["rope_theta"]
    half = self.config.head_dim // 2
    frequencies = theta ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = position_ids[..., None].to(x.dtype) * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def build_model(config, state):
    """A float64 model from a dict of config values and a dict of HF-named tensors with experts one by one."""
    for cls, forward in ((qwen3_moe.Qwen3MoeRMSNorm, _norm_forward),
                         (qwen3_moe.Qwen3MoeTopKRouter, _router_forward),
                         (qwen3_moe.Qwen3MoeRotaryEmbedding, _rotary_forward)):
        cls.forward = forward
    hf_config = Qwen3MoeConfig(**config)
    model = Qwen3MoeForCausalLM._from_config(hf_config, dtype=torch.float64, attn_implementation="sdpa",
                                             experts_implementation="eager")
    state = {name: torch.as_tensor(np.asarray(value, dtype=np.float64)) for name, value in state.items()}
    for i in range(hf_config.num_hidden_layers):
        prefix = f"model.layers.{i}.mlp.experts."
        take = lambda e, role: state.pop(f"{prefix}{e}.{role}_proj.weight")
        experts = range(hf_config.num_experts)
        state[prefix + "gate_up_proj"] = torch.stack([torch.cat([take(e, "gate"), take(e, "up")]) for e in experts])
        state[prefix + "down_proj"] = torch.stack([take(e, "down") for e in experts])
    if hf_config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model.eval()


# ---- GGUF ----

GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate_inp": "mlp.gate",
}
GGUF_TOP_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
                  "output.weight": "lm_head.weight"}


def load_gguf(path):
    """(config, state) of a GGUF file, decoded by the gguf package."""
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(path)

    def get(key, default=None):
        field = reader.fields.get("qwen3moe." + key)
        return default if field is None else field.contents()

    state = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in GGUF_TOP_NAMES:
            state[GGUF_TOP_NAMES[tensor.name]] = values
            continue
        _, layer, kind, _ = tensor.name.split(".")
        if kind.endswith("_exps"):
            role = kind.removeprefix("ffn_").removesuffix("_exps")
            for e, expert in enumerate(values):
                state[f"model.layers.{layer}.mlp.experts.{e}.{role}_proj.weight"] = expert
        else:
            state[f"model.layers.{layer}.{GGUF_LAYER_NAMES[kind]}.weight"] = values
    config = dict(
        vocab_size=len(state["model.embed_tokens.weight"]), hidden_size=get("embedding_length"),
        num_hidden_layers=get("block_count"), num_attention_heads=get("attention.head_count"),
        num_key_value_heads=get("attention.head_count_kv"), head_dim=get("attention.key_length"),
        num_experts=get("expert_count"), num_experts_per_tok=get("expert_used_count"),
        moe_intermediate_size=get("expert_feed_forward_length"),
        norm_topk_prob=get("expert_norm_topk_prob", True), rms_norm_eps=get("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=get("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": get("rope.freq_base", 1e6)},
        tie_word_embeddings="lm_head.weight" not in state,
    )
    return config, state


# ---- GPTQ ----

def unpack_columns(words, bits):
    """int32[r, c] -> codes[r, c * 32/bits]: each word holds neighbouring columns, lowest bits first (qzeros)."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words.view(np.uint32)[:, :, None] >> shifts) & ((1 << bits) - 1)
    return codes.reshape(words.shape[0], -1)


def unpack_rows(words, bits):
    """int32[r, c] -> codes[r * 32/bits, c]: each word holds neighbouring rows, lowest bits first (qweight)."""
    return unpack_columns(np.ascontiguousarray(words.T), bits).T


def gptq_dequantize(qweight, qzeros, scales, g_idx, bits, stored_minus_one):
    """float64 [N, K], as a linear layer stores its weight. K rows of codes, one scale and zero per group and column."""
    codes = unpack_rows(qweight, bits).astype(np.int64)
    zeros = unpack_columns(qzeros, bits).astype(np.int64) + (1 if stored_minus_one else 0)
    weight = (codes - zeros[g_idx]) * scales.astype(np.float64)[g_idx]
    return np.ascontiguousarray(weight.T)


def load_safetensors(folder):
    from safetensors.numpy import load_file

    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    tensors = {}
    for name in files:
        tensors |= load_file(folder / name)
    return tensors


def load_gptq(folder):
    """(config, state) of a GPTQ folder."""
    config = json.loads((Path(folder) / "config.json").read_text())
    quantization = config.pop("quantization_config")
    bits = quantization["bits"]
    stored_minus_one = quantization.get("checkpoint_format", "gptq") in ("gptq", "gptq_v1")
    tensors = load_safetensors(folder)
    state = {}
    for name, value in tensors.items():
        base, kind = name.rsplit(".", 1)
        if kind == "qweight":
            rows = value.shape[0] * 32 // bits
            group_size = quantization["group_size"] if quantization["group_size"] > 0 else rows
            g_idx = tensors.get(base + ".g_idx", np.arange(rows) // group_size)
            state[base + ".weight"] = gptq_dequantize(value, tensors[base + ".qzeros"], tensors[base + ".scales"], g_idx,
                                                      bits, stored_minus_one)
        elif kind == "weight":
            state[name] = value
    return config, state


def load_model(path):
    """The float64 model of a .gguf file or of a GPTQ folder."""
    return build_model(*(load_gptq(path) if Path(path).is_dir() else load_gguf(str(path))))


# ---- running it ----

@torch.no_grad()
def all_logits(model, ids):
    """Logits at every position, float64 [len(ids), vocab]."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


def greedy(model, ids, count):
    """Greedy continuation. Also the lead of the best logit over the second best at each step: where it is tiny, a
    correct program with other rounding may choose differently."""
    ids = list(ids)
    new, margins = [], []
    for _ in range(count):
        logits = all_logits(model, ids)[-1]
        second, first = np.sort(logits)[-2:]
        new.append(int(np.argmax(logits)))
        margins.append(float(first - second))
        ids.append(new[-1])
    return new, margins


def mean_nll(model, ids, window):
    """Mean negative log likelihood over windows of `window` inputs, each read afresh from position 0.

    Window i reads ids[i*window ... i*window + window - 1] and is scored on the ids one place further on; a last,
    incomplete window is left out."""
    total, count = 0.0, 0
    for start in range(0, len(ids) - window, window):
        logits = torch.as_tensor(all_logits(model, ids[start:start + window]))
        targets = torch.tensor(ids[start + 1:start + window + 1])
        total += F.cross_entropy(logits, targets, reduction="sum").item()
        count += window
    return total / count, count
