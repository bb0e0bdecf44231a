"""What programs, deciders, targets and prompts mean, once they compile."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align_dsl.errors import CompileError, Findings
from align_dsl.language.attributes import read_attributes
from align_dsl.language.library import Library, shipped_folder
from align_dsl.language.program import Program
from align_dsl.language.resolve import resolve
from align_dsl.language.source import parse, read_source
from align_dsl.language.targets import read_targets
from align_dsl.language.wording import fields_in, fill, stance
from align_dsl.pipeline import compile
from align_dsl.types import Attribute

ROOT = shipped_folder()
TARGETS = Path(__file__).parents[1] / ".." / "shared" / "data" / "targets"
PARTS = {
    "version": "1",
    "program": "p",
    "about": "A program.",
    "attributes": "mta",
    "data": "{format: jsonl, path: x.jsonl}",
    "targets": "{each: [low, high], of: [fairness]}",
    "deciders": "{mine: {use: comparative_regression}}",
}


def program(**parts: str) -> Program:
    text = "".join(f"{key}: {value}\n" for key, value in {**PARTS, **parts}.items())
    return resolve(parse(text, "p.yaml"), Library([ROOT])).program


def mistakes(**parts: str) -> list[str]:
    try:
        program(**parts)
    except CompileError as error:
        return [d.message for d in error.diagnostics if d.severity == "error"]
    return []


@pytest.fixture(scope="module")
def attributes() -> dict[str, Attribute]:
    found = Findings()
    known: dict[str, Attribute] = {}
    for name in ("mta", "helpsteer2", "itm", "opinionqa"):
        source = read_source(ROOT / "attributes" / f"{name}.yaml")
        for attribute in read_attributes(source, found).values():
            known.setdefault(attribute.name, attribute)
    return known


# targets


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("{each: [high], of: [fairness]}", [("fairness_high", {"fairness": 1.0})]),
        (
            "{each: [low, 0.25], of: [Fairness, moral_desert]}",
            [
                ("fairness_low", {"fairness": 0.0}),
                ("fairness_0.25", {"fairness": 0.25}),
                ("moral_desert_low", {"moral_desert": 0.0}),
                ("moral_desert_0.25", {"moral_desert": 0.25}),
            ],
        ),
        ("[{values: {fairness: high}}]", [("fairness=1", {"fairness": 1.0})]),
        (
            "[{name: t, values: {Fairness: 0.5, MoralDesert: low}}]",
            [("t", {"fairness": 0.5, "moral_desert": 0.0})],
        ),
        (
            "[{each: [low], of: [fairness]}, {each: [low], of: [fairness]}]",
            [("fairness_low", {"fairness": 0.0})],
        ),
    ],
)
def test_targets(written: str, means: list[tuple[str, dict[str, float]]]) -> None:
    assert [(t.name, t.values) for t in program(targets=written).targets] == means


def test_each_alone_is_every_attribute() -> None:
    assert len(program(targets="{each: [low, high]}").targets) == 12


@pytest.mark.parametrize("alias", ["fairness", "Fairness"])
@pytest.mark.parametrize("weighed", ["fairness", "Fairness"])
def test_weights_go_by_any_name(alias: str, weighed: str) -> None:
    (target,) = program(
        targets=f"[{{name: t, values: {{{alias}: 1}}, weights: {{{weighed}: 2}}}}]"
    ).targets
    assert target.weights == {"fairness": 2}


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("align-system/moral_desert_high.yaml", {"moral_desert": 1.0}),
        ("align-system/moral_desert_low.yaml", {"moral_desert": 0.0}),
        ("align-system/fairness_low.yaml", {"fairness": 0.0}),
        ("align-system/risk_aversion_high.yaml", {"risk_aversion": 1.0}),
        ("helpsteer2/1attributes_target00.json", {"correctness": 0.25}),
        ("align-system/pickled-kde-must-be-refused.yaml", "pickled"),
        ("align-system/Feb2026-AF-1.yaml", "model parameters"),
    ],
)
def test_published_target_files(
    name: str, means: dict[str, float] | str, attributes: dict[str, Attribute]
) -> None:
    if not TARGETS.is_dir():
        pytest.skip(f"the published target files are not here ({TARGETS})")
    if isinstance(means, str):
        with pytest.raises(CompileError, match=means):
            read_targets(TARGETS / name, attributes)
    else:
        assert read_targets(TARGETS / name, attributes)[0].values == means


def test_a_folder_of_published_targets(attributes: dict[str, Attribute]) -> None:
    if not TARGETS.is_dir():
        pytest.skip(f"the published target files are not here ({TARGETS})")
    targets = read_targets(TARGETS / "helpsteer2", attributes)
    assert len(targets) == len(list((TARGETS / "helpsteer2").glob("*.json")))
    assert all(0 <= v <= 1 for t in targets for v in t.values.values())


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("{fairness: 0.5}", ("t", {"fairness": 0.5}, {})),
        ("version: 1\nname: x\nvalues: {fairness: high}\nweights: {Fairness: 2}\n",
         ("x", {"fairness": 1.0}, {"fairness": 2.0})),
        ("id: y\nkdma_values: [{kdma: Fairness, value: 7}]\n", ("y", {"fairness": 0.7}, {})),
        ("id: y\nkdma_values: [{kdma: Fairness, value: 0.7}]\n", ("y", {"fairness": 0.7}, {})),
        ("id: y\nkdma_values: [{kdma: Fairness, value: '7'}]\n", "must be a number"),
        ("id: y\nkdma_values: [{kdma: Fairness, value: true}]\n", "must be a number"),
        ("id: y\nkdma_values: [{value: 7}]\n", "expected `kdma:`"),
        ("id: y\nkdma_values: []\n", "must be a list of values"),
        ("{fairness: [1]}", "must be a number"),
        ("{fairness: 1.5}", "off 0..1"),
        ("[1]", "is a mapping"),
        ("values: {fairness: 1}\nweights: 7\n", "must be a mapping"),
        ("values: {fairness: 1}\nweights: {fairness: 0}\n", "above 0"),
    ],
)  # fmt: skip
def test_target_files(
    text: str, means: Any, tmp_path: Path, attributes: dict[str, Attribute]
) -> None:
    (tmp_path / "t.yaml").write_text(text)
    if isinstance(means, str):
        with pytest.raises(CompileError, match=means):
            read_targets(tmp_path / "t.yaml", attributes)
    else:
        (target,) = read_targets(tmp_path / "t.yaml", attributes)
        assert (target.name, target.values, target.weights) == means


# deciders


RATER = (
    "{mine: {params: {n: 2, o: all, t: 'Rate {attribute}.'}, steps: [{name: rate, "
    "use: rate_together, each: [attribute], samples: $n, order: $o, with: {instructions: $t}}], "
    "decide: {use: closest, take: rate}}}"
)


def test_references() -> None:
    (decider,) = program(deciders=RATER).deciders
    (step,) = decider.steps
    assert (step.samples, step.order) == (2, "all")
    assert step.params["instructions"] == "Rate {attribute}."
    assert step.takes == {"scenario": "scenario", "attribute": "attribute"}
    assert decider.decide.takes["ratings"] == "rate"


@pytest.mark.parametrize(
    ("given", "samples", "said"),
    [
        ("{}", 1, []),
        ("{samples: 5}", 5, []),
        ("{samples: 5.0}", 5, []),
        ("{samples: 65}", 0, ["`samples` must be from 1 to 64, not 65"]),
        ("{samples: '5'}", 0, ["`samples` must be a whole number, not `5`"]),
        ("{samples: true}", 0, ["`samples` must be a whole number, not true"]),
        ("{samples: 2.5}", 0, ["`samples` must be a whole number, not `2.5`"]),
        ("{samples: [1]}", 0, ["`samples` must be a whole number, not a list"]),
        ("{samples: $n}", 0, ["`samples` must be a whole number, not `$n`"]),
        ("{sample: 1}", 0, ["the decider `comparative_regression` has no parameter `sample`"]),
    ],
)
def test_with(given: str, samples: int, said: list[str]) -> None:
    parts = {"deciders": f"{{mine: {{use: comparative_regression, with: {given}}}}}"}
    assert mistakes(**parts) == said
    if not said:
        assert program(**parts).deciders[0].step("rate").samples == samples


def test_a_text_may_begin_with_a_sum() -> None:
    text = RATER.replace("'Rate {attribute}.'", "'$5 are lost. Rate.'").replace(
        "instructions: $t", "instructions: '$7 here'"
    )
    assert program(deciders=text).deciders[0].steps[0].params["instructions"] == "$7 here"


def test_inline_decider_extends_a_shipped_one() -> None:
    extending = "{mine: {extends: comparative_regression, params: {shots: 3}}}"
    (decider,) = program(deciders=extending).deciders
    assert decider.params["shots"] == 3
    assert decider.step("recall").params["k"] == 3


def test_one_rater_without_only_rates_all() -> None:
    two = (
        "{mine: {steps: [{name: a, use: rate_together, each: [attribute], only: [fairness]}, "
        "{name: b, use: rate_together, each: [attribute]}], decide: {use: closest, take: b}}}"
    )
    assert mistakes(deciders=two, targets="{each: [low]}") == []


# prompts


@given(st.text(), st.text())
@settings(deadline=None)
def test_filled_in_text_is_never_looked_at_again(high: str, low: str) -> None:
    assert fill("{high}|{low}", {"high": high, "low": low}) == f"{high}|{low}"


@pytest.mark.parametrize("hostile", ["{low}", "{scenario}", "{{7*7}}", "{high}", "%s", "${x}", "{"])
def test_single_pass(hostile: str) -> None:
    filled = fill("A {high}, not {low}.", {"high": hostile, "low": "B"})
    assert filled == f"A {hostile}, not B."


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{attribute} {low}", ("attribute", "low")),
        ("{0.__class__}", ("0.__class__",)),
        ("{a!r} {b[0]}", ("a!r", "b[0]")),
        ('{"json": 1}', ()),
        ("{}", ()),
        ("{ spaced }", ()),
        ("{{high}}", ("high",)),
    ],
)
def test_fields(text: str, fields: tuple[str, ...]) -> None:
    assert fields_in(text) == fields


@given(st.floats(0, 1))
@settings(deadline=None)
def test_every_value_has_words(value: float) -> None:
    assert stance(value)


# the digest


@pytest.mark.parametrize("name", ["mta", "opinions", "preferences"])
def test_digest_is_of_the_meaning(name: str, tmp_path: Path) -> None:
    """Neither comments nor the order of keys nor quotes are part of what a program means."""
    text = (ROOT / "programs" / f"{name}.yaml").read_text(encoding="utf-8")
    blocks: list[str] = []
    for line in text.splitlines():
        if line[:1] in " -" and line:
            blocks[-1] += "\n" + line
        elif not line.startswith("#"):
            blocks.append(line)
    random.Random(1).shuffle(blocks)
    changed = "# another comment\n" + "   # and here\n".join(b + "\n" for b in blocks)
    changed = changed.replace("model: embedded", 'model:   "embedded"  # why')
    (tmp_path / "programs").mkdir()
    one, other = tmp_path / "programs" / "a.yaml", tmp_path / "programs" / "b.yaml"
    one.write_text(text, encoding="utf-8")
    other.write_text(changed, encoding="utf-8")
    assert text != changed
    assert compile(one).program.digest() == compile(other).program.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "1"},
        {"targets": "{each: [high], of: [fairness]}"},
        {"deciders": "{mine: {use: comparative_regression, with: {shots: 1}}}"},
        {"model": "ollama_chat/llama3.2:3b"},
        {"attributes": "[mta.fairness]"},
    ],
)
def test_digest_changes_with_the_meaning(change: dict[str, str]) -> None:
    assert program().digest() != program(**change).digest()


def test_keys_inside_may_stand_in_any_order() -> None:
    one = "{mine: {use: comparative_regression, with: {shots: 1, samples: 2}}}"
    other = "{mine: {with: {samples: 2, shots: 1}, use: comparative_regression}}"
    assert program(deciders=one).digest() == program(deciders=other).digest()


def test_a_copy_elsewhere_compiles(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "programs", tmp_path / "mine")
    assert compile(tmp_path / "mine" / "mta.yaml").program.name == "mta"
