"""A configuration -> rights and wrongs, block by block, on questions that are the same for all.

The cases of an exam are dealt into blocks, whole groups to one of them and the attributes evenly.
While a block is answered, exemplars come from the other blocks alone: so what a trial is measured
by is cross-validated, and never the recall of a case from one of its own group.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from align_dsl import pipeline
from align_dsl.backends import Backend
from align_dsl.datasets import pool_of
from align_dsl.engine.decide import decide_one
from align_dsl.engine.execute import Stop, execute
from align_dsl.engine.plan import Plan, concerns, plan
from align_dsl.optimize.space import Config, Space
from align_dsl.records.judge import right_choices
from align_dsl.records.record import Answer
from align_dsl.records.results import attribute_of
from align_dsl.records.stats import Interval, macro_bootstrap
from align_dsl.records.store import Store
from align_dsl.types import Case, Pool

RIGHT, WRONG, FAILED = "1", "0", "f"


class Interrupted(Exception):
    """The trial did not come to its end: the budget was spent, or somebody asked to stop."""

    def __init__(self, reason: str, spent: Spent) -> None:
        super().__init__(reason)
        self.reason, self.spent = reason, spent


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: a case for a target, of which the labels can tell right from wrong."""

    case: str
    target: str
    group: str
    attribute: str
    block: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What answers cost: all that a configuration needs, and what of it was paid just now."""

    calls: int = 0
    tokens: int = 0
    paid: int = 0
    paid_tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.paid + other.paid,
            self.paid_tokens + other.paid_tokens,
        )


@dataclass(frozen=True, slots=True)
class Sat:
    """How a configuration did on some blocks: a mark per question, in the order of the exam."""

    marks: str = ""
    spent: Spent = field(default_factory=Spent)

    def __add__(self, other: Sat) -> Sat:
        return Sat(self.marks + other.marks, self.spent + other.spent)


@dataclass(frozen=True)
class _KnownPool(Pool):
    """A pool that many plans share: what it holds is hashed once."""

    known: dict[str | None, str] = field(default_factory=dict)

    def digest(self, attribute: str | None = None) -> str:
        if attribute not in self.known:
            self.known[attribute] = Pool.digest(self, attribute)
        return self.known[attribute]


@dataclass(frozen=True)
class Exam:
    """Questions in blocks. `pool` is what exemplars come from; without one, the other blocks."""

    space: Space
    blocks: tuple[tuple[Case, ...], ...]
    store: Store
    backends: Mapping[str, Backend]
    pool: tuple[Case, ...] | None = None

    @cached_property
    def asked(self) -> tuple[Asked, ...]:
        return tuple(
            Asked(c.scenario.id, t.name, c.group or c.scenario.id, attribute_of(t), b)
            for b, block in enumerate(self.blocks)
            for c in block
            for t in self.space.checked.program.targets
            if (c.scenario.id, t.name) in self.right
        )

    @cached_property
    def right(self) -> dict[tuple[str, str], frozenset[str]]:
        """What the labels say, where they can tell."""
        return {
            (c.scenario.id, t.name): right
            for block in self.blocks
            for c in block
            for t in self.space.checked.program.targets
            if concerns(t, c) and (right := right_choices(c, t)) is not None
        }

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """What each question counts, so that the mean is over attributes, as results show it."""
        names = [a.attribute for a in self.asked]
        n = {name: names.count(name) for name in set(names)}
        return tuple(1 / (len(n) * n[name]) for name in names)

    def score(self, marks: str) -> float:
        """Accuracy, averaged over attributes; what failed is wrong. Of all blocks, or the first."""
        if len(marks) == len(self.asked):
            return sum(w for w, m in zip(self.weights, marks, strict=True) if m == RIGHT)
        by: dict[str, list[bool]] = {}
        for a, m in zip(self.asked, marks, strict=False):
            by.setdefault(a.attribute, []).append(m == RIGHT)
        return sum(sum(v) / len(v) for v in by.values()) / max(1, len(by))

    def difference(self, marks: str, other: str, confidence: float = 0.95) -> Interval | None:
        """How much better, in accuracy over attributes; groups are drawn whole."""
        gains = [float(a == RIGHT) - float(b == RIGHT) for a, b in zip(marks, other, strict=True)]
        some = self.asked[: len(gains)]
        return macro_bootstrap(
            gains,
            [a.attribute for a in some],
            [a.group for a in some],
            confidence=confidence,
        )

    def by_group(self, marks: str, other: str) -> dict[str, float]:
        """For each group, what it adds to the difference of the two."""
        gains: dict[str, float] = {}
        for a, w, one, two in zip(self.asked, self.weights, marks, other, strict=False):
            gains[a.group] = gains.get(a.group, 0.0) + w * ((one == RIGHT) - (two == RIGHT))
        return gains

    @cached_property
    def _pools(self) -> tuple[_KnownPool, ...]:
        if self.pool is not None:
            return (_KnownPool(pool_of(self.pool).exemplars),) * len(self.blocks)
        every = [c for block in self.blocks for c in block]
        inside = [{c.scenario.id for c in block} for block in self.blocks]
        return tuple(
            _KnownPool(pool_of([c for c in every if c.scenario.id not in mine]).exemplars)
            for mine in inside
        )

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        return {name: b.fingerprint() for name, b in self.backends.items()}

    @cached_property
    def _prompts(self) -> str:
        return pipeline.prompts_version()

    def plan(self, config: Config, block: int) -> Plan:
        program = self.space.program(config)
        return plan(
            program,
            self.blocks[block],
            program.targets,
            self._pools[block],
            fingerprints=self._fingerprints,
            prompts=self._prompts,
        )

    def sit(
        self, config: Config, block: int, *, budget: int | None = None, stop: Stop | None = None
    ) -> Sat:
        """Answer one block. Raises Interrupted where not all of it could be asked."""
        todo, stop = self.plan(config, block), stop if stop is not None else Stop()
        answered = execute(todo, self.backends, self.store, budget=budget, stop=stop)
        answers = answered.answers
        spent = _spent([answers[k] for k in todo.model_jobs if k in answers], answered.asked)
        if any(key not in answers for key in todo.model_jobs):
            raise Interrupted(stop.reason, spent)
        marks = []
        for question in todo.questions:
            right = self.right.get((question.case.scenario.id, question.target.name))
            if right is None:
                continue
            choice = decide_one(question, answers, seed=self.space.checked.program.seed).choice
            marks.append(FAILED if choice is None else RIGHT if choice in right else WRONG)
        return Sat("".join(marks), spent)

    def sit_all(
        self,
        config: Config,
        *,
        budget: int | None = None,
        stop: Stop | None = None,
        enough: Callable[[str], bool] = lambda marks: False,
    ) -> Sat:
        """Answer block after block, until `enough` is known of the configuration."""
        done = Sat()
        for block in range(len(self.blocks)):
            left = None if budget is None else budget - done.spent.paid
            try:
                done += self.sit(config, block, budget=left, stop=stop)
            except Interrupted as ended:
                raise Interrupted(ended.reason, done.spent + ended.spent) from None
            if block + 1 < len(self.blocks) and enough(done.marks):
                break
        return done


def _spent(needed: Sequence[Answer], asked: Collection[str]) -> Spent:
    fresh = [a for a in needed if a.key in asked]
    return Spent(
        calls=sum(a.calls for a in needed),
        tokens=sum(a.prompt_tokens + a.completion_tokens for a in needed),
        paid=sum(a.calls for a in fresh),
        paid_tokens=sum(a.prompt_tokens + a.completion_tokens for a in fresh),
    )


def deal(cases: Sequence[Case], n: int, seed: int) -> tuple[tuple[Case, ...], ...]:
    """Cases in n blocks: whole groups to one, attributes evenly, the same way every time."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group or case.scenario.id, []).append(case)
    names = sorted(groups)
    random.Random(f"blocks/{seed}").shuffle(names)
    names.sort(key=lambda g: sorted(groups[g][0].attributes()))  # stable: the order drawn remains
    blocks: list[list[Case]] = [[] for _ in range(min(n, len(names)))]
    for i, name in enumerate(names):
        blocks[i % len(blocks)] += groups[name]
    return tuple(tuple(b) for b in blocks)
