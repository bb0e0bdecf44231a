"""What a search is after: accuracy, costs that are weighed against it, and limits of costs.

A cost is of a decision, on average: what a configuration needs for it, not what of that was freshly
paid. So it is the same whether answers were known before or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from align_dsl.engine.bill import calls_of
from align_dsl.language.program import Program
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.sat import Sat, Spent

COSTS = ("calls", "tokens")


@dataclass(frozen=True, slots=True)
class Aims:
    objectives: tuple[str, ...] = ("accuracy",)  # it comes first; more of it, less of the others
    at_most: Mapping[str, float] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        return len(self.objectives) > 1

    @property
    def weighed(self) -> tuple[str, ...]:
        """The costs among the objectives."""
        return self.objectives[1:]

    def over(self, needed: Mapping[str, float]) -> dict[str, float]:
        """How far each limit is passed, as a share of it; 0 or less where it is kept."""
        return {k: needed[k] / most - 1 for k, most in self.at_most.items() if k in needed}


def aims_of(program: Program) -> Aims:
    one = program.optimize
    return Aims() if one is None else Aims(one.objectives, dict(sorted(one.at_most.items())))


def aims_noted(facts: Mapping[str, Any]) -> Aims:
    """What a study was after, as its facts say."""
    return Aims(tuple(facts.get("objectives", ("accuracy",))), dict(facts.get("at_most", {})))


def costs(sat: Sat) -> dict[str, float]:
    """What a decision costs, on average over the blocks that were sat."""
    n = sat.spent.decisions or len(sat.marks) or 1
    return {"calls": sat.spent.calls / n, "tokens": sat.spent.tokens / n}


def planned(exam: Exam, config: Mapping[str, Any]) -> Sat:
    """What is known to be needed before anything is asked: calls, if every answer is good."""
    calls = decisions = 0
    for block in range(len(exam.blocks)):
        plan = exam.plan(dict(config), block)
        calls += sum(calls_of(plan.jobs[key]) for key in plan.model_jobs)
        decisions += len(plan.questions)
    models = {m.name: m for m in exam.space.checked.program.models}
    if all(models[name].backend == "embedded" for name in exam.backends):
        calls = 0  # nobody is called
    return Sat("", Spent(calls=calls, decisions=decisions))
