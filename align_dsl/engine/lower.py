"""A step of the program -> the `dspy.Module` that does it, and its output -> what is stored."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from align_dsl.language.program import Step
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Rating, Value, Vote


def lower(step: Step) -> Any:
    """The module of a step; equal steps share one."""
    return _module(step.algorithm.name, json.dumps(step.params, sort_keys=True))


@lru_cache(maxsize=512)
def _module(name: str, params: str) -> Any:
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in json.loads(params).items()
    }
    return ALGORITHMS[name](**given)


_TYPES: dict[str, type[Value]] = {"Ratings": Rating, "Votes": Vote}


def encode(output: Any) -> Any:
    """An algorithm's output as JSON."""
    if isinstance(output, tuple | list):
        return [encode(one) for one in output]
    if isinstance(output, Value):
        return output.model_dump(mode="json", exclude_defaults=True)
    return output


def decode(kind: str, stored: Any) -> Any:
    """What `encode` wrote, as the type that the port is for."""
    if kind in _TYPES and isinstance(stored, list):
        return tuple(_TYPES[kind].model_validate(one) for one in stored)
    return stored
