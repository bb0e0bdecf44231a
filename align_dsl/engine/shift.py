"""The jobs of one model, handed out to a crew as it needs them, and claimed no sooner."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from align_dsl.engine.crew import WARM_FROM, Crew, Heard, early
from align_dsl.engine.jobs import Jobs

AHEAD = 4  # rounds of work that are handed out at once: the next ones must lie there in time


class Shift:
    def __init__(self, jobs: Jobs, keys: Sequence[str], heard: Heard) -> None:
        self.model = jobs.plan.jobs[keys[0]].model
        at_once = jobs.backends[self.model.name].concurrency
        jobs.spending.listen(self.model, at_once)
        self.crew = Crew(jobs, min(len(keys), at_once), heard)
        # neighbours share the beginning of their prompts, which servers keep
        self.keys = deque(sorted(keys, key=jobs.prefix))
        if self.crew.workers >= WARM_FROM:
            # twice the workers: the first of a group is answered before its group's turn comes
            self.keys = deque(early(self.keys, jobs.warms, 2 * self.crew.workers))

    def hand_out(self, claimed: Callable[[list[str]], list[str]], came: int) -> None:
        """See that the crew has enough to do until it is looked after again, by how many answers
        have come since it was last."""
        ahead = AHEAD * max(self.crew.workers, came)
        while self.keys and len(self.crew.row) < ahead / 2:
            some = [self.keys.popleft() for _ in range(min(ahead, len(self.keys)))]
            self.crew.give(claimed(some))
        if not self.keys:
            self.crew.no_more()
