"""What a data format must keep: every case once, in a stable order, its text untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from align_dsl.testing._source import signature_of
from align_dsl.types import Attribute, Case

Reader = Callable[[Path, Mapping[str, Attribute]], Iterator[Case]]


@dataclass(frozen=True)
class Sample:
    """A reader, something for it to read, and texts that must come out as they went in."""

    reader: Reader
    path: Path
    attributes: Mapping[str, Attribute]
    texts: tuple[str, ...] = ()


class DatasetCase:
    """Subclass it with the fixture `sample`."""

    @pytest.fixture
    def sample(self) -> Sample:
        raise NotImplementedError("a subclass says what is read")

    @pytest.fixture
    def cases(self, sample: Sample) -> tuple[Case, ...]:
        found = tuple(sample.reader(sample.path, sample.attributes))
        assert found, "the sample has no cases"
        return found

    def test_says_what_it_reads(self, sample: Sample) -> None:
        signature = signature_of(sample.reader)
        assert signature.about
        assert [p.name for p in signature.ports] == ["path", "attributes"]

    def test_ids_are_unique(self, cases: tuple[Case, ...]) -> None:
        ids = [c.scenario.id for c in cases]
        assert len(set(ids)) == len(ids)
        for case in cases:
            choices = [c.id for c in case.scenario.choices]
            assert len(set(choices)) == len(choices) > 0

    def test_labels_name_real_choices_and_attributes(
        self, sample: Sample, cases: tuple[Case, ...]
    ) -> None:
        for case in cases:
            for said in (case.labels, case.reasons):
                assert set(said) <= {c.id for c in case.scenario.choices}
                assert {n for by in said.values() for n in by} <= set(sample.attributes)

    def test_labels_lie_within_0_and_1(self, cases: tuple[Case, ...]) -> None:
        labels = [v for c in cases for by in c.labels.values() for v in by.values()]
        assert labels, "the sample has no labels on the attributes given"
        assert all(0 <= v <= 1 for v in labels)

    def test_a_second_reading_agrees(self, sample: Sample, cases: tuple[Case, ...]) -> None:
        assert tuple(sample.reader(sample.path, sample.attributes)) == cases

    def test_without_attributes_there_are_no_labels(
        self, sample: Sample, cases: tuple[Case, ...]
    ) -> None:
        bare = tuple(sample.reader(sample.path, {}))
        assert [c.scenario for c in bare] == [c.scenario for c in cases]
        assert not any(by for c in bare for by in c.labels.values())

    def test_text_is_kept(self, sample: Sample, cases: tuple[Case, ...]) -> None:
        found = {c.scenario.text for c in cases}
        found |= {choice.text for c in cases for choice in c.scenario.choices}
        assert "" not in {choice.text for c in cases for choice in c.scenario.choices}
        assert set(sample.texts) <= found
