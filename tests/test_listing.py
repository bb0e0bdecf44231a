"""Lists of runs and studies: names whole at any width, what was special of a run, one word each."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.optimize.study import Study
from align_dsl.records.store import Store
from tests.records.build import keep, record, recorded, result
from tests.test_report import Page
from tests.test_store import V1

LONG = "a_program_that_is_called_at_length_and_more"  # as long as fits beside what must be seen
DECIDERS = ("random", "baseline", "zero_shot", "regression", "oracle")
ASKED: dict[str, dict[str, Any]] = {
    "mta-0000000001": {},
    "mta-0000000002": {"limit": 20, "control": True},
    "mta-0000000003": {"seed": 3, "set": ["deciders.regression.with.shots=2"], "control": True},
    f"{LONG}-0000000004": {"model": "hosted_vllm/meta-llama/Llama-3.1-70B", "only": ["a b", "c"]},
}
STUDIES = ("mta-regression-00000001", f"{LONG}-regression-00000002")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listing") / ".align" / "align.db"
    with Store.open(path) as opened:
        for name, selection in ASKED.items():
            said = {"id": name, "program": name.rpartition("-")[0], "selection": selection}
            status = {"status": "interrupted"} if selection.get("limit") else {}
            rows = tuple(result(d, 0.4 + i / 10) for i, d in enumerate(DECIDERS))
            counts = {"ok": 10, "timeout": 2}
            some = {"deciders": DECIDERS, "results": rows, "counts": counts}
            keep(opened, recorded([], [], **said, **status, **some))
    for name in STUDIES:
        with Study(path.parent / "study.log", name) as study:
            for key, value in {
                "created": "2026-01-02T03:04:05+00:00",
                "decider": "regression",
                "model": "hosted_vllm/meta-llama/Llama-3.1-70B",
                "chosen": {"shots": 4},
            }.items():
                study.note(key, value)
    return path


def on_terminal(columns: int, *words: str) -> list[str]:
    """The lines that a command shows there, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    child = subprocess.Popen(
        [sys.executable, "-m", "align_dsl", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    try:
        while got := os.read(ours, 65536):
            seen += got
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert child.wait(60) == 0, seen
    return re.sub(r"\x1b\[[\d;]*m", "", seen.decode()).splitlines()


@pytest.mark.parametrize("columns", [80, 100, 140])
@pytest.mark.parametrize(("command", "names"), [("runs", tuple(ASKED)), ("studies", STUDIES)])
def test_a_name_is_in_one_piece_on_a_terminal(
    command: str, names: tuple[str, ...], columns: int, store: Path
) -> None:
    lines = on_terminal(columns, command, "--store", str(store))
    for name in names:
        assert sum(line.split()[:1] == [name] for line in lines) == 1, (name, lines)
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("width", ["80", "200", ""])
@pytest.mark.parametrize(("command", "names"), [("runs", tuple(ASKED)), ("studies", STUDIES)])
def test_a_line_each_and_all_of_it_where_no_terminal_is(
    command: str, names: tuple[str, ...], width: str, store: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-m", "align_dsl", command, "--store", str(store)],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, **({"COLUMNS": width} if width else {})},
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert {line.split()[0] for line in lines[2:]} == {*names}
    assert len(lines) == 2 + len(names)
    assert "…" not in done.stdout
    if command == "runs":
        assert done.stdout.count(", ".join(DECIDERS)) == len(names)


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ({}, ""),
        ({"limit": 20, "control": True}, "--limit 20 --control"),
        ({"limit": None, "control": False, "seed": 0}, "--seed 0"),
        ({"set": ["a=1", "b.c=x y"]}, "--set a=1 --set 'b.c=x y'"),
        ({"only": ["regression"]}, "--only regression"),
        ({"data": "more.jsonl", "format": "jsonl"}, "--data more.jsonl --format jsonl"),
        ({"model": "ollama_chat/llama3.2:3b"}, "--model ollama_chat/llama3.2:3b"),
    ],
)
def test_what_is_special_of_a_run_is_told(
    selection: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    with Store.open(path) as opened:
        keep(opened, recorded([], [], selection=selection))
    listed, shown = (
        CliRunner().invoke(cli, ["runs", *words, "--store", str(path)]).stdout
        for words in ((), ("show", "last"))
    )
    if not said:
        assert "with" not in listed.split()
        assert not re.search("^with", shown, re.M)
        return
    assert "with" in listed.splitlines()[1].split()
    assert said in listed.splitlines()[3]
    assert f"with     {said}\n" in shown


def test_runs_of_the_first_version_are_listed(tmp_path: Path) -> None:
    shutil.copy(V1, tmp_path / "a.db")
    done = CliRunner().invoke(cli, ["runs", "--store", str(tmp_path / "a.db")])
    assert done.exit_code == 0
    assert "mta-0123456789" in done.stdout


@pytest.mark.parametrize("status", ["ok", "running", "interrupted", "failed"])
def test_one_word_for_how_a_run_stands(status: str, tmp_path: Path) -> None:
    path, page = tmp_path / "a.db", tmp_path / "x.html"
    with Store.open(path) as opened:
        opened.start(record(status=status), {"name": "mta"}, [])
    store = ["--store", str(path)]
    listed = CliRunner().invoke(cli, ["runs", *store]).stdout.splitlines()
    at = listed[1].index("status")
    assert listed[3][at:].split()[0] == status
    shown = CliRunner().invoke(cli, ["runs", "show", "last", *store]).stdout
    assert f"\nstatus   {status}\n" in shown
    assert CliRunner().invoke(cli, ["report", "last", "-o", str(page), *store]).exit_code == 0
    assert f"status {status} " in Page(page.read_text()).text


def test_a_store_without_runs_says_so(tmp_path: Path) -> None:
    Store.open(tmp_path / "a.db").close()
    done = CliRunner().invoke(cli, ["runs", "--store", str(tmp_path / "a.db")])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"there are no runs in {tmp_path / 'a.db'}\n"
