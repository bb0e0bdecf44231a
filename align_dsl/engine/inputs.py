"""The values that a job takes, found through what other jobs brought back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from align_dsl.engine.ask import blame
from align_dsl.engine.lower import decode, lower
from align_dsl.engine.plan import Job, Plan
from align_dsl.language.program import Step
from align_dsl.records.record import Answer
from align_dsl.types import Failure


class Inputs:
    """Jobs that need no model are done here, when and if something takes them."""

    def __init__(self, plan: Plan, answers: Mapping[str, Answer]) -> None:
        self.plan, self.answers = plan, answers
        self.plain: dict[str, Any] = {}

    def are_there(self, key: str) -> bool:
        """Whether every model job that a job builds on has been answered."""
        return all(below in self.answers for below in self._below(key))

    def plain_below(self, key: str) -> Iterator[Step]:
        """The steps without a model that are done when a job takes what they give."""
        for value in self.plan.jobs[key].inputs.values():
            for below in value if self.plan.are_keys(value) else ():
                step = self.plan.jobs[below].step
                if not step.algorithm.calls:
                    yield step
                    yield from self.plain_below(below)

    def _below(self, key: str) -> Iterator[str]:
        for value in self.plan.jobs[key].inputs.values():
            for below in value if self.plan.are_keys(value) else ():
                if self.plan.jobs[below].step.algorithm.calls:
                    yield below
                else:
                    yield from self._below(below)

    def of(self, job: Job) -> dict[str, Any] | Failure:
        """The values of a job's ports; a failure where one of them never came."""
        values: dict[str, Any] = {}
        for port, value in job.inputs.items():
            if not self.plan.are_keys(value):
                values[port] = value
                continue
            outputs = []
            for key in value:
                output = self.output(key)
                if isinstance(output, Failure):
                    return output
                outputs.append(output)
            values[port] = tuple(x for o in outputs for x in o) if len(outputs) != 1 else outputs[0]
        return values

    def output(self, key: str) -> Any:
        job = self.plan.jobs[key]
        if job.step.algorithm.calls:
            answer = self.answers.get(key)
            if answer is None:
                return Failure(status="unreachable", message="never asked")
            return answer.failure or decode(job.step.algorithm.output, answer.output)
        if key not in self.plain:
            inputs = self.of(job)
            self.plain[key] = inputs if isinstance(inputs, Failure) else _done(job, inputs)
        return self.plain[key]


def _done(job: Job, inputs: dict[str, Any]) -> Any:
    try:
        return lower(job.step)(**inputs)
    except Exception as error:
        blame(job, error)
        raise
