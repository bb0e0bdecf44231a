"""Pick the exemplars to show. No model is asked.

Never the case itself, nor any case with the same text: leaving them out is not an option.
"""

from __future__ import annotations

import json
import random
from typing import Annotated, Literal

import dspy

from align_dsl.algorithms._similarity import similarities
from align_dsl.types import Attribute, Exemplar, Exemplars, Pool, Range, Scenario, digest


class recall(dspy.Module):
    """Exemplars from the pool: similar, of all levels, diverse, random, the same, or fixed by id.

    `subset` shows the same for every question: the first `k` of an order that `seed` draws. The
    order is made of what exemplars say, so a pool that loses some keeps the order of the others.
    """

    calls = 0

    def __init__(
        self,
        k: Annotated[int, Range(0, 1000)] = 5,
        select: Literal[
            "similar", "stratified", "diverse", "random", "subset", "fixed"
        ] = "similar",
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
        if self.select == "subset":
            return tuple(sorted(usable, key=self._drawn)[: self.k])
        near = similarities(scenario, usable)
        order = sorted(range(len(usable)), key=lambda i: (-near[i], usable[i].scenario.content()))
        ranked = [usable[i] for i in order]
        if self.select == "stratified" and attribute is not None:
            ranked = _stratified(ranked, attribute)
        if self.select == "diverse":
            ranked = _diverse(usable, near, self.k)
        # the most similar stands last, next to the question
        return tuple(reversed(ranked[: self.k]))

    def _dice(self, scenario: Scenario) -> random.Random:
        return random.Random(digest(f"{self.seed}/{scenario.content()}"))

    def _drawn(self, exemplar: Exemplar) -> tuple[str, str]:
        said = _said(exemplar)
        return digest(f"{self.seed}/{said}"), said


def _said(exemplar: Exemplar) -> str:
    """What an exemplar says, its labels too: neither ids nor the order of choices count."""
    labels = (
        json.dumps([c.text, exemplar.labels.get(c.id)], sort_keys=True)
        for c in exemplar.scenario.choices
    )
    return "\n".join([exemplar.scenario.content(), *sorted(labels)])


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


def _diverse(usable: list[Exemplar], near: list[float], k: int) -> list[Exemplar]:
    """The most similar, then each time what is similar and most unlike those taken.

    Maximal marginal relevance. Likeness to the question is a share of what the most similar has,
    likeness to those taken a share of an exemplar's likeness to itself; it counts double, or what
    is like the question would be shown for that alone, being like those taken for the same reason.
    """
    best = max(near, default=0.0) or 1.0
    worth = [n / best for n in near]
    taken_from = [0.0] * len(usable)  # how alike each is to the most alike of those taken
    left = sorted(range(len(usable)), key=lambda i: _said(usable[i]))
    taken: list[Exemplar] = []
    while left and len(taken) < k:
        i = max(left, key=lambda i: worth[i] - 2 * taken_from[i])
        left.remove(i)
        taken.append(usable[i])
        alike = similarities(usable[i].scenario, usable)
        itself = alike[i] or 1.0
        taken_from = [max(t, a / itself) for t, a in zip(taken_from, alike, strict=True)]
    return taken
