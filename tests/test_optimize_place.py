"""Where a winner is written: never over what it was made of, and known before anything is paid."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_dsl.errors import CompileError, PlanError
from align_dsl.optimize.artefact import path_of
from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.study import studies
from align_dsl.optimize.task import Task
from align_dsl.pipeline import Changes, load
from tests.test_optimize import invoke, run, world

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
