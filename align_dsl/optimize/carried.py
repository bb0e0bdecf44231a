"""What a command line changed in a program -> the same, as a file that extends it has to say it.

Without it the winner would stand beside other data, another seed or another default than those it
was judged with.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align_dsl import pipeline
from align_dsl.language.extend import BY_NAME, OWN, extend
from align_dsl.language.library import shown
from align_dsl.language.source import read_source
from align_dsl.optimize.task import Ready
from align_dsl.types import Target

LEFT = (*OWN, "extends", "optimize")  # how the winner was found is no part of what it is


def carried(made: Ready, to: Path) -> dict[str, Any]:
    """Whole keys, as extending replaces them; of deciders and models those that differ."""
    file, library = made.task.program, made.space.library
    source = read_source(file, shown(file))
    before = extend(source, lambda name, _: library.source("programs", name)).data
    found: dict[str, Any] = {}
    for key, value in made.space.checked.source.data.items():
        old = before.get(key)
        if key in LEFT or value == old:
            continue
        if key in BY_NAME and isinstance(value, Mapping) and isinstance(old, Mapping):
            value = {k: v for k, v in value.items() if k not in old or v != old[k]}
        found[key] = value
    if "data" in found:
        found["data"] = _data(made, found["data"], to)
    if made.task.changes.data is not None:  # targets that it has no labels for were left aside
        kept = made.loaded.program.targets
        if pipeline.compile(file, made.task.changes).program.targets != kept:
            found["targets"] = [_target(one) for one in kept]
    return found


def _data(made: Ready, written: Mapping[str, Any], to: Path) -> dict[str, Any]:
    """Its paths as seen from the new file."""
    data, found = made.loaded.program.data, dict(written)
    found["path"] = _seen_from(to, written["path"], data.place.path)
    if data.exemplars is not None:
        own = written["exemplars"]
        found["exemplars"] = {**own, "path": _seen_from(to, own["path"], data.exemplars.path)}
    return found


def _seen_from(to: Path, written: str, path: str) -> str:
    return written if Path(written).is_absolute() else os.path.relpath(path, to.absolute().parent)


def _target(one: Target) -> dict[str, Any]:
    found = {"name": one.name, "values": dict(one.values)}
    return {**found, **({"weights": dict(one.weights)} if one.weights else {})}


def by_hand(made: Ready) -> str:
    """The options that changed the program, as they were typed but for breaks of lines."""
    words: list[str] = []
    for option, value in made.task.changes.plain().items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{option}", str(one)]
    return " ".join(shlex.join(words).split())
