"""`align-dsl doctor`: whether models and their servers can be trusted with typed answers."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from align_dsl.commands.store import store_option
from align_dsl.errors import counted

if TYPE_CHECKING:
    from align_dsl.language.program import Model
    from align_dsl.servers.report import Finding, Report
    from align_dsl.servers.search import Found
    from align_dsl.servers.subject import Subject


@click.command
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--program",
    type=click.Path(path_type=Path),
    help="Probe the models of this program; MODEL may be a name under its `models:`.",
)
@click.option("--endpoint", metavar="URL", help="Where the server is.")
@click.option("--key", metavar="VARIABLE", help="Name of the variable that holds the server's key.")
@click.option("--quick", is_flag=True, help="Leave the throughput out.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=3600),
    default=120.0,
    show_default=True,
    help="Seconds for one answer; the first may have to load the model.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each model.")
@store_option
def command(
    models: tuple[str, ...],
    program: Path | None,
    endpoint: str | None,
    key: str | None,
    quick: bool,
    timeout: float,
    as_json: bool,
    store: Path,
) -> None:
    """Prove that a MODEL, written as under `model:`, gives typed answers, and how fast.

    Without a MODEL: this installation, and every model of --program, or else what answers on the
    usual ports of this machine. Exit code 4 when a model is unusable.
    """
    show = _Json() if as_json else _Text()
    if not models:
        show.installed(store)
    subjects = _subjects(models, program, endpoint, key, show)
    unusable = show.broken
    for subject in subjects:
        unusable |= not show.examined(subject, quick, timeout).usable
    raise SystemExit(4 if unusable else 0)


def _subjects(
    names: tuple[str, ...], program: Path | None, endpoint: str | None, key: str | None, show: _Text
) -> list[Subject]:
    from align_dsl.pipeline import program_file
    from align_dsl.servers.subject import checked, models_named, subjects_of

    file = program_file(program) if program else None
    if endpoint is not None:
        endpoint = checked(endpoint)
    changes = {"key": key} if key is not None else {}
    if not names and file is None:
        found = asyncio.run(_answering(endpoint, key, show))
    else:
        found = list(models_named(names, file))
        changes |= {"endpoint": endpoint} if endpoint is not None else {}
    return [s for m in found for s in subjects_of(m.model_copy(update=changes))]


async def _answering(endpoint: str | None, key: str | None, show: _Text) -> list[Model]:
    """One model of each server that answers. Probing all of them would load all of them."""
    from align_dsl.language.program import Model
    from align_dsl.servers.search import search

    places = (endpoint,) if endpoint else None
    found = await search(places, os.environ.get(key, "") if key else "")
    if not found.offers:
        show.found(found)
    firsts = {offer.endpoint: offer for offer in reversed(found.offers)}
    for at, first in firsts.items():
        others = [o.use for o in found.offers if o.endpoint == at and o is not first]
        if others:
            shown = ", ".join(others[:4]) + (" and more" if len(others) > 4 else "")
            show.note(f"{at} offers {len(others)} more, probed when named: {shown}")
    return [
        Model(name=o.use, backend="litellm", address=o.use, endpoint=o.endpoint)
        for o in reversed(firsts.values())
    ]


class _Text:
    """A calm list on stdout, each finding as soon as it is found."""

    broken = False

    def installed(self, store: Path) -> None:
        from align_dsl.servers.installation import installation

        click.echo("this installation")
        for finding in installation(store).findings:
            self._found(finding)

    def found(self, found: Found) -> None:
        from align_dsl.servers.report import fatal, warning

        click.echo("\nservers")
        make = fatal if found.is_named else warning
        self._found(make("reachable", found.said(), found.advice()))
        self.broken |= found.is_named

    def note(self, said: str) -> None:
        click.echo(f"note: {said}", err=True)

    def examined(self, subject: Subject, quick: bool, patience: float) -> Report:
        from align_dsl.servers.examine import examine
        from align_dsl.servers.sheet import summary, title

        model = subject.model
        address = (
            model.address if model.backend == "litellm" else f"{model.backend}:{model.address}"
        )
        click.echo("\n" + title(model.name, address.rstrip(":"), subject.endpoint))
        report = asyncio.run(examine(subject, quick=quick, patience=patience, tell=self._found))
        asked = f"{counted(report.requests, 'request')}, {report.seconds:.0f} s"
        click.echo(f"{summary(report)} ({asked})")
        return report

    def _found(self, finding: Finding) -> None:
        from align_dsl.servers.sheet import lines

        self.broken |= finding.level == "fatal"
        for line in lines(finding, _painted):
            click.echo(line)
        sys.stdout.flush()


class _Json(_Text):
    """One object a line, and nothing else on stdout."""

    def installed(self, store: Path) -> None:
        from align_dsl.servers.installation import installation

        found = installation(store)
        self.broken |= any(f.level == "fatal" for f in found.findings)
        click.echo(found.model_dump_json())

    def found(self, found: Found) -> None:
        self.broken |= found.is_named
        level = "error" if found.is_named else "warning"
        click.echo(f"{level}: {found.said()}\n  = {found.advice()}", err=True)

    def examined(self, subject: Subject, quick: bool, patience: float) -> Report:
        from align_dsl.servers.examine import examine

        report = asyncio.run(examine(subject, quick=quick, patience=patience))
        click.echo(report.model_dump_json())
        sys.stdout.flush()
        return report


def _painted(text: str, colour: str) -> str:
    """Colour, unless nobody wants it; click drops it where no terminal listens."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)
