"""The real server that tests talk to: llama.cpp, unless the environment names another.

`make test-vllm` and `make test-ollama` start or find the other and name it. Each has two models:
the one that knows the closed world by heart, and one of random weights.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_dsl.engine.lm import Engine
from align_dsl.language.program import Model
from tests.models import TRAINED

VLLM, VLLM_RANDOM = "ALIGN_DSL_VLLM", "ALIGN_DSL_VLLM_RANDOM"
OLLAMA, OLLAMA_MODELS = "ALIGN_DSL_OLLAMA", ("align-dsl-trained", "align-dsl-random")
OLLAMA_MODEL = "ALIGN_DSL_OLLAMA_MODEL"  # asked instead of both


@dataclass(frozen=True, slots=True)
class Real:
    """A server, and the model that it is asked for."""

    kind: str
    address: str
    endpoint: str
    model: Path  # the same weights as a file

    @property
    def name(self) -> str:
        return self.address.partition("/")[2]

    @property
    def use(self) -> str:
        """As it is written in a program."""
        return f"{self.address}, endpoint: '{self.endpoint}'"

    @property
    def by_grammar(self) -> bool:
        return self.kind in {"llama.cpp", "vLLM"}

    def engine(self, **changes: Any) -> Engine:
        said = {"name": "tiny", "backend": "litellm", "address": self.address, "timeout": 120}
        engine = Engine(Model(**{**said, "endpoint": self.endpoint, **changes}))
        engine.look()
        return engine


@contextlib.contextmanager
def served_by(model: Path) -> Iterator[Real]:
    """A real server that has this model."""
    is_trained = model == TRAINED
    if endpoint := os.environ.get(VLLM if is_trained else VLLM_RANDOM):
        yield Real("vLLM", "hosted_vllm/tiny", endpoint, model)
    elif endpoint := os.environ.get(OLLAMA):
        name = os.environ.get(OLLAMA_MODEL) or OLLAMA_MODELS[0 if is_trained else 1]
        yield Real("Ollama", f"ollama_chat/{name}", endpoint, model)
    else:
        from tests.servers.llama import Llama

        with Llama(model) as server:
            yield Real("llama.cpp", "openai/tiny", server.endpoint, model)
