"""Each file of tests/errors is a mistake, followed by exactly what `check` says about it.

Run with UPDATE_EXPECT=1 to rewrite what is expected, then read the diff as a user would.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from align_dsl.errors import render
from align_dsl.language.library import shipped_folder
from align_dsl.pipeline import check

ERRORS = Path(__file__).parent / "errors"
MARK = "#:"


def split(text: str) -> tuple[str, str]:
    """The mistake, and what is expected to be said of it."""
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.startswith(MARK)), len(lines))
    return "".join(lines[:first]), "".join(lines[first:])


def said_of(mistake: str, name: str) -> str:
    Path(name).write_text(mistake, encoding="utf-8", newline="")
    found = check([Path(name)])
    text = render(sorted(set(found.diagnostics)), found.texts)
    text = text.replace(str(shipped_folder()), "<shipped>")
    return "".join(f"{MARK} {line}".rstrip() + "\n" for line in text.splitlines())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("errors")
    shutil.copytree(ERRORS / "library", here / "library")
    return here


@pytest.mark.parametrize("path", sorted(ERRORS.glob("*.yaml")), ids=lambda p: p.stem)
def test_says(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a folder of its own, so that paths read the same wherever the tests are started
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ALIGN_PATH", "library")
    mistake, expected = split(path.read_text(encoding="utf-8"))
    said = said_of(mistake, path.name)
    assert said, "nothing was said: this is no mistake"
    if os.environ.get("UPDATE_EXPECT") == "1":
        assert os.environ.get("CI", "").lower() not in ("1", "true"), "CI compares, never rewrites"
        path.write_text(mistake + said, encoding="utf-8", newline="")
    else:
        assert said == expected


def test_there_are_many() -> None:
    assert len(list(ERRORS.glob("*.yaml"))) >= 65
