"""A way to end an execution early, from wherever it is seen that it must end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stop:
    """Set from outside to end a run early; what is in flight is still kept."""

    event: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)  # not even that: at once
    reason: str = ""

    def now(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.event.set()

    @property
    def asked(self) -> bool:
        return self.event.is_set()
