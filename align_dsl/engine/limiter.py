"""How many requests a server gets at once, and which of several servers gets the next one.

The limit of an endpoint grows by one for each full round of good answers and halves when it says
that it is busy (429, 503) or stays silent. An endpoint that fails rests for a while, longer each
time; requests go to the awake endpoint with the fewest in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

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

    def __post_init__(self) -> None:
        self.limit = float(min(FIRST, self.ceiling))

    def has_room(self, now: float) -> bool:
        return self.in_flight < int(self.limit) and now >= self.rests_until

    def learn(self, how: How, now: float, rest: float | None = None) -> None:
        if how == "ok":
            self.failed_in_a_row = 0
            self.limit = min(float(self.ceiling), self.limit + 1 / self.limit)
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
    """The endpoints of one model. Lives on one event loop."""

    endpoints: Sequence[Endpoint]
    clock: Callable[[], float] = time.monotonic
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    def of(cls, urls: Sequence[str], ceiling: int) -> Limiter:
        share = -(-ceiling // len(urls))
        return cls([Endpoint(url, share) for url in urls])

    async def take(self, avoid: str = "") -> Endpoint:
        """Wait for a place, and take it. A retry avoids the endpoint that has just failed it."""
        async with self._changed:
            while True:
                now = self.clock()
                free = [e for e in self.endpoints if e.has_room(now)]
                if free:
                    best = min(free, key=lambda e: (e.url == avoid, e.in_flight))
                    best.in_flight += 1
                    return best
                resting = [e.rests_until - now for e in self.endpoints if e.rests_until > now]
                try:
                    async with asyncio.timeout(min(resting) if resting else None):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def give_back(self, endpoint: Endpoint, how: How, rest: float | None = None) -> None:
        if how == "down" and len(self.endpoints) == 1:
            how = "busy"  # nobody else could be asked meanwhile; each job has its own patience
        async with self._changed:
            endpoint.in_flight -= 1
            endpoint.learn(how, self.clock(), rest)
            self._changed.notify_all()
