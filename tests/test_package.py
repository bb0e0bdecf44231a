"""The wheel: built, installed into an empty environment, and used from a folder of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from align_dsl import __version__

ROOT = Path(__file__).parents[1]
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, *PIP, "wheel", *flags, str(ROOT)], check=True)
    return next(folder.glob("align_dsl-*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel alone; the rest is borrowed from ours."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # what stands in a folder named by a .pth file can be imported, but its own .pth files do not
    # count: so the editable installation of this checkout stays out
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = home / "bin" / "python"
    flags = ["install", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([python, *PIP, *flags], check=True)
    return home / "bin"


def run(command: Sequence[str | Path], cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_it_holds_what_ships_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("attributes", "programs"):
        for path in (ROOT / kind).rglob("*.*"):
            assert f"align_dsl/_library/{path.relative_to(ROOT).as_posix()}" in names
    for path in (ROOT / "align_dsl" / "deciders").glob("*.yaml"):
        assert f"align_dsl/deciders/{path.name}" in names
    assert "align_dsl/commands/_starter/programs/triage.yaml" in names
    tops = {n.partition("/")[0] for n in names}
    assert tops == {"align_dsl", f"align_dsl-{__version__}.dist-info"}
    assert not [n for n in names if "__pycache__" in n or ".align/" in n]


def test_it_is_used_from_anywhere(installed: Path, tmp_path: Path) -> None:
    assert run([installed / "align-dsl", "--version"], tmp_path).endswith(__version__)
    where = "import align_dsl; print(align_dsl.__file__)"
    assert str(installed.parent) in run([installed / "python", "-c", where], tmp_path)


def test_its_library_is_found(installed: Path, tmp_path: Path) -> None:
    folder = "from align_dsl.language.library import shipped_folder; print(shipped_folder())"
    shipped = Path(run([installed / "python", "-c", folder], tmp_path))
    assert shipped.is_relative_to(installed.parent.resolve())
    for program in (ROOT / "programs").glob("*.yaml"):
        there = shipped / "programs" / program.name
        assert run([installed / "align-dsl", "check", there], tmp_path) == ""


def test_a_program_of_ones_own_uses_it_by_name(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\nprogram: mine\nabout: Mine.\nextends: mta\n")
    assert run([installed / "align-dsl", "check", "mine.yaml"], tmp_path) == ""


def test_a_starter_project_checks(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "align-dsl"), "init", "new"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert run([installed / "align-dsl", "check", "new"], tmp_path) == ""
