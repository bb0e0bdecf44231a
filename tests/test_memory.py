"""What a decider remembers: calls that come together ask each question once."""

from __future__ import annotations

import threading

from align_dsl.api.memory import Call, Memory
from align_dsl.records.record import Answer
from align_dsl.types import Failure

GOOD = Answer(key="k", output={"pick": "A"})
BAD = Answer(key="k", failure=Failure(status="timeout", message="too slow"))


def calls(n: int) -> list[Call]:
    memory = Memory()
    return [memory.of_call() for _ in range(n)]


def claims(call: Call) -> bool:
    return call.claim(["k"], "", 1.0) == {"k"}


def test_one_asks_and_the_others_hear_of_it() -> None:
    one, other, later = calls(3)
    assert (claims(one), claims(other)) == (True, False)
    one.put([GOOD])
    assert other.known(["k"]) == later.known(["k"]) == {"k": GOOD}
    assert not claims(later)


def test_who_waits_is_woken_by_the_answer() -> None:
    one, other = calls(2)
    assert (claims(one), claims(other)) == (True, False)
    heard: list[dict[str, Answer]] = []
    thread = threading.Thread(target=lambda: heard.append(other.known(["k"])))
    thread.start()
    one.put([GOOD])
    thread.join()
    assert heard == [{"k": GOOD}]


def test_a_failure_is_shared_by_those_who_waited_and_then_forgotten() -> None:
    one, other, later = calls(3)
    assert (claims(one), claims(other)) == (True, False)
    one.put([BAD])
    assert other.known(["k"]) == {"k": BAD}
    assert later.known(["k"]) == {}
    assert claims(later)


def test_who_has_waited_in_vain_asks_at_once() -> None:
    one, second, third, later = calls(4)
    assert [claims(call) for call in (one, second, third)] == [True, False, False]
    one.release("")
    assert [claims(call) for call in (second, third)] == [True, True]
    assert not claims(later)
    second.put([GOOD])
    assert third.known(["k"]) == {"k": GOOD}


def test_in_the_child_of_a_fork_nobody_asks() -> None:
    memory = Memory()
    memory.of_call().claim(["k"], "", 1.0)
    memory.begin_anew()
    assert claims(memory.of_call())
