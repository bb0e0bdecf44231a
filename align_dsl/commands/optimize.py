"""`align-dsl optimize`: search the settings of a decider, and judge the winner on unseen cases."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands import _painted
from align_dsl.commands.outcome import doubts, weighed
from align_dsl.commands.program import changes_options
from align_dsl.commands.run import _interruptible
from align_dsl.commands.stock import watcher_of
from align_dsl.commands.store import store_option
from align_dsl.engine.budget import LIMITS, Budget, parse
from align_dsl.errors import counted, visible

if TYPE_CHECKING:
    from align_dsl.optimize.space import Config
    from align_dsl.optimize.task import Ready, Task
    from align_dsl.pipeline import Changes

SAMPLES = 12  # configurations that are drawn to see what a trial may cost
METHODS = ("search", "bootstrap", "mipro", "gepa")


def _budget(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in given:
        try:
            found |= parse(one, (*LIMITS, "trials"))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
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
@click.option("--retry-failed", is_flag=True, help="Try again what had answers that failed.")
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

    budget = dict(options.get("budget") or {})
    trials = budget.pop("trials", None)
    return Task(
        program=program_file(program),
        changes=changes,
        decider=options.get("decider"),
        method=options.get("method"),
        store=store,
        storage=options.get("storage"),
        trials=options.get("trials") or trials,
        sampler=options.get("sampler"),
        budget=Budget(**budget),
        workers=options.get("workers") or 1,
        retry_failed=bool(options.get("retry_failed")),
    )


def explain(program: Path, changes: Changes, store: Path, **options: Any) -> None:
    """What `align-dsl explain --optimize` prints: the space, the splits and the cost."""
    from align_dsl.optimize.task import ready
    from align_dsl.records.store import Store

    task = _task(program, store, changes, options)
    with Store.open(store if store.exists() else Path(":memory:")) as opened:
        made = ready(task, opened)
        try:
            click.echo(f"optimize {made.space.decider.name} on {visible(made.model.name)}")
            lines = _of_search if made.searches else _of_dspy
            for line in lines(made, store):
                click.echo(visible(line))
            for warning in (*made.warnings, *_doubts(made)):
                click.echo(_painted(f"warning: {warning}"))
        finally:
            made.close()


def _of_dspy(made: Ready, store: Path) -> Iterator[str]:
    from align_dsl.optimize.stock.price import told

    return told(made)


def _doubts(made: Ready) -> Iterable[str]:
    from align_dsl.optimize.stock.price import doubts as of_dspy

    return doubts(made) if made.searches else of_dspy(made)


def _of_search(made: Ready, store: Path) -> Iterator[str]:
    from align_dsl.optimize.looks import cases_of, looks
    from align_dsl.optimize.reword import expected, told
    from align_dsl.optimize.row import shown
    from align_dsl.optimize.search import BATCH
    from align_dsl.optimize.untried import LISTED, every

    wordings = list(told(made))
    made = expected(made)
    space = made.space
    for d in space.dimensions:
        yield f"  {d.name} = {shown(d.default)}    tries {d}"
    yield from wordings
    is_listed = space.size is not None and space.size <= LISTED
    distinct = list(every(space).values()) if is_listed else None
    n = "endlessly many configurations"
    if space.size is not None:
        n = f"up to {counted(space.size, 'configuration')}"
    n = n if distinct is None else counted(len(distinct), "configuration")
    yield f"  {n}, {counted(made.trials, 'trial')}, {made.sampler}"
    yield f"  in batches of {BATCH}, seed {made.optimize.seed}"
    if made.aims.several:
        yield f"  {weighed(made.aims)}"
    for name, most in made.aims.at_most.items():
        yield f"  a decision may need {most:,g} {name} on average"
    for name, exam in (("train", made.train), ("test", made.test)):
        cases = sum(len(b) for b in exam.blocks)
        said = f"{name}: {counted(cases, 'case')}, {counted(len(exam.asked), 'question')}"
        blocks = counted(len(exam.blocks), "block")
        yield f"{said}, {blocks if name == 'train' else 'never in a trial'}"
    before = len(looks(store.parent / "looks.jsonl", made.split, cases_of(made)))
    yield f"  split {made.split}, looked at {counted(before, 'time')} so far"
    yield _cost(made, distinct)


def _cost(made: Ready, distinct: Sequence[Config] | None) -> str:
    """What the search may cost, as far as a few configurations drawn from the space can tell."""
    from align_dsl.optimize.task import price

    if made.is_free:
        return "cost: no calls: embedded"
    cost = price(made, _drawn(made, distinct))
    trials = made.trials
    if distinct is not None:
        trials = min(trials, len(distinct))
    return (
        f"cost: about {cost.least:,} to {counted(cost.most, 'call')} a trial ({cost.default:,} for"
        f" the default), so about {trials * cost.typical:,.0f} for {counted(trials, 'trial')}, and"
        f" {cost.verdict:,} for the verdict; what is known is not asked again"
    )


def _drawn(made: Ready, distinct: Sequence[Config] | None) -> list[Config]:
    import random

    from align_dsl.optimize.space import written
    from align_dsl.optimize.untried import any_left

    dice = random.Random(0)
    if distinct is not None:
        return dice.sample(list(distinct), min(SAMPLES, len(distinct)))
    drawn: dict[str, Config] = {}
    for _ in range(SAMPLES):
        one = any_left(made.space, drawn, dice, lambda config: {})
        if one is not None:
            drawn[written(one)] = one
    return list(drawn.values())
