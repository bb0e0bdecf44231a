"""`align-dsl check`: every mistake of the given files, in text, JSON or GitHub's annotations."""

from __future__ import annotations

import json
from pathlib import Path

import click

from align_dsl.commands import _painted
from align_dsl.errors import Diagnostic, render, visible
from align_dsl.pipeline import check


@click.command
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
def command(paths: tuple[Path, ...], form: str, strict: bool) -> None:
    """Check programs, attributes and deciders: files, or folders with all below them.

    Silent when all is well. Exit code 2 when something is wrong.
    """
    found = check(paths)
    diagnostics = sorted(set(found.diagnostics))
    if form == "json":  # in ASCII, so that nothing in it can act on a terminal
        click.echo(json.dumps([_plain(d) for d in diagnostics], indent=2))
    elif form == "github":
        for d in diagnostics:
            click.echo(_annotation(d))
    elif diagnostics:
        click.echo(_painted(render(diagnostics, found.texts)), err=True)
    wrong = [d for d in diagnostics if strict or d.severity == "error"]
    raise SystemExit(2 if wrong else 0)


def _plain(d: Diagnostic) -> dict[str, object]:
    return {
        "severity": d.severity,
        "file": d.span.file,
        "line": d.span.line,
        "column": d.span.column,
        "width": d.span.width,
        "message": d.message,
        "hint": d.hint,
    }


def _annotation(d: Diagnostic) -> str:
    text = f"{d.message}; {d.hint}" if d.hint else d.message
    escaped = visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    file = visible(d.span.file).replace("%", "%25").replace(",", "%2C").replace(":", "%3A")
    return f"::{d.severity} file={file},line={d.span.line},col={d.span.column}::{escaped}"
