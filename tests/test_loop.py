"""Plain code in the event loop: where it waits, others go on; what goes wrong, it hears of."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from align_dsl.engine.loop import Loop, as_strand, as_thread, pause


def together(*work: Callable[[], Any]) -> list[Any]:
    """All of it at once, as strands of the shared loop."""

    async def all_of() -> list[Any]:
        return await asyncio.gather(*(as_strand(w) for w in work), return_exceptions=True)

    return list(Loop.shared().do(all_of()))


def wait(seconds: float) -> str:
    return str(Loop.shared().do(asyncio.sleep(seconds, "waited")))


def test_strands_run_in_the_loop_and_wait_side_by_side() -> None:
    seen: list[str] = []
    both = threading.Event()

    def one(name: str) -> str:
        assert threading.current_thread().name == "wire"
        seen.append(f"{name} begins")
        if len(seen) == 2:
            both.set()
        while not both.is_set():  # would never end if a strand that waits held the others up
            pause(0.001)
        seen.append(f"{name} ends")
        return wait(0)

    assert together(lambda: one("a"), lambda: one("b")) == ["waited", "waited"]
    assert {*seen[:2]} == {"a begins", "b begins"}


def test_what_goes_wrong_while_it_waits_is_raised_where_it_waits() -> None:
    async def wrong() -> None:
        await asyncio.sleep(0)
        raise LookupError("over the wire")

    def careful() -> str:
        try:
            Loop.shared().do(wrong())
        except LookupError as error:
            return f"heard: {error}; {wait(0)}"
        return "nothing happened"

    def careless() -> None:
        Loop.shared().do(wrong())

    good, bad = together(careful, careless)
    assert good == "heard: over the wire; waited"
    assert isinstance(bad, LookupError)


def test_what_is_given_up_ends_where_it_waits() -> None:
    ended: list[str] = []

    def endless() -> None:
        try:
            wait(3600)
        finally:
            ended.append("cleaned up")

    async def begin_and_give_up() -> None:
        task = asyncio.ensure_future(as_strand(endless))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    Loop.shared().do(begin_and_give_up())
    assert ended == ["cleaned up"]


def test_contexts_of_strands_are_their_own() -> None:
    from contextvars import ContextVar

    name: ContextVar[str] = ContextVar("name", default="nobody")

    def one(mine: str) -> str:
        name.set(mine)
        wait(0.001)
        return name.get()

    assert together(lambda: one("a"), lambda: one("b")) == ["a", "b"]
    assert name.get() == "nobody"


def test_code_that_blocks_has_a_thread_and_holds_nobody_up() -> None:
    release = threading.Event()

    async def both() -> tuple[bool, str]:
        blocked = asyncio.ensure_future(as_thread(lambda: release.wait(20)))
        quick = await as_strand(lambda: wait(0))
        release.set()
        return await blocked, quick

    assert Loop.shared().do(both()) == (True, "waited")


def test_a_pause_in_a_thread_is_a_sleep() -> None:
    began = time.monotonic()
    pause(0.02)
    assert time.monotonic() - began >= 0.02
