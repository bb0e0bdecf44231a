"""What is wrong in one data file: the first mistakes with their lines, the rest counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from align_dsl.errors import CompileError, Diagnostic, Span, rest
from align_dsl.language.library import shown
from align_dsl.language.source import Source, parse

LISTED = 20  # a file with more mistakes than that has one mistake, made again and again

Where = Callable[[Source], Span]


def whole(places: Source) -> Span:
    """The start of the line, for what stands nowhere in it."""
    return places.at(())


class Mistakes:
    """Collects; nothing is looked up for what is only counted."""

    def __init__(self, file: Path) -> None:
        self.file = shown(file)
        self.listed: list[Diagnostic] = []
        self.text = ""
        self._first: Span | None = None
        self._more = 0

    def add(
        self, number: int, line: str, message: str, hint: str = "", where: Where = whole
    ) -> None:
        """A mistake in a line; `where` picks its place from those of all that the line says."""
        if len(self.listed) >= LISTED:
            self._first = self._first or Span(self.file, number)
            self._more += 1
            return
        self.listed.append(Diagnostic(where(self._places(number, line)), message, hint))

    @property
    def count(self) -> int:
        return len(self.listed) + self._more

    def all(self) -> list[Diagnostic]:
        """Everything listed, and how many more there are."""
        counted = [rest(self._first, self._more)] if self._first else []
        return [*self.listed, *counted]

    def stop_if_any(self) -> None:
        if self.listed:
            raise CompileError(self.all(), {self.file: self.text})

    def _places(self, number: int, line: str) -> Source:
        """Keep a line for showing, in its place in the file; and where everything in it stands.

        JSON is YAML enough for that. Where it is not, everything stands at the start of the line.
        """
        line = _ODD.sub("\ufffd", line)
        if (lines := self.text.count("\n")) < number:
            self.text += "\n" * (number - 1 - lines) + line.rstrip("\r\n") + "\n"
        start = Span(self.file, number)
        try:
            source = parse(line, self.file)
        except CompileError:
            return Source(self.file, {}, None, {(): start})
        moved = [
            {at: Span(s.file, number, s.column, s.width) for at, s in places.items()}
            for places in (source.values, source.keys)
        ]
        return Source(self.file, {}, source.data, *moved)


# what ends a line for YAML and Python, but not in JSONL; and bytes that are no UTF-8
_ODD = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")
