"""The limiter: grows on good answers, halves on complaints, rests what fails, spreads the load."""

from __future__ import annotations

import asyncio

import pytest

from align_dsl.engine.limiter import (
    FIRST,
    FULL_SECONDS,
    LONGEST_FULL,
    SPOILT,
    Closed,
    Endpoint,
    Limiter,
)
from align_dsl.engine.quirks import PLAIN, VLLM


def test_the_limit_doubles_with_each_round_up_to_its_ceiling() -> None:
    one = Endpoint("a", 100)
    for limit in (FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST):
        assert one.limit == limit
        for _ in range(limit):
            one.learn("ok", 0)
    assert one.limit == 100


def test_once_it_has_complained_the_limit_grows_by_one_a_round() -> None:
    one = Endpoint("a", 12)
    one.learn("busy", 0)
    assert one.limit == FIRST / 2
    for _ in range(FIRST // 2 + 1):
        one.learn("ok", 0)
    assert FIRST / 2 + 0.9 < one.limit < FIRST / 2 + 1.2
    for _ in range(200):
        one.learn("ok", 0)
    assert one.limit == 12


def test_what_nobody_answered_is_neither_a_complaint_nor_room_for_more() -> None:
    one = Endpoint("a", 64)
    one.learn("unsaid", 0)
    assert one.limit == FIRST
    one.learn("ok", 0)
    assert one.limit == FIRST + 1


def test_a_burst_of_complaints_halves_it_once() -> None:
    one = Endpoint("a", 16)
    for _ in range(8):
        one.learn("busy", 10.0)
    assert one.limit == FIRST / 2
    one.learn("busy", 12.0)
    assert one.limit == FIRST / 4
    for later in range(20):
        one.learn("busy", 20.0 + 2 * later)
    assert one.limit == 1


def test_who_fails_rests_longer_each_time_and_who_says_when_is_believed() -> None:
    one = Endpoint("a", 4)
    one.learn("down", 0.0)
    first = one.rests_until
    one.learn("down", 10.0)
    assert one.rests_until - 10.0 > first > 0
    two = Endpoint("b", 4)
    two.learn("busy", 0.0, rest=7.0)
    assert two.rests_until == 7.0
    assert not two.has_room(6.9)
    assert two.has_room(7.0)
    two.learn("busy", 8.0, rest=60.0)
    assert two.rests_until == 68.0


def test_never_more_in_flight_than_the_limit_and_all_are_served() -> None:
    async def main() -> tuple[int, int]:
        limiter = Limiter.of(["a"], 3)
        most = served = 0

        async def one() -> None:
            nonlocal most, served
            place = await limiter.take()
            most = max(most, place.in_flight)
            await asyncio.sleep(0)
            served += 1
            limiter.give_back(place, "ok")

        await asyncio.gather(*(one() for _ in range(200)))
        return most, served

    assert asyncio.run(main()) == (3, 200)


def test_the_least_loaded_of_several_is_taken_and_the_failed_one_avoided() -> None:
    async def main() -> list[str]:
        limiter = Limiter.of(["a", "b", "c"], 6)
        taken = [await limiter.take() for _ in range(3)]
        urls = [e.url for e in taken]
        limiter.give_back(taken[0], "down")  # `a` rests
        urls += [(await limiter.take(avoid={"b"})).url for _ in range(1)]
        return urls

    assert asyncio.run(main()) == ["a", "b", "c", "c"]


def test_when_all_rest_the_first_to_wake_is_waited_for() -> None:
    async def main() -> str:
        limiter = Limiter.of(["a", "b"], 2)
        first, second = await limiter.take(), await limiter.take()
        limiter.give_back(first, "busy", rest=0.2)
        limiter.give_back(second, "busy", rest=0.05)
        async with asyncio.timeout(5):
            return (await limiter.take()).url

    assert asyncio.run(main()) == "b"


@pytest.mark.parametrize("ceiling", [1, 2, 7, 64])
def test_the_ceiling_is_shared_among_endpoints(ceiling: int) -> None:
    limiter = Limiter.of(["a", "b", "c"], ceiling)
    assert sum(e.ceiling for e in limiter.endpoints) >= ceiling
    assert all(e.ceiling >= 1 for e in limiter.endpoints)


def test_a_server_that_queues_gets_all_it_may_have_from_the_start() -> None:
    one = Endpoint("a", 64)
    one.is_a(PLAIN)
    assert one.limit == FIRST
    one.is_a(VLLM)
    assert one.limit == 64


def test_but_not_one_that_has_complained() -> None:
    one = Endpoint("a", 64)
    one.learn("busy", 0.0)
    one.is_a(VLLM)
    assert one.limit == FIRST / 2


def test_who_fails_for_days_rests_half_a_minute() -> None:
    one = Endpoint("a", 4)
    for later in range(3000):
        one.learn("down", 2.0 * later)
    assert 30 <= one.rests_until - 2.0 * 2999 <= 40


def test_who_loads_its_model_rests_and_is_thought_no_less_of() -> None:
    one = Endpoint("a", 64)
    for later in range(20):
        one.learn("loading", 2.0 * later, rest=1.0)
    assert one.rests_until == 39.0
    assert one.limit == FIRST
    assert not one.has_complained


def test_several_endpoints_get_no_more_at_once_than_is_allowed_in_all() -> None:
    async def main() -> int:
        limiter, together, most = Limiter.of(["a", "b", "c"], 4), 0, 0

        async def one() -> None:
            nonlocal together, most
            place = await limiter.take()
            together += 1
            most = max(most, together)
            await asyncio.sleep(0)
            together -= 1
            limiter.give_back(place, "ok")

        async with asyncio.timeout(10):
            await asyncio.gather(*(one() for _ in range(100)))
        return most

    assert asyncio.run(main()) == 4


def test_a_place_is_for_the_first_who_can_use_it() -> None:
    """Who may ask one server alone is woken for a place there, and for no other."""

    async def main() -> list[str]:
        limiter, served = Limiter.of(["a", "b"], 2), list[str]()

        async def one(name: str, at: tuple[str, ...]) -> None:
            place = await limiter.take(at=at)
            served.append(f"{name} {place.url}")

        first, second = await limiter.take(), await limiter.take()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            tasks.create_task(one("picky", ("a",)))
            await asyncio.sleep(0)
            tasks.create_task(one("easy", ()))
            await asyncio.sleep(0)
            limiter.give_back(second, "ok")
            await asyncio.sleep(0.01)
            limiter.give_back(first, "ok")
        return served

    assert asyncio.run(main()) == ["easy b", "picky a"]


def test_at_the_end_of_a_rest_all_are_served_that_there_is_room_for() -> None:
    """Some came before it rested, and know nothing of it."""

    async def main() -> int:
        limiter = Limiter.of(["a"], 4)
        places = [await limiter.take() for _ in range(4)]
        waiting = [asyncio.create_task(limiter.take()) for _ in range(4)]
        await asyncio.sleep(0)
        for place in places:
            limiter.give_back(place, "loading", rest=0.05)
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)
        return places[0].in_flight

    assert asyncio.run(main()) == 4


