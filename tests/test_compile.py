"""`align-dsl compile`: the Python that is written imports, and decides as the YAML does.

UPDATE_EXPECT=1 rewrites tests/compiled/mta.py; read the diff as a user would.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import align_dsl
from align_dsl import pipeline
from align_dsl.commands.compile import command
from align_dsl.emit import emit
from align_dsl.engine.plan import concerns
from align_dsl.language.library import shipped_folder
from align_dsl.types import Exemplar, Pool

GOLDEN = Path(__file__).parent / "compiled" / "mta.py"
NUMBERS = itertools.count()


def load(path: Path) -> ModuleType:
    name = f"compiled_{next(NUMBERS)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(program: Path, into: Path) -> ModuleType:
    into.write_text(emit(pipeline.compile(program).program, program, program.name))
    return load(into)


def formatted(path: Path) -> str:
    """What the formatter would change."""
    config = Path(__file__).parents[1] / "pyproject.toml"
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed here")
    said = subprocess.run(
        [ruff, "format", "--no-cache", "--config", config, "--diff", path],
        capture_output=True,
        text=True,
    )
    return said.stdout


def decisions_of(module: ModuleType, mta: align_dsl.Compiled, limit: int) -> dict[Any, Any]:
    """Every decision of a compiled program, by what it is of."""
    made = {}
    for name, kind in module.DECIDERS.items():
        decider = kind()
        learns = any(s.algorithm.learns for s in mta[name].ir.steps)
        for case in mta.cases[:limit]:
            for target in module.TARGETS.values():
                if concerns(target, case):
                    labels = {"labels": case.labels} if learns else {}
                    said = decider(scenario=case.scenario, target=target, **labels)
                    made[name, target.name, case.scenario.id] = (said.choice, said.status)
    return made


def decisions_run(mta: align_dsl.Compiled, limit: int, store: Path) -> dict[Any, Any]:
    run = mta.run(limit=limit, store=store)
    return {
        (d.decider, d.target, d.scenario): (d.choice, d.status)
        for d in (j.decision for j in run.decisions)
    }


def test_the_shipped_program_compiles_to_the_golden_file() -> None:
    file = shipped_folder() / "programs" / "mta.yaml"
    text = emit(pipeline.compile(file).program, file, "programs/mta.yaml")
    if os.environ.get("UPDATE_EXPECT"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text
    assert formatted(GOLDEN) == ""


def test_the_golden_file_decides_as_run_does(tmp_path: Path) -> None:
    mta = align_dsl.load(shipped_folder() / "programs" / "mta.yaml")
    module = load(GOLDEN)
    ran = decisions_run(mta, 20, tmp_path / "align.db")
    made = decisions_of(module, mta, 20)
    assert made == ran
    assert len({target for _, target, _ in made}) == len(module.TARGETS)
    assert module.check()


def test_the_head_names_all_that_is_imported_from_align_dsl() -> None:
    tree = ast.parse(GOLDEN.read_text(encoding="utf-8"))
    head = ast.get_docstring(tree) or ""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    for node in found:
        top, _, below = (node.module or "").partition(".")
        names = [below] if below else [a.name for a in node.names]
        for name in names if top == "align_dsl" else ():
            assert f"\n    {name.split('.')[0] if 'aligners' in name else name} " in head
    assert len(found) > 10


CASES = [
    {
        "id": f"s{n}",
        "scenario": f"Scenario {n}: {words} are waiting at gate {n}.",
        "choices": [
            {
                "id": f"c{i}",
                "text": f"Take {what} first, in case {n}.",
                "labels": {"merit": 10 * i // (2 + n % 2), "size": (3 * i + n) % 11},
            }
            for i, what in enumerate(("the eldest", "the loudest", "the quiet one")[: 2 + n % 2])
        ],
    }
    for n, words in enumerate(["two nurses", "three pilots", "four cooks", "five twins"] * 2)
]

PROGRAM = """\
version: 1
program: gates
about: 'Who goes first, "truly"? A test of \\ all kinds.'
attributes:
  merit:
    about: 'What people have done: "deeds", {not} words. %s'
    high: Rewards deeds.
    low: Ignores deeds.
    scale: {low: 0, high: 10}
    anchors: {0: Nothing., 10: 'Everything, and a rather long sentence, %s.'}
  size: {about: How big it is., high: Big., low: Small., aliases: [bigness]}
data: {format: jsonl, path: gates.jsonl}
targets:
  - {each: [low, high]}
  - {name: both_ways, values: {merit: high, size: 0.5}, weights: {merit: 2}}
