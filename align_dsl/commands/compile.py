"""`align-dsl compile`: a program as a Python module that one can read, import and keep."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from align_dsl.commands.program import program_file


@click.command
@click.argument("program", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here instead of on stdout.",
)
def command(program: Path, output: Path | None) -> None:
    """Write PROGRAM as Python: DSPy signatures and modules, as one would by hand.

    The module decides as the YAML does. It needs dspy and align-dsl when it runs.
    """
    from align_dsl.pipeline import emit

    text = emit(program_file(program))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
