"""A report -> lines of at most 80 columns, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from align_dsl.errors import visible
from align_dsl.servers.report import Finding, Report

WIDTH = 80
INDENT = 26  # level, probe, then what was found
COLOURS = {"ok": "green", "warning": "yellow", "fatal": "red", "unknown": "cyan"}
Paint = Callable[[str, str], str]


def plain(text: str, colour: str) -> str:
    return text


def title(name: str, address: str, endpoint: str) -> str:
    """The model as it was named, what stands behind the name, and where."""
    behind = f" ({address})" if address and address != name else ""
    return visible(name + behind + (f" at {endpoint}" if endpoint else ""))


def lines(finding: Finding, paint: Paint = plain) -> list[str]:
    level = paint(f"{finding.level:<8}", COLOURS[finding.level])
    first, *rest = _wrapped(finding.said, WIDTH - INDENT)
    if finding.advice:
        start, *more = _wrapped(finding.advice, WIDTH - INDENT - 2)
        rest += [f"= {start}", *(f"  {line}" for line in more)]
    return [f"{level} {finding.probe:<16} {first}", *(" " * INDENT + line for line in rest)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(visible(text), width, break_on_hyphens=False) or [""]


def summary(report: Report) -> str:
    if not report.usable:
        return "unusable for programs"
    warnings = sum(f.level == "warning" for f in report.findings)
    if not warnings:
        return "usable"
    return f"usable, with {warnings} warning{'s' if warnings > 1 else ''}"
