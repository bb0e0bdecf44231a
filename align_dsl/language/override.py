"""Values from the command line, put into a source as if the file had said them.

Complaints about such a value point at the option it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align_dsl.errors import CompileError, Diagnostic, Span
from align_dsl.language.setting import resolved
from align_dsl.language.source import Path, Source, parse


@dataclass(frozen=True, slots=True)
class Override:
    """A value, where it goes, and what the user typed that says so."""

    option: str
    path: Path
    value: Any

    @property
    def plain(self) -> str:
        return f"{'.'.join(map(str, self.path))}={self.value}"


def override(source: Source, option: str, path: Path, value: Any) -> Source:
    """A copy of the source in which `path` has another value. `option` is what the user typed."""
    span = Span(option)
    texts = {**source.texts, option: ""}
    data = _replaced(source.data, path, value)
    values = {p: s for p, s in source.values.items() if p[: len(path)] != path}
    keys = {p: s for p, s in source.keys.items() if p[: len(path)] != path}
    for i in range(1, len(path) + 1):
        values.setdefault(path[:i], span)
        keys.setdefault(path[:i], span)
    for below in _paths(value, path):
        values[below] = keys[below] = span
    return Source(source.file, texts, data, values, keys)


def set_value(source: Source, written: str) -> Source:
    """`--set path.to.key=value`, the value being YAML."""
    option = f"--set {written}"
    name, equals, text = written.partition("=")
    if not equals or not name.strip():
        hint = "write KEY=VALUE, for instance --set seed=7 or --set deciders.NAME.with.shots=5"
        said = "there is no `=` in it" if name.strip() else "the key before `=` is missing"
        raise CompileError([Diagnostic(Span(option), said, hint)], {option: ""})
    path = resolved(source, name.strip(), Span(option))
    try:
        value = parse(text or "null", option).data
    except CompileError as error:
        hint = "what follows `=` is YAML: put a text with special characters in quotes"
        wrong = [Diagnostic(Span(option), d.message, hint) for d in error.diagnostics]
        raise CompileError(wrong, {option: ""}) from None
    return override(source, option, path, value)


def _replaced(data: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(data, list) and isinstance(first, int):
        new = _replaced(data[first], rest, value)
        return [*data[:first], new, *data[first + 1 :]]
    held = data if isinstance(data, dict) else {}
    return {**held, first: _replaced(held.get(first), rest, value)}


def _paths(value: Any, at: Path) -> list[Path]:
    out: list[Path] = [at]
    if isinstance(value, dict):
        for key, below in value.items():
            out += _paths(below, (*at, key))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            out += _paths(below, (*at, i))
    return out
