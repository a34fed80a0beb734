# SPDX-License-Identifier: MIT
"""Writes the folder models/tiny-qwen3moe-gptq from build/checkpoint.pt: 4-bit GPTQ, symmetric, groups of 128.

This is the algorithm of the GPTQ paper (arXiv 2210.17323): a matrix is rounded column by column, and the error of each
column is pushed into the columns not rounded yet, as far as their inputs correlate. Columns are taken in the order of
falling input energy, but with group scales fixed beforehand, so g_idx stays 0,0,...,1,1,... (desc_act is false).
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from calibrate import calibration_windows, load_checkpoint, record_gram_matrices
from common import ADDED_TOKENS, BUILD, CONTROL_TOKENS, MODELS

BITS, GROUP_SIZE = 4, 128
ZERO = 8                    # symmetric: codes 0..15 stand for -8..7 times the scale
STORED_ZEROS = 0x77777777   # checkpoint_format "gptq" stores zeros minus one


def group_scales(weight, importance):
    """f16 scales [N, groups]: for each group of each row the scale with the least weighted rounding error."""
    rows, columns = weight.shape
    w = weight.reshape(rows, columns // GROUP_SIZE, GROUP_SIZE)
    cost = importance.reshape(1, -1, GROUP_SIZE)
    peak = np.abs(w).max(-1)
    best_error, best = np.full(peak.shape, np.inf), np.zeros(peak.shape)
    for shrink in np.linspace(0.45, 1.0, 56):
        scale = (peak * shrink / 7.5).astype(np.float16).astype(np.float64)
        scale = np.maximum(scale, 2.0 ** -24)       # the least f16 above zero: a zero row must not divide by zero
        q = np.clip(np.rint(w / scale[..., None]), -8, 7)
        error = (cost * (w - q * scale[..., None]) ** 2).sum(-1)
        better = error < best_error
        best_error, best = np.where(better, error, best_error), np.where(better, scale, best)
    return best


def gptq(weight, gram, damp=0.01):
    """(codes uint8 [N, K], scales f64 [N, groups]) for weight [N, K] and the inputs' X^T X [K, K]."""
    weight = weight.astype(np.float64)
    columns = weight.shape[1]
    hessian = gram.copy()
    hessian[np.diag_indices(columns)] += damp * np.mean(np.diag(hessian)) + 1e-12
    scales = group_scales(weight, np.diag(hessian))

    order = np.argsort(-np.diag(hessian), kind="stable")
    work = weight[:, order].copy()
    # Row c of this upper triangular factor tells how the columns after c should answer to an error in column c.
    inverse = np.linalg.inv(hessian[np.ix_(order, order)])
    upper = np.linalg.cholesky(inverse).T
    codes = np.zeros(weight.shape, np.uint8)
    for c, column in enumerate(order):
        scale = scales[:, column // GROUP_SIZE]
        q = np.clip(np.rint(work[:, c] / scale), -ZERO, 15 - ZERO)
        codes[:, column] = q + ZERO
        error = (work[:, c] - q * scale) / upper[c, c]
        work[:, c + 1:] -= np.outer(error, upper[c, c + 1:])
    return codes, scales


def pack(codes, scales):
    """The four tensors of one linear layer. Eight codes of one output column, neighbours along K, share a word."""
    rows, columns = codes.shape
    groups = columns // GROUP_SIZE
    shifts = np.arange(0, 32, BITS, dtype=np.uint32)
    words = (codes.T.reshape(columns // 8, 8, rows).astype(np.uint32) << shifts[None, :, None]).sum(1, dtype=np.uint32)
    return {
        "qweight": words.view(np.int32),
        "qzeros": np.full((groups, rows // 8), STORED_ZEROS, np.int32),
        "scales": scales.T.astype(np.float16),
        "g_idx": (np.arange(columns) // GROUP_SIZE).astype(np.int32),
    }


def quantize_model(model, windows):
    """All linear layers but router and head. Each is calibrated on inputs that have already passed through the
    quantised layers before it, so later layers make up for what earlier ones lost."""
    tensors = {}
    report = []

    def quantize(name, parameter, rows, gram):
        weight = parameter.detach()[rows].numpy()
        codes, scales = gptq(weight, gram)
        rounded = (codes.astype(np.float64) - ZERO) * np.repeat(scales, GROUP_SIZE, axis=1)
        delta = rounded - weight
        output_error = np.sqrt(np.einsum("nk,kl,nl->", delta, gram, delta) / np.einsum("nk,kl,nl->", weight, gram, weight))
        report.append(output_error)
        with torch.no_grad():
            parameter[rows] = torch.as_tensor(rounded, dtype=parameter.dtype)
        for kind, value in pack(codes, scales).items():
            tensors[f"{name}.{kind}"] = value

    everything = slice(None)
    inner = model.config.moe_intermediate_size
    for i, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{i}."
        attention, experts = layer.self_attn, layer.mlp.experts
        grams = record_gram_matrices(model, windows, [i])
        for role in ("q", "k", "v"):
            quantize(f"{prefix}self_attn.{role}_proj", getattr(attention, f"{role}_proj").weight, everything,
                     grams[i, "attn", None])
        grams = record_gram_matrices(model, windows, [i])
        quantize(f"{prefix}self_attn.o_proj", attention.o_proj.weight, everything, grams[i, "o", None])
        grams = record_gram_matrices(model, windows, [i])
        for e in range(model.config.num_experts):
            name = f"{prefix}mlp.experts.{e}."
            stack = experts.gate_up_proj[e]         # a view: what quantize() writes lands in the model
            quantize(name + "gate_proj", stack, slice(0, inner), grams[i, "ffn", e])
            quantize(name + "up_proj", stack, slice(inner, 2 * inner), grams[i, "ffn", e])
        grams = record_gram_matrices(model, windows, [i])
        for e in range(model.config.num_experts):
            quantize(f"{prefix}mlp.experts.{e}.down_proj", experts.down_proj[e], everything, grams[i, "down", e])
        print(f"layer {i}: relative output errors up to {max(report):.4f}, mean {np.mean(report):.4f}", flush=True)
        report.clear()
        for name, module in (("input_layernorm", layer.input_layernorm), ("mlp.gate", layer.mlp.gate),
                             ("post_attention_layernorm", layer.post_attention_layernorm),
                             ("self_attn.q_norm", attention.q_norm), ("self_attn.k_norm", attention.k_norm)):
            tensors[f"{prefix}{name}.weight"] = module.weight.detach().numpy().astype(np.float16)
    tensors["model.embed_tokens.weight"] = model.model.embed_tokens.weight.detach().numpy().astype(np.float16)
    tensors["model.norm.weight"] = model.model.norm.weight.detach().numpy().astype(np.float16)
    return tensors


def write_configs(folder, config):
    quantization = {"bits": BITS, "group_size": GROUP_SIZE, "desc_act": False, "sym": True, "lm_head": False,
                    "quant_method": "gptq", "checkpoint_format": "gptq"}
    end = config.eos_token_id
    # Spelt out rather than written by transformers, so that readers of older config.json files find rope_theta.
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    write("config.json", {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "attention_bias": False, "attention_dropout": 0.0, "decoder_sparse_step": 1, "hidden_act": "silu",
        "head_dim": config.head_dim, "hidden_size": config.hidden_size, "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size, "max_position_embeddings": config.max_position_embeddings,
        "mlp_only_layers": [], "moe_intermediate_size": config.moe_intermediate_size,
        "norm_topk_prob": config.norm_topk_prob, "num_attention_heads": config.num_attention_heads,
        "num_experts": config.num_experts, "num_experts_per_tok": config.num_experts_per_tok,
        "num_hidden_layers": config.num_hidden_layers, "num_key_value_heads": config.num_key_value_heads,
        "output_router_logits": False, "rms_norm_eps": config.rms_norm_eps, "rope_scaling": None,
        "rope_theta": config.rope_parameters["rope_theta"], "router_aux_loss_coef": 0.01, "sliding_window": None,
        "tie_word_embeddings": True, "torch_dtype": "float16", "use_cache": True, "use_sliding_window": False,
        "vocab_size": config.vocab_size, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end,
        "quantization_config": quantization,
    })
    write("quantize_config.json", quantization)
    write("generation_config.json", {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "do_sample": True,
                                     "temperature": 0.7, "top_k": 40, "top_p": 0.95})
    added = {str(end + i): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
                            "single_word": False, "special": token in CONTROL_TOKENS}
             for i, token in enumerate(CONTROL_TOKENS + ADDED_TOKENS)}
    write("tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None,
        "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
        "errors": "replace", "model_max_length": config.max_position_embeddings, "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    })
    shutil.copyfile(BUILD / "tokenizer.json", folder / "tokenizer.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", help="as for train.py")
    parser.add_argument("--out", default=str(MODELS / "tiny-qwen3moe-gptq"))
    args = parser.parse_args()
    folder = Path(args.out)
    folder.mkdir(exist_ok=True)

    model, checkpoint = load_checkpoint()
    tensors = quantize_model(model, calibration_windows(128, args.text))
    # save_file() writes an array's memory as it lies; numpy's results are not always in row order.
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_configs(folder, model.config)
    print(f"{folder}: step {checkpoint['step']}, held-out loss before quantising {checkpoint['val_loss']:.4f}")


if __name__ == "__main__":
    main()
