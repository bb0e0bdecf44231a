"""`align-dsl check` as a user meets it: exit codes, forms, colour, and how light it is."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from align_dsl.language.library import shipped_folder
from align_dsl.pipeline import check

ROOT = shipped_folder()
WRONG = "version: 1\nset: s\nabout: 'two\n  lines'\nattributes: {}\ncolour: 100%\n"
WARNS = """\
version: 1
decider: d
about: Warned of.
params: {unused: 1}
decide: {use: uniform}
"""
HEAVY = ("dspy", "litellm", "optuna", "numpy", "aiohttp")


def call(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from align_dsl.commands import main; main()", *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    (tmp_path / "warns.yaml").write_text(WARNS)
    (tmp_path / "fine.yaml").write_text(WARNS.replace("params: {unused: 1}\n", ""))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["fine.yaml"], 0),
        (["warns.yaml"], 0),
        (["--strict", "warns.yaml"], 2),
        (["wrong.yaml"], 2),
        (["fine.yaml", "wrong.yaml"], 2),
        (["none.yaml"], 2),
        (["."], 2),
        ([], 2),
        (["--format", "xml", "fine.yaml"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int, files: Path) -> None:
    done = call("check", *arguments, cwd=files)
    assert done.returncode == code
    assert done.stdout == ""
    assert bool(done.stderr) == (arguments != ["fine.yaml"])
    assert "Traceback" not in done.stderr


def test_json(files: Path) -> None:
    done = call("check", "--format", "json", "wrong.yaml", "warns.yaml", "fine.yaml", cwd=files)
    assert done.returncode == 2
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert {d["severity"] for d in said} == {"error", "warning"}
    unknown = next(d for d in said if "colour" in d["message"])
    assert unknown["file"] == "wrong.yaml"
    assert (unknown["line"], unknown["column"], unknown["width"]) == (6, 1, 6)


def test_json_of_nothing(files: Path) -> None:
    assert call("check", "--format", "json", "fine.yaml", cwd=files).stdout == "[]\n"


def test_github(files: Path) -> None:
    (files / "a,b:c.yaml").write_text("version: 1\nset: '50%'\n")
    done = call("check", "--format", "github", "wrong.yaml", "a,b:c.yaml", "warns.yaml", cwd=files)
    lines = done.stdout.splitlines()
    assert all(line.startswith(("::error file=", "::warning file=")) for line in lines)
    assert any("file=a%2Cb%3Ac.yaml,line=2,col=6::" in line and "50%25" in line for line in lines)
    assert any(line.startswith("::warning file=warns.yaml,line=4,col=10::") for line in lines)


def on_a_terminal(cwd: Path, **env: str) -> str:
    """What comes out where a terminal listens."""
    ours, theirs = pty.openpty()
    arguments = ["-c", "from align_dsl.commands import main; main()", "check", "wrong.yaml"]
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", **env},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 4096):
                said += piece
        except OSError:  # how Linux says that the other side has hung up
            pass
    os.close(ours)
    return said.decode()


def test_colour_on_a_terminal_only(files: Path) -> None:
    assert "\x1b[" in on_a_terminal(files, NO_COLOR="")
    assert "\x1b" not in on_a_terminal(files, NO_COLOR="1")
    assert "\x1b" not in call("check", "wrong.yaml", cwd=files, NO_COLOR="").stderr


def test_shipped_files_are_silent() -> None:
    done = call("check", "programs", "attributes", "align_dsl/deciders", cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("arguments", [["--help"], ["check", "programs"], ["schema", "program"]])
def test_light(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom align_dsl.commands import main\ntry:\n    main()\n"
        "except SystemExit as left:\n    assert not left.code, left.code\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "HEAVY []"


def test_a_name_that_is_not_its_file_s_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "deciders"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "version: 1\ndecider: other\nabout: x\ndecide: {use: uniform}\n"
    )
    found = check([folder])
    assert [d.message for d in found.diagnostics] == [
        "`other` stands in mine.yaml, so nobody would find it"
    ]
    assert found.diagnostics[0].hint == "write `decider: mine`, or rename the file"
