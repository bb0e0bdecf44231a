"""A plan -> the exact messages and schema that its jobs would send, without any model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from align_dsl.engine.adapter import NoAnswer, shape_of
from align_dsl.engine.inputs import Inputs
from align_dsl.engine.lower import lower
from align_dsl.engine.plan import Job, Plan
from align_dsl.engine.prompt import Message, messages, schema
from align_dsl.engine.silent import silent
from align_dsl.types import Failure


@dataclass(frozen=True, slots=True)
class Preview:
    decider: str
    step: str
    job: Job
    messages: list[Message]
    schema: dict[str, Any]
    missing: str = ""  # why the prompt cannot be known before the run


class _Recorder(dspy.Adapter):
    """Takes down what would be asked, and answers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Message] = []
        self.schema: dict[str, Any] = {}

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Sequence[Mapping[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        shape = shape_of(signature, inputs)
        self.said = messages(signature.instructions, shape, inputs, demos)
        self.schema = schema(shape)
        raise NoAnswer(Failure(status="refused", message="only looking"))


def preview(plan: Plan, scenario: str | None = None) -> Iterator[Preview]:
    """The first job of every step of every decider, for one scenario (the first by default)."""
    seen: set[tuple[str, str, str]] = set()
    for question in plan.questions:
        if scenario is not None and question.case.scenario.id != scenario:
            continue
        if scenario is None and question.case is not plan.questions[0].case:
            continue
        for links in question.takes.values():
            for link in links:
                job = plan.jobs[link.key]
                at = (question.decider.name, job.step.name, link.attribute or "")
                if job.step.algorithm.calls and at not in seen:
                    seen.add(at)
                    yield look(plan, question.decider.name, job)


def look(plan: Plan, decider: str, job: Job) -> Preview:
    inputs = Inputs(plan, {}).of(job)
    if isinstance(inputs, Failure):
        said = "it depends on what a model answers in an earlier step"
        return Preview(decider, job.step.name, job, [], {}, said)
    recorder = _Recorder()
    lm = silent("preview", "a preview asks no model")
    try:
        with dspy.context(lm=lm, adapter=recorder, disable_history=True, max_trace_size=0):
            lower(job.step)(**inputs)
    except NoAnswer:
        pass
    return Preview(decider, job.step.name, job, recorder.said, recorder.schema)
