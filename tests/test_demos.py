"""Worked examples of a step: what they are shown as, for which questions, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import align_dsl
from align_dsl.commands import cli
from align_dsl.datasets import pool_of
from align_dsl.engine.demos import filled
from align_dsl.engine.plan import Plan, plan
from align_dsl.engine.preview import look
from align_dsl.pipeline import Loaded, load
from tests.test_compile import load as load_module
from tests.worlds import ATTRIBUTES, case, write_world

PROGRAM = """version: 1
program: small
about: Steps with worked examples.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high]}
deciders:
DECIDER
model: scripted:answers.jsonl
"""
TOGETHER = "{name: rate, use: rate_together, each: [attribute], order: given, DEMOS}"
ALONE = "{name: rate, use: rate_alone, each: [attribute, choice], order: given, DEMOS}"
EXPECTED = TOGETHER.replace("DEMOS", "with: {rating: expected}, DEMOS")
TOLD = "{name: pick, use: pick_for, order: given, DEMOS}"
PICK = "{name: pick, use: pick, order: given, DEMOS}"
CASES = [
    case("c0", "at the first gate", a={"mercy": 1, "order": 9}, b={"mercy": 8, "order": 3}),
    case("c1", "at the second gate", a={"mercy": 7, "order": 2}, b={"mercy": 2, "order": 6}),
    case("c2", "at the third gate", a={"mercy": 5, "order": 2}, b={"mercy": 2}),
]


def world(folder: Path, step: str, *demos: Mapping[str, Any], cases: Any = CASES) -> Loaded:
    (folder / "answers.jsonl").write_text("")
    take = "rate" if "rate" in step else "pick"
    use = "closest" if take == "rate" else "majority"
    said = step.replace("DEMOS", f"demos: {json.dumps(list(demos))}")
    decider = f"  mine: {{steps: [{said}], decide: {{use: {use}, take: {take}}}}}"
    path = write_world(folder, cases, PROGRAM.replace("DECIDER", decider), ATTRIBUTES)
    return load(path)


def planned(loaded: Loaded) -> Plan:
    program = loaded.program
    return plan(program, loaded.cases, program.targets, pool_of(loaded.pool))


def shown(loaded: Loaded, name: str, target: str) -> list[tuple[str, str]]:
    """The worked examples before a question: what is asked, and what is answered."""
    todo = planned(loaded)
    question = next(
        q for q in todo.questions if (q.case.scenario.id, q.target.name) == (name, target)
    )
    job = todo.jobs[next(iter(question.takes.values()))[0].key]
    said = look(todo, "mine", job).messages[1:-1]
    texts = [m["content"] for m in said]
    return list(zip(texts[::2], texts[1::2], strict=True))


RATED = {"case": "c1", "attribute": "mercy", "choices": ["b", "a"]}


@pytest.mark.parametrize(
    ("step", "demo", "question", "answer"),
    [
        (
            TOGETHER,
            {**RATED, "answer": {"because": "B spares.", "ratings": {"b": 3, "a": 9}}},
            "Situation:\nat the second gate\n\nChoices:\nA. choice b of c1\nB. choice a of c1",
            '{"because": "B spares.", "ratings": {"A": 3, "B": 9}}',
        ),
        (
            TOGETHER,
            RATED,
            "Situation:\nat the second gate\n\nChoices:\nA. choice b of c1\nB. choice a of c1",
            '{"because": "On mercy: A is low. B is high.", "ratings": {"A": 2, "B": 7}}',
        ),
        (
            ALONE,
            {"case": "c1", "attribute": "mercy", "choice": "a", "answer": {"rating": 9}},
            "Situation:\nat the second gate\n\nChoice:\nchoice a of c1",
            '{"because": "", "rating": 9}',
        ),
        (
            EXPECTED,
            {**RATED, "answer": {"ratings": {"a": 9}}},
            "Situation:\nat the second gate\n\nChoices:\nA. choice b of c1\nB. choice a of c1"
            "\n\nRate:\nB",
            "9",
        ),
        (
            TOLD,
            {"case": "c1", "target": {"mercy": 1}, "choices": ["b", "a"]},
            "Situation:\nat the second gate\n\nChoices:\nA. choice b of c1\nB. choice a of c1",
            '{"because": "On mercy B is high. Of all the choices it comes nearest to where this'
            ' person stands.", "choice": "B"}',
        ),
        (
            PICK,
            {"case": "c1", "choices": ["b", "a"], "answer": {"because": "x", "choice": "a"}},
            "Situation:\nat the second gate\n\nChoices:\nA. choice b of c1\nB. choice a of c1",
            '{"because": "x", "choice": "B"}',
        ),
    ],
)
def test_what_is_shown(
    step: str, demo: dict[str, Any], question: str, answer: str, tmp_path: Path
) -> None:
    assert shown(world(tmp_path, step, demo), "c0", "mercy_high") == [(question, answer)]


def test_demos_of_something_else_are_not_shown(tmp_path: Path) -> None:
    mercy = world(tmp_path, TOGETHER, {"case": "c1", "attribute": "mercy"})
    assert len(shown(mercy, "c0", "mercy_low")) == 1
    assert shown(mercy, "c0", "order_low") == []
    assert shown(mercy, "c1", "mercy_low") == []  # of its own text
    told = world(tmp_path, TOLD, {"case": "c1", "target": {"mercy": 1}})
    assert len(shown(told, "c0", "mercy_high")) == 1
    assert shown(told, "c0", "mercy_low") == []


def test_a_twin_of_a_case_is_not_shown_either(tmp_path: Path) -> None:
    twin = {**CASES[0], "id": "twin", "scenario": "at the  first gate"}
    loaded = world(tmp_path, TOGETHER, {"case": "twin", "attribute": "mercy"}, cases=[*CASES, twin])
    assert shown(loaded, "c0", "mercy_high") == []
    assert len(shown(loaded, "c1", "mercy_high")) == 1


def test_a_step_with_exemplars_shows_demos_first(tmp_path: Path) -> None:
    program = PROGRAM.replace(
        "DECIDER",
        "  mine:\n    extends: comparative_regression\n    params: {shots: 1}\n    steps:\n"
        "      - {name: rate, use: rate_together, each: [attribute], takes: {demos: recall},"
        " samples: $samples, order: $order, with: {rating: $rating},"
        " demos: [{case: c1, attribute: mercy, answer: {ratings: {a: 1}}}]}",
    )
    (tmp_path / "answers.jsonl").write_text("")
    loaded = load(write_world(tmp_path, CASES, program, ATTRIBUTES))
    (_, first), (_, second) = shown(loaded, "c0", "mercy_high")
    assert first == '{"because": "", "ratings": {"A": 1}}'
    assert "On mercy" in second


def test_a_demo_costs_the_questions_it_touches(tmp_path: Path) -> None:
    plain = planned(world(tmp_path, TOGETHER))
    demo = {"case": "c1", "attribute": "mercy", "answer": {"ratings": {"a": 9, "b": 3}}}
    taught = planned(world(tmp_path, TOGETHER, demo))
    about = {k: j.inputs["attribute"].name for k, j in (plain.jobs | taught.jobs).items()}
    assert {about[k] for k in plain.jobs.keys() - taught.jobs.keys()} == {"mercy"}
    assert {about[k] for k in plain.jobs.keys() & taught.jobs.keys()} == {"order"}
    other = {**demo, "answer": {"ratings": {"a": 9, "b": 4}}}
    assert planned(world(tmp_path, TOGETHER, other)).jobs.keys() != taught.jobs.keys()


def test_names_are_in_no_key(tmp_path: Path) -> None:
    demo = {"case": "c1", "attribute": "mercy", "answer": {"ratings": {"a": 9, "b": 3}}}
    before = planned(world(tmp_path, TOGETHER, demo)).jobs.keys()
    choices = [{**c, "id": f"x{c['id']}"} for c in CASES[1]["choices"]]  # type: ignore[attr-defined]
    renamed = [CASES[0], {**CASES[1], "id": "else", "choices": choices}, CASES[2]]
    demo = {"case": "else", "attribute": "mercy", "answer": {"ratings": {"xa": 9, "xb": 3}}}
    assert planned(world(tmp_path, TOGETHER, demo, cases=renamed)).jobs.keys() == before


def test_a_demo_of_no_known_case_is_left_out(tmp_path: Path) -> None:
    loaded = world(tmp_path, TOGETHER, {"case": "c1", "attribute": "mercy"}, RATED)
    (decider,) = filled(loaded.program, loaded.cases[:1]).deciders
    assert decider.steps[0].demos == ()
    (decider,) = filled(loaded.program, loaded.cases).deciders
    assert [d.of.scenario.id for d in decider.steps[0].demos if d.of] == ["c1", "c1"]


@pytest.mark.parametrize("step", [TOGETHER, ALONE, TOLD])
def test_a_run_the_module_and_compiled_code_agree(step: str, tmp_path: Path) -> None:
    demos: list[dict[str, Any]] = [{"case": "c1", "attribute": "mercy"}]
    demos.append({"case": "c2", "attribute": "mercy"})
    if step == TOLD:
        demos = [{"case": c, "target": {"mercy": v}} for c in ("c1", "c2") for v in (0, 1)]
    loaded = world(tmp_path, step, *demos)
    file = tmp_path / "programs" / "small.yaml"
    file.write_text(file.read_text().replace("scripted:answers.jsonl", "embedded"))
    small = align_dsl.load(file)
    done = CliRunner().invoke(cli, ["compile", str(file), "-o", str(tmp_path / "compiled.py")])
    assert done.exit_code == 0, done.output
    compiled = load_module(tmp_path / "compiled.py").DECIDERS["mine"]()
    for one in loaded.cases[:2]:
        for target in loaded.program.targets[:2]:
            decision = small["mine"](one.scenario, target=target)
            said = small["mine"].module(scenario=one.scenario, target=target)
            assert said.decision == decision
            again = compiled(scenario=one.scenario, target=target)
            assert (again.choice, again.status) == (decision.choice, decision.status)
            assert "exemplar" in decision.why
