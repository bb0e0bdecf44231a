"""Jobs in an order, so many at a time, in the shared event loop; answers are told as they come.

Each job is plain code. Where it only waits for our own wire, it runs in the loop as a strand; where
it may block (litellm, a model in this process, somebody else's algorithm), in a thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
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
    def warms(self, key: str) -> Prefix | None: ...
    def may_ask(self, in_flight: int) -> bool: ...
    def spent(self, answer: Answer) -> None: ...


class Line:
    """`heard` is told each answer, what went wrong for good, and None for each worker that ends."""

    def __init__(self, keys: Iterator[str], jobs: Jobs, workers: int, heard: Heard) -> None:
        self.jobs, self.workers, self.heard = jobs, workers, heard
        self.warms = workers >= WARM_FROM
        # twice the workers: then the first of a group has its answer before the group's turn comes
        self.keys = early(keys, jobs.warms, 2 * workers) if self.warms else keys
        self.in_flight = 0
        self.warm: dict[Prefix, asyncio.Event] = {}
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
        """The next key. The first of a group is asked before the others, so that the server has
        read what the group has in common before it is asked for many at once."""
        while self.jobs.may_ask(self.in_flight) and (key := next(self.keys, None)) is not None:
            prefix = self.jobs.warms(key) if self.warms else None
            if prefix is None:
                return key
            if (warm := self.warm.get(prefix)) is not None:
                await warm.wait()
                return key if self.jobs.may_ask(self.in_flight) else None
            warm = self.warm[prefix] = asyncio.Event()
            try:
                await self._ask(key)
            finally:
                warm.set()
        return None

    async def _ask(self, key: str) -> None:
        self.in_flight += 1
        try:
            way = as_thread if self.jobs.blocks(key) else as_strand
            answer = await way(lambda: self.jobs.ask(key))
        finally:
            self.in_flight -= 1
        self.jobs.spent(answer)
        self.heard(answer)


def early(keys: Iterator[str], prefix: Callable[[str], Prefix | None], ahead: int) -> Iterator[str]:
    """The same keys, but the first of each group so many places earlier. Were it asked when its
    group's turn has come, all others would wait for it, and the server for them.

    >>> group = lambda key: ("", "", key[0])
    >>> list(early(iter(["a1", "a2", "a3", "a4", "b1", "b2"]), group, 2))
    ['a1', 'a2', 'b1', 'a3', 'a4', 'b2']
    """
    row: deque[str] = deque()
    last: Prefix | None = None
    for key in keys:
        mine = prefix(key)
        if row and mine is not None and mine != last:
            yield key
        else:
            row.append(key)
            if len(row) > ahead:
                yield row.popleft()
        last = mine
    yield from row
