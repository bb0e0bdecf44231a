"""The rows of a run and the pairs of its deciders -> tables that people read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from align_dsl.errors import PlanError, counted
from align_dsl.records.compare import Column, Comparison, column, compare_two, with_holm
from align_dsl.records.record import Result
from align_dsl.records.report.html import DASH, Html, Part, el, join
from align_dsl.records.report.sheet import Pair, Sheet
from align_dsl.records.stats import wilson
from align_dsl.records.table import percent

ENDS = ("_low", "_high")


def accuracies(sheet: Sheet) -> list[Result]:
    return [r for r in sheet.run.record.results if r.metric == "accuracy"]


def attributes(rows: Sequence[Result]) -> list[str]:
    """In the order of the record, the mean of all of them last."""
    names = list(dict.fromkeys(r.attribute for r in rows if r.attribute != "all"))
    return [*names, *(["all"] if any(r.attribute == "all" for r in rows) else [])]


def widest(rows: Sequence[Result]) -> Result:
    """Of the rows of one attribute, the one that takes in most."""
    return next((r for r in rows if r.target in ("both", "all")), rows[0])


def accuracy_table(sheet: Sheet) -> Html:
    rows = accuracies(sheet)
    ends = all(any(r.target.endswith(end) for r in rows) for end in ENDS)
    controlled = any(r.control is not None for r in rows)
    names = ["attribute", *(["low", "high", "both"] if ends else ["accuracy"])]
    names += ["against chance", "chance", "best trivial"]
    names += ["wrong target"] if controlled else []
    names += ["n", "left out", "failed"]
    bodies = []
    for pair in sheet.pairs:
        mine = [r for r in rows if (r.decider, r.model) == pair]
        if not mine:
            continue
        lines = [_heading(sheet, pair, mine[0], len(names))]
        for name in attributes(mine):
            lines += _lines([r for r in mine if r.attribute == name], ends, controlled)
        bodies.append(el("tbody", *lines))
    head = _names(names, 1, but="against chance")
    return scrolling(el("table", head, *bodies, class_="numbers"))


def _heading(sheet: Sheet, pair: Pair, row: Result, width: int) -> Html:
    facts = f"; {counted(row.calls, 'call')}, {counted(row.tokens, 'token')}"
    counts = sheet.statuses.get(pair, Counter())
    if tied := counts["tied"]:
        decisions = counted(counts.total(), "decision")
        facts += f", {tied:,} of {decisions} {'a tie' if tied == 1 else 'ties'}"
    said = [pair[0], el("span", " on ", sheet.model(pair[1]), facts, class_="quiet")]
    return el("tr", el("th", *said, colspan=width, scope="rowgroup"), class_="who")


def _lines(rows: Sequence[Result], ends: bool, controlled: bool) -> Iterator[Html]:
    """One attribute; targets of it that are neither low nor high nor both follow, a line each."""
    whole = widest(rows)
    cells: list[Html] = []
    shown = [whole]
    if ends:
        for end in ENDS:
            one = next((r for r in rows if r.target.endswith(end)), None)
            cells.append(_accuracy(one) if one else el("td"))
            shown += [one] if one else []
    title = "mean of attributes" if whole.attribute == "all" else whole.attribute
    kind = "mean" if whole.attribute == "all" else None
    yield el("tr", el("th", title, scope="row"), *cells, *_rest(whole, controlled), class_=kind)
    for row in rows:
        if row not in shown:
            blank = [el("td") for _ in cells]
            name = el("th", "target ", row.target, scope="row", class_="target")
            yield el("tr", name, *blank, *_rest(row, controlled))


def _accuracy(row: Result) -> Html:
    interval = f"{percent(row.low)}{DASH}{percent(row.high)}" if row.low is not None else None
    return el("td", percent(row.value), el("small", interval) if interval else None, class_="n")


def _rest(row: Result, controlled: bool) -> Iterator[Html]:
    yield _accuracy(row)
    yield el("td", against_chance(row))
    yield el("td", percent(row.chance), class_="n")
    trivial = el("small", row.trivial_name) if row.trivial_name else None
    yield el("td", percent(row.trivial), trivial, class_="n")
    if controlled:
        yield el("td", percent(row.control), class_="n")
    for number in (row.n, row.left_out, row.failed):
        yield el("td", f"{number:,}", class_="n some" if number else "n none")


def against_chance(row: Result) -> Html:
    """On which side of chance the whole interval lies, and Wilson's too: a bootstrap of few cases
    is too narrow, and of no width at all where they agree."""
    if row.value is None or row.low is None or row.high is None or row.chance is None:
        return el("span", DASH, class_="quiet")
    counted = wilson(row.value * row.n, row.n)
    if counted is None:
        return el("span", DASH, class_="quiet")
    if min(row.low, counted.low) > row.chance:
        return el("span", "▲ above", class_="good")
    if max(row.high, counted.high) < row.chance:
        return el("span", "▼ below", class_="bad")
    return el("span", "≈ as chance", class_="quiet")


def other_metrics(sheet: Sheet) -> Html | None:
    rows = [r for r in sheet.run.record.results if r.metric != "accuracy"]
    if not rows:
        return None
    lines = []
    for r in rows:
        value = DASH if r.value is None else f"{r.value:.3f}"
        interval = DASH if r.low is None or r.high is None else f"{r.low:.3f}{DASH}{r.high:.3f}"
        chance = DASH if r.chance is None else f"{r.chance:.3f}"
        words = (sheet.name((r.decider, r.model)), r.metric, r.target)
        numbers = (value, interval, chance, f"{r.n:,}", f"{r.left_out:,}", f"{r.failed:,}")
        lines.append(line(words, numbers))
    names = ["decider", "metric", "target", "value", "95 % interval", "chance"]
    names += ["n", "left out", "failed"]
    return join([el("h3", "Other metrics"), simple_table(names, 3, lines)])


# --- pairs ----------------------------------------------------------------------------------------


def yardstick(sheet: Sheet, pair: Pair) -> Pair:
    """What a decider is compared with: `baseline`, else the first; on the same model if it can."""
    name = "baseline" if any(d == "baseline" for d, _ in sheet.pairs) else sheet.pairs[0][0]
    return (name, pair[1]) if (name, pair[1]) in sheet.judged else _first(sheet, name)


def _first(sheet: Sheet, decider: str) -> Pair:
    return next(pair for pair in sheet.pairs if pair[0] == decider)


def comparisons(sheet: Sheet) -> tuple[list[tuple[Pair, Pair, Comparison]], list[str]]:
    """(decider, yardstick, how they differ), and why others could not be compared."""
    columns: dict[Pair, Column] = {}
    made: list[tuple[Pair, Pair, Comparison]] = []
    without: list[str] = []
    for pair in sheet.pairs:
        other = yardstick(sheet, pair)
        if pair == other or pair not in sheet.judged or other not in sheet.judged:
            continue
        for one in (pair, other):
            if one not in columns:
                columns[one] = column(sheet.name(one), sheet.run, sheet.judged[one])
        try:
            made.append((pair, other, compare_two(columns[other], columns[pair])))
        except PlanError as error:
            without.append(str(error))
    adjusted = with_holm([c for _, _, c in made])
    return [(a, b, c) for (a, b, _), c in zip(made, adjusted, strict=True)], without


def comparison_table(sheet: Sheet) -> Html:
    made, without = comparisons(sheet)
    lines = []
    for pair, other, c in made:
        grouped = c.p if c.p_grouped is None else c.p_grouped
        missing = c.left_out + c.failed_a + c.failed_b
        words = (sheet.name(pair), sheet.name(other), _verdict(c))
        cells = (
            percent(c.accuracy_b),
            percent(c.accuracy_a),
            _difference(c),
            _p(grouped),
            _p(c.p_holm),
            f"{c.only_b:,}",
            f"{c.only_a:,}",
            f"{c.n:,}",
            f"{missing:,}",
        )
        lines.append(line(words, cells))
    names = ["decider", "against", "difference shown", "its accuracy", "the other's"]
    names += ["difference, points", "p", "p (Holm)", "only it right", "only the other right"]
    names += ["pairs", "not counted"]
    parts: list[Part] = [simple_table(names, 3, lines)] if lines else []
    parts += [el("p", said, class_="quiet") for said in without]
    return join(parts or [el("p", "There is only one decider, so nothing to compare.")])


def _difference(c: Comparison) -> Html:
    if c.difference is None:
        return join([DASH])
    value, low, high = (100 * x for x in c.difference)
    return join([f"{value:+.1f}", el("small", f"{low:+.1f} to {high:+.1f}")])


def _verdict(c: Comparison) -> Html:
    """Only where interval and p, adjusted if there is more than one, agree."""
    p = next((p for p in (c.p_holm, c.p_grouped, c.p) if p is not None), None)
    if c.difference is None or p is None:
        return el("span", "not known", class_="quiet")
    if c.difference.low > 0 and p < 0.05:
        return el("span", "▲ better", class_="good")
    if c.difference.high < 0 and p < 0.05:
        return el("span", "▼ worse", class_="bad")
    return el("span", "≈ none shown", class_="quiet")


def _p(p: float | None) -> str:
    if p is None:
        return DASH
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


# --- how decisions came out -----------------------------------------------------------------------


def status_table(sheet: Sheet) -> Html:
    order = ("ok", "tied", "invalid", "truncated", "refused", "timeout", "unreachable")
    found = [s for s in order if any(c[s] for c in sheet.statuses.values()) or s in order[:2]]
    lines = []
    for pair in sheet.pairs:
        counts = sheet.statuses.get(pair)
        if counts is not None:
            numbers = (f"{counts[s]:,}" for s in found)
            lines.append(line((sheet.name(pair),), (*numbers, f"{counts.total():,}")))
    return simple_table(["decider", *found, "decisions"], 1, lines)


def simple_table(names: Sequence[str], words: int, lines: Sequence[Html]) -> Html:
    """The first columns, as many as `words`, hold words; the others numbers."""
    return scrolling(el("table", _names(names, words), el("tbody", *lines), class_="numbers"))


def _names(names: Sequence[str], words: int, but: str = "") -> Html:
    cells = (
        el("th", name, scope="col", class_=None if i < words or name == but else "n")
        for i, name in enumerate(names)
    )
    return el("thead", el("tr", *cells))


def line(words: Sequence[Part], numbers: Sequence[Part]) -> Html:
    first, *others = words
    return el(
        "tr",
        el("th", first, scope="row"),
        *(el("td", word) for word in others),
        *(el("td", number, class_="n") for number in numbers),
    )


def scrolling(table: Html) -> Html:
    """What is too wide for a page scrolls in a box of its own, also by keyboard."""
    return el("div", table, class_="scroll", tabindex=0)
