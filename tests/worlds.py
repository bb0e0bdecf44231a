"""Small worlds for tests: programs on disk, cases with labels, and a perfect rater's script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from align_dsl.pipeline import Loaded, load
from align_dsl.types import Case

ROOT = Path(__file__).parents[1]

ATTRIBUTES = """version: 1
set: two
about: Two attributes for tests.
attributes:
  mercy: {about: Sparing people., high: It spares., low: It does not spare.}
  order: {about: Keeping rules., high: It keeps them., low: It breaks them.}
"""

PROGRAM = """version: 1
program: small
about: A small program for tests.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high]}
deciders:
  regression: {use: comparative_regression, with: {shots: 4}}
  alone: {use: direct_regression}
  prompt: {use: prompt_aligned}
  consistent: {use: self_consistency, with: {positive: 2, negative: 1}}
  baseline: {use: baseline}
  random: {use: random}
  oracle: {use: oracle}
model: embedded
"""


def write_world(
    folder: Path,
    cases: Sequence[dict[str, object]],
    program: str = PROGRAM,
    attributes: str = ATTRIBUTES,
) -> Path:
    """A project folder with one program; returns the program's path."""
    (folder / "attributes").mkdir(parents=True, exist_ok=True)
    (folder / "programs").mkdir(exist_ok=True)
    (folder / "attributes" / "two.yaml").write_text(attributes)
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    (folder / "programs" / "cases.jsonl").write_text(lines)
    path = folder / "programs" / "small.yaml"
    path.write_text(program)
    return path


def case(name: str, text: str, **choices: dict[str, float]) -> dict[str, object]:
    """`case("x", "text", a={"mercy": 3})`: choices by id, with labels on 0..10."""
    return {
        "id": name,
        "scenario": text,
        "choices": [
            {"id": i, "text": f"choice {i} of {name}", "labels": labels}
            for i, labels in choices.items()
        ],
    }


def cases(n: int = 6) -> list[dict[str, object]]:
    return [
        case(
            f"c{i}",
            f"situation number {i}",
            a={"mercy": i % 5, "order": 9 - i % 4},
            b={"mercy": 10 - i % 3, "order": i % 4},
            **({"c": {"mercy": 5, "order": 5}} if i % 3 == 0 else {}),
        )
        for i in range(n)
    ]


def perfect_script(loaded: Loaded, to: Path, seconds: float = 0.0) -> Path:
    """Answers of a rater who knows every label: for steps that rate, together or alone."""
    lines = []
    for one in loaded.cases:
        texts = {c.id: c.text for c in one.scenario.choices}
        for attribute in loaded.program.attributes:
            if attribute.name not in one.attributes():
                continue
            scale = attribute.scale
            ratings = {
                texts[c]: scale.low + by[attribute.name] * (scale.high - scale.low)
                for c, by in one.labels.items()
                if attribute.name in by
            }
            whole = {t: round(v) if scale.whole else v for t, v in ratings.items()}
            said = {"scenario": one.scenario.text, "attribute": attribute.name, "ratings": whole}
            said |= {"seconds": seconds} if seconds else {}
            lines.append(json.dumps(said))
    to.write_text("\n".join(lines) + "\n")
    return to


def shipped(name: str) -> Loaded:
    return load(ROOT / "programs" / f"{name}.yaml")


def by_id(cases: Sequence[Case]) -> dict[str, Case]:
    return {c.scenario.id: c for c in cases}
