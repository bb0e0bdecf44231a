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
from align_dsl.types import Attribute

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
