"""A study that an optimizer of DSPy works on -> what it finds, and what that has cost so far.

It works alone: a second process would ask everything as well, and know nothing of what the first
has spent. On one machine a lock sees to it. Machines that share a database cannot see each other;
each then notes what it has spent under a name of its own, and all of it counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from align_dsl.engine.budget import Budget
from align_dsl.engine.execute import Stop
from align_dsl.errors import PlanError, visible
from align_dsl.optimize.allowance import Allowance
from align_dsl.optimize.stock.learn import Found, aloud, learn, noted, recalled
from align_dsl.optimize.stock.memory import Memory
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone(study: Study) -> Iterator[None]:
    """Nobody else on this machine is at the study meanwhile. Raises PlanError where somebody is."""
    if not isinstance(study.where, Path) or fcntl is None:
        yield
        return
    file = os.open(f"{study.where}.{study.name}.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PlanError(
                f"error: another process is at the study {visible(study.name)}\n"
                "  = DSPy's optimizers work in one process: wait for it, or stop it"
            ) from None
        yield
    finally:
        os.close(file)  # and the lock with it, as when the process dies


def taught(
    made: Ready, study: Study, stop: Stop, heard: Callable[[Memory], None]
) -> tuple[Found, Memory]:
    """What the optimizer comes back with, or came back with before."""
    allowance = Allowance(study, made.train, made.test, made.task.budget)
    purse, kept = study.purse("lessons"), allowance.reserve.calls()
    memory = Memory(made.train.store, stop, _limits(allowance.budget), kept)
    said = aloud(heard)

    def note() -> None:
        purse.calls, purse.tokens = memory.calls, memory.tokens
        purse.settle()
        allowance.sign()
        calls, tokens = study.paid()
        others = {"calls": calls - purse.calls, "tokens": tokens - purse.tokens}
        memory.before = {**others, "seconds": allowance.before}

    def listen(memory: Memory) -> None:
        if memory.is_due():
            note()
        said(memory)

    note()
    memory.heard = listen
    memory.retries = made.task.retry_failed
    known = None if memory.retries else recalled(study.facts().get("found"), made)
    if known is not None:
        return known, memory
    try:
        found = learn(made, memory)
    finally:
        note()
        allowance.sign(last=True)
    if not memory.ended:  # else a higher budget may come to something else
        study.note("found", noted(found, made))
    return found, memory


def _limits(budget: Budget) -> dict[str, float]:
    """As far as it has any."""
    limits = {"calls": budget.calls, "tokens": budget.tokens, "seconds": budget.seconds}
    return {name: limit for name, limit in limits.items() if limit is not None}
