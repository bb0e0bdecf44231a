"""The jobs of a plan, as a crew sees them: how each is asked, and what comes before the others."""

from __future__ import annotations

from collections.abc import Mapping

from align_dsl.backends import Backend
from align_dsl.engine.adapter import Trail
from align_dsl.engine.ask import ask, trail_of
from align_dsl.engine.crew import Prefix
from align_dsl.engine.inputs import Inputs
from align_dsl.engine.plan import Plan
from align_dsl.engine.spending import Spending
from align_dsl.records.record import Answer
from align_dsl.registry import ALGORITHMS


class Jobs:
    def __init__(
        self, plan: Plan, inputs: Inputs, backends: Mapping[str, Backend], spending: Spending
    ) -> None:
        self.plan, self.inputs, self.backends = plan, inputs, backends
        self.spending = spending
        self._blocking: dict[tuple[str, int], bool] = {}
        self._steps: dict[int, int] = {}  # deciders call their steps alike: told apart by order
        for job in plan.jobs.values():
            self._steps.setdefault(id(job.step), len(self._steps))

    def model(self, key: str) -> str:
        return self.plan.jobs[key].model.name

    def backend(self, key: str) -> Backend:
        return self.backends[self.model(key)]

    # --- asking ------------------------------------------------------------------------------

    def may_ask(self) -> bool:
        return self.spending.may_ask()

    def look(self) -> None:
        self.spending.look()

    def is_over(self) -> bool:
        return self.spending.is_over()

    def begin(self, key: str) -> Trail:
        trail = trail_of(key)
        self.spending.begin(self.model(key), trail)
        return trail

    def ask(self, key: str, trail: Trail) -> Answer:
        job = self.plan.jobs[key]
        return ask(job, self.inputs.of(job), self.backend(key), trail)

    def end(self, key: str, trail: Trail) -> None:
        self.spending.end(self.model(key), trail)

    # --- where and when ----------------------------------------------------------------------

    def blocks(self, key: str) -> bool:
        """Whether asking may keep a thread waiting for something other than our wire."""
        step = self.plan.jobs[key].step
        known = self._blocking.get((self.model(key), id(step)))  # jobs of a step are alike
        if known is None:
            waits = getattr(self.backend(key), "waits_in_loop", False)
            names = [s.algorithm.name for s in (step, *self.inputs.plain_below(key))]
            known = not (waits and all(ALGORITHMS.shipped(name) for name in names))
            self._blocking[self.model(key), id(step)] = known
        return known

    def is_inline(self, model: str) -> bool:
        """Whether a model is asked one question after the other by the thread that saves the
        answers. Over our wire, the next one goes out while the last is saved."""
        backend = self.backends[model]
        return backend.concurrency == 1 and not getattr(backend, "waits_in_loop", False)

    def prefix(self, key: str) -> Prefix:
        """What the prompts of neighbours have in common."""
        job = self.plan.jobs[key]
        attribute = job.inputs.get("attribute")
        step = f"{job.step.name} {self._steps[id(job.step)]}"
        return job.model.name, step, getattr(attribute, "name", "")

    def warms(self, key: str) -> Prefix | None:
        """What a server should have read before many questions come that begin alike; None where
        it reads that once anyway."""
        return None if getattr(self.backend(key), "batches", False) else self.prefix(key)
