"""Finished trials -> what each value of each setting does, and which trials nothing beats.

Optuna's own importance says how much a setting varied among the good trials, which is nothing for
one the search has settled. Here an additive model is fitted to all whole trials, so that settings
that were tried together are told apart; its intervals are over cases, drawn by groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from align_dsl.optimize.aims import COSTS
from align_dsl.optimize.choose import allowed, whole
from align_dsl.optimize.done import Done
from align_dsl.optimize.sat import RIGHT
from align_dsl.records.stats import Interval, cluster_bootstrap, macro_bootstrap

MANY = 8  # values of a number beyond which they are taken together in thirds


@dataclass(frozen=True, slots=True)
class Effect:
    """How far a value lies above the mean of all values of its setting, others being equal."""

    setting: str
    value: str
    trials: int
    gain: Interval | None


def effects(done: Sequence[Done], facts: Mapping[str, Any]) -> list[Effect]:
    """Of every setting that took two values or more in whole trials."""
    rows = whole(done)
    levels = _levels(rows)
    columns = [(name, value) for name, values in levels.items() for value in values]
    if not rows or not columns:
        return []
    named = [{n: _level(levels, n, v) for n, v in d.config.items() if n in levels} for d in rows]
    design = np.array([[1.0, *(float(r.get(n) == v) for n, v in columns)] for r in named])
    groups = list(dict.fromkeys(facts["groups"]))
    place = {g: i for i, g in enumerate(groups)}
    scores = np.zeros((len(rows), len(groups)))
    for i, one in enumerate(rows):
        marks = zip(facts["groups"], facts["weights"], one.sat.marks, strict=True)
        for group, weight, mark in marks:
            scores[i, place[group]] += weight * (mark == RIGHT)
    found = np.linalg.pinv(design) @ scores
    made = []
    for name, values in levels.items():
        at = [1 + columns.index((name, v)) for v in values]
        mean = found[at].mean(axis=0)
        for k, value in zip(at, values, strict=True):
            parts = ((found[k] - mean) * len(groups)).tolist()
            n = sum(r.get(name) == value for r in named)
            made.append(Effect(name, value, n, cluster_bootstrap(parts, groups)))
    return made


def _levels(rows: Sequence[Done]) -> dict[str, list[str]]:
    """Setting -> its values as they are shown, in the order of their size."""
    seen: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.config.items():
            if value not in seen.setdefault(name, []):
                seen[name].append(value)
    made = {}
    for name, values in seen.items():
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        ordered = sorted(values) if numbers else sorted(values, key=str)
        if numbers and len(ordered) > MANY:
            cut = [ordered[len(ordered) * i // 3] for i in range(3)] + [ordered[-1]]
            made[name] = [f"{a:g} to {b:g}" for a, b in pairwise(cut)]
        elif len(ordered) > 1:
            made[name] = [_shown(v) for v in ordered]
    return made


def _level(levels: Mapping[str, list[str]], name: str, value: Any) -> str:
    if _shown(value) in levels[name]:
        return _shown(value)
    for level in levels[name]:
        low, high = level.split(" to ")
        if float(low) <= value <= float(high):
            return level
    return ""


def _shown(value: Any) -> str:
    text = "the file's own" if value is None else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def front(done: Sequence[Done], objectives: Sequence[str] = ("accuracy", *COSTS)) -> list[Done]:
    """Whole trials within the limits that no other beats in all of these at once; cheapest first.
    Of equals the first."""

    def loss(d: Done) -> tuple[float, ...]:
        return tuple(-(d.score or 0.0) if o == "accuracy" else d.costs[o] for o in objectives)

    rows = allowed(done)
    kept: dict[tuple[float, ...], Done] = {}
    for one in rows:
        mine = loss(one)
        if not any(_beats(loss(other), mine) for other in rows):
            kept.setdefault(mine, one)
    return sorted(kept.values(), key=lambda d: (*loss(d)[1:], loss(d)[0]))


def _beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def interval(one: Done, facts: Mapping[str, Any]) -> Interval | None:
    """Of the accuracy of a trial, over the train cases, whose facts are the study's."""
    if "attributes" not in facts or len(one.sat.marks) < len(facts["groups"]):
        return None
    marks = [float(m == RIGHT) for m in one.sat.marks]
    return macro_bootstrap(marks, facts["attributes"], facts["groups"])
