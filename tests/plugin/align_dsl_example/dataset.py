"""Plain text: paragraphs apart by an empty line, the situation first, then one choice a line.

A choice may end in `[attribute=0.7]`, its label on 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from align_dsl.types import Attribute, Case, Choice, Scenario

_LABEL = re.compile(r"\s*\[(\w+)=([01]?\.?\d+)\]$")


def paragraphs(path: Path, attributes: Mapping[str, Attribute]) -> Iterator[Case]:
    """One case per paragraph of the file."""
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    for number, block in enumerate(blocks, start=1):
        situation, *lines = block.splitlines()
        choices, labels = [], {}
        for i, line in enumerate(lines):
            if (said := _LABEL.search(line)) and said[1] in attributes:
                labels[str(i)] = {said[1]: float(said[2])}
            choices.append(Choice(id=str(i), text=_LABEL.sub("", line)))
        scenario = Scenario(id=f"paragraph-{number}", text=situation, choices=tuple(choices))
        yield Case(scenario=scenario, labels=labels, group=scenario.id)
