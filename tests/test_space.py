"""What a search may vary: read off the decider or named by the program, each thing once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.errors import CompileError, PlanError
from align_dsl.optimize.artefact import _body, _Dumper, _means_the_same
from align_dsl.optimize.propose import Tried, propose
from align_dsl.optimize.run import optimize
from align_dsl.optimize.smooth import smoothed
from align_dsl.optimize.space import Space, written
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.untried import every
from align_dsl.records.store import Store
from tests.test_optimize import kind_and_harsh
from tests.worlds import ATTRIBUTES, write_world

PROGRAM = """version: 1
program: small
about: What may vary.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.5, test: 0.5}}
targets: TARGETS
deciders:
  mine: DECIDER
models:
  cold: {use: hosted_vllm/tiny, endpoint: "http://127.0.0.1:9/v1"}
  warm: {use: hosted_vllm/tiny, endpoint: "http://127.0.0.1:9/v1", temperature: 0.7}
model: MODEL
optimize: {decider: mine, trials: 8 SPACE}
"""
ONE = "{each: [low, high], of: [mercy]}"
BOTH = "[{values: {mercy: high, order: low}}, {each: [low, high]}]"
TOGETHER = "{use: comparative_regression}"
OWN = """
    params:
      numbers: {default: own, choices: [own, {low: 1, high: 5}]}
      warmth: {default: 0, low: 0, high: 1}
    steps:
      - {name: rate, use: rate_together, each: [attribute], scale: $numbers, temperature: $warmth}
    decide: {use: closest, take: rate}"""


def opened(
    folder: Path,
    space: str = "",
    *,
    model: str = "cold",
    targets: str = ONE,
    decider: str = TOGETHER,
) -> Ready:
    text = PROGRAM.replace("SPACE", f", {space}" if space else "").replace("MODEL", model)
    text = text.replace("TARGETS", targets).replace("DECIDER", decider)
    rows = kind_and_harsh(20)
    for row in rows:
        for choice in row["choices"]:  # type: ignore[attr-defined]
            choice["labels"]["order"] = 10 - choice["labels"]["mercy"]
    path = write_world(folder, rows, text, ATTRIBUTES)
    with Store.open(folder / "a.db") as store:
        made = ready(Task(path, store=folder / "a.db"), store)
        made.close()
        return made


def space(folder: Path, *args: Any, **options: Any) -> Space:
    return opened(folder, *args, **options).space


def values(made: Space) -> Mapping[str, Any]:
    return {d.name: d.values or (d.low, d.high) for d in made.dimensions}


# --- what varies unasked


@pytest.mark.parametrize(
    ("model", "targets", "decider", "found"),
    [
        ("embedded", ONE, TOGETHER, {"shots", "select"}),
        ("embedded", BOTH, TOGETHER, {"shots", "select", "norm"}),
        ("cold", ONE, TOGETHER, {"shots", "select", "order", "rating"}),
        ("warm", ONE, TOGETHER, {"shots", "select", "order", "rating", "samples"}),
        # one choice at a time is in no order
        ("cold", ONE, "{use: direct_regression}", {"shots", "select", "rating"}),
        ("cold", ONE, "{use: baseline}", {"order"}),
        # whoever gives a parameter choices or bounds offers them
        ("cold", ONE, OWN, {"numbers", "warmth", "rate.order", "rate.rating"}),
        ("embedded", BOTH, OWN, {"decide.norm"}),
    ],
)
def test_what_varies_unasked(
    model: str, targets: str, decider: str, found: set[str], tmp_path: Path
) -> None:
    made = space(tmp_path, model=model, targets=targets, decider=decider)
    assert values(made).keys() == found


def test_values_that_mean_the_same_are_offered_once(tmp_path: Path) -> None:
    made = values(space(tmp_path))
    assert made["rating"] == ("verbal", "expected")  # `sampled` is `verbal`, of several samples
    assert made["select"] == ("similar", "stratified", "diverse", "random")
    told = values(space(tmp_path / "b", decider="{use: prompt_aligned}"))
    assert told["select"] == ("similar", "diverse", "random")  # no attribute, so no levels


# --- what varies on request


@pytest.mark.parametrize(
    ("named", "options", "found"),
    [
        (
            "rate.scale: [{low: 1, high: 5}, {low: 0, high: 10, step: 1}]",
            {},
            {"rate.scale": ("own", {"low": 1, "high": 5})},
        ),
        ("rate.temperature: [0.7, 0]", {}, {"rate.temperature": (0.7, 0)}),
        ("rate.temperature: [0.3, 1]", {"model": "warm"}, {"rate.temperature": (0.7, 0.3, 1)}),
        ("rate.temperature: {low: 0, high: 1}", {}, {"rate.temperature": (0, 1)}),
        (
            "rate.definitions.mercy: [Letting people off., Sparing people.]",
            {},
            {"rate.definitions.mercy": (None, "Letting people off.")},
        ),
        (
            "decide.weights.order: {low: 0.25, high: 4, log: true}",
            {"targets": BOTH},
            {"decide.weights.order": (0.25, 4)},
        ),
        ("recall.seed: {low: 0, high: 3}", {}, {"recall.seed": (0, 1, 2, 3)}),
        ("rating: [verbal, sampled]", {}, {"rating": ("verbal",)}),
        ("numbers: [{low: 1.0, high: 5}]", {"decider": OWN},
         {"numbers": ("own", {"low": 1, "high": 5})}),
    ],
)  # fmt: skip
def test_what_varies_on_request(
    named: str, options: dict[str, str], found: dict[str, Any], tmp_path: Path
) -> None:
    assert values(space(tmp_path, f"space: {{{named}}}", **options)) == found


@pytest.mark.parametrize(
    ("named", "options"),
    [
        ("rate.temperature: [0, 0.7]", {"model": "embedded"}),
        ("rate.scale: [{low: 1, high: 5}]", {"model": "embedded"}),
        ("rate.definitions.mercy: [Letting people off.]", {"model": "embedded"}),
        ("rate.definitions.order: [Tidiness.]", {}),  # no target asks for it
        ("decide.weights.mercy: [1, 2]", {}),  # there is nothing to weigh it against
        ("norm: [l1, l2]", {}),
        ("order: [shuffle, both]", {"model": "embedded"}),
        ("rating: [verbal, expected]", {"model": "embedded"}),
        ("samples: [1, 3]", {"model": "embedded"}),
    ],
)
def test_what_can_do_nothing_is_left_out_even_where_it_is_named(
    named: str, options: dict[str, str], tmp_path: Path
) -> None:
    name = named.partition(":")[0]
    with pytest.raises(PlanError, match=f"`{name}` would do nothing"):
        space(tmp_path, f"space: {{{named}}}", **options)
    kept = space(tmp_path / "b", f"space: {{{named}, shots: [0, 2]}}", **options)
    assert [d.name for d in kept.dimensions] == ["shots"]


def test_wordings_of_instructions_and_of_definitions(tmp_path: Path) -> None:
    made = space(tmp_path, "variants: {rate: [Rate it.], rate.mercy: [Letting off., Pardon.]}")
    assert values(made)["rate.instructions"] == (None, "Rate it.")
    assert values(made)["rate.definitions.mercy"] == (None, "Letting off.", "Pardon.")
    step = made.program({"rate.definitions.mercy": "Pardon."}).deciders[0].step("rate")
    assert step.definitions == {"mercy": "Pardon."}


def test_a_demo_keeps_the_scale_that_its_numbers_are_written_on(tmp_path: Path) -> None:
    shown = """
    steps:
      - name: rate
        use: rate_together
        each: [attribute]
        demos: [{case: c0, attribute: mercy, answer: {because: So., ratings: {a: 9, b: 1}}}]
    decide: {use: closest, take: rate}"""
    with pytest.raises(CompileError, match=r"has no setting `rate\.scale`"):
        space(tmp_path, "space: {rate.scale: [{low: 1, high: 5}]}", decider=shown)
    train = opened(tmp_path / "a").train.blocks[0][0].scenario.id
    by_labels = shown.replace("c0", train).replace(
        ", answer: {because: So., ratings: {a: 9, b: 1}}", ""
    )
    made = space(tmp_path / "b", "space: {rate.scale: [{low: 1, high: 5}]}", decider=by_labels)
    assert [d.name for d in made.dimensions] == ["rate.scale"]


# --- what does nothing in a configuration


def test_a_seed_matters_only_where_something_is_drawn(tmp_path: Path) -> None:
    named = "{shots: [0, 2], select: [similar, random, subset], recall.seed: [0, 1]}"
    made = space(tmp_path, f"space: {named}", model="embedded")
    found = every(made).values()
    assert len(found) == 1 + 1 + 2 * 2
    assert all(c.get("select") in ("random", "subset") for c in found if "recall.seed" in c)
    shown = {d.name: str(d) for d in made.dimensions}
    where = "(where shots is not 0 and select is random or subset)"
    assert shown["recall.seed"] == f"0, 1    {where}"


@pytest.mark.parametrize(
    ("config", "canonical"),
    [
        ({"rate.temperature": 0, "samples": 3, "order": "both"}, {"rate.temperature", "order"}),
        ({"rate.temperature": 0.7, "samples": 3, "order": "both"},
         {"rate.temperature", "samples", "order"}),
        ({"rate.temperature": 0, "samples": 3, "order": "shuffle"},
         {"rate.temperature", "samples", "order"}),
        ({"rating": "expected", "rate.temperature": 0.7, "samples": 3, "order": "both"},
         {"rating", "order"}),
        ({"rating": "expected", "rate.temperature": 0.7, "samples": 3, "order": "shuffle"},
         {"rating", "samples", "order"}),
    ],
)  # fmt: skip
def test_samples_and_temperature_matter_where_answers_can_differ(
    config: dict[str, Any], canonical: set[str], tmp_path: Path
) -> None:
    named = (
        "{rate.temperature: [0, 0.7], samples: [1, 3], order: [shuffle, both],"
        " rating: [verbal, expected]}"
    )
    made = space(tmp_path, f"space: {named}")
    whole = {"rating": "verbal", **config}
    assert made.canonical(whole).keys() == canonical | {"rating"}


def test_samples_are_no_setting_of_a_model_that_says_the_same_again(tmp_path: Path) -> None:
    fixed = "{use: comparative_regression, with: {order: both}}"
    for model, found in (("cold", [{}]), ("warm", [{"samples": 1}, {"samples": 3}])):
        made = space(tmp_path / model, "space: {samples: [1, 3]}", model=model, decider=fixed)
        assert [*every(made).values()] == found


def test_asking_less_often_is_a_setting_even_where_nothing_is_drawn(tmp_path: Path) -> None:
    often = "{use: comparative_regression, with: {order: both, samples: 3}}"
    made = space(tmp_path, "space: {samples: [1, 3]}", decider=often)
    assert [*every(made).values()] == [{"samples": 1}, {"samples": 3}]


WIDE = (
    "{shots: [0, 2], select: [similar, subset], recall.seed: {low: 0, high: 2},"
    " rate.scale: [{low: 1, high: 5}], rate.temperature: [0, 0.7], samples: [1, 3],"
    " order: [shuffle, both], rating: [verbal, expected], rate.definitions.mercy: [Pardon.]}"
)


def test_equal_programs_have_equal_configurations(tmp_path: Path) -> None:
    """No two of all configurations ask the same: their plans differ."""
    made = opened(tmp_path, f"space: {WIDE}")
    plans: dict[str, str] = {}
    for key, config in list(every(made.space).items())[::3]:
        keys = " ".join(sorted(k for k in made.train.plan(config, 0).model_jobs))
        assert keys not in plans, (key, plans[keys])
        plans[keys] = key
    assert len(plans) > 60


def test_canonical_is_canonical(tmp_path: Path) -> None:
    made = space(tmp_path, f"space: {WIDE}")
    for config in every(made).values():
        assert made.canonical(config) == config
        assert made.canonical({**made.default, **config}).items() >= config.items()
    assert made.canonical(made.default) == made.default


@pytest.mark.parametrize(
    ("named", "step"),
    [
        ("rate.temperature: [0, 0.7]", "temperature: 0"),
        ("rate.temperature: {low: 0, high: 1, step: 0.5}", "temperature: 0"),
        ("rate.scale: [{low: 1, high: 5}]", "scale: {low: 1.0, high: 5, step: 1.0}"),
        ("decide.weights.mercy: {low: 0.5, high: 2, step: 0.5}", "samples: 1"),
    ],
)
def test_the_default_is_one_of_all_configurations(named: str, step: str, tmp_path: Path) -> None:
    mine = OWN.replace("scale: $numbers, temperature: $warmth", step).replace("params", "about")
    mine = mine.partition("    about:")[0] + "\n    steps:" + mine.partition("steps:")[2]
    made = space(tmp_path, f"space: {{{named}}}", decider=mine, targets=BOTH)
    assert written(made.default) in every(made)
    assert made.changes(made.default) == {}


def test_a_sampler_proposes_nothing_twice_and_nothing_idle(tmp_path: Path) -> None:
    made = space(tmp_path, f"space: {WIDE}")
    tried = [Tried(made.default, 0.5)]
    for batch in range(6):
        found = propose(made, tried, 5, sampler="tpe", seed=1, batch=batch)
        assert all(made.canonical(c) == c for c in found)
        # what a study writes down is what it reads again
        assert [json.loads(written(c)) for c in found] == found
        tried += [Tried(c, len(written(c)) % 7 / 7) for c in found]
    assert len({written(t.config) for t in tried}) == 31
    assert all(made.labels(t.config)[0] or not t.config for t in tried)


def test_every_configuration_compiles_to_what_it_says(tmp_path: Path) -> None:
    import yaml

    made = opened(tmp_path, f"space: {WIDE}")
    full = {
        "shots": 2, "select": "subset", "recall.seed": 2, "rate.scale": {"low": 1, "high": 5},
        "rate.temperature": 0.7, "samples": 3, "order": "both", "rating": "verbal",
        "rate.definitions.mercy": "Pardon.",
    }  # fmt: skip
    decider = made.space.program(full).deciders[0]
    recall, rate = decider.step("recall"), decider.step("rate")
    assert (recall.params["k"], recall.params["select"], recall.params["seed"]) == (2, "subset", 2)
    assert (rate.samples, rate.order, rate.temperature) == (3, "both", 0.7)
    assert rate.scale is not None
    assert (rate.scale.low, rate.scale.high) == (1, 5)
    assert rate.definitions == {"mercy": "Pardon."}
    to = tmp_path / "programs" / "other.yaml"
    to.write_text(yaml.dump(_body(made, full, to), Dumper=_Dumper, sort_keys=False))
    _means_the_same(to, made, full)
    assert CliRunner().invoke(cli, ["check", str(to)]).exit_code == 0


def test_a_scale_that_is_a_parameter_is_written_as_one(tmp_path: Path) -> None:
    import yaml

    made = opened(tmp_path, decider=OWN)
    for config in ({"numbers": {"low": 1, "high": 5}, "warmth": 0.5}, {"rate.order": "both"}):
        to = tmp_path / "programs" / "other.yaml"
        to.write_text(yaml.dump(_body(made, config, to), Dumper=_Dumper, sort_keys=False))
        _means_the_same(to, made, config)


def test_weights_are_settings_of_an_aligner(tmp_path: Path) -> None:
    weighed = "{extends: comparative_regression, decide: {use: closest, take: rate, with: " \
        "{norm: $norm, weights: {mercy: 3}}}}"  # fmt: skip
    made = space(tmp_path, "space: {decide.weights.order: [1, 2]}", targets=BOTH, decider=weighed)
    decided = made.program({"decide.weights.order": 2}).deciders[0].decide
    assert decided.params["weights"] == {"mercy": 3, "order": 2}


# --- seeds are names, not numbers


def test_what_is_near_a_seed_is_not_like_it(tmp_path: Path) -> None:
    own = "{use: comparative_regression, with: {shots: 2, select: subset}}"
    seeds = space(tmp_path, "space: {recall.seed: {low: 0, high: 20}}", decider=own)
    shots = space(tmp_path / "b", "space: {shots: {low: 0, high: 20}}", decider=own)
    for made, name in ((seeds, "recall.seed"), (shots, "shots")):
        configs = [{name: i} for i in range(21)]
        even = smoothed(made, configs, [float(i == 10) for i in range(21)])
        near, far = even[9], even[0]
        assert (near > 2 * far) == (name == "shots")


# --- from end to end


def test_a_fixed_set_of_exemplars_is_found_and_written_down(tmp_path: Path) -> None:
    named = "{shots: [0, 4], select: [similar, subset], recall.seed: {low: 0, high: 3}}"
    rows = kind_and_harsh(40)
    text = PROGRAM.replace("SPACE", f", space: {named}").replace("MODEL", "embedded")
    text = text.replace("TARGETS", ONE).replace("DECIDER", TOGETHER)
    path = write_world(tmp_path, rows, text, ATTRIBUTES)
    outcome = optimize(Task(path, store=tmp_path / ".align" / "align.db"))
    tried = [d.config for d in outcome.done]
    assert len(tried) == 1 + 1 + 4
    assert sorted(c["recall.seed"] for c in tried if "recall.seed" in c) == [0, 1, 2, 3]
    assert outcome.is_better
    assert outcome.written is not None
    assert CliRunner().invoke(cli, ["check", str(outcome.written)]).exit_code == 0


# --- what people are shown


def test_explain_shows_the_space(tmp_path: Path) -> None:
    opened(tmp_path, f"space: {WIDE}")
    path = tmp_path / "programs" / "small.yaml"
    said = CliRunner().invoke(cli, ["explain", "--optimize", str(path)])
    assert said.exit_code == 0, said.output
    for line in (
        "rate.scale = own    tries own, 1 to 5",
        "rate.temperature = 0    tries 0, 0.7    (where rating is not expected)",
        "samples = 1    tries 1, 3    (where rate.temperature is not 0 or order is shuffle, "
        "and rating is not expected or order is shuffle)",
        "rate.definitions.mercy = the file's own    tries None, Pardon.",
    ):
        assert line in said.output, said.output
