"""What servers do otherwise than their protocol has it, and what we do about it: one table.

A server is told by what it says of itself, never by its model or its port. One that says nothing
known is `PLAIN`, and is sent what the protocol says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal


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
    # what holds answers: `response_format`, GBNF in a field of this name, or a schema with a layout
    held_by: Literal["schema", "grammar", "structured_outputs", "layout"] = "schema"
    escapes: bool = True  # whether text in a grammar may have them
    masked: bool = True  # log-probabilities are of after the constraint: what is forbidden has none
    top: int = 20  # how many alternatives to a token it tells
    # whether it takes all at once: queues what it has no room for, and reads once what begins alike
    batches: bool = False


PLAIN = Dialect("OpenAI-compatible")
LLAMA_CPP = Dialect(
    "llama.cpp", "llamacpp", "llama.cpp", "grammar", masked=False, top=256, batches=True
)
VLLM = Dialect("vLLM", "vllm", held_by="structured_outputs", escapes=False, batches=True)
GUIDANCE = replace(VLLM, held_by="layout", escapes=True)
"""vLLM that was started with the backend guidance."""
# it queues without end, but answers one at a time unless OLLAMA_NUM_PARALLEL says more; and what
# waits there waits on our time
OLLAMA = Dialect("Ollama", "library", masked=False)
DIALECTS = (LLAMA_CPP, VLLM, OLLAMA)

TOO_LONG = (
    "exceed_context_size_error",
    "context_length_exceeded",
    "maximum context length",
    "longer than the context",
    "exceeds the context length",
)
"""What servers say of a question that does not fit their window."""

ENDPOINTS = {
    "ollama_chat": "http://localhost:11434",
    "hosted_vllm": "http://localhost:8000/v1",
    "llamafile": "http://localhost:8080/v1",
    "lm_studio": "http://localhost:1234/v1",
}
"""Where a server that one runs oneself is, by its provider, unless somebody says otherwise."""

SELF_HOSTED = frozenset({*ENDPOINTS, "openai", "custom_openai"})
"""Providers whose servers are sent requests by our own wire; all others go through litellm."""

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
        "where numbers begin alike (`1`, `10`), a question more asks which of them is meant; the"
        " numbers' share of the whole is not known",
    ),
    Quirk(
        "vLLM",
        "0.32.0",
        "400 where more than 20 alternatives to a token are asked for",
        "20 are asked for; on a scale of more numbers the least probable are left out",
    ),
    Quirk(
        "vLLM",
        "0.32.0 (xgrammar 0.2.8, llguidance 1.7.6)",
        "white space between tokens of JSON is free, and a weak model floods it",
        "a grammar in `structured_outputs`, with the layout of the prompt",
    ),
    Quirk(
        "vLLM",
        "0.32.0 (xgrammar 0.2.8)",
        "text that answers a `response_format` may hold raw control characters, so is no JSON",
        "the grammar: its text has no controls",
    ),
    Quirk(
        "vLLM",
        "0.32.0 (xgrammar 0.2.8)",
        "a grammar that repeats a choice between two rules takes 0.15 s for each token",
        "its text is one class of characters: no double quotes and no backslashes",
    ),
    Quirk(
        "vLLM",
        "0.32.0 (llguidance 1.7.6)",
        "guidance translates a grammar three times for each request, which costs it 1.7 ms",
        "a schema that has the layout of the prompt written into it (`x-guidance`): 0.5 ms",
    ),
    Quirk(
        "vLLM",
        "0.32.0",
        "it does not tell which backend holds its answers",
        "one question with a word that guidance alone reads, and refuses, before the first",
    ),
    Quirk(
        "vLLM",
        "0.32.0 (xgrammar 0.2.8)",
        "of some vocabularies it refuses a token that the grammar allows: a word is cut otherwise,"
        " and what follows may be decided otherwise (12 of 24 picks of the tests' model)",
        'start it with `--structured-outputs-config \'{"backend":"guidance"}\'` (0 of 24)',
    ),
    Quirk(
        "vLLM",
        "0.32.0, on a CPU",
        "its engine dies of a request with a seed whose prompt is read in parts",
        "start it with `--no-enable-chunked-prefill --max-num-batched-tokens 16384`",
    ),
    Quirk(
        "vLLM",
        "0.32.0",
        "`guided_json` and its kind are ignored: 200, and an answer held to nothing",
        "they are not used",
    ),
    Quirk(
        "transformers serve",
        "5.19.0",
        "it takes `response_format` and `logprobs`, and ignores both",
        "answers are read strictly; `doctor` calls it unusable",
    ),
    Quirk(
        "transformers serve",
        "5.19.0",
        "temperature alone draws nothing, unless the model's `generation_config.json` has"
        " `do_sample`",
        "none: `rating: sampled` draws one answer again and again, and `doctor` says so",
    ),
    Quirk(
        "transformers serve",
        "5.19.0",
        "its seed is that of the process, so it counts for nothing with several at once; and it"
        " works off what was given up, one at a time",
        "`concurrency: 1`, or start it with `--continuous-batching`",
    ),
    Quirk(
        "transformers serve",
        "5.19.0",
        "it lists its cache and not its model, 500 without one; and hangs up after a 500",
        "a look at a server keeps no connection",
    ),
    Quirk(
        "Ollama",
        "0.32.15",
        "numbers that are not whole are not held to their range by `format`",
        "the schema names the scale's numbers one by one, up to 500",
    ),
    Quirk(
        "Ollama",
        "0.32.15",
        "200 with `done: false` and no more, where a model writes some 30 equal pieces in a row",
        "a `truncated` failure that says so",
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
    listed = models if isinstance(models, list) else ()
    owners = [m.get("owned_by") for m in listed if isinstance(m, dict)]
    for one in DIALECTS:
        if one.owned_by in owners or (one.header and header.startswith(one.header)):
            return one
    return PLAIN


def which_backend(name: str) -> dict[str, Any]:
    """What to ask of a vLLM to learn which backend holds its answers, as it does not tell.

    Guidance refuses a word under `x-guidance` that it does not know; the others do not read it, and
    answer with one token.
    """
    held = {"structured_outputs": {"json": '{"enum": [0], "x-guidance": {"unknown": 0}}'}}
    said = [{"role": "user", "content": "0?"}]
    return {"model": name, "messages": said, "max_tokens": 1, "temperature": 0, **held}


def is_guidance(status: int, said: Any) -> bool:
    """Whether that was the answer of a vLLM with guidance."""
    return status == 400 and "item_separator" in str(said)


def is_too_long(said: str) -> bool:
    """Whether a server says that a question does not fit its window."""
    return any(mark in said for mark in TOO_LONG)


def table() -> str:
    """All quirks as `docs/servers.md` has them."""
    rows = [f"| {q.server} | {q.seen} | {q.trouble} | {q.remedy} |" for q in QUIRKS]
    return "\n".join(
        ["| server | seen in | what it does | what we do |", "|---|---|---|---|", *rows]
    )
