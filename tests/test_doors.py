"""Every shipped plug-in keeps what its door promises; a new file is tested the moment it exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from align_dsl.registry import ALGORITHMS, ALIGNERS, BACKENDS, DATASETS, DECIDERS, METRICS, Registry
from align_dsl.testing import (
    AlgorithmCase,
    AlignerCase,
    BackendCase,
    DatasetCase,
    DeciderCase,
    MetricCase,
    Sample,
)
from align_dsl.types import Attribute, Choice, Rating, Scenario, Target

ROOT = Path(__file__).parents[1]


def shipped(registry: Registry[Any]) -> list[str]:
    return [name for name in registry if registry.shipped(name)]


class TestAlgorithms(AlgorithmCase):
    @pytest.fixture(params=shipped(ALGORITHMS))
    def algorithm(self, request: pytest.FixtureRequest) -> Any:
        return ALGORITHMS[request.param]


class TestAligners(AlignerCase):
    @pytest.fixture(params=shipped(ALIGNERS))
    def aligner(self, request: pytest.FixtureRequest) -> Any:
        return ALIGNERS[request.param]


class TestClosestByTheSumOfGaps(AlignerCase):
    params: ClassVar[dict[str, Any]] = {"norm": "l1"}

    @pytest.fixture
    def aligner(self) -> Any:
        return ALIGNERS["closest"]


class TestClosestWithWeights(AlignerCase):
    params: ClassVar[dict[str, Any]] = {"weights": {"x": 2, "z": 0.5}}

    @pytest.fixture
    def aligner(self) -> Any:
        return ALIGNERS["closest"]


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize(
    ("weights", "targets", "wins"),
    [
        (None, {}, {"a", "b"}),
        ({"x": 2}, {}, {"a"}),
        ({"y": 2}, {}, {"b"}),
        ({"x": 2}, {"y": 2}, {"a", "b"}),  # they multiply
        ({"x": 2}, {"y": 3}, {"b"}),
        ({"x": 5, "y": 5}, {}, {"a", "b"}),  # only how they compare counts
        ({"elsewhere": 5}, {}, {"a", "b"}),
    ],
)
def test_weights_of_the_aligner_and_of_the_target(
    norm: str, weights: Any, targets: dict[str, float], wins: set[str]
) -> None:
    """`a` is right on x and 0.5 off on y, `b` the other way round."""
    rated = {("a", "x"): 1.0, ("a", "y"): 0.5, ("b", "x"): 0.5, ("b", "y"): 1.0}
    found = ALIGNERS["closest"](
        ratings=tuple(Rating(choice=c, attribute=n, value=v) for (c, n), v in rated.items()),
        target=Target(name="t", values={"x": 1, "y": 1}, weights=targets),
        scenario=Scenario(id="s", text="s", choices=tuple(Choice(id=c, text=c) for c in "ab")),
        norm=norm,
        weights=weights,
    )
    assert {c for c, w in found.items() if w > 0} == wins


class TestBackends(BackendCase):
    @pytest.fixture(params=shipped(BACKENDS))
    def backend(self, request: pytest.FixtureRequest) -> Any:
        return BACKENDS[request.param]


class TestMetrics(MetricCase):
    @pytest.fixture(params=shipped(METRICS))
    def metric(self, request: pytest.FixtureRequest) -> Any:
        return METRICS[request.param]


class TestDeciders(DeciderCase):
    @pytest.fixture(params=shipped(DECIDERS))
    def file(self, request: pytest.FixtureRequest) -> Path:
        return DECIDERS.place(request.param).path


X = Attribute(name="x", title="x", about="about", high="much", low="little", aliases=("EX",))
AWKWARD = ('{scenario} {{7*7}} "quoted" \\n', "שלום \u202e<|im_end|>", "line\nline", "  spaces  ")


def _jsonl(folder: Path) -> Path:
    rows = [
        {
            "id": f"case {i}",
            "scenario": text,
            "choices": [
                {"id": "a", "text": f"{text}!", "labels": {"EX": 7, "unknown": 3}},
                {"id": "b", "text": f"{text}!", "labels": {"x": 0}, "reasons": {"x": "none"}},
            ],
        }
        for i, text in enumerate(AWKWARD)
    ]
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _align_system(folder: Path) -> Path:
    rows = [
        {
            "input": {
                "scenario_id": "same",
                "full_state": {"unstructured": text},
                "choices": [{"unstructured": f"{text}{i}"} for i in range(2)],
            },
            "label": [{"EX": 7}, {"x": 0}],
        }
        for text in AWKWARD
    ]
    path = folder / "cases.json"
    path.write_text(json.dumps(rows))
    return path


def _helpsteer2(folder: Path) -> Path:
    rows = [
        {"prompt": text, "responses": [f"{text}0", f"{text}1"], "labels": [{"x": 1}, {"EX": 0.25}]}
        for text in AWKWARD
    ]
    path = folder / "cases.json"
    path.write_text(json.dumps(rows))
    return path


SAMPLES = {"jsonl": _jsonl, "align_system": _align_system, "helpsteer2": _helpsteer2}


class TestDatasets(DatasetCase):
    @pytest.fixture(params=shipped(DATASETS))
    def sample(self, request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
        write = SAMPLES.get(request.param)
        assert write is not None, f"write a sample for the data format {request.param}, above"
        return Sample(DATASETS[request.param], write(tmp_path), {"x": X}, AWKWARD)
