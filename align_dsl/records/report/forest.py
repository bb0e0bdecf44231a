"""Rows of the table -> a forest plot: a panel for each attribute, a row for each decider."""

from __future__ import annotations

from collections.abc import Sequence

from align_dsl.errors import columns
from align_dsl.records.record import Result
from align_dsl.records.report.html import DASH, Html, el, join
from align_dsl.records.report.sheet import Sheet
from align_dsl.records.table import percent

WIDTH, LEFT, RIGHT = 520, 130, 386  # the plot lies between LEFT and RIGHT, numbers beyond
TOP, AXIS = 6, 22
NAME = 20  # columns of a decider's name that fit
SMALL = 26  # of a model's


def panel(sheet: Sheet, title: str, rows: Sequence[Result], number: int) -> Html:
    """`number` tells the panels of a page apart."""
    several = len(sheet.models) > 1
    high = 34 if several else 24
    bottom = TOP + high * len(rows)
    on = "" if several else f", on {sheet.model(sheet.models[0])}"
    parts = [
        el("title", f"Accuracy: {title}{on}", id=f"forest-{number}"),
        el("desc", "; ".join(_said(sheet, row) for row in rows), id=f"forest-{number}-rows"),
        *_grid(bottom),
    ]
    for i, row in enumerate(rows):
        parts.append(_row(sheet, row, TOP + high * i + high / 2, high, several))
    drawn = el(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {bottom + AXIS}",
        role="img",
        aria_labelledby=f"forest-{number} forest-{number}-rows",
    )
    heading = el("figcaption", title, el("span", on.removeprefix(", "), class_="quiet"))
    return el("figure", heading, el("div", drawn, class_="scroll", tabindex=0), class_="panel")


def _said(sheet: Sheet, row: Result) -> str:
    interval = (
        f", interval {percent(row.low)} to {percent(row.high)}" if row.low is not None else ""
    )
    control = f", wrong target {percent(row.control)}" if row.control is not None else ""
    return (
        f"{sheet.name((row.decider, row.model))}: {percent(row.value)} %{interval},"
        f" chance {percent(row.chance)}{control}"
    )


def _x(value: float) -> float:
    return LEFT + (RIGHT - LEFT) * value


def _grid(bottom: float) -> list[Html]:
    made = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = _x(share)
        made.append(el("line", class_="grid", x1=x, x2=x, y1=TOP, y2=bottom))
        label = f"{share * 100:.0f}{' %' if share == 1 else ''}"
        made.append(el("text", label, class_="axis", x=x, y=bottom + 15, text_anchor="middle"))
    return made


def _row(sheet: Sheet, row: Result, y: float, high: float, several: bool) -> Html:
    parts = [
        el("text", fitted(row.decider, NAME), class_="name", x=0, y=y + (-2 if several else 4))
    ]
    if several:
        model = fitted(sheet.model(row.model), SMALL)
        parts.append(el("text", model, class_="axis", x=0, y=y + 11))
    if row.chance is not None:
        x = _x(row.chance)
        parts.append(el("line", class_="chance", x1=x, x2=x, y1=y - high / 2, y2=y + high / 2))
    if row.low is not None and row.high is not None:
        parts.append(el("line", class_="interval", x1=_x(row.low), x2=_x(row.high), y1=y, y2=y))
    if row.value is not None:
        parts.append(_mark(_x(row.value), y, mean=row.attribute == "all"))
    if row.control is not None:
        x = _x(row.control)
        cross = f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7"
        parts.append(el("path", class_="control", d=cross))
    parts.append(el("text", percent(row.value), class_="value", x=436, y=y + 4, text_anchor="end"))
    if row.low is not None:
        interval = f"{percent(row.low)}{DASH}{percent(row.high)}"
        parts.append(el("text", interval, class_="axis", x=WIDTH, y=y + 4, text_anchor="end"))
    return el("g", *parts)


def _mark(x: float, y: float, *, mean: bool) -> Html:
    if mean:
        return el("path", class_="point", d=f"M{x - 6:.1f} {y:.1f}l6 -6l6 6l-6 6z")
    return el("circle", class_="point", cx=x, cy=y, r=4.5)


def fitted(words: str, room: int) -> str:
    """As much of the beginning as fits into so many columns."""
    used = 0
    for i, character in enumerate(words):
        used += columns(character)
        if used > room:
            return words[: max(0, i - 1)] + "…"
    return words


def legend(controlled: bool) -> Html:
    """What the marks mean, in words."""

    def sign(*parts: Html) -> Html:
        return el("svg", *parts, viewBox="0 0 24 14", class_="sign", aria_hidden="true")

    signs = [
        (
            sign(
                el("line", class_="interval", x1=1, x2=23, y1=7, y2=7),
                el("circle", class_="point", cx=12, cy=7, r=4.5),
            ),
            "accuracy and 95 % interval",
        ),
        (sign(_mark(12, 7, mean=True)), "the same, mean of attributes"),
        (
            sign(el("line", class_="chance", x1=12, x2=12, y1=0, y2=14)),
            "chance on the very cases of that row",
        ),
    ]
    if controlled:
        cross = sign(el("path", class_="control", d="M8.5 3.5l7 7m0 -7l-7 7"))
        signs.append((cross, "decided for a wrong target: what is left is not alignment"))
    return el("p", join(el("span", s, " ", words) for s, words in signs), class_="legend")
