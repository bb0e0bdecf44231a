"""`extends:`: whole keys, and steps, deciders, models and params by name; places stay true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align_dsl.errors import CompileError
from align_dsl.language.extend import MAX_CHAIN, extend
from align_dsl.language.library import Library, shown
from align_dsl.language.source import Source, parse, read_source
from align_dsl.pipeline import Changes, check, compile

PARENT = """\
version: 1
decider: parent
about: The parent.
params: {a: 1, b: 2}
steps:
  - {name: one, use: pick}
  - {name: two, use: pick, samples: 2}
decide: {use: majority, take: two}
"""


def merged(child: str, parent: str = PARENT) -> Source:
    files = {"parent": parse(parent, "parent.yaml")}
    return extend(parse(child, "child.yaml"), lambda name, _: files[name])


@pytest.mark.parametrize(
    ("child", "path", "value", "file"),
    [
        ("about: Mine.", ("about",), "Mine.", "child.yaml"),
        ("seed: 1", ("about",), "The parent.", "parent.yaml"),
        ("params: {b: 3}", ("params",), {"a": 1, "b": 3}, "child.yaml"),
        ("params: {b: 3}", ("params", "a"), 1, "parent.yaml"),
        ("params: {b: 3}", ("params", "b"), 3, "child.yaml"),
        ("params: {c: 3}", ("params", "c"), 3, "child.yaml"),
        ("decide: {use: uniform}", ("decide",), {"use": "uniform"}, "child.yaml"),
        ("steps: [{name: two, use: x}]", ("steps", 0, "use"), "pick", "parent.yaml"),
        ("steps: [{name: two, use: x}]", ("steps", 1), {"name": "two", "use": "x"}, "child.yaml"),
        ("steps: [{name: six, use: x}]", ("steps", 2, "name"), "six", "child.yaml"),
        ("steps: [{use: x}, {use: y}]", ("steps", 3, "use"), "y", "child.yaml"),
        ("params: 7", ("params",), 7, "child.yaml"),
    ],
)
def test_merge(child: str, path: Any, value: Any, file: str) -> None:
    source = merged(f"extends: parent\n{child}\n")
    found = source.data
    for part in path:
        found = found[part]
    assert found == value
    assert source.at(path).file == file
    assert "extends" not in source.data


def test_what_a_file_says_of_itself_is_not_inherited() -> None:
    assert not {"version", "decider"} & merged("extends: parent\n").data.keys()


def test_two_steps_of_one_name_in_the_child_both_stay() -> None:
    source = merged("extends: parent\nsteps: [{name: two, use: x}, {name: two, use: y}]\n")
    assert [s["use"] for s in source.data["steps"]] == ["pick", "x", "y"]


def test_three_generations() -> None:
    files = {
        "a": parse("about: a\nx: a\ny: a\nz: a\n", "a"),
        "b": parse("extends: a\ny: b\nz: b\n", "b"),
    }
    source = extend(parse("extends: b\nz: c\n", "c"), lambda name, _: files[name])
    assert source.data == {"about": "a", "x": "a", "y": "b", "z": "c"}
    assert [source.at((k,)).file for k in "xyz"] == ["a", "b", "c"]
    assert set(source.texts) == {"a", "b", "c"}


def test_long_chains_end() -> None:
    with pytest.raises(CompileError, match=f"more than {MAX_CHAIN} files"):
        extend(parse("extends: f0"), lambda name, _: parse(f"extends: f{int(name[1:]) + 1}", name))


PROGRAM = """\
version: 1
program: child
extends: base
about: Only what changed.
deciders:
  second: {use: baseline}
