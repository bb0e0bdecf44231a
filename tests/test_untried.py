"""Configurations found without a sampler: what lies beside one, and what is left."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from align_dsl.optimize.propose import Tried, propose
from align_dsl.optimize.space import Config, Space, written
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.untried import beside, every
from align_dsl.records.store import Store
from tests.test_optimize_trial import PROGRAM, hard_to_tell
from tests.worlds import ATTRIBUTES, write_world

Spaced = Callable[[str], Space]


@pytest.fixture
def spaced(tmp_path: Path) -> Iterator[Spaced]:
    """A space as a program writes it."""
    with Store.open(tmp_path / "a.db") as store:
        opened: list[Ready] = []

        def open_one(space: str) -> Space:
            program = PROGRAM.replace("SPACE", space)
            path = write_world(tmp_path / str(len(opened)), hard_to_tell(30), program, ATTRIBUTES)
            opened.append(ready(Task(path, store=tmp_path / "a.db"), store))
            return opened[-1].space

        yield open_one
        for made in opened:
            made.close()


def dice() -> random.Random:
    return random.Random(7)


def differ(a: Config, b: Config) -> set[str]:
    """Of what matters in both."""
    return {k for k in a.keys() & b.keys() if a[k] != b[k]}


def test_beside_one_is_what_differs_in_a_single_setting(spaced: Spaced) -> None:
    space = spaced("{shots: [2, 4], select: [similar, random], norm: [l2, l1]}")
    here = {"shots": 2, "select": "similar", "norm": "l2"}
    found = list(beside(space, here, dice()))
    assert {written(c) for c in found} == {
        key for key, c in every(space).items() if len(differ(c, here)) == 1
    }


def test_what_matters_only_now_is_as_the_file_has_it(spaced: Spaced) -> None:
    space = spaced("{shots: [0, 2], select: [similar, random]}")
    assert list(beside(space, {"shots": 0}, dice())) == [{"shots": 2, "select": "similar"}]


@pytest.mark.parametrize("shots", ["{low: 0, high: 12}", "[0, 1, 2, 5, 10, 12]"])
def test_the_nearest_numbers_come_first(spaced: Spaced, shots: str) -> None:
    space = spaced(f"{{shots: {shots}}}")
    listed = sorted(c["shots"] for c in every(space).values())
    found = [c["shots"] for c in beside(space, {"shots": listed[2]}, dice())]
    assert {*found[:2]} == {listed[1], listed[3]}
    assert {*found} == {*listed} - {listed[2]}
    assert found[-1] == listed[-1]


def test_a_batch_of_what_was_nearly_all_tried_is_what_was_left(spaced: Spaced) -> None:
    space = spaced("{shots: {low: 0, high: 20}, select: [similar, random], norm: [l2, l1]}")
    configs = list(every(space).values())
    left = [written(c) for c in random.Random(3).sample(configs, 5)]
    tried = [Tried(c, 0.5) for c in configs if written(c) not in left]
    found = propose(space, tried, 5, sampler="tpe", seed=0, batch=9)
    assert sorted(map(written, found)) == sorted(left)


@pytest.mark.parametrize("sampler", ["bruteforce", "grid", "tpe", "random"])
def test_a_sampler_at_its_end_ends_the_search_and_nothing_else(
    spaced: Spaced, sampler: str
) -> None:
    space = spaced("{shots: [0, 2], norm: [l2, l1]}")
    tried = [Tried(c, 0.5) for c in list(every(space).values())[:3]]
    assert len(propose(space, tried, 4, sampler=sampler, seed=0, batch=1)) == 1
