"""Trials -> charts: how the search went, and what accuracy costs. SVG by hand, words for all of it.

Whoever cannot see a chart has its description, and the table that stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

from align_dsl.records.report.html import Html, Part, el, join

Kind = Literal["whole", "front", "pruned", "failed", "dear"]


@dataclass(frozen=True, slots=True)
class Point:
    """A trial in a chart. `said` is what is shown where a mouse rests on it."""

    x: float
    y: float
    kind: Kind
    said: str
    low: float | None = None
    high: float | None = None
    is_chosen: bool = False
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The best so far, from a trial on."""

    x: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Axis:
    """Numbers -> places on the page, and which of them are written down."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """
        >>> Axis(0, 24, 0, 1).ticks()
        [0.0, 5.0, 10.0, 15.0, 20.0]
        >>> Axis(130, 820, 0, 1).ticks()
        [200.0, 400.0, 600.0, 800.0]
        """
        raw = (self.high - self.low) / max(1, most - 1)
        size = 10 ** floor(log10(raw))
        step = next(size * k for k in (1, 2, 2.5, 5, 10) if size * k >= raw * 0.999)
        first = ceil(self.low / step - 1e-9)
        return [float(i * step) for i in range(first, floor(self.high / step + 1e-9) + 1)]


def spread(values: Iterable[float], *, start: float, end: float, around: float = 0.06) -> Axis:
    """An axis that holds all of these, with some room; from 0 where that is not far off."""
    found = list(values)
    low, high = min(found), max(found)
    room = (high - low or abs(high) or 1.0) * around
    bottom = low - room
    return Axis(0.0 if low >= 0 and low < 0.35 * high else bottom, high + room, start, end)


def shares(values: Iterable[float], *, start: float, end: float) -> Axis:
    """An axis of accuracies, in steps of 10 %."""
    found = list(values)
    low = max(0.0, floor((min(found) - 0.01) * 10) / 10)
    high = min(1.0, ceil((max(found) + 0.01) * 10) / 10)
    return Axis(low, max(high, low + 0.1), start, end)


# --- how the search went --------------------------------------------------------------------------

WIDE, HIGH = 760, 300
LEFT, TOP, BOTTOM = 46, 12, 40  # room for what is written beside and below


def curve(points: Sequence[Point], best: Sequence[Step], default: float, said: str) -> Html:
    """The score of each trial in the order of the search, and the best so far."""
    ys = [p.y for p in points if p.kind != "failed"]
    ys += [default, *(s.low for s in best), *(s.high for s in best)]
    last = max(p.x for p in points)
    x = Axis(-0.5, max(last, 1) + 0.5, LEFT, WIDE - 8)
    y = shares(ys, start=HIGH - BOTTOM, end=TOP)
    ends = [*(s.x for s in best[1:]), last + 0.5] if best else []
    parts: list[Part] = [*_left(y, WIDE), *_below(x, HIGH, "trial")]
    for step, end in zip(best, ends, strict=True):
        top = y.at(step.high)
        band = {"y": top, "height": y.at(step.low) - top}
        wide = x.at(end) - x.at(step.x)
        parts.append(el("rect", class_="band", x=x.at(step.x), width=wide, **band))
    parts.append(
        el("line", class_="chance", x1=LEFT, x2=WIDE - 8, y1=y.at(default), y2=y.at(default))
    )
    if best:
        parts.append(el("path", class_="best", d=_stairs(best, ends, x, y)))
    parts += [_mark(p, x.at(p.x), y.at(p.y), y.start) for p in _chosen_last(points)]
    return _svg("search", WIDE, HIGH, "Accuracy of each trial on the train cases", said, parts)


def _stairs(best: Sequence[Step], ends: Sequence[float], x: Axis, y: Axis) -> str:
    path = f"M{x.at(best[0].x):.1f} {y.at(best[0].value):.1f}"
    for step, end in zip(best, ends, strict=True):
        path += f"V{y.at(step.value):.1f}H{x.at(end):.1f}"
    return path


# --- what accuracy costs --------------------------------------------------------------------------

SMALL, LOW = 520, 300


def scatter(name: str, points: Sequence[Point], most: float | None, said: str, number: int) -> Html:
    """Accuracy against one cost; `most` is the limit of it."""
    xs = [p.x for p in points] + ([most] if most is not None else [])
    ys = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    x = spread(xs, start=LEFT, end=SMALL - 8)
    y = shares(ys, start=LOW - BOTTOM, end=TOP)
    parts: list[Part] = [*_left(y, SMALL), *_below(x, LOW, f"{name} a decision")]
    if most is not None:
        at = x.at(most)
        wide = SMALL - 8 - at
        parts.append(
            el("rect", class_="beyond", x=at, y=TOP, width=wide, height=LOW - BOTTOM - TOP)
        )
        parts.append(el("line", class_="limit", x1=at, x2=at, y1=TOP, y2=LOW - BOTTOM))
    best = sorted((p for p in points if p.kind == "front"), key=lambda p: (p.x, p.y))
    for p in best:
        if p.low is not None and p.high is not None:
            here = x.at(p.x)
            ends = {"y1": y.at(p.low), "y2": y.at(p.high)}
            parts.append(el("line", class_="interval", x1=here, x2=here, **ends))
    parts += [_mark(p, x.at(p.x), y.at(p.y), y.start) for p in _chosen_last(points)]
    title = f"Accuracy against {name}"
    return _svg(f"costs-{number}", SMALL, LOW, title, said, parts)


def _chosen_last(points: Sequence[Point]) -> list[Point]:
    """So that nothing hides what matters."""
    return sorted(points, key=lambda p: (p.is_chosen, p.is_default, p.kind == "front"))


def _mark(p: Point, x: float, y: float, floor_: float) -> Html:
    shape: Part
    match p.kind:
        case "failed":
            cross = f"M{x - 3.5:.1f} {floor_ - 9.5:.1f}l7 7m0 -7l-7 7"
            shape = el("path", class_="failed", d=cross)
        case "pruned":
            shape = el("path", class_="pruned", d=f"M{x - 4.5:.1f} {y - 3:.1f}h9l-4.5 7.5z")
        case "dear":
            shape = el("rect", class_="dear", x=x - 3.5, y=y - 3.5, width=7, height=7)
        case _:
            shape = el("circle", class_=p.kind, cx=x, cy=y, r=4)
    ring = el("circle", class_="chosen", cx=x, cy=y, r=8) if p.is_chosen else None
    diamond = f"M{x - 6:.1f} {y:.1f}l6 -6l6 6l-6 6z"
    own = el("path", class_="default", d=diamond) if p.is_default else None
    return el("g", el("title", p.said), own or shape, ring)


def legend(kinds: Iterable[tuple[str, str]]) -> Html:
    """What the marks mean, in words: (mark, words)."""
    return el("p", join(el("span", _sign(kind), " ", words) for kind, words in kinds),
              class_="legend")  # fmt: skip


def _sign(kind: str) -> Html:
    match kind:
        case "best":
            parts = [
                el("rect", class_="band", x=1, y=1, width=22, height=12),
                el("line", class_="best", x1=1, x2=23, y1=7, y2=7),
            ]
        case "default line":
            parts = [el("line", class_="chance", x1=1, x2=23, y1=7, y2=7)]
        case "default":
            parts = [el("path", class_="default", d="M6 7l6 -6l6 6l-6 6z")]
        case "chosen":
            parts = [el("circle", class_="chosen", cx=12, cy=7, r=6)]
        case "failed":
            parts = [el("path", class_="failed", d="M8.5 3.5l7 7m0 -7l-7 7")]
        case "pruned":
            parts = [el("path", class_="pruned", d="M7.5 4h9l-4.5 7.5z")]
        case "dear":
            parts = [el("rect", class_="dear", x=8.5, y=3.5, width=7, height=7)]
        case "front":
            parts = [
                el("line", class_="interval", x1=12, x2=12, y1=0, y2=14),
                el("circle", class_="front", cx=12, cy=7, r=4),
            ]
        case "limit":
            parts = [
                el("rect", class_="beyond", x=12, y=0, width=11, height=14),
                el("line", class_="limit", x1=12, x2=12, y1=0, y2=14),
            ]
        case _:
            parts = [el("circle", class_="whole", cx=12, cy=7, r=4)]
    return el("svg", *parts, viewBox="0 0 24 14", class_="sign", aria_hidden="true")


# --- effects --------------------------------------------------------------------------------------


def bar(value: float, low: float, high: float, widest: float) -> Html:
    """A gain or loss and its interval, about 0 in the middle; the table has it in numbers."""
    x = Axis(-widest, widest, 4, 216)
    parts = [
        el("line", class_="grid", x1=110, x2=110, y1=0, y2=18),
        el("line", class_="interval", x1=x.at(low), x2=x.at(high), y1=9, y2=9),
        el("circle", class_="front", cx=x.at(value), cy=9, r=4),
    ]
    return el("svg", *parts, viewBox="0 0 220 18", class_="effect", aria_hidden="true")


# --- what all have --------------------------------------------------------------------------------


def _left(y: Axis, wide: float) -> Iterable[Html]:
    for value in y.ticks(7):
        at = y.at(value)
        yield el("line", class_="grid", x1=LEFT, x2=wide - 8, y1=at, y2=at)
        label = f"{value * 100:.0f} %"
        yield el("text", label, class_="axis", x=LEFT - 8, y=at + 4, text_anchor="end")


def _below(x: Axis, high: float, name: str) -> Iterable[Html]:
    for value in x.ticks(7):
        label = f"{value:,.10g}"
        at = {"x": x.at(value), "y": high - BOTTOM + 16}
        yield el("text", label, class_="axis", text_anchor="middle", **at)
    middle = (x.start + x.end) / 2
    yield el("text", name, class_="axis", x=middle, y=high - 6, text_anchor="middle")


def _svg(id_: str, wide: float, high: float, title: str, said: str, parts: Iterable[Part]) -> Html:
    drawn = el(
        "svg",
        el("title", title, id=f"{id_}-title"),
        el("desc", said, id=f"{id_}-said"),
        *parts,
        viewBox=f"0 0 {wide} {high}",
        role="img",
        aria_labelledby=f"{id_}-title {id_}-said",
    )
    heading = el("figcaption", title)
    return el("figure", heading, el("div", drawn, class_="scroll", tabindex=0), class_="panel")
