"""What the documents say holds: paths exist, examples check, words and keys are all there."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import re
import shlex
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from align_dsl import errors, types
from align_dsl.commands import COMMANDS, cli
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
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text()
LANGUAGE = (ROOT / "docs" / "language.md").read_text()


def plain(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=plain)
def test_every_path_exists(page: Path) -> None:
    text = TO_WRITE.sub("", page.read_text())
    assert [p for p in PATH.findall(text) if not (ROOT / p).exists()] == []
    assert [p for p in LINK.findall(text) if not (page.parent / p).exists()] == []


def anchors(page: Path) -> set[str]:
    """Its headings, as links spell them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=plain)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    for to, heading in re.findall(r"\]\(([^)#:]*)#([\w-]+)\)", page.read_text()):
        assert heading in anchors(page.parent / to if to else page), (to, heading)


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


# --- docs/commands.md


def section(title: str) -> str:
    found = re.search(rf"^##+ {title}\n(.*?)(?=^## |^### |\Z)", COMMANDS_PAGE, re.M | re.S)
    assert found, title
    return found[1]


def options_in(text: str) -> set[str]:
    rows = re.findall(r"^\| (`-.*?) \|", text, re.MULTILINE)
    return {o for row in rows for o in re.findall(r"`(--?[a-z][a-z-]*)", row)}


def named(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    return command


def parts(command: click.Command) -> list[click.Command]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [command, *below]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_listed_with_its_command(name: str) -> None:
    command = named(name)
    text = section(name)
    listed = options_in(text)
    for shared in ("What changes a program", "The store"):
        if f"(#{shared.lower().replace(' ', '-')})" in text:
            listed |= options_in(section(shared))
    options = [p for c in parts(command) for p in c.params if isinstance(p, click.Option)]
    options = [p for p in options if not p.hidden]  # these only say what to write instead
    assert listed == {o for p in options for o in p.opts}
    for one in parts(command)[1:]:
        assert one.name == "ls" or f"`{name} {one.name} " in text
    assert f"\nalign-dsl {name} " in text or f"\nalign-dsl {name}\n" in text


def test_every_event_and_its_keys_are_listed() -> None:
    text = section("JSON lines")
    commands = ROOT / "align_dsl" / "commands"
    for name in ("progress", "search", "stock"):
        code = (commands / f"{name}.py").read_text()
        for event, rest in re.findall(r'_say\(\s*"(\w+)",?(.*?)\n\n', code, re.DOTALL):
            assert f"| `{event}` |" in text
            keys = re.findall(r'^\s+(\w+)=|^\s+"(\w+)":|\b(\w+)=', rest, re.MULTILINE)
            for key in (k for found in keys for k in found if k):
                assert f"`{key}`" in text, (name, event, key)


def command_lines() -> list[str]:
    block = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    blocks = (b for page in PAGES for b in block.findall(page.read_text()))
    lines = (line.removeprefix("$ ") for block in blocks for line in block.splitlines())
    return sorted({line for line in lines if line.startswith("align-dsl ")})


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_that_is_shown_is_understood(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command = named(words.pop(0))
    if isinstance(command, click.Group) and words:
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)  # raises where an option or argument is wrong


# --- what ships, as docs/language.md has it


def rows_of(header: str) -> list[list[str]]:
    body = LANGUAGE.split(f"| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in body]


def test_every_shipped_decider_is_listed_with_its_parameters() -> None:
    from align_dsl.language.source import read_source

    files = {p.stem: p for p in (ROOT / "align_dsl" / "deciders").glob("*.yaml")}
    rows = {row[0].strip("`"): row for row in rows_of("decider")}
    assert rows.keys() == files.keys()
    for name, path in files.items():
        said = dict(re.findall(r"`(\w+)` (\w+)", rows[name][1]))
        params = read_source(path, path.name).data.get("params", {})
        plain = {k: v["default"] if isinstance(v, dict) else v for k, v in params.items()}
        assert said == {k: str(v) for k, v in plain.items()}


def test_calls_of_the_shipped_deciders_are_as_listed() -> None:
    from align_dsl.pipeline import Changes, load, open_backends, plan_run

    letters = {"A": 2, "S": 3, "P": 2, "N": 4}
    settings = {"samples": 3, "positive": 2, "negative": 4}
    sets = ["model=small", "models={small: {use: openai/x, endpoint: 'http://localhost:1/v1'}}"]
    sets.append("targets={values: {fairness: high, protocol_focus: low}}")
    rows = {row[0].strip("`"): row for row in rows_of("decider")}
    for name, row in rows.items():
        some = {k: v for k, v in settings.items() if f"`{k}`" in row[1]}
        written = json.dumps({"it": {"use": name, "with": some}})
        loaded = load(ROOT / "programs" / "mta.yaml", Changes(sets=(*sets, f"deciders={written}")))
        both = {"fairness", "protocol_focus"}
        case = next(c for c in loaded.cases if both <= c.attributes())
        planned = plan_run(replace(loaded, cases=(case,)), open_backends(loaded.program))
        letters["C"] = len(case.scenario.choices)
        factors = [letters[f] if f in letters else int(f) for f in re.split(r" [x+] ", row[2])]
        expected = sum(factors) if "+" in row[2] else math.prod(factors)
        assert planned.asked == expected, name


def test_every_shipped_attribute_set_is_listed() -> None:
    from align_dsl.language.source import read_source

    rows = {row[0].strip("`"): row for row in rows_of("attribute set")}
    files = {p.stem: p for p in (ROOT / "attributes").glob("*.yaml")}
    assert rows.keys() == files.keys()
    for name, path in files.items():
        known = read_source(path, path.name).data["attributes"]
        said = re.findall(r"`(\w+)`", rows[name][1])
        assert said == list(known) or (str(len(known)) in rows[name][1] and set(said) <= {*known})
        (scale,) = {f"{one['scale']['low']} to {one['scale']['high']}" for one in known.values()}
        assert scale == rows[name][2]


# --- what editors read


@pytest.mark.parametrize("kind", sorted(schema.KINDS))
def test_the_schemas_that_our_files_name_are_up_to_date(kind: str) -> None:
    path = ROOT / ".schema" / f"{kind}.schema.json"
    text = json.dumps(schema.json_schema(kind), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_EXPECT"):
        path.write_text(text)
    assert path.read_text() == text, "align-dsl schema --write .schema"


@pytest.mark.parametrize("folder", ["programs", "attributes"])
def test_every_file_names_a_schema_that_is_there(folder: str) -> None:
    for path in (ROOT / folder).glob("*.yaml"):
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert named
        assert (path.parent / named[1]).is_file()


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
