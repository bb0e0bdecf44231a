"""The winner -> a program file that extends the original and holds what changed, no more."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from align_dsl import pipeline
from align_dsl.errors import CompileError, PlanError, visible
from align_dsl.language.program import Program
from align_dsl.language.space import declaration
from align_dsl.optimize.carried import carried
from align_dsl.optimize.choose import Chosen
from align_dsl.optimize.done import Done
from align_dsl.optimize.provenance import of_dspy, of_search
from align_dsl.optimize.space import Config
from align_dsl.optimize.task import Ready
from align_dsl.optimize.verdict import Verdict

if TYPE_CHECKING:
    from align_dsl.optimize.stock.learn import Found

NAMED = re.compile(r"[A-Za-z0-9_./-]+")
NUMBERED = re.compile(r"(?P<name>.*?)(?:(?P<mark>[._]optimized)(?P<n>[0-9]*))?", re.DOTALL)
LONGEST = 64  # characters of a program's name


def place(made: Ready, output: Path | None = None) -> Path:
    """Where the winner will go, decided before anything is paid: a file that can be written there,
    that would compile there, and that the program itself is not made of."""
    data = made.loaded.program.data
    read = (one.path for one in (data.place, data.exemplars) if one is not None)
    parts = [Path(file) for file in (*made.loaded.checked.texts, *read)]
    to = output or path_of(made.task.program, parts)
    if output is not None and any(_is_same(output, part) for part in (made.task.program, *parts)):
        what = "the program itself" if _is_same(output, made.task.program) else "part of it"
        said = f"error: what is optimized cannot be written to {visible(str(to))}: that is {what}"
        raise PlanError(f"{said}\n  = name another file: --output FILE")
    if to.is_dir():
        said = f"error: cannot write {visible(str(to))}: it is a folder"
        raise PlanError(f"{said}\n  = name a file in it: --output FILE")
    os.unlink(_draft(made, made.space.default, (), to))
    return to


def path_of(program: Path, parts: Collection[Path] = ()) -> Path:
    """`mta.yaml` -> `mta.optimized.yaml` -> `mta.optimized2.yaml`, beside it; `parts` are files
    that it must not be."""
    name, n = _numbered(program.stem)
    for i in count(n + 1):
        to = program.with_name(f"{name}.optimized{i if i > 1 else ''}.yaml")
        if not any(_is_same(to, part) for part in parts):
            return to
    raise AssertionError("there is always a next number")


def _numbered(name: str) -> tuple[str, int]:
    """`mta.optimized2` -> `mta`, 2: how often it has been optimized."""
    found = NUMBERED.fullmatch(name)
    assert found is not None
    return found["name"], int(found["n"] or 1) if found["mark"] else 0


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are of one file, though it be by a link."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return one.resolve() == other.resolve()


def write(made: Ready, chosen: Chosen, verdict: Verdict, done: Sequence[Done], to: Path) -> Path:
    """Write the file, whole or not at all, and see that it means what the trial was."""
    told = of_search(made, chosen, verdict, done, to)
    return _write(made, chosen.done.config, told, to)


def write_found(made: Ready, found: Found, verdict: Verdict, paid: int, to: Path) -> Path:
    """The same for what an optimizer of DSPy came back with."""
    return _write(made, found.settings, of_dspy(made, found, verdict, paid, to), to)


def _write(made: Ready, config: Config, told: Iterable[str], to: Path) -> Path:
    draft = _draft(made, config, told, to)
    if to.exists() and to.read_bytes() != draft.read_bytes():  # somebody may have edited it
        os.replace(to, f"{to}.before")
    os.replace(draft, to)
    return to


def _draft(made: Ready, config: Config, told: Iterable[str], to: Path) -> Path:
    """The file under another name, beside where it is to go; it means what it should."""
    comments = "".join(f"# {visible(line)}\n" for line in told)
    body = yaml.dump(
        _body(made, config, to),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=96,
    )
    try:
        handle, name = tempfile.mkstemp(prefix=f".{to.stem}-", suffix=".yaml", dir=to.parent)
    except OSError as error:
        raise _unwritable(to, error) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(comments + body)
        os.chmod(name, 0o644)
        _means_the_same(Path(name), made, config)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise _unwritable(to, error) from None
        raise
    return Path(name)


def _unwritable(to: Path, error: OSError) -> PlanError:
    said = f"error: cannot write {visible(str(to))}: {error.strerror or error}"
    return PlanError(f"{said}\n  = name another file: --output FILE")


def _body(made: Ready, config: Config, to: Path) -> dict[str, Any]:
    name, checked = made.space.decider.name, made.space.checked
    entry = declaration(checked.source, made.space.library, name, made.space.changes(config))
    first, n = _numbered(checked.program.name)
    mark = f"_optimized{n + 1 if n else ''}"
    program = f"{first[: LONGEST - len(mark)]}{mark}"
    body: dict[str, Any] = {"version": 1, "program": program, "extends": _parent(made, to)}
    other = carried(made, to)
    deciders = {**other.pop("deciders", {}), name: entry}
    return {**body, **other, "deciders": deciders}


def _parent(made: Ready, to: Path) -> str:
    parent = made.task.program
    if parent.parent.resolve() == to.parent.resolve():
        name = parent.name
    elif to.parent.resolve() == parent.parent.resolve().parent:
        name = f"{parent.parent.resolve().name}/{parent.name}"
    else:
        name = parent.stem
    if not NAMED.fullmatch(name):
        said = f"error: no file can extend one named `{visible(name)}`"
        raise PlanError(f"{said}\n  = give it a name of letters, digits, dots and dashes")
    return name


def _means_the_same(file: Path, made: Ready, config: Config) -> None:
    """The file was made to be compiled: so it is, before anybody relies on it."""
    try:
        found = pipeline.compile(file).program
    except CompileError as error:
        said = "error: the optimized program would not compile there"
        raise PlanError(f"{said}: {error.first}") from None
    ours, theirs = _meant(made, made.space.program(config)), _meant(made, found)
    other = next((name for name, said in ours.items() if theirs[name] != said), None)
    if other is None:
        return
    said = "error: the optimized program would not mean the same there"
    if other == "decider":
        said += ": its name stands for another file"
    else:
        said += f": `{other}` would be another"
    raise PlanError(f"{said}\n  = write it beside the original")


def _meant(made: Ready, program: Program) -> dict[str, Any]:
    """All that what is decided depends on, and how right that is."""
    data = program.data
    places = (data.place, data.exemplars)
    name = made.space.decider.name
    return {
        "decider": next((d for d in program.deciders if d.name == name), None),
        "model": next((m for m in program.models if m.name == made.model.name), None),
        "data": [data.split, data.cases, *(one and os.path.realpath(one.path) for one in places)],
        "targets": program.targets,
        "attributes": program.attributes,
        "seed": program.seed,
    }


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: long texts in blocks, small mappings on a line, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _mapping(dumper: yaml.SafeDumper, value: dict[str, Any]) -> yaml.Node:
    plain = all(isinstance(v, str | int | float | bool | list) for v in value.values())
    short = plain and len(str(value)) <= 90 and "version" not in value
    return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=short)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    short = all(isinstance(v, str | int | float | bool) for v in value) and len(str(value)) <= 90
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _mapping)
