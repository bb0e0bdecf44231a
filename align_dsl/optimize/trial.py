"""A configuration -> rights and wrongs, block by block, on questions that are the same for all.

The cases of an exam are dealt into blocks, whole groups to one of them and the attributes evenly.
While a block is answered, exemplars come from the other blocks alone: so what a trial is measured
by is cross-validated, and never the recall of a case from one of its own group.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from align_dsl import pipeline
from align_dsl.backends import Backend
from align_dsl.datasets import pool_of
from align_dsl.engine.decide import decide
from align_dsl.engine.demos import filled
from align_dsl.engine.execute import Stop, execute
from align_dsl.engine.plan import Memory, Plan, concerns, plan
from align_dsl.language.program import Program
from align_dsl.optimize.sat import (
    FAILED,
    RIGHT,
    WRONG,
    Asked,
    Interrupted,
    Marks,
    Sat,
    Spent,
    rights,
)
from align_dsl.optimize.space import Config, Space
from align_dsl.records.judge import right_choices
from align_dsl.records.record import Answer
from align_dsl.records.results import attribute_of
from align_dsl.records.stats import Interval, macro_bootstrap
from align_dsl.records.store import Store
from align_dsl.types import Case, Decision, Pool

DRAWS = 6  # of exemplars, where they are drawn at random and answers cost nothing
KEPT = 20_000  # jobs of plans that are kept to be used again, some 20 MB


@dataclass(frozen=True)
class _KnownPool(Pool):
    """A pool that many plans share: what it holds is hashed once."""

    known: dict[str | None, str] = field(default_factory=dict)

    def digest(self, attribute: str | None = None) -> str:
        if attribute not in self.known:
            self.known[attribute] = Pool.digest(self, attribute)
        return self.known[attribute]


class _Plans:
    """Plans to use again: many configurations ask the same, and only decide otherwise."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, str], Plan] = {}
        self.jobs = 0
        self.last: tuple[Program | None, str] = (None, "")

    def of(self, program: Program, block: int) -> Plan | None:
        made = self.known.get((block, self._asks(program)))
        (decider,) = program.deciders
        if made is None or not made.questions or made.questions[0].decider is decider:
            return made
        return Plan(made.jobs, [replace(q, decider=decider) for q in made.questions], made.asked)

    def keep(self, program: Program, block: int, made: Plan) -> None:
        self.known[block, self._asks(program)] = made
        self.jobs += len(made.jobs)
        while self.jobs > KEPT and len(self.known) > 1:  # the oldest make room
            self.jobs -= len(self.known.pop(next(iter(self.known))).jobs)

    def _asks(self, program: Program) -> str:
        """What a program with one decider asks of which models; not how answers are weighed."""
        if self.last[0] is not program:
            (decider,) = program.deciders
            plain = decider.decide.model_copy(update={"params": {}})
            asking = decider.model_copy(update={"decide": plain, "params": {}})
            said = "\n".join(one.canonical() for one in (asking, *program.models))
            self.last = program, said
        return self.last[1]


