"""`align-dsl explain`: what a program means, what it will ask, and what that costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from align_dsl.commands.optimize import METHODS
from align_dsl.commands.program import changes_options
from align_dsl.commands.store import store_option
from align_dsl.errors import Diagnostic, PlanError, Span, counted, nearest, picture, visible

if TYPE_CHECKING:
    from align_dsl.engine.plan import Plan
    from align_dsl.pipeline import Changes, Loaded


@click.command
@click.argument("program", type=click.Path(path_type=Path))
@click.option("--prompts", is_flag=True, help="The exact messages and JSON schema, too.")
@click.option("--scenario", metavar="ID", help="With --prompts: of this scenario.")
@click.option("--only", multiple=True, metavar="DECIDER", help="This decider only; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="Plan for the first N cases only.")
@click.option("--optimize", is_flag=True, help="The space, the splits and the cost of optimizing.")
@click.option("--decider", metavar="NAME", help="With --optimize: of this decider.")
@click.option("--method", type=click.Choice(METHODS), help="With --optimize: by this method.")
@changes_options
@store_option
def command(
    program: Path,
    optimize: bool,
    decider: str | None,
    method: str | None,
    prompts: bool,
    scenario: str | None,
    only: tuple[str, ...],
    limit: int | None,
    store: Path,
    changes: Changes,
) -> None:
    """Show the resolved PROGRAM, its steps and ports, the plan and its bill. Asks no model."""
    from align_dsl.pipeline import (
        Selection,
        load,
        open_backends,
        plan_run,
        program_file,
        select,
    )

    if optimize:
        from align_dsl.commands.optimize import explain

        given = {"--only": only, "--limit": limit, "--prompts": prompts, "--scenario": scenario}
        if unheeded := [name for name, value in given.items() if value]:
            said = f"--optimize is of one decider and of all cases: leave {unheeded[0]} away"
            raise click.UsageError(f"{said}; --decider NAME names the decider")
        explain(program_file(program), changes, store, decider=decider, method=method)
        return
    if decider or method:
        raise click.UsageError("--decider and --method go with --optimize; here it is --only NAME")
    from align_dsl.language.render import render_program

    loaded = load(program_file(program), changes)
    loaded = select(loaded, Selection(limit, only))
    backends = open_backends(loaded.program)
    try:
        planned = plan_run(loaded, backends)
    finally:
        for backend in backends.values():
            backend.close()
    if prompts:
        _print_prompts(planned, loaded, scenario)
        return
    click.echo(render_program(loaded.checked))
    _print_cases(loaded)
    _print_bill(planned, loaded, store)


def _print_cases(loaded: Loaded) -> None:
    click.echo(f"cases: {len(loaded.cases):,} to decide, {len(loaded.pool):,} in the exemplar pool")
    for a in loaded.program.attributes:
        n = sum(1 for c in loaded.cases if a.name in c.attributes())
        click.echo(f"  {a.name}: {n:,} labelled")
    click.echo()


def _print_bill(planned: Plan, loaded: Loaded, store: Path) -> None:
    from align_dsl.engine.bill import bill

    known: set[str] = set()
    if store.exists():
        from align_dsl.records.store import Store

        with Store.open(store) as opened:
            known = set(opened.known(planned.model_jobs))
    click.echo(f"plan: {planned}; {len(known):,} known already")
    for line in bill(planned, known, loaded.pool):
        local = line.model.backend == "embedded"
        priced = (
            "no calls: embedded"
            if local
            else (
                f"{counted(line.calls, 'call')}, about {line.prompt_tokens:,} prompt and "
                f"{counted(line.completion_tokens, 'completion token')} if none were known"
            )
        )
        click.echo(
            f"  {visible(line.decider.name)} on {visible(line.model.name)}: "
            f"{counted(line.questions, 'decision')}, {counted(line.asked, 'job')} asked for, "
            f"{line.jobs:,} to run, {line.known:,} known; "
            f"{priced if line.jobs else 'needs no model'}"
        )


def _print_prompts(planned: Plan, loaded: Loaded, scenario: str | None) -> None:
    from align_dsl.engine.preview import preview

    ids = [c.scenario.id for c in loaded.cases]
    if scenario is not None and scenario not in ids:
        said = f"no scenario named `{scenario}` among the cases to decide"
        hint = nearest(scenario, ids)
        raise PlanError(picture(Diagnostic(Span(f"--scenario {scenario}"), said, hint), ""))
    for seen in preview(planned, scenario):
        click.echo(f"=== {visible(seen.decider)} · {seen.step} · job {seen.job.key}")
        if seen.missing:
            click.echo(f"(not known before the run: {seen.missing})\n")
            continue
        for message in seen.messages:
            click.echo(f"--- {message['role']}\n{_safe(message['content'])}")
        click.echo(f"--- schema\n{_json(seen.schema)}\n")


def _safe(text: str) -> str:
    return "\n".join(visible(line) for line in text.split("\n"))


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False)
