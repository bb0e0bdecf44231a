"""What `align-dsl explain` promises beforehand, held against what is then asked and paid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from align_dsl.commands import cli
from align_dsl.commands.optimize import _drawn, _task
from align_dsl.optimize.space import written
from align_dsl.optimize.task import price, ready
from align_dsl.pipeline import Changes, load
from align_dsl.records.store import Store
from tests.worlds import ROOT, cases, write_world

PROGRAM = """version: 1
program: small
about: A program that says nothing of optimizing.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high]}
deciders:
  regression: {use: comparative_regression}
  alone: {use: direct_regression}
model: MODEL
"""


def world(folder: Path, program: str = PROGRAM, n: int = 40) -> Path:
    """Nobody is there to answer for the model: what is explained is not asked."""
    return write_world(folder, cases(n), program.replace("MODEL", "ollama_chat/nobody"))


def explain(path: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["explain", str(path), "--store", "none.db", *words])


def cost_of(path: Path, *words: str) -> tuple[int, ...]:
    """What the line about the cost says: least, most, default, trials, all of them, verdict."""
    done = explain(path, "--optimize", *words)
    assert done.exit_code == 0, done.output
    line = next(one for one in done.output.splitlines() if one.startswith("cost:"))
    least, most, default, total, trials, verdict = (
        int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", line)
    )
    return least, most, default, trials, total, verdict


# --- what --optimize is of


@pytest.mark.parametrize("name", ["mta", "opinions", "preferences"])
def test_optimizing_a_shipped_program_can_be_explained(name: str) -> None:
    path = ROOT / "programs" / f"{name}.yaml"
    assert "--decider NAME" in str(explain(path, "--optimize").exception)
    done = explain(path, "--optimize", "--decider", "regression")
    assert done.exit_code == 0, done.output
    assert "optimize regression on embedded" in done.output
    assert "cost: no calls: embedded" in done.output


def test_another_method_can_be_explained(tmp_path: Path) -> None:
    done = explain(
        world(tmp_path), "--optimize", "--decider", "regression", "--method", "bootstrap"
    )
    assert done.exit_code == 0, done.output
    assert "method: bootstrap of DSPy" in done.output


@pytest.mark.parametrize(
    "words", [("--only", "alone"), ("--limit", "3"), ("--prompts",), ("--scenario", "c0")]
)
def test_what_optimize_does_not_heed_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    done = explain(world(tmp_path), "--optimize", "--decider", "regression", *words)
    assert done.exit_code == 2
    assert f"leave {words[0]} away" in done.output


@pytest.mark.parametrize("words", [("--decider", "alone"), ("--method", "gepa")])
def test_what_only_optimize_heeds_is_refused_without_it(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    done = explain(world(tmp_path), *words)
    assert done.exit_code == 2
    assert "go with --optimize" in done.output


# --- what it costs


def space(text: str, decider: str = "regression") -> str:
    return (
        PROGRAM.replace("path: cases.jsonl", "path: cases.jsonl, split: {train: 0.5, test: 0.5}")
        + f"optimize: {{decider: {decider}, trials: 8, space: {{{text}}}}}\n"
    )


def test_a_space_without_end_is_drawn_from(tmp_path: Path) -> None:
    endless = space("rate.temperature: {low: 0.1, high: 1}, samples: [1, 9]")
    least, most, default, trials, total, _ = cost_of(world(tmp_path, endless))
    assert "endlessly many" in explain(world(tmp_path, endless), "--optimize").output
    assert least == default
    assert most == 9 * default
    assert trials == 8
    assert default * trials < total < most * trials


def test_a_large_space_says_how_large_and_is_drawn_from(tmp_path: Path) -> None:
    large = space("samples: {low: 1, high: 64}, shots: {low: 0, high: 999}")
    path = world(tmp_path, large)
    assert "up to 64,000 configurations" in explain(path, "--optimize").output
    least, most, default, *_ = cost_of(path)
    assert least <= default < most


def test_of_a_space_that_ends_every_trial_counts_once(tmp_path: Path) -> None:
    least, most, default, trials, total, _ = cost_of(
        world(tmp_path, space("samples: [1, 3], order: [shuffle, both]"))
    )
    assert (least, most) == (default, 3 * default)
    assert trials == 3  # in both orders, one sample is as good as three: the temperature is 0
    assert total == (1 + 3 + 2) * default


def test_calls_are_counted_and_not_jobs(tmp_path: Path) -> None:
    """With `rating: expected` a job of one question for all choices is a question for each."""
    path = world(tmp_path, space("rating: [verbal, expected]"))
    least, most, default, *_ = cost_of(path)
    choices = {len(c.scenario.choices) for c in load(path).cases}
    assert least == default
    assert min(choices) * default <= most <= max(choices) * default
    assert most > default


def test_the_bill_of_a_run_counts_calls_too(tmp_path: Path) -> None:
    path = world(tmp_path)

    def calls(*words: str) -> int:
        said = explain(path, "--only", "regression", *words).output
        found = re.search(r"([\d,]+) calls, about", said)
        assert found, said
        return int(found[1].replace(",", ""))

    expected = calls("--set", "deciders.regression.with.rating=expected")
    choices = sum(len(c.scenario.choices) for c in load(path).cases)
    assert calls() == 2 * len(load(path).cases)  # two attributes
    assert expected == 2 * choices


def test_the_model_is_that_of_the_decider(tmp_path: Path) -> None:
    """The program's own is embedded, and calls nobody; the decider's is another."""
    mine = "{use: comparative_regression, model: ollama_chat/nobody}"
    program = space("samples: [1, 2]").replace("{use: comparative_regression}", mine)
    path = world(tmp_path, program.replace("model: MODEL", "model: embedded"))
    assert cost_of(path)[0] > 0
    assert "no calls" not in explain(path, "--optimize").output


def test_what_is_drawn_is_apart_and_within_the_space(tmp_path: Path) -> None:
    path = world(tmp_path, space("rate.temperature: {low: 0.1, high: 1}, samples: [1, 9]"))
    with Store.open(Path(":memory:")) as store:
        made = ready(_task(path, tmp_path / "a.db", Changes(), {}), store)
        try:
            drawn = _drawn(made, None)
            assert len({written(c) for c in drawn}) == 12
            assert all(made.space.labels(c)[0] for c in drawn)
            assert drawn == _drawn(made, None)
            assert price(made, []).most == price(made, []).default
        finally:
            made.close()
