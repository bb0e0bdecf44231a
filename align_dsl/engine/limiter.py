"""How many requests a server gets at once, and which of several servers gets the next one.

A server that is known to queue what it has no room for gets all that it may have from the start.
The limit of another doubles with each full round of good answers until it first complains, and from
then on grows by one. It halves when a server says that it is busy (429, 503) or stays silent. One
that fails rests for a while, longer each time; requests go to the awake endpoint with the fewest
in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from align_dsl.engine.quirks import PLAIN, Dialect

FIRST = 8  # requests at once before anything is known of a server
LONGEST_REST = 30.0  # seconds
ONE_BURST = 1.0  # seconds in which several complaints count as one

How = Literal["ok", "busy", "down", "unsaid"]


@dataclass(slots=True)
class Endpoint:
    """One server, and what has been learnt of it."""

    url: str
    ceiling: int
    limit: float = 0.0
    in_flight: int = 0
    rests_until: float = 0.0
    failed_in_a_row: int = 0
    shrunk_at: float = float("-inf")
    dialect: Dialect = PLAIN
    window: int | None = None  # the longest context its model has, where it tells
    loading_since: float | None = None  # since when it has said so
    context: int = 0  # the longest that was asked for: Ollama loads a model anew for another

    def __post_init__(self) -> None:
        self.limit = float(min(FIRST, self.ceiling))

    def is_a(self, dialect: Dialect) -> None:
        """Learn what kind of server it is."""
        self.dialect = dialect
        if dialect.batches and not self.has_complained:
            self.limit = float(self.ceiling)

    @property
    def has_complained(self) -> bool:
        return self.shrunk_at > float("-inf")

    def has_room(self, now: float) -> bool:
        return self.in_flight < int(self.limit) and now >= self.rests_until

    def learn(self, how: How, now: float, rest: float | None = None) -> None:
        if how == "ok":
            self.failed_in_a_row = 0
            # by one a round from the first, 128 at once would come after 8,000 answers
            more = 1 / self.limit if self.has_complained else 1.0
            self.limit = min(float(self.ceiling), self.limit + more)
        if how in ("ok", "unsaid"):
            return
        if now - self.shrunk_at > ONE_BURST:
            self.shrunk_at = now
            self.limit = max(1.0, self.limit / 2)
            self.failed_in_a_row += 1
        if rest is not None or how == "down":
            wait = rest if rest is not None else 0.25 * 2.0**self.failed_in_a_row
            self.rests_until = max(self.rests_until, now + min(LONGEST_REST, wait))


@dataclass(slots=True)
class Limiter:
    """The endpoints of one model. Lives on one event loop, so it needs no lock."""

    endpoints: Sequence[Endpoint]
    clock: Callable[[], float] = time.monotonic
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    @classmethod
    def of(cls, urls: Sequence[str], ceiling: int) -> Limiter:
        share = -(-ceiling // len(urls))
        return cls([Endpoint(url, share) for url in urls])

    async def take(self, avoid: str = "") -> Endpoint:
        """Wait for a place, and take it. A retry avoids the endpoint that has just failed it,
        for as long as another is awake."""
        while True:
            now = self.clock()
            others = [e for e in self.endpoints if e.url != avoid and now >= e.rests_until]
            free = [e for e in others or self.endpoints if e.has_room(now)]
            if free:
                best = min(free, key=lambda e: e.in_flight)
                best.in_flight += 1
                return best
            resting = [e.rests_until - now for e in self.endpoints if e.rests_until > now]
            await self._room(min(resting) if resting else None)

    def give_back(self, endpoint: Endpoint, how: How, rest: float | None = None) -> None:
        if how == "down" and len(self.endpoints) == 1:
            how = "busy"  # nobody else could be asked meanwhile; each job has its own patience
        endpoint.in_flight -= 1
        endpoint.learn(how, self.clock(), rest)
        self._wake(2)  # the place given back, and the one that the limit may have grown by

    async def _room(self, seconds: float | None) -> None:
        """Wait until there may be room."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        try:
            async with asyncio.timeout(seconds):
                await woken
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if woken.done():
                self._wake(1)  # it was meant for us
            raise

    def _wake(self, n: int) -> None:
        while n and self._waiting:
            woken = self._waiting.popleft()
            if not woken.done():
                woken.set_result(None)
                n -= 1
