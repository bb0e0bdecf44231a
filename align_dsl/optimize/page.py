"""A study -> one HTML page that needs nothing else: what came of it, and how it came about.

figures.py says what is drawn, chart.py draws it; the names and texts of a study come from files,
and html.py escapes them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from align_dsl.errors import counted
from align_dsl.optimize.accuracy import percent, points, spread
from align_dsl.optimize.aims import COSTS
from align_dsl.optimize.done import Done
from align_dsl.optimize.figures import costs, effects, listed, search, table
from align_dsl.optimize.looked import Looked
from align_dsl.optimize.row import cost, number, shown
from align_dsl.optimize.verdict import Verdict
from align_dsl.records import report
from align_dsl.records.report import html
from align_dsl.records.report.html import Html, Part, el, join, section
from align_dsl.records.report.numbers import line, simple_table

VALUE = 200  # characters shown of a value


def page(
    name: str, facts: Mapping[str, Any], done: Sequence[Done], paid: tuple[int, int], looks: int
) -> str:
    """`looks`: how often anybody has looked at the test cases of this study."""
    made = Looked(name, facts, done, paid, looks)
    css = Path(report.__file__).with_name("style.css").read_text(encoding="utf-8")
    css += Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    parts = (_head, _outcome, search, costs, effects, _trials, _provenance)
    title = f"{facts.get('program', '')}: study {name}"
    return str(html.page(title, css, (part(made) for part in parts)))


def _head(made: Looked) -> Html:
    facts = made.facts
    whole = sum(d.score is not None and not d.pruned for d in made.done)
    counts = {
        "whole": whole,
        "pruned": sum(d.pruned for d in made.done),
        "failed": sum(d.score is None and d.is_allowed for d in made.done),
        "over the limits": sum(not d.is_allowed for d in made.done),
    }
    said = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
    limits = ", ".join(f"{most:,g} {what}" for what, most in made.aims.at_most.items())
    rows: dict[str, Part] = {
        "study": made.name,
        "date": str(facts.get("created", "")).replace("T", " ").replace("+00:00", " UTC"),
        "decider": str(facts.get("decider", "")),
        "model": str(facts.get("model", "")),
        "searched for": listed(made.aims.objectives),
        "at most": f"{limits} a decision" if limits else None,
        "trials": f"{len(made.done):,}: {said}" if made.done else None,
        "candidates": f"{made.tried:,}" if made.by_dspy and made.tried else None,
        "cost": f"{counted(made.paid[0], 'call')}, {counted(made.paid[1], 'token')},"
        f" {sum(d.seconds for d in made.done):,.0f} s of trials",
    }
    items = [join([el("dt", k), el("dd", v)]) for k, v in rows.items() if v]
    return el(
        "header",
        el("p", "align-dsl study", class_="kind"),
        el("h1", str(facts.get("program", ""))),
        el("dl", *items),
    )


# --- what came of it ------------------------------------------------------------------------------


def _outcome(made: Looked) -> Html:
    parts: list[Part] = [el("p", *_conclusion(made), class_="outcome")]
    if made.verdict is not None:
        parts += [el("p", said, class_="plain") for said in _in_words(made, made.verdict)]
    parts.append(_changes(made))
    return section("What came of it", *parts, name="outcome")


def _conclusion(made: Looked) -> Iterator[Part]:
    verdict = made.verdict
    if verdict is not None:
        good = verdict.is_better
        yield el("span", "Better: " if good else "Not better: ", class_="good" if good else "bad")
        yield f"{verdict.why}."
    elif made.by_dspy and not made.facts.get("chosen"):
        is_over = "chosen" in made.facts
        yield "DSPy came back with the decider as it was." if is_over else "DSPy is still at work."
    elif made.by_dspy:
        yield "DSPy came back with something, but no verdict was given yet."
    elif made.chosen is None:
        yield "The search has not come to its end yet: nothing was chosen."
    elif not made.chosen.is_allowed:
        yield "Nothing that was tried keeps to the limits."
    elif made.default is not None and made.chosen.number == made.default.number:
        yield "Nothing looked better than the file's own settings on the train cases."
    else:
        yield "A configuration was chosen, but no verdict was given yet."
    if verdict is None:
        yield " The test cases were not looked at."


def _in_words(made: Looked, verdict: Verdict) -> Iterator[str]:
    value, low, high = verdict.gain
    yield (
        f"On {counted(verdict.groups, 'case')} that no trial saw"
        f" ({counted(verdict.questions, 'question')}), the"
        f" file's own settings are right in {percent(verdict.default)} and the chosen ones in"
        f" {percent(verdict.winner)}: {points(value)}, 95 % interval {spread(low, high)},"
        f" p {verdict.p:.2g}. Questions won: {verdict.only_winner:,}, lost:"
        f" {verdict.only_default:,}."
    )
    if any(verdict.calls) or any(verdict.tokens):
        said = []
        for name in COSTS:
            before, after = verdict.each(name)
            said.append(f"{cost(name, after)} instead of {number(name, before)}")
        yield f"A decision needs {' and '.join(said)}."
    if any(verdict.failed):
        before, after = verdict.failed
        yield (
            f"{counted(before, 'question')} failed with the file's own settings and {after:,} with"
            " the chosen ones: there was no answer that could be used. They count as wrong."
        )
    if verdict.looks > 1:
        yield (
            f"This was look {verdict.looks} at these test cases. Whoever looks often finds"
            " something by luck, so the interval was asked to be surer:"
            f" {spread(*verdict.sure[1:])}."
        )
    times = "once" if made.looks <= 1 else f"{made.looks:,} times"
    yield f"So far these test cases were looked at {times}, all searches together."


def _changes(made: Looked) -> Html | None:
    before, after = made.facts.get("default"), made.facts.get("chosen")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    lines = []
    for name in dict.fromkeys([*before, *after]):
        if made.by_dspy and name not in after:
            continue  # it was not for that to change
        same = name in before and name in after and before[name] == after[name]
        old = _value(before, name)
        new = el("span", "the same", class_="quiet") if same else el("b", _value(after, name))
        lines.append(line((name, old, new), ()))
    if not lines:
        return None
    title = f"chosen (trial {made.chosen.number})" if made.chosen else "chosen"
    return el("div", simple_table(["setting", "in the file", title], 3, lines), class_="values")


def _value(config: Mapping[str, Any], name: str) -> Html:
    if name not in config:
        return el("span", "has no effect", class_="quiet")
    if isinstance(config[name], list):
        return html.text(counted(len(config[name]), "worked example"))
    return html.text(shown(config[name], VALUE))


def _trials(made: Looked) -> Html | None:
    if not made.done:
        return None
    note = (
        "Accuracy on the train cases. Calls and tokens: what a decision needs on average."
        " What was given up early has an estimate, and no interval. One of no width means that all"
        " cases agree, and says too little."
    )
    return section(
        "Every trial",
        el("p", note, made.cut, class_="note"),
        table(made, made.listed),
        name="trials",
    )


# --- where it comes from --------------------------------------------------------------------------


def _provenance(made: Looked) -> Html:
    facts = made.facts
    rows: dict[str, Part] = {
        "program": join(
            [
                str(facts.get("source", "")),
                el("span", " ", str(facts.get("digest", "")), class_="quiet"),
            ]
        ),
        "sampler": f"{facts.get('sampler', '')}, seed {facts.get('seed', '')}",
        "train cases": f"{len(set(facts.get('groups', ()))):,} independent,"
        f" {counted(len(facts.get('groups', ())), 'question')}, {facts.get('train', '')}",
        "test cases": str(facts.get("test", "")),
        "looks at them": f"{made.looks:,}",
    }
    space = [
        line((name, str(said)), ()) for name, said in dict(facts.get("dimensions", {})).items()
    ]
    items = [join([el("dt", k), el("dd", v)]) for k, v in rows.items()]
    return section(
        "Where it comes from",
        el("dl", *items),
        el("h3", "What was varied"),
        simple_table(["setting", "over"], 2, space) if space else None,
        el(
            "footer",
            el(
                "p",
                "The same in a terminal: ",
                el("code", f"align-dsl studies show {made.name} --trials"),
            ),
        ),
        name="provenance",
    )
