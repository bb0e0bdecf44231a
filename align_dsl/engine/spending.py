"""What an execution spends: every request of every job is counted here, once, however it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from align_dsl.engine.adapter import Trail
from align_dsl.engine.budget import Budget
from align_dsl.engine.hearing import Hearing
from align_dsl.engine.stop import Stop
from align_dsl.records.record import Cost

if TYPE_CHECKING:
    from align_dsl.language.program import Model


class Spending:
    """One account for all models. Jobs begin and end in one thread at a time."""

    def __init__(self, budget: Budget, stop: Stop) -> None:
        self.budget, self.stop = budget, stop
        self.calls = self.prompt_tokens = self.completion_tokens = self.in_flight = 0
        self.began = time.monotonic()
        self.heard: dict[str, Hearing] = {}
        self.gone = ""  # the model that replies no more

    def listen(self, model: Model, at_once: int) -> None:
        """From now on, see whether this model replies. What it did before is forgotten."""
        self.heard[model.name] = Hearing(at_once, model.timeout)

    def begin(self, model: str, trail: Trail) -> None:
        self.in_flight += 1
        if model in self.heard:
            self.heard[model].begin(trail)

    def end(self, model: str, trail: Trail) -> None:
        """A job has come to its end, or was let go: what it has sent is sent."""
        self.in_flight -= 1
        self.calls += trail.calls
        self.prompt_tokens += trail.prompt_tokens
        self.completion_tokens += trail.completion_tokens
        if model in self.heard:
            self.heard[model].end(trail)
            if trail.unheard:
                self._look(model)

    def may_ask(self) -> bool:
        """Whether one more job may begin. Each in flight will take a call at least."""
        tokens = self.prompt_tokens + self.completion_tokens
        seconds = time.monotonic() - self.began
        if self.budget.passed(self.calls + self.in_flight, tokens, seconds):
            if not self.in_flight:
                self.stop.now("budget")
            return False
        return not self.stop.asked

    def look(self) -> None:
        """See whether a model is gone: jobs in flight may be asking in vain for long."""
        for model in self.heard:
            self._look(model)

    def _look(self, model: str) -> None:
        if not self.stop.asked and self.heard[model].is_gone():
            self.gone = model
            self.stop.now("gone")

    @property
    def cost(self) -> Cost:
        return Cost(
            calls=self.calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
        )
