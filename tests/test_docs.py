"""What the documents say holds: paths exist, examples check, words and keys are all there."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from align_dsl import errors, types
from align_dsl.commands import COMMANDS
from align_dsl.language import schema, wording
from align_dsl.pipeline import check
from align_dsl.registry import ALGORITHMS, ALIGNERS
from align_dsl.testing import AlgorithmCase
from align_dsl.testing.aligners import ATTRIBUTES
from align_dsl.testing.metrics import CASES

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
PATH = re.compile(r"`((?:align_dsl|docs|tests|programs|attributes|benchmarks|\.ci)/[\w./-]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[\w-]+)?\)")
TO_WRITE = re.compile(r"^Write `(\S+)`[^\n]*\n\n```\w+\n(.*?)```", re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r"<!-- complete: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
LANGUAGE = (ROOT / "docs" / "language.md").read_text()


def plain(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=plain)
def test_every_path_exists(page: Path) -> None:
    text = TO_WRITE.sub("", page.read_text())
    assert [p for p in PATH.findall(text) if not (ROOT / p).exists()] == []
    assert [p for p in LINK.findall(text) if not (page.parent / p).exists()] == []


def test_architecture_is_short_and_names_every_door() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert len(text.splitlines()) <= 120
    folders = {p.name for p in (ROOT / "align_dsl").iterdir() if (p / "__init__.py").exists()}
    assert [f for f in sorted(folders) if f"{f}/" not in text] == []


def test_every_package_has_a_floor() -> None:
    """A new package without a line in the contract would be free to import anything."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    said = str(next(c["layers"] for c in contracts if c["id"] == "floors"))
    said += str(next(c["source_modules"] for c in contracts if c["id"] == "below-backends"))
    inside = (ROOT / "align_dsl").iterdir()
    names = {p.stem for p in inside if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert [n for n in sorted(names - {"__init__"}) if f"align_dsl.{n}" not in said] == []


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    found = EXAMPLE.findall(LANGUAGE)
    assert len(found) >= 6
    for name, text in found:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_examples_of_the_language_are_right(examples: Path) -> None:
    folders = [examples / name for name in ("programs", "attributes", "deciders")]
    found = check(folders)
    wrong = [d for d in found.diagnostics if d.severity == "error"]
    assert wrong == []
    assert [d.message for d in found.diagnostics] == ["no target asks for the attribute `fairness`"]


def newcomer() -> dict[str, str]:
    """The files that CONTRIBUTING has a newcomer write, by path."""
    return dict(TO_WRITE.findall((ROOT / "CONTRIBUTING.md").read_text()))


def test_a_newcomers_attribute_and_decider_are_right(tmp_path: Path) -> None:
    files = {n: text for n, text in newcomer().items() if n.endswith(".yaml")}
    assert len(files) == 2
    for name, text in files.items():
        (tmp_path / Path(name).name).write_text(text)
    assert check([tmp_path]).diagnostics == []


class TestNewcomersAlgorithm(AlgorithmCase):
    @pytest.fixture
    def algorithm(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        ((name, text),) = ((n, text) for n, text in newcomer().items() if n.endswith(".py"))
        path = tmp_path / Path(name).name
        path.write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return getattr(importlib.import_module(path.stem), path.stem)

    def test_it_rates_every_choice(self, algorithm: Any) -> None:
        scenario = CASES["case-0"].scenario
        ratings = algorithm().forward(scenario, ATTRIBUTES[0])
        assert [r.choice for r in ratings] == [c.id for c in scenario.choices]
        assert all(0 <= r.value <= 1 for r in ratings)


def declarations() -> list[type[BaseModel]]:
    members = vars(schema).values()
    return [m for m in members if inspect.isclass(m) and issubclass(m, schema.Declaration)]


@pytest.mark.parametrize("declaration", declarations(), ids=lambda d: d.__name__)
def test_every_key_is_explained(declaration: type[BaseModel]) -> None:
    keys = [f.alias or name for name, f in declaration.model_fields.items()]
    said = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`\n]+)`", LANGUAGE))))
    assert [k for k in keys if k not in said] == []


@pytest.mark.parametrize("name", [*wording.FIELDS])
def test_every_field_of_a_prompt_is_named(name: str) -> None:
    assert f"`{{{name}}}`" in LANGUAGE


def test_the_tables_of_what_ships_are_right() -> None:
    """Not that they are complete: a new algorithm is one new file."""
    from align_dsl.language.signature import signature

    for registry, least in ((ALGORITHMS, 6), (ALIGNERS, 4)):
        rows = [r for r in LANGUAGE.splitlines() if r.startswith("| `")]
        rows = [r for r in rows if r.split("`")[1] in registry]
        assert len(rows) >= least
        for row in rows:
            read = signature(registry, row.split("`")[1])
            assert [p.name for p in read.params if f"`{p.name}`" not in row] == []


def test_the_glossary_has_every_public_type() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    names = [
        name
        for name, thing in vars(types).items()
        if not name.startswith("_")
        and name[0].isupper()
        and (
            getattr(thing, "__module__", types.__name__) == types.__name__ or "align" in str(thing)
        )
    ]
    names += ["Label", "LabelledNumbers", "ScaleNumber", "Labels", "Status", "Prompt"]
    assert [n for n in names if f"`{n}`" not in text] == []


def test_every_exit_code_is_explained() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    kinds = [e for e in vars(errors).values() if inspect.isclass(e)]
    codes = {e.exit_code: e for e in kinds if issubclass(e, errors.AlignError)}
    for code in {*codes, 0, 2, 3, 10, 130, 143}:
        assert f"| {code} |" in text
    for kind in kinds:
        if issubclass(kind, errors.AlignError) and kind is not errors.AlignError:
            assert f"`{kind.__name__}`" in text


def test_the_commands_of_the_readme_are_those_of_ci() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"^make (\w+)$", readme, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{t}:" in makefile for t in targets)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_every_command_is_listed_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `align-dsl (\w+)", readme, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_nothing_of_the_machine_it_was_written_on_is_kept() -> None:
    """No paths of somebody's machine, and no addresses of package indexes in the locks."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith("--")]
        assert not [line for line in lines if re.search(r"(^|\s)-[crf] |file:|/\w+/\w+", line)]
    for name in ("pyproject.toml", "Makefile", ".ci/run"):
        assert not re.search(r"/(root|home|tmp|work|opt|Users)\b", (ROOT / name).read_text())


def test_the_locks_agree() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        return dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE))

    runtime, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert runtime.items() <= dev.items()
    assert {"dspy", "litellm", "optuna", "pydantic", "pyyaml", "ollama"} <= runtime.keys()
    assert {"pytest", "ruff", "mypy", "import-linter", "xllamacpp"} <= dev.keys() - runtime.keys()
    assert "pip" not in runtime
    assert runtime["litellm"] not in ("1.82.7", "1.82.8")


def test_the_makefile_is_valid() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "make demo" in done.stdout
    assert "make test" in done.stdout
