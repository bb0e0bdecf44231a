"""HelpSteer2 as the steerable-pluralism code writes it: rated responses, labels on 0..1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align_dsl.datasets._records import WrongLabel, read_each, records
from align_dsl.errors import counted
from align_dsl.language.attributes import by_any_name
from align_dsl.types import Attribute, Case, Choice, Scenario


def helpsteer2(path: Path, attributes: Mapping[str, Attribute]) -> Iterator[Case]:
    """Each record is a prompt, its responses, and one mapping of labels per response."""
    names = by_any_name(attributes)
    yield from read_each(path, records(path), lambda n, row: _case(n, row, names), _FORM)


_FORM = 'a record is {"prompt": "...", "responses": ["..."], "labels": [{"ATTRIBUTE": NUMBER}]}'


def _case(number: int, row: Any, names: Mapping[str, str]) -> Case:
    choices = tuple(Choice(id=str(i), text=t) for i, t in enumerate(row["responses"]))
    if len(row["labels"]) != len(choices):
        given = counted(len(row["labels"]), "label")
        raise WrongLabel(f"{given} for {counted(len(choices), 'response')}")
    labels = {
        c.id: {names[n]: _number(n, v) for n, v in by.items() if n in names}
        for c, by in zip(choices, row["labels"], strict=True)
    }
    reasons = {
        c.id: {names[n]: r for n, r in by.items() if n in names}
        for c, by in zip(choices, row.get("reasonings") or [], strict=False)
    }
    return Case(
        scenario=Scenario(id=f"prompt-{number:04}", text=row["prompt"], choices=choices),
        labels=labels,
        reasons=reasons,
        group=f"prompt-{number:04}",
    )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongLabel(f"the label on `{name}` must be a number, not `{str(value)[:40]}`")
    return float(value)
