"""What was tried of a program, kept for good: an Optuna study, shared by all who work on it.

A trial belongs to a slot of a batch. It waits, is claimed, and is finished with its marks; a trial
whose worker died is failed, and its slot gets another. So whatever is killed when, each slot comes
to exactly one finished trial, and a batch to the same configurations.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.errors import PlanError, nearest, visible
from align_dsl.optimize import ledger
from align_dsl.optimize.aims import COSTS, Aims, costs
from align_dsl.optimize.journal import close_storage, lost, open_storage, quiet, turn
from align_dsl.optimize.propose import Tried
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.sat import Sat, Spent
from align_dsl.optimize.space import Config, Space

STALE = 120.0  # seconds without a sign of life after which a worker elsewhere counts as dead
DIED = "its worker died"  # why a trial was given back, where it was not by whom it belonged to
LONELY = 10.0  # seconds after which a claim without a name counts as that of a dead worker


@dataclass(frozen=True, slots=True)
class Done:
    """A finished trial."""

    number: int
    slot: tuple[int, int]
    config: Config
    sat: Sat
    score: float | None  # what the sampler was told; None where it could not be tried
    pruned: bool
    seconds: float
    why: str = ""  # where it could not be tried
    over: Mapping[str, float] = field(default_factory=dict)  # limits: see Aims.over
    again: int = 0  # how often it was tried again, for its failures

    @property
    def costs(self) -> dict[str, float]:
        return costs(self.sat)

    @property
    def is_allowed(self) -> bool:
        return all(share <= 0 for share in self.over.values())

    def tried(self, aims: Aims) -> Tried:
        return Tried(
            self.config, self.score, tuple(self.costs[name] for name in aims.weighed), self.over
        )


@dataclass(frozen=True, slots=True)
class Open:
    """What is not finished."""

    batch: int  # the newest
    size: int  # of it
    live: int = 0  # trials that wait, or that somebody is at work on
    lost: tuple[FrozenTrial, ...] = ()  # that somebody was at work on, and nobody is any more
    never: tuple[int, ...] = ()  # slots of the newest batch that nobody ever saw
    configs: tuple[Config, ...] = ()  # of the newest batch


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

    # --- trials ----------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.storage.get_all_trials(self.id, deepcopy=False)
        return found

    def done(self, trials: Iterable[FrozenTrial] | None = None) -> list[Done]:
        """Every finished trial, in the order in which samplers are told."""
        found: dict[tuple[int, int], Done] = {}
        for trial in self.trials() if trials is None else trials:
            one = self._finished.get(trial.number) or _done(trial)
            if one is not None:
                self._finished[trial.number] = one  # it will not change
                before = found.setdefault(one.slot, one)
                if one.again > before.again:
                    found[one.slot] = one
        return [found[slot] for slot in sorted(found)]

    @staticmethod
    def opened(trials: Iterable[FrozenTrial]) -> Open:
        """The newest batch, and what of all batches is not finished."""
        batch, size = -1, 0
        first: dict[tuple[int, int, int], FrozenTrial] = {}  # of each slot the first that counts
        for trial in trials:
            if (slot := trial.user_attrs.get("slot")) is None:
                continue
            b, i, n = slot
            again = trial.user_attrs.get("again", 0)
            if b > batch:
                batch, size = b, n
                first = {k: t for k, t in first.items() if k[2]}
            if b == batch or again:
                before = first.get((b, i, again))
                if before is None or _is_lost(before):
                    first[b, i, again] = trial
        rows = first.values()
        there = {i for b, i, _ in first if b == batch}
        return Open(
            batch,
            size,
            live=sum(not t.state.is_finished() for t in rows),
            lost=tuple(t for t in rows if _is_lost(t)),
            never=tuple(i for i in range(size) if i not in there),
            configs=tuple(t.user_attrs["config"] for k, t in first.items() if k[0] == batch),
        )

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
            if _is_lost(trial):
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
        return ledger.paid(self.trials() if trials is None else trials, self.facts())

    def pay(self, trial: FrozenTrial, calls: int, tokens: int) -> None:
        """What a trial has cost so far."""
        self.storage.set_trial_user_attr(trial._trial_id, "paid", [calls, tokens])

    def hold(self, trial: FrozenTrial, calls: int) -> None:
        """Calls that this trial may need, with what it has paid: nobody else may spend them."""
        self.storage.set_trial_user_attr(trial._trial_id, "holds", calls)

    def purse(self, what: str, budget: Budget = UNBOUNDED) -> Purse:
        """For what is no trial."""
        until = None if budget.seconds is None else time.monotonic() + budget.seconds
        key = f"{ledger.PAID}{what} {uuid.uuid4().hex[:8]}"
        return Purse(budget, until, lambda purse: self.note(key, [purse.calls, purse.tokens]))

    # ----------------------------------------------------------------------------------------------

    def fail_stale(self) -> int:
        """Give back what dead workers had claimed; how many that were."""
        local = not isinstance(self.where, str)
        n = 0
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and _is_stale(trial, local):
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


def _done(trial: FrozenTrial) -> Done | None:
    result = trial.user_attrs.get("result")
    if result is None or trial.state not in (TrialState.COMPLETE, TrialState.FAIL):
        return None
    if trial.state == TrialState.FAIL and "why" not in result:
        return None  # it was thought dead while it wrote
    batch, i, _ = trial.user_attrs["slot"]
    spent = Spent(**{f.name: result.get(f.name, 0) for f in fields(Spent)})
    return Done(
        number=trial.number,
        slot=(batch, i),
        config=dict(trial.user_attrs["config"]),
        sat=Sat(result.get("marks", ""), spent),
        score=trial.values[0] if trial.state == TrialState.COMPLETE else None,
        pruned=bool(result.get("pruned")),
        seconds=float(result.get("seconds", 0)),
        why=str(result.get("why", "")),
        over=result.get("over", {}),
        again=trial.user_attrs.get("again", 0),
    )


def _is_lost(trial: FrozenTrial) -> bool:
    """Whether it came to no end, and its slot is to get another."""
    return bool(trial.state == TrialState.FAIL and "why" not in trial.user_attrs.get("result", {}))


def me() -> dict[str, Any]:
    """This process, so that others can tell whether it lives."""
    pid = os.getpid()
    return {"host": _host(), "pid": pid, "since": _started(pid), "seen": time.time()}


def _host() -> str:
    """Where a process number means what it means here: this machine, boot and container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        boot += f" {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}".strip()


