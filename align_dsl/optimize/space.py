"""A program's `optimize:` -> the space of configurations of its decider, and each as a program.

A configuration is a value for every setting that varies; the others stay as they are. Settings
that do nothing in a configuration (how to pick exemplars, with none shown) are left out of it, so
that equal programs have equal configurations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
from align_dsl.language.program import Decider, Model, Optimize, Program
from align_dsl.language.resolve import Checked, resolve
from align_dsl.language.source import Source
from align_dsl.language.space import tunables, varied, worded
from align_dsl.language.tunable import Tunable
from align_dsl.optimize.dimension import Dimension, apart, at_hand, bears, declared, derived

Config = dict[str, Any]  # setting -> value; canonical: see Space.canonical


def written(config: Mapping[str, Any]) -> str:
    """A configuration as text; equal ones have equal text."""
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class Space:
    """Every configuration that may be tried, and what the file says now."""

    checked: Checked
    library: Library
    decider: Decider
    dimensions: tuple[Dimension, ...]
    now: Mapping[str, Any] = field(default_factory=dict)  # what settings are that do not vary
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
        """The same configuration without what does nothing in it."""
        kept: Config = {}
        for d in self._rulers_first:
            if d.name in values and self._matters(d, kept):
                kept[d.name] = values[d.name]
        return {d.name: kept[d.name] for d in self.dimensions if d.name in kept}

    def _matters(self, dimension: Dimension, values: Mapping[str, Any]) -> bool:
        """Whether it makes a difference what a setting is, the settings it needs being known."""
        return all(
            any(w.holds(values.get(w.setting, self.now.get(w.setting))) for w in group)
            for group in dimension.needs
        )

    @cached_property
    def _rulers_first(self) -> tuple[Dimension, ...]:
        """The dimensions, each after those that say whether it matters."""
        left, ordered = list(self.dimensions), list[Dimension]()
        while left:
            names = {d.name for d in left}
            free = [d for d in left if not names & {w.setting for g in d.needs for w in g}]
            ordered += free or left  # in a circle, all of them count as free
            left = [d for d in left if d not in ordered]
        return tuple(ordered)

    @cached_property
    def _source(self) -> Source:
        """The program without `optimize:` and other deciders, which no trial need check again."""
        whole, name = self.checked.source, self.decider.name
        alone = override(whole, "optimize", ("deciders",), {name: whole.data["deciders"][name]})
        return override(alone, "optimize", ("optimize",), None)

    def suggest(self, trial: Trial) -> Config:
        """What a sampler wants to see tried."""
        values: Config = {}
        for d in self._rulers_first:
            if self._matters(d, values):
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
    program = checked.program
    model = model_of(program, decider)
    known = {
        name: at_hand(t, model)
        for name, t in tunables(
            checked.source, library, decider, [a.name for a in program.attributes]
        ).items()
    }
    if optimize.space:
        some = [known[name] for name in optimize.space]
        made = [declared(t, optimize.space[t.name]) for t in some if bears(t, program, model)]
    else:
        some = [t for t in known.values() if bears(t, program, model)]
        every = (derived(t, decider, model, exemplars) for t in some)
        made = [d for d in every if d is not None]
    made += _wordings(optimize, known, program, model)
    made = [apart(d, known[d.name], program) for d in made]
    if not made and optimize.propose is None:  # else a model is still to write what is tried
        lost = ", ".join(f"`{name}`" for name in optimize.space)
        raise PlanError(
            f"error: with this model and these targets, {lost} would do nothing\n"
            "  = name other settings and their values under `optimize.space`"
            if optimize.space
            else f"error: nothing in the decider `{decider.name}` is open to vary\n"
            "  = name settings and their values under `optimize.space`"
        )
    now = {t.name: t.default for t in known.values()}
    return Space(checked, library, decider, tuple(made), now)


def model_of(program: Program, decider: Decider) -> Model:
    names = [decider.model] if decider.model else list(program.run_on)
    if len(names) > 1:
        raise PlanError(
            f"error: the program runs on {len(names)} models, and is optimized for one\n"
            f"  = name it: --model {names[0]}"
        )
    return program.model(names[0])


def _wordings(
    optimize: Optimize, known: Mapping[str, Tunable], program: Program, model: Model
) -> list[Dimension]:
    named = {worded(written_for): texts for written_for, texts in optimize.variants.items()}
    return [
        Dimension(t.name, t.default, (t.default, *texts), needs=t.needs)
        for name, texts in named.items()
        if bears(t := known[name], program, model)
    ]
