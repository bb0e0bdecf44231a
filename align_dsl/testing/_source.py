"""A plug-in at hand -> the signature that the compiler reads off its source."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from align_dsl.language.program import AMBIENT
from align_dsl.language.signature import Signature, signature
from align_dsl.registry import Place, Registry

ANSWERS = frozenset({"Ratings", "Votes", "Exemplars"})
"""What a step can give to the next one."""

KNOWN = frozenset(AMBIENT.values()) | ANSWERS
"""Every type that a port can have."""


class _AtHand(Registry[Any]):
    """A door with one thing in it, wherever that thing is written."""

    def __init__(self, thing: Any) -> None:
        super().__init__("align_dsl")
        self.thing = thing

    def place(self, name: str) -> Place:
        file = inspect.getsourcefile(self.thing)
        assert file is not None, f"{name} has no source file"
        return Place(Path(file), name)


def signature_of(thing: Any) -> Signature:
    return signature(_AtHand(thing), thing.__name__)