@dataclass(frozen=True)
class Exam:
    """Questions in blocks. `pool` is what exemplars come from; without one, the other blocks."""

    space: Space
    blocks: tuple[tuple[Case, ...], ...]
    store: Store
    backends: Mapping[str, Backend]
    pool: tuple[Case, ...] | None = None
    known: tuple[Case, ...] = ()  # that demos may speak of; a block sees none of its own

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

    def score(self, marks: Marks) -> float:
        """Accuracy, averaged over attributes; what failed is wrong. Of all blocks, or the first."""
        right = rights(marks)
        if len(right) == len(self.asked):
            return sum(w * r for w, r in zip(self.weights, right, strict=True))
        by: dict[str, list[float]] = {}
        for a, r in zip(self.asked, right, strict=False):
            by.setdefault(a.attribute, []).append(r)
        return sum(sum(v) / len(v) for v in by.values()) / max(1, len(by))

    def difference(self, marks: Marks, other: Marks, confidence: float = 0.95) -> Interval | None:
        """How much better, in accuracy over attributes; groups are drawn whole."""
        gains = [a - b for a, b in zip(rights(marks), rights(other), strict=True)]
        some = self.asked[: len(gains)]
        return macro_bootstrap(
            gains,
            [a.attribute for a in some],
            [a.group for a in some],
            confidence=confidence,
        )

    def by_group(self, marks: Marks, other: Marks) -> dict[str, float]:
        """For each group, what it adds to the difference of the two."""
        gains: dict[str, float] = {}
        rows = zip(self.asked, self.weights, rights(marks), rights(other), strict=False)
        for a, w, one, two in rows:
            gains[a.group] = gains.get(a.group, 0.0) + w * (one - two)
        return gains

    @cached_property
    def pools(self) -> tuple[_KnownPool, ...]:
        """What exemplars come from, block by block."""
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

    def plan(self, config: Config, block: int, draw: int = 0) -> Plan:
        mine = {c.scenario.id for c in self.blocks[block]}
        elsewhere = [c for c in self.known if c.scenario.id not in mine]
        program = redrawn(filled(self.space.program(config), elsewhere), draw)
        made = self._plans.of(program, block)
        if made is None:
            made = plan(
                program,
                self.blocks[block],
                program.targets,
                self.pools[block],
                fingerprints=self._fingerprints,
                prompts=self._prompts,
                memory=self._memory,
            )
            self._plans.keep(program, block, made)
        return made

    @cached_property
    def _plans(self) -> _Plans:
        return _Plans()

    @cached_property
    def _memory(self) -> Memory:
        return Memory()

    def sit(
        self,
        config: Config,
        block: int,
        *,
        budget: int | None = None,
        stop: Stop | None = None,
        draw: int = 0,
    ) -> Sat:
        """Answer one block. Raises Interrupted where not all of it could be asked."""
        decided, spent = self.decided(config, block, budget=budget, stop=stop, draw=draw)
        marks = []
        for made in decided:
            right = self.right[made.scenario, made.target]
            marks.append(
                FAILED if made.choice is None else RIGHT if made.choice in right else WRONG
            )
        return Sat("".join(marks), spent)

    def decided(
        self,
        config: Config,
        block: int,
        *,
        budget: int | None = None,
        stop: Stop | None = None,
        draw: int = 0,
    ) -> tuple[list[Decision], Spent]:
        """What is decided in one block, of what the labels can judge, and what that cost."""
        todo, stop = self.plan(config, block, draw), stop if stop is not None else Stop()
        answered = execute(todo, self.backends, self.store, budget=budget, stop=stop)
        answers = answered.answers
        found = [answers[k] for k in todo.model_jobs if k in answers]
        spent = _spent(found, answered.asked, len(todo.questions))
        if any(key not in answers for key in todo.model_jobs):
            raise Interrupted(stop.reason, spent)
        seed = self.space.checked.program.seed
        return list(decide(self._judged(todo), answers, seed=seed)), spent

    def _judged(self, todo: Plan) -> Plan:
        """The questions of which the labels can tell right from wrong."""
        known = [q for q in todo.questions if (q.case.scenario.id, q.target.name) in self.right]
        return Plan(todo.jobs, known)

    def sit_all(
        self,
        config: Config,
        *,
        budget: int | None = None,
        stop: Stop | None = None,
        enough: Callable[[str], bool] = lambda marks: False,
        draw: int = 0,
    ) -> Sat:
        """Answer block after block, until `enough` is known of the configuration."""
        done = Sat()
        for block in range(len(self.blocks)):
            left = None if budget is None else budget - done.spent.paid
            try:
                done += self.sit(config, block, budget=left, stop=stop, draw=draw)
            except Interrupted as ended:
                raise Interrupted(ended.reason, done.spent + ended.spent) from None
            if block + 1 < len(self.blocks) and enough(done.marks):
                break
        return done

    def sit_often(
        self, config: Config, *, budget: int | None = None, stop: Stop | None = None
    ) -> Sat:
        """Answer all blocks, and where exemplars are drawn at random and answers cost nothing, with
        other draws as well. Each case has dice of its own, so the mean over draws is an estimate of
        the very accuracy that the program's own draw is one of, and a surer one."""
        sat = self.sit_all(config, budget=budget, stop=stop)
        program = self.space.program(config)
        if not self._is_free or redrawn(program, 1) is program:
            return sat
        others = (self.sit_all(config, stop=stop, draw=draw).marks for draw in range(1, DRAWS))
        return replace(sat, others=tuple(others))

    @property
    def _is_free(self) -> bool:
        models = self.space.checked.program.models
        return all(m.backend == "embedded" for m in models if m.name in self.backends)


def redrawn(program: Program, draw: int) -> Program:
    """The program with other dice for the exemplars that it shows; itself where it rolls none."""
    (decider,) = program.deciders
    rolls = [s for s in decider.steps if s.params.get("select") == "random" and s.params.get("k")]
    if not draw or not rolls:
        return program
    steps = tuple(
        s.model_copy(update={"params": {**s.params, "seed": s.params["seed"] + draw}})
        if s in rolls
        else s
        for s in decider.steps
    )
    return program.model_copy(update={"deciders": (decider.model_copy(update={"steps": steps}),)})


def _spent(needed: Sequence[Answer], asked: Collection[str], decisions: int) -> Spent:
    fresh = [a for a in needed if a.key in asked]
    return Spent(
        calls=sum(a.calls for a in needed),
        tokens=sum(a.prompt_tokens + a.completion_tokens for a in needed),
        paid=sum(a.calls for a in fresh),
        paid_tokens=sum(a.prompt_tokens + a.completion_tokens for a in fresh),
        decisions=decisions,
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
