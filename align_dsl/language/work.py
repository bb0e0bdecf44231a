"""What is at hand while one decider is resolved, and what its parameters were given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from align_dsl.errors import Findings, Span, nearest
from align_dsl.language.library import Library
from align_dsl.language.program import Step
from align_dsl.language.source import Path, Source
from align_dsl.types import Attribute

_REFERENCE = re.compile(r"\$\S*")  # so that a text may begin with a sum: "$5 are lost"


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it was written, however many `$`s it passed through since."""

    value: Any
    span: Span
    name: str = ""  # the parameter it was given to first


@dataclass(slots=True)
class Work:
    """What is at hand while one decider is resolved."""

    name: str
    source: Source
    library: Library
    attributes: Mapping[str, Attribute]
    found: Findings
    origins: dict[str, Span]
    params: dict[str, Given] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    steps: dict[str, Step] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # steps and parameters already complained of
    later: set[str] = field(default_factory=set)  # names of steps not yet reached

    def note(self, where: str, span: Span) -> None:
        self.origins[f"{self.name}.{where}"] = span

    def follow(self, value: Any, span: Span) -> Given | None:
        """Replace `$name` by what the parameter was given."""
        if not (isinstance(value, str) and _REFERENCE.fullmatch(value)):
            return Given(value, span)
        name = value[1:]
        if name not in self.params:
            said = f"no parameter named `{name}`"
            hint = nearest(name, self.params) if self.params else f"add `params: {{{name}: VALUE}}`"
            self.found.error(span, said, hint)
            return None
        self.used.add(name)
        return None if f"${name}" in self.broken else self.params[name]

    def follow_each(self, given: Given, at: Path) -> dict[str, Given]:
        """The same for each value of the mapping that was given for `at`."""
        followed = {}
        for key, value in given.value.items():
            if (one := self.follow(value, self.value_of(given, at, key))) is not None:
                followed[key] = one
        return followed

    def value_of(self, given: Given, at: Path, key: str) -> Span:
        """Where a value of a mapping stands; in one that a parameter was given, the whole."""
        return self.source.at((*at, key)) if self._stands_at(given, at) else given.span

    def key_of(self, given: Given, at: Path, key: str) -> Span:
        return self.source.key((*at, key)) if self._stands_at(given, at) else given.span

    def _stands_at(self, given: Given, at: Path) -> bool:
        return self.source.values.get(at) == given.span

    def is_attribute(self, name: str, span: Span) -> bool:
        """Whether the program has it; complains where not. A decider alone knows of none."""
        if self.attributes and name not in self.attributes:
            said = f"no attribute named `{name}` in this program"
            self.found.error(span, said, nearest(name, self.attributes))
            return False
        return True
