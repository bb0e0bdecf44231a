"""One JSON list of records, as other programs write them; complaints name the record's number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from align_dsl.datasets._mistakes import LISTED, Mistakes
from align_dsl.errors import CompileError, Diagnostic, Span, rest
from align_dsl.language.library import shown

T = TypeVar("T")


def records(file: Path) -> list[Any]:
    """The records of a file. Raises CompileError."""
    name = shown(file)
    if file.is_dir():
        wrong = Diagnostic(Span(name), "this is a folder", "give the path of a file in it")
        raise CompileError([wrong], {})
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        said = f"byte {error.start + 1:,} (0x{error.object[error.start]:02x}) is not UTF-8"
        wrong = Diagnostic(Span(name), said, "save the file as UTF-8")
        raise CompileError([wrong], {}) from None
    except json.JSONDecodeError as error:
        mistakes, lines = Mistakes(file), error.doc.split("\n")
        hint = "one JSON list: [{...}, {...}]"
        if error.msg == "Extra data":
            hint = "one JSON list is read here; for an object a line write `format: jsonl`"
        said, at = f"not JSON: {error.msg.lower()}", Span(name, error.lineno, error.colno)
        mistakes.add(error.lineno, lines[error.lineno - 1], said, hint, lambda _: at)
        raise CompileError(mistakes.all(), {name: mistakes.text}) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or a bomb
        wrong = Diagnostic(Span(name), "not JSON that can be read", "check the file")
        raise CompileError([wrong], {}) from None
    if not isinstance(found, list):
        hint = "put the records in brackets: [{...}, {...}]"
        raise CompileError([Diagnostic(Span(name), "expected a list of records", hint)], {})
    return found


def read_each(file: Path, rows: list[Any], read: Callable[[int, Any], T], form: str) -> list[T]:
    """Every record as `read` makes it. `form` is what one looks like, in a line."""
    read_so_far: list[T] = []
    wrong: list[Diagnostic] = []
    more = 0
    for number, row in enumerate(rows, start=1):
        try:
            read_so_far.append(read(number, row))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if len(wrong) >= LISTED:
                more += 1
                continue
            wrong.append(Diagnostic(Span(shown(file)), _said(number, error), form))
    if wrong:
        raise CompileError([*wrong, *[rest(Span(shown(file)), more)][:more]], {})
    return read_so_far


def _said(number: int, error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"record {number:,} has no `{error.args[0]}`"
    if isinstance(error, WrongLabel):
        return f"record {number:,}: {error}"
    return f"record {number:,} is not what a record of this format is"


class WrongLabel(ValueError):
    """A label that is no number."""
