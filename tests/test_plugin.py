"""Every door from outside: a package of its own adds one thing to each, by entry points alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align_dsl.testing import (
    AlgorithmCase,
    AlignerCase,
    BackendCase,
    DatasetCase,
    DeciderCase,
    MetricCase,
    Sample,
)
from align_dsl.types import Attribute

PLUGIN = Path(__file__).parent / "plugin"

PROGRAM = """\
version: 1
program: outside
about: Uses one thing from every door of the plug-in.
attributes:
  x: {about: How much of x a choice shows., high: Much x., low: Little x.}
data: {format: paragraphs, path: cases.txt}
targets: {each: [low, high]}
deciders:
  theirs: {use: wordy, with: {full: 10}}
  mixed:
    steps:
      - {name: rate, use: rate_together, each: [attribute]}
    decide: {use: tilt, take: rate, with: {sharpness: 2}}
model: parrot:hello
metrics: [accuracy, decided]
"""
CASES = "A door is shut.\nWait. [x=0]\nOpen it with all your might. [x=1]\n"

CHECK = """\
import json, sys
sys.argv = ["align-dsl", "check", *sys.argv[1:]]
from align_dsl.commands import main
try:
    main()
finally:
    print(json.dumps(sorted(m for m in sys.modules if "align_dsl_example" in m or m == "dspy")))
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in as pip installs it, in a folder of its own."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *flags, str(source)], check=True)
    return target


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "cases.txt").write_text(CASES)
    (tmp_path / "outside.yaml").write_text(PROGRAM)
    return tmp_path


def check(project: Path, installed: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CHECK, "outside.yaml"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    return done, json.loads(done.stdout.splitlines()[-1])


def test_a_program_may_use_all_of_it(project: Path, installed: Path) -> None:
    done, _ = check(project, installed)
    assert (done.stderr, done.returncode) == ("", 0)


def run(project: Path, installed: Path) -> list[dict[str, Any]]:
    """The rows of the table of a run."""
    done = subprocess.run(
        [sys.executable, "-m", "align_dsl", "run", "outside.yaml", "--json"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["results"]
    return results


def test_a_run_uses_all_of_it(project: Path, installed: Path) -> None:
    results = [r for r in run(project, installed) if r["metric"] == "accuracy"]
    assert {r["model"] for r in results} == {"parrot:hello"}
    # the longer choice of the one case is the higher one
    assert {r["value"] for r in results if r["decider"] == "theirs"} == {1.0}
    assert {r["failed"] for r in results} == {0}


def test_a_run_asks_its_metric(project: Path, installed: Path) -> None:
    results = [r for r in run(project, installed) if r["metric"] == "decided"]
    assert {r["value"] for r in results} == {1.0}


def test_checking_runs_no_code_of_a_plugin_but_the_reader_of_its_data(
    project: Path, installed: Path
) -> None:
    _, loaded = check(project, installed)
    assert loaded == ["align_dsl_example", "align_dsl_example.dataset"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("use: wordy", "use: wordi"),
        ("use: tilt", "use: tillt"),
        ("format: paragraphs", "format: paragraph"),
        ("decided]", "decide]"),
    ],
)
def test_a_slip_in_its_name_is_noticed(
    project: Path, installed: Path, right: str, wrong: str
) -> None:
    (project / "outside.yaml").write_text(PROGRAM.replace(right, wrong))
    done, _ = check(project, installed)
    assert done.returncode == 2
    meant = right.split()[-1].strip("]")
    assert f"did you mean `{meant}`?" in done.stderr


def test_its_settings_are_checked_without_running_it(project: Path, installed: Path) -> None:
    (project / "outside.yaml").write_text(PROGRAM.replace("full: 10", "full: 0"))
    done, loaded = check(project, installed)
    assert done.returncode == 2
    assert "`full` must be from 1 to 1000, not 0" in done.stderr
    assert "align_dsl_example.algorithm" not in loaded


# What a plug-in's author writes: the shipped cases with one fixture each.

EXAMPLE = PLUGIN / "align_dsl_example"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of the plug-in, by name, from its source."""
    import importlib

    monkeypatch.syspath_prepend(str(PLUGIN))
    return lambda name: importlib.import_module(f"align_dsl_example.{name}")


class TestAlgorithm(AlgorithmCase):
    @pytest.fixture
    def algorithm(self, example: Any) -> Any:
        return example("algorithm").rate_by_length


class TestAligner(AlignerCase):
    @pytest.fixture
    def aligner(self, example: Any) -> Any:
        return example("aligner").tilt


class TestDataset(DatasetCase):
    @pytest.fixture
    def sample(self, example: Any, tmp_path: Path) -> Sample:
        path = tmp_path / "cases.txt"
        path.write_text(CASES)
        x = Attribute(name="x", title="x", about="about", high="much", low="little")
        texts = ("A door is shut.", "Wait.", "Open it with all your might.")
        return Sample(example("dataset").paragraphs, path, {"x": x}, texts)


class TestBackend(BackendCase):
    @pytest.fixture
    def backend(self, example: Any) -> Any:
        return example("backend").parrot


class TestMetric(MetricCase):
    @pytest.fixture
    def metric(self, example: Any) -> Any:
        return example("metric").decided


class TestDecider(DeciderCase):
    @pytest.fixture
    def file(self, installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        from align_dsl.language.library import Library
        from align_dsl.registry import Registry

        # registries made anew, since those of this process were filled before the installation
        monkeypatch.syspath_prepend(str(installed))
        for door in ("algorithms", "aligners"):
            monkeypatch.setattr(Library, door, Registry[Any](f"align_dsl.{door}"))
        return installed / "align_dsl_example" / "deciders" / "wordy.yaml"
