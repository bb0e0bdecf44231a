"""`align-dsl report`: a run as one HTML page, to read, print or send."""

from __future__ import annotations

import re
from pathlib import Path

import click

from align_dsl.commands.export import _pages, _write
from align_dsl.commands.runs import model_titles, open_existing
from align_dsl.commands.store import store_option
from align_dsl.errors import visible


@click.command
@click.argument("run")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write this file instead of <run id>.html.",
)
@store_option
def command(run: str, output: Path | None, store: Path) -> None:
    """Write RUN (an id, the start of one, or `last`) as one HTML page that needs nothing else.

    It shows accuracies beside chance, deciders compared, where they disagree, and decisions in
    full. It loads nothing from anywhere and runs no script.
    """
    from align_dsl.records.report import report

    with open_existing(store) as opened:
        recorded = opened.load(run, judgements=False)
        name = recorded.record.id
        page = report(
            recorded,
            model_titles(recorded),
            _pages(opened, name),
            lambda scenario: opened.judgements(name, scenario=scenario),
        )
    path = output or Path(re.sub(r"[^\w.-]", "_", name) + ".html")
    _write(path, [page])
    click.echo(f"written: {visible(str(path))}", err=True)
