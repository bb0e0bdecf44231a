"""Values and texts -> Python, laid out as the formatter would have it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Call:
    """A call with keyword arguments, to be written out."""

    name: str
    given: Mapping[str, Any]


def text(value: str) -> str:
    """A string in double quotes, or in single ones if that takes fewer escapes."""
    quote = "'" if value.count('"') > value.count("'") else '"'
    shown = "".join(
        c if c.isprintable() and c not in "\\" else c.encode("unicode_escape").decode()
        for c in value
    )
    return quote + shown.replace(quote, "\\" + quote) + quote


def literal(value: Any) -> str:
    """A value on one line."""
    match value:
        case str():
            return text(value)
        case tuple() | list():
            items = ", ".join(map(literal, value))
            return f"({items},)" if len(value) == 1 else f"({items})"
        case dict():
            return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
        case Call():
            given = ", ".join(f"{k}={literal(v)}" for k, v in value.given.items())
            return f"{value.name}({given})"
        case _:
            return repr(value)


def laid_out(value: Any, indent: int = 0, before: int = 0) -> str:
    """A value that begins `before` characters into a line, and ends with a comma."""
    line = literal(value)
    if indent + before + len(line) < WIDTH:
        return line
    rows: list[str]
    match value:
        case str():
            rows = [text(piece) for piece in _pieces(value, WIDTH - indent - 4)]
            if len(rows) == 1:
                return line
            opened, closed = "(", ")"
        case tuple() | list():
            rows = [f"{laid_out(v, indent + 4)}," for v in value]
            opened, closed = "(", ")"
        case dict():
            rows = [_row(f"{literal(k)}: ", v, indent) for k, v in value.items()]
            opened, closed = "{", "}"
        case Call():
            rows = [_row(f"{k}=", v, indent) for k, v in value.given.items()]
            opened, closed = f"{value.name}(", ")"
        case _:
            return line
    space = " " * indent
    return "\n".join([opened, *(f"{space}    {row}" for row in rows), f"{space}{closed}"])


def _row(head: str, value: Any, indent: int) -> str:
    return f"{head}{laid_out(value, indent + 4, len(head))},"


def _pieces(value: str, width: int) -> list[str]:
    pieces, rest = [], value
    while len(text(rest)) > width and (at := rest.rfind(" ", 1, width - 4)) > 0:
        pieces.append(rest[: at + 1])
        rest = rest[at + 1 :]
    return [*pieces, rest]


def block(value: str) -> str:
    """A text in triple quotes, its long lines broken where they were."""
    if not all(c.isprintable() or c == "\n" for c in value):
        return ascii(value)
    lines = []
    for line in value.replace("\\", "\\\\").replace('"""', '\\"""').split("\n"):
        while len(line) > WIDTH - 2 and (at := line.rfind(" ", 0, WIDTH - 2)) > 0:
            lines.append(line[: at + 1] + "\\")
            line = line[at + 1 :]
        lines.append(line)
    end = "\\\n" if lines[-1].endswith('"') else ""
    return '"""\\\n' + "\n".join(lines) + end + '"""'


def fitted(indent: int, head: str, items: list[str], tail: str) -> list[str]:
    """A call on one line, or where that is too long, an argument a line."""
    space = " " * indent
    line = f"{space}{head}{', '.join(items)}{tail}"
    if len(line) <= WIDTH and "\n" not in line:
        return [line]
    return [f"{space}{head}", *(f"{space}    {item}," for item in items), f"{space}{tail}"]


def in_docstring(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', "'").replace("\n", " ").strip()


def docstring(value: str) -> list[str]:
    """That of a class."""
    lines = textwrap.wrap(in_docstring(value), WIDTH - 8)
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return [f'    """{lines[0]}', *(f"    {line}" for line in lines[1:]), '    """']
