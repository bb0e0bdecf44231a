"""A model file -> the real llama.cpp server, on loopback in this process, while it is examined."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_dsl.errors import visible

MAGIC = b"GGUF"
CONTEXT = 4096
SLOTS = 4
EDGE = 4 * 1024 * 1024  # bytes at each end that name a file; all of 40 GB would take minutes


class NotServed(Exception):
    def __init__(self, said: str, advice: str = "") -> None:
        super().__init__(said)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Served:
    endpoint: str
    key: str  # so that nobody else on this machine has a use for the port
    digest: str


def serve(address: str, context: int | None, stack: AsyncExitStack) -> Served:
    """Served as the backend does it, until the stack is closed. Raises NotServed."""
    path = Path(address).expanduser()
    name = digest(path)
    try:
        import xllamacpp
    except ImportError:
        said = "`gguf:` needs the package xllamacpp, which is not installed"
        raise NotServed(said, "pip install 'align-dsl[gguf]'") from None
    key = secrets.token_hex(16)
    params: Any = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * (context or CONTEXT)
    params.model_alias = {path.stem}
    params.verbosity = -1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > 0:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        said = f"{visible(str(path))} cannot be loaded: {visible(str(error))}"
        raise NotServed(said, "see that the file is whole, and that memory suffices") from None
    stack.callback(lambda held: None, server)  # the server lives as long as somebody holds it
    return Served(f"{server.listening_address}/v1", key, name)


def digest(path: Path) -> str:
    """Names the file by its size and both its ends. Raises NotServed."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(EDGE)
            file.seek(max(0, size - EDGE))
            end = file.read()
    except OSError as error:
        raise NotServed(f"{visible(str(path))} cannot be read: {error.strerror}") from None
    if not start.startswith(MAGIC):
        raise NotServed(f"{visible(str(path))} is no GGUF file")
    return hashlib.sha256(f"{size} ".encode() + start + end).hexdigest()[:16]
