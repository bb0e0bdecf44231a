"""One file per backend: what answers the questions of a model.

A backend is called with a `Model` and has what `Backend` lists. One that talks to servers brings
an LM and the typed adapter; one that answers typed values itself brings an adapter of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

from align_dsl.language.program import Model
from align_dsl.registry import BACKENDS


class Backend(Protocol):
    note: str  # what a table must say beside its numbers, such as "embedded: no LLM"
    concurrency: int  # jobs at once; 1 means in the calling thread
    # what one that does not say so does not do:
    batches: bool = False  # reads what begins alike once, however many come at once
    waits_in_loop: bool = False  # waits for nothing but our own wire, so needs no threads

    @property
    def lm(self) -> Any: ...

    @property
    def adapter(self) -> Any: ...

    def fingerprint(self) -> str:
        """What stands behind the model's name: part of every key of an answer."""

    def probe(self) -> None:
        """Raise BackendError where it is plain that no question could be answered."""

    def close(self) -> None: ...


def open_backend(model: Model) -> Backend:
    backend: Backend = BACKENDS[model.backend](model)
    return backend
