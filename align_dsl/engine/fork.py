"""What the child of a fork leaves to its parent, whose memory it has, but none of its threads.

So a lock may be held by nobody, and what was in flight never comes; and open connections are the
parent's: an answer that both read is of use to neither.
"""

from __future__ import annotations

import ctypes
import os
from typing import Protocol
from weakref import WeakValueDictionary


class Live(Protocol):
    """What has threads, locks or connections."""

    def begin_anew(self) -> None:
        """In the child: forget what was going on. Nothing may be closed or waited for."""


_live: WeakValueDictionary[int, Live] = WeakValueDictionary()  # by id: some cannot be hashed


def outlives_forks(one: Live) -> None:
    """From now on it is told of forks, for as long as it lives."""
    _live[id(one)] = one


def _in_child() -> None:
    known = list(_live.values())
    left = [dict(vars(one)) for one in known]
    # never to be collected: the loop's selector is shared with the parent, so whatever closed a
    # connection here would make the parent deaf to it
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(left))
    for one in known:
        one.begin_anew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_child)
