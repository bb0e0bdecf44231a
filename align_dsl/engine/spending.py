"""What an execution spends: every request of every job is counted here, once, however it ends."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from align_dsl.engine.adapter import Trail
from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.hearing import Hearing
from align_dsl.engine.stop import Stop
from align_dsl.records.record import Cost

if TYPE_CHECKING:
    from align_dsl.language.program import Model


class Spending:
    """One account for all models. Jobs begin and end in one thread at a time, and may ask from any
    whether they may go on."""

    def __init__(self, budget: Budget, stop: Stop) -> None:
        self.budget, self.stop = budget, stop
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.live: dict[int, Trail] = {}
        self.began = time.monotonic()
        self.heard: dict[str, Hearing] = {}
        self.gone = ""  # the model that replies no more
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> int:
        return len(self.live)

    def listen(self, model: Model, at_once: int) -> None:
        """From now on, see whether this model replies. What it did before is forgotten."""
        self.heard[model.name] = Hearing(at_once, model.timeout)

    def begin(self, model: str, trail: Trail) -> None:
        trail.promised, trail.may_go_on = 1, self.may_go_on
        self.live[id(trail)] = trail
        if model in self.heard:
            self.heard[model].begin(trail)

    def end(self, model: str, trail: Trail) -> None:
        """A job has come to its end, or was let go: what it has sent is sent."""
        del self.live[id(trail)]
        self.calls += trail.calls
        self.prompt_tokens += trail.prompt_tokens
        self.completion_tokens += trail.completion_tokens
        if model in self.heard:
            self.heard[model].end(trail)
            if trail.unheard or trail.gone:
                self._look(model, trail.gone)

    def may_ask(self) -> bool:
        """Whether one more job may begin. Each in flight will take a call at least."""
        if self._is_spent():
            if not self.in_flight:
                self.stop.now("budget")
            return False
        return not self.stop.asked

    def may_go_on(self, trail: Trail) -> bool:
        """Whether a job that has begun may send one request more than it has questions."""
        with self._lock:  # or the last call would be promised to several
            if self.is_over():
                return False
            if trail.promised <= trail.calls:
                if self._is_spent():
                    return False
                trail.promised = trail.calls + 1
            return True

    def is_over(self) -> bool:
        """Whether nothing may be sent any more, not even what was promised."""
        return self.stop.asked or self._is_spent(but_calls=True)

    def _is_spent(self, but_calls: bool = False) -> bool:
        if self.budget == UNBOUNDED:
            return False
        live = list(self.live.values())
        calls = self.calls + sum(max(one.promised, one.calls) for one in live)
        tokens = self.prompt_tokens + self.completion_tokens
        tokens += sum(one.prompt_tokens + one.completion_tokens for one in live)
        seconds = time.monotonic() - self.began
        return bool(self.budget.passed(-1 if but_calls else calls, tokens, seconds))

    def look(self) -> None:
        """See whether a model is gone: jobs in flight may be asking in vain for long."""
        for model in self.heard:
            self._look(model)

    def _look(self, model: str, is_gone: bool = False) -> None:
        if not self.stop.asked and (is_gone or self.heard[model].is_gone()):
            self.gone = model
            self.stop.now("gone")

    @property
    def cost(self) -> Cost:
        return Cost(
            calls=self.calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
        )
