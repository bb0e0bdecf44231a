"""Where a winner is written: never over what it was made of, and known before anything is paid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from align_dsl.errors import CompileError, PlanError
from align_dsl.optimize.artefact import path_of
from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.studies import studies
from align_dsl.optimize.task import Task
from align_dsl.pipeline import Changes, load
from tests.test_optimize import PROGRAM, invoke, run, world

SPACE = Changes(sets=("optimize.space={shots: [1, 2, 4]}",))


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Outcome]:
    """A program that was optimized, as it was then; and the same program optimized once more."""
    folder = tmp_path_factory.mktemp("twice")
    first = run(folder, world(folder)).written
    assert first is not None
    text = first.read_text()
    task = Task(first, SPACE, store=folder / ".align" / "align.db")
    return first, text, optimize(task, pick=1)


def test_what_was_optimized_before_is_not_lost(twice: tuple[Path, str, Outcome]) -> None:
    first, text, again = twice
    assert first.read_text() == text
    assert again.written == first.with_name("small.optimized2.yaml")
    assert "\nextends: small.optimized.yaml\n" in again.written.read_text()
    assert invoke("check", first, again.written).exit_code == 0
    names = [load(path).program.name for path in (first, again.written)]
    assert names == ["small_optimized", "small_optimized2"]
    third = optimize(Task(again.written, SPACE, store=first.parents[1] / ".align" / "c.db"), pick=2)
    assert third.written == first.with_name("small.optimized3.yaml")
    assert load(third.written).program.name == "small_optimized3"


def test_what_somebody_edited_is_kept_and_what_is_the_same_is_no_change(tmp_path: Path) -> None:
    program = world(tmp_path)
    written = run(tmp_path, program).written
    assert written is not None
    made = written.read_bytes()
    before = Path(f"{written}.before")
    run(tmp_path, program)
    assert not before.exists()
    written.write_bytes(made + b"# mine\n")
    run(tmp_path, program)
    assert written.read_bytes() == made
    assert before.read_bytes() == made + b"# mine\n"


@pytest.mark.parametrize(
    ("program", "parts", "made"),
    [
        ("mta", (), "mta.optimized"),
        ("mta.optimized", (), "mta.optimized2"),
        ("mta.optimized9", (), "mta.optimized10"),
        ("mta.optimized", ("mta.optimized2", "mta.optimized3"), "mta.optimized4"),
        ("mta", ("mta.optimized",), "mta.optimized2"),
        ("my.program", (), "my.program.optimized"),
        ("optimized", (), "optimized.optimized"),
    ],
)
def test_names_go_on(program: str, parts: tuple[str, ...], made: str) -> None:
    found = path_of(Path(f"p/{program}.yaml"), [Path(f"p/{part}.yaml") for part in parts])
    assert found == Path(f"p/{made}.yaml")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("programs/small.optimized.yaml", "the program itself"),
        ("programs/../programs/small.optimized.yaml", "the program itself"),
        ("programs/link.yaml", "the program itself"),
        ("programs/small.yaml", "part of it"),
        ("attributes/two.yaml", "part of it"),
        ("programs/cases.jsonl", "part of it"),
        ("programs", "it is a folder"),
        ("nowhere/x.yaml", "cannot write"),
    ],
)
def test_what_it_is_made_of_is_never_written_over(output: str, said: str, tmp_path: Path) -> None:
    path = world(tmp_path)
    made = path.with_name("small.optimized.yaml")
    made.write_text(
        "version: 1\nprogram: small_optimized\nextends: small.yaml\n"
        "deciders:\n  mine: {use: comparative_regression, with: {shots: 1}}\n"
    )
    path.with_name("link.yaml").symlink_to(made)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    task = Task(made, SPACE, store=tmp_path / ".align" / "align.db")
    with pytest.raises(PlanError, match=rf"{said}[^\n]*\n  = .*--output FILE"):
        optimize(task, output=tmp_path / output, pick=1)
    assert {f: f.read_bytes() for f in before} == before
    assert studies(task.where) == []  # nothing was begun, so nothing was paid
    assert not list(path.parent.glob(".*"))  # nor is anything left behind


def test_where_it_would_mean_something_else_is_known_at_once(tmp_path: Path) -> None:
    task = Task(world(tmp_path), store=tmp_path / ".align" / "align.db")
    (tmp_path / "far" / "away").mkdir(parents=True)
    with pytest.raises(PlanError, match="would not compile there"):
        optimize(task, output=tmp_path / "far" / "away" / "x.yaml")
    assert studies(task.where) == []


def test_a_program_that_extends_itself_is_still_an_error(tmp_path: Path) -> None:
    path = world(tmp_path)
    path.write_text(f"{path.read_text()}extends: small.yaml\n")
    with pytest.raises(CompileError, match="in a circle"):
        load(path)


# --- what the command line changed


GIVEN = {
    "a default": Changes(sets=("deciders.mine.with={shots: 1}",), seed=7),
    "a decider": Changes(
        sets=("deciders.other={use: random}", "deciders.mine.about='So\n\nit: {'"), seed=1
    ),
    "the split": Changes(sets=("data.split={train: 0.4, test: 0.5, seed: 3}",), seed=2),
    "targets": Changes(sets=("targets={each: [high], of: [mercy]}",)),
    "a model": Changes(sets=("models={here: {use: embedded}}", "model=here"), seed=3),
    "how to search": Changes(sets=("optimize.seed=3",)),
    "nothing": Changes(),
}


def accuracy(written: Path, words: list[str]) -> float:
    """What `run` comes to, over both ends where there are two."""
    done = invoke("run", written, *words, "--store", written.with_name("again.db"), "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout.splitlines()[-1])["results"]
    one = [r["value"] for r in rows if r["attribute"] == "mercy" and r["metric"] == "accuracy"]
    return one[0] if len(one) == 1 else sum(one[:2]) / 2


@pytest.mark.parametrize("changes", GIVEN.values(), ids=GIVEN)
def test_a_run_of_what_is_written_gives_the_figure_of_the_verdict(
    changes: Changes, tmp_path: Path
) -> None:
    """Whatever the command line changed: the new file says it, or has no need to."""
    task = Task(world(tmp_path, shuffle=True), changes, store=tmp_path / ".align" / "a.db")
    outcome = optimize(task, pick=1)
    assert outcome.written is not None
    assert outcome.verdict is not None
    text = outcome.written.read_text()
    assert ("\n# with     " in text) == (changes != Changes())
    again = next(line for line in text.splitlines() if line.startswith("# again "))
    _, _, run, file, *words = again.removeprefix("# ").split()
    assert (run, file) == ("run", outcome.written.name)
    assert words == ["--only", "mine", "--set", "data.cases=test"]
    assert accuracy(outcome.written, words) == pytest.approx(outcome.verdict.winner)
    assert load(outcome.written).program.seed == (changes.seed or 0)
    if changes.seed is None and changes.sets[:1] != GIVEN["targets"].sets:
        assert list(yaml.safe_load(text)) == ["version", "program", "extends", "deciders"]


def test_other_data_is_written_with_what_is_left_of_the_targets(tmp_path: Path) -> None:
    """The cases have no label on `order`, which the program asks for."""
    both = PROGRAM.replace(", of: [mercy]", "").replace(", split: {train: 0.5, test: 0.5}", "")
    path = world(tmp_path, both.rpartition("optimize:")[0])
    other = tmp_path / "other" / "cases.jsonl"
    other.parent.mkdir()
    other.write_text(path.with_name("cases.jsonl").read_text())
    task = Task(path, Changes(data=other), decider="mine", store=tmp_path / ".align" / "a.db")
    outcome = optimize(replace(task, trials=3), pick=1)
    assert outcome.written is not None
    assert outcome.verdict is not None
    program = load(outcome.written).program
    assert [t.name for t in program.targets] == ["mercy_low", "mercy_high"]
    assert Path(program.data.place.path) == other
    words = ["--only", "mine", "--set", "data.cases=test"]
    assert accuracy(outcome.written, words) == pytest.approx(outcome.verdict.winner)


def test_paths_are_as_seen_from_the_new_file(tmp_path: Path) -> None:
    changes = Changes(sets=("data.split={train: 0.4, test: 0.6}",))
    task = Task(world(tmp_path), changes, store=tmp_path / ".align" / "a.db")
    (tmp_path / "found").mkdir()
    outcome = optimize(task, output=tmp_path / "found" / "x.yaml", pick=1)
    assert outcome.written is not None
    assert "path: ../programs/cases.jsonl" in outcome.written.read_text()
    assert len(load(outcome.written).cases) == 40
