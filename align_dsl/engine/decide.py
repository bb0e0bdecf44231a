"""Plan and answers -> a decision for every question. Pure: what was answered decides, and a seed.

A decision that lacks an answer it needs is a failure with that answer's reason; no choice is ever
put in its place. A tie stays visible in the weights, and is broken by the content of the question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from align_dsl.engine.lower import decode
from align_dsl.engine.plan import Link, Plan, Question
from align_dsl.records.record import Answer
from align_dsl.registry import ALIGNERS
from align_dsl.types import Decision, Failure, Rating, Scenario, Status, Vote, digest


def decide(
    plan: Plan,
    answers: Mapping[str, Answer],
    *,
    seed: int = 0,
    aligners: Mapping[str, Callable[..., dict[str, float]]] = ALIGNERS,
) -> Iterator[Decision]:
    """One decision per question of the plan, in its order."""
    heard = _Heard(answers, aligners)
    for question in plan.questions:
        yield _decide(question, heard, seed)


def decide_one(
    question: Question,
    answers: Mapping[str, Answer],
    *,
    seed: int = 0,
    aligners: Mapping[str, Callable[..., dict[str, float]]] = ALIGNERS,
) -> Decision:
    return _decide(question, _Heard(answers, aligners), seed)


def _decide(question: Question, heard: _Heard, seed: int) -> Decision:
    gathered = _gather(question, heard)
    common: dict[str, Any] = {
        "decider": question.decider.name,
        "model": question.model.name,
        "target": question.target.name,
        "scenario": question.case.scenario.id,
        "ratings": tuple(gathered.ratings),
        "votes": tuple(gathered.votes),
        "failures": tuple(gathered.failures),
    }
    if gathered.missing is not None:
        return Decision(status=gathered.missing.status, **common)
    ambient = {"scenario": question.case.scenario, "target": question.target}
    ports = {
        port: gathered.ports[port] if port in gathered.ports else ambient[origin]
        for port, origin in question.decider.decide.takes.items()
    }
    decide_by = question.decider.decide
    weights = heard.aligner(decide_by.aligner.name)(**ports, **decide_by.params)
    best = heaviest(weights, question.case.scenario)
    if not best:
        return Decision(status="invalid", weights=weights, **common)
    status: Status = "ok" if len(best) == 1 else "tied"
    choice = draw(best, question.case.scenario, question.decider.name, seed)
    return Decision(status=status, choice=choice, weights=weights, **common)


def heaviest(weights: Mapping[str, float], scenario: Scenario) -> list[str]:
    """The choices with the most weight; none where no choice has any."""
    most = max(weights.values(), default=0.0)
    return [c.id for c in scenario.choices if weights[c.id] >= most - 1e-12] if most > 0 else []


def draw(best: list[str], scenario: Scenario, decider: str, seed: int) -> str:
    """One of several equally good choices.

    The scenario's content is the seed, so reruns agree; the target is no part of it, so a decider
    without any opinion does not seem to have one on targets.
    """
    if len(best) == 1:
        return best[0]
    texts = {c.id: c.text for c in scenario.choices}
    dice = random.Random(digest(repr([seed, decider, scenario.content()])))
    return dice.choice(sorted(best, key=lambda c: (texts[c], c)))


class _Heard:
    """Answers in terms of choices and attributes, read once however many targets take them; and
    what they are weighed by."""

    def __init__(
        self, answers: Mapping[str, Answer], aligners: Mapping[str, Callable[..., dict[str, float]]]
    ) -> None:
        self.answers, self.aligners = answers, aligners
        self.known: dict[int, tuple[Link, tuple[Any, ...]]] = {}
        self.found: dict[str, Callable[..., dict[str, float]]] = {}

    def aligner(self, name: str) -> Callable[..., dict[str, float]]:
        if name not in self.found:
            self.found[name] = self.aligners[name]
        return self.found[name]

    def of(self, link: Link, kind: str, answer: Answer) -> tuple[Any, ...]:
        known = self.known.get(id(link))
        if known is None:
            found = decode(kind, answer.output)
            said = tuple(translated(one, link.choices, link.attribute) for one in found)
            known = self.known[id(link)] = link, said  # while we hold it, its id is its own
        return known[1]


class _Gathered:
    def __init__(self) -> None:
        self.ports: dict[str, Any] = {}
        self.ratings: list[Rating] = []
        self.votes: list[Vote] = []
        self.failures: list[Failure] = []
        self.missing: Failure | None = None  # why the question cannot be decided


def _gather(question: Question, heard: _Heard) -> _Gathered:
    """The answers of a question, in terms of its own choices and attributes."""
    found = _Gathered()
    for port, links in question.takes.items():
        said: list[Any] = []
        covered: set[str | None] = set()
        lost: dict[str | None, Failure] = {}
        step = question.decider.step(question.decider.decide.takes[port])
        for link in links:
            answer = heard.answers.get(link.key)
            if answer is None:
                failure = Failure(status="unreachable", message="never asked")
            elif answer.failure is not None:
                failure = answer.failure
            else:
                said += heard.of(link, step.algorithm.output, answer)
                if "choice" not in step.each:
                    covered.add(link.attribute)
                continue
            found.failures.append(failure)
            lost.setdefault(link.attribute, failure)
        for attribute, failure in lost.items():
            if attribute not in covered and found.missing is None:
                found.missing = failure
        found.ports[port] = tuple(said)
        found.ratings += [s for s in said if isinstance(s, Rating)]
        found.votes += [s for s in said if isinstance(s, Vote)]
    return found


def translated(one: Any, choices: Mapping[str, str], attribute: str | None) -> Any:
    """A rating or vote on letters, as one on choices."""
    if isinstance(one, Rating):  # by far the most of them, so not copied and then changed
        return Rating(
            choice=choices[one.choice],
            attribute=one.attribute if attribute is None else attribute,
            value=one.value,
            why=one.why,
            shown=one.choice,
        )
    return one.model_copy(update={"choice": choices[one.choice], "shown": one.choice})
