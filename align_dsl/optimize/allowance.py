"""What a study may still spend, whoever of its workers spends it.

Before a trial is begun it is known how many calls it lacks, and they are held for it: so none is
begun that cannot be finished. Tokens and seconds are known afterwards only: they end a trial in its
middle. Of all three, what the verdict will need is kept back all along.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.execute import Stop
from align_dsl.errors import counted
from align_dsl.optimize import expenses
from align_dsl.optimize.done import Done
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.reserve import Kept, Rate, Reserve
from align_dsl.optimize.sat import Interrupted, Spent
from align_dsl.optimize.space import Config
from align_dsl.optimize.study import Study

NAP, LONG_NAP = 0.05, 1.0  # seconds between two looks whether others are done, at first and later
SIGN = 5.0  # seconds between two notes of how long a session has taken


@dataclass(slots=True)
class Allowance:
    study: Study
    train: Exam
    test: Exam
    budget: Budget = UNBOUNDED  # of the study as a whole
    began: float = field(default_factory=time.monotonic)
    before: float = 0.0  # seconds of earlier sessions
    _session: str = field(default_factory=lambda: expenses.SESSION + uuid.uuid4().hex[:8])
    _signed: float = 0.0
    reserve: Reserve = field(init=False)

    def __post_init__(self) -> None:
        self.reserve = Reserve(self.train, self.test)
        self.before = expenses.elapsed(self.study.facts())

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

    def kept(self, done: Sequence[Done] | None = None) -> Kept:
        """For the verdict, of what is bounded."""
        if self.budget == UNBOUNDED:
            return Kept()
        calls, tokens = self.study.paid()
        so_far = Rate.of(calls, tokens, self.seconds)
        return self.reserve.kept(self.study.done() if done is None else done, so_far)

    def left(self, done: Sequence[Done] | None = None) -> Budget:
        """For whatever is no verdict."""
        if self.budget == UNBOUNDED:
            return UNBOUNDED
        kept, (calls, tokens) = self.kept(done), self.study.paid()
        return self.budget.less(
            calls + kept.calls, tokens + kept.tokens, self.seconds + kept.seconds
        )

    def spent(self, done: Sequence[Done] | None = None) -> str:
        """Why nothing more may be begun; empty where something may."""
        if self.budget == UNBOUNDED:
            return ""
        kept, (calls, tokens) = self.kept(done), self.study.paid()
        what = self.budget.passed(
            calls + kept.calls, tokens + kept.tokens, self.seconds + kept.seconds
        )
        if not what:
            return ""
        whole = counted(getattr(self.budget, what), what.removesuffix("s"))
        return f"the budget of {whole} is spent{kept.but(what)}"

    # --- a trial ----------------------------------------------------------------------------------

    def purse(self, trial: Any) -> Purse:
        return Purse(note=lambda p: self.study.pay(trial, p.calls, p.tokens))

    def refill(self, purse: Purse) -> None:
        """Others have spent tokens meanwhile, and it is better known what the verdict will need."""
        if self.budget.tokens is None and self.budget.seconds is None:
            return
        purse.settle()
        kept = self.kept()
        if self.budget.tokens is not None:
            others = self.study.paid()[1] - purse.tokens
            left = self.budget.tokens - others - kept.tokens
            purse.budget = replace(purse.budget, tokens=max(0, left))
        if self.budget.seconds is not None:
            purse.until = self.began + self.budget.seconds - self.before - kept.seconds

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
        held = expenses.held(trials, trial)
        at_work = [t.user_attrs["config"] for t in expenses.holders(trials, trial)]
        kept = self.reserve.calls(self.study.done(trials), config, *at_work)
        paid = self.study.paid(trials)[0] - purse.calls
        return need <= self.budget.calls - kept - paid - held, held


def nap(since: float) -> None:
    """Sleep a moment; the longer, the longer one has been waiting."""
    time.sleep(min(LONG_NAP, max(NAP, (time.monotonic() - since) / 10)))
