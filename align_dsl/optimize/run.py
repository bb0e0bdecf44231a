"""A task -> what came of it: search, choose, look once at the test cases, write the winner down."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from align_dsl.engine.execute import Stop
from align_dsl.errors import BudgetError
from align_dsl.optimize import artefact, verdict
from align_dsl.optimize.choose import Chosen, choose
from align_dsl.optimize.search import Limits, Search
from align_dsl.optimize.space import Config
from align_dsl.optimize.study import Done, Study, studies
from align_dsl.optimize.task import Ready, Task, facts, ready
from align_dsl.optimize.trial import Interrupted
from align_dsl.optimize.verdict import Verdict
from align_dsl.records.store import Store

PATIENCE = 10.0  # seconds that workers get to save what they are at


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. Without a verdict the search was not over, or found nothing to put to test."""

    study: str
    done: tuple[Done, ...]
    ended: str
    chosen: Chosen | None
    verdict: Verdict | None
    written: Path | None
    paid: int

    @property
    def is_better(self) -> bool:
        return self.verdict is not None and self.verdict.is_better


Shown = Callable[[Ready, Sequence[Done]], None]


def optimize(
    task: Task,
    *,
    output: Path | None = None,
    stop: Stop | None = None,
    begun: Callable[[Ready, Study], None] = lambda made, study: None,
    shown: Shown = lambda made, done: None,
) -> Outcome:
    """Search until the trials or the budget are spent, and judge the winner. The same task again
    goes on where it stopped; raises BudgetError where the verdict could not be paid."""
    stop = stop if stop is not None else Stop()
    with Store.open(task.store) as store:
        made = ready(task, store)
        try:
            with Study(task.where, made.study) as study:
                begin(made, study)
                begun(made, study)
                search = search_of(made, study, stop)
                search.shown = lambda done: shown(made, done)
                with _workers(task, stop):
                    search.work()
                return _end(made, study, search, output or artefact.path_of(task.program), stop)
        finally:
            made.close()


def begin(made: Ready, study: Study) -> None:
    """Note what the study is about, once. The best of earlier studies of the decider come first."""
    with study.turn():
        if "created" in study.facts():
            return
        for key, value in facts(made, _warm(made)).items():
            if key != "created":
                study.note(key, value)
        study.note("created", facts(made, ())["created"])  # last: now all of it is there


def _warm(made: Ready) -> list[Config]:
    """What earlier studies of this decider chose, where this one's search could choose it too."""
    found: list[Config] = []
    for name, known in studies(made.task.where):
        if name == made.study or known.get("decider") != made.space.decider.name:
            continue
        config = known.get("chosen")
        if known.get("program") != made.loaded.program.name or not isinstance(config, dict):
            continue
        names = {d.name for d in made.space.dimensions}
        if config.keys() <= names and made.space.labels(config)[0]:
            found.append(made.space.canonical({**made.space.default, **config}))
    return found[-3:]


def search_of(made: Ready, study: Study, stop: Stop) -> Search:
    task, optimize = made.task, made.optimize
    spared = task.budget.get("calls")
    return Search(
        study=study,
        exam=made.train,
        limits=Limits(
            trials=task.trials or int(task.budget.get("trials", optimize.trials)),
            calls=None if spared is None else max(0, int(spared) - _reserve(made)),
            tokens=int(task.budget["tokens"]) if "tokens" in task.budget else None,
            seconds=task.budget.get("seconds"),
        ),
        sampler=made.sampler,
        seed=made.optimize.seed,
        workers=task.workers,
        warm=tuple(study.facts().get("warm", ())),
        stop=stop,
    )


def _reserve(made: Ready) -> int:
    """Calls that are kept back for the verdict: twice what the default needs on the test cases."""
    plan = made.test.plan(made.space.default, 0)
    return 2 * sum(plan.jobs[key].step.algorithm.calls for key in plan.model_jobs)


def _end(made: Ready, study: Study, search: Search, output: Path, stop: Stop) -> Outcome:
    done = study.done()
    paid = study.paid()[0]
    name, ended = study.name, search.ended or stop.reason
    if stop.asked or not done or done[0].score is None:
        if not stop.asked:
            raise BudgetError(f"error: {ended} before the default was tried to the end")
        return Outcome(name, tuple(done), ended, None, None, None, paid)
    chosen = choose(made.train, made.space, done)
    study.note("chosen", chosen.done.config)
    if chosen.is_default:
        return Outcome(name, tuple(done), ended, chosen, None, None, paid)
    left = made.task.budget.get("calls")
    budget = None if left is None else max(0, int(left) - paid)
    try:
        judged, cost = verdict.give(made, chosen.done.config, budget=budget, stop=stop)
    except Interrupted as cut:
        if cut.reason == "budget":
            raise BudgetError("error: the budget is spent before the verdict was given") from None
        return Outcome(name, tuple(done), cut.reason, chosen, None, None, paid)
    study.note("verdict", asdict(judged))
    written = None
    if judged.is_better:
        written = artefact.write(made, chosen, judged, done, output)
    return Outcome(name, tuple(done), ended, chosen, judged, written, paid + cost)


# --- workers --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _workers(task: Task, stop: Stop) -> Iterator[None]:
    """Other processes in the same loop, for as long as this one is."""
    spawn = multiprocessing.get_context("spawn")
    others = [
        spawn.Process(target=help_with, args=(task, os.getpid()), daemon=True)
        for _ in range(task.workers - 1)
    ]
    for other in others:
        other.start()
    try:
        yield
    finally:
        if stop.asked:
            for other in others:
                other.terminate()
        end = time.monotonic() + PATIENCE
        for other in others:
            other.join(max(0.1, end - time.monotonic()))
            if other.is_alive():
                other.kill()
                other.join()


def help_with(task: Task, parent: int) -> None:
    """What another process does: the loop, until it ends or its parent is gone."""
    import signal

    stop = Stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when
    signal.signal(signal.SIGTERM, lambda *_: stop.now("terminated"))
    threading.Thread(target=_watch, args=(parent, stop), daemon=True).start()
    with Store.open(task.store) as store:
        made = ready(task, store)
        try:
            with Study(task.where, made.study) as study:
                search_of(made, study, stop).work()
        finally:
            made.close()


def _watch(parent: int, stop: Stop) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    stop.now("its parent died")
