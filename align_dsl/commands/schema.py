"""`align-dsl schema`: what an editor needs to complete and check our files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from align_dsl.language.schema import KINDS, json_schema


@click.command
@click.argument("kind", type=click.Choice(sorted(KINDS)), required=False)
@click.option(
    "--write",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the schema of every kind into this folder.",
)
def command(kind: str | None, folder: Path | None) -> None:
    """Print the JSON Schema of one kind of file, or write all of them."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in [kind] if kind else sorted(KINDS):
            path = folder / f"{name}.schema.json"
            path.write_text(_text(name), encoding="utf-8")
            click.echo(str(path), err=True)
    elif kind is None:
        raise click.UsageError(f"name a kind ({', '.join(sorted(KINDS))}), or give --write FOLDER")
    else:
        click.echo(_text(kind), nl=False)


def _text(kind: str) -> str:
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"
