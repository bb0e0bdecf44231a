"""The input/output JSON of align-system: a file, or every .json file of a folder.

One text may stand in several files or rows, once for each attribute; such rows become one case
with all their labels. Labels on 0..10 (the MTA data) are told from labels on 0..1 (all others) by
a value above 1 anywhere in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align_dsl.datasets._records import WrongLabel, read_each, records
from align_dsl.language.attributes import by_any_name
from align_dsl.types import Attribute, Case, Choice, Scenario


def align_system(path: Path, attributes: Mapping[str, Attribute]) -> Iterator[Case]:
    """Rows with the same text and choices become one case."""
    merged: dict[str, Case] = {}
    ids: dict[str, int] = {}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        for case in _rows(file, attributes):
            content = json.dumps([case.scenario.text, [c.text for c in case.scenario.choices]])
            if content in merged:
                merged[content] = _merge(merged[content], case)
                continue
            count = ids[case.scenario.id] = ids.get(case.scenario.id, 0) + 1
            if count > 1:
                name = f"{case.scenario.id}#{count}"
                case = case.model_copy(
                    update={"scenario": case.scenario.model_copy(update={"id": name})}
                )
            merged[content] = case
    yield from merged.values()


def _rows(file: Path, attributes: Mapping[str, Attribute]) -> list[Case]:
    rows = records(file)
    top = 10.0 if any(v > 1 for row in rows for v in _all_labels(row)) else 1.0
    names = by_any_name(attributes)
    return read_each(file, rows, lambda _, row: _case(row, names, top), _FORM)


_FORM = (
    'a record is {"input": {"scenario_id", "full_state": {"unstructured"},'
    ' "choices": [{"unstructured"}]}, "label": [{"ATTRIBUTE": NUMBER}]}'
)


def _all_labels(row: Any) -> Iterator[float]:
    rows = row.get("label") if isinstance(row, dict) else None
    for by in rows if isinstance(rows, list) else []:
        if isinstance(by, dict):
            yield from (v for v in by.values() if isinstance(v, int | float))


def _case(row: dict[str, Any], names: Mapping[str, str], top: float) -> Case:
    given = row["input"]
    state = given["full_state"]
    scene = str((state.get("meta_info") or {}).get("scene_id", ""))
    choices = tuple(
        Choice(id=str(i), text=c["unstructured"]) for i, c in enumerate(given["choices"])
    )
    labels: dict[str, dict[str, float]] = {}
    rows = row.get("label") or [None] * len(choices)
    for choice, option, said in zip(choices, given["choices"], rows, strict=False):
        for name, value in {**(option.get("kdma_association") or {}), **(said or {})}.items():
            own = names.get(name) or names.get(name.lower())
            if own is not None and isinstance(value, str):
                raise WrongLabel(f"the label on `{name}` must be a number, not `{value[:40]}`")
            if own is not None and isinstance(value, int | float):
                labels.setdefault(choice.id, {})[own] = value / top
    group = str(given["scenario_id"])
    return Case(
        scenario=Scenario(
            id=f"{group}/{scene}" if scene else group,
            text=state.get("unstructured") or given.get("state") or "",
            choices=choices,
        ),
        labels=labels,
        group=group,
    )


def _merge(first: Case, second: Case) -> Case:
    labels = {c: dict(by) for c, by in first.labels.items()}
    for choice, by in second.labels.items():
        labels.setdefault(choice, {}).update(by)
    return first.model_copy(update={"labels": labels})
