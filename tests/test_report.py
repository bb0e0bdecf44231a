"""The report: its numbers are the record's, its words are only words, its size has bounds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from align_dsl.commands.report import command
from align_dsl.errors import PlanError, StoreError
from align_dsl.records.compare import column, compare_two
from align_dsl.records.judge import judge
from align_dsl.records.record import Cost, Judgement, Recorded, RunRecord
from align_dsl.records.report import report
from align_dsl.records.report.card import SCENARIO
from align_dsl.records.report.html import POLICY
from align_dsl.records.report.numbers import against_chance
from align_dsl.records.report.sheet import LISTED
from align_dsl.records.results import results
from align_dsl.records.store import Store
from align_dsl.records.table import percent
from align_dsl.types import Case, Choice, Decision, Failure, Rating, Scenario, Target, Vote

GOLDEN = Path(__file__).parent / "report" / "tiny.html"
NOTES = {"embedded": "embedded: no LLM"}

HOSTILE = (
    "</title><script>document.title='owned'</script>",
    '"><img src=http://canary.invalid/x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</style><style>@import 'http://canary.invalid/s'</style>",
    "--><svg onload=alert(1)><!--",
    "\u202egnp.exe \u2066\u200f",
    "NUL \x00 ESC \x1b[31m OSC \x1b]0;owned\x07 DEL \x7f C1 \x9b \r\n\t.",
    "lone \ud800 surrogate \ufeff",
    "{{7*7}} ${7*7} <% %> &lt;b&gt; &#60;",
    "</pre></details></main></body></html><h1>forged</h1>",
)


def tiny(word: Callable[[str], str] = str, *, cases: int = 4) -> Recorded:
    """Three deciders, two attributes, both ends; a tie, a failure, a control. `word` may change
    whatever comes out of a file or a model."""
    names = [word("fairness"), word("risk")]
    targets = tuple(
        Target(name=f"{name}_{end}", values={name: value})
        for name in names
        for end, value in (("low", 0.0), ("high", 1.0))
    )
    held = tuple(_case(word, i, names[i % 2]) for i in range(cases))
    judged = list(_judged(word, held, targets, names))
    shown = [j for j in judged if not j.control]
    model = word("embedded")
    record = RunRecord(
        id=word("tiny-0123456789"),
        program=word("tiny"),
        program_digest=word("d1"),
        source=word("programs/tiny.yaml"),
        created=word("2026-01-02T03:04:05+00:00"),
        status="ok",
        seed=7,
        selection={word("limit"): cases, word("only"): [word("baseline")], "control": True},
        versions={word("align-dsl"): word("0.1.0")},
        models={model: word("fingerprint")},
        deciders=tuple(map(word, ("baseline", "regression", "oracle"))),
        targets=targets,
        jobs=12,
        counts={"ok": sum(j.decision.status == "ok" for j in shown), word("tied"): 2},
        results=results(
            shown,
            {c.scenario.id: c for c in held},
            targets,
            {(word("regression"), model): (12, 3456)},
            [j for j in judged if j.control],
        ),
        cost=Cost(calls=12, prompt_tokens=3000, completion_tokens=456, seconds=1.5),
    )
    program = {
        "about": word("A tiny program."),
        "attributes": [{"name": n, "scale": {"low": 0, "high": 10, "step": 1}} for n in names],
        "deciders": [
            {"name": word("oracle"), "steps": [{"takes": {"labels": "labels"}}]},
            {"name": word("baseline"), "steps": [{"takes": {"scenario": "scenario"}}]},
        ],
        "models": [{"name": model, "backend": "embedded"}],
    }
    return Recorded(record=record, program=program, cases=held, judgements=tuple(judged))


def _case(word: Callable[[str], str], i: int, name: str) -> Case:
    texts = {"a": "Help the first.", "b": "Help the others, slowly.", "c": "Wait."}
    choices = tuple(Choice(id=word(k), text=word(t)) for k, t in texts.items())
    labels = {c.id: {name: v} for c, v in zip(choices, (0.9, 0.4, 0.1), strict=True)}
    scenario = Scenario(id=word(f"s{i}"), text=word(f"Who goes first, case {i}?"), choices=choices)
    return Case(scenario=scenario, labels=labels, group=word(f"g{i}"))


def _judged(
    word: Callable[[str], str],
    cases: tuple[Case, ...],
    targets: tuple[Target, ...],
    names: list[str],
) -> Iterator[Judgement]:
    for i, case in enumerate(cases):
        for target in targets:
            if not target.values.keys() <= case.attributes():
                continue
            ids = [c.id for c in case.scenario.choices]
            best = ids[0] if target.name.endswith("high") else ids[2]
            for decider in ("baseline", "regression", "oracle"):
                decision = _decision(word, decider, case, target, ids, best, i)
                yield judge(decision, case, target)
                if decider == "regression":
                    other = next(t for t in targets if not t.values.keys() & target.values.keys())
                    aimed = decision.model_copy(update={"target": other.name, "choice": ids[1]})
                    yield judge(aimed, case, target)


def _decision(
    word: Callable[[str], str],
    decider: str,
    case: Case,
    target: Target,
    ids: list[str],
    best: str,
    i: int,
) -> Decision:
    common: dict[str, Any] = {
        "decider": word(decider),
        "model": word("embedded"),
        "target": target.name,
        "scenario": case.scenario.id,
    }
    if decider == "baseline":
        votes = (Vote(choice=ids[0], why=word("It comes first.")),)
        return Decision(
            status="tied", choice=ids[0], votes=votes, weights=dict.fromkeys(ids, 1 / 3), **common
        )
    if decider == "regression" and i == 1:
        lost = Failure(
            status="invalid", message=word("the answer lacks ratings"), raw=word("{} and so")
        )
        return Decision(status="invalid", failures=(lost, lost), **common)
    if decider == "oracle":
        return Decision(status="ok", choice=best, weights={best: 1.0}, **common)
    name = next(iter(target.values))
    ratings = tuple(
        Rating(choice=c, attribute=name, value=v, why=word(f"Because of case {i}."))
        for c, v in zip(ids, (0.8, 0.5, 0.25), strict=True)
    )
    choice = best if i % 3 == 0 else ids[1]
    return Decision(status="ok", choice=choice, weights={choice: 1.0}, ratings=ratings, **common)


class Page(HTMLParser):
    """Elements as they come, the words of the page, and its tables as rows of cells."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[tuple[str, list[str]]] = []  # class of the row, texts of its cells
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append((dict(attrs).get("class") or "", []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][1][-1] += f" {data}" if self.rows[-1][1][-1] else data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def accuracies(self) -> dict[tuple[str, str], list[str]]:
        """(decider, attribute) -> the cells of that row of the table."""
        found: dict[tuple[str, str], list[str]] = {}
        decider = ""
        for kind, cells in self.rows:
            if kind == "who":
                decider = cells[0].split(" ")[0]
            elif decider and len(cells) == 11:
                found[decider, cells[0]] = cells[1:]
        return found


# --- what it says ---------------------------------------------------------------------------------


def test_golden() -> None:
    page = report(tiny(), NOTES)
    if os.environ.get("UPDATE_EXPECT") == "1":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8"), "UPDATE_EXPECT=1 pytest tests/test_report.py"


def test_every_number_is_the_record_s() -> None:
    run = tiny(cases=6)
    table = Page(report(run, NOTES)).accuracies()
    rows = [r for r in run.record.results if r.target in ("both", "all")]
    assert len(table) == len(rows) == 9
    for r in rows:
        title = "mean of attributes" if r.attribute == "all" else r.attribute
        low, high, both, _, chance, trivial, control, n, left_out, failed = table[r.decider, title]
        interval = f" {percent(r.low)}\u2013{percent(r.high)}" if r.low is not None else ""
        assert both == percent(r.value) + interval
        assert chance == percent(r.chance)
        assert trivial == f"{percent(r.trivial)} {r.trivial_name}"
        assert control == percent(r.control)
        assert [n, left_out, failed] == [str(r.n), str(r.left_out), str(r.failed)]
        for cell, end in ((low, "low"), (high, "high")):
            one = [x for x in run.record.results if x.target == f"{r.attribute}_{end}"]
            mine = next((x for x in one if x.decider == r.decider), None)
            assert cell.split(" ")[0] == (percent(mine.value) if mine else "")


def test_forest_has_a_row_for_each_decider_and_attribute() -> None:
    run = tiny()
    page = report(run, NOTES)
    panels = re.findall(r'<svg viewBox="0 0 520.*?</svg>', page, re.S)
    assert len(panels) == 3  # the mean, and two attributes
    for panel in panels:
        assert panel.count("<g>") == 3
        assert panel.count('class="chance"') == 3
        assert "<title id=" in panel
        assert "<desc id=" in panel
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_what_is_no_language_model_says_so_beside_its_numbers() -> None:
    page = Page(report(tiny(), NOTES))
    assert all("embedded: no LLM" in cells[0] for kind, cells in page.rows if kind == "who")
    assert page.text.count("on embedded: no LLM") >= 3 + 3 * 3


def test_comparisons_are_those_of_compare() -> None:
    run = tiny(cases=9)
    by = {
        name: column(
            name, run, [j for j in run.judgements if j.decision.decider == name and not j.control]
        )
        for name in ("baseline", "regression", "oracle")
    }
    rows = [cells for _, cells in Page(report(run, NOTES)).rows if cells[1:2] == ["baseline"]]
    assert [cells[0] for cells in rows] == ["regression", "oracle"]
    for cells in rows:
        expected = compare_two(by["baseline"], by[cells[0]])
        assert expected.difference is not None
        value, low, high = (100 * x for x in expected.difference)
        assert cells[5] == f"{value:+.1f} {low:+.1f} to {high:+.1f}"
        assert cells[8:11] == [str(expected.only_b), str(expected.only_a), str(expected.n)]


def test_a_bootstrap_of_no_width_does_not_make_a_decider_better_than_chance() -> None:
    row = next(r for r in tiny().record.results if r.target == "both")
    halves = {"value": 0.5, "low": 0.5, "high": 0.5, "chance": 0.4}
    few, many = (row.model_copy(update={**halves, "n": n}) for n in (16, 1600))
    assert "as chance" in against_chance(few)
    assert "above" in against_chance(many)


def test_ties_and_failures_are_plain_to_see() -> None:
    page = Page(report(tiny(), NOTES))
    assert "(tie, broken by seed)" in page.text
    assert "2 decisions failed; 2 of them in full" in page.text
    assert "the answer lacks ratings (2 times)" in page.text
    assert "{} and so" in page.text


def test_the_oracle_is_shown_but_does_not_disagree() -> None:
    page = Page(report(tiny(), NOTES))
    # of 8 questions the regression takes another choice than the baseline on 4, and fails on 2
    assert "On 4 of 8 questions" in page.text
    assert "What reads the labels (oracle) is shown" in page.text


def test_at_most_so_many_disagreements_are_listed() -> None:
    run = tiny(cases=60)
    page = report(run, NOTES)
    said = re.search(r"On (\d+) of 120 .* Listed are the 50 most informative; (\d+) more", page)
    assert said is not None
    assert int(said[1]) - int(said[2]) == LISTED
    assert page.count('class="sides"') == LISTED
    assert f"align-dsl export {run.record.id}" in page


def test_an_interrupted_run_has_a_page_too() -> None:
    run = tiny()
    bare = run.record.model_copy(update={"results": (), "status": "interrupted", "counts": {}})
    for record, judgements in ((bare, ()), (bare, run.judgements), (run.record, ())):
        changed = run.model_copy(update={"record": record, "judgements": judgements})
        assert Page(report(changed, NOTES)).open == []


# --- words are words ------------------------------------------------------------------------------


def hostile(word: str) -> str:
    """All of the corpus around a word, in an order of its own; equal words stay equal."""
    turn = sum(map(ord, word)) % len(HOSTILE)
    return HOSTILE[turn] + word + HOSTILE[turn - 1]


def test_hostile_text_changes_no_element_and_leaves_no_control_character() -> None:
    page = report(tiny(hostile), {})
    plain, attacked = Page(report(tiny(), {})), Page(page)
    assert attacked.elements == plain.elements
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page
    )
    assert "<U+202E>" in attacked.text
    tags = {tag for tag, _ in attacked.elements}
    assert not tags & {"script", "img", "iframe", "object", "base", "form", "a"}
    assert not [name for _, name, _ in attacked.attributes if name.startswith("on")]
    links = [value for _, name, value in attacked.attributes if name in ("href", "src", "style")]
    assert links == ["data:,"]
    assert ("meta", "content", POLICY) in attacked.attributes


