"""A study's page: its numbers are the study's, its words only words, its charts described."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.commands.outcome import opening, print_trials, summary
from align_dsl.errors import StoreError
from align_dsl.optimize import looked
from align_dsl.optimize.aims import aims_noted
from align_dsl.optimize.chart import Axis, shares, spread
from align_dsl.optimize.choose import Chosen
from align_dsl.optimize.done import Done
from align_dsl.optimize.effects import front, interval
from align_dsl.optimize.page import page
from align_dsl.optimize.run import Outcome
from align_dsl.optimize.sat import Sat, Spent
from align_dsl.optimize.verdict import Verdict
from align_dsl.records.report.html import POLICY
from align_dsl.records.stats import Interval
from tests.test_report import CHROMIUM, HOSTILE, Page, hostile

GOLDEN = Path(__file__).parent / "report" / "study.html"
MARKS = "1101001011"  # the default's, on ten questions


def verdict(**changes: Any) -> Verdict:
    made = Verdict(
        default=0.6,
        winner=0.8,
        gain=(0.2, 0.05, 0.35),
        sure=(0.2, 0.02, 0.38),
        p=0.004,
        p_pairs=0.01,
        only_winner=21,
        only_default=5,
        questions=80,
        groups=40,
        looks=2,
        calls=(80, 160),
        tokens=(8000, 32000),
        decisions=80,
        loss=0.0,
    )
    return replace(made, **changes)


def tiny(
    word: Callable[[str], str] = str, *, trials: int = 8, **changes: Any
) -> tuple[str, dict[str, Any], list[Done], tuple[int, int], int]:
    """A default, better ones and worse, one pruned, one that failed, one over the limit. `word` may
    change whatever comes out of a file."""
    default = {word("shots"): 0, word("rate.instructions"): word("Rate it.")}
    done = [_done(0, default, MARKS)]
    for i in range(1, trials):
        config = {word("shots"): i, word("rate.instructions"): word("Rate it.")}
        right = min(10, 5 + i)
        marks = "1" * right + "0" * (10 - right)
        if i == 3:
            done.append(_done(i, config, marks[:4], pruned=True, score=0.4))
        elif i == 4:
            done.append(_done(i, config, "", score=None, why=word("it cannot be")))
        else:
            over = {"tokens": i / 6 - 1}
            done.append(_done(i, config, marks, spent=(10 + i, 1000 * (i + 1)), over=over))
    facts = {
        "program": word("triage"),
        "source": word("programs/triage.yaml"),
        "decider": word("mine"),
        "model": word("ollama_chat/small"),
        "digest": word("d1"),
        "created": word("2026-01-02T03:04:05+00:00"),
        "seed": 7,
        "sampler": word("tpe"),
        "train": "a1",
        "test": "b2",
        "dimensions": {word("shots"): word("0 to 8")},
        "default": default,
        "groups": [word(f"g{i}") for i in range(10)],
        "weights": [0.1] * 10,
        "attributes": [word("mercy")] * 10,
        "objectives": ["accuracy", "tokens"],
        "at_most": {"tokens": 700.0},
        "chosen": done[min(6, trials - 1)].config,
        "verdict": {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(verdict()).items()
        },
        **changes,
    }
    return word("triage-mine-01234567"), facts, done, (1234, 56789), 3


def _done(
    number: int,
    config: dict[str, Any],
    marks: str,
    *,
    score: float | None = -1.0,
    spent: tuple[int, int] = (10, 1000),
    pruned: bool = False,
    over: dict[str, float] | None = None,
    why: str = "",
) -> Done:
    share = marks.count("1") / 10 if score == -1.0 else score
    sat = Sat(marks, Spent(calls=spent[0], tokens=spent[1], decisions=10))
    return Done(number, (number, 0), config, sat, share, pruned, 1.5, why, over or {})


# --- what it says


def test_golden() -> None:
    made = page(*tiny())
    if os.environ.get("UPDATE_EXPECT") == "1":
        GOLDEN.write_text(made, encoding="utf-8")
    said = "UPDATE_EXPECT=1 pytest tests/test_optimize_page.py"
    assert made == GOLDEN.read_text(encoding="utf-8"), said


def test_every_number_is_the_study_s() -> None:
    name, facts, done, paid, looks = tiny()
    made = Page(page(name, facts, done, paid, looks))
    rows = [cells for _, cells in made.rows if len(cells) == 7 and cells[0].isdigit()]
    listed, best = rows[-len(done) :], rows[: -len(done)]
    assert [r[0] for r in listed] == [str(d.number) for d in done]
    assert [r[0] for r in best] == [str(d.number) for d in front(done, ("accuracy", "tokens"))]
    for cells, one in zip(listed, done, strict=True):
        assert cells[1] == (f"{one.score * 100:.1f}" if one.score is not None else "–")
        span = interval(one, facts)
        wanted = f"{span.low * 100:.1f} – {span.high * 100:.1f}" if span else "–"
        assert cells[2] == wanted
        if one.score is not None:
            assert cells[4] == f"{one.costs['tokens']:,.0f}"
    assert "1,234 calls, 56,789 tokens" in made.text
    assert "This was look 2 at these test cases." in made.text
    assert "looked at 3 times, all searches together" in made.text
    assert "A decision needs 2 calls instead of 1 and 400 tokens instead of 100." in made.text
    assert "+20.0 points, 95 % interval +5.0 to +35.0, p 0.004" in made.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Better: more accurate on cases that no trial saw."),
        ({"sure": (0.2, -0.01, 0.4), "saves": ("tokens",), "loss": 0.01}, "Better: fewer tokens"),
        ({"sure": (0.2, -0.01, 0.4)}, "Not better: the test cases do not show that it is."),
        ({"p": 0.03, "level": 0.025}, "do not show that it is; p may be 0.025 at most."),
        ({"breaks": ("tokens",)}, "Not better: on the test cases it needs more tokens"),
    ],
)
def test_the_verdict_in_plain_words(changes: dict[str, Any], said: str) -> None:
    told = asdict(verdict(**changes))
    assert said in _text(Page(page(*tiny(verdict=told))))


def _text(made: Page) -> str:
    return " ".join(made.text.split())


def test_without_a_verdict_it_says_how_far_it_came() -> None:
    name, facts, done, paid, _ = tiny(verdict=None)
    facts["chosen"] = done[0].config
    said = Page(page(name, facts, done, paid, 0)).text
    assert "Nothing looked better than the file's own settings" in said
    assert "The test cases were not looked at." in said
    del facts["chosen"]
    assert "The search has not come to its end yet" in Page(page(name, facts, done, paid, 0)).text
    assert "No trial has come to its end yet." in Page(page(name, facts, [], (0, 0), 0)).text
    facts["chosen"], over = done[0].config, {"tokens": 0.5}
    done = [replace(done[0], over=over), *(replace(d, over=over) for d in done[1:])]
    said = Page(page(name, facts, done, paid, 0)).text
    assert "Nothing that was tried keeps to the limits." in said


def test_studies_of_earlier_versions_have_a_page_too() -> None:
    """They note no attributes and no objectives, and count no decisions."""
    name, facts, done, paid, looks = tiny()
    for key in ("attributes", "objectives", "at_most", "verdict", "default"):
        del facts[key]
    old = [replace(d, over={}, sat=Sat(d.sat.marks, Spent(calls=3, tokens=70))) for d in done]
    assert Page(page(name, facts, old, paid, looks)).open == []


def test_what_dspy_found_has_a_page_too() -> None:
    name, facts, _, paid, looks = tiny(found={"optimizer": "MIPROv2(auto=None)"})
    facts["chosen"] = {"rate.demos": [{"case": "c1"}, {"case": "c2"}]}
    made = Page(page(name, facts, [], paid, looks))
    assert "Found by an optimizer of DSPy, which keeps no trials: MIPROv2(auto=None)" in made.text
    assert "2 worked examples" in made.text


def test_charts_are_described_and_mark_each_trial_once() -> None:
    _, _, done, _, _ = made = tiny()
    drawn = re.findall(r'<svg viewBox="0 0 (?:760|520).*?</svg>', page(*made), re.S)
    assert len(drawn) == 3  # the search, calls, tokens
    for chart in drawn:
        named = re.search(r'aria-labelledby="(\S+) (\S+)"', chart)
        assert named is not None
        assert f'<title id="{named[1]}">' in chart
        assert f'<desc id="{named[2]}">' in chart
    search, *costs = drawn
    assert search.count("<g><title>") == len(done)
    marks = {kind: search.count(f'class="{kind}"') for kind in ("pruned", "failed", "dear")}
    assert marks == {"pruned": 1, "failed": 1, "dear": 1}
    assert search.count('class="chosen"') == search.count('class="default"') == 1
    whole = [d for d in done if d.score is not None and not d.pruned]
    assert all(chart.count("<g><title>") == len(whole) for chart in costs)
    assert [chart.count('class="limit"') for chart in costs] == [0, 1]  # tokens have one
    ids = re.findall(r' id="([^"]*)"', page(*made))
    assert len(ids) == len(set(ids))


def test_a_long_study_is_cut_in_the_middle_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked, "LISTED", 20)
    made = page(*tiny(trials=90))
    said = re.search(r"Not shown here: (\d+) trials of the middle", made)
    assert said is not None
    rows = [c for _, c in Page(made).rows if len(c) == 7 and c[0].isdigit()]
    assert len({c[0] for c in rows}) == 90 - int(said[1])
    assert "0" in {c[0] for c in rows}  # the default


@pytest.mark.parametrize(
    "axis",
    [
        spread([5.0], start=0, end=100),
        spread([0.0, 0.0], start=0, end=100),
        spread([120.0, 9000.0], start=0, end=100),
        shares([0.5], start=100, end=0),
        shares([0.0, 1.0], start=100, end=0),
        Axis(-0.5, 1.5, 0, 100),
    ],
)
def test_axes_have_room_and_ticks(axis: Axis) -> None:
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(axis.low - 1e-9 <= t <= axis.high + 1e-9 for t in ticks)
    places = [axis.at(t) for t in ticks]
    assert len({round(p, 6) for p in places}) == len(places)


def test_what_the_terminal_says_of_the_same_study() -> None:
    """The front, the rule, the verdict and what it cost, as `optimize` prints them at its end."""
    name, facts, done, _, _ = tiny()
    aims, found = aims_noted(facts), io.StringIO()
    chosen = Chosen(done[6], done[0], done[5], Interval(0.4, 0.2, 0.6), 0.31)
    path = Path("programs/triage.optimized.yaml")
    told = verdict(sure=(0.2, -0.02, 0.38), saves=("tokens",), tokens=(8000, 4000), loss=0.02)
    with contextlib.redirect_stdout(found):
        for case in (told, replace(told, loss=0.08)):
            written = path if case.is_better else None
            outcome = Outcome(name, tuple(done), "all trials were made", chosen, case, written, 99)
            print("\n".join(opening(outcome, aims)))
            print_trials(front(done, aims.objectives), facts, 6)
            print("\n".join(summary(outcome, aims)))
    lines = "\n".join(line.rstrip() for line in found.getvalue().splitlines()) + "\n"
    golden = GOLDEN.with_name("search.txt")
    if os.environ.get("UPDATE_EXPECT") == "1":
        golden.write_text(lines, encoding="utf-8")
    assert lines == golden.read_text(encoding="utf-8")


# --- words are words


def test_hostile_text_changes_no_element_and_leaves_no_control_character() -> None:
    made = page(*tiny(hostile))
    plain, attacked = Page(page(*tiny())), Page(made)
    assert attacked.elements == plain.elements
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", made
    )
    tags = {tag for tag, _ in attacked.elements}
    assert not tags & {"script", "img", "iframe", "object", "base", "form", "a"}
    assert not [name for _, name, _ in attacked.attributes if name.startswith("on")]
    links = [value for _, name, value in attacked.attributes if name in ("href", "src", "style")]
    assert links == ["data:,"]
    assert ("meta", "content", POLICY) in attacked.attributes


@pytest.mark.parametrize("text", HOSTILE)
def test_each_hostile_text_alone(text: str) -> None:
    attacked = Page(page(*tiny(lambda word: word + text)))
    assert attacked.elements == Page(page(*tiny())).elements


def test_long_values_are_cut() -> None:
    made = page(*tiny(lambda word: word + "<&" * 100_000 if word == "Rate it." else word))
    assert len(made) < 100_000


# --- the command


def test_command_writes_the_page_of_a_real_study(tmp_path: Path) -> None:
    from tests.test_optimize import world

    path, store = world(tmp_path), tmp_path / ".align" / "align.db"
    runner = CliRunner()
    done = runner.invoke(cli, ["optimize", str(path), "--store", str(store)])
    assert done.exit_code == 0, done.output
    name = re.search(r"study (\S+):", done.output)
    assert name is not None
    assert f"align-dsl studies show {name[1]} --html FILE" in done.output
    file = tmp_path / "study.html"
    words = ["studies", "show", "last", "--html", str(file), "--store", str(store)]
    said = runner.invoke(cli, words)
    assert said.exit_code == 0, said.output
    made = Page(file.read_text(encoding="utf-8"))
    assert made.open == []
    assert "Better: more accurate on cases that no trial saw." in made.text
    assert "looked at once, all searches together" in made.text
    # who asks `report` for it is told where it is
    wrong = runner.invoke(cli, ["report", name[1], "--store", str(store)])
    assert isinstance(wrong.exception, StoreError)
    assert f"studies show {name[1]} --html FILE" in str(wrong.exception)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
@pytest.mark.skipif(sys.platform != "linux", reason="chromium's switches are those of Linux")
def test_a_browser_asks_for_nothing_and_has_nothing_to_complain_of(tmp_path: Path) -> None:
    file, log = tmp_path / "page.html", tmp_path / "net.json"
    file.write_text(page(*tiny(hostile)), encoding="utf-8")
    said = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    dom, errors = said.stdout.decode(), said.stderr.decode()
    assert "CONSOLE" not in errors
    assert "<title>owned" not in dom
    assert "canary.invalid" not in log.read_text(errors="replace")
    assert "What came of it" in dom
