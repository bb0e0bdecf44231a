"""Jobs that are given to a crew: the first of a group is answered before the rest is asked, and
nobody else waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align_dsl.engine.adapter import Trail, Unfinished
from align_dsl.engine.crew import WARM_FROM, Came, Crew, Prefix, early
from align_dsl.engine.loop import Loop, pause
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
        self.in_flight = self.looks = 0
        self.over = False
        self.until: dict[str, Callable[[], bool]] = {}
        self.warms: Callable[[str], Prefix | None] = group
        self.blocks = lambda key: False

    def begin(self, key: str) -> Trail:
        self.in_flight += 1
        return Trail()

    def end(self, key: str, trail: Trail) -> None:
        self.in_flight -= 1

    def ask(self, key: str, trail: Trail) -> Answer:
        trail.calls += 1
        self.begun.append(key)
        self.events.append(f"{key} begins")
        pause(0.001)
        while key in self.until and not self.until[key]():
            pause(0.001)
        self.ended.append(key)
        self.events.append(f"{key} ends")
        return Answer(key=key, output=key, calls=1)

    def may_ask(self) -> bool:
        return self.most is None or len(self.ended) + self.in_flight < self.most

    def look(self) -> None:
        self.looks += 1

    def is_over(self) -> bool:
        return self.over


def run(keys: Sequence[str], jobs: Work, workers: int, each: int = 5) -> list[str]:
    """The keys that were answered, in the order of their answers; so many are given at once. Ends,
    or fails."""
    heard: SimpleQueue[Came | BaseException | None] = SimpleQueue()
    crew = Crew(jobs, workers, heard.put)
    row = list(early(keys, jobs.warms, 2 * workers) if workers >= WARM_FROM else keys)
    crew.begin()
    for start in range(0, len(row), each):
        crew.give(row[start : start + each])
    crew.no_more()
    answered = []
    while workers:
        come = heard.get(timeout=20)
        if isinstance(come, BaseException):
            raise come
        workers -= come is None
        if come is not None:
            answered.append(come.answer.key)
    assert not jobs.in_flight
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


def test_a_first_of_a_group_that_is_lost_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes to its end after all others, or this would never end."""
    monkeypatch.setattr("align_dsl.engine.crew.WARM_SECONDS", 0.01)
    jobs, keys = Work(), named("a", 20)
    jobs.until["a00"] = lambda: len(jobs.ended) == 19
    assert sorted(run(keys, jobs, 8)) == keys
    assert jobs.ended[-1] == "a00"


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
        def ask(self, key: str, trail: Trail) -> Answer:
            super().ask(key, trail)
            raise LookupError(key)

    with pytest.raises(LookupError, match="a00"):
        run(named("a", 10), Wrong(), 6)


def test_a_crew_waits_for_more_and_ends_where_there_is_none() -> None:
    jobs = Work()
    heard: SimpleQueue[Came | BaseException | None] = SimpleQueue()
    crew = Crew(jobs, 3, heard.put)
    crew.begin()
    for key in ("a00", "b00"):
        crew.give([key])
        come = heard.get(timeout=20)
        assert isinstance(come, Came)
        assert come.answer.key == key
    crew.no_more()
    assert [heard.get(timeout=20) for _ in range(3)] == [None] * 3
    assert heard.empty()


def test_who_is_let_go_ends_and_what_was_sent_is_told() -> None:
    """While others wait for more, and one for its answer."""
    jobs = Work()
    jobs.until["a00"] = lambda: False
    heard: SimpleQueue[Came | BaseException | None] = SimpleQueue()
    crew = Crew(jobs, 3, heard.put)
    crew.give(["a00"])
    crew.begin()
    while not jobs.begun:
        time.sleep(0.001)
    crew.let_go()
    assert [heard.get(timeout=20) for _ in range(3)] == [None] * 3
    assert not jobs.in_flight


def test_who_is_let_go_before_anything_has_begun_ends_too() -> None:
    heard: SimpleQueue[Came | BaseException | None] = SimpleQueue()
    crew = Crew(Work(), 3, heard.put)

    def both() -> None:
        crew._begin()
        crew._let_go()

    Loop.shared().loop.call_soon_threadsafe(both)
    assert [heard.get(timeout=20) for _ in range(3)] == [None] * 3


def test_where_all_is_over_who_waits_to_ask_ends_and_what_is_in_flight_may_come() -> None:
    class Waiting(Work):
        def ask(self, key: str, trail: Trail) -> Answer:
            trail.waits = key == "a00"  # for its next try, or for a place
            return super().ask(key, trail)

    jobs = Waiting()
    jobs.until = {"a00": lambda: False, "b00": lambda: jobs.in_flight == 1}
    jobs.over = True
    assert run(["a00", "b00"], jobs, 2) == ["b00"]


def test_a_job_that_may_not_go_on_has_no_answer() -> None:
    class Spent(Work):
        def ask(self, key: str, trail: Trail) -> Answer:
            if key == "a00":
                raise Unfinished
            return super().ask(key, trail)

    assert run(["a00", "b00"], Spent(), 1) == ["b00"]


def test_jobs_in_flight_for_long_are_looked_after() -> None:
    jobs = Work()
    jobs.until["a00"] = lambda: jobs.looks > 1
    assert run(["a00"], jobs, 1) == ["a00"]


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(0, 12))
@settings(deadline=None)
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
