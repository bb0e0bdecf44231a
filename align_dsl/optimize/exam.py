"""A configuration -> rights and wrongs, block by block, on questions that are the same for all.

The cases of an exam are dealt into blocks, whole groups to one of them and the attributes evenly.
While a block is answered, exemplars come from the other blocks alone: so what a trial is measured
by is cross-validated, and never the recall of a case from one of its own group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from align_dsl import pipeline
from align_dsl.backends import Backend
from align_dsl.datasets import pool_of
from align_dsl.engine.bill import calls_of
from align_dsl.engine.decide import decide
from align_dsl.engine.demos import filled
from align_dsl.engine.execute import Answered, Gone, Stop, execute
from align_dsl.engine.plan import Memory, Plan, concerns, plan
from align_dsl.optimize.draws import DRAWS, redrawn
from align_dsl.optimize.plans import KnownPool, Plans, parts_of
from align_dsl.optimize.purse import Purse
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
    spent_on,
)
from align_dsl.optimize.space import Config, Space
from align_dsl.records.judge import right_choices
from align_dsl.records.record import Answer
from align_dsl.records.results import attribute_of
from align_dsl.records.stats import Interval, macro_bootstrap
from align_dsl.records.store import Store
from align_dsl.types import Case, Decision


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
            draws=min(200_000, round(100 / (1 - confidence))),  # 2000 at 0.95: 50 beyond each end
        )

    def by_group(self, marks: Marks, other: Marks) -> dict[str, float]:
        """For each group, what it adds to the difference of the two."""
        gains: dict[str, float] = {}
        rows = zip(self.asked, self.weights, rights(marks), rights(other), strict=False)
        for a, w, one, two in rows:
            gains[a.group] = gains.get(a.group, 0.0) + w * (one - two)
        return gains

    @cached_property
    def pools(self) -> tuple[KnownPool, ...]:
        """What exemplars come from, block by block."""
        if self.pool is not None:
            return (KnownPool(pool_of(self.pool).exemplars),) * len(self.blocks)
        every = [c for block in self.blocks for c in block]
        inside = [{c.scenario.id for c in block} for block in self.blocks]
        return tuple(
            KnownPool(pool_of([c for c in every if c.scenario.id not in mine]).exemplars)
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
                wanted=lambda target, case: (case.scenario.id, target.name) in self.right,
            )
            self._plans.keep(program, block, made)
        return made

    @cached_property
    def _plans(self) -> Plans:
        return Plans()

    @cached_property
    def _memory(self) -> Memory:
        return Memory()

    def _sit(self, todo: Plan, purse: Purse, stop: Stop | None, known: Mapping[str, Answer]) -> Sat:
        """Answer some questions. Raises Interrupted where not all of them could be asked."""
        decided, spent = self._decided(todo, purse, stop, known)
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
        purse: Purse | None = None,
        stop: Stop | None = None,
    ) -> tuple[list[Decision], Spent]:
        """What is decided in one block, and what that cost. Raises Interrupted."""
        return self._decided(self.plan(config, block), purse or Purse(), stop)

    def _decided(
        self,
        todo: Plan,
        purse: Purse,
        stop: Stop | None,
        known: Mapping[str, Answer] = MappingProxyType({}),
    ) -> tuple[list[Decision], Spent]:
        stop = stop if stop is not None else Stop()
        if all(link.key in known for q in todo.questions for link in q.links):
            answered = Answered(dict(known), frozenset())
        else:
            answered = self._execute(todo, purse, stop)
        again = self._passing(todo.model_jobs, answered.answers)
        is_cut = bool(again) and stop.asked
        if again and not is_cut:
            answered = self._asked_again(todo, again, purse, stop, answered.asked)
        answers = answered.answers
        found = [answers[k] for k in todo.model_jobs if k in answers]
        spent = spent_on(found, answered.asked, len(todo.questions))
        if is_cut or any(key not in answers for key in todo.model_jobs):
            raise Interrupted(stop.reason, spent)
        seed = self.space.checked.program.seed
        return list(decide(todo, answers, seed=seed)), spent

    def _execute(self, todo: Plan, purse: Purse, stop: Stop) -> Answered:
        store, calls, tokens = purse.over(self.store), purse.calls, purse.tokens
        gone = None
        try:
            answered = execute(todo, self.backends, store, budget=purse.left, stop=stop)
        except Gone as error:
            answered, gone = error.answered, error
        spent = answered.spent
        purse.correct(calls + spent.calls, tokens + spent.prompt_tokens + spent.completion_tokens)
        if gone is not None:
            raise gone
        return answered

    def _asked_again(
        self, todo: Plan, keys: list[str], purse: Purse, stop: Stop, asked: frozenset[str]
    ) -> Answered:
        """Once more, without the failures that say nothing of the question."""
        self._again.update(keys)
        self.store.forget_failures(keys)
        answered = self._execute(todo, purse, stop)
        return Answered(answered.answers, answered.asked | asked)

    def _passing(self, keys: Collection[str], known: Mapping[str, Answer]) -> list[str]:
        """Those that failed, and are to be asked again before they count as wrong."""
        failed = ((k, known[k].failure) for k in keys if k in known)
        return [k for k, f in failed if f and f.is_passing and k not in self._again]

    @cached_property
    def _again(self) -> set[str]:
        """What was asked again in this session."""
        return set()

    def calls(self, *configs: Config) -> dict[str, int]:
        """What is asked for these configurations: for each key how many calls, if they cost any."""
        if self._is_free:
            return {}
        plans = (self.plan(c, block) for c in configs for block in range(len(self.blocks)))
        return {k: calls_of(plan.jobs[k]) for plan in plans for k in plan.model_jobs}

    def lacks(self, *configs: Config) -> int:
        """Calls that are still to be paid for these configurations, if every answer is good."""
        calls = self.calls(*configs)
        known = self.store.known(calls)
        again = self._passing(calls, known)
        return sum(n for k, n in calls.items() if k not in known) + sum(calls[k] for k in again)

    def failures(self, *configs: Config) -> Counter[str]:
        """Why answers that these configurations need have failed, and how many for each reason."""
        failed = (a.failure for a in self.store.known(self.calls(*configs)).values())
        return Counter(f"{f.status}: {f.message}" for f in failed if f)

    def forget_failures(self, *configs: Config) -> None:
        """So that they are asked again."""
        self.store.forget_failures(self.calls(*configs))

    def sit_all(
        self,
        config: Config,
        *,
        purse: Purse | None = None,
        stop: Stop | None = None,
        enough: Callable[[str], bool] | None = None,
        draw: int = 0,
    ) -> Sat:
        """Answer block after block, until `enough` is known of the configuration: looked after
        every few groups, whether answers were known before or not, so that a trial which is done
        a second time ends where it ended. Where answers cost nothing, all are had: what they say
        of configurations that are near is worth more than the time."""
        purse, done = purse or Purse(), Sat()
        looks = None if self._is_free else enough
        for block in range(len(self.blocks)):
            todo = self.plan(config, block, draw)
            known = self.store.known(todo.model_jobs) if looks else {}
            for part in parts_of(todo) if looks else [todo]:
                try:
                    done += self._sit(part, purse, stop, known)
                except Interrupted as ended:
                    raise Interrupted(ended.reason, done.spent + ended.spent) from None
                if looks and len(done.marks) < len(self.asked) and looks(done.marks):
                    return done
        return done

    def sit_often(
        self, config: Config, *, purse: Purse | None = None, stop: Stop | None = None
    ) -> Sat:
        """Answer all blocks, and where exemplars are drawn at random and answers cost nothing, with
        other draws as well. Each case has dice of its own, so the mean over draws is an estimate of
        the very accuracy that the program's own draw is one of, and a surer one."""
        sat, draws = self.sit_all(config, purse=purse, stop=stop), self.draws(config)
        others = (self.sit_all(config, stop=stop, draw=draw).marks for draw in range(1, draws))
        return replace(sat, others=tuple(others))

    def draws(self, config: Config) -> int:
        """Of exemplars, in a verdict: several where they are free, and differ."""
        program = self.space.program(config)
        return DRAWS if self._is_free and redrawn(program, 1) is not program else 1

    @property
    def _is_free(self) -> bool:
        models = self.space.checked.program.models
        return all(m.backend == "embedded" for m in models if m.name in self.backends)