@pytest.mark.parametrize("text", HOSTILE)
def test_each_hostile_text_alone(text: str) -> None:
    attacked = Page(report(tiny(lambda word: word + text), {}))
    assert attacked.elements == Page(report(tiny(), {})).elements


def test_long_texts_are_cut_and_the_rest_counted() -> None:
    long = re.compile(r"Who|Because|\{\}|Help|Wait|the answer|It comes|s\d|A tiny")
    page = report(tiny(lambda word: word + "<&" * 500_000 if long.match(word) else word))
    assert len(page) < 1_500_000
    assert "more characters" in page
    said = next(words for words in Page(page).words if words.startswith("Who goes first"))
    assert len(said) == SCENARIO


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run = tiny()
    with Store.open(tmp_path / "a.db") as opened:
        opened.start(run.record, run.program, run.cases)
        opened.finish(run.record, run.judgements, replace=True)
    return tmp_path / "a.db"


@pytest.mark.parametrize("run", ["last", "tiny-0123456789", "tiny-01"])
def test_command_writes_the_run_s_page(
    run: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    done = CliRunner().invoke(command, [run, "--store", str(store)], catch_exceptions=False)
    assert done.exit_code == 0
    page = (store.parent / "tiny-0123456789.html").read_text(encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8")


def test_command_names_what_is_not_there(store: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no run `other`"):
        CliRunner().invoke(command, ["other", "--store", str(store)], catch_exceptions=False)
    none = ["last", "--store", str(tmp_path / "none.db")]
    with pytest.raises(StoreError, match="there is no store"):
        CliRunner().invoke(command, none, catch_exceptions=False)


# --- in a browser ---------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
@pytest.mark.skipif(sys.platform != "linux", reason="chromium's switches are those of Linux")
def test_a_browser_asks_for_nothing_and_has_nothing_to_complain_of(tmp_path: Path) -> None:
    page, log = tmp_path / "page.html", tmp_path / "net.json"
    page.write_text(report(tiny(hostile), NOTES), encoding="utf-8")
    said = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    dom, errors = said.stdout.decode(), said.stderr.decode()
    assert "CONSOLE" not in errors
    assert "<title>owned" not in dom
    assert "canary.invalid" not in log.read_text(errors="replace")
    assert "One decision in full" in dom
