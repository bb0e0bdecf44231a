"""A run -> the text of a file that others read, line by line: csv, jsonl, json, align-system.

JSON loses nothing; what a terminal could take for a command is spelled `\\uXXXX` in it, which reads
back as it was. CSV is for people and spreadsheets: such characters are shown as <U+XXXX> there, and
cells that a spreadsheet could take for a formula begin with an apostrophe.

Decisions aimed at a wrong target, as a control, are in `json` alone: elsewhere nothing would tell
them from the others.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from align_dsl.errors import visible
from align_dsl.records.record import Judgement, Recorded
from align_dsl.types import Case, Decision, Target

COLUMNS = (
    "run",
    "decider",
    "model",
    "target",
    "scenario",
    "choice",
    "index",
    "weights",
    "ratings",
    "status",
    "why",
    "correct",
)

_UNSAFE = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def jsonl(run: Recorded, judgements: Iterable[Judgement]) -> Iterator[str]:
    """One line per decision."""
    for judgement in _wanted(judgements):
        yield _json(_flat(run.record.id, judgement)) + "\n"


def as_csv(run: Recorded, judgements: Iterable[Judgement]) -> Iterator[str]:
    """One row per decision; weights and ratings as JSON in their cells."""
    yield _csv_row(COLUMNS)
    for judgement in _wanted(judgements):
        yield _csv_row(map(_cell, _flat(run.record.id, judgement).values()))


def as_json(run: Recorded, judgements: Iterable[Judgement]) -> Iterator[str]:
    """The whole run as one `Recorded`."""
    head = run.model_dump(exclude={"judgements"})
    yield _json(head)[:-1] + ', "judgements": ['
    for i, judgement in enumerate(judgements):
        yield (",\n" if i else "\n") + _json(judgement.model_dump())
    yield "\n]}\n"


def align_system(run: Recorded, judgements: Iterable[Judgement]) -> Iterator[str]:
    """The input/output records of align-system, one per decision, all numbers on 0..1. Its readers
    find in `choice_info` what the record has no other place for."""
    cases = {case.scenario.id: case for case in run.cases}
    targets = {target.name: target for target in run.record.targets}
    yield "["
    for i, judgement in enumerate(_wanted(judgements)):
        decision = judgement.decision
        record = _record(judgement, cases[decision.scenario], targets.get(decision.target))
        yield (",\n" if i else "\n") + _json(record)
    yield "\n]\n"


FORMATS: dict[str, Callable[[Recorded, Iterable[Judgement]], Iterator[str]]] = {
    "csv": as_csv,
    "jsonl": jsonl,
    "json": as_json,
    "align-system": align_system,
}


def _wanted(judgements: Iterable[Judgement]) -> Iterator[Judgement]:
    return (judgement for judgement in judgements if not judgement.control)


def _flat(run: str, judgement: Judgement) -> dict[str, Any]:
    d = judgement.decision
    values = (
        run,
        d.decider,
        d.model,
        d.target,
        d.scenario,
        d.choice,
        judgement.index,
        d.weights,
        [rating.model_dump() for rating in d.ratings],
        d.status,
        d.why,
        judgement.correct,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _record(judgement: Judgement, case: Case, target: Target | None) -> dict[str, Any]:
    d, scenario = judgement.decision, case.scenario
    name, scene = _scene(case)
    options = [
        {
            "action_id": choice.id,
            "unstructured": choice.text,
            "kdma_association": case.labels.get(choice.id),
        }
        for choice in scenario.choices
    ]
    action = next((o for o in options if o["action_id"] == d.choice), None)
    return {
        "input": {
            "scenario_id": name,
            "alignment_target_id": d.target,
            "full_state": {
                "unstructured": scenario.text,
                "meta_info": {"scene_id": scene},
                "scenario_complete": False,
            },
            "state": scenario.text,
            "choices": options,
        },
        "label": [case.labels.get(choice.id) or {} for choice in scenario.choices],
        "choice_info": {
            "predicted_kdma_values": _predicted(d, case),
            "alignment_info": {
                "decider": d.decider,
                "model": d.model,
                "target": target.values if target else {},
                "weights": d.weights,
                "status": d.status,
                "correct": judgement.correct,
            },
        },
        "output": {
            "choice": judgement.index,
            "action": {**action, "justification": d.why} if action else None,
        },
    }


def _scene(case: Case) -> tuple[str, str]:
    """`scenario_id` and `scene_id`: align-system's scenario is a group of scenes, each a case."""
    if case.group in ("", case.scenario.id):
        return case.scenario.id, ""
    return case.group, case.scenario.id.removeprefix(f"{case.group}/")


def _predicted(decision: Decision, case: Case) -> dict[str, dict[str, list[float]]]:
    """Choice text -> attribute -> every rating of it. Where two choices have the same text only
    their ids tell them apart, so these are named by id."""
    texts = [choice.text for choice in case.scenario.choices]
    names = {c.id: c.text if texts.count(c.text) == 1 else c.id for c in case.scenario.choices}
    predicted: dict[str, dict[str, list[float]]] = {}
    for rating in decision.ratings:
        by = predicted.setdefault(names.get(rating.choice, rating.choice), {})
        by.setdefault(rating.attribute, []).append(rating.value)
    return predicted


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: json.dumps(found.group())[1:-1], text)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else _json(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv_row(cells: Iterable[str]) -> str:
    row = io.StringIO(newline="")
    csv.writer(row, lineterminator="\n").writerow(map(visible, cells))
    return row.getvalue()
