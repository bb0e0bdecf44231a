"""What was tried of a program, kept for good: an Optuna study, shared by all who work on it.

A trial belongs to a slot of a batch. It waits, is claimed, and is finished with its marks; a trial
whose worker died is failed, and its slot gets another. So whatever is killed when, each slot comes
to exactly one finished trial, and a batch to the same configurations.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.optimize import expenses
from align_dsl.optimize.aims import COSTS
from align_dsl.optimize.claimant import is_stale, me
from align_dsl.optimize.done import Done, done_of, is_lost
from align_dsl.optimize.journal import close_storage, lost, open_storage, quiet, turn
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.sat import Sat
from align_dsl.optimize.space import Config, Space

DIED = "its worker died"  # why a trial was given back, where it was not by whom it belonged to


class Study:
    def __init__(
        self,
        where: Path | str,
        name: str,
        objectives: Sequence[str] = ("accuracy",),
        seen_in: Any = None,
    ) -> None:
        """`objectives` matter where the study is not there yet. With `seen_in`, a storage that is
        open, it is there, is only looked at, and nothing is written."""
        self.where, self.name = where, name
        self._finished: dict[int, Done] = {}
        self.storage = open_storage(where) if seen_in is None else seen_in
        if seen_in is None:
            with quiet():
                optuna.create_study(
                    study_name=name,
                    storage=self.storage,
                    directions=["minimize" if name in COSTS else "maximize" for name in objectives],
                    load_if_exists=True,
                )
        self.id = self.storage.get_study_id_from_name(name)

    def close(self) -> None:
        close_storage(self.storage)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        said = lost(error)
        with contextlib.suppress(*([Exception] if said else [])):
            self.close()
        if said is not None:
            raise said from error

    # --- facts of the study ----------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        return dict(self.storage.get_study_user_attrs(self.id))

    def note(self, key: str, value: Any) -> None:
        self.storage.set_study_user_attr(self.id, key, value)

    def keep(self, key: str, value: Any, paid: tuple[int, int] = (0, 0)) -> None:
        """Write down what may be said but once, and what it has cost: whoever comes first is right.

        It is a trial that never runs, as of those every storage knows which was the first.
        """
        said = create_trial(
            state=TrialState.FAIL, user_attrs={"kept": {key: value}, "paid": list(paid)}
        )
        self.storage.create_new_trial(self.id, template_trial=said)

    def kept(self, key: str) -> Any:
        """What was said first; None where nobody has said anything yet."""
        said = (t.user_attrs.get("kept", {}) for t in self.trials())
        return next((one[key] for one in said if key in one), None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come of it: nothing tried or being tried, found or paid for."""
        facts, trials = self.facts(), self.trials()
        if any(facts.get(key) is not None for key in ("chosen", "found")):
            return False
        if any(t.state == TrialState.RUNNING or "kept" in t.user_attrs for t in trials):
            return False
        return not any(self.paid(trials)) and not self.done(trials)

    # --- trials ----------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.storage.get_all_trials(self.id, deepcopy=False)
        return found

    def done(self, trials: Iterable[FrozenTrial] | None = None) -> list[Done]:
        """Every finished trial, in the order in which samplers are told."""
        found: dict[tuple[int, int], Done] = {}
        for trial in self.trials() if trials is None else trials:
            one = self._finished.get(trial.number) or done_of(trial)
            if one is not None:
                self._finished[trial.number] = one  # it will not change
                before = found.setdefault(one.slot, one)
                if one.again > before.again:
                    found[one.slot] = one
        return [found[slot] for slot in sorted(found)]

    def enqueue(
        self, batch: int, size: int, slots: Mapping[int, Config], space: Space, again: int = 0
    ) -> None:
        for i, config in slots.items():
            params, distributions = space.labels(config)
            attrs = {"slot": [batch, i, size], "config": config}
            waiting = create_trial(
                state=TrialState.WAITING,
                params=params,
                distributions=distributions,
                user_attrs={**attrs, **({"again": again} if again else {})},
            )
            self.storage.create_new_trial(self.id, template_trial=waiting)

    def reopen(self, trial: FrozenTrial, space: Space, more: int = 0) -> None:
        """The same configuration in the same slot: in place of what was lost, or once `more`."""
        batch, i, size = trial.user_attrs["slot"]
        again = trial.user_attrs.get("again", 0) + more
        self.enqueue(batch, size, {i: trial.user_attrs["config"]}, space, again)

    def claim(self, default: bool = True) -> FrozenTrial | None:
        """A waiting trial that is now this worker's to do; but for the `default`, where another
        is to do it."""
        first: dict[tuple[Any, ...], int] = {}
        for trial in self.trials():
            slot = (*trial.user_attrs.get("slot", ()), trial.user_attrs.get("again", 0))
            if is_lost(trial):
                continue
            twice = first.setdefault(slot, trial.number) != trial.number
            if trial.state != TrialState.WAITING or (slot[:2] == (0, 0) and not default):
                continue
            try:
                if not self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    continue
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            if twice:  # two machines began the same batch at once
                self._fail(trial, "said twice")
                continue
            self.storage.set_trial_user_attr(trial._trial_id, "worker", me())
            return trial
        return None

    def alive(self, trial: FrozenTrial) -> None:
        """A sign of life, for workers that cannot see our process."""
        if isinstance(self.where, str):
            with contextlib.suppress(Exception):  # the search itself will notice
                self.storage.set_trial_user_attr(trial._trial_id, "worker", me())

    def finish(
        self,
        trial: FrozenTrial,
        sat: Sat,
        values: Sequence[float],
        pruned: bool,
        seconds: float,
        over: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """`values` are those of the objectives, in their order."""
        result = {"marks": sat.marks, "pruned": pruned, "seconds": round(seconds, 3)}
        result |= asdict(sat.spent)
        self._end(trial, result, over, TrialState.COMPLETE, values)

    def refuse(
        self,
        trial: FrozenTrial,
        why: str,
        sat: Sat | None = None,
        over: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """It cannot be tried, now or ever; `sat` is what it would have needed, if that is known."""
        needed = asdict(sat.spent) if sat else {}
        self._end(trial, {"why": why, **needed}, over, TrialState.FAIL, None)

    def give_back(self, trial: FrozenTrial, why: str, stumbled: bool = False) -> None:
        """Not finished, and to be tried again: by whoever asks next. It has `stumbled` where this
        may be its own fault."""
        if stumbled:
            self.storage.set_trial_user_attr(trial._trial_id, "stumbled", True)
        self._fail(trial, why)

    def has_stumbled(self, trial: FrozenTrial) -> bool:
        """Whether an earlier trial of the same slot has."""
        slot = trial.user_attrs["slot"]
        return any(
            t.user_attrs.get("stumbled") and t.user_attrs.get("slot") == slot for t in self.trials()
        )

    # --- what it costs ----------------------------------------------------------------------------

    def paid(self, trials: Iterable[FrozenTrial] | None = None) -> tuple[int, int]:
        """Calls and tokens that were ever paid for: by all trials, the unfinished among them, by
        verdicts and by optimizers of DSPy."""
        return expenses.paid(self.trials() if trials is None else trials, self.facts())

    def pay(self, trial: FrozenTrial, calls: int, tokens: int) -> None:
        """What a trial has cost so far."""
        self.storage.set_trial_user_attr(trial._trial_id, "paid", [calls, tokens])

    def hold(self, trial: FrozenTrial, calls: int) -> None:
        """Calls that this trial may need, with what it has paid: nobody else may spend them."""
        self.storage.set_trial_user_attr(trial._trial_id, "holds", calls)

    def purse(self, what: str, budget: Budget = UNBOUNDED) -> Purse:
        """For what is no trial."""
        until = None if budget.seconds is None else time.monotonic() + budget.seconds
        key = f"{expenses.PAID}{what} {uuid.uuid4().hex[:8]}"
        return Purse(budget, until, lambda purse: self.note(key, [purse.calls, purse.tokens]))

    # ----------------------------------------------------------------------------------------------

    def fail_stale(self) -> int:
        """Give back what dead workers had claimed; how many that were."""
        local = not isinstance(self.where, str)
        n = 0
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and is_stale(trial, local):
                n += self._fail(trial, DIED)
        return n

    def _fail(self, trial: FrozenTrial, why: str) -> bool:
        try:
            self.storage.set_trial_user_attr(trial._trial_id, "given_back", why)
            return bool(self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL))
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _end(
        self,
        trial: FrozenTrial,
        result: dict[str, Any],
        over: Mapping[str, float],
        state: TrialState,
        values: Any,
    ) -> None:
        result |= {"over": dict(over)} if over else {}
        try:
            for name, share in over.items():  # where Optuna's own tools look for them
                key = f"constraints:{name}"
                self.storage.set_trial_system_attr(trial._trial_id, key, share)
            self.storage.set_trial_user_attr(trial._trial_id, "result", result)
            self.storage.set_trial_state_values(trial._trial_id, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # we were thought dead, and somebody else has done it

    @property
    def is_shared(self) -> bool:
        """Whether other machines may be at work on it, with whom nobody takes turns."""
        return isinstance(self.where, str)

    def turn(self) -> Any:
        return turn(self.where if isinstance(self.where, Path) else None)
