"""One event loop in one thread, for all requests of the process."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine
from typing import Any


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

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the loop and wait for it. Threads that come together wake it once."""
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