def _started(pid: int) -> str:
    """When a process began, as the system counts: a number is used again for another process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _answers(pid)
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state == "Z" else rest[18]


def _answers(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def _is_stale(trial: FrozenTrial, local: bool) -> bool:
    worker: dict[str, Any] | None = trial.user_attrs.get("worker")
    if worker is None:  # it died between its claim and its name
        began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return bool(time.time() - began > LONELY)
    here = _host()
    if worker["host"] == here and (local or " " in here):  # a bare name may be that of several
        since: str = worker["since"]
        return bool(_started(worker["pid"]) != since)
    if local:  # a journal of another boot, or another machine: nobody there can be at work here
        return True
    return bool(time.time() - worker["seen"] > STALE)


def studies(where: Path | str) -> list[tuple[str, dict[str, Any]]]:
    """Every study that is kept there: its name and its facts."""
    if isinstance(where, Path) and not where.exists():
        return []
    storage = open_storage(where)
    try:
        return [(s.study_name, dict(s.user_attrs)) for s in storage.get_all_studies()]
    finally:
        close_storage(storage)


def find(where: Path | str, name: str) -> str:
    """The study of this name, or the only one that begins so, or the newest for `last`."""
    known = studies(where)
    if name == "last" and known:
        return max(known, key=lambda s: str(s[1].get("created", "")))[0]
    names = [n for n, _ in known]
    begins = [n for n in names if n.startswith(name)] if name not in names else [name]
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise PlanError(f"`{visible(name)}` may be any of: {', '.join(map(visible, begins))}")
    raise PlanError(f"no study `{visible(name)}`\n  = {visible(nearest(name, names))}")
