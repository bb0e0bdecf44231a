"""Jobs in an order, so many at a time, in the shared event loop; answers are told as they come.

Each job is plain code. Where it only waits for our own wire, it runs in the loop as a strand; where
it may block (litellm, a model in this process, somebody else's algorithm), in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from align_dsl.engine.loop import Loop, as_strand, as_thread
from align_dsl.records.record import Answer

WARM_FROM = 4  # at once, from which on a group is begun with a single question

Prefix = tuple[str, str, str]
Heard = Callable[[Answer | BaseException | None], None]


class Jobs(Protocol):
    """What a line wants to know of the jobs that stand in it."""

    def ask(self, key: str) -> Answer: ...
    def blocks(self, key: str) -> bool: ...
    def prefix(self, key: str) -> Prefix: ...
    def may_ask(self, in_flight: int) -> bool: ...
    def spent(self, answer: Answer) -> None: ...


class Line:
    """`heard` is told each answer, what went wrong for good, and None for each worker that ends."""

    def __init__(self, keys: Iterator[str], jobs: Jobs, workers: int, heard: Heard) -> None:
        self.keys, self.jobs, self.workers, self.heard = keys, jobs, workers, heard
        self.in_flight = 0
        self.prefix: Prefix | None = None
        self.warm = asyncio.Event()
        self.warm.set()
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Let the workers go; callable from any thread."""
        Loop.shared().loop.call_soon_threadsafe(self._begin)

    def let_go(self) -> None:
        """Give up what is in flight: the answers would come too late."""
        Loop.shared().loop.call_soon_threadsafe(self._let_go)

    def _begin(self) -> None:
        self.tasks = [asyncio.ensure_future(self._work()) for _ in range(self.workers)]

    def _let_go(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def _work(self) -> None:
        try:
            while (key := await self._next()) is not None:
                await self._ask(key)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.heard(error)
        finally:
            self.heard(None)

    async def _next(self) -> str | None:
        """The next key. The first of a group is asked while the others wait here, so that the
        server has read what the group has in common before it is asked for many at once."""
        while True:
            while not self.warm.is_set():
                await self.warm.wait()
            if not self.jobs.may_ask(self.in_flight):
                return None
            key = next(self.keys, None)
            if key is None:
                return None
            prefix = self.jobs.prefix(key)
            if prefix == self.prefix or self.workers < WARM_FROM:
                return key
            self.prefix = prefix
            self.warm.clear()
            try:
                await self._ask(key)
            finally:
                self.warm.set()

    async def _ask(self, key: str) -> None:
        self.in_flight += 1
        try:
            way = as_thread if self.jobs.blocks(key) else as_strand
            answer = await way(lambda: self.jobs.ask(key))
        finally:
            self.in_flight -= 1
        self.jobs.spent(answer)
        self.heard(answer)
