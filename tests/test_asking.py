"""How a step asks: at what temperature, on what scale, in what words; and who hears of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.datasets import pool_of
from align_dsl.engine.decide import decide
from align_dsl.engine.execute import execute
from align_dsl.engine.plan import Plan, plan
from align_dsl.engine.preview import preview
from align_dsl.pipeline import Loaded, load, open_backends, plan_run
from align_dsl.types import Attribute, Scale
from tests.servers.recorder import Asked, Recorder, Reply
from tests.test_lm import Memory
from tests.worlds import cases, write_world

ATTRIBUTES = """version: 1
set: two
about: Two attributes for tests.
attributes:
  mercy:
    about: Sparing people.
    high: It spares.
    low: It does not spare.
    anchors: {0: Nobody is spared., 4: Some are., 5: Half are., 10: All are spared.}
  order: {about: Keeping rules., high: It keeps them., low: It breaks them.}
"""
PROGRAM = """version: 1
program: small
about: Steps that ask in ways of their own.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [high], of: [mercy]}
deciders:
  mine:
    params: {numbers: {default: own}, warmth: 0.5, words: Letting people off.}
    steps:
      - {name: rate, use: rate_together, each: [attribute]FIELDS}
    decide: {use: closest, take: rate}
models:
  m: {use: hosted_vllm/tiny, endpoint: "URL", temperature: 0.2}
