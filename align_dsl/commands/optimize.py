"""`align-dsl optimize`: search the settings of a decider, and judge the winner on unseen cases."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands import _painted
from align_dsl.commands.program import changes_options
from align_dsl.commands.run import _interruptible
from align_dsl.commands.store import store_option
from align_dsl.errors import render, visible

if TYPE_CHECKING:
    from align_dsl.optimize.run import Outcome
    from align_dsl.optimize.study import Done, Study
    from align_dsl.optimize.task import Ready, Task
    from align_dsl.pipeline import Changes

EVERY = 10.0  # seconds between plain lines
SAMPLES = 12  # configurations that are drawn to see what a trial may cost
LIMITS = ("calls", "tokens", "seconds", "trials")


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
@click.option("--trials", type=click.IntRange(min=1), help="Try as many configurations.")
@click.option("--sampler", metavar="NAME", help="tpe, random, or another sampler of Optuna.")
@click.option(
    "--budget", multiple=True, callback=_budget, metavar="WHAT=N", help="calls, tokens, seconds."
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="Processes to try with.")
@click.option("--storage", metavar="URL", help="A database that several machines share.")
@click.option("--output", type=click.Path(path_type=Path), help="Where the winner is written.")
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
    watcher = Lines() if as_json else Watcher()
    stop = Stop()
    with _interruptible(stop):
        outcome = optimize(
            task,
            output=options["output"],
            stop=stop,
            begun=watcher.begun,
            shown=watcher.shown,
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
        store=store,
        storage=options.get("storage"),
        trials=options.get("trials"),
        sampler=options.get("sampler"),
        budget=options.get("budget") or {},
        workers=options.get("workers") or 1,
    )


class Watcher:
    """For people: how far it is on stderr, what came of it on stdout."""

    def __init__(self) -> None:
        self.began = self.said = time.monotonic()
        self.first: int | None = None
        self.best: tuple[int, str] = (-1, "")
        self.trials = 0

    def begun(self, made: Ready, study: Study) -> None:
        if made.loaded.warnings:
            texts = dict(made.loaded.checked.texts)
            click.echo(_painted(render(made.loaded.warnings, texts)) + "\n", err=True)
        for warning in made.warnings:
            click.echo(_painted(f"warning: {warning}"), err=True)
        self.trials = made.task.trials or int(made.task.budget.get("trials", made.optimize.trials))
        self.first = len(study.done())
        said = f", {self.first:,} of them made before" if self.first else ""
        click.echo(f"study {study.name}: {self.trials:,} trials{said}", err=True)

    def shown(self, made: Ready, done: Sequence[Done]) -> None:
        every = 0.2 if sys.stderr.isatty() else EVERY
        if time.monotonic() - self.said < every:
            return
        self.said = time.monotonic()
        line = self.line(made, done)
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        else:
            click.echo(line, err=True)

    def line(self, made: Ready, done: Sequence[Done]) -> str:
        from align_dsl.optimize.choose import incumbent
        from align_dsl.records.stats import macro_bootstrap

        best = incumbent(done)
        if best is not None and best.number != self.best[0]:
            marks = [float(m == "1") for m in best.sat.marks]
            asked = made.train.asked
            span = macro_bootstrap(marks, [a.attribute for a in asked], [a.group for a in asked])
            self.best = best.number, str(span or f"{best.score:.2f}")
        rate = (len(done) - (self.first or 0)) / max(1e-9, time.monotonic() - self.began)
        left = max(0, self.trials - len(done)) / rate if rate else 0.0
        pruned, failed = sum(d.pruned for d in done), sum(d.score is None for d in done)
        calls = sum(d.sat.spent.paid for d in done)
        said = f"{len(done):,}/{self.trials:,}  best {self.best[1]} on train  {pruned:,} pruned  "
        said += f"{failed:,} failed  " if failed else ""
        return said + f"{calls:,} calls  {left:.0f} s left"

    def ended(self, outcome: Outcome) -> None:
        if sys.stderr.isatty():
            click.echo("", err=True)
        for line in _summary(outcome):
            click.echo(visible(line))


class Lines(Watcher):
    """For programs: one JSON object a line on stdout."""

    def begun(self, made: Ready, study: Study) -> None:
        self._say("start", study=study.name, warnings=list(made.warnings))

    def shown(self, made: Ready, done: Sequence[Done]) -> None:
        one = max(done, key=lambda d: d.number)
        self._say("trial", number=one.number, config=one.config, score=one.score, pruned=one.pruned)

    def ended(self, outcome: Outcome) -> None:
        from dataclasses import asdict

        chosen, verdict = outcome.chosen, outcome.verdict
        self._say(
            "done",
            study=outcome.study,
            trials=len(outcome.done),
            ended=outcome.ended,
            chosen=chosen.done.config if chosen else None,
            train=[chosen.default.score, chosen.done.score] if chosen else None,
            verdict=asdict(verdict) if verdict else None,
            better=outcome.is_better,
            written=str(outcome.written) if outcome.written else None,
            calls=outcome.paid,
        )

    @staticmethod
    def _say(event: str, **what: Any) -> None:
        click.echo(json.dumps({"event": event, **what}, ensure_ascii=False))
        sys.stdout.flush()


def _summary(outcome: Outcome) -> Iterator[str]:
    done = outcome.done
    whole = sum(d.score is not None and not d.pruned for d in done)
    pruned, failed = sum(d.pruned for d in done), sum(d.score is None for d in done)
    yield (
        f"study {outcome.study}: {len(done):,} trials ({whole:,} whole, {pruned:,} pruned, "
        f"{failed:,} failed), {outcome.paid:,} calls; {outcome.ended}"
    )
    chosen, verdict = outcome.chosen, outcome.verdict
    if chosen is None:
        return
    for name, value in chosen.done.config.items():
        before = chosen.default.config.get(name)
        if name not in chosen.default.config or before != value:
            yield f"  {name}: {_short(before)} -> {_short(value)}"
    scores = f"{chosen.default.score or 0:.3f} -> {chosen.done.score or 0:.3f}"
    yield f"train: {scores}; the gain on blocks that had no say is {chosen.checked:+.3f}"
    if verdict is None:
        yield "not better: nothing did better on the train cases; the test cases were not looked at"
        return
    value, low, high = verdict.gain
    yield (
        f"test:  {verdict.default:.3f} -> {verdict.winner:.3f}, difference {value:+.3f} "
        f"[{low:+.3f}, {high:+.3f}], p {verdict.p:.2g}; {verdict.only_winner:,} questions won, "
        f"{verdict.only_default:,} lost of {verdict.questions:,}, in {verdict.groups:,} cases"
    )
    if verdict.looks > 1:
        yield (
            f"       look {verdict.looks} at these test cases, so surer than usual: "
            f"[{verdict.sure[1]:+.3f}, {verdict.sure[2]:+.3f}]"
        )
    if not verdict.is_better:
        yield "not better: the test cases do not show it; nothing was written"
        return
    yield f"better: written to {outcome.written}"


def _short(value: Any) -> str:
    text = "the file's own" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def explain(program: Path, changes: Changes, store: Path) -> None:
    """What `align-dsl explain --optimize` prints: the space, the splits and the cost."""
    import random

    from align_dsl.optimize.propose import every
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
            for d in space.dimensions:
                click.echo(visible(f"  {d.name} = {_short(d.default)}    tries {d}"))
            distinct = every(space) if space.size is not None and space.size <= 20_000 else None
            n = f"{len(distinct):,}" if distinct is not None else "endlessly many"
            click.echo(f"  {n} configurations, {made.optimize.trials:,} trials, {made.sampler}")
            click.echo(f"  in batches of {BATCH}, seed {made.optimize.seed}")
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
            for warning in made.warnings:
                click.echo(_painted(f"warning: {warning}"))
        finally:
            made.close()
