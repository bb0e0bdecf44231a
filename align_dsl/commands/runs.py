"""`align-dsl runs`: what has been run here; one run in full; and forgetting runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from align_dsl.commands.console import console
from align_dsl.commands.listing import Column, print_list
from align_dsl.commands.store import store_option
from align_dsl.errors import StoreError, visible

if TYPE_CHECKING:
    from rich.table import Table

    from align_dsl.records.record import Recorded, Result, RunRecord
    from align_dsl.records.store import Store


def open_existing(path: Path) -> Store:
    """The store, unless there is none: reading runs must not leave an empty one behind."""
    from align_dsl.records.store import Store

    if not path.exists():
        raise StoreError(
            f"there is no store at {visible(str(path))}, so nothing has been run here; go to where"
            " it was run, or name its file with --store (or ALIGN_STORE)"
        )
    return Store.open(path)


COLUMNS = (
    Column("run"),
    Column("program", matters=1),  # the id begins with it
    Column("date (UTC)", matters=4),
    Column("status"),
    Column("accuracy, %", matters=5),
    Column("calls", matters=3, right=True),
    Column("failed", matters=6, right=True),
    Column("with", matters=7, least=14),
    Column("deciders", matters=2, least=16, cut=True),
)


@click.group(invoke_without_command=True)
@store_option
@click.pass_context
def command(ctx: click.Context, store: Path) -> None:
    """List runs, show one, or remove some. A RUN is an id, the start of one, or `last`."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_runs, store=store)
    elif ctx.get_parameter_source("store") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError(f"write --store behind `{ctx.invoked_subcommand}`")


@command.command("ls")
@store_option
def list_runs(store: Path) -> None:
    """Every run, the newest first."""
    if not store.exists():
        click.echo(f"nothing has been run here: there is no {visible(str(store))}", err=True)
        return
    with open_existing(store) as opened:
        records = opened.runs()
    if records:
        print_list(COLUMNS, [_cells(record) for record in records])
    else:
        click.echo(f"there are no runs in {visible(str(store))}", err=True)


def _cells(record: RunRecord) -> tuple[str, ...]:
    failed = sum(number for _, number in failures(record.counts))
    return (
        record.id,
        record.program,
        record.created[:16].replace("T", " "),
        record.stands,
        accuracy_range(record),
        f"{record.cost.calls:,}",
        f"{failed:,}" if failed else "",
        shlex.join(options(record)),
        ", ".join(record.deciders),
    )


@command.command("show")
@click.argument("run")
@store_option
def show(run: str, store: Path) -> None:
    """One run: its results, its failures by kind, and how to go on where it was not finished."""
    with open_existing(store) as opened:
        recorded = opened.load(run, judgements=False)
        record = recorded.record
        failed = {k for k in record.counts if k not in ("ok", "tied")}
        lost = [j for k in failed for j in opened.judgements(record.id, status=k, limit=1000)]
    model_names = model_titles(recorded)
    facts = {
        "run": record.id,
        "program": f"{record.program} ({record.source})",
        "date": record.created,
        "status": record.stands,
        "models": ", ".join(model_names.get(m, m) for m in record.models or model_names),
        "cases": f"{len(recorded.cases):,}",
        "with": shlex.join(options(record)),
        "calls": _calls(record),
        "tokens": f"{record.cost.prompt_tokens:,} in, {record.cost.completion_tokens:,} out",
        "versions": ", ".join(f"{k} {v}" for k, v in record.versions.items()),
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{name:<9}{visible(value)}")
    if record.results:
        from align_dsl.records.table import caption, print_table, reasons_of

        print_table(console(), record.results, model_names)
        for line in caption(record, reasons=reasons_of(lost)):
            click.echo(line)
    if record.status != "ok":
        click.echo(f"\nnot finished; go on with:\n  {visible(resume_command(record, store))}")


@command.command("rm")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
def remove(runs: tuple[str, ...], yes: bool, store: Path) -> None:
    """Forget runs. Answers stay, so that making them again calls no model."""
    with open_existing(store) as opened:
        records = [opened.find(run) for run in runs]  # all, before the first is gone
        for record in {record.id: record for record in records}.values():
            name = visible(f"{record.id} ({record.program}, {record.created[:16]})")
            if yes or click.confirm(f"remove {name}?", err=True):
                opened.remove(record.id)
                click.echo(f"removed {name}", err=True)


def model_titles(recorded: Recorded) -> dict[str, str]:
    """Name of each model -> how it is shown: what is no language model says so."""
    titles = {}
    for model in recorded.program.get("models") or []:
        name, embedded = model["name"], model.get("backend") == "embedded"
        said = "embedded: no LLM" if name == "embedded" else f"{name} (embedded: no LLM)"
        titles[name] = said if embedded else name
    return titles


def failures(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Decisions that never came, by kind, most first."""
    wrong = [(kind, n) for kind, n in counts.items() if n and kind not in ("ok", "tied")]
    return sorted(wrong, key=lambda pair: (-pair[1], pair[0]))


def accuracy_range(record: RunRecord) -> str:
    """From the worst decider of the run to the best."""
    values = [r.value * 100 for r in overall(record.results) if r.value is not None]
    if not values:
        return ""
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def overall(results: Iterable[Result]) -> list[Result]:
    """For each decider and model the accuracy that takes in the most."""
    width = {"all": 2, "both": 1}
    widest: dict[tuple[str, str], Result] = {}
    for result in results:
        if result.metric != "accuracy":
            continue
        key = (result.decider, result.model)
        known = widest.get(key)
        if known is None or width.get(result.target, 0) > width.get(known.target, 0):
            widest[key] = result
    return list(widest.values())


def resume_command(record: RunRecord, store: Path) -> str:
    """What was typed to start the run: typed again, it goes on where it stopped."""
    words = ["align-dsl", "run", record.source, *options(record)]
    if store != Path(".align/align.db"):
        words += ["--store", str(store)]
    return shlex.join(words)


def options(record: RunRecord) -> list[str]:
    """What the run was given beside its program, as it is typed."""
    words = []
    for name, value in record.selection.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [option, str(one)]
    return words


def _calls(record: RunRecord) -> str:
    lost = record.lost.calls
    return f"{record.cost.calls:,}" + (f", {lost:,} of them for no answer" if lost else "")


def _table(*columns: str) -> Table:
    """Columns whose name begins with > stand to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if right else "left", overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    from rich.text import Text

    table.add_row(*(Text(visible(cell)) for cell in cells))  # Text: brackets are no markup
