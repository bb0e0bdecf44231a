"""A question and the decisions on it, in full: words, labels, ratings, reasons and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from align_dsl.errors import counted
from align_dsl.records.judge import right_choices
from align_dsl.records.record import Judgement
from align_dsl.records.report.html import DASH, Html, el, join, text
from align_dsl.records.report.sheet import Sheet
from align_dsl.types import Case, Decision, Failure, Rating, Target, Vote

SCENARIO = 4_000  # characters shown of a scenario
WORDS = 1_200  # of a choice, a reason, or what a model sent
REASONS = 3  # different ones, of one decision
ROWS = 24  # ratings of one decision
DECIDERS = 12  # decisions of one question


def card(sheet: Sheet, scenario: str, target_name: str, judged: Sequence[Judgement]) -> Html:
    """`judged` is in full: with ratings, votes and failures."""
    case, target = sheet.cases.get(scenario), sheet.targets.get(target_name)
    if case is None or target is None:
        return el("p", "The scenario or target is not in the record.")
    more = len(judged) - DECIDERS
    rest = f"{counted(more, 'more decider')} not shown."
    return join(
        [
            el("p", clipped(case.scenario.text, SCENARIO), class_="scenario"),
            _choices(sheet, case, target),
            *(_decision(sheet, case, target, one) for one in judged[:DECIDERS]),
            el("p", rest, class_="quiet") if more > 0 else None,
        ]
    )


def aim(sheet: Sheet, target: Target | None) -> str:
    """Where the target stands, in numbers of the scale: `fairness 10 (of 0 to 10)`."""
    if target is None:
        return ""
    said = []
    for name, value in target.values.items():
        scale = sheet.scale(name)
        number = sheet.written(name, value)
        weight = f", weighs {target.weights[name]:g}" if name in target.weights else ""
        said.append(f"{name} {number} (of {scale.low:g} to {scale.high:g}{weight})")
    return ", ".join(said)


def letter(case: Case, choice: str | None) -> str:
    """The place of a choice, as people count: A, B, C."""
    ids = [c.id for c in case.scenario.choices]
    if choice not in ids:
        return DASH
    place = ids.index(choice)
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def outcome(judgement: Judgement) -> Html:
    """Right or wrong, in a word; colour comes on top."""
    d = judgement.decision
    if d.choice is None:
        return el("span", "failed: ", d.status, class_="bad")
    if judgement.correct is None:
        said = el("span", "labels cannot tell", class_="quiet")
    elif judgement.correct:
        said = el("span", "✓ right", class_="good")
    else:
        said = el("span", "✗ wrong", class_="bad")
    if d.status == "tied":
        return join([said, el("span", " (tie, broken by seed)", class_="quiet")])
    return said


def clipped(words: str, most: int) -> Html:
    if len(words) <= most:
        return text(words)
    rest = f" … {counted(len(words) - most, 'more character')}"
    return join([words[:most], el("span", rest, class_="quiet")])


def _choices(sheet: Sheet, case: Case, target: Target) -> Html:
    right = right_choices(case, target)
    rows = []
    for choice in case.scenario.choices:
        labels = case.labels.get(choice.id, {})
        said = [f"{n} {sheet.written(n, labels[n])}" for n in target.values if n in labels]
        fits = right is not None and choice.id in right
        rows.append(
            el(
                "li",
                el("b", letter(case, choice.id), class_="letter"),
                el("span", clipped(choice.text, WORDS)),
                el(
                    "span",
                    el("span", "✓ right ", class_="good") if fits else None,
                    el("span", "label: ", ", ".join(said) or "none", class_="quiet"),
                    class_="label",
                ),
            )
        )
    note = "The labels do not tell these choices apart." if right is None else None
    return join(
        [el("ul", *rows, class_="choices"), el("p", note, class_="quiet") if note else None]
    )


def _decision(sheet: Sheet, case: Case, target: Target, judgement: Judgement) -> Html:
    d = judgement.decision
    head = el(
        "h4",
        d.decider,
        el("span", " on ", sheet.model(d.model), class_="quiet"),
        el("span", " chose ", el("b", letter(case, d.choice)), " ")
        if d.choice is not None
        else " ",
        outcome(judgement),
    )
    shares = [f"{letter(case, c.id)} {d.weights.get(c.id, 0):.2f}" for c in case.scenario.choices]
    weights = el("p", "weights: ", ", ".join(shares), class_="weights") if d.weights else None
    parts = [head, weights, _ratings(sheet, case, target, d), _votes(case, d), _reasons(case, d)]
    failures = Counter(d.failures)
    parts += [_failure(one, failures[one]) for one in list(failures)[:REASONS]]
    if len(failures) > REASONS:
        more = counted(len(failures) - REASONS, "other failure")
        parts.append(el("p", more, class_="quiet"))
    return el("section", *parts, class_="decision")


def _ratings(sheet: Sheet, case: Case, target: Target, d: Decision) -> Html | None:
    """The mean over samples; where they differ, from what to what."""
    found: dict[tuple[str, str], list[float]] = {}
    for rating in d.ratings:
        found.setdefault((rating.attribute, rating.choice), []).append(rating.value)
    places = {c.id: i for i, c in enumerate(case.scenario.choices)}
    keys = sorted(found, key=lambda k: (k[0] not in target.values, k[0], places.get(k[1], 0)))
    if not keys:
        return None
    rows = []
    spreads = False
    for attribute, choice in keys[:ROWS]:
        values = found[attribute, choice]
        mean = sum(values) / len(values)
        label = case.labels.get(choice, {}).get(attribute)
        low, high = (sheet.written(attribute, x) for x in (min(values), max(values)))
        spread = f"{low} to {high} in {len(values)}" if low != high else ""
        spreads = spreads or bool(spread)
        rows.append(
            el(
                "tr",
                el("th", letter(case, choice), scope="row"),
                el("td", attribute),
                el("td", sheet.written(attribute, mean), class_="n"),
                el("td", _bar(mean, target.values.get(attribute), label)),
                el("td", DASH if label is None else sheet.written(attribute, label), class_="n"),
                el("td", spread, class_="quiet"),
            )
        )
    names = ("choice", "attribute", "rating", "", "label", "samples" if spreads else "")
    head = el("tr", *(el("th", name, scope="col") for name in names))
    more = len(keys) - ROWS
    return join(
        [
            el(
                "div",
                el("table", el("thead", head), el("tbody", *rows), class_="ratings"),
                class_="scroll",
                tabindex=0,
            ),
            el("p", counted(more, "more rating"), class_="quiet") if more > 0 else None,
        ]
    )


def _bar(value: float, target: float | None, label: float | None) -> Html:
    """The rating as a bar, the target as a line across, the label as a ring; all on 0..1."""

    def x(share: float) -> float:
        return 6 + 168 * min(1.0, max(0.0, share))

    parts = [
        el("rect", class_="track", x=6, y=5, width=168, height=6),
        el("rect", class_="fill", x=6, y=5, width=x(value) - 6, height=6),
    ]
    if target is not None:
        parts.append(el("line", class_="aim", x1=x(target), x2=x(target), y1=0, y2=16))
    if label is not None:
        parts.append(el("circle", class_="ring", cx=x(label), cy=8, r=4))
    return el("svg", *parts, viewBox="0 0 180 16", class_="bar", aria_hidden="true")


def _votes(case: Case, d: Decision) -> Html | None:
    if not d.votes:
        return None
    counts: dict[str, int] = {}
    for vote in d.votes:
        counts[vote.choice] = counts.get(vote.choice, 0) + 1
    said = ", ".join(f"{letter(case, choice)} {n}" for choice, n in counts.items())
    return el("p", "picks: ", said, class_="weights")


def _reasons(case: Case, d: Decision) -> Html | None:
    """Each reason once, those for the choice that was taken first."""
    given: list[Rating | Vote] = [*d.ratings, *d.votes]
    given.sort(key=lambda one: one.choice != d.choice)
    different = list(dict.fromkeys(one.why for one in given if one.why))
    if not different:
        return None
    shown = [
        el("blockquote", clipped(why, WORDS), _letters(case, [g for g in given if g.why == why]))
        for why in different[:REASONS]
    ]
    more = len(different) - REASONS
    rest = el("p", counted(more, "more reason"), class_="quiet") if more > 0 else None
    return join([*shown, rest])


def _letters(case: Case, given: Sequence[Rating | Vote]) -> Html | None:
    """What the letters of a reason mean here, where the choices were shown in another order."""
    means = {one.shown: letter(case, one.choice) for one in given if one.shown}
    if all(there == here for there, here in means.items()):
        return None
    said = ", ".join(f"{there} is {here} above" for there, here in sorted(means.items()))
    return el("p", f"In this reason {said}.", class_="quiet")


def _failure(failure: Failure, times: int) -> Html:
    again = el("span", f" ({times:,} times)", class_="quiet") if times > 1 else None
    return el(
        "div",
        el("p", el("b", failure.status), ": ", clipped(failure.message, WORDS), again),
        el("pre", clipped(failure.raw, WORDS), tabindex=0) if failure.raw else None,
        class_="failure",
    )
