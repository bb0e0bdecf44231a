"""A GGUF file of ours -> a folder as Hugging Face has it, with the very same weights.

    python -m tests.models.hf_folder FROM.gguf FOLDER

So one model can be asked on llama.cpp and on vLLM, and what they say be compared. By hand, as the
GGUF is: a safetensors file is a line of JSON and the numbers after it.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.gguf_file import CHATML, SPECIAL, read_all

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def export(model: Path, to: Path) -> Path:
    """Write the folder, in single precision, from a file that `gguf_file.write` wrote."""
    about, weights = read_all(model)
    to.mkdir(parents=True, exist_ok=True)
    said = {
        "config.json": _config(about, weights),
        "generation_config.json": {"eos_token_id": 2, "pad_token_id": 3},
        "tokenizer.json": _tokenizer(about),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": CHATML,
            "clean_up_tokenization_spaces": False,
            "eos_token": SPECIAL[2],
            "pad_token": SPECIAL[3],
            "model_max_length": about["llama.context_length"],
        },
    }
    for name, content in said.items():
        (to / name).write_text(json.dumps(content, ensure_ascii=False, indent=1))
    (to / "model.safetensors").write_bytes(_safetensors(_renamed(about, weights)))
    return to


def _config(about: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(about["tokenizer.ggml.tokens"]),
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": about["llama.attention.head_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "max_position_embeddings": about["llama.context_length"],
        "rms_norm_eps": about["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": about["llama.rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }


def _tokenizer(about: dict[str, Any]) -> dict[str, Any]:
    tokens = about["tokenizer.ggml.tokens"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    level["use_regex"] = True
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": tokens.index(t), "content": t, "special": True, **plain} for t in SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [m.split(" ") for m in about["tokenizer.ggml.merges"]],
        },
    }


def _renamed(about: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    heads = about["llama.attention.head_count"]
    narrow = about["llama.attention.head_count_kv"]
    named = {}
    for key, array in weights.items():
        match key.split("."):
            case ["token_embd", _]:
                name = "model.embed_tokens.weight"
            case ["output_norm", _]:
                name = "model.norm.weight"
            case [_, layer, part, _]:
                name = f"model.layers.{layer}.{NAMES[part]}.weight"
                if part in {"attn_q", "attn_k"}:
                    array = _halved(array, heads if part == "attn_q" else narrow)
            case _:
                raise ValueError(f"no name for {key}")
        named[name] = np.ascontiguousarray(array, dtype="<f4")
    return named


def _halved(array: Any, heads: int) -> Any:
    """llama.cpp turns neighbours against each other, Hugging Face the halves of a head."""
    rows, columns = array.shape
    pairs = array.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _safetensors(weights: dict[str, Any]) -> bytes:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in weights.items():
        span = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": span}  # type: ignore[dict-item]
        data += array.tobytes()
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
