"""Slots of a batch: who gets them, and what becomes of those that were lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_dsl.optimize.claimant import me
from align_dsl.optimize.search import BATCH
from tests.counted import (
    answer,
    at_work,
    task,
)
from tests.servers.recorder import Recorder


def test_what_was_lost_of_a_batch_gets_the_configuration_that_it_had(tmp_path: Path) -> None:
    """Also where another version would propose something else."""
    with Recorder(answer) as server, at_work(task(tmp_path, server)) as (made, kept, search):
        search._prepare()
        search._try(kept.claim())
        configs = search._batch(1, kept.done(), BATCH)
        # two of four were written down, and of these one was lost
        kept.enqueue(1, BATCH, {0: configs[2], 1: configs[3]}, made.space)
        lost = kept.claim()
        assert lost is not None
        kept.storage.set_trial_user_attr(lost._trial_id, "worker", {**me(), "pid": 2**22})
        kept.fail_stale()
        search._prepare()
        waiting = {
            t.user_attrs["slot"][1]: t.user_attrs["config"]
            for t in kept.trials()
            if t.state.name == "WAITING"
        }
    assert waiting == {0: configs[2], 1: configs[3], 2: configs[0], 3: configs[1]}


@pytest.mark.parametrize(("workers", "warned"), [(BATCH, 0), (BATCH + 1, 1)])
def test_more_workers_than_a_batch_has_trials_are_warned_of(
    workers: int, warned: int, tmp_path: Path
) -> None:
    with (
        Recorder(answer) as server,
        at_work(task(tmp_path, server, workers=workers)) as (made, _, _),
    ):
        assert sum("have nothing to do" in w for w in made.warnings) == warned


def test_helpers_leave_the_default_to_who_began(tmp_path: Path) -> None:
    with Recorder(answer) as server, at_work(task(tmp_path, server)) as (_, kept, search):
        search._prepare()
        assert kept.claim(default=False) is None
        assert kept.claim() is not None
