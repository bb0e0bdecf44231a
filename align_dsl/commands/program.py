"""How commands name a program, and what of it a command line may change."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from align_dsl.errors import CompileError, PlanError


def program_file(program: Path) -> Path:
    """The program file; a bare name may be that of a shipped program."""
    from align_dsl.language.library import Library

    if program.exists() or len(program.parts) > 1 or program.suffix:
        return program
    try:
        return Library.beside(Path("programs") / program).path("programs", program.name)
    except CompileError as error:
        first = error.diagnostics[0]
        raise PlanError(f"{first.message}\n  = {first.hint}") from None


_OPTIONS = (
    click.option("--model", help="Run on this model instead of the program's own."),
    click.option("--data", type=click.Path(path_type=Path), help="Decide these cases instead."),
    click.option("--format", "form", help="The format of --data, such as jsonl or align-system."),
    click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value of the file."
    ),
    click.option("--seed", type=int, help="Seed of everything that is drawn."),
)


def changes_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that change a program; the command gets them as one `changes`."""

    @functools.wraps(command)
    def changed(
        *args: Any,
        model: str | None,
        data: Path | None,
        form: str | None,
        sets: tuple[str, ...],
        seed: int | None,
        **rest: Any,
    ) -> Any:
        from align_dsl.pipeline import Changes

        changes = Changes(sets=sets, model=model, data=data, format=form, seed=seed)
        return command(*args, changes=changes, **rest)

    for option in reversed(_OPTIONS):
        changed = option(changed)
    return changed
