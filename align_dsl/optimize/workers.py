"""A task's search, and other processes in the same search for as long as this one is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from align_dsl.engine.execute import Stop
from align_dsl.errors import AlignError, visible
from align_dsl.optimize.reword import reworded
from align_dsl.optimize.search import Limits, Search
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.records.store import Store

PATIENCE = 10.0  # seconds that workers get to save what they are at


def search_of(made: Ready, study: Study, stop: Stop) -> Search:
    task, optimize = made.task, made.optimize
    spared = task.budget.get("calls")
    return Search(
        study=study,
        exam=made.train,
        limits=Limits(
            trials=task.trials or int(task.budget.get("trials", optimize.trials)),
            calls=None if spared is None else max(0, int(spared) - reserve(made)),
            tokens=int(task.budget["tokens"]) if "tokens" in task.budget else None,
            seconds=task.budget.get("seconds"),
        ),
        sampler=made.sampler,
        seed=made.optimize.seed,
        workers=task.workers,
        warm=tuple(study.facts().get("warm", ())),
        stop=stop,
    )


def calls_left(made: Ready, study: Study) -> int | None:
    """Calls that are still to be had, but for those of the verdict."""
    limit = made.task.budget.get("calls")
    return None if limit is None else max(0, int(limit) - reserve(made) - study.paid()[0])


def reserve(made: Ready) -> int:
    """Calls that are kept back for the verdict: twice what the default needs on the test cases."""
    plan = made.test.plan(made.space.default, 0)
    return 2 * sum(plan.jobs[key].step.algorithm.calls for key in plan.model_jobs)


# --- processes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Other:
    """Another process, and where it says why it could not go on."""

    number: int
    process: SpawnProcess
    hears: Connection

    def why(self) -> str | None:
        """Why it ended before there was no more to do; None where it did not."""
        code = self.process.exitcode
        if not code:
            return None
        if code < 0:
            return f"killed by signal {-code}"
        with contextlib.suppress(EOFError, OSError):
            if self.hears.poll():
                return str(self.hears.recv())
        return f"exit code {code}"


def to_stderr(said: str) -> None:
    print(said, file=sys.stderr, flush=True)


@contextlib.contextmanager
def workers(task: Task, stop: Stop, lost: Callable[[str], None] = to_stderr) -> Iterator[None]:
    """Other processes in the same loop, for as long as this one is.

    `lost` is told of each that dies; the others go on, and one of them tries again what it was at.
    """
    others = [_start(number, task) for number in range(2, task.workers + 1)]
    over = threading.Event()
    watch = threading.Thread(target=_mourn, args=(others, over, lost), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()  # so that nobody else waits for the same process
        if stop.asked:
            for other in others:
                other.process.terminate()
        end = time.monotonic() + PATIENCE
        for other in others:
            other.process.join(max(0.1, end - time.monotonic()))
            if other.process.is_alive():
                other.process.kill()
                other.process.join()
            other.hears.close()


def _start(number: int, task: Task) -> _Other:
    spawn = multiprocessing.get_context("spawn")
    hears, says = spawn.Pipe(duplex=False)
    process = spawn.Process(target=help_with, args=(task, os.getpid(), says), daemon=True)
    with _deaf():
        process.start()
    says.close()
    return _Other(number, process, hears)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A process begun meanwhile never hears Ctrl-C, not even before it can say so itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _mourn(others: list[_Other], over: threading.Event, lost: Callable[[str], None]) -> None:
    left = list(others)
    while left and not over.is_set():
        wait([other.process.sentinel for other in left], timeout=0.2)
        for other in [o for o in left if not o.process.is_alive()]:
            left.remove(other)
            why = other.why()
            if why is not None:
                lost(
                    f"worker {other.number} of {len(others) + 1} died ({why}); the others go on,"
                    " and what it was at is tried again"
                )


def help_with(task: Task, parent: int, says: Connection) -> None:
    """What another process does: the loop, until it ends or its parent is gone."""
    stop = Stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when
    signal.signal(signal.SIGTERM, lambda *_: stop.now("terminated"))
    threading.Thread(target=_watch, args=(parent, stop), daemon=True).start()
    try:
        _help(task, stop)
    except Exception as error:  # the parent tells of it, in one line
        with contextlib.suppress(OSError):
            says.send(_in_short(error))
        raise SystemExit(1) from None


def _help(task: Task, stop: Stop) -> None:
    with Store.open(task.store) as store:
        made = ready(task, store)
        try:
            with Study(task.where, made.study) as study:
                made = reworded(made, study)
                search_of(made, study, stop).work()
        finally:
            made.close()


def _in_short(error: Exception) -> str:
    first = visible(str(error).strip().partition("\n")[0]).removeprefix("error: ")
    if isinstance(error, AlignError):
        return first
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {first}{place}"


def _watch(parent: int, stop: Stop) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    stop.now("its parent died")
