"""`align-dsl compare`: which of two deciders is better, on the very same cases, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from align_dsl.commands.runs import model_titles, open_existing
from align_dsl.commands.store import store_option
from align_dsl.errors import PlanError, counted, nearest, visible

if TYPE_CHECKING:
    from align_dsl.records.compare import Column, Comparison, Flip
    from align_dsl.records.record import Judgement, Recorded
    from align_dsl.records.store import Store

SHOWN = 60  # characters of a choice that --flips shows


@dataclass(frozen=True, slots=True)
class Offer:
    """What one argument stands for: a run, and the deciders on models of it that are meant."""

    run: Recorded
    pairs: tuple[tuple[str, str], ...]
    named: bool

    @property
    def fixed(self) -> bool:
        """Whether it is this one decider that is meant, whatever the others are called."""
        return self.named and len(self.pairs) == 1


@click.command
@click.argument("runs", nargs=-1, required=True, metavar="RUN[:DECIDER[@MODEL]]...")
@click.option("--flips", is_flag=True, help="List the cases on which just one of two is right.")
@store_option
def command(runs: tuple[str, ...], flips: bool, store: Path) -> None:
    """Compare two or more deciders on the cases and targets that both have decided.

    Where no decider is named, each one of a run is compared with its namesake in the others, or
    with the one that is named.

    \b
    align-dsl compare last:baseline last:regression
    align-dsl compare last:baseline last
    """
    from align_dsl.records.compare import compare, with_holm

    if len(runs) < 2:
        raise click.UsageError("name two or more: RUN:DECIDER RUN:DECIDER")
    with open_existing(store) as opened:
        offers = [_offer(opened, argument) for argument in runs]
        comparisons = [
            comparison
            for family in _families(offers, runs)
            for comparison in compare([_column(opened, *one) for one in family])
        ]
    if not comparisons:
        raise PlanError("these are one and the same; name two deciders, or two runs")
    titles = {t for offer in offers for t in model_titles(offer.run).items()}
    texts = _texts(offers) if flips else {}
    for number, comparison in enumerate(with_holm(comparisons)):
        click.echo("\n" if number else "", nl=False)
        for line in _lines(comparison, dict(titles)):
            click.echo(line)
        for flip in comparison.flips if flips else ():
            click.echo(_flip(flip, texts))


def _offer(store: Store, argument: str) -> Offer:
    name, _, wanted = argument.partition(":")
    run = store.load(name, judgements=False)
    decider, _, model = wanted.partition("@")
    pairs = tuple(dict.fromkeys((r.decider, r.model) for r in run.record.results))
    if not pairs:
        raise PlanError(f"the run {visible(run.record.id)} has no results; it is not finished")
    if decider and decider not in {d for d, _ in pairs}:
        known = {d for d, _ in pairs}
        raise PlanError(visible(f"{name} has no decider `{decider}`; {nearest(decider, known)}"))
    if model and (decider, model) not in pairs:
        known = {m for d, m in pairs if d == decider}
        raise PlanError(visible(f"{wanted} is not in {name}; {nearest(model, known)}"))
    kept = (p for p in pairs if decider in ("", p[0]) and model in ("", p[1]))
    return Offer(run, tuple(kept), named=bool(decider))


def _families(
    offers: Sequence[Offer], arguments: Sequence[str]
) -> Iterator[list[tuple[Recorded, str, str]]]:
    """The columns to compare with each other: one of each argument."""
    if all(len(offer.pairs) == 1 for offer in offers):
        families = [[(o.run, *o.pairs[0]) for o in offers]]
    else:
        families = _namesakes(offers)
        if not families:
            said = visible(" and ".join(arguments))
            raise PlanError(f"{said} have no decider in common; name them: RUN:DECIDER RUN:DECIDER")
    for family in families:
        if len({(run.record.id, d, m) for run, d, m in family}) == len(family):
            yield family  # nothing is compared with itself


def _namesakes(offers: Sequence[Offer]) -> list[list[tuple[Recorded, str, str]]]:
    open_ones = [offer.pairs for offer in offers if not offer.fixed]
    # By the decider alone, so that models can be compared, unless one stands on several models.
    by_model = any(len({d for d, _ in pairs}) < len(pairs) for pairs in open_ones)
    tables = [{(d, m) if by_model else (d, ""): (d, m) for d, m in o.pairs} for o in offers]
    shared = [
        key
        for key in tables[next(i for i, o in enumerate(offers) if not o.fixed)]
        if all(o.fixed or key in table for o, table in zip(offers, tables, strict=True))
    ]
    return [
        [
            (o.run, *(o.pairs[0] if o.fixed else table[key]))
            for o, table in zip(offers, tables, strict=True)
        ]
        for key in shared
    ]


def _column(store: Store, run: Recorded, decider: str, model: str) -> Column:
    from align_dsl.records.compare import column

    judgements = store.judgements(run.record.id, decider=decider, model=model, control=False)
    return column(f"{run.record.id}:{decider}@{model}", run, judgements)


def _lines(c: Comparison, titles: dict[str, str]) -> Iterator[str]:
    for letter, name, accuracy in (("A", c.a, c.accuracy_a), ("B", c.b, c.accuracy_b)):
        column, _, model = name.partition("@")
        share = "" if accuracy is None else f"{accuracy * 100:5.1f} %"
        yield visible(f"{letter}      {share}  {column} on {titles.get(model, model)}")
    if c.difference:
        value, low, high = (x * 100 for x in c.difference)
        yield f"B - A  {value:+5.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
    elif c.accuracy_a is not None and c.accuracy_b is not None:
        gain = (c.accuracy_b - c.accuracy_a) * 100
        yield f"B - A  {gain:+5.1f} points; all cases are of one group, so no interval"
    ps = {"exact McNemar p": c.p, "whole groups p": c.p_grouped, "Holm p": c.p_holm}
    if said := ", ".join(f"{name} {_p(p)}" for name, p in ps.items() if p is not None):
        yield f"       {said}"
    yield (
        f"       {counted(c.n, 'pair')}: both right {c.both:,}, only A {c.only_a:,},"
        f" only B {c.only_b:,}, neither {c.neither:,}"
    )
    missing = {
        "left out, labels cannot tell": c.left_out,
        "failed in A": c.failed_a,
        "failed in B": c.failed_b,
        "only in A": c.unpaired_a,
        "only in B": c.unpaired_b,
    }
    if said := "; ".join(f"{name} {n:,}" for name, n in missing.items() if n):
        yield f"       not counted: {said}"


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.1e}"


def _texts(offers: Sequence[Offer]) -> dict[tuple[str, str], str]:
    """(scenario, choice) -> what the choice says."""
    return {
        (case.scenario.id, choice.id): choice.text
        for offer in offers
        for case in offer.run.cases
        for choice in case.scenario.choices
    }


def _flip(flip: Flip, texts: dict[tuple[str, str], str]) -> str:
    def said(judgement: Judgement) -> str:
        choice = judgement.decision.choice or ""
        text = " ".join(texts.get((flip.scenario, choice), choice).split())
        shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
        return f"{'right' if judgement.correct else 'wrong'}  {shown}"

    head = f"{flip.target} / {flip.scenario}"
    return visible(f"  {head}\n    A {said(flip.a)}\n    B {said(flip.b)}")
