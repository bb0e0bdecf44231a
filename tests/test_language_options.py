"""What a command line asks wrongly: each message shows the option as typed, and a way out."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from align_dsl.commands import main
from align_dsl.engine.budget import LIMITS, parse
from align_dsl.errors import CompileError
from align_dsl.pipeline import Changes, check, compile

Run = Callable[[str], str]

PROGRAM = """\
version: 1
program: p
about: Small.
attributes: mta
data: {format: jsonl, path: data/cases.jsonl}
targets: {each: [low, high], of: [fairness]}
deciders:
  baseline: {use: baseline}
  regression: {use: comparative_regression, with: {shots: 2}}
  mine:
    steps: [{name: rate, use: rate_together, each: [attribute]}]
    decide: {use: closest, take: rate}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line as it is, in a folder with one program: what it says; it ends with 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_PATH", raising=False)
    data = Path(__file__).parent / "errors" / "library" / "data" / "cases.jsonl"
    Path("data").mkdir()
    shutil.copy(data, "data/cases.jsonl")
    Path("p.yaml").write_text(PROGRAM)

    def call(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["align-dsl", *shlex.split(line)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert left.value.code == 2, said
        assert said.out == ""
        return said.err

    return call


ASKED = [  # what is asked, what is wrong with it, where that is said to stand, and the way out
    (
        "explain p.yaml --optimize --decider nope",
        "no decider named `nope` in this program",
        "--decider nope",
        "known: baseline, mine, regression",
    ),
    (
        "optimize p.yaml --decider regresion",
        "no decider named `regresion` in this program",
        "--decider regresion",
        "did you mean `regression`?",
    ),
    (
        "run p.yaml --only regresion",
        "no decider named `regresion` in this program",
        "--only regresion",
        "did you mean `regression`?",
    ),
    (
        "explain p.yaml --model embeded",
        "no model named `embeded`",
        "--model embeded",
        "did you mean `embedded`?",
    ),
    (
        "explain p.yaml --model ollam_chat/x",
        "no provider named `ollam_chat`",
        "--model ollam_chat/x",
        "did you mean `ollama_chat`?",
    ),
    (
        "explain p.yaml --model ''",
        "`model` is empty",
        "--model ",
        "for instance `model: embedded`",
    ),
    (
        "explain p.yaml --data data/case.jsonl",
        "data/case.jsonl: there is no such file",
        "--data data/case.jsonl",
        "did you mean `data/cases.jsonl`?",
    ),
    (
        "explain p.yaml --data dat/cases.jsonl",
        "dat/cases.jsonl: there is no such file",
        "--data dat/cases.jsonl",
        "did you mean `data`?",
    ),
    (
        "explain p.yaml --data else/where/cases.jsonl",
        "else/where/cases.jsonl: there is no such file",
        "--data else/where/cases.jsonl",
        "there is no folder `else/where`: check the path",
    ),
    (
        "explain p.yaml --data data/cases.jsonl --format jsnl",
        "no data format named `jsnl`",
        "--format jsnl",
        "did you mean `jsonl`?",
    ),
    (
        "explain p.yaml --prompts --scenario wel",
        "no scenario named `wel` among the cases to decide",
        "--scenario wel",
        "did you mean `well`?",
    ),
    ("explain p.yaml --seed 9999999999", "`seed` must be at most 4,294,967,295, not `9999999999`",
     "--seed 9999999999", ""),
]  # fmt: skip

SET = "write KEY=VALUE, for instance --set seed=7 or --set deciders.NAME.with.shots=5"
SETS = [  # what is set, what is wrong with it, and the way out
    ("model", "there is no `=` in it", SET),
    ("=3", "the key before `=` is missing", SET),
    ("data..path=3", "a part of the path is empty", "write KEY=VALUE, for instance --set seed=7"),
    ("decidrs.mine.model=x", "unknown key `decidrs`", "did you mean `deciders`?"),
    (
        "deciders.regresion.use=baseline",
        "no decider named `regresion` in this program",
        "did you mean `regression`?",
    ),
    (
        "deciders.other.use=baseline",
        "no decider named `other` in this program",
        "known: baseline, mine, regression; a new decider is set whole: "
        "--set 'deciders.other={...}'",
    ),
    (
        "deciders.regression.wth.shots=5",
        "unknown key `wth` in `deciders.regression`",
        "did you mean `with`?",
    ),
    (
        "deciders.regression.with.shts=5",
        "the decider `comparative_regression` has no parameter `shts`",
        "did you mean `shots`?",
    ),
    (
        "deciders.mine.steps.rate.samples=2",
        "`deciders.mine.steps` is a list of 1, and `rate` is none of its items",
        "did you mean `deciders.mine.steps.0`?",
    ),
    (
        "targets.each.3=low",
        "`targets.each` is a list of 2, and `3` is none of its items",
        "items go by their number, from 0: targets.each.1 is the last",
    ),
    (
        "targets.0.each=[low]",
        "`targets` is a mapping in this program, not a list",
        "leave `0` away; known: each, file, name, of, values, weights",
    ),
    ("seed.x=5", "`seed` holds one value, and nothing below it", "write --set seed=VALUE"),
    (
        "attributes.fairness.about=x",
        "`attributes` is `mta` in this program, and has no `fairness`",
        "set all of it: --set 'attributes={fairness: ...}'",
    ),
    ("data.split.trian=0.5", "unknown key `trian` in `data.split`", "did you mean `train`?"),
    (
        "models.fast.endpoint=x",
        "no model named `fast` in this program",
        "there are none; a new model is set whole: --set 'models.fast={...}'",
    ),
    (
        "model=[a",
        "this `[` is never closed",
        "what follows `=` is YAML: put a text with special characters in quotes",
    ),
    ("seed=", "`seed` must be a whole number, not nothing", "give it a value, or delete the key"),
    ("targets.each=[lo]", "item 1 of `each` must be `low` or `high`, not `lo`",
     "did you mean `low`?"),
    (
        "targets.values.fairness=1",
        "a target is given by `each`, by `values` or by a `file`, not by several",
        "keep one of each, values",
    ),
]  # fmt: skip


def picture(message: str, place: str, hint: str) -> str:
    return f"error: {message}\n --> {place}\n" + (f"  = {hint}\n" if hint else "")


@pytest.mark.parametrize(("line", "message", "place", "hint"), ASKED, ids=[a[0] for a in ASKED])
def test_an_option_is_shown_as_it_was_typed(
    line: str, message: str, place: str, hint: str, run: Run
) -> None:
    assert run(line) == picture(message, place, hint)


@pytest.mark.parametrize(("written", "message", "hint"), SETS, ids=[s[0] for s in SETS])
def test_every_part_of_a_path_is_looked_at(written: str, message: str, hint: str, run: Run) -> None:
    assert run(f"explain p.yaml --set {shlex.quote(written)}") == picture(
        message, f"--set {written}", hint
    )


@pytest.mark.parametrize(
    "written",
    [
        "seed=7",
        "deciders.regression.with.shots=5",
        "deciders.new={use: baseline}",
        "deciders.mine.steps.0.samples=2",
        "targets.each.0=high",
        "targets={values: {fairness: 1}}",
        "data.split={train: 0.5, test: 0.5}",
        "models.fast={use: embedded}",
        "model=[embedded]",
    ],
)
def test_what_can_be_set(written: str, run: Run) -> None:
    assert compile(Path("p.yaml"), Changes(sets=(written,))).program.name == "p"


def test_what_varies_has_dots_in_its_name(run: Run) -> None:
    sets = ("data.split={train: 0.5, test: 0.5}", "optimize.decider=mine")
    varied = (*sets, "optimize.space.rate.samples=[1, 2]")
    optimize = compile(Path("p.yaml"), Changes(sets=varied)).program.optimize
    assert optimize is not None
    assert optimize.space["rate.samples"].values == (1, 2)
    with pytest.raises(CompileError, match=r"`rate\.sampls`"):
        compile(Path("p.yaml"), Changes(sets=(*sets, "optimize.space.rate.sampls=[1, 2]")))


WRITE = "write calls=N, tokens=N, seconds=N or some of them, as in calls=500"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("x", f"`x` must be a whole number, 0 or more; {WRITE}"),
        ("100foo", f"`100foo` must be a whole number, 0 or more; {WRITE}"),
        ("calls=1.5", f"`1.5` must be a whole number, 0 or more; {WRITE}"),
        ("calls=", f"no number after `calls=`; {WRITE}"),
        ("=5", f"no name before `=5`; {WRITE}"),
        ("calls=5,", f"it is empty, or has a comma too many; {WRITE}"),
        ("calls=5,cals=7", "no `cals` in `cals=7`; did you mean `calls`?"),
        ("money=7", f"no `money` in `money=7`; {WRITE}"),
        ("calls=5,calls=6", f"`calls` is given twice; {WRITE}"),
        ("5 calls", "`5 calls` has no `=`; did you mean `calls=5`?"),
        ("tokens:7", "`tokens:7` has no `=`; did you mean `tokens=7`?"),
    ],
)
def test_a_budget_says_which_part_is_wrong(written: str, said: str, run: Run) -> None:
    with pytest.raises(ValueError) as error:
        parse(written, LIMITS)
    assert str(error.value) == said
    assert f"Invalid value for '--budget': {said}\n" in run(f"run p.yaml --budget {written!r}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "run p.yaml --decider mine",
            "no option --decider here; say which to run with --only NAME",
        ),
        ("run p.yaml --target fairness_high", "say whom to decide for with --set"),
        ("explain p.yaml --targets high", "no option --target here"),
    ],
)
def test_an_option_that_is_elsewhere(line: str, said: str, run: Run) -> None:
    assert said in run(line)


