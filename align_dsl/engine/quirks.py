"""What servers do otherwise than their protocol has it, and what we do about it: one table.

A server is told by what it says of itself, never by its model or its port. One that says nothing
known is `PLAIN`, and is sent what the protocol says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Quirk:
    """One thing seen, where and when, and the way round it."""

    server: str
    seen: str  # the version in which it was seen
    trouble: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server is talked to."""

    server: str
    owned_by: str = ""  # what its list of models says
    header: str = ""  # what its `Server:` header begins with
    grammar: bool = False  # takes GBNF in `grammar`, instead of `response_format`
    masked: bool = True  # log-probabilities are of after the constraint: what is forbidden has none
    top: int = 20  # how many alternatives to a token it tells


PLAIN = Dialect("OpenAI-compatible")
LLAMA_CPP = Dialect("llama.cpp", "llamacpp", "llama.cpp", grammar=True, masked=False, top=256)
VLLM = Dialect("vLLM", "vllm")
OLLAMA = Dialect("Ollama", "library", masked=False)
DIALECTS = (LLAMA_CPP, VLLM, OLLAMA)

TOO_LONG = ("exceed_context_size_error", "context_length_exceeded", "maximum context length")
"""What servers say, with a status of 400, of a question that does not fit their window."""

QUIRKS = (
    Quirk(
        "llama.cpp",
        "b11549 (xllamacpp 2026.10.11549)",
        "numbers that are not whole are not held to their range by `response_format`",
        "a grammar of our own, in which a number is one of the scale's",
    ),
    Quirk(
        "llama.cpp",
        "b11549 (xllamacpp 2026.10.11549)",
        "500 on odd characters in text that answers a `response_format`",
        "the grammar: its answers are not parsed a second time; and its text has no controls",
    ),
    Quirk(
        "llama.cpp",
        "b11549 (xllamacpp 2026.10.11549)",
        "white space between tokens of JSON is free, and a weak model floods it",
        "the grammar has the layout of the prompt: `, ` and `: `",
    ),
    Quirk(
        "llama.cpp",
        "b11549 (xllamacpp 2026.10.11549)",
        "log-probabilities are of before the constraint: forbidden tokens are among them",
        "only the scale's numbers count, renormalised; their share of the whole is kept",
    ),
    Quirk(
        "llama.cpp",
        "b11549 (xllamacpp 2026.10.11549)",
        "400 `exceed_context_size_error` where the question is too long",
        "the failure is `truncated`, and says how long the question is",
    ),
    Quirk(
        "vLLM",
        "0.32.0",
        "log-probabilities are of after the constraint: forbidden tokens have -9999",
        "renormalised all the same; numbers of two tokens are refused, as they cannot be told",
    ),
)


def dialect(listed: Any, header: str = "") -> Dialect:
    """Which kind of server sent this list of models, or this header.

    >>> dialect({"data": [{"id": "x", "owned_by": "vllm"}]}).server
    'vLLM'
    >>> dialect({}).server
    'OpenAI-compatible'
    """
    models = listed.get("data") if isinstance(listed, dict) else None
    owners = [m.get("owned_by") for m in models or () if isinstance(m, dict)]
    for one in DIALECTS:
        if one.owned_by in owners or (one.header and header.startswith(one.header)):
            return one
    return PLAIN


def table() -> str:
    """All quirks as `docs/servers.md` has them."""
    rows = [f"| {q.server} | {q.seen} | {q.trouble} | {q.remedy} |" for q in QUIRKS]
    return "\n".join(
        ["| server | seen in | what it does | what we do |", "|---|---|---|---|", *rows]
    )
