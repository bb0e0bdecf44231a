"""So many workers in the shared event loop; they are given jobs, and tell the answers as they come.

Each job is plain code. Where it only waits for our own wire, it runs in the loop as a strand; where
it may block (litellm, a model in this process, somebody else's algorithm), in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from align_dsl.engine.adapter import Trail, Unfinished
from align_dsl.engine.loop import Loop, as_strand, as_thread
from align_dsl.records.record import Answer

WARM_FROM = 4  # at once, from which on a group is begun with a single question
WARM_SECONDS = 3.0  # how long the others of its group wait for that one, which may be lost
LOOK_SECONDS = 0.2  # how often jobs are looked after that are in flight for long

Prefix = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Came:
    """An answer, and how it came."""

    answer: Answer
    is_silence: bool  # nobody replied to what was sent last, or will any more


Heard = Callable[[Came | BaseException | None], None]


class Work(Protocol):
    """What a crew wants to know of its jobs."""

    def begin(self, key: str) -> Trail: ...
    def ask(self, key: str, trail: Trail) -> Answer: ...
    def end(self, key: str, trail: Trail) -> None: ...
    def blocks(self, key: str) -> bool: ...
    def warms(self, key: str) -> Prefix | None: ...
    def may_ask(self) -> bool: ...
    def look(self) -> None: ...
    def is_over(self) -> bool: ...


class Crew:
    """`heard` is told each answer, what went wrong for good, and None for each worker that ends.

    Whoever waits for a disk or a lock gives the jobs, in a thread of his own: in the loop, nothing
    would be read from servers meanwhile, and requests would run out of time.
    """

    def __init__(self, jobs: Work, workers: int, heard: Heard) -> None:
        self.jobs, self.workers, self.heard = jobs, workers, heard
        self.row: deque[str] = deque()
        self.is_all = False  # nothing more will be given
        self.more = asyncio.Event()
        self.warm: dict[Prefix, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.asking: dict[asyncio.Task[None], Trail] = {}

    # --- from any thread ---------------------------------------------------------------------

    def begin(self) -> None:
        """Let the workers go."""
        Loop.shared().loop.call_soon_threadsafe(self._begin)

    def give(self, keys: Iterable[str]) -> None:
        self.row.extend(keys)
        Loop.shared().loop.call_soon_threadsafe(self.more.set)

    def no_more(self) -> None:
        """That was all: workers end where the row does."""
        if not self.is_all:
            self.is_all = True
            Loop.shared().loop.call_soon_threadsafe(self.more.set)

    def let_go(self) -> None:
        """Give up what is in flight: the answers would come too late."""
        Loop.shared().loop.call_soon_threadsafe(self._let_go)

    # --- in the loop -------------------------------------------------------------------------

    def _begin(self) -> None:
        self.tasks = [asyncio.ensure_future(self._work()) for _ in range(self.workers)]
        self.at_work = self.workers
        for task in self.tasks:
            task.add_done_callback(self._has_ended)  # also of one that never began
        self.watch = asyncio.ensure_future(self._look())

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self.at_work -= 1
        if not self.at_work:
            self.watch.cancel()
        self.heard(None)

    def _let_go(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.jobs.look()
            if self.jobs.is_over():
                for task, trail in self.asking.items():
                    if trail.waits:  # what is in flight may come
                        task.cancel()

    async def _work(self) -> None:
        try:
            while (key := await self._next()) is not None:
                await self._ask(key)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.heard(error)

    async def _next(self) -> str | None:
        """The next key. The first of a group is asked before the others, so that the server has
        read what the group has in common before it is asked for many at once."""
        while (key := await self._given()) is not None and self.jobs.may_ask():
            prefix = self.jobs.warms(key) if self.workers >= WARM_FROM else None
            if prefix is None:
                return key
            if (warm := self.warm.get(prefix)) is not None:
                if not warm.is_set():  # to wait with a limit costs a turn of the loop
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(warm.wait(), WARM_SECONDS)
                    warm.set()  # nobody waits for it twice
                return key if self.jobs.may_ask() else None
            warm = self.warm[prefix] = asyncio.Event()
            try:
                await self._ask(key)
            finally:
                warm.set()
        return None

    async def _given(self) -> str | None:
        while not self.row:
            if self.is_all:
                return None
            self.more.clear()
            await self.more.wait()
        return self.row.popleft()

    async def _ask(self, key: str) -> None:
        trail, task = self.jobs.begin(key), asyncio.current_task()
        assert task is not None
        self.asking[task] = trail
        try:
            way = as_thread if self.jobs.blocks(key) else as_strand
            answer = await way(lambda: self.jobs.ask(key, trail))
        except Unfinished:
            return
        finally:
            del self.asking[task]
            self.jobs.end(key, trail)
        is_silence = answer.failure is not None and (trail.unheard > 0 or trail.gone)
        self.heard(Came(answer, is_silence))


def early(keys: Iterable[str], prefix: Callable[[str], Prefix | None], ahead: int) -> Iterator[str]:
    """The same keys, but the first of each group so many places earlier. Were it asked when its
    group's turn has come, all others would wait for it, and the server for them.

    >>> group = lambda key: ("", "", key[0])
    >>> list(early(["a1", "a2", "a3", "a4", "b1", "b2"], group, 2))
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
