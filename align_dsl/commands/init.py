"""`align-dsl init`: a starter project that checks and runs, with schemas for the editor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from align_dsl.errors import PlanError, visible
from align_dsl.language.schema import KINDS, json_schema

STARTER = Path(__file__).parent / "_starter"
FOLDERS = {"program": "programs", "attributes": "attributes", "decider": "deciders"}


@click.command
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--force", is_flag=True, help="Overwrite files that are already there.")
def command(folder: Path, force: bool) -> None:
    """Write a starter project: a program, an attribute, a decider, eight cases.

    Existing files are left alone: if any is in the way, nothing is written.
    """
    files = dict(_files())
    taken = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if taken and not force:
        listed = "".join(f"\n  {visible(str(folder / name))}" for name in taken)
        raise PlanError(f"these files are already there:{listed}\n = --force overwrites them")
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            said = f"cannot write {visible(str(path))}: {error.strerror}"
            raise PlanError(said) from None
        click.echo(f"wrote {path}", err=True)
    click.echo("next:")
    if folder.resolve() != Path().resolve():  # what is remembered of runs lies where one runs
        click.echo(f"  cd {_quoted(folder)}")
    click.echo("  align-dsl check .\n  align-dsl run programs/triage.yaml")


def _files() -> Iterator[tuple[str, str]]:
    """Every file of the project, by its place in it, and what it says."""
    for path in sorted(STARTER.rglob("*.*")):
        if path.is_file():
            yield path.relative_to(STARTER).as_posix(), path.read_text(encoding="utf-8")
    for kind in KINDS:
        yield f".schema/{kind}.schema.json", _json(json_schema(kind))
    yield ".gitignore", "# what align-dsl remembers of runs\n.align/\n"
    globs = {f".schema/{kind}.schema.json": f"{FOLDERS[kind]}/*.yaml" for kind in KINDS}
    yield ".vscode/settings.json", _json({"yaml.schemas": globs})


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
