"""`align-dsl optimize`: search the settings of a decider, and judge the winner on unseen cases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands import _painted
from align_dsl.commands.outcome import doubts, weighed
from align_dsl.commands.program import changes_options
from align_dsl.commands.run import _interruptible
from align_dsl.commands.stock import watcher_of
from align_dsl.commands.store import store_option
from align_dsl.errors import visible

if TYPE_CHECKING:
    from align_dsl.optimize.task import Task
    from align_dsl.pipeline import Changes

SAMPLES = 12  # configurations that are drawn to see what a trial may cost
LIMITS = ("calls", "tokens", "seconds", "trials")
METHODS = ("search", "bootstrap", "mipro", "gepa")


def _budget(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in (part for text in given for part in text.split(",")):
        name, equals, number = one.partition("=")
        if name not in LIMITS or not equals or not number.isdigit():
            said = f"write {'=N, '.join(LIMITS)}=N, for instance calls=500,seconds=3600"
            raise click.BadParameter(said)
        found[name] = float(number)
    return found


@click.command
@click.argument("program", type=click.Path(path_type=Path))
@click.option("--decider", metavar="NAME", help="Optimize this decider.")
@click.option("--method", type=click.Choice(METHODS), help="search, or an optimizer of DSPy.")
@click.option("--trials", type=click.IntRange(min=1), help="Try as many configurations.")
@click.option("--sampler", metavar="NAME", help="tpe, random, or another sampler of Optuna.")
@click.option(
    "--budget", multiple=True, callback=_budget, metavar="WHAT=N", help="calls, tokens, seconds."
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="Processes to try with.")
@click.option("--storage", metavar="URL", help="A database that several machines share.")
@click.option("--output", type=click.Path(path_type=Path), help="Where the winner is written.")
@click.option(
    "--pick", type=int, metavar="N", help="Judge and write trial N, whatever comes of it."
)
@click.option("--require-improvement", is_flag=True, help="Exit 10 unless the winner is better.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout, and nothing else.")
@changes_options
@store_option
def command(program: Path, store: Path, as_json: bool, changes: Changes, **options: Any) -> None:
    """Tune a decider of PROGRAM on its train cases, and compare once on its test cases.

    The same command again goes on where it stopped. A better program is written beside PROGRAM.
    """
    from align_dsl.engine.execute import Stop
    from align_dsl.optimize.run import optimize

    task = _task(program, store, changes, options)
    watcher = watcher_of(task, as_json)
    stop = Stop()
    with _interruptible(stop), watcher:
        outcome = optimize(
            task,
            output=options["output"],
            pick=options["pick"],
            stop=stop,
            begun=watcher.begun,
            shown=watcher.shown,
            lost=watcher.lost,
            told=watcher.told,
            heard=watcher.heard,
        )
    watcher.ended(outcome)
    if stop.reason in ("interrupted", "terminated"):
        click.echo(f"all is saved; to go on: {' '.join(['align-dsl', *sys.argv[1:]])}", err=True)
        raise SystemExit(143 if stop.reason == "terminated" else 130)
    if options["require_improvement"] and not outcome.is_better:
        raise SystemExit(10)


def _task(program: Path, store: Path, changes: Changes, options: dict[str, Any]) -> Task:
    from align_dsl.optimize.task import Task
    from align_dsl.pipeline import program_file

    return Task(
        program=program_file(program),
        changes=changes,
        decider=options.get("decider"),
        method=options.get("method"),
        store=store,
        storage=options.get("storage"),
        trials=options.get("trials"),
        sampler=options.get("sampler"),
        budget=options.get("budget") or {},
        workers=options.get("workers") or 1,
    )


def explain(program: Path, changes: Changes, store: Path) -> None:
    """What `align-dsl explain --optimize` prints: the space, the splits and the cost."""
    import random

    from align_dsl.optimize.propose import every
    from align_dsl.optimize.row import shown
    from align_dsl.optimize.search import BATCH
    from align_dsl.optimize.task import price, ready
    from align_dsl.optimize.verdict import looks
    from align_dsl.records.store import Store

    task = _task(program, store, changes, {})
    with Store.open(store if store.exists() else Path(":memory:")) as opened:
        made = ready(task, opened)
        try:
            space, train, test = made.space, made.train, made.test
            click.echo(f"optimize {space.decider.name} on {visible(next(iter(made.backends)))}")
            if not made.searches:
                from align_dsl.optimize.stock.price import doubts as of_dspy
                from align_dsl.optimize.stock.price import told

                for line in told(made):
                    click.echo(visible(line))
                for warning in (*made.warnings, *of_dspy(made)):
                    click.echo(_painted(f"warning: {warning}"))
                return
            from align_dsl.optimize.reword import expected
            from align_dsl.optimize.reword import told as of_wordings

            made = expected(made)
            space, train, test = made.space, made.train, made.test
            for d in space.dimensions:
                click.echo(visible(f"  {d.name} = {shown(d.default)}    tries {d}"))
            distinct = every(space) if space.size is not None and space.size <= 20_000 else None
            for line in of_wordings(made):
                click.echo(visible(line))
            n = f"{len(distinct):,}" if distinct is not None else "endlessly many"
            click.echo(f"  {n} configurations, {made.optimize.trials:,} trials, {made.sampler}")
            click.echo(f"  in batches of {BATCH}, seed {made.optimize.seed}")
            if made.aims.several:
                click.echo(f"  {weighed(made.aims)}")
            for name, most in made.aims.at_most.items():
                click.echo(f"  a decision may need {most:,g} {name} on average")
            for name, exam in (("train", train), ("test", test)):
                cases = sum(len(b) for b in exam.blocks)
                said = f"{name}: {cases:,} cases, {len(exam.asked):,} questions"
                said += f", {len(exam.blocks)} blocks" if exam is train else ", never in a trial"
                click.echo(said)
            before = len(looks(store.parent / "looks.jsonl", made.split))
            click.echo(f"  split {made.split}, looked at {before} times so far")
            options = list((distinct or {}).values())
            drawn = random.Random(0).sample(options, min(SAMPLES, len(options)))
            cost = price(made, drawn)
            trials = min(made.optimize.trials, len(options) or made.optimize.trials)
            click.echo(
                f"cost: {cost.least:,} to {cost.most:,} jobs a trial ({cost.default:,} for the"
                f" default), so {trials * cost.most:,} at most; the verdict {cost.verdict:,}"
            )
            if next(iter(made.loaded.program.models)).backend == "embedded":
                click.echo("  no calls: embedded")
            for warning in (*made.warnings, *doubts(made)):
                click.echo(_painted(f"warning: {warning}"))
        finally:
            made.close()
