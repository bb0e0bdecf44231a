"""A setting that may vary -> the values that are worth trying with this model and these targets.

What a program names is taken as it is named, less what would mean the same twice. Of what is only
left open, the values are few: each further one makes the luckiest of all trials luckier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from align_dsl.language.asking import OWN
from align_dsl.language.asking import written as scale_written
from align_dsl.language.program import Decider, Model, Program, Vary
from align_dsl.language.space import WORDING, normal
from align_dsl.language.tunable import Needs, Tunable

STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # what a wide range of counts is cut into
FEW = 12  # whole numbers that are tried one by one
SEEDS = 1000  # at most, of a range that names them
NAMED = ("fixed", "subset")  # ways to select that mean little without ids, or without a seed
SPEAKING = ("litellm", "gguf")  # backends with a language model: they read all, and may draw lots
UNREAD = {  # backend -> what it takes no notice of
    "embedded": frozenset(
        {"samples", "order", "rating", "temperature", "scale", "definitions", WORDING}
    ),
    "scripted": frozenset({"temperature", "definitions"}),
}


@dataclass(frozen=True, slots=True)
class Dimension:
    """One setting that varies: over `values`, or over a range of numbers."""

    name: str
    default: Any
    values: tuple[Any, ...] | None = None
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    whole: bool = False
    needs: Needs = ()  # it matters only where these hold
    unordered: bool = False  # of numbers that are mere names: what is near in them is not alike

    def distribution(self) -> BaseDistribution:
        if self.values is not None:
            return CategoricalDistribution([self.label(v) for v in self.values])
        if self.whole:
            step = int(self.step or 1)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def label(self, value: Any) -> Any:
        """What the study calls a value: long texts and lists by their place in the list."""
        if isinstance(value, dict) and {"low", "high"} <= value.keys() <= {"low", "high", "step"}:
            by = f" by {value['step']:g}" if "step" in value else ""
            return f"{value['low']:g} to {value['high']:g}{by}"
        if isinstance(value, str) and len(value) <= 40 and "\n" not in value:
            return value
        if value is None or isinstance(value, bool | int | float):
            return value
        assert self.values is not None
        return f"#{self.values.index(value)}"

    def value(self, label: Any) -> Any:
        if self.values is None:
            return label
        return next(v for v in self.values if self.label(v) == label)

    def holds(self, value: Any) -> bool:
        """Whether the search could have come up with a value."""
        if self.values is not None:
            return value in self.values
        step = self.step or (1 if self.whole else 0)
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return inside and (not step or abs((value - self.low) / step % 1) < 1e-9)

    @property
    def is_ordered(self) -> bool:
        """Whether it is of numbers of which near ones are alike."""
        values = self.values or ()
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        return numbers and not self.unordered

    @property
    def size(self) -> int | None:
        if self.values is not None:
            return len(self.values)
        step = self.step or (1 if self.whole else None)
        return int((self.high - self.low) / step + 1e-9) + 1 if step else None

    def __str__(self) -> str:
        if self.values is None:
            by = f" by {self.step:g}" if self.step else ""
            said = f"{self.low:g} to {self.high:g}{by}{' (log)' if self.log else ''}"
        else:
            said = ", ".join(str(self.label(v)) for v in self.values)
        also = ", and " if any(len(group) > 1 for group in self.needs) else " and "
        needs = also.join(" or ".join(map(str, group)) for group in self.needs)
        return said + (f"    (where {needs})" if needs else "")


def at_hand(t: Tunable, model: Model) -> Tunable:
    """A setting with what it is now on this model."""
    if t.default is None and t.settings == {"temperature"}:
        return replace(t, default=model.temperature)
    if t.type == "scale":
        return replace(t, default=normal(t, t.default))
    return t


def bears(t: Tunable, program: Program, model: Model) -> bool:
    """Whether a setting can do anything at all with this model and these targets."""
    if t.settings <= UNREAD.get(model.backend, frozenset()):
        return False
    asked = [target.values.keys() for target in program.targets]
    if (
        t.settings <= {"norm", "weights"} and t.step == "decide"
    ):  # on one attribute all distances agree
        asked = [names for names in asked if len(names) > 1]
    return any(t.attribute is None or t.attribute in names for names in asked)


def declared(t: Tunable, vary: Vary) -> Dimension:
    unordered = "seed" in t.settings
    values = vary.values
    if values is None and unordered and vary.high - vary.low < SEEDS:
        values = tuple(range(int(vary.low), int(vary.high) + 1, int(vary.step or 1)))
    if values is not None:
        values = tuple(normal(t, v) for v in values)
        values = values if t.default in values else (t.default, *values)
        values = _without_twin(t, values)
        # as it stands among them: 0 and 0.0 are equal, but not as text
        default = values[values.index(t.default)]
        return Dimension(t.name, default, values, needs=t.needs, unordered=unordered)
    return Dimension(
        t.name,
        t.default if t.type == "int" else float(t.default),
        None,
        vary.low,
        vary.high,
        vary.step,
        vary.log,
        whole=t.type == "int",
        needs=t.needs,
        unordered=unordered,
    )


def _without_twin(t: Tunable, values: Sequence[Any]) -> tuple[Any, ...]:
    """`sampled` is `verbal` by another name, for several samples: one of them will do."""
    if "rating" not in t.settings or "verbal" not in values:
        return tuple(values)
    return tuple(v for v in values if v != "sampled" or t.default == v)


def apart(d: Dimension, t: Tunable, program: Program) -> Dimension:
    """A dimension without a value that only writes out what an attribute has of its own."""
    asked = {name for target in program.targets for name in target.values}
    if t.type == "scale":
        scales = {a.scale for a in program.attributes if a.name in asked}
        own, twin = OWN, scale_written(scales.pop()) if len(scales) == 1 else None
    elif t.attribute is not None and "definitions" in t.settings:
        own, twin = None, program.attribute(t.attribute).about
    else:
        return d
    if d.values is None or twin is None or not (own in d.values and twin in d.values):
        return d
    unneeded = own if d.default == twin else twin
    return replace(d, values=tuple(v for v in d.values if v != unneeded))


def derived(t: Tunable, decider: Decider, model: Model, exemplars: int) -> Dimension | None:
    """What a setting may be, as far as its declaration tells; None where that is everything."""
    values: Sequence[Any]
    if t.on_request:
        return None
    settings, speaks = t.settings, model.backend in SPEAKING
    if "samples" in settings:
        # samples of a model that always says the same differ by order at most
        warm = t.step and decider.step(t.step).warmth(model) > 0
        values = (1, 3, 5) if speaks and warm else ()
    elif "order" in settings:
        values = ("shuffle", "both")
    elif "rating" in settings and not speaks:
        values = ()  # only language models can be asked in more than one way
    elif t.choices is not None:
        # fixed exemplars would have to be named, and one subset of many is no choice
        values = [normal(t, c) for c in t.choices if c not in NAMED or "select" not in settings]
        values = _without_twin(t, values)
    elif t.type == "bool":
        values = (False, True)
    elif t.type == "int" and t.low is not None and t.high is not None:
        enough = next((s for s in STEPS if s >= exemplars), t.high)  # more would be the same again
        high = min(t.high, enough) if "k" in settings else t.high
        every = range(int(t.low), int(t.high) + 1)
        values = every if len(every) <= FEW else [s for s in STEPS if t.low <= s <= high]
    elif t.type == "float" and t.low is not None and t.high is not None:
        return Dimension(t.name, float(t.default), None, t.low, t.high, needs=t.needs)
    else:
        return None
    kept = [v for i, v in enumerate(values) if v not in values[:i]]
    kept += [] if t.default in values else [t.default]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in kept):
        kept.sort()
    return Dimension(t.name, t.default, tuple(kept), needs=t.needs) if len(kept) > 1 else None
