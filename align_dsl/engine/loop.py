"""One event loop in one thread, for all requests of the process.

Algorithms are plain code that waits for answers. In a thread of its own each such wait would cost
two turns of Python's lock, more than everything else that is done for a request. So plain code may
also run in the loop itself, as a `Strand`: where it waits, it steps aside, and others go on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from align_dsl.engine.fork import outlives_forks

T = TypeVar("T")


class Strand(greenlet):
    """Plain code that runs in the loop and steps aside where it waits."""


class Loop:
    """One event loop in one thread for all requests of the process."""

    _lock = threading.Lock()
    _shared: Loop | None = None

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._waiting: deque[tuple[Coroutine[Any, Any, Any], _Outcome]] = deque()
        self._woken = False
        threading.Thread(target=self.loop.run_forever, name="wire", daemon=True).start()

    @classmethod
    def shared(cls) -> Loop:
        with cls._lock:
            if cls._shared is None:
                cls._shared = Loop()
            return cls._shared

    @classmethod
    def begin_anew(cls) -> None:
        """In the child of a fork, where nobody runs the loop."""
        cls._lock, cls._shared = threading.Lock(), None

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the loop and wait for it, in a thread or as a strand.

        Threads that come together wake the loop once.
        """
        here = getcurrent()
        if isinstance(here, Strand) and here.parent is not None:
            return here.parent.switch(work)
        outcome = _Outcome()
        self._waiting.append((work, outcome))
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._begin)
        try:
            outcome.done.acquire()
        except BaseException:  # Ctrl-C in a thread that waits
            self.loop.call_soon_threadsafe(outcome.cancel)
            raise
        return outcome.take()

    def _begin(self) -> None:
        self._woken = False  # first: who comes while we look either is seen or wakes us again
        while self._waiting:
            work, outcome = self._waiting.popleft()
            outcome.task = self.loop.create_task(work)
            outcome.task.add_done_callback(outcome.finish)


outlives_forks(Loop)


async def as_strand(work: Callable[[], T]) -> T:
    """Run plain code in the loop, and in its stead await what it waits for."""
    strand = Strand(work)
    wanted = strand.switch()
    while not strand.dead:
        try:
            come = await wanted
        except BaseException as error:
            wanted = strand.throw(error)
        else:
            wanted = strand.switch(come)
    result: T = wanted
    return result


async def as_thread(work: Callable[[], T]) -> T:
    """Run code that may block in a thread of its own, which nobody has to wait for at the end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            come = work()
        except BaseException as error:
            loop.call_soon_threadsafe(_settle, future, None, error)
        else:
            loop.call_soon_threadsafe(_settle, future, come, None)

    threading.Thread(target=run, name="job", daemon=True).start()
    return await future


def _settle(future: asyncio.Future[Any], come: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(come)


def pause(seconds: float) -> None:
    """Wait, letting others go on."""
    if isinstance(getcurrent(), Strand):
        Loop.shared().do(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


class _Outcome:
    """What a thread waits for. A bare lock: a Future of the library costs ten times as much."""

    __slots__ = ("done", "task")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.task: asyncio.Task[Any] | None = None

    def finish(self, task: asyncio.Task[Any]) -> None:
        self.done.release()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def take(self) -> Any:
        assert self.task is not None
        return self.task.result()
