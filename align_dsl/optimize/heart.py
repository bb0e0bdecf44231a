"""Signs of life of whoever is at a trial, for machines that cannot see its process."""

from __future__ import annotations

import threading
from typing import Any

from align_dsl.optimize.study import Study

HEARTBEAT = 30.0  # seconds between two of them


class Heart:
    """Beats while a trial is at work."""

    def __init__(self, study: Study, trial: Any) -> None:
        self.study, self.trial, self.over = study, trial, threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if isinstance(self.study.where, str):
            self.thread = threading.Thread(target=self._beat, daemon=True)
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.thread is not None:
            self.thread.join()

    def _beat(self) -> None:
        while not self.over.wait(HEARTBEAT):
            self.study.alive(self.trial)
