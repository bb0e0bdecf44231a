"""`align-dsl report`: a run as one HTML page, to read, print or send."""

from __future__ import annotations

import re
from pathlib import Path

import click

from align_dsl.commands.export import _pages, _write
from align_dsl.commands.runs import model_titles, open_existing
from align_dsl.commands.store import store_option
from align_dsl.errors import PlanError, StoreError, visible


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
        try:
            recorded = opened.load(run, judgements=False)
        except (PlanError, StoreError):
            if name := _study(run, store):
                said = f"`{visible(run)}` is a study; its page: align-dsl studies show {name}"
                raise StoreError(f"{said} --html FILE") from None
            raise
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


def _study(run: str, store: Path) -> str:
    """The study that is called so, if there is one."""
    from align_dsl.optimize.studies import studies

    names = [name for name, _ in studies(store.parent / "study.log")]
    return next((visible(name) for name in names if run and name.startswith(run)), "")
