"""How a search is watched: by people, or by programs as JSON lines. outcome.py has the words."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands import _painted
from align_dsl.commands.outcome import doubts, listed, opening, print_trials, summary, weighed
from align_dsl.errors import columns, counted, render, visible

if TYPE_CHECKING:
    from align_dsl.optimize.done import Done
    from align_dsl.optimize.run import Outcome
    from align_dsl.optimize.stock.memory import Memory
    from align_dsl.optimize.study import Study
    from align_dsl.optimize.task import Ready

EVERY = 10.0  # seconds between plain lines
REFRESH = 0.2  # between changes of the line on a terminal


class Watcher:
    """For people: how far it is on stderr, what came of it on stdout."""

    def __init__(self) -> None:
        self.began = self.said = time.monotonic()
        self.first: int | None = None
        self.best: tuple[int, str] = (-1, "")
        self.trials = 0
        self.made: Ready | None = None
        self.is_open = False

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._wipe()

    def _wipe(self) -> None:
        """Leave nothing of the line that changes: what follows says more."""
        if self.is_open:
            click.echo("\r\x1b[K", nl=False, err=True)
            self.is_open = False

    def begun(self, made: Ready, study: Study) -> None:
        self.made = made
        if made.loaded.warnings:
            texts = dict(made.loaded.checked.texts)
            click.echo(_painted(render(made.loaded.warnings, texts)) + "\n", err=True)
        for warning in (*made.warnings, *doubts(made)):
            click.echo(_painted(f"warning: {warning}"), err=True)
        self.trials = made.trials
        done = study.done()
        self.first = len(done)
        said = f"study {study.name}: {counted(self.trials, 'trial')}"
        said += f", {self.first:,} of them made before" if self.first else ""
        click.echo(visible(said), err=True)
        if made.aims.several:
            click.echo(weighed(made.aims), err=True)
        if sys.stderr.isatty():
            self._show(made, done)

    def shown(self, made: Ready, done: Sequence[Done]) -> None:
        every = REFRESH if sys.stderr.isatty() else EVERY
        if time.monotonic() - self.said >= every:
            self._show(made, done)

    def _show(self, made: Ready, done: Sequence[Done]) -> None:
        self.said = time.monotonic()
        line = self.line(made, done)
        if sys.stderr.isatty():
            room = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{_cut(line, room)}", nl=False, err=True)
            self.is_open = True
        else:
            click.echo(line, err=True)

    def line(self, made: Ready, done: Sequence[Done]) -> str:
        """The most important first: a narrow terminal cuts off the end."""
        from align_dsl.optimize.choose import incumbent
        from align_dsl.optimize.effects import front

        parts = [f"{len(done):,}/{self.trials:,}"]
        elapsed = time.monotonic() - self.began
        rate = (len(done) - (self.first or 0)) / max(1e-9, elapsed)
        if rate:
            parts.append(_time(max(0, self.trials - len(done)) / rate) + " left")
        best = incumbent(done)
        if best is not None:
            if best.number != self.best[0]:
                self.best = best.number, _score(made, best)
            parts.append(f"best {self.best[1]} on train")
        if made.aims.several and best is not None:
            from align_dsl.optimize.row import cost

            needed = ", ".join(cost(name, best.costs[name]) for name in made.aims.weighed)
            parts[-1] += f" for {needed}"
            parts.append(f"front of {len(front(done, made.aims.objectives)):,}")
        counts = {
            "pruned": sum(d.pruned for d in done),
            "failed": sum(d.score is None and d.is_allowed for d in done),
            "over the limits": sum(not d.is_allowed for d in done),
        }
        parts += [f"{n:,} {what}" for what, n in counts.items() if n]
        paid, most = sum(d.sat.spent.paid for d in done), made.task.budget.calls
        parts.append(counted(paid, "call") if most is None else f"{paid:,} of {most:,.0f} calls")
        return "  ".join(parts)

    def told(self, said: str) -> None:
        """What a model is asked to word anew, and what came of it."""
        click.echo(visible(said), err=True)

    def lost(self, said: str) -> None:
        """A worker died."""
        self._wipe()
        click.echo(_painted(f"warning: {said}"), err=True)

    def heard(self, memory: Memory) -> None:
        """An optimizer of DSPy has asked something: see `stock.py`."""

    def ended(self, outcome: Outcome) -> None:
        self._wipe()
        assert self.made is not None
        made, aims = self.made, self.made.aims
        for line in opening(outcome, aims):
            click.echo(visible(line))
        if outcome.chosen is not None and aims.several:
            from align_dsl.optimize.effects import front
            from align_dsl.optimize.task import facts

            click.echo(f"what nothing beats in {listed(aims.objectives)} (train cases)")
            rows = front(outcome.done, aims.objectives)
            print_trials(rows, facts(made, ()), chosen=outcome.chosen.done.number)
        for line in summary(outcome, aims):
            click.echo(visible(line))
        if outcome.chosen is not None:
            where = made.task.store
            store = "" if where == Path(".align/align.db") else f" --store {where}"
            said = f"all of it: align-dsl studies show {outcome.study} --html FILE{store}"
            click.echo(visible(said), err=True)


class Lines(Watcher):
    """For programs: one JSON object a line on stdout."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()

    def begun(self, made: Ready, study: Study) -> None:
        self.made = made
        self.known = {d.number for d in study.done()}
        self._say("start", study=study.name, warnings=[*made.warnings, *doubts(made)])

    def shown(self, made: Ready, done: Sequence[Done]) -> None:
        for one in sorted(done, key=lambda d: d.number):
            if one.number not in self.known:
                self.known.add(one.number)
                self._say("trial", **self._trial(one), pruned=one.pruned)

    def told(self, said: str) -> None:
        self._say("told", said=said)

    def lost(self, said: str) -> None:
        self._say("lost", said=said)

    def ended(self, outcome: Outcome) -> None:
        from dataclasses import asdict

        from align_dsl.optimize.effects import front

        assert self.made is not None
        chosen, verdict = outcome.chosen, outcome.verdict
        rows = front(outcome.done, self.made.aims.objectives)
        self._say(
            "done",
            study=outcome.study,
            trials=len(outcome.done),
            ended=outcome.ended,
            chosen=chosen.done.config if chosen else None,
            train=[chosen.default.score, chosen.done.score] if chosen else None,
            front=[self._trial(d) for d in rows] if self.made.aims.several else None,
            verdict=asdict(verdict) if verdict else None,
            better=outcome.is_better,
            written=str(outcome.written) if outcome.written else None,
            calls=outcome.paid,
        )

    @staticmethod
    def _trial(one: Done) -> dict[str, Any]:
        within = one.is_allowed
        plain = {"number": one.number, "config": one.config, "score": one.score}
        return {**plain, **({"costs": one.costs} if one.score is not None else {}),
                **({} if within else {"over": dict(one.over)})}  # fmt: skip

    @staticmethod
    def _say(event: str, **what: Any) -> None:
        click.echo(json.dumps({"event": event, **what}, ensure_ascii=False))
        sys.stdout.flush()


def _score(made: Ready, best: Done) -> str:
    from align_dsl.optimize.accuracy import percent
    from align_dsl.records.stats import macro_bootstrap

    marks = [float(m == "1") for m in best.sat.marks]
    asked = made.train.asked
    span = macro_bootstrap(marks, [a.attribute for a in asked], [a.group for a in asked])
    value = percent(best.score or 0)
    return f"{value} ({100 * span.low:.1f} – {100 * span.high:.1f})" if span else value


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _cut(line: str, room: int) -> str:
    """As much of a line as fits: one that wraps could not be wiped."""
    used = 0
    for i, character in enumerate(line):
        used += columns(character)
        if used > room:
            return line[: max(0, i - 1)] + "…"
    return line
