"""The real llama.cpp server, from xllamacpp's wheel, on loopback and in one thread.

`Llama(path)` runs one in this process for as long as a test needs it; the C++ server has threads
of its own and does not mind Python's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # two on a busy machine are ten times slower than one

SLOTS = 4
WINDOW = 4096


class Llama:
    """A server with one model, called `tiny`."""

    def __init__(self, model: Path, slots: int = SLOTS, window: int = WINDOW) -> None:
        self.model, self.slots, self.window = model, slots, window
        self._server: Any = None

    def __enter__(self) -> Llama:
        import xllamacpp

        wishes = xllamacpp.CommonParams()
        wishes.model.path = str(self.model)
        wishes.model_alias = {"tiny"}
        wishes.hostnames, wishes.port = ["127.0.0.1"], 0
        wishes.n_parallel, wishes.n_ctx = self.slots, self.slots * self.window
        wishes.cpuparams.n_threads = wishes.cpuparams_batch.n_threads = 1
        wishes.endpoint_metrics = True
        wishes.ui = False
        wishes.verbosity = -1
        self._server = xllamacpp.Server(wishes)
        return self

    def __exit__(self, *_: object) -> None:
        self._server = None

    @property
    def url(self) -> str:
        return str(self._server.listening_address)

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1"
