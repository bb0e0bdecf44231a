"""Program x cases x targets -> the smallest set of jobs that answers them all.

A job's key is made of what the job takes and nothing else: not of scenario ids, choice ids,
labels or target names. A step that does not take the target has one job for all targets. Keys of
later jobs hold the keys of the jobs they take, so the whole plan is known before the first call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align_dsl.engine.demos import said as demos_said
from align_dsl.engine.shown import Shown, plainly, ways
from align_dsl.language.program import Decider, Model, Order, Program, Step
from align_dsl.types import (
    Attribute,
    Case,
    Choice,
    Labels,
    Pool,
    Scenario,
    Target,
    digest,
)

FORMAT = 1  # counts up when keys are made differently


@dataclass(frozen=True, slots=True)
class Job:
    """One call of one algorithm on fixed inputs. Choices go by letter, scenarios without id."""

    key: str
    step: Step
    model: Model
    inputs: Mapping[str, Any]  # port -> value, or the keys of the jobs that make it
    sample: int


@dataclass(frozen=True, slots=True)
class Link:
    """A job that a question builds on, and what its letters mean there."""

    key: str
    choices: Mapping[str, str]  # letter -> choice id
    attribute: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """One decision to make: a decider on a model, for a scenario and a target."""

    decider: Decider
    model: Model
    case: Case
    target: Target
    takes: Mapping[str, tuple[Link, ...]]  # port of the aligner -> jobs
    control_for: Target | None = None  # decided for `target`, to be judged against this one

    @property
    def links(self) -> Iterator[Link]:
        """Every job that it builds on."""
        return (link for links in self.takes.values() for link in links)

    @property
    def judged_by(self) -> Target:
        return self.control_for or self.target


@dataclass(slots=True)
class Plan:
    jobs: dict[str, Job] = field(default_factory=dict)  # in an order that respects dependencies
    questions: list[Question] = field(default_factory=list)
    asked: int = 0  # model jobs there would be if nothing were shared

    @property
    def model_jobs(self) -> list[str]:
        return [key for key, job in self.jobs.items() if job.step.algorithm.calls]

    def only(self, questions: Sequence[Question]) -> Plan:
        """The part that answers some of the questions."""
        needed = set[str]()
        left = [link.key for q in questions for link in q.links]
        while left:
            key = left.pop()
            if key not in needed:
                needed.add(key)
                inputs = self.jobs[key].inputs.values()
                left += [below for value in inputs if self.are_keys(value) for below in value]
        return Plan({k: job for k, job in self.jobs.items() if k in needed}, list(questions))

    def are_keys(self, value: Any) -> bool:
        """Whether an input of a job is what other jobs bring back."""
        if not isinstance(value, tuple):
            return False
        return all(isinstance(key, str) and key in self.jobs for key in value)

    def __str__(self) -> str:
        return f"{self.asked:,} asked for, {len(self.model_jobs):,} to run"


@dataclass(slots=True)
class Memory:
    """What many plans of the same cases have in common, hashed once for all of them."""

    attributes: dict[Attribute, str] = field(default_factory=dict)
    plain: dict[str, Shown] = field(default_factory=dict)
    shown: dict[tuple[int, Order, int, str], list[Shown]] = field(default_factory=dict)


def plan(
    program: Program,
    cases: Sequence[Case],
    targets: Sequence[Target],
    pool: Pool,
    *,
    fingerprints: Mapping[str, str] | None = None,
    prompts: str = "",
    seed: int | None = None,
    control: bool = False,
    memory: Memory | None = None,
    wanted: Callable[[Target, Case], bool] | None = None,
) -> Plan:
    """`fingerprints` name what stands behind each model; `prompts` what prompts are made with.
    With a `memory`, what earlier plans of these cases have hashed is not hashed again. `wanted`
    says which questions are asked, of those that the cases say something about.

    With `control`, each decider also decides every question as if another attribute had been
    asked for: what accuracy is left then owes nothing to alignment.
    """
    made = Plan()
    shared = _Shared(
        program,
        pool,
        program.seed if seed is None else seed,
        fingerprints or {},
        prompts,
        memory if memory is not None else Memory(),
    )
    for decider, model in program.pairs():
        work = _Decider(shared, made, decider, model)
        for case in cases:
            mine = [t for t in concerned(targets, case) if wanted is None or wanted(t, case)]
            work.add(case, [(t, None) for t in mine])
            if control and case.labels:
                work.add(case, [(w, t) for t in mine if (w := _wrong(t, targets))])
    return made


def _wrong(target: Target, targets: Sequence[Target]) -> Target | None:
    """The same stand on another attribute: the next one in the program's order."""
    if len(target.values) != 1:
        return None
    ((name, value),) = target.values.items()
    others = [t for t in targets if len(t.values) == 1 and list(t.values.values()) == [value]]
    at = next(i for i, t in enumerate(others) if name in t.values)
    return others[(at + 1) % len(others)] if len(others) > 1 else None


