"""Who writes instructions for an optimizer of DSPy, where anybody is to."""

from __future__ import annotations

from dataclasses import dataclass

from align_dsl.backends import Backend, open_backend
from align_dsl.engine.module import reads_words
from align_dsl.errors import PlanError
from align_dsl.optimize.stock.memory import Memory
from align_dsl.optimize.stock.writer import Writer
from align_dsl.optimize.task import Ready


def rewords(made: Ready) -> bool:
    """Whether instructions can matter: an embedded model reads none."""
    (backend,) = made.backends.values()
    return made.optimize.method != "bootstrap" and reads_words(backend.adapter)


@dataclass(frozen=True, slots=True)
class Author:
    """The model that writes instructions."""

    adapter: Writer
    backend: Backend
    notes: tuple[str, ...] = ()


def author_of(made: Ready, memory: Memory) -> Author:
    """The model of `propose:`, or the decider's own. Raises PlanError where nobody can write."""
    (name,) = made.backends
    own, method, propose = made.backends[name], made.optimize.method, made.optimize.propose
    if not rewords(made):
        if method == "gepa":
            raise PlanError(
                f"error: `method: gepa` writes instructions, and `{name}` reads none\n"
                "  = use `method: bootstrap` or `mipro`, or another model: --model NAME"
            )
        notes = [] if method == "bootstrap" else [f"`{name}` reads no instructions: demos alone"]
        return Author(Writer(memory, "", mute=True), own, tuple(notes))
    model = made.loaded.program.model(name)
    backend = own
    if propose is not None and propose.model != name:
        model = made.loaded.program.model(propose.model)
        backend = open_backend(model)
    if not writes(backend):
        if backend is not own:
            backend.close()
        raise PlanError(
            f"error: `method: {method}` needs a model that writes, and `{model.name}` does not\n"
            "  = name one: `propose: {model: ollama_chat/llama3.2:3b}` under `optimize:`"
        )
    who = f"{model.identity()} {backend.fingerprint()}"
    return Author(Writer(memory, who, tokens=model.max_tokens), backend)


def writes(backend: Backend) -> bool:
    """Whether a model can be asked for free text."""
    answers = hasattr(getattr(backend.lm, "engine", None), "complete")
    return answers and bool(getattr(backend, "writes", True))
