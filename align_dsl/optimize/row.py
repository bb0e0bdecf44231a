"""A trial -> a row of a table, in words: for terminals and for pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from align_dsl.optimize.done import Done
from align_dsl.optimize.effects import interval
from align_dsl.optimize.sat import FAILED

SETTING = 40  # characters shown of a value


class Row(NamedTuple):
    number: str
    score: str  # in %
    interval: str
    calls: str  # of a decision, on average
    tokens: str
    state: str
    settings: str


def row(one: Done, facts: Mapping[str, Any], chosen: int | None = None) -> Row:
    span = interval(one, facts)
    is_tried = one.score is not None
    needs = one.costs
    return Row(
        number=str(one.number),
        score=f"{one.score * 100:.1f}" if one.score is not None else "",
        interval=f"{span.low * 100:.1f} – {span.high * 100:.1f}" if span else "",
        calls=number("calls", needs["calls"]) if is_tried or one.sat.spent.calls else "",
        tokens=number("tokens", needs["tokens"]) if is_tried else "",
        state=", ".join(states(one, chosen)),
        settings=settings(one.config),
    )


def states(one: Done, chosen: int | None = None) -> Iterator[str]:
    """What is to be said of a trial."""
    if one.number == chosen:
        yield "chosen"
    if one.slot == (0, 0):
        yield "default"
    if one.pruned:
        yield "pruned"
    if failed := one.sat.marks.count(FAILED):
        yield f"{failed:,} failed"
    if one.score is None:
        yield one.why
    else:
        yield from (f"too many {name}" for name, share in one.over.items() if share > 0)


def settings(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {shown(value, SETTING)}" for name, value in config.items())


def shown(value: Any, room: int = 60) -> str:
    text = "the file's own" if value is None else " ".join(str(value).split())
    return text if len(text) <= room else f"{text[: room - 3]}..."


def number(name: str, value: float) -> str:
    """A mean cost, to as many digits as matter."""
    if name == "tokens":
        return f"{value:,.0f}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def cost(name: str, value: float) -> str:
    written = number(name, value)
    return f"{written} {name.removesuffix('s') if written == '1' else name}"
