"""How a run is watched: bars on a terminal, a line every ten seconds elsewhere, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from align_dsl.errors import counted, visible

if TYPE_CHECKING:
    from align_dsl.engine.plan import Plan
    from align_dsl.pipeline import Outcome
    from align_dsl.records.record import Answer, RunRecord

EVERY = 10.0  # seconds between plain lines


class Watcher:
    """For people: progress on stderr, the table on stdout."""

    def __init__(self) -> None:
        self.total = self.done = self.failed = 0
        self.known = 0
        self.began = self.said = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def started(self, record: RunRecord, plan: Plan) -> None:
        click.echo(f"run {record.id}: {plan}", err=True)

    def begin(self, total: int, known: int) -> None:
        self.total, self.known, self.done = total, known, known
        self.began = self.said = time.monotonic()
        if known:
            are = "answer is" if total == 1 else "answers are"
            click.echo(f"{known:,} of {total:,} {are} known already", err=True)
        if total > known and sys.stderr.isatty():
            self._open_bar()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
        )
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        self.task = self.bar.add_task("", total=self.total, completed=self.done, rate="", failed="")

    def answered(self, answer: Answer) -> None:
        self.done += 1
        self.failed += answer.failure is not None
        elapsed = time.monotonic() - self.began
        rate = (self.done - self.known) / elapsed if elapsed > 0 else 0.0
        failed = f"{self.failed:,} failed" if self.failed else ""
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, rate=f"{rate:.1f}/s", failed=failed)
        elif time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            left = (self.total - self.done) / rate if rate else 0
            said = f"{self.done:,}/{self.total:,}  {rate:.1f}/s  {left:.0f} s left  {failed}"
            click.echo(said.rstrip(), err=True)

    def ended(self, outcome: Outcome) -> None:
        from align_dsl.commands.console import console
        from align_dsl.records.table import caption, print_table

        out = console()
        print_table(out, outcome.record.results, outcome.notes)
        for line in caption(outcome.record, outcome.notes, outcome.reasons):
            out.print(line, markup=False, highlight=False)
        spent, whole = outcome.spent, outcome.record.cost
        tokens = counted(spent.prompt_tokens + spent.completion_tokens, "token")
        said = f"run {outcome.record.id}: {counted(spent.calls, 'call')}, {tokens}"
        said += f", {spent.cached:,} known before"
        # what `runs` says, where this is not the first execution or others have asked before
        said += f"; {counted(whole.calls, 'call')} in all" if whole.calls != spent.calls else ""
        out.print(visible(said), markup=False, highlight=False)


class Lines(Watcher):
    """For programs: one JSON object a line on stdout, and nothing else there."""

    def started(self, record: RunRecord, plan: Plan) -> None:
        self.record = record

    def begin(self, total: int, known: int) -> None:
        self.total, self.known, self.done = total, known, known
        start = {
            "run": self.record.id,
            "program": self.record.program,
            "jobs": total,
            "known": known,
        }
        self._say("start", start)

    def answered(self, answer: Answer) -> None:
        self.done += 1
        self.failed += answer.failure is not None
        if time.monotonic() - self.said > 1.0:
            self.said = time.monotonic()
            self._say("progress", {"done": self.done, "jobs": self.total, "failed": self.failed})

    def ended(self, outcome: Outcome) -> None:
        keep = [
            "decider",
            "model",
            "target",
            "attribute",
            "metric",
            "value",
            "low",
            "high",
            "n",
            "left_out",
            "failed",
            "chance",
            "trivial",
            "trivial_name",
            "control",
        ]
        results = [r.model_dump(include=set(keep)) for r in outcome.record.results]
        self._say(
            "done",
            {
                "run": outcome.record.id,
                "status": outcome.record.status,
                "results": [{k: r[k] for k in keep} for r in results],
                "cost": outcome.spent.model_dump(),
                "notes": dict(outcome.notes),
            },
        )

    @staticmethod
    def _say(event: str, what: dict[str, Any]) -> None:
        click.echo(json.dumps({"event": event, **what}))
        sys.stdout.flush()
