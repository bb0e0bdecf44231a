"""`align-dsl studies`: what `optimize` has searched here, and what it found of each setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from align_dsl.commands.console import console
from align_dsl.commands.runs import _add, _table
from align_dsl.commands.store import store_option
from align_dsl.errors import StoreError, visible

storage_option = click.option(
    "--storage", metavar="URL", help="A database of studies, instead of the store's own."
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
    from align_dsl.optimize.study import Study, studies

    where: Path | str = storage or store.parent / "study.log"
    known = studies(where)
    if not known:
        click.echo(f"nothing has been optimized here: no {visible(str(where))}", err=True)
        return
    table = _table("study", "decider", "model", "date (UTC)", ">trials", "train, %", "verdict")
    for name, facts in sorted(known, key=lambda s: str(s[1].get("created", "")), reverse=True):
        with Study(where, name) as study:
            done = study.done()
        scores = [d.score for d in done if d.score is not None and not d.pruned]
        train = f"{scores[0] * 100:.0f} to {max(scores) * 100:.0f}" if scores else ""
        _add(
            table,
            name,
            str(facts.get("decider", "")),
            str(facts.get("model", "")),
            str(facts.get("created", ""))[:16].replace("T", " "),
            f"{len(done):,}",
            train,
            _verdict(facts),
        )
    console().print(table)


def _verdict(facts: dict[str, Any]) -> str:
    verdict = facts.get("verdict")
    if not verdict:
        return "" if "chosen" not in facts else "not better"
    value, low, high = (100 * x for x in verdict["gain"])
    word = "better" if verdict["sure"][1] > 0 else "not better"
    return f"{word}: {value:+.0f} [{low:+.0f}, {high:+.0f}]"


@command.command("show")
@click.argument("study")
@click.option("--trials", "all_trials", is_flag=True, help="Every trial, too.")
@store_option
@storage_option
def show(study: str, all_trials: bool, store: Path, storage: str | None) -> None:
    """One study: what each value of each setting does, and the best for what they cost."""
    from align_dsl.optimize.effects import effects, front
    from align_dsl.optimize.study import Study, find

    where: Path | str = storage or store.parent / "study.log"
    if isinstance(where, Path) and not where.exists():
        raise StoreError(f"nothing has been optimized here: no {visible(str(where))}")
    with Study(where, find(where, study)) as one:
        facts, done = one.facts(), one.done()
        calls, tokens = one.paid()
    whole = [d for d in done if d.score is not None and not d.pruned]
    seconds = sum(d.seconds for d in done)
    said = {
        "study": one.name,
        "program": f"{facts.get('program', '')} ({facts.get('source', '')})",
        "decider": f"{facts.get('decider', '')} on {facts.get('model', '')}",
        "date": str(facts.get("created", "")),
        "search": f"{facts.get('sampler', '')}, seed {facts.get('seed', '')}",
        "trials": f"{len(done):,}: {len(whole):,} whole, {sum(d.pruned for d in done):,} pruned, "
        f"{sum(d.score is None for d in done):,} failed",
        "paid": f"{calls:,} calls, {tokens:,} tokens, {seconds:,.0f} s",
        "verdict": _verdict(facts),
    }
    for name, value in said.items():
        if value:
            click.echo(f"{name:<9}{visible(value)}")
    if not whole:
        return
    table = _table("setting", "value", ">trials", ">effect, points", "95 % interval")
    for e in effects(done, facts):
        gain = e.gain
        low, high = (100 * gain.low, 100 * gain.high) if gain else (0.0, 0.0)
        value = f"{100 * gain.value:+.1f}" if gain else ""
        _add(table, e.setting, e.value, f"{e.trials}", value, f"[{low:+.1f}, {high:+.1f}]")
    click.echo("\nwhat each value does, the others being equal (train cases, whole trials)")
    console().print(table)
    click.echo("what nothing beats in accuracy, calls and tokens (train cases)")
    _print_trials(front(done))
    if all_trials:
        click.echo("every trial")
        _print_trials(done)


def _print_trials(rows: list[Any]) -> None:
    table = _table(">trial", ">train, %", ">calls", ">tokens", "", "configuration")
    for d in rows:
        state = "pruned" if d.pruned else "" if d.score is not None else visible(d.why)
        settings = ", ".join(f"{k} {' '.join(str(v).split())[:40]}" for k, v in d.config.items())
        score = f"{d.score * 100:.1f}" if d.score is not None else ""
        spent = d.sat.spent
        _add(table, str(d.number), score, f"{spent.calls:,}", f"{spent.tokens:,}", state, settings)
    console().print(table)