def concerns(target: Target, case: Case) -> bool:
    """Whether a case says something about a target: unlabelled cases are decided for every one."""
    return bool(concerned([target], case))


def concerned(targets: Sequence[Target], case: Case) -> list[Target]:
    """The targets that a case says something about."""
    named = case.attributes() if case.labels else None
    return [t for t in targets if named is None or t.values.keys() <= named]


@dataclass(slots=True)
class _Shared:
    """What all jobs of a plan have in common, hashed once."""

    program: Program
    pool: Pool
    seed: int
    fingerprints: Mapping[str, str]
    prompts: str
    memory: Memory
    attributes: dict[Any, tuple[Attribute, str]] = field(default_factory=dict)
    pools: dict[str | None, str] = field(default_factory=dict)

    def attribute(self, name: str, step: Step | None = None) -> tuple[Attribute, str]:
        """An attribute, as a step is told of it, and the digest of what it is told."""
        told = (step.scale, step.definitions.get(name)) if step else (None, None)
        if (name, *told) not in self.attributes:
            attribute = self.program.attribute(name).told(*told)
            if attribute not in self.memory.attributes:
                said = attribute.model_dump(mode="json", exclude={"name", "aliases"})
                self.memory.attributes[attribute] = digest(json.dumps(said, sort_keys=True))
            self.attributes[name, *told] = attribute, self.memory.attributes[attribute]
        return self.attributes[name, *told]

    def pool_digest(self, attribute: str | None) -> str:
        if attribute not in self.pools:
            self.pools[attribute] = self.pool.digest(attribute)
        return self.pools[attribute]

    def ways(self, scenario: Scenario, step: Step) -> list[Shown]:
        shown, key = self.memory.shown, (self.seed, step.order, step.samples, scenario.id)
        if key not in shown:
            shown[key] = list(ways(scenario, step.order, step.samples, self.seed))
        return shown[key]

    def plainly(self, scenario: Scenario) -> Shown:
        plain = self.memory.plain
        if scenario.id not in plain:
            plain[scenario.id] = plainly(scenario)
        return plain[scenario.id]


