"""Every error a user can meet, and the source position it points at.

* AlignError
  x CompileError   the files are wrong: carries every Diagnostic                     exit 2
  x PlanError      the files are right, the request is not (no cases, over budget)   exit 2
  x BackendError   a model cannot be reached or refuses; names endpoint and setting  exit 4
  x BudgetError    the budget ran out; what was done is kept                         exit 5
  x StoreError     the record cannot be read, or is from a newer version             exit 6

A job that fails is no exception but a `types.Failure`, kept in the record.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A place in a source file. Lines and columns count from 1; `width` is in characters."""

    file: str
    line: int = 1
    column: int = 1
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One thing wrong with a source file, and how to put it right."""

    span: Span
    message: str
    hint: str = ""
    severity: Severity = "error"
    count: int = 1  # how many mistakes it stands for: past a limit they are only counted


class AlignError(Exception):
    """Base class: catch this to catch everything align-dsl raises on purpose."""

    exit_code = 1


class CompileError(AlignError):
    """The files are wrong. Holds every mistake of the stage that found them, in file order."""

    exit_code = 2

    def __init__(self, diagnostics: Sequence[Diagnostic], texts: Mapping[str, str]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        self.texts = dict(texts)
        super().__init__(render(self.diagnostics, self.texts))

    @property
    def first(self) -> str:
        """What is wrong, in one line; warnings are not what stopped it."""
        errors = [d for d in self.diagnostics if d.severity == "error"]
        return (errors or self.diagnostics)[0].message


class PlanError(AlignError):
    """The files are right; what is asked of them is not."""

    exit_code = 2


class BackendError(AlignError):
    exit_code = 4


class BudgetError(AlignError):
    exit_code = 5


class StoreError(AlignError):
    exit_code = 6


@dataclass(slots=True)
class Findings:
    """What one stage has found so far: every mistake, and the texts to show them in."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def error(self, span: Span, message: str, hint: str = "") -> None:
        self.diagnostics.append(Diagnostic(span, message, hint))

    def warn(self, span: Span, message: str, hint: str = "") -> None:
        self.diagnostics.append(Diagnostic(span, message, hint, "warning"))

    def add(self, error: CompileError) -> None:
        self.diagnostics += error.diagnostics
        self.texts.update(error.texts)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        return tuple(sorted({d for d in self.diagnostics if d.severity == "warning"}))

    def stop_if_wrong(self) -> None:
        if any(d.severity == "error" for d in self.diagnostics):
            raise CompileError(self.diagnostics, self.texts)


def nearest(name: str, known: Collection[str]) -> str:
    """The hint for a name that does not exist: what was probably meant, or all there is."""
    if close := get_close_matches(name, list(known), n=1, cutoff=0.6):
        return f"did you mean `{close[0]}`?"
    by_case = [k for k in known if k.lower() == name.lower()]
    if by_case:
        return f"did you mean `{by_case[0]}`?"
    shown = sorted(known)
    more = f" and {len(shown) - 14} more" if len(shown) > 15 else ""
    return f"known: {', '.join(shown[: 14 if more else 15])}{more}" if shown else "there are none"


def rest(span: Span, count: int) -> Diagnostic:
    """Stands for mistakes that are not listed; `span` is where the first of them is."""
    said = f"{counted(count, 'more mistake')} in this file"
    return Diagnostic(span, said, "mend those above, then check again", count=count)


def inside(span: Span, texts: Mapping[str, str], part: str) -> Span:
    """Where `part` stands within a longer text that begins at `span`; else the span itself."""
    lines = texts.get(span.file, "").splitlines()
    for number, line in enumerate(lines[span.line - 1 :], start=span.line):
        column = line.find(part, span.column - 1 if number == span.line else 0)
        if column >= 0:
            return Span(span.file, number, column + 1, len(part))
    return span


def render(diagnostics: Sequence[Diagnostic], texts: Mapping[str, str]) -> str:
    """All of them as a person reads them; past a screenful or two, only how many more."""
    shown = [picture(d, texts.get(d.span.file, "")) for d in diagnostics[:MAX_SHOWN]]
    if more := sum(d.count for d in diagnostics[MAX_SHOWN:]):
        shown.append(f"... and {more:,} more")
    return "\n\n".join(shown)


MAX_SHOWN = 50
WINDOW = 110  # characters of a source line that are shown


def picture(diagnostic: Diagnostic, text: str) -> str:
    """A diagnostic as a person reads it: what, where, the line, a caret, and the way out."""
    span = diagnostic.span
    lines = text.splitlines()
    out = [f"{diagnostic.severity}: {visible(diagnostic.message)}"]
    gutter = " " * len(str(span.line))
    # what was typed on a command line, or is not there, has no lines to point at
    out.append(f"{gutter}--> {visible(str(span) if text else span.file)}")
    if 1 <= span.line <= len(lines):
        source = lines[span.line - 1]
        start = max(0, span.column - 1 - WINDOW // 2) if len(source) > WINDOW else 0
        cut = "... " if start else ""
        shown = source[start : start + WINDOW]
        before = shown[: span.column - 1 - start]
        marked = shown[span.column - 1 - start :][: max(1, span.width)]
        pad = "".join(c if c == "\t" else " " * columns(c) for c in before)
        carets = "^" * max(1, sum(columns(c) for c in marked.rstrip()))
        ellipsis = "" if start + WINDOW >= len(source) else " ..."
        out += [f"{gutter} |", f"{span.line} | {cut}{visible(shown)}{ellipsis}"]
        out.append(f"{gutter} | {' ' * len(cut)}{pad}{carets}")
    if diagnostic.hint:
        out.append(f"{gutter} = {visible(diagnostic.hint)}")
    return "\n".join(out)


def columns(character: str) -> int:
    """How many terminal columns a character takes once it is made visible."""
    shown = visible(character)
    if shown != character:
        return len(shown)
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Text from a file or a model, safe on a terminal: controls and bidi marks become <U+...>."""
    return _UNSEEN.sub(lambda m: f"<U+{ord(m.group()):04X}>", text)


def counted(number: float, noun: str) -> str:
    """A number of things, as people write it. The noun is one whose plural ends in s.

    >>> counted(1, "call"), counted(0, "call"), counted(1200, "known answer")
    ('1 call', '0 calls', '1,200 known answers')
    """
    said = f"{number:,.0f}"
    return f"{said} {noun}" if said == "1" else f"{said} {noun}s"
