"""How many requests a server gets at once, and which of several servers gets the next one.

A server that is known to queue what it has no room for gets all that it may have from the start.
The limit of another doubles with each full round of good answers until it first complains, and from
then on grows by one. It halves when a server says that it is busy (429, 503) or stays silent. One
that fails rests for a while, longer each time; requests go to the awake endpoint with the fewest
in flight. One that is loading its model rests, and is thought no less of afterwards.
One that is full rests as well, even where it is the only one: else all jobs would spend their tries
on it. And one whose answers cannot be used rests where those of another can.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from align_dsl.engine.quirks import PLAIN, Dialect

FIRST = 8  # requests at once before anything is known of a server
SHORTEST_REST = 0.25  # seconds; doubles with each failure in a row
MOST_DOUBLINGS = 7  # of it: half a minute
ONE_BURST = 1.0  # seconds in which several complaints count as one
LONGEST_FULL = 4.0  # seconds that one rests which says that it is full: that may be over soon
FULL_SECONDS = 30.0  # after so long, it is no busy spell, and nobody is to wait for ever
SPOILT = 3  # answers in a row that cannot be used, below which it may be the questions

How = Literal["ok", "busy", "full", "down", "loading", "unsaid"]


class Closed(Exception):
    """What waits for a place when there will be none any more."""


@dataclass(slots=True)
class Endpoint:
    """One server, and what has been learnt of it."""

    url: str
    ceiling: int
    limit: float = 0.0
    in_flight: int = 0
    rests_until: float = 0.0
    failed_in_a_row: int = 0
    full_since: float | None = None  # since when it has said so and nothing else
    spoilt: int = 0  # answers in a row that could not be used
    shrunk_at: float = float("-inf")
    dialect: Dialect = PLAIN
    looked: bool = False  # whether it has said what it is, or been taken at its word
    looks: int = 0  # how often it was asked for that
    looking: asyncio.Task[None] | None = None  # who asks it just now
    window: int | None = None  # the longest context its model has, where it tells
    loading_since: float | None = None  # since when it has said so
    gone: bool = False  # nobody was there the last time, or somebody who turns all away
    context: int = 0  # the longest that was asked for: Ollama loads a model anew for another
    refuses: bool | None = None  # what does not fit into that, rather than cut it, if known

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
        # one question is enough to learn whether it has loaded its model
        most = int(self.limit) if self.loading_since is None else 1
        return self.in_flight < most and now >= self.rests_until

    def learn(self, how: How, now: float, rest: float | None = None) -> None:
        """`rest`: for how long it has asked to be left alone."""
        if how == "ok":
            self.failed_in_a_row, self.full_since = 0, None
            # by one a round from the first, 128 at once would come after 8,000 answers
            more = 1 / self.limit if self.has_complained else 1.0
            self.limit = min(float(self.ceiling), self.limit + more)
        if how in ("ok", "unsaid"):
            return
        if how != "loading" and now - self.shrunk_at > ONE_BURST:
            self.shrunk_at = now
            self.limit = max(1.0, self.limit / 2)
            self.failed_in_a_row += 1
        if how == "down" and rest is None:
            rest = resting(self.failed_in_a_row)
        if how == "full" and rest is None:
            rest = self._full(now)
        if rest is not None:
            self.rests_until = max(self.rests_until, now + rest)

    def _full(self, now: float) -> float | None:
        """How long one rests that is full, and does not say for how long."""
        if self.full_since is None:
            self.full_since = now
            return None  # one in between may be chance
        if now - self.full_since > FULL_SECONDS:
            return None
        return min(LONGEST_FULL, resting(self.failed_in_a_row))


def resting(times: int) -> float:
    """Seconds to rest after so many failures in a row.

    >>> resting(1), resting(2), resting(1000)
    (0.5, 1.0, 32.0)
    """
    return SHORTEST_REST * 2.0 ** min(MOST_DOUBLINGS, times)


@dataclass(slots=True, eq=False)
class _Waiter:
    """Who waits for a place, and where it may be."""

    woken: asyncio.Future[None]
    avoid: Collection[str]
    at: Collection[str]


@dataclass(slots=True)
class Limiter:
    """The endpoints of one model. Lives on one event loop, so it needs no lock."""

    endpoints: Sequence[Endpoint]
    ceiling: int  # requests at once, all endpoints together
    clock: Callable[[], float] = time.monotonic
    closed: bool = False
    _waiting: deque[_Waiter] = field(default_factory=deque)

    @classmethod
    def of(cls, urls: Sequence[str], ceiling: int) -> Limiter:
        share = -(-ceiling // len(urls))
        return cls([Endpoint(url, share) for url in urls], ceiling)

    async def take(self, avoid: Collection[str] = (), at: Collection[str] = ()) -> Endpoint:
        """Wait for a place, and take it; `at` one of these endpoints where any are named. A retry
        avoids those that have failed it, for as long as another is awake. Raises Closed."""
        waited = False
        while True:
            if self.closed:
                raise Closed
            now = self.clock()
            if (best := self._best(avoid, at, now)) is not None:
                best.in_flight += 1
                if waited:
                    self.look_again()  # there may be room for another, too
                return best
            if waited:
                self._wake(now)  # perhaps it is another who can use it
            await self._room(avoid, at, self._rest(now))
            waited = True

    def give_back(self, endpoint: Endpoint, how: How, rest: float | None = None) -> None:
        if how == "down" and len(self.endpoints) == 1:
            how = "busy"  # nobody else could be asked meanwhile; each job has its own patience
        endpoint.in_flight -= 1
        endpoint.learn(how, self.clock(), rest)
        if self._waiting:
            self.look_again()

    def look_again(self) -> None:
        """Wake the first who would find a place, who wakes the next. Where nobody would, because
        endpoints rest, one is woken to wait for the first of them."""
        now = self.clock()
        if not self._wake(now) and self._waiting and self._rest(now) is not None:
            self._call(self._waiting[0])

    def judge(self, endpoint: Endpoint, is_good: bool, avoid: Collection[str] = ()) -> bool:
        """Learn whether an answer could be used. Gives whether another endpoint may do better:
        awake, none of those to avoid, and with nothing to be said against its last answer."""
        now = self.clock()
        if is_good:
            endpoint.spoilt = 0
            return False
        is_awake = now >= endpoint.rests_until  # else it rests for others that came with this one
        endpoint.spoilt += is_awake
        better = [
            e
            for e in self.endpoints
            if e is not endpoint and not e.spoilt and not e.gone and now >= e.rests_until
        ]
        if is_awake and better and endpoint.spoilt >= SPOILT:
            endpoint.rests_until = now + resting(endpoint.spoilt - SPOILT + 1)
            self.look_again()  # somebody must watch for the end of it
        return any(e.url not in avoid for e in better)

    def close(self) -> None:
        """Send away all who wait."""
        self.closed = True
        while self._waiting:
            self._call(self._waiting[0])

    def _best(self, avoid: Collection[str], at: Collection[str], now: float) -> Endpoint | None:
        """The endpoint that gets the next request, if any has room."""
        if len(self.endpoints) == 1:
            return self.endpoints[0] if self.endpoints[0].has_room(now) else None
        if sum(e.in_flight for e in self.endpoints) >= self.ceiling:
            return None
        able = [e for e in self.endpoints if e.url in at] if at else self.endpoints
        others = [e for e in able if now >= e.rests_until and e.url not in avoid]
        free = [e for e in others or able if e.has_room(now)]
        return min(free, key=lambda e: e.in_flight) if free else None

    def _rest(self, now: float) -> float | None:
        """Seconds until the first of those that rest wakes up. `now` is when nobody was found to be
        awake: read anew, the clock might say that none rests, and who waits would never be woken.
        """
        return min(
            (e.rests_until - now for e in self.endpoints if e.rests_until > now), default=None
        )

    async def _room(self, avoid: Collection[str], at: Collection[str], rest: float | None) -> None:
        """Wait until there may be room, but no longer than all rest."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), avoid, at)
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(rest):
                await waiter.woken
        except TimeoutError:
            self._forget(waiter)
        except asyncio.CancelledError:
            self._forget(waiter)
            self.look_again()  # what it was woken for, or has watched for, is now another's
            raise

    def _forget(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _wake(self, now: float) -> bool:
        """Wake the first who would find a place; whether there was one."""
        for waiter in self._waiting:
            if self._best(waiter.avoid, waiter.at, now) is not None:
                self._call(waiter)
                return True
        return False

    def _call(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        if not waiter.woken.done():
            waiter.woken.set_result(None)
