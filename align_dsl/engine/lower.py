"""A step of the program -> the `dspy.Module` that does it, and its output -> what is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from align_dsl.engine.demos import concerns, once, shown
from align_dsl.engine.predict import Direct, direct
from align_dsl.language.program import Demo, Step
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Rating, Value, Vote

KEPT = 512  # steps of which the module is remembered
_LOWERED: dict[int, tuple[Step, Any]] = {}


def lower(step: Step) -> Any:
    """The module of a step; equal steps share one."""
    known = _LOWERED.get(id(step))  # to say what a step is made of costs more than to look it up
    if known is not None and known[0] is step:
        return known[1]
    if len(_LOWERED) >= KEPT:
        _LOWERED.clear()
    module = _lowered(step)
    _LOWERED[id(step)] = step, module  # another thread may clear it at once
    return module


def _lowered(step: Step) -> Any:
    made = step.algorithm.name, json.dumps(step.params, sort_keys=True), step.temperature
    if not step.demos:
        return _module(*made)
    return _taught(*made, _Lesson(step.demos))


@lru_cache(maxsize=512)
def _module(name: str, params: str, temperature: float | None) -> Any:
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in json.loads(params).items()
    }
    module = direct(ALGORITHMS[name](**given))
    return module if temperature is None else at_temperature(module, temperature)


def at_temperature(module: Any, temperature: float) -> Any:
    """A module whose every question is asked at this temperature, whatever the model's is."""
    for predictor in module.predictors():
        predictor.update_config(temperature=temperature)
    return module


class _Lesson:
    """The demos of a step; those that say the same are the same."""

    def __init__(self, demos: tuple[Demo, ...]) -> None:
        self.demos = demos
        parts = [(d, *([d.of] if d.of else []), *d.about) for d in demos]
        self.said = "".join(one.model_dump_json() for part in parts for one in part)

    def __hash__(self) -> int:
        return hash(self.said)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lesson) and self.said == other.said


@lru_cache(maxsize=64)
def _taught(name: str, params: str, temperature: float | None, lesson: _Lesson) -> Any:
    """The module of a step with its worked examples."""
    module = _module.__wrapped__(name, params, temperature)
    for predictor in module.predictors():
        _teach(predictor, [one for d in lesson.demos for one in shown(d, predictor.signature)])
    return module


def taught(module: Any, demos: Sequence[Mapping[str, Any]]) -> Any:
    """Give a module worked examples; its predictors see which of them are about a question."""
    for predictor in module.predictors():
        _teach(predictor, demos)
    return module


def _teach(predictor: Any, demos: Sequence[Mapping[str, Any]]) -> None:
    predictor.demos = [dict(one) for one in demos]
    predictor.__class__ = Taught


class Taught(Direct):
    """A predictor that shows a model those of its worked examples that are about the question."""

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        demos = inputs.pop("demos", self.demos)
        fitting = once(d for d in demos if concerns(d, inputs))
        return super().__call__(*args, **inputs, demos=fitting)


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
