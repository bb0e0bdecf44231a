"""How much work something takes, counted rather than timed: the same under any load.

What is counted is lines of Python, each as often as it is run; so loops count, comprehensions
too. What C code does inside of one call is not seen.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest


@dataclass(slots=True)
class Work:
    """What has been done so far."""

    lines: int = 0


@contextlib.contextmanager
def counted(most: float = float("inf")) -> Iterator[Work]:
    """What is called inside is counted, in this thread; too much of it ends the test at once."""
    work = Work()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        work.lines += event == "line"
        if work.lines > most:
            pytest.fail(f"more than {most:,} lines of Python were run")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield work
    finally:
        sys.settrace(before)