model: m
"""


def small(folder: Path, fields: str, program: str = PROGRAM, url: str = "http://x/v1") -> Loaded:
    text = program.replace("FIELDS", f", {fields}" if fields else "").replace("URL", url)
    return load(write_world(folder, cases(4), text, ATTRIBUTES))


def planned(loaded: Loaded) -> Plan:
    return plan(loaded.program, loaded.cases, loaded.program.targets, pool_of(loaded.pool))


def asked(folder: Path, fields: str, server: Recorder) -> tuple[list[Asked], list[Any]]:
    """What is sent, and what is decided."""
    loaded = small(folder, fields, url=f"{server.url}/v1")
    backends = open_backends(loaded.program)
    made = plan_run(loaded, backends)
    before = len(server.asked)
    try:
        answers = execute(made, backends, Memory()).answers
    finally:
        backends["m"].close()
    return server.asked[before:], list(decide(made, answers))


def highest(one: Asked) -> Reply:
    """Every rating as high as it may be."""
    ratings = one.schema["properties"]["ratings"]["properties"]
    numbers = {letter: of["maximum"] for letter, of in ratings.items()}
    return Reply(json.dumps({"because": "so", "ratings": numbers}))


# --- temperature


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ("", 0.2),
        ("temperature: 0.9", 0.9),
        ("temperature: 0", 0),
        ("temperature: $warmth", 0.5),
    ],
)
def test_the_temperature_of_a_step_is_sent(fields: str, sent: float, tmp_path: Path) -> None:
    with Recorder(highest) as server:
        requests, decisions = asked(tmp_path, fields, server)
    assert len(requests) == 4
    assert {one.json["temperature"] for one in requests} == {sent}
    assert all(d.status in ("ok", "tied") for d in decisions)


def test_each_step_is_asked_at_its_own_temperature(tmp_path: Path) -> None:
    """Side by side on one server, and mended at the same temperature."""
    both = PROGRAM.replace(
        "FIELDS}",
        ", temperature: 0.9}\n"
        "      - {name: again, use: rate_alone, each: [attribute, choice], temperature: 0}",
    )
    with Recorder() as server:
        server.answer("no JSON")
        loaded = small(tmp_path, "", both, f"{server.url}/v1")
        backends = open_backends(loaded.program)
        execute(plan_run(loaded, backends), backends, Memory())
        backends["m"].close()
    found = {
        (one.json["temperature"], "several choices" in one.messages[0]["content"])
        for one in server.asked
    }
    assert found == {(0.9, True), (0, False)}


def test_a_temperature_is_part_of_a_key_as_the_models_is(tmp_path: Path) -> None:
    plain, warm = small(tmp_path, ""), small(tmp_path / "b", "temperature: 0.9")
    assert not {*planned(plain).jobs} & {*planned(warm).jobs}
    same = small(tmp_path / "c", "temperature: 0.2")
    assert [*planned(same).jobs] == [*planned(plain).jobs]
    warmer = PROGRAM.replace("temperature: 0.2", "temperature: 0.9")
    assert [*planned(small(tmp_path / "d", "", warmer)).jobs] == [*planned(warm).jobs]


def test_what_is_not_said_changes_no_digest(tmp_path: Path) -> None:
    step = small(tmp_path, "scale: own").program.deciders[0].steps[0]
    assert not {"temperature", "scale", "definitions"} & step.model_dump().keys()
    assert type(step).model_validate(step.model_dump()) == step
    said = small(tmp_path, "scale: {low: 1, high: 5}").program.deciders[0].steps[0]
    assert type(said).model_validate(said.model_dump(mode="json")) == said
    assert said.digest() != step.digest()


# --- scale


@pytest.mark.parametrize("written", ["{low: 1, high: 5}", "$numbers"])
def test_a_scale_is_what_the_model_sees_and_is_held_to(written: str, tmp_path: Path) -> None:
    program = PROGRAM.replace("default: own", "default: {low: 1, high: 5}")
    loaded = small(tmp_path, f"scale: {written}", program)
    (seen, *_) = list(preview(planned(loaded)))
    text = seen.messages[0]["content"]
    assert "from 1 (low end) to 5 (high end)" in text
    assert "a whole number from 1 to 5" in text
    number = {"type": "integer", "minimum": 1, "maximum": 5}
    assert number in seen.schema["properties"]["ratings"]["properties"].values()
    # anchors stand where they mean the same: 4 of 10 would be 2.6
    for line in ("1: Nobody is spared.", "3: Half are.", "5: All are spared."):
        assert line in text
    assert "Some are." not in text


def test_a_five_of_five_is_one(tmp_path: Path) -> None:
    with Recorder(highest) as server:
        requests, decisions = asked(tmp_path, "scale: {low: 1, high: 5}", server)
    for one in requests:
        said = one.schema["properties"]["ratings"]["properties"].values()
        assert {(s["minimum"], s["maximum"]) for s in said} == {(1, 5)}
    assert {r.value for d in decisions for r in d.ratings} == {1.0}


def test_exemplars_are_shown_on_the_scale_of_the_step(tmp_path: Path) -> None:
    few = PROGRAM.replace(
        "      - {name: rate",
        "      - {name: recall, use: recall, each: [attribute], with: {k: 3}}\n      - {name: rate",
    ).replace("each: [attribute]FIELDS", "each: [attribute], takes: {demos: recall}FIELDS")
    scale = "scale: {low: 0, high: 100, step: 10}"
    for fields, numbers in (("", range(11)), (scale, range(0, 101, 10))):
        (seen, *_) = list(preview(planned(small(tmp_path, fields, few))))
        shown = [json.loads(m["content"]) for m in seen.messages if m["role"] == "assistant"]
        rated = {number for one in shown for number in one["ratings"].values()}
        assert rated <= {*numbers}
        assert len(shown) == 3
    assert max(rated) > 10


@pytest.mark.parametrize(
    ("scale", "anchors"),
    [
        (Scale(), ((0, "a"), (4, "b"), (5, "c"), (10, "d"))),
        (Scale(low=1, high=5), ((1, "a"), (3, "c"), (5, "d"))),
        (Scale(low=0, high=100), ((0, "a"), (40, "b"), (50, "c"), (100, "d"))),
        (Scale(low=-1, high=1, step=2), ((-1, "a"), (1, "d"))),
        (Scale(low=0, high=1, step=0.1), ((0, "a"), (0.4, "b"), (0.5, "c"), (1, "d"))),
    ],
)
def test_anchors_move_along(scale: Scale, anchors: tuple[tuple[float, str], ...]) -> None:
    one = Attribute(
        name="x",
        title="x",
        about="about",
        high="high",
        low="low",
        anchors=((0, "a"), (4, "b"), (5, "c"), (10, "d")),
    )
    told = one.told(scale)
    assert [said for _, said in told.anchors] == [said for _, said in anchors]
    assert [n for n, _ in told.anchors] == pytest.approx([n for n, _ in anchors])
    assert told.told(one.scale).scale == one.scale
    assert one.told() == one


# --- definitions


def test_definitions_are_read_in_their_step_and_nowhere_else(tmp_path: Path) -> None:
    two = PROGRAM.replace(
        "FIELDS}",
        ", definitions: {mercy: $words}}\n"
        "      - {name: other, use: rate_together, each: [attribute]}",
    ).replace("of: [mercy]", "of: [mercy, order]")
    other = two.replace("take: rate", "take: other")
    plans = planned(small(tmp_path, "", two)), planned(small(tmp_path, "", other))
    seen = {(p.step, p.job.inputs["attribute"].name): p for one in plans for p in preview(one)}
    told = {at: p.messages[0]["content"] for at, p in seen.items()}
    assert "Letting people off." in told["rate", "mercy"]
    assert "Sparing people." not in told["rate", "mercy"]
    assert "Sparing people." in told["other", "mercy"]
    assert not any("Letting" in t for at, t in told.items() if at != ("rate", "mercy"))
    # of `order` both ask the same, so it is asked once
    assert ("rate", "order") in seen
    assert ("other", "order") not in seen


def test_definitions_reach_those_who_are_told_of_all_attributes(tmp_path: Path) -> None:
    picked = PROGRAM.replace(
        "use: rate_together, each: [attribute]FIELDS", "use: pick_for, FIELDS"
    ).replace("closest", "majority").replace(", FIELDS", "FIELDS")  # fmt: skip
    plain = small(tmp_path, "", picked)
    told = small(tmp_path / "b", "definitions: {mercy: Letting people off.}", picked)
    unsaid = small(tmp_path / "c", "definitions: {order: Tidiness.}", picked)
    assert "Letting people off." in next(preview(planned(told))).messages[0]["content"]
    assert not {*planned(plain).jobs} & {*planned(told).jobs}
    assert [*planned(plain).jobs] == [*planned(unsaid).jobs]  # nobody asks for `order`


# --- what people are shown


def test_explain_shows_what_is_said_and_where(tmp_path: Path) -> None:
    fields = "temperature: $warmth, scale: {low: 1, high: 5}, definitions: {mercy: $words}"
    small(tmp_path, fields)
    said = CliRunner().invoke(cli, ["explain", str(tmp_path / "programs" / "small.yaml")])
    assert said.exit_code == 0, said.output
    lines = {line.split("    (")[0].strip() for line in said.output.splitlines()}
    assert {
        "temperature = 0.5",
        "scale = 1..5 step 1",
        "definitions = mercy: Letting people off.",
    } <= lines
    (warmth,) = (line for line in said.output.splitlines() if "temperature = 0.5" in line)
    assert "small.yaml:9:" in warmth
    small(tmp_path, "")
    plain = CliRunner().invoke(cli, ["explain", str(tmp_path / "programs" / "small.yaml")])
    assert "scale =" not in plain.output
