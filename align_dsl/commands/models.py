"""`align-dsl models`: what the servers of this machine offer, and how to write it in a program."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from align_dsl.commands.console import console
from align_dsl.errors import BackendError, PlanError, visible

if TYPE_CHECKING:
    from align_dsl.servers.pull import Progress
    from align_dsl.servers.search import Found
    from align_dsl.servers.server import Offer


@click.command
@click.option("--endpoint", "endpoints", multiple=True, metavar="URL", help="Ask here; repeatable.")
@click.option("--key", metavar="VARIABLE", help="Name of the variable that holds the server's key.")
@click.option("--pull", "name", metavar="NAME", help="Have Ollama fetch this model first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each model.")
def command(endpoints: tuple[str, ...], key: str | None, name: str | None, as_json: bool) -> None:
    """List the models that servers offer, with what to write under `model:`.

    Without --endpoint: the usual ports of this machine, and OLLAMA_HOST. Exit code 4 when there is
    no model.
    """
    from align_dsl.servers.search import search
    from align_dsl.servers.subject import checked

    named = tuple(checked(e) for e in endpoints)
    secret = _secret(key)
    if name is not None:
        _pull(name, named, secret, as_json)
    found = asyncio.run(search(named or None, secret))
    if as_json:
        for offer in found.offers:
            click.echo(json.dumps(_plain(offer)))
    elif found.offers:
        _print(found)
    if not found.offers:
        raise BackendError(f"{visible(found.said())}\n  = {found.advice()}")


def _secret(key: str | None) -> str:
    if key is None:
        return ""
    if not os.environ.get(key):
        raise PlanError(f"the environment variable {visible(key)} is not set")
    return os.environ[key]


def _plain(offer: Offer) -> dict[str, object]:
    return {
        "kind": "offer",
        "format": 1,
        "model": offer.use,
        "name": offer.name,
        "server": offer.server,
        "endpoint": offer.endpoint,
        "default_endpoint": offer.endpoint_is_default,
        "digest": offer.digest,
        "size": offer.size,
        "context": offer.context,
        "about": offer.about,
    }


def _print(found: Found) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for title in ("model", "server", "about"):
        table.add_column(title, overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("endpoint", overflow="fold")
    elsewhere = []
    for offer in found.offers:
        at = "" if offer.endpoint_is_default else offer.endpoint
        cells = (offer.use, offer.server, offer.about, _size(offer.size), at)
        table.add_row(*(visible(c).replace("[", r"\[") for c in cells))
        elsewhere += [offer] if at else []
    console().print(table)
    usual = next((o for o in found.offers if o.endpoint_is_default), None)
    if usual:
        click.echo(f"in a program:  model: {_yaml(usual.use)}")
    if elsewhere:
        one = elsewhere[0]
        name = re.sub(r"[^a-z0-9_]+", "_", one.name.lower()).strip("_") or "mine"
        name = name if name[0].isalpha() else f"m_{name}"
        click.echo("a model with an endpoint gets a name of its own in a program:")
        click.echo("  models:")
        click.echo(f"    {name}: {{use: {_yaml(one.use)}, endpoint: {_yaml(one.endpoint)}}}")
        click.echo(f"  model: {name}")


def _yaml(text: str) -> str:
    safe = re.fullmatch(r"[A-Za-z][\w./:@+-]*", text) and not text.endswith(":")
    return text if safe else json.dumps(visible(text))


def _size(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _pull(name: str, named: tuple[str, ...], secret: str, as_json: bool) -> None:
    from align_dsl.engine.quirks import ENDPOINTS
    from align_dsl.servers.pull import pull
    from align_dsl.servers.server import places

    if len(named) > 1:
        raise click.UsageError("--pull fetches to one Ollama: name one --endpoint")
    # the first place is that of OLLAMA_HOST where it is set, and Ollama's own port where not
    at = named[0] if named else (places()[0] if os.environ.get("OLLAMA_HOST") else "")
    endpoint = (at or ENDPOINTS["ollama_chat"]).removesuffix("/v1")
    name = name.removeprefix("ollama_chat/").removeprefix("ollama/")
    steps = pull(name, endpoint, secret)
    if sys.stderr.isatty() and not as_json:
        _bars(steps)
    else:
        _lines(steps)
    click.echo(f"pulled {visible(name)}", err=True)


def _bars(steps: Iterable[Progress]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, int] = {}
        for step in steps:
            what = step.layer or step.status
            if what not in tasks:
                tasks[what] = bars.add_task(step.status, total=step.total or None)
            task = bars.tasks[tasks[what]].id
            if step.total:
                bars.update(task, total=step.total, completed=step.done)
            else:
                bars.update(task, total=1, completed=1)


def _lines(steps: Iterable[Progress]) -> None:
    """For logs: a line for each stage, and one every ten seconds within a stage."""
    said, last = "", 0.0
    for step in steps:
        share = f" {100 * step.done // step.total} %" if step.total else ""
        if step.status != said or time.monotonic() - last > 10:
            click.echo(f"{step.status}{share}", err=True)
            said, last = step.status, time.monotonic()
