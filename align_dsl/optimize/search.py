"""The loop: batches of configurations, each claimed, tried on the train cases, and kept.

Any number of processes may be in the loop, on one machine or several. What is tried next depends
on the batches before it, and on nothing else: not on who was faster.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from align_dsl.engine.execute import Stop
from align_dsl.engine.garbage import left_alone
from align_dsl.errors import AlignError, BackendError, CompileError
from align_dsl.optimize.aims import Aims, aims_of, costs, planned
from align_dsl.optimize.allowance import Allowance, nap
from align_dsl.optimize.choose import estimate, hopeless, incumbent
from align_dsl.optimize.done import Done
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.heart import Heart
from align_dsl.optimize.open import Open, opened
from align_dsl.optimize.propose import propose
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.sat import FAILED, Interrupted, Sat
from align_dsl.optimize.space import Config, written
from align_dsl.optimize.study import DIED, Study

BATCH = 4  # trials asked for together: more use more workers, fewer learn more from each other
LOOK = 1.0  # seconds between two looks at what others have done meanwhile
REASONS = 3  # why answers failed, of which that many are told
FIRST = (0, 0)  # the slot of the default


@dataclass(slots=True)
class Search:
    study: Study
    exam: Exam
    allowance: Allowance
    trials: int
    sampler: str = "tpe"
    seed: int = 0
    warm: Sequence[Config] = ()  # to be tried first, after the default
    stop: Stop = field(default_factory=Stop)
    shown: Callable[[Sequence[Done]], None] = lambda done: None
    helps: bool = False  # another process is in it for the whole: that one tries the default
    ended: str = ""  # why there is no more to try
    over: bool = False  # the budget ran out in the middle of a trial
    _known: dict[str, dict[str, float]] = field(default_factory=dict)
    _seen: float = 0.0

    @property
    def aims(self) -> Aims:
        return aims_of(self.exam.space.checked.program)

    def work(self) -> None:
        """Try until the study has come to an end, or `stop` is set."""
        with left_alone(), self._signed():
            self._work()

    @contextlib.contextmanager
    def _signed(self) -> Iterator[None]:
        """How long it took is written down in the end; where the storage has gone, that is what
        is told."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self._sign(last=True)
            raise
        self._sign(last=True)

    def _sign(self, last: bool = False) -> None:
        if not self.helps:
            self.allowance.sign(last)

    def _work(self) -> None:
        idle = time.monotonic()
        while not self.stop.asked:
            with self.study.turn():
                self.study.fail_stale()
                if not self._prepare():
                    return
            trial = self.study.claim(default=not self.helps)
            if trial is None:
                nap(idle)
                self._look()
                continue
            self._try(trial)
            self._show()
            idle = time.monotonic()

    def _look(self) -> None:
        if time.monotonic() - self._seen >= LOOK:
            self._show()

    def _show(self) -> None:
        self._seen = time.monotonic()
        self.shown(self.study.done())
        self._sign()

    def _prepare(self) -> bool:
        """See to it that there are trials to claim; False where there is no more to try."""
        trials = self.study.trials()  # one look: others finish trials meanwhile
        done, left = self.study.done(trials), opened(trials)
        self.ended = self.ended if self.over else self.allowance.spent(done)
        if self.ended:
            return False
        if self.helps and any(_is_over(lost) for lost in left.lost):
            return False
        for lost in left.lost:
            self.study.reopen(lost, self.exam.space)
        fresh = self._never(left, done) if left.never else {}
        self.study.enqueue(left.batch, left.size, fresh, self.exam.space)
        if left.live or left.lost or fresh:
            return True
        size = min(BATCH, self.trials - len(done))
        configs = self._batch(left.batch + 1, done, size)
        if not configs:
            self.ended = "every configuration was tried" if size > 0 else "all trials were made"
            return False
        slots = dict(enumerate(configs))
        self.study.enqueue(left.batch + 1, len(configs), slots, self.exam.space)
        return True

    def _never(self, left: Open, done: Sequence[Done]) -> dict[int, Config]:
        """Configurations for slots of a batch of which only the others were written down. What is
        proposed may differ from what was, and nothing is tried twice."""
        before = [d for d in done if d.slot[0] < left.batch]
        configs = self._batch(left.batch, before, left.size)
        taken = {written(c) for c in left.configs}
        fresh = [c for c in configs if written(c) not in taken]
        return dict(zip(left.never, fresh, strict=False))

    def _batch(self, batch: int, before: Sequence[Done], size: int) -> list[Config]:
        if batch == 0:  # alone, so that all others can be held against it
            first = [self.exam.space.default, *self.warm]
            return [c for i, c in enumerate(first) if c not in first[:i]]
        if size <= 0:
            return []
        return propose(
            self.exam.space,
            [d.tried(self.aims) for d in before],
            size,
            sampler=self.sampler,
            seed=self.seed,
            batch=batch,
            costs=len(self.aims.weighed),
            over=self._beforehand,
        )

    def _try(self, trial: Any) -> None:
        slot = tuple(trial.user_attrs["slot"][:2])
        done = self.study.done()  # all of the batches before are
        config = dict(trial.user_attrs["config"])
        best = incumbent([d for d in done if d.slot[0] < slot[0]])
        began = time.monotonic()
        purse = self.allowance.purse(trial)

        def enough(marks: str) -> bool:
            self._look()
            self.allowance.refill(purse)
            if best is None or self.aims.several:  # what is less accurate may be cheaper
                return False
            return hopeless(self.exam, marks, best.sat.marks)

        try:
            if config != self.exam.space.default and self._is_too_dear(trial, config):
                return
            with Heart(self.study, trial):
                sat = self._sit(trial, config, purse, enough)
            if slot == FIRST and set(sat.marks) == {FAILED}:
                self._give_up(config)
        except Interrupted as ended:
            self.study.give_back(trial, ended.reason)
            if ended.reason == "budget":
                self.over = True
                self.ended = self.allowance.spent(done) or (
                    "what is left of the budget is not enough for another trial"
                )
            return
        except CompileError as error:
            self.study.refuse(trial, error.first)
            return
        except BackendError as error:
            self._refuse_or_raise(trial, error, slot == FIRST)
            return
        except (AlignError, KeyboardInterrupt) as error:
            self.study.give_back(trial, str(error).partition("\n")[0])
            raise
        pruned = len(sat.marks) < len(self.exam.asked)
        score = self.exam.score(sat.marks)
        if pruned and best is not None:
            score = estimate(self.exam, sat.marks, best)
        needed = costs(sat)
        values = [score, *(needed[name] for name in self.aims.weighed)]
        seconds = time.monotonic() - began
        self.study.finish(trial, sat, values, pruned, seconds, self.aims.over(needed))

    def _sit(self, trial: Any, config: Config, purse: Purse, enough: Callable[[str], bool]) -> Sat:
        """The whole trial. Where answers had to be asked for twice, it needs more calls than were
        held for it: then some are held for the rest. Raises Interrupted."""
        with purse.settled():
            while True:
                self.allowance.hold(trial, config, purse, self.stop, self._look)
                try:
                    sat = self.exam.sit_all(
                        config, purse=purse, stop=_Until(self.stop), enough=enough
                    )
                except Interrupted as ended:
                    if ended.reason != "budget" or purse.is_over:
                        raise
                else:
                    paid = replace(sat.spent, paid=purse.calls, paid_tokens=purse.tokens)
                    return replace(sat, spent=paid)

    def _give_up(self, default: Config) -> None:
        """Raises BackendError where the default had no answer at all: nor would the others."""
        reasons = self.exam.failures(default)
        if reasons:
            self.exam.forget_failures(default)  # so the same command asks again
            why = "; ".join(f"{n:,} {said}" for said, n in reasons.most_common(REASONS))
            hint = "see to the model, its key and its name; the same command asks again"
            raise BackendError(f"the default failed on every question: {why}\n  = {hint}")

    def _is_too_dear(self, trial: Any, config: Config) -> bool:
        """Refuse what is known to need more calls than a decision may, before anything is paid.
        Not so the default, which all else is held against."""
        over = self._beforehand(config)
        if over.get("calls", 0) <= 0:
            return False
        sat = planned(self.exam, config)
        most = self.aims.at_most["calls"]
        why = f"needs {costs(sat)['calls']:.4g} calls a decision, and may need {most:g}"
        self.study.refuse(trial, why, sat, over)
        return True

    def _beforehand(self, config: Config) -> dict[str, float]:
        """How far a configuration passes the limit of calls, as far as its plan tells."""
        if "calls" not in self.aims.at_most:
            return {}
        key = written(config)
        if key not in self._known:
            try:
                needed = costs(planned(self.exam, config))["calls"]
            except CompileError:  # said where it is tried
                return {}
            self._known[key] = self.aims.over({"calls": needed})
        return self._known[key]

    def _refuse_or_raise(self, trial: Any, error: BackendError, is_default: bool) -> None:
        """A model that is there, and answers the default, cannot do what this trial asks of it; or
        it was gone for a while, so it gets another try first."""
        said = str(error).partition("\n")[0]
        try:
            for backend in self.exam.backends.values():
                backend.probe()
        except BackendError:
            self.study.give_back(trial, said)
            raise
        if is_default:
            self.study.give_back(trial, said)
            raise error
        if self.study.has_stumbled(trial):
            self.study.refuse(trial, said)
        else:
            self.study.give_back(trial, said, stumbled=True)


def _is_over(lost: Any) -> bool:
    """Whether the one who tried the default has given it up: then there is nothing to help with."""
    why = lost.user_attrs.get("given_back", DIED)
    return tuple(lost.user_attrs["slot"][:2]) == FIRST and why != DIED


def probe(exam: Exam) -> None:
    """Raises BackendError where it is plain that no question of the default could be answered."""
    if exam.lacks(exam.space.default):
        for backend in exam.backends.values():
            backend.probe()


class _Until(Stop):
    """Asks to stop where the whole search is asked to; a spent budget ends one trial alone."""

    def __init__(self, outer: Stop) -> None:
        super().__init__(hurry=outer.hurry)
        self.outer = outer

    @property
    def asked(self) -> bool:
        if self.outer.asked:
            self.reason = self.reason or self.outer.reason
        return self.outer.asked or self.event.is_set()
