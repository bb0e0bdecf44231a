"""A study -> its figures: how the search went, what accuracy costs, what each setting does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from align_dsl.errors import counted
from align_dsl.optimize import chart
from align_dsl.optimize import effects as model
from align_dsl.optimize.accuracy import percent
from align_dsl.optimize.aims import COSTS
from align_dsl.optimize.chart import Point, Step
from align_dsl.optimize.choose import allowed
from align_dsl.optimize.done import Done
from align_dsl.optimize.effects import front, interval
from align_dsl.optimize.looked import Looked
from align_dsl.optimize.row import cost, row
from align_dsl.records.report.html import DASH, Html, el, section
from align_dsl.records.report.numbers import line, simple_table
from align_dsl.records.stats import Interval


def search(made: Looked) -> Html | None:
    if made.by_dspy:
        return section("The search", *_of_dspy(made), name="search")
    if made.default is None or made.default.score is None:
        return section("The search", el("p", "No trial has come to its end yet."), name="search")
    points = [_point(made, d, float(d.number)) for d in made.listed]
    best = list(_best_so_far(made))
    last = best[-1] if best else None
    said = f"{counted(len(made.done), 'trial')}; the default has {_percent(made.default.score)}"
    if last is not None:
        said += f", the best {_percent(last.value)}"
        said += f" (95 % interval {_percent(last.low)} to {_percent(last.high)})"
        said += f", found in trial {last.x:.0f}"
    said += ". Every trial is in the table below."
    kinds = [("best", "best so far, with its 95 % interval")]
    kinds += [("default line", "the file's own settings")]
    kinds += [*_signs(made, points)]
    drawn = chart.curve(points, best, made.default.score, said)
    note = (
        "Accuracy on the train cases, which chose it: the best of many looks better than it is."
        f" The interval is that of one trial, as if there had been no others. {_rule(made)}"
    )
    return section(
        "The search",
        el("p", note, made.cut, class_="note"),
        el("div", drawn, class_="wide"),
        chart.legend(kinds),
        name="search",
    )


def _of_dspy(made: Looked) -> Iterator[Html]:
    if not made.found:
        said = "An optimizer of DSPy has not come to its end yet, and keeps no trials: "
        yield el("p", said, el("code", made.by_dspy))
        return
    said = "Found by an optimizer of DSPy, which keeps no trials: "
    yield el("p", said, el("code", made.by_dspy))
    if made.train:
        before, after = made.train
        yield el(
            "p",
            f"{counted(made.tried, 'candidate')}. On DSPy's part of the train cases"
            f" {_percent(before)} of the questions were right before, and {_percent(after)} with"
            " the best.",
        )


def _rule(made: Looked) -> str:
    if made.facts.get("picked"):
        return "The chosen one was picked by hand."
    first = "cheapest" if made.aims.several else "one with the fewest changes"
    return (
        f"Chosen is the {first} of those that cannot be told from the best (within a standard"
        " error, after averaging with neighbours)."
    )


def _signs(made: Looked, points: Sequence[Point]) -> Iterator[tuple[str, str]]:
    found = {p.kind for p in points}
    if any(p.is_default for p in points):
        yield "default", "the default"
    words = {
        "front": "what nothing beats",
        "whole": "a whole trial",
        "pruned": "given up early (estimated)",
        "dear": "over a limit",
        "failed": "could not be tried",
    }
    yield from ((kind, said) for kind, said in words.items() if kind in found)
    if any(p.is_chosen for p in points):
        yield "chosen", "chosen"


def _best_so_far(made: Looked) -> Iterator[Step]:
    best: Done | None = None
    for one in sorted(allowed(made.done), key=lambda d: d.number):
        if best is None or (one.score or 0.0) > (best.score or 0.0):
            best = one
            value = one.score or 0.0
            span = interval(one, made.facts) or Interval(value, value, value)
            yield Step(float(one.number), value, span.low, span.high)


def _point(made: Looked, one: Done, x: float, best: Sequence[int] = ()) -> Point:
    span = None if one.pruned else made.spans.get(one.number)
    kind: chart.Kind = "whole"
    if one.score is None and one.is_allowed:
        kind = "failed"
    elif not one.is_allowed:
        kind = "dear" if one.score is not None else "failed"
    elif one.pruned:
        kind = "pruned"
    elif one.number in best:
        kind = "front"
    words = row(one, made.facts, made.chosen.number if made.chosen else None)
    said = [f"trial {words.number}", words.state, f"{words.score} %" if words.score else ""]
    said += [cost("calls", one.costs["calls"]) if words.calls else "", words.settings]
    return Point(
        x=x,
        y=one.score or 0.0,
        kind=kind,
        said=", ".join(s for s in said if s),
        low=span.low if span else None,
        high=span.high if span else None,
        is_chosen=made.chosen is not None and one.number == made.chosen.number,
        is_default=made.default is not None and one.number == made.default.number,
    )


def costs(made: Looked) -> Html | None:
    rows = [d for d in made.listed if d.score is not None and not d.pruned]
    panels = []
    for i, name in enumerate(COSTS):
        if len({d.costs[name] for d in rows}) < 2 and name not in made.aims.at_most:
            continue
        best = [d.number for d in front(made.done, ("accuracy", name))]
        points = [_point(made, d, d.costs[name], best) for d in rows]
        if points:
            said = "; ".join(
                f"{_percent(d.score)} for {cost(name, d.costs[name])}" for d in rows
                if d.number in best
            )  # fmt: skip
            said = f"What nothing beats: {said}." if said else "Nothing keeps to the limits."
            panels.append(chart.scatter(name, points, made.aims.at_most.get(name), said, i))
    if not panels:
        return None
    weighed = made.aims.objectives if made.aims.several else ("accuracy", *COSTS)
    kinds = [("front", "what nothing beats in these two, with its 95 % interval")]
    kinds += _signs(made, [_point(made, d, 0.0) for d in rows])
    kinds += [("limit", "the limit")] if made.aims.at_most else []
    note = (
        "Accuracy on the train cases against what a decision needs on average, known answers"
        f" counted like new ones. Below: what nothing beats in {listed(weighed)}."
    )
    return section(
        "Accuracy and its cost",
        el("p", note, class_="note"),
        el("div", *panels, class_="panels"),
        chart.legend(kinds),
        table(made, front(made.done, weighed)),
        name="costs",
    )


def effects(made: Looked) -> Html | None:
    found = model.effects(made.done, made.facts)
    if not found:
        return None
    widest = max([abs(v) for e in found if e.gain for v in e.gain] or [0.01]) or 0.01
    lines = []
    before = ""
    for e in found:
        gain, value = e.gain, DASH
        drawn: Html | None = None
        span = DASH
        if gain is not None:
            value = f"{100 * gain.value:+.1f}"
            span = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
            drawn = chart.bar(gain.value, gain.low, gain.high, widest)
        name = el("b", e.setting) if e.setting != before else el("span", e.setting, class_="quiet")
        before = e.setting
        lines.append(line((name, e.value, drawn), (value, span, f"{e.trials:,}")))
    note = (
        "How far each value lies above the mean of all values of its setting, in points of"
        " accuracy, the other settings being equal. From an additive model over all whole trials;"
        " intervals are over train cases. Values that go together are not told apart."
    )
    names = ["setting", "value", "", "effect, points", "95 % interval", "trials"]
    return section(
        "What each setting does",
        el("p", note, class_="note"),
        simple_table(names, 3, lines),
        name="effects",
    )


def table(made: Looked, trials: Sequence[Done]) -> Html:
    chosen = made.chosen.number if made.chosen else None
    lines = []
    for one in trials:
        words = row(one, made.facts, chosen)
        state = el("b", words.state) if one.number == chosen else words.state
        lines.append(
            el(
                "tr",
                el("th", words.number, scope="row"),
                el("td", words.score or DASH, class_="n"),
                el("td", words.interval or DASH, class_="n"),
                el("td", words.calls or DASH, class_="n"),
                el("td", words.tokens or DASH, class_="n"),
                el("td", state, class_="state"),
                el("td", words.settings, class_="settings"),
            )
        )
    heads = [("trial", None), ("accuracy, %", "n"), ("95 % interval", "n"), ("calls", "n")]
    heads += [("tokens", "n"), ("", None), ("configuration", None)]
    head = el("tr", *(el("th", name, scope="col", class_=kind) for name, kind in heads))
    drawn = el("table", el("thead", head), el("tbody", *lines), class_="numbers trials")
    return el("div", drawn, class_="scroll", tabindex=0)


def _percent(value: float | None) -> str:
    return DASH if value is None else percent(value)


def listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
