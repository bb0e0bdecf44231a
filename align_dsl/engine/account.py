"""What a run came to: counts by status, cost by decider, the rows of its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from align_dsl.engine.execute import Answered, Stop
from align_dsl.engine.plan import Plan
from align_dsl.records.record import Answer, Cost, Judgement, Result, RunRecord
from align_dsl.records.results import results, row
from align_dsl.registry import METRICS
from align_dsl.types import Case, Decision, Target


@dataclass(frozen=True, slots=True)
class Account:
    record: RunRecord
    spent: Cost


def account(
    record: RunRecord,
    plan: Plan,
    judged: Sequence[Judgement],
    answered: Answered,
    stop: Stop,
    cases: Sequence[Case],
    metrics: Sequence[str] = ("accuracy",),
) -> Account:
    """`spent` is the cost of this execution alone; the record's is that of all its answers, and of
    what went for none, in this execution and in those before it."""
    status: Literal["ok", "interrupted", "failed"] = "interrupted" if stop.asked else "ok"
    if stop.reason in ("gone", "failed"):
        status = "failed"
    answers = answered.answers
    fresh = [a for key, a in answers.items() if key in answered.asked]
    lost = record.lost + (answered.spent - _cost(fresh, 0)).model_copy(update={"seconds": 0.0})
    known = sum(1 for key in plan.model_jobs if key in answers and key not in answered.asked)
    shown = [j for j in judged if not j.control]
    by_id = {c.scenario.id: c for c in cases}
    rows = _scored(shown, by_id, record.targets, [m for m in metrics if m != "accuracy"])
    if "accuracy" in metrics:
        controls = [j for j in judged if j.control]
        costs = _by_decider(plan, answers)
        rows = (*results(shown, by_id, record.targets, costs, controls), *rows)
    return Account(
        record.model_copy(
            update={
                "status": status,
                "owner": "",
                "counts": dict(Counter(j.decision.status for j in shown)),
                "results": rows,
                "cost": _cost(answers.values(), 0) + lost,
                "lost": lost,
            }
        ),
        answered.spent.model_copy(update={"cached": known, "seconds": _cost(fresh, 0).seconds}),
    )


def _scored(
    judged: Sequence[Judgement],
    cases: Mapping[str, Case],
    targets: Sequence[Target],
    metrics: Sequence[str],
) -> tuple[Result, ...]:
    """What each metric says of each decider, model and target. Accuracy has rows of its own."""
    groups: dict[tuple[str, str, str], list[Decision]] = {}
    for j in judged if metrics else ():
        groups.setdefault((j.decision.decider, j.decision.model, j.target), []).append(j.decision)
    by_name = {t.name: t for t in targets}
    scores = {
        (name, at): METRICS[name](decisions, cases, by_name[at[2]])
        for name in metrics
        for at, decisions in groups.items()
    }
    return tuple(row(at, by_name[at[2]], score) for (_, at), score in scores.items())


def _cost(answers: Iterable[Answer], cached: int) -> Cost:
    found = list(answers)
    return Cost(
        calls=sum(a.calls for a in found),
        cached=cached,
        prompt_tokens=sum(a.prompt_tokens for a in found),
        completion_tokens=sum(a.completion_tokens for a in found),
        seconds=round(sum(a.seconds for a in found), 3),
    )


def _by_decider(
    plan: Plan, answers: Mapping[str, Answer]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Calls and tokens that each decider on each model would have needed alone."""
    keys: dict[tuple[str, str], set[str]] = {}
    for question in plan.questions:
        mine = keys.setdefault((question.decider.name, question.model.name), set())
        for links in question.takes.values():
            for link in links:
                if link.key not in mine:
                    mine.update(_below(plan, link.key))
    return {
        pair: (
            sum(answers[k].calls for k in mine if k in answers),
            sum(
                answers[k].prompt_tokens + answers[k].completion_tokens
                for k in mine
                if k in answers
            ),
        )
        for pair, mine in keys.items()
    }


def _below(plan: Plan, key: str) -> Iterator[str]:
    yield key
    for value in plan.jobs[key].inputs.values():
        if isinstance(value, tuple):
            for inner in value:
                if isinstance(inner, str) and inner in plan.jobs:
                    yield from _below(plan, inner)
