"""What is kept back for the verdict: so many calls for certain, tokens and seconds as trials took.

The verdict is on the default and on a winner that is not known yet; so it is reckoned with the
dearest of what may be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from align_dsl.errors import counted
from align_dsl.optimize.aims import planned
from align_dsl.optimize.choose import whole
from align_dsl.optimize.done import Done
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.space import Config

MARGIN = 1.1  # test cases may be longer than the train cases, by which it is reckoned


@dataclass(frozen=True, slots=True)
class Kept:
    calls: int = 0
    tokens: int = 0  # reckoned, as are the seconds
    seconds: float = 0.0

    def but(self, what: str) -> str:
        """What to say of it where the rest is spent."""
        kept = round(getattr(self, what))
        some = f"{'the' if what == 'calls' else 'about'} {counted(kept, what.removesuffix('s'))}"
        return f" but for {some} that the verdict may need" if kept else ""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a call costs, as far as is known."""

    tokens: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, calls: int, tokens: float, seconds: float = 0.0) -> Rate:
        return cls(tokens / calls, seconds / calls) if calls else cls()


@dataclass(slots=True)
class Reserve:
    train: Exam
    test: Exam
    _lacks: int = 0  # calls, for the default
    _default: dict[str, int] | None = None  # all that it needs there, by key
    _most: int = 0  # calls that anything which may be chosen needs beside these
    _most_tokens: float = 0.0  # that these take
    _longest: float = 0.0  # seconds of a verdict on the slowest, where answers are free
    _dearer: float = 1.0  # what answers cost beside what they would if all were good
    _rate: Rate | None = None  # of the default, once it was tried
    _paid: int = 0  # calls that trials paid for
    _took: float = 0.0  # seconds of these trials
    _seen: set[int] = field(default_factory=set)

    def calls(self, done: Sequence[Done] = (), *others: Config) -> int:
        """On the default, and on the dearest of what may be chosen; `others` may be as well."""
        self._see(done)
        most = max([self._most, *map(self._needs, others)])
        return ceil(self._dearer * (self._lacks + most))

    def kept(self, done: Sequence[Done], so_far: Rate) -> Kept:
        """As trials took, or as calls have `so_far` where the default has not come to its end."""
        calls = self.calls(done)
        tokens = calls * so_far.tokens
        if self._rate is not None:
            tokens = self._dearer * (self._lacks * self._rate.tokens + self._most_tokens)
        pace = self._took / self._paid if self._paid else so_far.seconds
        return Kept(calls, ceil(MARGIN * tokens), MARGIN * (calls * pace + self._longest))

    def _see(self, done: Sequence[Done]) -> None:
        """Take in what was tried since."""
        if self._default is None:
            default = self.test.space.default
            self._lacks, self._default = self.test.lacks(default), self.test.calls(default)
            self._most = sum(self._default.values())  # as long as there is nothing else
        for one in whole([d for d in done if d.number not in self._seen]):
            self._seen.add(one.number)
            spent = one.sat.spent
            rate = Rate.of(spent.calls, spent.tokens)
            if one.slot == (0, 0):
                good = planned(self.train, one.config).spent.calls
                self._dearer, self._rate = max(1.0, spent.calls / max(1, good)), rate
                self._most_tokens = max(self._most_tokens, self._most * rate.tokens)
            if one.is_allowed:
                needs = self._needs(one.config)
                self._most = max(self._most, needs)
                self._most_tokens = max(self._most_tokens, needs * rate.tokens)
            if spent.paid:
                self._paid, self._took = self._paid + spent.paid, self._took + one.seconds
            elif not spent.calls:
                self._longest = max(self._longest, self._sits(one))

    def _sits(self, one: Done) -> float:
        """Seconds of a verdict in which both take as long for a question as this trial did."""
        questions = 2 * self.test.draws(one.config) * len(self.test.asked)
        return one.seconds / max(1, len(one.sat.marks)) * questions

    def _needs(self, config: Config) -> int:
        """Beside what the default needs."""
        calls = self.test.calls(config).items()
        return sum(n for key, n in calls if key not in (self._default or {}))
