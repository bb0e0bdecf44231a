"""A plan -> what it will cost: calls and tokens, estimated before anything is asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from align_dsl.engine.fit import OVERHEAD, shots, tokens
from align_dsl.engine.plan import Job, Plan, Question
from align_dsl.language.program import Decider, Model
from align_dsl.types import Case, Scenario

REASON = 70  # tokens of reasoning that an answer has
NUMBER = 6  # tokens of each further value


@dataclass(frozen=True, slots=True)
class Line:
    """What one decider on one model needs. Shared jobs count for each that needs them."""

    decider: Decider
    model: Model
    questions: int
    asked: int
    jobs: int
    known: int
    calls: int  # for the jobs that are not known, if every answer is good
    prompt_tokens: int
    completion_tokens: int


def bill(plan: Plan, known: Collection[str], pool: Collection[Case]) -> list[Line]:
    typical = sum(tokens(c.scenario) for c in pool) / max(1, len(pool))
    by_pair: dict[tuple[str, str], list[Question]] = {}
    for question in plan.questions:
        by_pair.setdefault((question.decider.name, question.model.name), []).append(question)
    return [_line(plan, questions, known, typical) for questions in by_pair.values()]


def calls_of(job: Job) -> int:
    """How many calls of a model a job takes, if every answer is good."""
    together = job.step.params.get("rating") == "expected" and "choice" not in job.step.each
    scenario = next((v for v in job.inputs.values() if isinstance(v, Scenario)), None)
    questions = len(scenario.choices) if together and scenario else 1
    return job.step.algorithm.calls * questions


def _line(plan: Plan, questions: list[Question], known: Collection[str], typical: float) -> Line:
    decider, model = questions[0].decider, questions[0].model
    asked = 0
    keys: dict[str, None] = {}
    for question in questions:
        for links in question.takes.values():
            for link in links:
                if plan.jobs[link.key].step.algorithm.calls:
                    asked += 1
                    keys[link.key] = None
    prompt = completion = 0.0
    for key in keys:
        job = plan.jobs[key]
        scenario = next((v for v in job.inputs.values() if isinstance(v, Scenario)), None)
        size = tokens(scenario) if scenario else 0.0
        rated = len(scenario.choices) if scenario else 1
        if job.step.params.get("rating") == "expected":  # a question and a token for each number
            rated = 1 if "choice" in job.step.each else rated
            prompt += rated * (OVERHEAD + size + shots(decider, job.step) * typical)
            completion += rated
            continue
        prompt += OVERHEAD + size + shots(decider, job.step) * (typical + REASON)
        completion += REASON + NUMBER * rated
    return Line(
        decider=decider,
        model=model,
        questions=len(questions),
        asked=asked,
        jobs=len(keys),
        known=sum(1 for key in keys if key in known),
        calls=sum(calls_of(plan.jobs[key]) for key in keys if key not in known),
        prompt_tokens=round(prompt),
        completion_tokens=round(completion),
    )
