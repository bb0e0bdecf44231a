"""Whether a model is still heard: requests go out, and does anything come back?

One that says that it is busy, or that something is wrong, is there. One that says nothing at all,
to many requests in a row, has gone; nobody waits for it until the last job has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from align_dsl.engine.adapter import Trail

SILENCE = 24  # requests in a row without any reply, below which it may be chance
PATIENCE = 3.0  # times `timeout:` without any reply, after which those are enough
LONG = 6.0  # times `timeout:`, after which fewer are: one that hangs is soon sent few at once


@dataclass(slots=True)
class Hearing:
    """Of one model. Lives where its jobs begin and end, so it needs no lock."""

    at_once: int  # requests that it may get at once: all of them may be lost with a server
    timeout: float
    clock: Callable[[], float] = time.monotonic
    heard_at: float = 0.0  # when it was last known to reply
    _live: dict[int, Trail] = field(default_factory=dict)
    _ended: int = 0  # requests without reply, of jobs that have ended since
    _lost: int = 0  # those jobs
    _replies: int = 0  # of jobs that have ended
    _known: int = 0  # of all jobs, when they were last counted
    _before: int | None = 0  # requests of the last sum that came before a reply
    _last: int = 0

    def __post_init__(self) -> None:
        self.heard_at = self.clock()

    def begin(self, trail: Trail) -> None:
        if not self._live and not self.unheard():
            self.heard_at = self.clock()  # nobody has asked meanwhile
        self._live[id(trail)] = trail

    def end(self, trail: Trail) -> None:
        del self._live[id(trail)]
        self._replies += trail.replies
        if trail.unheard:
            if self._before is None:
                self.unheard()  # of the others: what is silent since the reply is this job
            self._ended += trail.unheard
            self._lost += 1
        elif trail.calls:
            self._reply()

    def unheard(self) -> int:
        """Requests in a row to which nobody replied, those of jobs in flight included."""
        total = self._ended + sum(trail.unheard for trail in self._live.values())
        if self._before is not None and total < self._last:  # a job in flight has heard something
            self._reply()
            total = sum(trail.unheard for trail in self._live.values())
        if self._before is None:
            self._before = total
        self._last = total
        return total - self._before

    def _reply(self) -> None:
        self.heard_at, self._ended, self._lost, self._before = self.clock(), 0, 0, None

    def is_gone(self) -> bool:
        """Whether nobody is to be expected to reply. Where many are asked at once, a busy server
        may let all of them wait too long; fewer are then sent, and it has some rounds to answer. A
        single job in vain may be the job's fault, however long it takes."""
        unheard = self.unheard()
        replies = self._replies + sum(trail.replies for trail in self._live.values())
        if replies > self._known:  # some may be of jobs that are not answered yet
            self._known, self.heard_at = replies, self.clock()
        quiet = self.clock() - self.heard_at
        if unheard < SILENCE:
            lost = self._lost + sum(trail.unheard > 0 for trail in self._live.values())
            return lost > 1 and quiet >= LONG * self.timeout
        return unheard >= 2 * self.at_once or quiet >= PATIENCE * self.timeout