class _Decider:
    """Adds the jobs and questions of one decider on one model to a plan."""

    def __init__(self, shared: _Shared, made: Plan, decider: Decider, model: Model) -> None:
        self.shared, self.made, self.decider, self.model = shared, made, decider, model
        fingerprint = shared.fingerprints.get(model.name, "")
        self.prefix: dict[str, str] = {}
        self.per_target: dict[str, bool] = {}
        self.taught: dict[tuple[str, str | None], str] = {}
        for step in decider.steps:
            asked = model.model_copy(update={"temperature": step.warmth(model)})
            who = [asked.identity(), fingerprint, shared.prompts] if step.algorithm.calls else []
            algorithm = step.algorithm
            said = [FORMAT, who, algorithm.name, algorithm.version, step.params]
            self.prefix[step.name] = digest(json.dumps(said, sort_keys=True))
            self.per_target[step.name] = decider.takes_target(step)

    def add(self, case: Case, targets: Sequence[tuple[Target, Target | None]]) -> None:
        """`targets`: what to decide for, and what to judge by where that is something else."""
        if not targets:
            return
        names = list(dict.fromkeys(n for t, _ in targets for n in t.values))
        common: dict[str, list[Link]] = {}
        for step in self.decider.steps:
            if not self.per_target[step.name]:
                common[step.name] = self._jobs(step, case, names, None, common)
        for target, control_for in targets:
            mine = dict(common)
            for step in self.decider.steps:
                if self.per_target[step.name]:
                    mine[step.name] = self._jobs(step, case, list(target.values), target, mine)
                if step.algorithm.calls:
                    links = self._of_target(mine[step.name], target)
                    self.made.asked += len(links) * step.algorithm.calls
            takes = {
                port: tuple(self._of_target(mine[origin], target))
                for port, origin in self.decider.decide.takes.items()
                if origin in mine
            }
            self.made.questions.append(
                Question(self.decider, self.model, case, target, takes, control_for)
            )

    @staticmethod
    def _of_target(links: list[Link], target: Target) -> list[Link]:
        return [k for k in links if k.attribute is None or k.attribute in target.values]

    def _jobs(
        self,
        step: Step,
        case: Case,
        names: list[str],
        target: Target | None,
        earlier: Mapping[str, list[Link]],
    ) -> list[Link]:
        links: list[Link] = []
        if step.only is not None:
            names = [n for n in names if n in step.only]
        over: Sequence[str | None] = names if "attribute" in step.each else [None]
        sees = "scenario" in step.takes.values() and step.algorithm.calls > 0
        for name in over:
            for shown in (
                self.shared.ways(case.scenario, step)
                if sees
                else [self.shared.plainly(case.scenario)]
            ):
                for choice in shown.scenario.choices if "choice" in step.each else (None,):
                    inputs, parts = self._inputs(step, case, shown, name, choice, target, earlier)
                    key = digest("\n".join([self.prefix[step.name], str(shown.sample), *parts]))
                    if key not in self.made.jobs:
                        self.made.jobs[key] = Job(key, step, self.model, inputs, shown.sample)
                    links.append(Link(key, shown.means, name))
        return links

    def _inputs(
        self,
        step: Step,
        case: Case,
        shown: Shown,
        name: str | None,
        choice: Choice | None,
        target: Target | None,
        earlier: Mapping[str, list[Link]],
    ) -> tuple[dict[str, Any], list[str]]:
        inputs: dict[str, Any] = {}
        parts: list[str] = []
        for port, origin in step.takes.items():
            value: Any
            match origin:
                case "scenario":
                    value, said = shown.scenario, shown.content
                case "attribute":
                    assert name is not None
                    value, said = self.shared.attribute(name, step)
                case "choice":
                    assert choice is not None
                    value, said = choice, f"{choice.id} {choice.text}"
                case "target":
                    assert target is not None
                    value = target
                    said = json.dumps([_by_content(self.shared, target.values), target.weights])
                case "attributes":
                    assert target is not None
                    found = [self.shared.attribute(n, step) for n in target.values]
                    value, said = tuple(a for a, _ in found), json.dumps([d for _, d in found])
                case "pool":
                    value, said = self.shared.pool, self.shared.pool_digest(name)
                case "labels":
                    value, said = case.labels, _labels(case.labels)
                case _:
                    keys = tuple(
                        link.key for link in earlier[origin] if link.attribute in (None, name)
                    )
                    value, said = keys, " ".join(keys)
            inputs[port] = value
            parts.append(f"{port}={said}")
        if taught := self._taught(step, name):
            parts.append(f"demos={taught}")
        return inputs, parts

    def _taught(self, step: Step, name: str | None) -> str:
        """What the worked examples come to that a step may show of an attribute."""
        key = step.name, name
        if key not in self.taught:
            self.taught[key] = demos_said(step.demos, name)
        return self.taught[key]


def _by_content(shared: _Shared, values: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(shared.attribute(n)[1], v) for n, v in values.items()]


def _labels(labels: Labels) -> str:
    return json.dumps(labels, sort_keys=True)
