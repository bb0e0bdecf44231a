"""What a study may still spend, whoever of its workers spends it.

Before a trial is begun it is known how many calls it lacks, and they are held for it: so none is
begun that cannot be finished. What the verdict will need is kept back all along.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.execute import Stop
from align_dsl.optimize import ledger
from align_dsl.optimize.aims import planned
from align_dsl.optimize.choose import allowed
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.sat import Interrupted, Spent
from align_dsl.optimize.space import Config
from align_dsl.optimize.study import Done, Study
from align_dsl.optimize.trial import Exam

NAP, LONG_NAP = 0.05, 1.0  # seconds between two looks whether others are done, at first and later
SIGN = 5.0  # seconds between two notes of how long a session has taken


@dataclass(slots=True)
class Spending:
    study: Study
    train: Exam
    test: Exam
    budget: Budget = UNBOUNDED  # of the study as a whole
    began: float = field(default_factory=time.monotonic)
    before: float = 0.0  # seconds of earlier sessions
    _test_lacks: int | None = None  # calls, for the default
    _default: dict[str, int] = field(default_factory=dict)  # all that it needs there, by key
    _most: int = 0  # that anything which may be chosen needs beside these
    _dearer: float = 1.0  # what answers cost beside what they would if all were good
    _seen: set[int] = field(default_factory=set)
    _session: str = field(default_factory=lambda: ledger.SESSION + uuid.uuid4().hex[:8])
    _signed: float = 0.0

    def __post_init__(self) -> None:
        self.before = ledger.elapsed(self.study.facts())

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def sign(self, last: bool = False) -> None:
        """Write down now and then that this session was at work until now."""
        now = time.monotonic()
        if last or now - max(self._signed, self.began) > SIGN:
            self._signed = now
            self.study.note(self._session, [time.time() - (now - self.began), time.time()])

    # --- what is left -----------------------------------------------------------------------------

    def kept(self, done: Sequence[Done] = (), *others: Config) -> int:
        """Calls for the verdict: on the default, and on the dearest of what may be chosen."""
        if self.budget.calls is None:
            return 0
        if self._test_lacks is None:
            default = self.test.space.default
            self._test_lacks, self._default = self.test.lacks(default), self.test.calls(default)
            self._most = sum(self._default.values())  # as long as there is nothing else
        for one in allowed([d for d in done if d.number not in self._seen]):
            self._seen.add(one.number)
            self._most = max(self._most, self._needs(one.config))
            if one.slot == (0, 0):
                good = planned(self.train, one.config).spent.calls
                self._dearer = max(1.0, one.sat.spent.calls / max(1, good))
        most = max([self._most, *map(self._needs, others)])
        return ceil(self._dearer * (self._test_lacks + most))

    def _needs(self, config: Config) -> int:
        """Beside what the default needs."""
        calls = self.test.calls(config).items()
        return sum(n for key, n in calls if key not in self._default)

    def left(self, done: Sequence[Done] = ()) -> Budget:
        """For whatever is no verdict."""
        calls, tokens = self.study.paid() if self.budget != UNBOUNDED else (0, 0)
        return self.budget.less(calls + self.kept(done), tokens, self.seconds)

    def spent(self, done: Sequence[Done] = ()) -> str:
        """Why nothing more may be begun; empty where something may."""
        if self.budget == UNBOUNDED:
            return ""
        kept, (calls, tokens) = self.kept(done), self.study.paid()
        what = self.budget.passed(calls + kept, tokens, self.seconds)
        if not what:
            return ""
        but = f" but for the {kept:,} calls that the verdict may need" if what == "calls" else ""
        return f"the budget of {getattr(self.budget, what):,g} {what} is spent{but}"

    # --- a trial ----------------------------------------------------------------------------------

    def purse(self, trial: Any) -> Purse:
        until = None
        if self.budget.seconds is not None:
            until = self.began + self.budget.seconds - self.before
        return Purse(until=until, note=lambda p: self.study.pay(trial, p.calls, p.tokens))

    def refill(self, purse: Purse) -> None:
        """Others have spent tokens meanwhile."""
        if self.budget.tokens is not None:
            purse.settle()
            others = self.study.paid()[1] - purse.tokens
            purse.budget = replace(purse.budget, tokens=max(0, self.budget.tokens - others))

    def hold(
        self, trial: Any, config: Config, purse: Purse, stop: Stop, look: Callable[[], None]
    ) -> None:
        """Make sure of the calls that a trial lacks; wait while others hold them. Raises
        Interrupted where they are not to be had."""
        purse.settle()
        self.refill(purse)
        began = time.monotonic()
        while self.budget.calls is not None:
            if stop.asked:
                raise Interrupted(stop.reason, Spent())
            need = purse.calls + self.train.lacks(config)
            with self.study.turn():
                fits, others = self._fits(trial, config, need, purse)
                if fits:
                    self.study.hold(trial, need)
                else:
                    self.study.fail_stale()
            if fits and (not self.study.is_shared or self._fits(trial, config, need, purse)[0]):
                purse.budget = replace(purse.budget, calls=need)
                return
            if fits:  # another machine has made sure of the same calls: both let go
                self.study.hold(trial, purse.calls)
                time.sleep(random.uniform(0, LONG_NAP))
            elif not others:
                raise Interrupted("budget", Spent())
            nap(began)
            look()

    def _fits(self, trial: Any, config: Config, need: int, purse: Purse) -> tuple[bool, int]:
        """Whether a trial may have so many calls, with those that it has paid; and how many others
        hold."""
        assert self.budget.calls is not None
        trials = self.study.trials()
        held = ledger.held(trials, trial)
        at_work = [t.user_attrs["config"] for t in ledger.holders(trials, trial)]
        kept = self.kept(self.study.done(trials), config, *at_work)
        paid = self.study.paid(trials)[0] - purse.calls
        return need <= self.budget.calls - kept - paid - held, held


def nap(since: float) -> None:
    """Sleep a moment; the longer, the longer one has been waiting."""
    time.sleep(min(LONG_NAP, max(NAP, (time.monotonic() - since) / 10)))
