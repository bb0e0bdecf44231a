"""`align-dsl studies`: what `optimize` has searched here, and what it found of each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands.console import console
from align_dsl.commands.export import _write
from align_dsl.commands.listing import Column, print_list
from align_dsl.commands.outcome import print_trials
from align_dsl.commands.runs import _add, _table
from align_dsl.commands.store import store_option
from align_dsl.errors import StoreError, counted, visible

if TYPE_CHECKING:
    from align_dsl.optimize.done import Done
    from align_dsl.optimize.looked import Looked

storage_option = click.option(
    "--storage", metavar="URL", help="A database of studies, instead of the store's own."
)


COLUMNS = (
    Column("study"),
    Column("decider", matters=1, least=10, cut=True),  # the name holds it
    Column("model", matters=2, least=12, cut=True),
    Column("date (UTC)", matters=4),
    Column("tried", matters=3, right=True),
    Column("train, %", matters=5),
    Column("verdict", least=12),
)


@click.group(invoke_without_command=True)
@store_option
@storage_option
@click.pass_context
def command(ctx: click.Context, store: Path, storage: str | None) -> None:
    """List studies, or show one. A STUDY is a name, the start of one, or `last`."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_studies, store=store, storage=storage)
    elif ctx.get_parameter_source("store") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError(f"write --store behind `{ctx.invoked_subcommand}`")


@command.command("ls")
@store_option
@storage_option
def list_studies(store: Path, storage: str | None) -> None:
    """Every study, the newest first."""
    from align_dsl.optimize.looked import read

    where: Path | str = storage or store.parent / "study.log"
    known = read(where)
    if not known:
        is_there = isinstance(where, str) or where.exists()
        why = "no study has come to a trial" if is_there else f"no {visible(str(where))}"
        click.echo(f"nothing has been optimized here: {why}", err=True)
        return
    newest = sorted(known, key=lambda s: str(s.facts.get("created", "")), reverse=True)
    print_list(COLUMNS, [_cells(one) for one in newest])


