"""The winner -> a program file that extends the original and holds what changed, no more."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from align_dsl import __version__, pipeline
from align_dsl.errors import CompileError, PlanError, visible
from align_dsl.language.space import declaration
from align_dsl.optimize.aims import COSTS, Aims
from align_dsl.optimize.choose import Chosen
from align_dsl.optimize.space import Config
from align_dsl.optimize.study import Done
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
    return _write(made, chosen.done.config, _provenance(made, chosen, verdict, done), to)


def write_found(made: Ready, found: Found, verdict: Verdict, paid: int, to: Path) -> Path:
    """The same for what an optimizer of DSPy came back with."""
    return _write(made, found.settings, _of_dspy(made, found, verdict, paid), to)


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
    model = made.task.changes.model
    return {**body, **({"model": model} if model else {}), "deciders": {name: entry}}


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
    wanted = made.space.program(config).deciders[0]
    try:
        program = pipeline.compile(file).program
        found = next(d for d in program.deciders if d.name == wanted.name)
    except CompileError as error:
        said = "error: the optimized program would not compile there"
        raise PlanError(f"{said}: {error.first}") from None
    if found != wanted:
        raise PlanError(
            "error: the optimized program would not mean the same there: its name stands for"
            " another file\n  = write it beside the original"
        )


def _provenance(
    made: Ready, chosen: Chosen, verdict: Verdict, done: Sequence[Done]
) -> Iterator[str]:
    whole = sum(1 for d in done if d.score is not None and not d.pruned)
    pruned = sum(1 for d in done if d.pruned)
    train = len({a.group for a in made.train.asked})
    yield f"Made by `align-dsl optimize` {__version__}. Use and edit it like any program."
    yield f"study    {made.study}, trial {chosen.done.number} of {len(done)}"
    yield f"         ({whole} whole, {pruned} pruned, seed {made.optimize.seed}, {made.sampler})"
    yield f"from     {made.task.program.name}, digest {made.loaded.program.digest()}"
    yield f"model    {made.model.name}"
    for name, value in made.space.changes(chosen.done.config).items():
        before = made.space.default.get(name)
        yield f"changed  {name}: {_short(before)} -> {_short(value)}"
        if value in made.wordings.get(name, ()) and made.optimize.propose:
            yield f"         proposed by {made.optimize.propose.model}"
    gain = chosen.gain
    yield (
        f"train    {chosen.default.score or 0:.3f} -> {chosen.done.score or 0:.3f}"
        + (f", {signed(gain.value)} [{signed(gain.low)}, {signed(gain.high)}]" if gain else "")
        + f" on {train} cases"
    )
    if chosen.checked is None:
        yield "         that it was picked from by hand"
    else:
        yield f"         that chose it; {signed(chosen.checked)} on blocks that had no say"
    yield from _of_test(made, verdict)
    if made.aims != Aims():
        each = [(name, *verdict.each(name)) for name in COSTS]
        said = ", ".join(f"{a:.4g} -> {b:.4g} {name}" for name, a, b in each)
        yield f"cost     {said} a decision"


def _of_dspy(made: Ready, found: Found, verdict: Verdict, paid: int) -> Iterator[str]:
    yield f"Made by `align-dsl optimize` {__version__}. Use and edit it like any program."
    yield f"study    {made.study}, `method: {made.optimize.method}`, seed {made.optimize.seed}"
    yield f"         {found.candidates} candidates, {paid:,} calls with the verdict's"
    yield f"         DSPy {version('dspy')}: {found.optimizer}"
    if made.optimize.propose:
        yield f"         instructions written by {made.optimize.propose.model}"
    yield f"from     {made.task.program.name}, digest {made.loaded.program.digest()}"
    yield f"model    {made.model.name}"
    for name, value in found.settings.items():
        said = f"{len(value)} worked examples" if isinstance(value, list) else _short(value)
        yield f"changed  {name}: {said}"
    for note in found.notes:
        yield f"note     {note}"
    if found.scores:
        before, after = found.scores
        yield f"train    {before:.3f} -> {after:.3f} on DSPy's part of it, the mean over questions"
    else:
        yield "train    held against nothing"
    yield from _of_test(made, verdict)


def _of_test(made: Ready, verdict: Verdict) -> Iterator[str]:
    value, low, high = verdict.gain
    yield (
        f"test     {verdict.default:.3f} -> {verdict.winner:.3f}, "
        f"{signed(value)} [{signed(low)}, {signed(high)}] (95 %), p {verdict.p:.2g}"
    )
    yield (
        f"         on {verdict.groups} cases that no trial saw, split {made.split}, "
        f"look {verdict.looks}"
    )
    if any(verdict.failed):
        before, after = verdict.failed
        yield f"         {before:,} and {after:,} of {verdict.questions:,} questions failed"


def signed(value: float) -> str:
    return f"{value:+.3f}"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 50 else f"{text[:47]}..."


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