def test_who_gives_up_waiting_passes_on_what_it_watched_for() -> None:
    async def main() -> str:
        limiter = Limiter.of(["a"], 1)
        place = await limiter.take()
        waiting = [asyncio.create_task(limiter.take()) for _ in range(2)]
        await asyncio.sleep(0)
        limiter.give_back(place, "loading", rest=0.05)
        await asyncio.sleep(0)
        waiting[0].cancel()  # only the first knew until when it rests
        async with asyncio.timeout(5):
            return (await waiting[1]).url

    assert asyncio.run(main()) == "a"


def test_who_waits_is_sent_away_at_the_end() -> None:
    async def main() -> list[object]:
        limiter = Limiter.of(["a"], 1)
        await limiter.take()
        waiting = [asyncio.create_task(limiter.take()) for _ in range(3)]
        await asyncio.sleep(0)
        limiter.close()
        return [type(w) for w in await asyncio.gather(*waiting, return_exceptions=True)]

    assert asyncio.run(main()) == [Closed] * 3


def test_at_the_very_end_of_a_rest_nobody_waits_for_ever() -> None:
    """The clock passes it between two looks at it."""
    ticks = iter([0.999999, 1.000001])
    limiter = Limiter.of(["a"], 4)
    limiter.endpoints[0].rests_until = 1.0
    limiter.clock = lambda: next(ticks, 2.0)

    async def main() -> str:
        async with asyncio.timeout(5):
            return (await limiter.take()).url

    assert asyncio.run(main()) == "a"


