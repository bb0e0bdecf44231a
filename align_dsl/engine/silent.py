"""An LM for where none may be asked: DSPy wants one to be there."""

from __future__ import annotations

from typing import Any

import dspy

from align_dsl.errors import BackendError


def silent(name: str, why: str) -> Any:
    """Whoever asks it after all is told why not."""
    return dspy.LM(f"{name}/none", engine=_Silent(why), cache=False)


class _Silent:
    supports_response_schema = True
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ()

    def __init__(self, why: str) -> None:
        self.why = why

    def complete(self, request: Any) -> Any:
        raise BackendError(self.why)
