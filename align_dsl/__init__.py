"""align-dsl: a compiler for attribute-aligned decision-makers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_dsl.api import Compiled as Compiled
    from align_dsl.api import Decider as Decider
    from align_dsl.api import Run as Run
    from align_dsl.api import correct as correct
    from align_dsl.api import load as load

__version__ = "0.1.0"

_LAZY = ("Compiled", "Decider", "Run", "correct", "load")


def __getattr__(name: str) -> Any:
    """The Python face is imported when it is asked for: `import align_dsl` costs nothing."""
    if name in _LAZY:
        from align_dsl import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
