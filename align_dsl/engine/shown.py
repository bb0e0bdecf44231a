"""A scenario -> the ways in which steps see it: choices under letters, in an order of our own.

The order in which choices are shown is drawn from their content, never from the order in which a
file lists them; so permuting the choices of a file cannot change a decision.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

from align_dsl.language.program import Order
from align_dsl.types import Choice, Scenario, digest


@dataclass(frozen=True, slots=True)
class Shown:
    """A scenario as a step sees it: mostly choices under letters, in some order."""

    scenario: Scenario
    means: Mapping[str, str]  # letter -> choice id
    content: str
    sample: int = 0


def letters(n: int) -> tuple[str, ...]:
    from align_dsl.language.wording import letter

    return tuple(letter(i) for i in range(n))


def ways(scenario: Scenario, order: Order, samples: int = 1, seed: int = 0) -> Iterator[Shown]:
    """Every way in which a step with a model sees a scenario."""
    for sample in range(samples):
        turn = sample if order == "shuffle" else 0
        for choices in _orders(scenario, order, turn, seed):
            yield _shown(scenario, choices, sample)


def plainly(scenario: Scenario) -> Shown:
    """For steps that show it to no model: the scenario as it is, ids and all."""
    return Shown(scenario, {c.id: c.id for c in scenario.choices}, scenario.content())


def _orders(scenario: Scenario, order: Order, turn: int, seed: int) -> list[list[Choice]]:
    if order == "given" or len(scenario.choices) < 2:
        return [list(scenario.choices)]
    choices = sorted(scenario.choices, key=lambda c: c.text)
    if order == "all" and len(choices) <= 4:
        return [list(one) for one in permutations(choices)]
    random.Random(digest(f"{seed}/{turn}/{scenario.content()}")).shuffle(choices)
    if order == "shuffle":
        return [choices]
    return [choices, choices[::-1]]


def _shown(scenario: Scenario, choices: list[Choice], sample: int) -> Shown:
    names = letters(len(choices))
    offered = tuple(
        Choice.model_construct(id=n, text=c.text) for n, c in zip(names, choices, strict=True)
    )
    shown = Scenario.model_construct(id="", text=scenario.text, choices=offered)
    means = {n: c.id for n, c in zip(names, choices, strict=True)}
    content = digest(json.dumps([scenario.text, [c.text for c in choices]]))
    return Shown(shown, means, content, sample)
