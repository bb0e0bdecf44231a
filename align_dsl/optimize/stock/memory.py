"""What an optimizer of DSPy asks -> answers, from the store where they are known, within a budget.

Optimizers ask the same questions again and again, and start afresh when they were killed. Every
answer that cost a call is kept at once, so none is paid twice. Where no more may be asked, all that
is still asked fails at once: so an optimizer comes to its end by itself, with the best that it had.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import dspy

from align_dsl.engine.adapter import TRAIL, NoAnswer, shape_of
from align_dsl.engine.demos import once
from align_dsl.engine.execute import Stop
from align_dsl.engine.prompt import messages
from align_dsl.errors import counted
from align_dsl.optimize.asking import asked
from align_dsl.optimize.reserve import MARGIN, Kept, Rate
from align_dsl.records.owner import is_dead, owner
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
from align_dsl.types import Failure, Label, LabelledNumbers, ScaleNumber, ScaleWeights, digest

FORMAT = 1  # counts up when keys are made differently
DOWN = 20  # of them in a row after which a model counts as gone
NOTE_SECONDS = 1.0  # of calls that a killed session may have paid without its being known
LEASE_SECONDS = 600.0  # how long a claim on a question outlives the process that made it, elsewhere
LOOK_SECONDS = 0.1  # how often it is looked whether another process has the answer


@dataclass(slots=True)
class Memory:
    """The answers of a study, and what they have cost."""

    store: Store
    stop: Stop
    limits: Mapping[str, float] = field(default_factory=dict)  # calls, tokens, seconds
    kept: int = 0  # calls that the verdict will need, and that are kept back for it
    before: Mapping[str, float] = field(default_factory=dict)  # what other sessions have spent
    heard: Callable[[Memory], None] = lambda memory: None  # after each answer
    retries: bool = False  # asks again whatever has failed in earlier sessions
    calls: int = 0
    tokens: int = 0
    known: int = 0  # answers that were there
    failed: dict[str, int] = field(default_factory=dict)  # what failed, by its reason
    ended: str = ""  # why no more may be asked
    is_down: bool = False  # because the model cannot be reached
    broke: Exception | None = None  # what went wrong, and not with a model
    began: float = field(default_factory=time.monotonic)
    _noted: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asking: dict[str, threading.Lock] = field(default_factory=dict)
    _mine: set[str] = field(default_factory=set)  # keys of this session's answers
    _in_a_row: int = 0  # passing failures
    _running: int = 0

    def __deepcopy__(self, memo: object) -> Memory:
        return self  # modules that are copied share it

    def session(self) -> dict[str, float]:
        """What was spent since it began."""
        now = {"calls": self.calls, "tokens": self.tokens, "seconds": self.seconds}
        return {name: round(spent, 3) for name, spent in now.items()}

    def spent(self) -> dict[str, float]:
        """By this session and all others."""
        now = self.session()
        return {name: round(n + self.before.get(name, 0), 3) for name, n in now.items()}

    def _note(self, answer: Answer) -> None:
        self._in_a_row = self._in_a_row + 1 if _passing(answer) else 0
        if answer.failure is not None:
            why = f"{answer.failure.status}: {answer.failure.message}"
            self.failed[why] = self.failed.get(why, 0) + 1
            if self._in_a_row >= DOWN and not self.ended:
                self.ended, self.is_down = f"{DOWN} answers in a row failed ({why})", True

    def failures(self) -> str:
        """How many answers failed, and why most of them did; empty where none."""
        n = sum(self.failed.values())
        most = max(self.failed, key=lambda why: self.failed[why], default="")
        return f"{counted(n, 'answer')} failed, most of them: {most}" if n else ""

    def is_due(self) -> bool:
        """Whether it is time again to write down what was spent."""
        with self._lock:
            due = time.monotonic() - self._noted > NOTE_SECONDS
            self._noted = time.monotonic() if due else self._noted
            return due

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def is_over(self) -> bool:
        """Whether no more may be asked."""
        if not self.ended and self.stop.asked:
            self.ended = self.stop.reason
        if not self.ended and self.broke is not None:
            self.ended = str(self.broke)
        spent = self.spent()
        kept = self._kept(spent)
        for name, limit in self.limits.items():
            running = self._running if name == "calls" else 0
            if spent[name] + running + getattr(kept, name) >= limit:
                if not running:
                    whole = counted(limit, name.removesuffix("s"))
                    said = f"the budget of {whole} is spent{kept.but(name)}"
                    self.ended = self.ended or said
                return True
        return bool(self.ended)

    def _kept(self, spent: Mapping[str, float]) -> Kept:
        """For the verdict, whose calls will cost what these have cost."""
        rate = Rate.of(int(spent["calls"]), spent["tokens"], spent["seconds"])
        return Kept(
            self.kept,
            ceil(MARGIN * self.kept * rate.tokens),
            MARGIN * self.kept * rate.seconds,
        )

    def answer(self, key: str, ask: Callable[[], Answer]) -> Answer:
        """The answer that is known, or else a new one. Nobody else asks for it meanwhile: neither
        a thread of ours nor another process at the same store."""
        with self._lock:
            mine = self._asking.setdefault(key, threading.Lock())
        with mine:
            claimant = owner()
            while (found := self._found(key)) is None:
                if self._ends():
                    return _not_asked(key)
                if self.store.claim([key], claimant, LEASE_SECONDS):
                    break
                self.store.bury(is_dead)
                time.sleep(LOOK_SECONDS)
            if found is not None:
                return found
            try:
                return self._fresh(key, ask)
            finally:
                self.store.release(claimant)

    def _found(self, key: str) -> Answer | None:
        """What is known, unless it may be otherwise by now."""
        found = self.store.known([key]).get(key)
        if found is None:
            return None
        is_stale = found.failure is not None if self.retries else _passing(found)
        if is_stale and key not in self._mine:
            self.store.forget_failures([key])  # what is known nobody can claim
            return None
        self.known += 1
        return found

    def _ends(self) -> bool:
        with self._lock:
            return self.is_over()

    def _fresh(self, key: str, ask: Callable[[], Answer]) -> Answer:
        with self._lock:
            if self.is_over():
                return _not_asked(key)
            self._running += 1
        try:
            answer = ask()
        finally:
            with self._lock:
                self._running -= 1
        with self._lock:
            self.calls += answer.calls
            self.tokens += answer.prompt_tokens + answer.completion_tokens
            self._mine.add(key)
            self._note(answer)
        if answer.calls:
            self.store.put([answer])
        self.heard(self)
        return answer


def _not_asked(key: str) -> Answer:
    return Answer(key=key, failure=Failure(status="refused", message="not asked"))


def _passing(answer: Answer) -> bool:
    return answer.failure is not None and answer.failure.is_passing


class Remembering(dspy.Adapter):
    """Stands before the adapter of a model, and asks it only what is not known."""

    def __init__(self, inner: Any, memory: Memory, who: str, *, free: bool) -> None:
        super().__init__()
        self.inner, self.memory, self.who, self.free = inner, memory, who, free

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Any,
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        demos = once(demos)  # DSPy finds the same one for both ends of an attribute
        if self.free:  # nothing is paid, so nothing need be kept
            if self.memory.is_over():
                raise NoAnswer(Failure(status="refused", message="not asked"))
            made: list[dict[str, Any]] = self.inner(lm, lm_kwargs, signature, demos, inputs)
            return made
        key = self._key(lm, lm_kwargs, signature, demos, inputs)

        def ask() -> Answer:
            return asked(key, lambda: self.inner(lm, lm_kwargs, signature, demos, inputs)[0])

        answer = self.memory.answer(key, ask)
        if answer.failure is not None:
            raise NoAnswer(answer.failure)
        kinds = {name: f.annotation for name, f in signature.output_fields.items()}
        return [{name: _typed(kinds[name], value) for name, value in answer.output.items()}]

    def _key(
        self, lm: Any, lm_kwargs: Mapping[str, Any], signature: Any, demos: Any, inputs: Any
    ) -> str:
        """Made of what is sent: the very messages, the form of the answer, and the seed."""
        trail = TRAIL.get()
        shape = shape_of(signature, inputs)
        wished = {**getattr(lm, "kwargs", {}), **lm_kwargs}
        said = [
            FORMAT,
            self.who,
            messages(signature.instructions, shape, inputs, demos),
            repr(shape),
            [wished.get("temperature"), wished.get("rollout_id")],
            trail.seed if trail else None,
        ]
        return digest(json.dumps(said, ensure_ascii=False, sort_keys=True))


def _typed(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if kind is ScaleWeights:
        return ScaleWeights({float(number): weight for number, weight in value.items()})
    return kind(value) if kind in (LabelledNumbers, ScaleNumber, Label) else value
