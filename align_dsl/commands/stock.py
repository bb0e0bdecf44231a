"""How an optimizer of DSPy is watched, and what came of it: for people, or as JSON lines."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands import _painted
from align_dsl.commands.search import EVERY, REFRESH, Lines, Watcher
from align_dsl.errors import counted, render, visible

if TYPE_CHECKING:
    from align_dsl.optimize.run import Outcome
    from align_dsl.optimize.stock.memory import Memory
    from align_dsl.optimize.study import Study
    from align_dsl.optimize.task import Ready, Task


def watcher_of(task: Task, as_json: bool) -> Watcher:
    """Who watches: it depends on who looks for what is better."""
    from align_dsl.pipeline import compile

    optimize = compile(task.program, task.changes).program.optimize
    method = task.method or (optimize.method if optimize else "search")
    if method == "search":
        return Lines() if as_json else Watcher()
    return StockLines() if as_json else StockWatcher()


class StockWatcher(Watcher):
    """For people: what was asked so far on stderr, what came of it on stdout."""

    def begun(self, made: Ready, study: Study) -> None:
        from align_dsl.optimize.stock.price import doubts, told

        self.made = made
        if made.loaded.warnings:
            texts = dict(made.loaded.checked.texts)
            click.echo(_painted(render(made.loaded.warnings, texts)) + "\n", err=True)
        for warning in (*made.warnings, *doubts(made)):
            click.echo(_painted(f"warning: {warning}"), err=True)
        click.echo(f"study {visible(study.name)}", err=True)
        for line in told(made):
            click.echo(visible(line), err=True)

    def heard(self, memory: Memory) -> None:
        every = REFRESH if sys.stderr.isatty() else EVERY
        if time.monotonic() - self.said < every:
            return
        self.said = time.monotonic()
        calls, limit = memory.spent()["calls"], memory.limits.get("calls")
        said = counted(calls, "call") if limit is None else f"{calls:,.0f} of {limit:,.0f} calls"
        line = f"{said}  {memory.known:,} known before or asked again  {memory.seconds:.0f} s"
        if sys.stderr.isatty():
            room = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{line[:room]}", nl=False, err=True)
            self.is_open = True
        else:
            click.echo(line, err=True)

    def ended(self, outcome: Outcome) -> None:
        self._wipe()
        for line in summary(outcome):
            click.echo(visible(line))


class StockLines(StockWatcher, Lines):
    """For programs: one JSON object a line on stdout."""

    def begun(self, made: Ready, study: Study) -> None:
        from align_dsl.optimize.stock.price import doubts

        self.made = made
        method = made.optimize.method
        self._say(
            "start",
            study=study.name,
            method=method,
            warnings=[*made.warnings, *doubts(made)],
        )

    def heard(self, memory: Memory) -> None:
        if time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            self._say("asked", calls=memory.spent()["calls"], known=memory.known)

    def ended(self, outcome: Outcome) -> None:
        from dataclasses import asdict

        found, verdict = outcome.found, outcome.verdict
        self._say(
            "done",
            study=outcome.study,
            ended=outcome.ended,
            optimizer=found.optimizer if found else None,
            candidates=found.candidates if found else 0,
            chosen=found.settings if found else None,
            notes=list(found.notes) if found else [],
            train=list(found.scores) if found and found.scores else None,
            verdict=asdict(verdict) if verdict else None,
            better=outcome.is_better,
            written=str(outcome.written) if outcome.written else None,
            calls=outcome.paid,
        )


def summary(outcome: Outcome) -> Iterator[str]:
    from align_dsl.commands.outcome import judged
    from align_dsl.optimize.accuracy import percent
    from align_dsl.optimize.aims import Aims

    found, verdict = outcome.found, outcome.verdict
    assert found is not None
    yield (
        f"study {outcome.study}: {counted(found.candidates, 'candidate')},"
        f" {counted(outcome.paid, 'call')}; {outcome.ended}"
    )
    if verdict is None and outcome.ended in ("interrupted", "terminated"):
        return
    yield f"  {found.optimizer}"
    for name, value in found.settings.items():
        yield f"  {name}: {_short(value)}"
    for note in found.notes:
        yield f"  note: {note}"
    if found.scores:
        before, after = found.scores
        said = f"train: {percent(before)} -> {percent(after)} on DSPy's part of it"
        yield f"{said}, the mean over questions"
    if verdict is None:
        if not found.settings:
            yield "not better: DSPy came back with the decider as it was; nobody looked at the test"
        return
    yield from judged(verdict, Aims())
    if verdict.is_better:
        yield f"better: written to {outcome.written}"
    else:
        yield f"not better: {verdict.why}; nothing was written"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return counted(len(value), "worked example")
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
