# SPDX-License-Identifier: MIT
"""Writes models/tiny-qwen3moe-q4_k.gguf from build/checkpoint.pt, with the metadata and names that llama.cpp's
converter gives a Qwen3-MoE."""

import argparse
import json

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, LlamaFileType, TokenType, dequantize

from calibrate import calibration_windows, load_checkpoint, record_gram_matrices
from common import ADDED_TOKENS, BUILD, CONTROL_TOKENS, MODELS, VOCAB_SIZE
from kquants import quantize_q4_k, quantize_q6_k

# Where the larger type pays most, as in llama.cpp's "M" mixes: the value projection, and expert_down in the outer
# layers. In the two inner layers it is Q4_K, which keeps the two model files together below 11.5 MB.
DOWN_Q6_K_LAYERS = (0, 3)


def add_metadata(writer, config):
    writer.add_type("model")
    writer.add_name("Ferrum tiny Qwen3-MoE")
    writer.add_description("A four-layer mixture of experts trained on the King James text, for tests and demonstrations")
    writer.add_size_label("8x1M")
    writer.add_license("mit")
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_quantization_version(2)


def add_tokenizer(writer):
    tokenizer = json.loads((BUILD / "tokenizer.json").read_text(encoding="utf-8"))
    ids = dict(tokenizer["model"]["vocab"]) | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    assert sorted(ids.values()) == list(range(VOCAB_SIZE))
    tokens = sorted(ids, key=ids.get)
    types = [TokenType.CONTROL if t in CONTROL_TOKENS else TokenType.USER_DEFINED if t in ADDED_TOKENS
             else TokenType.NORMAL for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    end = ids["<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_bos_token_id(end)
    writer.add_add_bos_token(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", help="as for train.py")
    parser.add_argument("--out", default=str(MODELS / "tiny-qwen3moe-q4_k.gguf"))
    args = parser.parse_args()

    model, checkpoint = load_checkpoint()
    config = model.config
    # Mean square of every input column, what llama.cpp calls an importance matrix. The floor keeps a column that the
    # calibration text happens to leave silent from being rounded to nothing.
    gram = record_gram_matrices(model, calibration_windows(128, args.text))
    column_weight = {key: np.diag(matrix) / np.mean(np.diag(matrix)) + 0.1 for key, matrix in gram.items()}

    writer = GGUFWriter(args.out, "qwen3moe")
    add_metadata(writer, config)
    add_tokenizer(writer)
    errors = {}

    def add(name, tensor, kind, importance=None):
        values = tensor.detach().float().numpy()
        if kind == Type.F32:
            writer.add_tensor(name, values)
            return
        quantize = {Type.Q4_K: quantize_q4_k, Type.Q6_K: quantize_q6_k}[kind]
        if values.ndim == 3:        # stacked experts: each has its own importance
            blocks = np.stack([quantize(v, i) for v, i in zip(values, importance)])
        else:
            blocks = quantize(values, importance)
        back = dequantize(blocks, kind)
        assert back.shape == values.shape
        errors.setdefault(kind.name, []).append(np.linalg.norm(back - values) / np.linalg.norm(values))
        writer.add_tensor(name, blocks, raw_dtype=kind)

    add("token_embd.weight", model.model.embed_tokens.weight, Type.Q6_K)
    add("output_norm.weight", model.model.norm.weight, Type.F32)
    inner = config.moe_intermediate_size
    for i, layer in enumerate(model.model.layers):
        attention, experts = layer.self_attn, layer.mlp.experts
        weights_of = lambda role: [column_weight[i, role, e] for e in range(config.num_experts)]
        add(f"blk.{i}.attn_norm.weight", layer.input_layernorm.weight, Type.F32)
        add(f"blk.{i}.attn_q.weight", attention.q_proj.weight, Type.Q4_K, column_weight[i, "attn", None])
        add(f"blk.{i}.attn_k.weight", attention.k_proj.weight, Type.Q4_K, column_weight[i, "attn", None])
        add(f"blk.{i}.attn_v.weight", attention.v_proj.weight, Type.Q6_K, column_weight[i, "attn", None])
        add(f"blk.{i}.attn_output.weight", attention.o_proj.weight, Type.Q4_K, column_weight[i, "o", None])
        add(f"blk.{i}.attn_q_norm.weight", attention.q_norm.weight, Type.F32)
        add(f"blk.{i}.attn_k_norm.weight", attention.k_norm.weight, Type.F32)
        add(f"blk.{i}.ffn_norm.weight", layer.post_attention_layernorm.weight, Type.F32)
        add(f"blk.{i}.ffn_gate_inp.weight", layer.mlp.gate.weight, Type.F32)
        add(f"blk.{i}.ffn_gate_exps.weight", experts.gate_up_proj[:, :inner], Type.Q4_K, weights_of("ffn"))
        add(f"blk.{i}.ffn_up_exps.weight", experts.gate_up_proj[:, inner:], Type.Q4_K, weights_of("ffn"))
        add(f"blk.{i}.ffn_down_exps.weight", experts.down_proj,
            Type.Q6_K if i in DOWN_Q6_K_LAYERS else Type.Q4_K, weights_of("down"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: step {checkpoint['step']}, held-out loss before quantising {checkpoint['val_loss']:.4f}")
    for kind, values in errors.items():
        print(f"  {kind}: relative error of the weights {min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
