"""The process that has claimed a trial, and whether it still lives."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

STALE = 120.0  # seconds without a sign of life after which a worker elsewhere counts as dead
LONELY = 10.0  # seconds after which a claim without a name counts as that of a dead worker


def me() -> dict[str, Any]:
    """This process, so that others can tell whether it lives."""
    pid = os.getpid()
    return {"host": _host(), "pid": pid, "since": _started(pid), "seen": time.time()}


def _host() -> str:
    """Where a process number means what it means here: this machine, boot and container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        boot += f" {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}".strip()


def _started(pid: int) -> str:
    """When a process began, as the system counts: a number is used again for another process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _answers(pid)
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state == "Z" else rest[18]


def _answers(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def is_stale(trial: FrozenTrial, local: bool) -> bool:
    worker: dict[str, Any] | None = trial.user_attrs.get("worker")
    if worker is None:  # it died between its claim and its name
        began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return bool(time.time() - began > LONELY)
    here = _host()
    if worker["host"] == here and (local or " " in here):  # a bare name may be that of several
        since: str = worker["since"]
        return bool(_started(worker["pid"]) != since)
    if local:  # a journal of another boot, or another machine: nobody there can be at work here
        return True
    return bool(time.time() - worker["seen"] > STALE)