# --- one that is full, and one that gives answers of no use


def test_who_is_full_again_and_again_rests_even_if_it_is_the_only_one() -> None:
    limiter = Limiter.of(["a"], 64)
    (one,) = limiter.endpoints
    now, rests = 100.0, []
    limiter.clock = lambda: now
    for _ in range(10):
        one.in_flight += 1
        limiter.give_back(one, "full")
        rests.append(max(0.0, one.rests_until - now))
        now = max(now, one.rests_until) + 0.001
    assert rests[0] == 0  # one may be chance
    assert rests[1] > 0
    assert rests[1:] == sorted(rests[1:])
    assert rests[-1] == LONGEST_FULL


def test_one_that_is_full_now_and_then_does_not_rest() -> None:
    one = Endpoint("a", 64)
    for later in range(20):
        one.learn("full", 2.0 * later)
        one.learn("ok", 2.0 * later + 1)
    assert one.rests_until == 0


def test_nobody_waits_for_long_for_one_that_is_always_full() -> None:
    one = Endpoint("a", 64)
    one.learn("full", 0.0)
    one.learn("full", FULL_SECONDS + 1)
    assert one.rests_until == 0
    one.learn("full", FULL_SECONDS + 2, rest=7.0)  # but it is believed
    assert one.rests_until == FULL_SECONDS + 9


def spoilt(limiter: Limiter, endpoint: Endpoint, times: int) -> list[bool]:
    return [limiter.judge(endpoint, False) for _ in range(times)]


def test_whose_answers_are_of_no_use_rests_where_anothers_are() -> None:
    limiter = Limiter.of(["a", "b"], 8)
    limiter.clock = lambda: 10.0
    bad, _ = limiter.endpoints
    assert all(spoilt(limiter, bad, SPOILT - 1))
    assert bad.has_room(10.0)
    assert spoilt(limiter, bad, 5)[-1]
    assert 10.0 < bad.rests_until < 11.0  # what was in flight with it counts once
    limiter.clock = lambda: bad.rests_until
    before = bad.rests_until
    spoilt(limiter, bad, 1)
    assert bad.rests_until - before > before - 10.0  # longer each time
    limiter.judge(bad, True)
    assert bad.spoilt == 0


def test_where_nobodys_answers_are_of_use_nobody_rests() -> None:
    """It is the questions, or the model."""
    limiter = Limiter.of(["a", "b"], 8)
    one, other = limiter.endpoints
    limiter.judge(other, False)
    assert not any(spoilt(limiter, one, 20))
    assert not any(e.rests_until for e in limiter.endpoints)
    alone = Limiter.of(["a"], 8)
    assert not any(spoilt(alone, alone.endpoints[0], 20))
    assert not alone.endpoints[0].rests_until


def test_who_has_failed_a_job_is_not_asked_what_another_has_spoilt() -> None:
    limiter = Limiter.of(["a", "b"], 8)
    assert limiter.judge(limiter.endpoints[0], False, avoid={"a"})
    limiter.endpoints[0].spoilt = 0
    assert not limiter.judge(limiter.endpoints[1], False, avoid={"a"})
