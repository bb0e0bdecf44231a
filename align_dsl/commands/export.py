"""`align-dsl export`: a run as a file that other programs read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from align_dsl.commands.runs import open_existing
from align_dsl.commands.store import store_option
from align_dsl.errors import PlanError, visible

if TYPE_CHECKING:
    from align_dsl.records.record import Judgement
    from align_dsl.records.store import Store

PAGE = 2_000  # judgements held at once, so that a million decisions can be exported


@click.command
@click.argument("run")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "json", "align-system"]),
    default="jsonl",
    show_default=True,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write this file instead of to stdout.",
)
@store_option
def command(run: str, form: str, output: Path | None, store: Path) -> None:
    """Write out RUN (an id, the start of one, or `last`).

    \b
    jsonl         one line per decision
    csv           the same for spreadsheets, which formulas in texts cannot harm
    json          the whole run: record, program, cases, decisions
    align-system  input/output records, which align-system and we read as data
    """
    from align_dsl.records.export import FORMATS

    with open_existing(store) as opened:
        recorded = opened.load(run, judgements=False)
        lines = FORMATS[form](recorded, _pages(opened, recorded.record.id))
        if output is None:
            while block := "".join(islice(lines, PAGE)):  # click flushes what it is given
                click.echo(block.encode("utf-8"), nl=False)
        else:
            _write(output, lines)
            click.echo(f"written: {visible(str(output))}", err=True)


def _pages(store: Store, run: str) -> Iterator[Judgement]:
    offset = 0
    while page := store.judgements(run, offset=offset, limit=PAGE):
        yield from page
        offset += len(page)


def _write(path: Path, lines: Iterable[str]) -> None:
    """The whole file or none: what stood there stays until the new one is complete."""
    if os.path.exists(path) and not os.path.isfile(path):  # as /dev/stdout: never replaced
        _pour(path, lines)
        return
    path = Path(os.path.realpath(path))  # what a link names is replaced, and the link stays
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's files are for their owner only
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def _pour(path: Path, lines: Iterable[str]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> PlanError:
    return PlanError(f"cannot write {visible(str(path))}: {error.strerror or error}")
