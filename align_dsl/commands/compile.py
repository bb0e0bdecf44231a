"""`align-dsl compile`: a program as a Python module that one can read, import and keep."""

from __future__ import annotations

from pathlib import Path

import click

from align_dsl.commands import _painted
from align_dsl.errors import PlanError, render


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
    from align_dsl import pipeline
    from align_dsl.emit import emit

    file = pipeline.program_file(program)
    checked = pipeline.compile(file)
    if checked.warnings:
        click.echo(_painted(render(checked.warnings, dict(checked.texts))) + "\n", err=True)
    filled = None
    if any(step.demos for decider in checked.program.deciders for step in decider.steps):
        filled = pipeline.load(file).program
    text = emit(checked.program, file, _named(file), filled)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PlanError(f"error: {output} cannot be written: {error.strerror}") from None


def _named(file: Path) -> str:
    """How the module names its program: never with a path of this machine."""
    from align_dsl.language.library import shipped_folder

    if not file.is_absolute():
        return file.as_posix()
    for folder in (Path.cwd(), shipped_folder()):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return file.name