targets:
  - {each: [low], of: [fairness]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import shutil

    shutil.copytree(Path(__file__).parent / "errors" / "library", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_program(project: Path) -> None:
    Path("programs/child.yaml").write_text(PROGRAM)
    checked = compile(Path("programs/child.yaml"))
    program = checked.program
    assert program.name == "child"
    assert [d.name for d in program.deciders] == ["regression", "second"]
    assert [t.name for t in program.targets] == ["fairness_low"]
    assert check([Path("programs/child.yaml")]).diagnostics == []


def test_paths_are_seen_from_the_file_that_says_them(project: Path) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/child.yaml").write_text(PROGRAM)
    assert check([Path("elsewhere/child.yaml")]).diagnostics == []
    path = compile(Path("elsewhere/child.yaml")).program.data.place.path
    assert Path(path).resolve() == (project / "data/cases.jsonl").resolve()


@pytest.mark.parametrize(
    ("places", "wins"),
    [
        (["sub/attributes", "attributes", "cwd/attributes", "path/attributes"], "sub/attributes"),
        (["attributes", "cwd/attributes", "path/attributes"], "attributes"),
        (["cwd/attributes", "path/attributes"], "cwd/attributes"),
        (["path/attributes"], "path/attributes"),
        ([], "shipped"),
    ],
)
def test_library_order(
    places: list[str], wins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("sub/attributes", "attributes", "cwd/attributes", "path/attributes"):
        (tmp_path / place).mkdir(parents=True)
    for place in places:
        (tmp_path / place / "mta.yaml").write_text(f"version: 1\nset: mta\nabout: {place}\n")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("ALIGN_PATH", str(tmp_path / "path"))
    source = Library.beside(tmp_path / "sub" / "p.yaml").source("attributes", "mta")
    about = source.data["about"]
    assert about == wins if wins != "shipped" else about.startswith("Six values")


def test_a_path_leads_around_in_the_project_not_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "project" / "programs").mkdir(parents=True)
    for place in ("out.yaml", "project/in.yaml", "project/programs/beside.yaml"):
        (tmp_path / place).write_text("version: 1\n")
    (tmp_path / "project/programs/link.yaml").symlink_to(tmp_path / "out.yaml")
    library = Library.beside(tmp_path / "project" / "programs" / "p.yaml")
    for name in ("../in.yaml", "beside.yaml", "./beside.yaml"):
        assert library.source("programs", name).data == {"version": 1}
    for name in ("../../out.yaml", str(tmp_path / "out.yaml"), "link.yaml", "/etc/passwd"):
        with pytest.raises(CompileError, match="no program named"):
            library.source("programs", name)


def test_shown_paths_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "a" / "b.yaml") == "a/b.yaml"
    (tmp_path / "x.yaml").write_text("a: 1")
    assert read_source(tmp_path / "x.yaml", shown(tmp_path / "x.yaml")).file == "x.yaml"


def test_a_program_is_found_from_within_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, what lies above is not what `.` has as its parent."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (tmp_path / "attributes").mkdir()
    shipped = Path(__file__).parents[1]
    (tmp_path / "attributes" / "mta.yaml").write_text(
        (shipped / "attributes" / "mta.yaml").read_text()
    )
    data = shipped / "programs" / "data" / "triage.jsonl"
    (folder / "one.yaml").write_text(
        "version: 1\nprogram: one\nabout: One.\nattributes: mta\n"
        f"data: {{format: jsonl, path: '{data}'}}\ntargets: {{each: [low]}}\n"
        "deciders: {d: {use: random}}\nmodel: embedded\nmetrics: [accuracy]\n"
    )
    (folder / "two.yaml").write_text("version: 1\nprogram: two\nextends: one.yaml\n")
    for where, name in ((folder, "two.yaml"), (tmp_path, "programs/two.yaml")):
        monkeypatch.chdir(where)
        assert compile(Path(name)).program.name == "two"


def test_a_path_on_the_command_line_is_seen_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path(__file__).parents[1]
    (tmp_path / "mine").mkdir()
    data = (shipped / "programs" / "data" / "triage.jsonl").read_text()
    (tmp_path / "mine" / "some.jsonl").write_text(data)
    monkeypatch.chdir(tmp_path)
    changes = Changes(sets=("data.path=mine/some.jsonl",))
    program = compile(shipped / "programs" / "mta.yaml", changes).program
    assert Path(program.data.place.path) == Path("mine/some.jsonl")
