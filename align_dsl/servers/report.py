"""What was found out about a model or this installation: values with documented JSON.

`fatal` means that a program cannot use the model, `warning` that it can, with a drawback;
`unknown` says why something could not be told.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["ok", "warning", "fatal", "unknown"]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Said):
    """One thing found out: by which probe, how bad it is, what it is, and what to do about it."""

    probe: str
    level: Level
    said: str
    advice: str = ""
    figures: dict[str, Any] = Field(default_factory=dict)


class Report(_Said):
    """All that was found out about one model."""

    kind: Literal["model"] = "model"
    format: int = 1
    model: str  # as it was named
    address: str  # what stands behind the name: `provider/name`, `gguf:path`, ...
    endpoint: str = ""
    server: str = ""
    version: str = ""
    digest: str = ""
    context: int | None = None
    usable: bool = True
    requests: int = 0
    seconds: float = 0.0
    findings: tuple[Finding, ...] = ()


class Installation(_Said):
    """What was found out without asking any model."""

    kind: Literal["installation"] = "installation"
    format: int = 1
    findings: tuple[Finding, ...] = ()


def ok(probe: str, said: str, **figures: Any) -> Finding:
    return Finding(probe=probe, level="ok", said=said, figures=figures)


def warning(probe: str, said: str, advice: str = "", **figures: Any) -> Finding:
    return Finding(probe=probe, level="warning", said=said, advice=advice, figures=figures)


def fatal(probe: str, said: str, advice: str = "", **figures: Any) -> Finding:
    return Finding(probe=probe, level="fatal", said=said, advice=advice, figures=figures)


def unknown(probe: str, said: str, advice: str = "", **figures: Any) -> Finding:
    return Finding(probe=probe, level="unknown", said=said, advice=advice, figures=figures)
