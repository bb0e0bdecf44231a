"""Scores of configurations -> the same, each averaged with those of its neighbours.

The best score of many is the one with most luck. A configuration that is truly good has neighbours
that are good too, and their luck is partly of another kind; one that stands out alone does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

from align_dsl.optimize.dimension import Dimension
from align_dsl.optimize.space import Config, Space, written

NEAR = 0.15  # how far a neighbour is, in widths of the space, that counts 0.6 as much
APART = 0.5  # how far apart two words are, or a setting that counts and one that does not


def smoothed(space: Space, configs: Sequence[Config], scores: Sequence[float]) -> list[float]:
    """A mean of all scores for each, the nearest counting most."""
    places = [_places(space, c) for c in configs]
    made = []
    for here in places:
        near = [exp(-_apart(here, there) / (2 * NEAR**2)) for there in places]
        made.append(sum(n * s for n, s in zip(near, scores, strict=True)) / sum(near))
    return made


def _apart(a: Sequence[tuple[bool, Any]], b: Sequence[tuple[bool, Any]]) -> float:
    """The squared distance: each setting is as wide as all that it may be."""
    total = 0.0
    for (number, here), (_, there) in zip(a, b, strict=True):
        if number and here is not None and there is not None:
            total += float(here - there) ** 2
        elif here != there:
            total += APART**2
    return total


def _places(space: Space, config: Config) -> list[tuple[bool, Any]]:
    return [(d.is_ordered, _place(d, config.get(d.name))) for d in space.dimensions]


def _place(d: Dimension, value: Any) -> Any:
    if not d.is_ordered:
        return written({d.name: value})
    if value is None:  # it counts for nothing in this configuration
        return None
    if d.values is not None:
        return sorted(d.values).index(value) / max(1, len(d.values) - 1)
    return (value - d.low) / max(1e-12, d.high - d.low)
