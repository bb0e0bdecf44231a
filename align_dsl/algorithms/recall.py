"""Pick the exemplars to show. No model is asked.

Never the case itself, nor any case with the same text: leaving them out is not an option.
"""

from __future__ import annotations

import random
from typing import Annotated, Literal

import dspy

from align_dsl.algorithms._similarity import similarities
from align_dsl.types import Attribute, Exemplar, Exemplars, Pool, Range, Scenario, digest


class recall(dspy.Module):
    """Exemplars from the pool: similar, stratified by level, random, or fixed by id."""

    calls = 0

    def __init__(
        self,
        k: Annotated[int, Range(0, 1000)] = 5,
        select: Literal["similar", "stratified", "random", "fixed"] = "similar",
        ids: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.k, self.select, self.ids, self.seed = k, select, tuple(ids), seed

    def forward(
        self, scenario: Scenario, pool: Pool, attribute: Attribute | None = None
    ) -> Exemplars:
        if self.k == 0:
            return ()
        usable = [e for e in pool.exemplars if _differs(e, scenario) and _is_labelled(e, attribute)]
        if self.select == "fixed":
            by_id = {e.scenario.id: e for e in usable}
            return tuple(by_id[i] for i in self.ids if i in by_id)
        if self.select == "random":
            usable.sort(key=lambda e: e.scenario.content())
            return tuple(self._dice(scenario).sample(usable, min(self.k, len(usable))))
        near = similarities(scenario, usable)
        order = sorted(range(len(usable)), key=lambda i: (-near[i], usable[i].scenario.content()))
        ranked = [usable[i] for i in order]
        if self.select == "stratified" and attribute is not None:
            ranked = _stratified(ranked, attribute)
        # the most similar stands last, next to the question
        return tuple(reversed(ranked[: self.k]))

    def _dice(self, scenario: Scenario) -> random.Random:
        return random.Random(digest(f"{self.seed}/{scenario.content()}"))


def _differs(exemplar: Exemplar, scenario: Scenario) -> bool:
    return exemplar.scenario.text.split() != scenario.text.split()


def _is_labelled(exemplar: Exemplar, attribute: Attribute | None) -> bool:
    labels = exemplar.labels.values()
    return any(labels) if attribute is None else sum(attribute.name in by for by in labels) >= 2


def _stratified(ranked: list[Exemplar], attribute: Attribute) -> list[Exemplar]:
    """For each level of the labels in turn, the most similar exemplar that has it."""
    levels: dict[float, list[Exemplar]] = {}
    for exemplar in ranked:
        for value in {
            by[attribute.name] for by in exemplar.labels.values() if attribute.name in by
        }:
            levels.setdefault(value, []).append(exemplar)
    taken: list[Exemplar] = []
    queues = [levels[value] for value in sorted(levels)]
    while any(queues):
        for queue in queues:
            while queue and any(queue[0] is t for t in taken):
                queue.pop(0)
            if queue:
                taken.append(queue.pop(0))
    return taken
