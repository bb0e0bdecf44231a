"""The table of contents of the whole product: each stage is one call, none calls an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_dsl import datasets
from align_dsl.engine.fit import fit
from align_dsl.errors import CompileError, Diagnostic, Findings
from align_dsl.language.attributes import read_attributes
from align_dsl.language.deciders import read_decider
from align_dsl.language.library import Library, shown
from align_dsl.language.program import Place
from align_dsl.language.resolve import Checked, resolve
from align_dsl.language.schema import kind_of
from align_dsl.language.source import read_source
from align_dsl.types import Case


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked program with its cases and the pool its exemplars come from."""

    checked: Checked
    cases: tuple[Case, ...]
    pool: tuple[Case, ...]
    warnings: tuple[Diagnostic, ...]


def compile(file: Path) -> Checked:
    """YAML -> Program. Reads no data."""
    return resolve(read_source(file, shown(file)), Library.beside(file))


def load(file: Path) -> Loaded:
    """Compile a program, read its cases, and see that the two fit."""
    checked = compile(file)
    return with_cases(checked, checked.program.data.place)


def with_cases(checked: Checked, place: Place) -> Loaded:
    attributes = {a.name: a for a in checked.program.attributes}
    cases = _cases(checked, place, attributes, ("data", "path"))
    pool = cases
    if checked.program.data.exemplars:
        at = ("data", "exemplars", "path")
        pool = _cases(checked, checked.program.data.exemplars, attributes, at)
    found = fit(checked, cases, pool)
    found.stop_if_wrong()
    return Loaded(checked, cases, pool, (*checked.warnings, *found.warnings))


def _cases(checked, place, attributes, at):  # type: ignore[no-untyped-def]
    try:
        return datasets.load(place.format, Path(place.path), attributes)
    except CompileError as error:
        if error.texts or error.diagnostics[0].span.line > 1:
            raise
        span = checked.source.at(at)
        wrong = [Diagnostic(span, f"{d.span.file}: {d.message}", d.hint) for d in error.diagnostics]
        raise CompileError(wrong, checked.texts) from None


def check(paths: Sequence[Path]) -> Findings:
    """Every mistake and warning of the given files and folders, as far as each can be read."""
    found = Findings()
    for path in files_of(paths):
        try:
            source = read_source(path, shown(path))
            found.texts.update(source.texts)
            kind = kind_of(source)
            if kind == "program":
                loaded = load(path)
                found.diagnostics += loaded.warnings
                found.texts.update(loaded.checked.texts)
            elif kind == "attributes":
                read_attributes(source, found)
            else:
                read_decider(source, Library.beside(path), found)
        except CompileError as error:
            found.add(error)
    return found


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The YAML files meant: files as they are, folders with everything below them."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*.yaml") if p.is_file())
        else:
            files.append(path)
    return list(dict.fromkeys(files))
