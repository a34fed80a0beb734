# SPDX-License-Identifier: MIT
"""Writes small random Qwen3-MoE models and, for each, NAME.logits.json and NAME.logits.bin: the logits at every
position of a 24-token sequence, by transformers in float64 over the dequantised weights."""

import json
import shutil

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType, quantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from make_gptq_cases import make_g_idx, make_zeros, pack_columns, pack_rows
from paths import output_folder
from common import QWEN2_PATTERN
from reference import all_logits, load_model

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, EXPERTS, TOP_K = 96, 64, 2, 4, 2, 16, 8, 2
LENGTH = 24
EPS, THETA, CONTEXT = 1e-6, 1e6, 128

# The visible ASCII characters but "~", the space (as byte-level BPE spells it), one merge and an end token.
TOKENS = [chr(c) for c in range(33, 126)] + ["\u0120", "th", "<|endoftext|>"]
MERGES = [("t", "h")]
END = len(TOKENS) - 1
assert len(TOKENS) == VOCAB


def random_weights(rng, inner):
    """HF-named float32 weights, sized so that logits spread over several units and routing is decided, not a tie."""
    normal = lambda *shape, size: (rng.standard_normal(shape) * size).astype(np.float32)
    norm = lambda n: (1 + 0.1 * rng.standard_normal(n)).astype(np.float32)
    state = {"model.embed_tokens.weight": normal(VOCAB, HIDDEN, size=0.4), "model.norm.weight": norm(HIDDEN)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        state[p + "input_layernorm.weight"] = norm(HIDDEN)
        state[p + "post_attention_layernorm.weight"] = norm(HIDDEN)
        state[p + "self_attn.q_norm.weight"] = norm(HEAD_DIM) * 1.5
        state[p + "self_attn.k_norm.weight"] = norm(HEAD_DIM) * 1.5
        state[p + "self_attn.q_proj.weight"] = normal(HEADS * HEAD_DIM, HIDDEN, size=0.15)
        state[p + "self_attn.k_proj.weight"] = normal(KV_HEADS * HEAD_DIM, HIDDEN, size=0.15)
        state[p + "self_attn.v_proj.weight"] = normal(KV_HEADS * HEAD_DIM, HIDDEN, size=0.15)
        state[p + "self_attn.o_proj.weight"] = normal(HIDDEN, HEADS * HEAD_DIM, size=0.15)
        state[p + "mlp.gate.weight"] = normal(EXPERTS, HIDDEN, size=0.25)
        for e in range(EXPERTS):
            state[f"{p}mlp.experts.{e}.gate_proj.weight"] = normal(inner, HIDDEN, size=0.2)
            state[f"{p}mlp.experts.{e}.up_proj.weight"] = normal(inner, HIDDEN, size=0.2)
            state[f"{p}mlp.experts.{e}.down_proj.weight"] = normal(HIDDEN, inner, size=0.2)
    return state


def write_gguf(path, state, inner, types, norm_topk_prob, tied, rng):
    writer = GGUFWriter(path, "qwen3moe")
    writer.add_type("model")
    writer.add_name(path.stem)
    writer.add_vocab_size(VOCAB)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(TOP_K)
    writer.add_expert_feed_forward_length(inner)
    if not norm_topk_prob:      # absent means true, as in every published Qwen3-MoE file
        writer.add_bool("qwen3moe.expert_norm_topk_prob", False)
    writer.add_file_type(0)
    writer.add_quantization_version(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.NORMAL] * END + [TokenType.CONTROL])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)

    def add(name, values, kind):
        raw = quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(name, raw, raw_dtype=None if kind in (Type.F32, Type.F16) else kind)

    add("token_embd.weight", state["model.embed_tokens.weight"], types["embed"])
    add("output_norm.weight", state["model.norm.weight"], Type.F32)
    if not tied:
        add("output.weight", (rng.standard_normal((VOCAB, HIDDEN)) * 0.4).astype(np.float32), types["head"])
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        for short, name in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"),
                            ("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm"),
                            ("ffn_gate_inp", "mlp.gate")):
            add(f"blk.{i}.{short}.weight", state[f"{p}{name}.weight"], Type.F32)
        for short, name in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
            add(f"blk.{i}.attn_{short}.weight", state[f"{p}self_attn.{name}_proj.weight"], types["attention"][i])
        for role in ("gate", "up", "down"):
            stack = np.stack([state[f"{p}mlp.experts.{e}.{role}_proj.weight"] for e in range(EXPERTS)])
            add(f"blk.{i}.ffn_{role}_exps.weight", stack, types[role][i])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def round_to_gptq(weight, bits, group_size, symmetric, stored_minus_one, g_idx, rng):
    """Plain rounding of a [N, K] weight into GPTQ's four tensors; the reference reads them back."""
    w = weight.T.astype(np.float64)
    groups = w.shape[0] // group_size
    low, high = np.zeros((groups, w.shape[1])), np.zeros((groups, w.shape[1]))
    for g in range(groups):
        low[g], high[g] = w[g_idx == g].min(0), w[g_idx == g].max(0)
    top = (1 << bits) - 1
    scales = ((high - low) / top).astype(np.float16)
    if symmetric:
        zeros = make_zeros(scales.shape, bits, True, stored_minus_one, rng)
    else:
        zeros = np.clip(np.rint(-low / scales.astype(np.float64)), 1 if stored_minus_one else 0, top).astype(np.int64)
    codes = np.clip(np.rint(w / scales.astype(np.float64)[g_idx]) + zeros[g_idx], 0, top).astype(np.int64)
    return {"qweight": pack_rows(codes, bits), "qzeros": pack_columns(zeros - 1 if stored_minus_one else zeros, bits),
            "scales": scales, "g_idx": g_idx}