deciders:
  chance: {use: random}
  pick: {use: baseline, with: {samples: 3}}
  told: {use: prompt_aligned, with: {shots: 2}}
  votes: {use: self_consistency, with: {positive: 3, negative: 2}}
  alone: {use: direct_regression, with: {shots: 3}}
  together: {use: comparative_regression, with: {shots: 2, order: all, select: random, norm: l1}}
  own:
    about: One attribute only, in words of its own.
    steps:
      - name: closest
        use: rate_together
        each: [attribute]
        order: shuffle
        samples: 2
        with:
          instructions: |
            Rate {attribute} from {lowest} to {highest}, "quickly".
            Mind the triple \\"\\"\\" quotes.
    decide: {use: closest, take: closest}
  seen:
    about: Attributes in other words, on another scale, one choice at a time.
    params: {words: 'What people did, "whoever" they are: in words that take more than a line.'}
    steps:
      - name: rate
        use: rate_alone
        each: [attribute, choice]
        only: [merit, size]
        temperature: 0.5
        scale: {low: -1, high: 1, step: 0.5}
        definitions: {merit: $words, size: Size.}
    decide: {use: closest, take: rate, with: {weights: {merit: 2}}}
  seen_by_all:
    about: Definitions alone, for who is told of all attributes.
    steps:
      - {name: pick, use: pick_for, definitions: {size: How tall.}, samples: 2}
      - {name: many, use: pick_for, definitions: {size: How tall.}, temperature: 1.25, samples: 2,
         with: {opposite: true, instructions: "Pick one of them, but not for a reason of theirs."}}
    decide: {use: contrast, takes: {votes: pick, against: many}}
  scaled:
    about: A scale alone.
    steps:
      - {name: rate, use: rate_together, each: [attribute], scale: {low: 1, high: 5}, samples: 2}
    decide: {use: closest, take: rate}
model: %s
metrics: [accuracy]
"""


def gates(folder: Path, model: str) -> Path:
    lines = [json.dumps(case) for case in CASES]
    (folder / "gates.jsonl").write_text("\n".join(lines))
    file = folder / "gates.yaml"
    file.write_text(PROGRAM % ("Long. " * 30, "which takes more than a line " * 3, model))
    return file


def answers(folder: Path) -> Path:
    """Scripted ratings and picks for every scenario, with failures strewn in."""
    dice = random.Random(5)
    lines: list[dict[str, Any]] = []
    for n, case in enumerate(CASES):
        texts = [c["text"] for c in case["choices"]]
        for name in ("merit", "size"):
            line = {"scenario": case["scenario"], "attribute": name, "because": "so"}
            if (n, name) == (3, "size"):
                lines.append({**line, "fail": "timeout", "message": "gone"})
            else:
                lines.append({**line, "ratings": {t: dice.randint(0, 10) for t in texts}})
        lines.append({"scenario": case["scenario"], "choice": dice.choice(texts)})
    path = folder / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("model", ["embedded", "scripted"])
def test_every_way_of_deciding_compiles(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if model == "scripted":
        model = f"scripted:{answers(tmp_path).name}"
    program = gates(tmp_path, model)
    module = compiled(program, tmp_path / "gates_program.py")
    loaded = align_dsl.load(program)
    ran = decisions_run(loaded, len(CASES), tmp_path / "align.db")
    assert decisions_of(module, loaded, len(CASES)) == ran
    statuses = {status for _, status in ran.values()}
    assert statuses >= ({"ok", "tied"} if model == "embedded" else {"ok", "timeout"})
    assert formatted(tmp_path / "gates_program.py") == ""


def test_it_is_pinned_to_what_the_program_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = gates(tmp_path, "embedded")
    module = compiled(program, tmp_path / "gates_program.py")
    assert module.check()
    program.write_text(program.read_text().replace("Rewards deeds.", "Rewards good deeds."))
    with pytest.warns(UserWarning, match=r"gates.yaml has changed since it was compiled"):
        assert not module.check()
    program.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert module.check()


def test_the_text_does_not_know_where_the_program_lies(tmp_path: Path) -> None:
    pins = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file = gates(tmp_path / name, "embedded")
        pins.append(emit(pipeline.compile(file).program, file, "gates.yaml"))
    assert pins[0] == pins[1]


def test_a_pool_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = compiled(gates(tmp_path, "embedded"), tmp_path / "gates_program.py")
    shutil.rmtree(tmp_path / "gates.jsonl", ignore_errors=True)
    loaded = align_dsl.load(tmp_path / "gates.yaml")
    one, *others = loaded.cases
    pool = Pool(tuple(Exemplar(scenario=c.scenario, labels=c.labels) for c in others[:3]))
    said = module.Alone(pool=pool)(scenario=one.scenario, target=module.TARGETS["merit_high"])
    assert said.status in ("ok", "tied")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    gates(folder, "embedded")
    monkeypatch.chdir(tmp_path)
    printed = CliRunner().invoke(command, ["programs/gates.yaml"])
    assert printed.exit_code == 0, printed.output
    written = CliRunner().invoke(command, [str(folder / "gates.yaml"), "-o", "out.py"])
    assert written.exit_code == 0
    assert written.stdout == ""
    assert (tmp_path / "out.py").read_text() == printed.stdout
    assert str(tmp_path) not in printed.stdout
