"""The loop: batches of configurations, each claimed, tried on the train cases, and kept.

Any number of processes may be in the loop, on one machine or several. What is tried next depends
on the batches before it, and on nothing else: not on who was faster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from align_dsl.engine.execute import Stop
from align_dsl.errors import AlignError, BackendError, CompileError
from align_dsl.optimize.aims import Aims, aims_of, costs, planned
from align_dsl.optimize.choose import estimate, hopeless, incumbent
from align_dsl.optimize.propose import propose
from align_dsl.optimize.sat import Interrupted
from align_dsl.optimize.space import Config, written
from align_dsl.optimize.study import Done, Study
from align_dsl.optimize.trial import Exam

BATCH = 4  # trials asked for together: more use more workers, fewer learn more from each other
HEARTBEAT = 30.0  # seconds between signs of life, where others cannot see our process
LOOK = 1.0  # seconds between two looks at what others have done meanwhile
NAP = 0.05  # seconds between two looks whether others are done


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop trying: of the study as a whole, whoever spent it."""

    trials: int
    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Search:
    study: Study
    exam: Exam
    limits: Limits
    sampler: str = "tpe"
    seed: int = 0
    workers: int = 1
    warm: Sequence[Config] = ()  # to be tried first, after the default
    stop: Stop = field(default_factory=Stop)
    shown: Callable[[Sequence[Done]], None] = lambda done: None
    ended: str = ""  # why there is no more to try
    over: bool = False  # the budget ran out in the middle of a trial
    _known: dict[str, dict[str, float]] = field(default_factory=dict)
    _seen: float = 0.0

    @property
    def aims(self) -> Aims:
        return aims_of(self.exam.space.checked.program)

    def work(self) -> None:
        """Try until the study has come to an end, or `stop` is set."""
        while not self.stop.asked:
            with self.study.turn():
                self.study.fail_stale()
                if not self._prepare():
                    return
            trial = self.study.claim()
            if trial is None:
                time.sleep(NAP)
                self._look()
                continue
            self._try(trial)
            self._show()

    def _look(self) -> None:
        if time.monotonic() - self._seen >= LOOK:
            self._show()

    def _show(self) -> None:
        self._seen = time.monotonic()
        self.shown(self.study.done())

    def _prepare(self) -> bool:
        """See to it that there are trials to claim; False where there is no more to try."""
        trials = self.study.trials()  # one look: others finish trials meanwhile
        done = self.study.done(trials)
        batch, slots = self.study.open_slots(trials)
        missing = [i for i, trial in slots.items() if trial is None]
        if self.over or self._is_spent(done):
            return False
        if slots and not missing:
            return True
        if not slots:
            batch += 1
        before = [d for d in done if d.slot[0] < batch]
        size = len(slots) + sum(d.slot[0] == batch for d in done) if slots else self._size(before)
        configs = self._batch(batch, before, size)
        if not configs:
            self.ended = "every configuration was tried" if size else "all trials were made"
            return False
        wanted = missing if slots else range(len(configs))
        self.study.enqueue(batch, len(configs), {i: configs[i] for i in wanted}, self.exam.space)
        return True

    def _size(self, before: Sequence[Done]) -> int:
        return min(BATCH, self.limits.trials - len(before))

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

    def _is_spent(self, done: Sequence[Done]) -> bool:
        calls, tokens = self.study.paid()
        seconds = sum(d.seconds for d in done)
        for name, spent, limit in (
            ("calls", calls, self.limits.calls),
            ("tokens", tokens, self.limits.tokens),
            ("seconds", seconds, self.limits.seconds),
        ):
            if limit is not None and spent >= limit:
                self.ended = f"the budget of {limit:,g} {name} is spent"
                return True
        return False

    def _try(self, trial: Any) -> None:
        batch, _, _ = trial.user_attrs["slot"]
        done = self.study.done()  # all of the batches before are
        config = dict(trial.user_attrs["config"])
        best = incumbent([d for d in done if d.slot[0] < batch])
        began = time.monotonic()

        def enough(marks: str) -> bool:
            self._look()
            if best is None or self.aims.several:  # what is less accurate may be cheaper
                return False
            return hopeless(self.exam, marks, best.sat.marks)

        budget = None
        if self.limits.calls is not None:
            budget = max(0, self.limits.calls - self.study.paid()[0]) // self.workers
        stop = _Until(self.stop)
        try:
            if config != self.exam.space.default and self._is_too_dear(trial, config):
                return
            with _Heart(self.study, trial):
                sat = self.exam.sit_all(config, budget=budget, stop=stop, enough=enough)
        except Interrupted as ended:
            spent = ended.spent
            self.study.give_back(trial, ended.reason, spent.paid, spent.paid_tokens)
            if ended.reason == "budget":
                self.ended = f"the budget of {self.limits.calls:,} calls is spent"
                self.over = True
            return
        except CompileError as error:
            self.study.refuse(trial, error.first)
            return
        except BackendError as error:
            self._refuse_or_raise(trial, error, batch)
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

    def _refuse_or_raise(self, trial: Any, error: BackendError, batch: int) -> None:
        """A model that is there, and answers the default, cannot do what this trial asks of it."""
        said = str(error).partition("\n")[0]
        try:
            for backend in self.exam.backends.values():
                backend.probe()
        except BackendError:
            self.study.give_back(trial, said)
            raise
        if batch == 0:
            self.study.give_back(trial, said)
            raise error
        self.study.refuse(trial, said)


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


class _Heart:
    """Beats while a trial is at work."""

    def __init__(self, study: Study, trial: Any) -> None:
        self.study, self.trial, self.over = study, trial, threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if isinstance(self.study.where, str):
            self.thread = threading.Thread(target=self._beat, daemon=True)
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.thread is not None:
            self.thread.join()

    def _beat(self) -> None:
        while not self.over.wait(HEARTBEAT):
            self.study.alive(self.trial)