def write_tokenizer(path):
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(TOKENS[:END])}, merges=MERGES))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(TOKENS[END], special=True, normalized=False)])
    tokenizer.save(str(path), pretty=False)


def write_gptq(folder, state, inner, rng, *, bits, group_size, symmetric, desc_act, checkpoint_format, shared_order=False,
               norm_topk_prob=True):
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    stored_minus_one = checkpoint_format == "gptq"
    orders = {}

    def order(name, columns):
        """Matrices with the same input share their activation order, as GPTQ's Hessian makes them; experts only share
        it with each other when shared_order is set (GPTQ itself would not)."""
        role = "in" if name.endswith(("gate_proj", "up_proj")) else name.rsplit(".", 1)[1]
        parent = name.rsplit(".", 1)[0]
        if "self_attn" in name and not name.endswith("o_proj"):
            role = "qkv"
        if shared_order and "experts" in parent:
            parent = parent.rsplit(".", 1)[0]
        key = (parent, role)
        if key not in orders:
            orders[key] = make_g_idx(columns, group_size, desc_act, rng)
        return orders[key]

    tensors = {}
    for name, weight in state.items():
        base = name.removesuffix(".weight")
        if base.endswith("_proj"):
            parts = round_to_gptq(weight, bits, group_size, symmetric, stored_minus_one, order(base, weight.shape[1]), rng)
            tensors |= {f"{base}.{kind}": np.ascontiguousarray(value) for kind, value in parts.items()}
        else:
            tensors[name] = weight.astype(np.float16)
    quantization = {"bits": bits, "group_size": group_size, "desc_act": desc_act, "sym": symmetric, "lm_head": False,
                    "quant_method": "gptq", "checkpoint_format": checkpoint_format}
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    write("config.json", {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "attention_bias": False,
        "decoder_sparse_step": 1, "head_dim": HEAD_DIM, "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN, "max_position_embeddings": CONTEXT, "mlp_only_layers": [],
        "moe_intermediate_size": inner, "norm_topk_prob": norm_topk_prob, "num_attention_heads": HEADS,
        "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS, "rms_norm_eps": EPS, "rope_theta": THETA, "tie_word_embeddings": True,
        "torch_dtype": "float16", "vocab_size": VOCAB, "eos_token_id": END, "quantization_config": quantization})
    write("quantize_config.json", quantization)
    write("tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": TOKENS[END], "add_bos_token": False})
    write_tokenizer(folder / "tokenizer.json")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    return tensors


