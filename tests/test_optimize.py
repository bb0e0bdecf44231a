"""Optimizing from end to end: what it finds, what it admits, what it writes, what it counts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from align_dsl.commands import cli
from align_dsl.engine.budget import Budget
from align_dsl.errors import BudgetError, CompileError, PlanError
from align_dsl.optimize.blocks import deal
from align_dsl.optimize.choose import choose
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.looks import looks
from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.sat import Sat
from align_dsl.optimize.task import Task, ready
from align_dsl.optimize.verdict import compare
from align_dsl.pipeline import Changes, load
from align_dsl.records.store import Store
from tests.worlds import ATTRIBUTES, perfect_script, write_world

PROGRAM = """version: 1
program: small
about: A poor start.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.5, test: 0.5}}
targets: {each: [low, high], of: [mercy]}
deciders:
  mine: {use: comparative_regression}
  other: {use: baseline}
model: embedded
optimize: {decider: mine, trials: 8, space: {shots: [0, 1, 4, 8], select: [similar, random]}}
"""


def kind_and_harsh(n: int, seed: int = 0, shuffle: bool = False) -> list[dict[str, object]]:
    """Cases whose choices say what they are, so that exemplars teach it; or say nothing."""
    dice, made = random.Random(seed), []
    for i in range(n):
        rows = [("spare the prisoner gently", 9), ("strike the prisoner harshly", 1)]
        labels = [v for _, v in rows]
        if shuffle:
            dice.shuffle(labels)
        dice.shuffle(rows)
        made.append(
            {
                "id": f"c{i}",
                "scenario": f"situation {i} of {dice.randrange(10**6)}",
                "choices": [
                    {"id": c, "text": f"{text} {dice.randrange(10**6)}", "labels": {"mercy": v}}
                    for c, (text, _), v in zip(
                        "ab", rows, labels if shuffle else [v for _, v in rows], strict=True
                    )
                ],
            }
        )
    return made


def world(folder: Path, program: str = PROGRAM, **options: object) -> Path:
    return write_world(folder, kind_and_harsh(40, **options), program, ATTRIBUTES)  # type: ignore[arg-type]


def run(folder: Path, path: Path, **options: object) -> Outcome:
    return optimize(Task(path, store=folder / ".align" / "align.db", **options))  # type: ignore[arg-type]


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(w) for w in words])


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("better")
    return folder, run(folder, world(folder))


# --- what it finds, and what it admits


def test_what_is_there_is_found(better: tuple[Path, Outcome]) -> None:
    _, outcome = better
    assert outcome.chosen is not None
    assert outcome.verdict is not None
    assert outcome.is_better
    assert outcome.verdict.winner > outcome.verdict.default + 0.2
    assert outcome.chosen.done.config["shots"] > 0
    # four numbers of shots, two ways of picking them; with none there is nothing to pick
    assert len(outcome.done) == 7
    assert outcome.ended == "every configuration was tried"


@pytest.mark.parametrize("seed", range(3))
def test_where_labels_mean_nothing_it_says_so(seed: int, tmp_path: Path) -> None:
    outcome = run(tmp_path, world(tmp_path, seed=seed, shuffle=True))
    assert not outcome.is_better
    assert outcome.written is None
    assert not list(tmp_path.rglob("*.optimized.yaml"))


def test_a_good_default_stays(tmp_path: Path) -> None:
    good = PROGRAM.replace(
        "{use: comparative_regression}", "{use: comparative_regression, with: {shots: 8}}"
    )
    outcome = run(tmp_path, world(tmp_path, good))
    assert outcome.chosen is not None
    assert outcome.chosen.is_default
    assert outcome.verdict is None
    assert looks(tmp_path / ".align" / "looks.jsonl", "x") == []


def test_trials_never_see_a_test_case_or_one_of_their_own_block(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        made = ready(Task(world(tmp_path), store=tmp_path / "a.db"), store)
        test = {c.scenario.id for block in made.test.blocks for c in block}
        train = {c.scenario.id for block in made.train.blocks for c in block}
        assert not test & train
        config = {"shots": 8, "select": "similar"}
        for b, block in enumerate(made.train.blocks):
            shown = _shown(made.train, config, b)
            assert shown
            assert not shown & (test | {c.scenario.id for c in block})
        assert _shown(made.test, config, 0) <= train


def _shown(exam: Exam, config: dict[str, object], block: int) -> set[str]:
    """The exemplars that a block may be shown."""
    plan = exam.plan(config, block)
    pools = [v for j in plan.jobs.values() for v in j.inputs.values() if hasattr(v, "exemplars")]
    return {e.scenario.id for pool in pools for e in pool.exemplars}


def test_blocks_keep_groups_whole_and_are_even(tmp_path: Path) -> None:
    cases = load(world(tmp_path)).cases
    cases = tuple(c.model_copy(update={"group": f"g{i // 3}"}) for i, c in enumerate(cases))
    blocks = deal(cases, 5, 0)
    groups = [{c.group for c in block} for block in blocks]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert blocks == deal(cases[::-1], 5, 0) or [set(g) for g in groups] == [
        {c.group for c in b} for b in deal(cases[::-1], 5, 0)
    ]


def test_what_leaks_is_an_error(tmp_path: Path) -> None:
    same = kind_and_harsh(20)
    for i, case in enumerate(same):
        case["scenario"] = f"situation {i % 5}"
        case["group"] = f"g{i}"
    path = write_world(tmp_path, same, PROGRAM, ATTRIBUTES)
    with pytest.raises(CompileError, match="have the same text"):
        run(tmp_path, path)
    for i, case in enumerate(same):
        case["scenario"] = f"situation {i}"
        case["group"] = f"g{i % 5}"
    by_text = PROGRAM.replace("test: 0.5}", "test: 0.5, group: scenario}")
    path = write_world(tmp_path, same, by_text, ATTRIBUTES)
    with pytest.raises(CompileError, match="have the group `g"):
        run(tmp_path, path)


# --- the look at the test cases


def test_looks_are_counted_and_the_same_look_once(better: tuple[Path, Outcome]) -> None:
    folder, outcome = better
    path = folder / "programs" / "small.yaml"
    assert outcome.verdict is not None
    assert outcome.verdict.looks == 1
    again = run(folder, path)
    assert again.verdict == outcome.verdict
    assert again.done == outcome.done
    file = folder / ".align" / "looks.jsonl"
    file.write_text(file.read_text() + '{"torn')
    other = Changes(sets=("optimize.space={shots: [1, 2]}",))
    task = Task(path, other, store=folder / ".align" / "align.db")
    second = optimize(task, output=folder / "programs" / "second.yaml")
    assert second.verdict is not None
    assert second.verdict.looks == 2
    assert second.verdict.sure[1] <= second.verdict.gain[1]
    split = json.loads(file.read_text().splitlines()[0])["split"]
    assert len(looks(file, split)) == 2


def test_a_comparison_agrees_with_itself(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        made = ready(Task(world(tmp_path), store=tmp_path / "a.db"), store)
        n = len(made.test.asked)
        same = compare(made.test, Sat("1" * n), Sat("1" * n))
        assert (same.gain[0], same.p, same.is_better) == (0.0, 1.0, False)
        up = compare(made.test, Sat("0" * n), Sat("1" * n))
        assert up.is_better
        assert (up.only_winner, up.only_default) == (n, 0)
        failed = compare(made.test, Sat("1" * n), Sat("f" * n))
        assert failed.winner == 0.0


# --- the artefact


def test_the_artefact_is_a_program_like_any_other(better: tuple[Path, Outcome]) -> None:
    folder, outcome = better
    written = folder / "programs" / "small.optimized.yaml"
    assert outcome.written == written
    text = written.read_text()
    assert "extends: small.yaml" in text
    assert "# test " in text
    assert "other" not in text
    assert outcome.chosen is not None
    decider = next(d for d in load(written).program.deciders if d.name == "mine")
    assert decider.params["shots"] == outcome.chosen.done.config["shots"]
    assert invoke("check", written).exit_code == 0
    assert invoke("explain", written, "--store", folder / "b.db").exit_code == 0
    done = invoke("run", written, "--only", "mine", "--store", folder / "b.db")
    assert done.exit_code == 0


def test_wordings_go_into_the_artefact_whole(tmp_path: Path) -> None:
    words = 'Rate {attribute} from {lowest}\nto {highest}: no, "yes" # and so on.\n'
    program = PROGRAM.replace(
        "{shots: [0, 1, 4, 8], select: [similar, random]}}",
        f"{{shots: [0, 8]}}, variants: {{rate: [{json.dumps(words)}, Rate it now.]}}}}",
    )
    path = world(tmp_path, program)
    with Store.open(tmp_path / "a.db") as store:
        made = ready(Task(path, store=tmp_path / "a.db"), store)
        config = {"shots": 8, "rate.instructions": words}
        decider = made.space.program(config).deciders[0]
        assert decider.step("rate").params["instructions"] == words
        assert decider.params["shots"] == 8
        import yaml

        from align_dsl.optimize.artefact import _body, _Dumper, _means_the_same

        to = path.with_name("other.yaml")
        to.write_text(yaml.dump(_body(made, config, to), Dumper=_Dumper, sort_keys=False))
        _means_the_same(to, made, config)


def test_an_unwritable_place_is_said_before_anything_is_lost(tmp_path: Path) -> None:
    task = Task(world(tmp_path), store=tmp_path / ".align" / "align.db")
    with pytest.raises(PlanError, match="--output"):
        optimize(task, output=tmp_path / "nowhere" / "x.yaml")
    assert optimize(task).is_better


# --- the command line


def test_the_command_says_what_came_of_it(tmp_path: Path) -> None:
    path, store = world(tmp_path), tmp_path / ".align" / "align.db"
    shown = invoke("explain", "--optimize", path, "--store", store)
    assert shown.exit_code == 0, shown.output
    assert not store.exists()
    for part in ("tries 0, 1, 4, 8", "7 configurations", "40 questions", "looked at 0 times"):
        assert part in shown.output
    done = invoke("optimize", path, "--store", store, "--require-improvement")
    assert done.exit_code == 0, done.output
    assert "better: written to" in done.output
    listed = invoke("studies", "ls", "--store", store)
    assert "better" in listed.output
    one = invoke("studies", "show", "last", "--trials", "--store", store)
    assert one.exit_code == 0, one.output
    assert "shots" in one.output
    changed = invoke("diff", path, path.with_name("small.optimized.yaml"))
    assert "deciders.mine.params.shots: [-0-][+" in changed.output
    assert "=== mine · rate · mercy" in changed.output
    assert invoke("diff", path, path).output == ""


def test_no_improvement_is_no_failure_unless_it_is_required(tmp_path: Path) -> None:
    path = world(tmp_path, shuffle=True)
    words = ("optimize", path, "--store", tmp_path / ".align" / "align.db")
    said = invoke(*words)
    assert said.exit_code == 0
    assert "not better" in said.output
    assert invoke(*words, "--require-improvement").exit_code == 10


def test_json_lines(tmp_path: Path) -> None:
    said = invoke("optimize", world(tmp_path), "--json", "--store", tmp_path / ".align" / "a.db")
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [e["event"] for e in lines] == ["start", *["trial"] * 7, "done"]
    assert lines[-1]["better"] is True


def test_a_program_that_does_not_say_what_to_optimize(tmp_path: Path) -> None:
    bare = PROGRAM.rpartition("optimize:")[0].replace(", split: {train: 0.5, test: 0.5}", "")
    path = world(tmp_path, bare)
    said = invoke("optimize", path, "--store", tmp_path / "a.db")
    assert said.exit_code == 2 or isinstance(said.exception, PlanError)
    with pytest.raises(PlanError, match="--decider NAME"):
        run(tmp_path, path)
    assert run(tmp_path, path, decider="mine", trials=5).done


def test_a_budget_is_kept_and_the_verdict_is_part_of_it(tmp_path: Path) -> None:
    path = world(tmp_path)
    script = perfect_script(load(path), tmp_path / "script.jsonl")
    changes = Changes(model=f"scripted:{script}")
    outcome = run(tmp_path, path, changes=changes, budget=Budget(150))
    assert outcome.paid <= 150
    assert "budget" in outcome.ended
    with pytest.raises(BudgetError, match="too small: the verdict alone needs 40"):
        run(tmp_path / "b", path, changes=changes, budget=Budget(10))


def test_choosing_prefers_the_file_among_equals(better: tuple[Path, Outcome]) -> None:
    folder, outcome = better
    with Store.open(folder / "c.db") as store:
        made = ready(Task(folder / "programs" / "small.yaml", store=folder / "c.db"), store)
        from dataclasses import replace

        marks = outcome.done[0].sat
        same = [replace(d, sat=marks, score=outcome.done[0].score) for d in outcome.done]
        assert choose(made.train, made.space, same).is_default
