"""A command whose reader has gone, as with `| head`, ends silently, with the code of SIGPIPE."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from align_dsl.records.store import Store
from tests.test_report import tiny
from tests.worlds import cases, write_world

COMMANDS = [
    "--help",
    "run --help",
    "runs",
    "runs show last",
    *(f"export last --format {form}" for form in ("csv", "jsonl", "json", "align-system")),
    "compare last:baseline last:regression --flips",
    "report last -o /dev/fd/1",  # a folder in which nothing can be replaced
    "schema program",
    "explain programs/small.yaml",
    "explain programs/small.yaml --prompts",
    "check --format json programs/broken.yaml",
    "compile programs/small.yaml",
    "diff programs/small.yaml programs/other.yaml",
    "completion bash",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipe")
    path = write_world(folder, cases(6))
    path.with_name("other.yaml").write_text(path.read_text().replace("shots: 4", "shots: 2"))
    path.with_name("broken.yaml").write_text("version: 1\nprogram: broken\n")
    run = tiny()
    with Store.open(folder / ".align" / "align.db") as opened:
        opened.start(run.record, run.program, run.cases)
        opened.finish(run.record, run.judgements, replace=True)
    return folder


def ended(folder: Path, *words: str, errors_too: bool = False) -> tuple[int, str]:
    """How a command ends that nobody reads, and what it says of that."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "align_dsl", *words],
        cwd=folder,
        stdout=theirs,
        stderr=theirs if errors_too else subprocess.PIPE,
        check=False,
    )
    os.close(theirs)
    return done.returncode, (done.stderr or b"").decode()


@pytest.mark.parametrize("words", COMMANDS)
def test_a_closed_pipe_is_no_error(words: str, folder: Path) -> None:
    assert ended(folder, *words.split()) == (141, "")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_that_nobody_reads_says_nothing_of_it(more: list[str], folder: Path) -> None:
    code, said = ended(folder, "run", "programs/small.yaml", "--only", "oracle", *more)
    assert code == 141
    assert "rror" not in said
    assert "Exception" not in said


def test_nor_where_errors_go_there_too(folder: Path) -> None:
    assert ended(folder, "runs", "show", "nothing", errors_too=True)[0] == 141


def test_what_is_no_file_is_written_to_and_not_replaced(folder: Path) -> None:
    """Such as /dev/stdout, which would be gone afterwards: root may do that."""
    os.mkfifo(folder / "fifo")
    ours = os.open(folder / "fifo", os.O_RDWR)  # so that nobody waits for anybody
    os.set_blocking(ours, False)
    line = [sys.executable, "-m", "align_dsl", "export", "last", "--format", "csv", "-o", "fifo"]
    subprocess.run(line, cwd=folder, check=True, capture_output=True, timeout=60)
    assert (folder / "fifo").is_fifo()
    assert os.read(ours, 100).startswith(b"run,decider,")
    os.close(ours)


def test_what_a_link_names_is_written(folder: Path) -> None:
    (folder / "there.html").write_text("old")
    (folder / "link.html").symlink_to("there.html")
    line = [sys.executable, "-m", "align_dsl", "report", "last", "-o", "link.html"]
    subprocess.run(line, cwd=folder, check=True, capture_output=True)
    assert (folder / "link.html").is_symlink()
    assert (folder / "there.html").read_text().startswith("<!doctype html>")
