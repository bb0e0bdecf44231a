"""A task -> what came of it: search, choose, look once at the test cases, write the winner down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.execute import Stop
from align_dsl.errors import BackendError, BudgetError, PlanError
from align_dsl.optimize import artefact, verdict
from align_dsl.optimize.choose import Chosen, choose
from align_dsl.optimize.done import Done
from align_dsl.optimize.journal import quiet
from align_dsl.optimize.retry import retry
from align_dsl.optimize.retry import told as of_failures
from align_dsl.optimize.reword import reworded, still_asked
from align_dsl.optimize.sampler import make_sampler
from align_dsl.optimize.sat import Interrupted
from align_dsl.optimize.search import Search, probe
from align_dsl.optimize.shortage import before_the_default, before_the_verdict
from align_dsl.optimize.space import Config
from align_dsl.optimize.studies import studies
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, facts, ready
from align_dsl.optimize.verdict import Verdict
from align_dsl.optimize.workers import allowance_of, search_of, to_stderr, workers
from align_dsl.records.store import Store

if TYPE_CHECKING:
    from align_dsl.optimize.stock.learn import Found
    from align_dsl.optimize.stock.memory import Memory


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
    found: Found | None = None  # of an optimizer of DSPy, in place of trials

    @property
    def is_better(self) -> bool:
        return self.verdict is not None and self.verdict.is_better


Shown = Callable[[Ready, Sequence[Done]], None]
Heard = Callable[["Memory"], None]


def optimize(
    task: Task,
    *,
    output: Path | None = None,
    pick: int | None = None,
    stop: Stop | None = None,
    begun: Callable[[Ready, Study], None] = lambda made, study: None,
    shown: Shown = lambda made, done: None,
    heard: Heard = lambda memory: None,
    lost: Callable[[str], None] = to_stderr,
    told: Callable[[str], None] = lambda said: None,
) -> Outcome:
    """Search until the trials or the budget are spent, and judge the winner. The same task again
    goes on where it stopped; raises BudgetError where the verdict could not be paid."""
    stop = stop if stop is not None else Stop()
    with Store.open(task.store) as store:
        made = ready(task, store)
        try:
            if pick is not None and not made.searches:
                raise PlanError(
                    f"error: `method: {made.optimize.method}` keeps no trials to pick from\n"
                    "  = leave out --pick, or write --method search"
                )
            to = artefact.place(made, output)
            if made.searches:
                with quiet():  # or it is said at once that there is none
                    make_sampler(made.sampler, made.space, "")
            with Study(task.where, made.study, made.aims.objectives) as study:
                try:
                    if made.searches:
                        probe(made.train)
                    left = allowance_of(made, study).left()
                    made = reworded(made, study, budget=left, stop=stop, say=told)
                except Interrupted as cut:
                    return _cut_short(made, study, cut, stop)
                begin(made, study)
                if task.retry_failed:
                    retry(made, study)
                begun(made, study)
                if not made.searches:
                    from align_dsl.optimize.stock.session import alone

                    with alone(study):
                        return _learn(made, study, to, stop, heard)
                search = search_of(made, study, stop)
                search.shown = lambda done: shown(made, done)
                with workers(task, stop, lost):
                    search.work()
                for line in of_failures(study.done()):
                    told(line)
                return _end(made, study, search, to, stop, pick)
        finally:
            made.close()


def _cut_short(made: Ready, study: Study, cut: Interrupted, stop: Stop) -> Outcome:
    """It ended before the first trial, while the default showed what it gets wrong."""
    if cut.reason == "budget":
        raise before_the_default(allowance_of(made, study), more=still_asked(made, study))
    return Outcome(study.name, (), stop.reason, None, None, None, study.paid()[0])


def _learn(made: Ready, study: Study, output: Path, stop: Stop, heard: Heard) -> Outcome:
    """Let an optimizer of DSPy find something, and judge it as what a search finds."""
    from align_dsl.optimize.stock.price import price
    from align_dsl.optimize.stock.session import taught

    found, memory = taught(made, study, stop, heard)
    paid = int(memory.spent()["calls"])
    ended = memory.ended or "DSPy came to its end"
    if stop.asked:
        return Outcome(study.name, (), ended, None, None, None, paid, found)
    if not found.settings and memory.is_down:
        raise BackendError(f"{ended}\n  = see to the model, and start again: all is saved")
    if not found.settings and memory.ended:
        raise before_the_default(allowance_of(made, study), price(made).before)
    _note_chosen(study, found.settings)
    if not found.settings:
        return Outcome(study.name, (), ended, None, None, None, paid, found)
    judged, cost = _judged(made, study, found.settings, paid, stop)
    if judged is None:
        return Outcome(study.name, (), stop.reason, None, None, None, paid, found)
    paid += cost
    written = None
    if judged.is_better:
        written = artefact.write_found(made, found, judged, paid, output)
    return Outcome(study.name, (), ended, None, judged, written, paid, found)


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
    """What earlier studies of this decider chose, where this one's search could choose it too. Not
    where they had other test cases: theirs may have been chosen on what is tested here."""
    found: list[Config] = []
    for name, known in studies(made.task.where):
        if name == made.study or known.get("decider") != made.space.decider.name:
            continue
        config = known.get("chosen")
        if known.get("program") != made.loaded.program.name or not isinstance(config, dict):
            continue
        if known.get("test") != made.split:
            continue
        names = {d.name for d in made.space.dimensions}
        if config.keys() <= names and made.space.labels(config)[0]:
            found.append(made.space.canonical({**made.space.default, **config}))
    return found[-3:]


def _end(
    made: Ready, study: Study, search: Search, output: Path, stop: Stop, pick: int | None
) -> Outcome:
    done = study.done()
    paid = study.paid()[0]
    name, ended = study.name, search.ended or stop.reason
    is_begun = bool(done) and done[0].slot == (0, 0) and done[0].score is not None
    if stop.asked or not is_begun:  # others of the first batch may have been quicker
        if not stop.asked:
            if made.task.budget == UNBOUNDED:
                raise BudgetError(f"error: {ended} before the default was tried to the end")
            raise before_the_default(search.allowance)
        return Outcome(name, tuple(done), ended, None, None, None, paid)
    chosen = choose(made.train, made.space, done, pick)
    _note_chosen(study, chosen.done.config, picked=pick is not None)
    if chosen.is_default:
        return Outcome(name, tuple(done), ended, chosen, None, None, paid)
    judged, cost = _judged(made, study, chosen.done.config, paid, stop)
    if judged is None:
        return Outcome(name, tuple(done), stop.reason, chosen, None, None, paid)
    written = None
    if judged.is_better or pick is not None:  # who picks has decided; the verdict is noted in it
        written = artefact.write(made, chosen, judged, done, output)
    return Outcome(name, tuple(done), ended, chosen, judged, written, paid + cost)


def _note_chosen(study: Study, config: Config, *, picked: bool = False) -> None:
    """From here on the study speaks of this one, and no more of a verdict on another."""
    if study.facts().get("chosen") != config:
        study.note("verdict", None)
    study.note("chosen", config)
    study.note("picked", picked)


def _judged(
    made: Ready, study: Study, config: Config, paid: int, stop: Stop
) -> tuple[Verdict | None, int]:
    """The verdict and what it cost; None where somebody asked to stop."""
    left = Budget(calls=made.task.budget.calls).less(study.paid()[0])
    purse, lacks = study.purse("verdict", left), made.test.lacks(made.space.default, config)
    if left.calls is not None and lacks > left.calls:
        raise before_the_verdict(made.task.budget, study.paid()[0], lacks)
    try:
        judged = verdict.give(made, config, purse=purse, stop=stop)
    except Interrupted as cut:
        if cut.reason == "budget":
            purse.settle()
            lacks = made.test.lacks(made.space.default, config)
            raise before_the_verdict(made.task.budget, study.paid()[0], lacks) from None
        return None, 0
    finally:
        purse.settle()
    study.note("verdict", asdict(judged))
    return judged, purse.calls
