"""Weights and a vocabulary -> a GGUF file that llama.cpp reads. By hand: it is sixty lines.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3. Numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 32
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
PLAIN = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}
TENSOR_TYPES = {"float32": 0, "float16": 1}


class Llama:
    """The shape of a model of llama's architecture, by the names of GGUF."""

    def __init__(
        self, vocabulary: int, dim: int = 128, layers: int = 4, heads: int = 4, kv: int = 2,
        ffn: int = 320, context: int = 4096,
    ) -> None:  # fmt: skip
        self.vocabulary, self.dim, self.layers = vocabulary, dim, layers
        self.heads, self.kv, self.ffn, self.context = heads, kv, ffn, context

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, rows first. There is no output matrix: the embeddings are it."""
        dim, narrow = self.dim, self.dim // self.heads * self.kv
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocabulary, dim)}
        for i in range(self.layers):
            shapes |= {
                f"blk.{i}.attn_norm.weight": (dim,),
                f"blk.{i}.attn_q.weight": (dim, dim),
                f"blk.{i}.attn_k.weight": (narrow, dim),
                f"blk.{i}.attn_v.weight": (narrow, dim),
                f"blk.{i}.attn_output.weight": (dim, dim),
                f"blk.{i}.ffn_norm.weight": (dim,),
                f"blk.{i}.ffn_gate.weight": (self.ffn, dim),
                f"blk.{i}.ffn_up.weight": (self.ffn, dim),
                f"blk.{i}.ffn_down.weight": (dim, self.ffn),
            }
        return {**shapes, "output_norm.weight": (dim,)}


def write(
    to: Path,
    name: str,
    shape: Llama,
    tokens: Sequence[str],
    merges: Sequence[str],
    weights: Mapping[str, Any],
) -> None:
    """`tokens` in the letters of GPT-2's byte alphabet, the special ones first."""
    kinds = [3 if t in SPECIAL else 1 for t in tokens]
    about: list[tuple[str, int, Any]] = [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, name),
        ("llama.context_length", U32, shape.context),
        ("llama.embedding_length", U32, shape.dim),
        ("llama.block_count", U32, shape.layers),
        ("llama.feed_forward_length", U32, shape.ffn),
        ("llama.attention.head_count", U32, shape.heads),
        ("llama.attention.head_count_kv", U32, shape.kv),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("llama.rope.dimension_count", U32, shape.dim // shape.heads),
        ("llama.rope.freq_base", F32, 10000.0),
        ("llama.vocab_size", U32, shape.vocabulary),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
        ("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
        ("tokenizer.ggml.bos_token_id", U32, 0),
        ("tokenizer.ggml.eos_token_id", U32, 2),
        ("tokenizer.ggml.padding_token_id", U32, 3),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
        ("tokenizer.chat_template", STRING, CHATML),
    ]
    header, data = b"", b""
    for key, shape_ in shape.tensors().items():
        kind = "float32" if len(shape_) == 1 else "float16"
        array = np.ascontiguousarray(weights[key], dtype=kind).reshape(shape_)
        sizes = struct.pack(f"<I{array.ndim}Q", array.ndim, *reversed(array.shape))
        header += _text(key) + sizes + struct.pack("<IQ", TENSOR_TYPES[kind], len(data))
        data += array.tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    said = b"".join(_text(k) + struct.pack("<I", kind) + _value(kind, v) for k, kind, v in about)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shape.tensors()), len(about)) + said + header
    to.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value)
    if kind == ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, x) for x in items)
    return struct.pack(PLAIN[kind], value)


def byte_alphabet() -> list[str]:
    """GPT-2's letters for the 256 bytes, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def random_model(to: Path, seed: int = 0, merges: Sequence[str] = ()) -> Path:
    """Random weights over single bytes: nothing but a constraint makes it say anything sensible.

    `10` is two tokens to it, unless `merges` say otherwise.
    """
    tokens = [*SPECIAL, *byte_alphabet(), *(m.replace(" ", "") for m in merges)]
    shape = Llama(len(tokens), dim=64, layers=2, heads=2, kv=1, ffn=128, context=16384)
    dice = np.random.default_rng(seed)
    weights = {
        key: np.ones(s) if len(s) == 1 else dice.standard_normal(s) / np.sqrt(s[-1])
        for key, s in shape.tensors().items()
    }
    weights["token_embd.weight"] *= 3  # so that some tokens are likelier than others
    write(to, "random", shape, tokens, merges or ["1 0"][:0], weights)
    return to


def read(path: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """Tokens, merges and weights of a file that `write` wrote. No other is understood."""
    about, weights = read_all(path)
    return about["tokenizer.ggml.tokens"], about["tokenizer.ggml.merges"], weights


def read_all(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that such a file says of itself, and its weights."""
    raw, at = path.read_bytes(), 24
    tensors, pairs = struct.unpack_from("<QQ", raw, 8)

    def number(kind: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(kind, raw, at)
        at += struct.calcsize(kind)
        return value

    def text() -> str:
        nonlocal at
        size = number("<Q")
        at += size
        return raw[at - size : at].decode()

    def value(kind: int) -> Any:
        if kind == STRING:
            return text()
        if kind == ARRAY:
            inner, size = number("<I"), number("<Q")
            return [value(inner) for _ in range(size)]
        return number(PLAIN[kind])

    about = {}
    for _ in range(pairs):
        key = text()
        about[key] = value(number("<I"))
    places = {}
    for _ in range(tensors):
        key = text()
        sizes = [number("<Q") for _ in range(number("<I"))]
        places[key] = (tuple(reversed(sizes)), number("<I"), number("<Q"))
    at += -at % ALIGNMENT
    kinds = {v: k for k, v in TENSOR_TYPES.items()}
    weights = {
        key: np.frombuffer(raw, kinds[kind], int(np.prod(size)), at + offset).reshape(size)
        for key, (size, kind, offset) in places.items()
    }
    return about, weights
