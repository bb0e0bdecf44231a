"""Any model that litellm knows by `provider/name`; servers one runs oneself above all."""

from __future__ import annotations

import os
import socket
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import dspy

from align_dsl.engine.adapter import TypedAdapter
from align_dsl.engine.lm import Engine
from align_dsl.engine.mapping import litellm_module
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.types import digest


class litellm:  # noqa: N801  (named as in YAML)
    """Talks to one model over HTTP."""

    note = ""

    def __init__(self, model: Model) -> None:
        self.model = model
        # 1 would mean: in the calling thread, unsaved for many answers; the engine keeps the bound
        self.concurrency = max(2, model.concurrency)
        self.engine = Engine(model)
        self.waits_in_loop = self.engine.own_socket

    @property
    def batches(self) -> bool:
        return self.engine.batches

    @cached_property
    def lm(self) -> Any:
        return dspy.LM(self.model.address, engine=self.engine, cache=False, num_retries=0)

    @cached_property
    def adapter(self) -> Any:
        return TypedAdapter(self.model.retries)

    def fingerprint(self) -> str:
        return digest(f"{' '.join(self.engine.urls)} {self.model.address}")

    def probe(self) -> None:
        key = self.model.key
        if key and not os.environ.get(key):
            raise BackendError(
                f"the environment variable `{key}`, the key of the model `{self.model.name}`, is "
                "not set\n  = set it, or leave `key:` out where the server wants none"
            )
        if wrong := self.engine.wrong_key():
            raise BackendError(f"{wrong}\n  = set it anew, for instance with {key}=$(cat FILE)")
        if not self.engine.own_socket:
            if not key and not self.model.endpoints:
                self._look_for_key()
            return
        silent = {url: why for url in self.engine.urls if (why := _silence(url))}
        if len(silent) == len(self.engine.urls):
            said = "; nor at ".join(f"{url}: {why}" for url, why in silent.items())
            raise BackendError(
                f"the model `{self.model.name}` cannot be reached at {said}\n"
                "  = start the server, or set `endpoint:` under `models:`"
            )
        self.engine.look(silent)

    def _look_for_key(self) -> None:
        """Hosted providers want a key, usually in a variable of their own."""
        found = litellm_module().validate_environment(self.model.address)
        missing = found["missing_keys"]
        if missing and not found["keys_in_environment"]:
            raise BackendError(
                f"the model `{self.model.name}` needs a key, and {' or '.join(missing)} is not set"
                "\n  = set it, or name another variable with `key:` under `models:`"
            )

    def close(self) -> None:
        self.engine.close()


def _silence(url: str) -> str:
    """Why nobody answers there; empty where somebody does."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
