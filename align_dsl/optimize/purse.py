"""What may be spent on a trial or a verdict, and what was: written down as it goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.execute import AnswerStore
from align_dsl.records.record import Answer

NOTE_SECONDS = 1.0  # of what a process that is killed may have paid without its being known


@dataclass(slots=True)
class Purse:
    """Many executions in a row pay from it."""

    budget: Budget = UNBOUNDED  # all of it, with what was spent; seconds: see `until`
    until: float | None = None  # on the monotonic clock
    note: Callable[[Purse], None] = lambda purse: None
    calls: int = 0
    tokens: int = 0
    _noted: int = 0
    _at: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether tokens or seconds are spent, of which none are held for anybody."""
        left = self.left
        return left.tokens == 0 or left.seconds == 0

    @property
    def left(self) -> Budget:
        left = self.budget.less(self.calls, self.tokens)
        if self.until is None:
            return left
        return Budget(left.calls, left.tokens, max(0.0, self.until - time.monotonic()))

    def pay(self, answers: Sequence[Answer]) -> None:
        self.calls += sum(a.calls for a in answers)
        self.tokens += sum(a.prompt_tokens + a.completion_tokens for a in answers)
        if time.monotonic() - self._at > NOTE_SECONDS:
            self.settle()

    def correct(self, calls: int, tokens: int) -> None:
        """What was really paid until now: with requests of which nothing came."""
        self.calls, self.tokens = max(self.calls, calls), max(self.tokens, tokens)

    def settle(self) -> None:
        """Write down what is not written yet."""
        if self.calls != self._noted:
            self.note(self)
            self._noted, self._at = self.calls, time.monotonic()

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """In the end all is written down. Where that cannot be done, the first error is told."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self.settle()
            raise
        self.settle()

    def over(self, store: AnswerStore) -> AnswerStore:
        """The store, where everything that is put into it has been paid from here."""
        return _Counted(store, self)


@dataclass(frozen=True, slots=True)
class _Counted:
    store: AnswerStore
    purse: Purse

    def known(self, keys: Iterable[str]) -> dict[str, Answer]:
        return self.store.known(keys)

    def put(self, answers: Sequence[Answer]) -> None:
        self.store.put(answers)
        self.purse.pay(answers)

    def claim(self, keys: Iterable[str], owner: str, seconds: float) -> set[str]:
        return self.store.claim(keys, owner, seconds)

    def renew(self, owner: str, seconds: float) -> None:
        self.store.renew(owner, seconds)

    def release(self, owner: str) -> None:
        self.store.release(owner)

    def bury(self, is_dead: Callable[[str], bool]) -> None:
        self.store.bury(is_dead)
