"""Jobs that stand in line: the first of a group is answered before the rest is asked, and nobody
else waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align_dsl.engine.line import Line, Prefix, early
from align_dsl.engine.loop import pause
from align_dsl.records.record import Answer


def group(key: str) -> Prefix:
    return "model", "step", key[0]


class Work:
    """Jobs that note when they begin and end, and wait for what they are told to wait for."""

    def __init__(self, most: int | None = None) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.events: list[str] = []
        self.most = most
        self.until: dict[str, Callable[[], bool]] = {}
        self.warms: Callable[[str], Prefix | None] = group
        self.blocks = lambda key: False

    def ask(self, key: str) -> Answer:
        self.begun.append(key)
        self.events.append(f"{key} begins")
        pause(0.001)
        while key in self.until and not self.until[key]():
            pause(0.001)
        self.ended.append(key)
        self.events.append(f"{key} ends")
        return Answer(key=key, output=key, calls=1)

    def may_ask(self, in_flight: int) -> bool:
        return self.most is None or len(self.ended) + in_flight < self.most

    def spent(self, answer: Answer) -> None: ...


def run(keys: Sequence[str], jobs: Work, workers: int) -> list[str]:
    """The keys that were answered, in the order of their answers. Ends, or fails."""
    heard: SimpleQueue[Answer | BaseException | None] = SimpleQueue()
    Line(iter(keys), jobs, workers, heard.put).begin()
    answered = []
    while workers:
        come = heard.get(timeout=20)
        if isinstance(come, BaseException):
            raise come
        workers -= come is None
        if come is not None:
            answered.append(come.key)
    return answered


def named(groups: str, each: int) -> list[str]:
    return [f"{name}{i:02}" for name in groups for i in range(each)]


@pytest.mark.parametrize(("groups", "each", "workers"), [("abc", 20, 8), ("abcdef", 3, 8)])
def test_the_first_of_a_group_is_answered_before_another_is_asked(
    groups: str, each: int, workers: int
) -> None:
    jobs, keys = Work(), named(groups, each)
    assert sorted(run(keys, jobs, workers)) == keys
    for name in groups:
        of_group = [e for e in jobs.events if e.startswith(name)]
        assert of_group[:2] == [f"{name}00 begins", f"{name}00 ends"]


def test_nobody_waits_for_the_first_of_the_next_group() -> None:
    """It ends when all before it have: nothing would ever end if they waited for it."""
    jobs, before = Work(), named("a", 40)
    jobs.until["b00"] = lambda: {*jobs.ended} >= {*before}
    assert sorted(run([*before, *named("b", 10)], jobs, 8)) == [*before, *named("b", 10)]
    assert jobs.ended.index("b00") == len(before)


def test_few_at_once_have_nothing_to_warm() -> None:
    jobs, keys = Work(), named("ab", 5)
    run(keys, jobs, 3)
    assert jobs.begun == keys


def test_a_server_that_reads_once_what_begins_alike_is_asked_at_once() -> None:
    """All eight are in flight together, or this would never end."""
    jobs, keys = Work(), named("a", 8)
    jobs.warms = lambda key: None
    jobs.until = {key: lambda: len(jobs.begun) == 8 for key in keys}
    assert sorted(run(keys, jobs, 8)) == keys


def test_of_two_servers_only_the_one_that_needs_it_is_warmed() -> None:
    jobs, keys = Work(), named("ab", 10)
    jobs.warms = lambda key: group(key) if key[0] == "b" else None
    jobs.until["b00"] = lambda: {*jobs.ended} >= {*named("a", 10)}
    assert sorted(run(keys, jobs, 8)) == keys
    assert jobs.ended.index("b00") == 10


@pytest.mark.parametrize("most", [0, 1, 2, 7, 100])
def test_who_has_waited_asks_only_if_there_is_still_something_to_spend(most: int) -> None:
    jobs = Work(most)
    assert len(run(named("ab", 10), jobs, 6)) == min(most, 20)


def test_where_the_first_of_a_group_goes_wrong_the_others_hear_of_it() -> None:
    class Wrong(Work):
        def ask(self, key: str) -> Answer:
            super().ask(key)
            raise LookupError(key)

    with pytest.raises(LookupError, match="a00"):
        run(named("a", 10), Wrong(), 6)


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(0, 12))
def test_only_the_first_of_each_group_changes_its_place(sizes: list[int], ahead: int) -> None:
    keys = [f"{name}{i}" for name, n in zip("abcdefgh", sizes, strict=False) for i in range(n)]
    found = list(early(iter(keys), group, ahead))
    assert sorted(found) == keys
    for name, of_group in groupby(keys, lambda key: key[0]):
        assert [k for k in found if k[0] == name] == list(of_group)
    heads = {next(k for k in keys if k[0] == name) for name in {k[0] for k in keys}}
    assert [k for k in found if k not in heads] == [k for k in keys if k not in heads]
    for head in heads:
        assert keys.index(head) - ahead <= found.index(head)