def _cells(one: Looked) -> tuple[str, ...]:
    facts = one.facts
    return (
        one.name,
        str(facts.get("decider", "")),
        str(facts.get("model", "")),
        str(facts.get("created", ""))[:16].replace("T", " "),
        f"{one.tried:,}" if one.found or not one.by_dspy else "",
        f"{one.train[0] * 100:.1f} to {one.train[1] * 100:.1f}" if one.train else "",
        _verdict(facts),
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    from align_dsl.optimize.accuracy import points, spread
    from align_dsl.optimize.verdict import noted

    verdict = noted(facts)
    if verdict is None:
        if "chosen" not in facts:
            return ""
        # of the file's own settings there is nothing to judge
        return "not better" if facts["chosen"] == facts.get("default") else "no verdict yet"
    value, low, high = verdict.gain
    word = "better" if verdict.is_better else "not better"
    return f"{word}: {points(value)}, {spread(low, high)}"


@command.command("show")
@click.argument("study")
@click.option("--trials", "all_trials", is_flag=True, help="Every trial, too.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write all of it as one HTML page instead.",
)
@store_option
@storage_option
def show(study: str, all_trials: bool, html: Path | None, store: Path, storage: str | None) -> None:
    """One study: what each value of each setting does, and the best for what they cost."""
    from align_dsl.optimize.aims import aims_noted
    from align_dsl.optimize.effects import front
    from align_dsl.optimize.looked import read
    from align_dsl.optimize.looks import looks
    from align_dsl.optimize.studies import find
    from align_dsl.optimize.verdict import noted

    where: Path | str = storage or store.parent / "study.log"
    if isinstance(where, Path) and not where.exists():
        raise StoreError(f"nothing has been optimized here: no {visible(str(where))}")
    (one,) = read(where, find(where, study))
    facts, done = one.facts, one.done
    if html is not None:
        from align_dsl.optimize.page import page

        looked = len(looks(store.parent / "looks.jsonl", str(facts.get("test", ""))))
        _write(html, [page(one.name, facts, done, one.paid, looked)])
        click.echo(f"written: {visible(str(html))}", err=True)
        return
    _print_facts(one)
    if not any(d.score is not None and not d.pruned for d in done):
        return
    _print_effects(done, facts)
    aims, verdict = aims_noted(facts), noted(facts)
    weighed = aims.objectives if aims.several else ("accuracy", "calls", "tokens")
    click.echo(f"what nothing beats in {', '.join(weighed)} (train cases; costs of a decision)")
    chosen = next((d.number for d in done if d.config == facts.get("chosen")), None)
    print_trials(front(done, weighed), facts, chosen)
    if verdict is not None and (aims.several or aims.at_most):
        word = "better" if verdict.is_better else "not better"
        click.echo(f"{word}: {verdict.why}")
    if all_trials:
        click.echo("every trial")
        print_trials(done, facts, chosen)


def _print_facts(one: Looked) -> None:
    facts, done, paid = one.facts, one.done, one.paid
    whole = [d for d in done if d.score is not None and not d.pruned]
    dear = sum(not d.is_allowed for d in done)
    failed = sum(d.score is None and d.is_allowed for d in done)
    limits = ", ".join(f"{v:,g} {k}" for k, v in facts.get("at_most", {}).items())
    said = {
        "study": one.name,
        "program": f"{facts.get('program', '')} ({facts.get('source', '')})",
        "decider": f"{facts.get('decider', '')} on {facts.get('model', '')}",
        "date": str(facts.get("created", "")),
        "search": f"{facts.get('sampler', '')}, seed {facts.get('seed', '')}",
        "aims": ", ".join(facts.get("objectives", ["accuracy"])),
        "wordings": ", ".join(
            f"{len(texts)} of {name} by a model" for name, texts in _wordings(facts).items()
        ),
        "at most": f"{limits} a decision" if limits else "",
    }
    if one.by_dspy:
        said |= {"tried": _candidates(one), "found": _found(facts)}
        said["paid"] = f"{counted(paid[0], 'call')}, {counted(paid[1], 'token')}"
    else:
        said["trials"] = (
            f"{len(done):,}: {len(whole):,} whole, {sum(d.pruned for d in done):,} pruned, "
            f"{failed:,} failed" + (f"; {dear:,} over the limits" if limits else "")
        )
        seconds = sum(d.seconds for d in done)
        said["paid"] = f"{counted(paid[0], 'call')}, {counted(paid[1], 'token')}, {seconds:,.0f} s"
    said["verdict"] = _verdict(facts)
    for key, value in said.items():
        if value:
            click.echo(f"{key:<9}{visible(value)}")


def _candidates(one: Looked) -> str:
    """What an optimizer of DSPy has tried, as far as it tells."""
    from align_dsl.optimize.accuracy import percent

    if not one.found:
        return f"{one.by_dspy} has not come to its end yet"
    said = f"{counted(one.tried, 'candidate')} by {one.by_dspy}"
    if one.train is None:
        return said
    before, after = one.train
    return f"{said}; train {percent(before)} -> {percent(after)} on DSPy's part of it"


def _found(facts: Mapping[str, Any]) -> str:
    from align_dsl.optimize.row import shown

    chosen = facts.get("chosen")
    if not isinstance(chosen, Mapping):
        return ""
    said = {
        k: counted(len(v), "worked example") if isinstance(v, list) else shown(v)
        for k, v in chosen.items()
    }
    return ", ".join(f"{k}: {v}" for k, v in said.items()) or "nothing but the decider as it was"


def _wordings(facts: Mapping[str, Any]) -> dict[str, list[str]]:
    return dict(facts.get("wordings", {}))


def _print_effects(done: Sequence[Done], facts: Mapping[str, Any]) -> None:
    from align_dsl.optimize.effects import effects

    table = _table("setting", "value", ">trials", ">effect, points", "95 % interval")
    for e in effects(done, facts):
        gain = e.gain
        low, high = (100 * gain.low, 100 * gain.high) if gain else (0.0, 0.0)
        value = f"{100 * gain.value:+.1f}" if gain else ""
        _add(table, e.setting, e.value, f"{e.trials}", value, f"[{low:+.1f}, {high:+.1f}]")
    click.echo("\nwhat each value does, the others being equal (train cases, whole trials)")
    console().print(table)
