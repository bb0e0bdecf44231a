"""`align-dsl init` and `align-dsl completion`: what a newcomer runs first."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from align_dsl.commands import COMMANDS, cli
from align_dsl.commands.completion import COMPLETE
from align_dsl.errors import PlanError
from align_dsl.pipeline import check, load


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "mine")])
    assert done.exit_code == 0, done.output
    return tmp_path / "mine"


def contents(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()
    }


def test_writes_one_file_of_each_kind(starter: Path) -> None:
    assert set(contents(starter)) == {
        ".gitignore",
        ".schema/attributes.schema.json",
        ".schema/decider.schema.json",
        ".schema/program.schema.json",
        ".vscode/settings.json",
        "attributes/values.yaml",
        "data/example.jsonl",
        "deciders/my_regression.yaml",
        "programs/triage.yaml",
    }


def test_the_project_checks_without_a_word(starter: Path) -> None:
    assert check([starter]).diagnostics == []


def test_everything_in_it_is_used(starter: Path) -> None:
    loaded = load(starter / "programs" / "triage.yaml")
    assert len(loaded.cases) == 8
    assert [d.name for d in loaded.checked.program.deciders] == ["random", "mine", "oracle"]
    for case in loaded.cases:
        values = [case.labels[c.id]["candour"] for c in case.scenario.choices]
        assert max(values) - min(values) >= 0.6, case.scenario.id


def test_the_right_choice_is_not_always_in_one_place(starter: Path) -> None:
    first = [
        max(case.labels, key=lambda c: case.labels[c]["candour"]) == case.scenario.choices[0].id
        for case in load(starter / "programs" / "triage.yaml").cases
    ]
    assert sum(first) == len(first) / 2


def test_it_runs(starter: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "align_dsl", "run", "programs/triage.yaml", "--json"],
        cwd=starter,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["status"]) == ("done", "ok")
    assert {r["value"] for r in last["results"] if r["decider"] == "oracle"} == {1.0}


@pytest.mark.parametrize("file", ["programs/triage", "attributes/values", "deciders/my_regression"])
def test_the_editor_finds_a_schema_that_accepts_the_file(starter: Path, file: str) -> None:
    path = starter / f"{file}.yaml"
    modeline = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert modeline
    schema = json.loads((path.parent / modeline[1]).read_text())
    # JSON has text for keys, as our own loader has; PyYAML reads the anchors' keys as numbers
    data = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    jsonschema.Draft202012Validator(schema).validate(data)


def test_editor_settings_name_the_same_schemas(starter: Path) -> None:
    settings = json.loads((starter / ".vscode" / "settings.json").read_text())
    for schema, files in settings["yaml.schemas"].items():
        assert (starter / schema).is_file()
        assert list(starter.glob(files))


def test_nothing_is_overwritten_and_nothing_is_half_written(starter: Path) -> None:
    (starter / "programs" / "triage.yaml").write_text("mine\n")
    (starter / "data" / "example.jsonl").unlink()
    before = contents(starter)
    done = CliRunner().invoke(cli, ["init", str(starter)])
    assert isinstance(done.exception, PlanError)
    assert done.exception.exit_code == 2
    assert "triage.yaml" in str(done.exception)
    assert "example.jsonl" not in str(done.exception)
    assert contents(starter) == before


def test_force_overwrites(starter: Path) -> None:
    before = contents(starter)
    (starter / "programs" / "triage.yaml").write_text("mine\n")
    assert CliRunner().invoke(cli, ["init", str(starter), "--force"]).exit_code == 0
    assert contents(starter) == before


def test_says_what_to_do_next(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "a b")])
    assert f"cd '{tmp_path}/a b'" in done.stdout
    assert "align-dsl check ." in done.stdout
    assert "align-dsl run programs/triage.yaml" in done.stdout
    assert all((tmp_path / "a b" / name).exists() for name in ("programs", "attributes"))


def test_a_folder_that_cannot_be_made_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "file" / "below")])
    assert isinstance(done.exception, PlanError)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_asks_us(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert f"{COMPLETE}={shell}_complete" in done.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("align-dsl c", {c for c in COMMANDS if c.startswith("c")}),
        ("align-dsl check --for", {"--format"}),
    ],
)
def test_the_shell_gets_names_without_importing_every_command(
    words: str, offered: set[str]
) -> None:
    asked = {COMPLETE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "from align_dsl.commands import main; main()"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == offered
