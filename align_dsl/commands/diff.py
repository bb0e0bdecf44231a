"""`align-dsl diff`: what differs between two programs, and between the prompts that they send."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.errors import PlanError, nearest, visible

if TYPE_CHECKING:
    from align_dsl.pipeline import Loaded

WORD = re.compile(r"\s+|\w+|[^\w\s]")
AROUND = 12  # words that are shown on either side of a change


@click.command
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--scenario", metavar="ID", help="Compare the prompts of this scenario.")
@click.option("--no-prompts", is_flag=True, help="Compare settings alone.")
def command(first: Path, second: Path, scenario: str | None, no_prompts: bool) -> None:
    """Show which settings differ between programs FIRST and SECOND, and which words of prompts.

    Says nothing, but exits 0, where they come to the same.
    """
    from align_dsl.pipeline import load, program_file

    one, two = (load(program_file(p)) for p in (first, second))
    for line in settings(one, two):
        click.echo(visible(line))
    if not no_prompts:
        for line in prompts(one, two, scenario):
            click.echo(line)


def settings(one: Loaded, two: Loaded) -> Iterator[str]:
    a, b = (_flat(x.program.model_dump(mode="json")) for x in (one, two))
    for name in dict.fromkeys([*a, *b]):
        if name in ("name", "about") or a.get(name) == b.get(name):
            continue
        if name not in b:
            yield f"- {name}: {a[name]}"
        elif name not in a:
            yield f"+ {name}: {b[name]}"
        else:
            yield f"  {name}: {''.join(words(str(a[name]), str(b[name])))}"


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    """A resolved program as `deciders.regression.rate.samples: 3`, things going by their names."""
    if isinstance(value, dict):
        if "version" in value and "ports" in value:  # a plug-in: its name says it
            return {at: value["name"]}
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{at}.{key}" if at else key)
        return found
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        found = {}
        for i, inner in enumerate(value):
            found |= _flat(inner, f"{at}.{inner.get('name', i)}")
        return {k: v for k, v in found.items() if not k.endswith(".name")}
    return {at: value}


def prompts(one: Loaded, two: Loaded, scenario: str | None) -> Iterator[str]:
    """The prompts of steps that both have, for one scenario that both decide."""
    shared = {c.scenario.id for c in one.cases} & {c.scenario.id for c in two.cases}
    if scenario is not None and scenario not in shared:
        ids = sorted(shared)
        raise PlanError(
            f"error: no scenario named `{scenario}` in both\n  = {nearest(scenario, ids)}"
        )
    wanted = scenario or next((c.scenario.id for c in one.cases if c.scenario.id in shared), None)
    if wanted is None:
        return
    a, b = _prompts(one, wanted), _prompts(two, wanted)
    for at in a:
        if at in b and a[at] != b[at]:
            yield f"\n=== {visible(at)}, scenario {visible(wanted)}"
            yield from _painted(a[at], b[at])


def _prompts(loaded: Loaded, scenario: str) -> dict[str, str]:
    from align_dsl.engine.preview import preview
    from align_dsl.pipeline import open_backends, plan_run

    cases = tuple(c for c in loaded.cases if c.scenario.id == scenario)
    narrow = type(loaded)(loaded.checked, cases, loaded.pool, (), loaded.changes)
    backends = open_backends(loaded.program)
    try:
        planned = plan_run(narrow, backends)
    finally:
        for backend in backends.values():
            backend.close()
    found = {}
    for seen in preview(planned, scenario):
        attribute = getattr(seen.job.inputs.get("attribute"), "name", "")
        at = " · ".join(x for x in (seen.decider, seen.step, attribute) if x)
        found[at] = "\n".join(f"--- {m['role']}\n{m['content']}" for m in seen.messages)
    return found


def _painted(a: str, b: str) -> Iterator[str]:
    text = "".join(words(a, b))
    for line in text.split("\n"):
        yield visible(line)


def words(a: str, b: str) -> Iterator[str]:
    """The second text, with what came [+in+] and what [-went-], and far-off words left out."""
    old, new = WORD.findall(a), WORD.findall(b)
    steps = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for n, (kind, i, j, k, m) in enumerate(steps):
        if kind == "equal":
            yield _shortened(new[k:m], n > 0, n + 1 < len(steps))
            continue
        if j > i:
            yield f"[-{''.join(old[i:j])}-]"
        if m > k:
            yield f"[+{''.join(new[k:m])}+]"


def _shortened(same: list[str], before: bool, after: bool) -> str:
    if len(same) <= 2 * AROUND * (before + after) or not (before or after):
        return "".join(same)
    head = same[: 2 * AROUND] if before else []
    tail = same[-2 * AROUND :] if after else []
    return "".join(head) + " ... " + "".join(tail)
