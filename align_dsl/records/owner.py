"""Who holds a claim on jobs: a process of some machine, and whether it is still there."""

from __future__ import annotations

import os
import platform
import uuid


def owner() -> str:
    """A name for one execution in this process."""
    return f"{platform.node()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


def is_dead(name: str) -> bool:
    """Whether an owner was a process of this machine that is no more."""
    node, _, rest = name.partition("/")
    pid = rest.partition("/")[0]
    if node != platform.node() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's, but alive
        return False
    return False
