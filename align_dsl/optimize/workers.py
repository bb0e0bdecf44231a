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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from align_dsl.engine.execute import Stop
from align_dsl.errors import AlignError, visible
from align_dsl.optimize.allowance import Allowance
from align_dsl.optimize.reword import reworded
from align_dsl.optimize.search import Search
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.records.store import Store

PATIENCE = 10.0  # seconds that workers get to save what they are at
RESTARTS = 3  # of a worker that is killed


def search_of(made: Ready, study: Study, stop: Stop, helps: bool = False) -> Search:
    """`helps`: another process is in the same search, and sees to what is to be done once."""
    return Search(
        study=study,
        exam=made.train,
        allowance=allowance_of(made, study),
        trials=made.trials,
        sampler=made.sampler,
        seed=made.optimize.seed,
        warm=tuple(study.facts().get("warm", ())),
        stop=stop,
        helps=helps,
    )


def allowance_of(made: Ready, study: Study) -> Allowance:
    return Allowance(study, made.train, made.test, made.task.budget)


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
    """Other processes in the same loop, for as long as this one is; then they end what they are at.

    `lost` is told of each that dies. One that was killed is started again; of one that could not go
    on, and has said why, the others try again what it was at.
    """
    if task.workers < 2:
        yield
        return
    at_once = threading.Event()
    watch = threading.Thread(target=_watch_over, args=(task, at_once, lost), daemon=True)
    watch.start()
    is_whole = False
    try:
        yield
        is_whole = True
    finally:
        while watch.is_alive():
            if stop.asked or not is_whole:
                at_once.set()
            watch.join(0.1)


def _watch_over(task: Task, at_once: threading.Event, lost: Callable[[str], None]) -> None:
    """Start them, see who dies, and end them where they are to end `at_once`."""
    left = [_start(number, task) for number in range(2, task.workers + 1)]
    deaths: Counter[int] = Counter()
    end = None
    while left:
        if at_once.is_set() and end is None:
            end = time.monotonic() + PATIENCE
            for other in left:
                other.process.terminate()
        if end is not None and time.monotonic() > end:
            for other in left:
                other.process.kill()
        wait([other.process.sentinel for other in left], timeout=0.2)
        for other in [o for o in left if not o.process.is_alive()]:
            left.remove(other)
            why, number = other.why(), other.number
            other.hears.close()
            if why is None or at_once.is_set():
                continue
            deaths[number] += 1
            goes_on = "the others go on"
            if (other.process.exitcode or 0) < 0 and deaths[number] <= RESTARTS:
                goes_on = "it is started again"
                left.append(_start(number, task))
            lost(
                f"worker {number} of {task.workers} died ({why}); {goes_on},"
                " and what it was at is tried again"
            )


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
                search_of(made, study, stop, helps=True).work()
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