FILES = [  # a file or folder that is no program, what is said of it, and the way out
    ("attributes/s.yaml", "this is a set of attributes, not a program",
     "a program takes it by `attributes: s`"),
    ("deciders/d.yaml", "this is a decider, not a program",
     "a program takes it by `deciders: {mine: {use: d}}`"),
    ("foreign.yaml", "this file does not say what it is", "a program has `program:`"),
    ("data/cases.jsonl", "these are cases, one a line",
     "a program names them: `data: {format: jsonl, path: PATH}`"),
    ("attributes", "this is a folder", "did you mean `attributes/s.yaml`?"),
    ("pp.yaml", "there is no such file", "did you mean `p.yaml`?"),
    ("attributes/s", "there is no such file", "did you mean `attributes/s.yaml`?"),
    ("mta.yaml", "there is no file `mta.yaml` here", "a program that is found by name: mta"),
]  # fmt: skip


@pytest.mark.parametrize("command", ["run", "explain", "compile"])
@pytest.mark.parametrize(("file", "message", "hint"), FILES, ids=[f[0] for f in FILES])
def test_no_program(command: str, file: str, message: str, hint: str, run: Run) -> None:
    for folder in ("attributes", "deciders"):
        Path(folder).mkdir()
    Path("attributes/s.yaml").write_text("version: 1\nset: s\nabout: x\nattributes: {}\n")
    Path("deciders/d.yaml").write_text("version: 1\ndecider: d\nabout: x\n")
    Path("foreign.yaml").write_text("services: {web: {image: x}}\n")
    said = run(f"{command} {file}")
    assert said.startswith(f"error: {message}\n")
    assert f" = {hint}" in said
    assert said.count("error:") == 1


