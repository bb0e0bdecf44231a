"""`align-dsl run`: decide every question of a program and show how well that went."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands import _painted
from align_dsl.commands.program import changes_options, not_here
from align_dsl.commands.store import store_option
from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.errors import BudgetError, counted, render

if TYPE_CHECKING:
    from align_dsl.engine.execute import Stop
    from align_dsl.pipeline import Changes, Outcome


def _budget(ctx: click.Context, param: click.Parameter, written: str | None) -> Budget:
    try:
        return UNBOUNDED if written is None else Budget.parse(written)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command
@click.argument("program", type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="DECIDER", help="Run this decider only; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="Decide the first N cases only.")
@click.option(
    "--budget", callback=_budget, metavar="WHAT=N,...", help="calls, tokens, seconds: no more."
)
@click.option("--max-failures", type=click.IntRange(min=0), help="Exit 3 when more decisions fail.")
@click.option("--retry-failed", is_flag=True, help="Ask again what failed before.")
@click.option("--control", is_flag=True, help="Also decide for a wrong attribute, to compare.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout, and nothing else.")
@not_here("--decider", "--deciders", instead="say which to run with --only NAME")
@changes_options
@store_option
def command(program: Path, store: Path, as_json: bool, changes: Changes, **options: Any) -> None:
    """Run PROGRAM: a file, or the name of a shipped one.

    The same command again goes on where it stopped, and asks nothing twice.
    """
    from align_dsl.commands.progress import Lines, Watcher
    from align_dsl.engine.execute import Stop
    from align_dsl.pipeline import Selection, load, program_file, run
    from align_dsl.records.store import Store

    loaded = load(program_file(program), changes)
    if loaded.warnings:
        texts = dict(loaded.checked.texts)
        click.echo(_painted(render(loaded.warnings, texts)) + "\n", err=True)
    selection = Selection(options["limit"], tuple(options["only"]), options["control"])
    stop = Stop()
    watcher = Lines() if as_json else Watcher()
    with Store.open(store) as opened, _interruptible(stop), watcher:
        outcome = run(
            loaded,
            opened,
            selection,
            budget=options["budget"],
            retry_failed=options["retry_failed"],
            progress=watcher,
            stop=stop,
            started=watcher.started,
        )
    watcher.ended(outcome)
    _leave(outcome, stop, options["max_failures"])


@contextmanager
def _interruptible(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C waits for what is in flight, the second does not, the third just ends."""
    from align_dsl.engine.execute import PATIENCE

    def interrupt(number: int, frame: object) -> None:
        if stop.hurry.is_set():  # not even that comes to its end
            click.echo("\x1b[?25h", err=True, nl=False)  # the bar hides the cursor
            os._exit(128 + number)
        if stop.asked:
            stop.hurry.set()
            return
        stop.now("interrupted" if number == signal.SIGINT else "terminated")
        said = f"stopping: up to {PATIENCE:g} s for what is in flight (again to stop at once)"
        click.echo(f"\n{said}", err=True)

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resume() -> str:
    return shlex.join(["align-dsl", *sys.argv[1:]])


def _leave(outcome: Outcome, stop: Stop, max_failures: int | None) -> None:
    if outcome.gone is not None:
        raise outcome.gone
    if stop.reason:
        click.echo(f"all answers so far are saved; to go on: {_resume()}", err=True)
        if stop.reason == "budget":
            raise BudgetError("the budget is spent")
        raise SystemExit(143 if stop.reason == "terminated" else 130)
    failed = sum(n for k, n in outcome.record.counts.items() if k not in ("ok", "tied"))
    if max_failures is not None and failed > max_failures:
        said = f"{counted(failed, 'decision')} failed, more than {max_failures:,}"
        click.echo(f"error: {said}", err=True)
        raise SystemExit(3)
    if max_failures is None and 0 < failed == sum(outcome.record.counts.values()):
        click.echo("error: every decision failed, for the reasons above", err=True)
        raise SystemExit(3)
