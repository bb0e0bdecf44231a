"""Python's search for garbage, kept from what is there for good."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0  # how many are in `left_alone`
_froze = False  # who runs us may have done it for good


@contextmanager
def left_alone() -> Iterator[None]:
    """Do not look through what is there now for garbage.

    DSPy, litellm and Optuna are a million objects; to look through them again and again while
    answers come, costs as much as a fifth of all that is done for an answer.
    """
    global _inside, _froze
    with _lock:
        _inside += 1
        if _inside == 1 and not gc.get_freeze_count():  # to count what is frozen takes long
            gc.freeze()
            _froze = True
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _froze:
                gc.unfreeze()
                _froze = False