def write_sharded(source, folder, tensors):
    """The same model as `source` in two files and an index; a layer's tensors are spread over both."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    shards = [{}, {}]
    for i, (name, value) in enumerate(sorted(tensors.items())):
        shards[i * 2 // len(tensors)][name] = value
    # One matrix's own tensors end up in different files too; a reader must go by the index, not by the layer.
    moved = "model.layers.0.self_attn.q_proj.scales"
    home = 0 if moved in shards[0] else 1
    shards[1 - home][moved] = shards[home].pop(moved)
    weight_map = {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-00002.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")


def router_margin(model, ids):
    """The smallest gap between the last router logit chosen and the best one not chosen, over layers and positions:
    if it were tiny, correct programs could route differently."""
    import torch

    gaps = []
    hooks = [layer.mlp.gate.register_forward_hook(
        lambda _m, _i, out: gaps.append((lambda s: (s[:, -TOP_K] - s[:, -TOP_K - 1]).min().item())(out[0].sort(-1).values)))
        for layer in model.model.layers]
    with torch.no_grad():
        all_logits(model, ids)
    for hook in hooks:
        hook.remove()
    return min(gaps)


def write_logits(folder, name, path, rng):
    # Of some random sequences the one whose routing is decided most clearly, so that a program that rounds its
    # activations to 8 bits still takes the same experts.
    model = load_model(path)
    sequences = [[int(i) for i in rng.integers(0, END, LENGTH)] for _ in range(100)]
    margin, ids = max((router_margin(model, ids), ids) for ids in sequences)
    logits = all_logits(model, ids)
    (folder / f"{name}.logits.bin").write_bytes(logits.astype("<f4").tobytes())
    (folder / f"{name}.logits.json").write_text(json.dumps(
        {"model": path.name, "ids": ids, "rows": LENGTH, "vocab": VOCAB, "router_margin": round(margin, 6)}) + "\n")
    print(f"{name}: logits {logits.min():.2f} to {logits.max():.2f}, router margin {margin:.4f}")


def main():
    folder = output_folder(__doc__)

    for name, seed, norm_topk_prob, tied, types in (
        ("rand_q", 1, True, False, dict(
            embed=Type.F16, head=Type.F16, attention=[Type.F32, Type.F16],
            gate=[Type.Q4_0, Type.Q8_0], up=[Type.Q8_0, Type.Q4_0], down=[Type.Q8_0, Type.Q4_0])),
        ("rand_q_nonorm", 2, False, True, dict(
            embed=Type.F32, attention=[Type.F16, Type.Q8_0],
            gate=[Type.Q4_0, Type.Q4_0], up=[Type.Q4_0, Type.Q4_0], down=[Type.Q8_0, Type.Q8_0])),
    ):
        rng = np.random.default_rng([7, seed])
        path = folder / f"{name}.gguf"
        write_gguf(path, random_weights(rng, 32), 32, types, norm_topk_prob, tied, rng)
        write_logits(folder, name, path, rng)

    # 64 wide inside, so that down_proj too has two groups of 32 and an activation order worth the name.
    rng = np.random.default_rng([7, 3])
    tensors = write_gptq(folder / "rand_gptq", random_weights(rng, 64), 64, rng, bits=4, group_size=32, symmetric=False,
                         desc_act=True, checkpoint_format="gptq")
    write_logits(folder, "rand_gptq", folder / "rand_gptq", rng)
    write_sharded(folder / "rand_gptq", folder / "rand_gptq_sharded", tensors)
    # The same weights must give the same logits, so the sharded folder shares rand_gptq's golden file.
    assert (all_logits(load_model(folder / "rand_gptq_sharded"), [1, 2, 3])
            == all_logits(load_model(folder / "rand_gptq"), [1, 2, 3])).all()

    rng = np.random.default_rng([7, 4])
    write_gptq(folder / "rand_gptq_shared", random_weights(rng, 64), 64, rng, bits=4, group_size=32, symmetric=True,
               desc_act=True, checkpoint_format="gptq", shared_order=True, norm_topk_prob=False)
    write_logits(folder, "rand_gptq_shared", folder / "rand_gptq_shared", rng)

    rng = np.random.default_rng([7, 5])
    write_gptq(folder / "rand_gptq_v2", random_weights(rng, 32), 32, rng, bits=8, group_size=32, symmetric=False,
               desc_act=False, checkpoint_format="gptq_v2")
    write_logits(folder, "rand_gptq_v2", folder / "rand_gptq_v2", rng)


if __name__ == "__main__":
    main()
