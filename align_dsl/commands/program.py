"""What of a program a command line may change."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def not_here(*names: str, instead: str) -> Callable[..., Any]:
    """An option that people look for and that a command does not have: says what does it."""

    def say(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> None:
        if given:
            raise click.UsageError(f"there is no option {names[0]} here; {instead}", ctx)

    return click.option(*names, multiple=True, hidden=True, expose_value=False, callback=say)


_OPTIONS = (
    click.option("--model", help="Run on this model instead of the program's own."),
    click.option("--data", type=click.Path(path_type=Path), help="Decide these cases instead."),
    click.option("--format", "form", help="The format of --data, such as jsonl or align-system."),
    click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value of the file."
    ),
    click.option("--seed", type=int, help="Seed of everything that is drawn."),
    not_here(
        "--target",
        "--targets",
        instead="say whom to decide for with --set, as in --set 'targets={each: [high]}'",
    ),
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
