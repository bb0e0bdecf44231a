"""HelpSteer2 as the steerable-pluralism code writes it: rated responses, labels on 0..1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from align_dsl.errors import CompileError, Diagnostic, Span
from align_dsl.language.attributes import by_any_name
from align_dsl.types import Attribute, Case, Choice, Scenario


def helpsteer2(path: Path, attributes: Mapping[str, Attribute]) -> Iterator[Case]:
    """Each record is a prompt, its responses, and one mapping of labels per response."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        names = by_any_name(attributes)
        for number, row in enumerate(rows, start=1):
            choices = tuple(Choice(id=str(i), text=t) for i, t in enumerate(row["responses"]))
            labels = {
                c.id: {names[n]: float(v) for n, v in by.items() if n in names}
                for c, by in zip(choices, row["labels"], strict=True)
            }
            reasons = {
                c.id: {names[n]: r for n, r in by.items() if n in names}
                for c, by in zip(choices, row.get("reasonings") or [], strict=False)
            }
            yield Case(
                scenario=Scenario(id=f"prompt-{number:04}", text=row["prompt"], choices=choices),
                labels=labels,
                reasons=reasons,
                group=f"prompt-{number:04}",
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"not a HelpSteer2 file: {error!r}"
        raise CompileError([Diagnostic(Span(str(path)), said)], {}) from None
