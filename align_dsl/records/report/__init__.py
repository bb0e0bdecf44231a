"""A run -> one HTML page that needs nothing else: no network, no script, no other file.

sheet.py says what is shown, numbers.py, forest.py and card.py show it, html.py escapes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from align_dsl.errors import counted
from align_dsl.records.record import Judgement, Recorded
from align_dsl.records.report import forest, numbers
from align_dsl.records.report.card import aim, card, clipped, letter, outcome
from align_dsl.records.report.html import DASH, Html, Part, el, join, page, section
from align_dsl.records.report.sheet import Disagreement, Fetch, Sheet, sheet

NAME = 200  # characters shown of a name that came out of a file


def report(
    run: Recorded,
    notes: Mapping[str, str] | None = None,
    judgements: Iterable[Judgement] | None = None,
    fetch: Fetch | None = None,
) -> str:
    """`notes`: model -> how to name it, such as "embedded: no LLM". A run that came without
    judgements has them passed through here, and says how to fetch those of one scenario."""
    if judgements is None or fetch is None:
        judgements, fetch = run.judgements, _in_memory(run.judgements)
    light = run.model_copy(update={"judgements": ()})
    return str(_page(sheet(light, judgements, fetch, notes or {})))


def _in_memory(judgements: Sequence[Judgement]) -> Fetch:
    by_scenario: defaultdict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        by_scenario[judgement.decision.scenario].append(judgement)
    return lambda scenario: by_scenario[scenario]


def _page(made: Sheet) -> Html:
    record = made.run.record
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    parts = (_head, _forest, _table, _comparisons, _outcomes, _one, _disagreements, _foot)
    return page(f"{record.program}: run {record.id}", css, (part(made) for part in parts))


# --- what was run ---------------------------------------------------------------------------------


def _head(made: Sheet) -> Html:
    record, cost = made.run.record, made.run.record.cost
    about = made.run.program.get("about")
    tokens = f"{counted(cost.prompt_tokens, 'token')} in, {cost.completion_tokens:,} out"
    facts: dict[str, Part] = {
        "run": record.id,
        "date": record.created.replace("T", " ").replace("+00:00", " UTC"),
        "status": _status(made),
        "program": join([record.source, el("span", " ", record.program_digest, class_="quiet")]),
        "models": _models(made),
        "cases": f"{len(made.run.cases):,}, with {counted(len(record.targets), 'target')}",
        "seed": record.seed,
        "selection": ", ".join(f"{k}: {_said(v)}" for k, v in record.selection.items()) or None,
        "cost": f"{counted(cost.calls, 'call')}, {tokens}, {cost.seconds:,.1f} s of waiting",
        "versions": ", ".join(f"{k} {v}" for k, v in record.versions.items()),
    }
    rows = [join([el("dt", k), el("dd", v)]) for k, v in facts.items() if v is not None]
    return el(
        "header",
        el("p", "align-dsl report", class_="kind"),
        el("h1", record.program),
        el("p", clipped(about, 1_000), class_="about") if about else None,
        el("dl", *rows),
    )


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


def _status(made: Sheet) -> Html:
    record = made.run.record
    status = record.stands
    counts = ", ".join(f"{n:,} {kind}" for kind, n in sorted(record.counts.items(), key=_by_status))
    kind = "good" if status == "ok" else "bad"
    said = el("span", status, class_=kind)
    return join([said, f"; decisions: {counts}" if counts else None])


def _by_status(item: tuple[str, int]) -> tuple[int, str]:
    return {"ok": 0, "tied": 1}.get(item[0], 2), item[0]


def _models(made: Sheet) -> Html:
    names = list(dict.fromkeys([*made.run.record.models, *made.models]))
    return join(
        (
            join([made.model(name), el("span", " ", fingerprint or "", class_="quiet")])
            for name in names
            for fingerprint in [made.run.record.models.get(name)]
        ),
        ", ",
    )


# --- numbers --------------------------------------------------------------------------------------


def _forest(made: Sheet) -> Html:
    rows = numbers.accuracies(made)
    panels = []
    names = numbers.attributes(rows)
    for number, name in enumerate(
        [n for n in ("all",) if n in names] + [n for n in names if n != "all"]
    ):
        mine = [
            numbers.widest(
                [r for r in rows if r.attribute == name and (r.decider, r.model) == pair]
            )
            for pair in made.pairs
            if any(r.attribute == name and (r.decider, r.model) == pair for r in rows)
        ]
        title = "mean of attributes" if name == "all" else name
        panels.append(forest.panel(made, title, mine, number))
    if not panels:
        said = "There are no results: the run is not finished, or nothing could be scored."
        return section("Accuracy", el("p", said), name="accuracy")
    return section(
        "Accuracy",
        forest.legend(any(r.control is not None for r in rows)),
        el("div", *panels, class_="panels"),
        name="accuracy",
    )


def _table(made: Sheet) -> Html | None:
    if not made.run.record.results:
        return None
    return section(
        "In numbers",
        el(
            "p",
            "Accuracy in %, with its 95 % interval below it. Correct is the choice nearest to the"
            " target by the labels. Chance and the best trivial decider (always the first, last,"
            " longest or shortest choice) are those of the very same cases. “Above” and “below” are"
            " said only where the whole interval lies on that side of chance, and Wilson's for as"
            " many decisions too; even so, about one in twenty deciders without insight will look"
            " like that. n: decisions scored; left out: labels cannot tell right from"
            " wrong; failed: no decision came.",
            class_="note",
        ),
        numbers.accuracy_table(made),
        numbers.other_metrics(made),
        name="numbers",
    )


def _comparisons(made: Sheet) -> Html | None:
    if not made.judged:
        return None
    return section(
        "Deciders compared",
        el(
            "p",
            "Each decider against the yardstick, on the very cases and targets that both have"
            " decided; all pairs count the same here. The interval draws whole groups of cases;"
            " p turns round the signs of whole groups (exact McNemar where each pair is a group of"
            " its own), and Holm's allows for having looked at all of them. A difference is shown"
            " where the interval excludes 0 and p (Holm's, if there is one) is below 0.05. Not"
            " counted: labels cannot tell, or one of the two failed.",
            class_="note",
        ),
        numbers.comparison_table(made),
        name="compared",
    )


def _outcomes(made: Sheet) -> Html | None:
    if not made.judged:
        return None
    failed = [
        el(
            "details",
            el(
                "summary",
                el("b", d.decider),
                " on ",
                made.model(d.model),
                ": ",
                _place(j),
                " ",
                outcome(j),
            ),
            card(made, d.scenario, j.target, [j]),
        )
        for j in made.failed
        for d in [j.decision]
    ]
    missing = sum(
        n for c in made.statuses.values() for s, n in c.items() if s not in ("ok", "tied")
    )
    shown = (
        f"{counted(missing, 'decision')} failed; {len(failed):,} of them in full:"
        if failed
        else None
    )
    return section(
        "Ties and failures",
        el(
            "p",
            "A tie is several equally good choices, one of which the seed takes: it tells nothing"
            " of the decider, and counts as it falls. A failure is never replaced by a choice.",
            class_="note",
        ),
        numbers.status_table(made),
        el("p", shown or "No decision failed."),
        *failed,
        name="outcomes",
    )


# --- decisions ------------------------------------------------------------------------------------


def _one(made: Sheet) -> Html | None:
    """The most telling question; where all agree, the first that was decided."""
    listed = made.disagreements
    first = next(
        (j for js in made.judged.values() for j in js if j.decision.choice is not None), None
    )
    if not listed and first is None:
        return None
    if listed:
        scenario, target = listed[0].scenario, listed[0].target
        why = "The question on which the deciders differ most tellingly."
    else:
        assert first is not None
        scenario, target = first.decision.scenario, first.target
        why = "Nowhere do deciders differ; this is the first question."
    return section(
        "One decision in full",
        el("p", why, " ", _reading(), class_="note"),
        el(
            "article",
            el("h3", _place_of(made, scenario, target)),
            card(made, scenario, target, made.in_full(scenario, target)),
            class_="card",
        ),
        name="one",
    )


def _reading() -> str:
    return (
        "Bars are ratings, from the low to the high end of the scale; the line across is the"
        " target, the ring the label. Letters stand for the choices in the order of the data; in"
        " its own words a model may name them by the order in which it was shown them."
    )


def _disagreements(made: Sheet) -> Html | None:
    if len(made.pairs) < 2:
        return None
    listed = made.disagreements
    rest = made.disagreeing - len(listed)
    questions = counted(made.questions, "question")
    said = (
        f"On {made.disagreeing:,} of {questions} (a scenario and a target) the"
        " deciders did not all choose the same."
    )
    if rest > 0:
        others = f"{rest:,} more {'is' if rest == 1 else 'are'} not"
        said += f" Listed are the {len(listed)} most informative; {others}."
    said += " First come those on which the seed broke no tie and some are right, some wrong."
    if made.label_readers:
        readers = ", ".join(sorted(made.label_readers))
        said += f" What reads the labels ({readers}) is shown, but does not count as disagreeing."
    return section(
        "Where deciders disagree",
        el("p", said, class_="note"),
        *(_disagreement(made, one) for one in listed),
        name="disagreements",
    )


def _disagreement(made: Sheet, one: Disagreement) -> Html:
    case = made.cases.get(one.scenario)
    chose: dict[str | None, list[Judgement]] = {}
    for judgement in one.judgements:
        chose.setdefault(judgement.decision.choice, []).append(judgement)
    sides = []
    for choice, judged in sorted(chose.items(), key=lambda item: _order(item[1][0])):
        names = join((_chooser(made, j) for j in judged), ", ")
        place = letter(case, choice) if case else clipped(choice or DASH, NAME)
        verdict = _verdict(judged)
        sides.append(el("span", el("b", place), " ", verdict, " ", names, class_="side"))
    summary = el(
        "summary", _place_of(made, one.scenario, one.target), el("span", *sides, class_="sides")
    )
    full = made.in_full(one.scenario, one.target)
    return el("details", summary, card(made, one.scenario, one.target, full))


def _order(judgement: Judgement) -> float:
    """Choices as the data has them, what chose none last."""
    return float("inf") if judgement.index is None else judgement.index


def _verdict(judged: Sequence[Judgement]) -> Html:
    """Of all that chose the same: choices are right or wrong, whoever made them."""
    first = judged[0]
    if first.decision.choice is None:
        return el("span", "no decision", class_="bad")
    if first.correct is None:
        return el("span", "labels cannot tell", class_="quiet")
    right = first.correct
    return el("span", "✓ right" if right else "✗ wrong", class_="good" if right else "bad")


def _chooser(made: Sheet, judgement: Judgement) -> Html:
    d = judgement.decision
    said = {"ok": "", "tied": " (tie)"}.get(d.status, f" ({d.status})")
    return join(
        [made.name((d.decider, d.model)), el("span", said, class_="quiet") if said else None]
    )


def _place(judgement: Judgement) -> Html:
    return clipped(f"{judgement.decision.scenario}, {judgement.target}", NAME)


def _place_of(made: Sheet, scenario: str, target: str) -> Html:
    stands = aim(made, made.targets.get(target))
    return join(
        [
            el("span", clipped(scenario, NAME), class_="where"),
            el("span", " target: ", clipped(stands or target, NAME), class_="quiet"),
        ]
    )


def _foot(made: Sheet) -> Html:
    decisions = counted(made.decisions, "decision")
    return el(
        "footer",
        el(
            "p",
            f"The run holds {decisions}; only those above are shown one by one."
            " All of them, for a spreadsheet or another program: ",
            el("code", f"align-dsl export {made.run.record.id} --format csv"),
        ),
    )
