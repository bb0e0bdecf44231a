"""A program's `optimize:` -> the space of configurations of its decider, and each as a program.

A configuration is a value for every setting that varies; the others stay as they are. Settings
that do nothing in a configuration (how to pick exemplars, with none shown) are left out of it, so
that equal programs have equal configurations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from align_dsl.errors import PlanError
from align_dsl.language.library import Library
from align_dsl.language.override import override
from align_dsl.language.program import Decider, Model, Optimize, Program, Vary
from align_dsl.language.resolve import Checked, resolve
from align_dsl.language.source import Source
from align_dsl.language.space import WORDING, Tunable, tunables, varied

Config = dict[str, Any]  # setting -> value; canonical: see Space.canonical

STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # what a wide range of counts is cut into
FEW = 12  # whole numbers that are tried one by one


def written(config: Mapping[str, Any]) -> str:
    """A configuration as text; equal ones have equal text."""
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


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
    needs: str = ""  # this setting must not be 0

    def distribution(self) -> BaseDistribution:
        if self.values is not None:
            return CategoricalDistribution([self.label(v) for v in self.values])
        if self.whole:
            step = int(self.step or 1)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def label(self, value: Any) -> Any:
        """What the study calls a value: long texts and lists by their place in the list."""
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
        return said + (f"    (where {self.needs} is not 0)" if self.needs else "")


@dataclass(frozen=True)
class Space:
    """Every configuration that may be tried, and what the file says now."""

    checked: Checked
    library: Library
    decider: Decider
    dimensions: tuple[Dimension, ...]
    _programs: dict[str, Program] = field(default_factory=dict)

    @cached_property
    def default(self) -> Config:
        return self.canonical({d.name: d.default for d in self.dimensions})

    @property
    def size(self) -> int | None:
        """How many configurations there are, equal ones counted apart; None: without end."""
        sizes = [d.size for d in self.dimensions]
        return None if None in sizes else prod(s for s in sizes if s is not None)

    def canonical(self, values: Mapping[str, Any]) -> Config:
        zero = {d.name for d in self.dimensions if not values.get(d.name, True)}
        fixed = {k for k, v in self._now.items() if not v and k not in values}
        return {
            d.name: values[d.name]
            for d in self.dimensions
            if d.name in values and d.needs not in zero | fixed
        }

    @cached_property
    def _source(self) -> Source:
        """The program without `optimize:`, whose space need not be checked for each trial."""
        return override(self.checked.source, "optimize", ("optimize",), None)

    @cached_property
    def _now(self) -> dict[str, Any]:
        return {d.needs: self.decider.params.get(d.needs, 1) for d in self.dimensions if d.needs}

    def suggest(self, trial: Trial) -> Config:
        """What a sampler wants to see tried."""
        values: Config = {}
        for d in sorted(self.dimensions, key=lambda d: bool(d.needs)):
            if d.needs and not values.get(d.needs, self._now.get(d.needs, 1)):
                continue
            values[d.name] = d.value(_suggest(trial, d.name, d.distribution()))
        return self.canonical(values)

    def labels(self, config: Config) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """A configuration as Optuna keeps it. Empty where the search could not have made it."""
        named = {d.name: d for d in self.dimensions}
        if not all(named[name].holds(value) for name, value in config.items()):
            return {}, {}
        return (
            {n: named[n].label(v) for n, v in config.items()},
            {n: named[n].distribution() for n in config},
        )

    def changes(self, config: Config) -> Config:
        """What of a configuration differs from the file."""
        return {k: v for k, v in config.items() if k not in self.default or self.default[k] != v}

    def program(self, config: Config) -> Program:
        """The program with the decider so configured, and with no other decider."""
        key = written(config)
        if key not in self._programs:
            source = varied(self._source, self.library, self.decider.name, self.changes(config))
            program = resolve(source, self.library).program
            mine = tuple(d for d in program.deciders if d.name == self.decider.name)
            targets = self.checked.program.targets  # perhaps fewer than the file's
            self._programs[key] = program.model_copy(update={"deciders": mine, "targets": targets})
        return self._programs[key]


def _suggest(trial: Trial, name: str, over: BaseDistribution) -> Any:
    if isinstance(over, CategoricalDistribution):
        return trial.suggest_categorical(name, over.choices)
    if isinstance(over, IntDistribution):
        return trial.suggest_int(name, over.low, over.high, step=over.step, log=over.log)
    assert isinstance(over, FloatDistribution)
    return trial.suggest_float(name, over.low, over.high, step=over.step, log=over.log)


def space_of(checked: Checked, library: Library, exemplars: int) -> Space:
    """The space that the program declares, or else all that its decider leaves open.

    `exemplars` is how many there are to show at most.
    """
    optimize = checked.program.optimize
    assert optimize is not None
    decider = next(d for d in checked.program.deciders if d.name == optimize.decider)
    known = tunables(checked.source, library, decider)
    model = model_of(checked.program, decider)
    if optimize.space:
        made = [_declared(known[name], vary) for name, vary in optimize.space.items()]
    else:
        several = any(len(t.values) > 1 for t in checked.program.targets)
        every = (_derived(t, model, exemplars, several) for t in known.values())
        made = [d for d in every if d is not None]
    made += _wordings(optimize, known, decider)
    if not made:
        raise PlanError(
            f"error: nothing in the decider `{decider.name}` is open to vary\n"
            "  = name settings and their values under `optimize.space`"
        )
    return Space(checked, library, decider, tuple(made))


def model_of(program: Program, decider: Decider) -> Model:
    names = [decider.model] if decider.model else list(program.run_on)
    if len(names) > 1:
        raise PlanError(
            f"error: the program runs on {len(names)} models, and is optimized for one\n"
            f"  = name it: --model {names[0]}"
        )
    return program.model(names[0])


def _declared(t: Tunable, vary: Vary) -> Dimension:
    if vary.values is not None:
        values = vary.values if t.default in vary.values else (t.default, *vary.values)
        return Dimension(t.name, t.default, tuple(values), needs=t.needs)
    return Dimension(
        t.name,
        t.default,
        None,
        vary.low,
        vary.high,
        vary.step,
        vary.log,
        whole=t.type == "int",
        needs=t.needs,
    )


def _derived(t: Tunable, model: Model, exemplars: int, several: bool) -> Dimension | None:
    """What a setting may be, as far as its declaration tells; None where that is everything."""
    values: Sequence[Any]
    settings = {place.partition(".")[2] for place in t.places}
    if "samples" in settings:
        # samples of a model that always says the same differ by order at most
        warm = model.backend == "litellm" and model.temperature > 0
        values = (1, 3, 5) if warm else ()
    elif "order" in settings:  # the embedded backend reads no prompt that has one
        values = () if model.backend == "embedded" else ("shuffle", "both")
    elif "norm" in settings and not several:
        values = ()  # on one attribute all distances agree
    elif "rating" in settings and model.backend != "litellm":
        values = ()  # only language models can be asked in more than one way
    elif t.choices is not None:
        values = [c for c in t.choices if c != "fixed"]  # fixed ones would have to be named
    elif t.type == "bool":
        values = (False, True)
    elif t.type == "int" and t.low is not None and t.high is not None:
        enough = next((s for s in STEPS if s >= exemplars), t.high)  # more would be the same again
        high = min(t.high, enough) if "k" in settings else t.high
        every = range(int(t.low), int(t.high) + 1)
        values = every if len(every) <= FEW else [s for s in STEPS if t.low <= s <= high]
    elif t.type == "float" and t.low is not None and t.high is not None:
        return Dimension(t.name, t.default, None, t.low, t.high, needs=t.needs)
    else:
        return None
    kept = list(dict.fromkeys([*values, *([] if t.default in values else [t.default])]))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in kept):
        kept.sort()
    return Dimension(t.name, t.default, tuple(kept), needs=t.needs) if len(kept) > 1 else None


def _wordings(
    optimize: Optimize, known: Mapping[str, Tunable], decider: Decider
) -> list[Dimension]:
    made = []
    for step, texts in optimize.variants.items():
        t = known[f"{step}.{WORDING}"]
        made.append(Dimension(t.name, t.default, (t.default, *texts), needs=t.needs))
    return made