def test_check_of_a_folder_without_anything_of_ours(run: Run) -> None:
    Path("a/.git").mkdir(parents=True)
    Path("a/.git/p.yaml").write_text(PROGRAM)
    message, hint = (
        "there is nothing to check in this folder",
        "files of align-dsl end in .yaml, and have `program:`, `set:` or `decider:`",
    )
    assert run("check a") == picture(message, "a", f"{hint}; the folder is empty")
    Path("a/web.yaml").write_text("services: {web: &x {image: y}}\n---\nb: *x\n")
    assert run("check a") == picture(message, "a", f"{hint}; the folder holds web.yaml")
    Path("a/p.yml").write_text(PROGRAM)
    hint = "files of align-dsl end in .yaml: rename p.yml"
    assert run("check a") == picture(message, "a", hint)


def test_check_of_a_folder_with_all_sorts_of_files(run: Run) -> None:
    Path("web.yaml").write_text("services: {web: &x {image: y}}\n---\nb: *x\n")
    Path("targets").mkdir()
    Path("targets/ann.yaml").write_text("version: 1\nabout: x\nname: ann\nvalues: {fairness: 1}\n")
    Path("targets/flat.yaml").write_text("fairness: 1\n")
    Path("notes.md").write_text("Not YAML: at all\n: -")
    assert not check([Path()]).diagnostics
    Path("q.yaml").write_text("version: 1\nprogam: q\nabout: x\n")
    Path("r.yaml").write_text("version: 1\nprogram r\nabout: x\n")
    Path("s.yaml").write_text("version: 1\nabout: x\nattributes: mta\ndeciders: {}\n")
    Path("t.yaml").write_text('{"version": 2, "set": "t", "about": "x", "attributes": {}}\n')
    assert [(d.span.file, d.hint) for d in check([Path()]).diagnostics] == [
        ("q.yaml", "did you mean `program`?"),
        ("r.yaml", "did you mean `program: r`?"),
        ("s.yaml", "a program has `program:`, attributes have `set:`, a decider has `decider:`"),
        ("t.yaml", "this is the only version there is so far"),
        ("t.yaml", "for instance `attributes: {mercy: {about: ..., high: ..., low: ...}}`"),
    ]


def test_data_of_a_folder_is_looked_at_file_by_file(run: Run) -> None:
    shutil.copy("data/cases.jsonl", "data/more.jsonl")
    Path("p.yaml").write_text(PROGRAM.replace("data/cases.jsonl", "data"))
    said = run("check p.yaml")
    assert "two cases are named `ferry`\n --> data/more.jsonl:1:8\n" in said
    assert "= the first stands in data/cases.jsonl:1; give one of them another id" in said
