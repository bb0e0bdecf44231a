"""Values from the command line, put into a source as if the file had said them.

Complaints about such a value point at the option it came from.
"""

from __future__ import annotations

from typing import Any

from align_dsl.errors import CompileError, Diagnostic, Span
from align_dsl.language.source import Path, Source, parse


def override(source: Source, option: str, path: Path, value: Any) -> Source:
    """A copy of the source in which `path` has another value. `option` is what the user typed."""
    span = Span(option)
    texts = {**source.texts, option: ""}
    data = _replaced(source.data, path, value, source, span)
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
    if not equals or not name:
        wrong = Diagnostic(Span(option), "expected path.to.key=value", "--set model=embedded")
        raise CompileError([wrong], {})
    path: Path = tuple(int(p) if p.isdigit() else p for p in name.split("."))
    return override(source, option, path, parse(text or "null", option).data)


def _replaced(data: Any, path: Path, value: Any, source: Source, span: Span) -> Any:
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(data, list) and isinstance(first, int) and first < len(data):
        return [
            *data[:first],
            _replaced(data[first], rest, value, source, span),
            *data[first + 1 :],
        ]
    if isinstance(data, dict) or data is None:
        held = data or {}
        return {**held, str(first): _replaced(held.get(str(first)), rest, value, source, span)}
    said = f"`{first}` cannot be set inside something that is no mapping"
    raise CompileError([Diagnostic(span, said, "check the path")], {})


def _paths(value: Any, at: Path) -> list[Path]:
    out: list[Path] = [at]
    if isinstance(value, dict):
        for key, below in value.items():
            out += _paths(below, (*at, key))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            out += _paths(below, (*at, i))
    return out
