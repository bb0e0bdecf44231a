"""Where runs are kept: the option that every command with a store has."""

from __future__ import annotations

from pathlib import Path

import click

store_option = click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="ALIGN_STORE",
    default=Path(".align/align.db"),
    show_default=True,
    help="The file that holds answers and runs.",
)
