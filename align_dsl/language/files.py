"""Paths that somebody gave: whether there is a file, and which one may have been meant."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

MAX_LOOKED_AT = 2000  # names in a folder, when looking for what was meant


def unusable(path: Path) -> str:
    """Why a path is neither a file nor a folder; empty where it is one.

    Devices and pipes are refused unopened: reading them may never end.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError) as error:  # too long, not permitted, a NUL inside
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "this is not a regular file"


def instead(path: Path) -> str:
    """What may have been meant by a path that is no file; empty where nothing suggests itself."""
    if os.path.isdir(path):
        below = [name for name in _names(path) if name.endswith(".yaml")]
        if len(below) == 1:
            return f"did you mean `{path / below[0]}`?"
        return f"give one file in it: {listed(below)}" if below else ""
    if os.path.lexists(path):
        return ""
    folder = path.parent
    if "~" in path.parts:
        return "`~` means nothing here: write the path in full"
    if any(part in ("http:", "https:") for part in path.parts):
        return "only files are read: fetch it first, and give its path"
    if set("*?") & set(path.name):
        return "give the folder: all of its files are read"
    if not os.path.isdir(folder):
        meant = instead(folder) if folder != path else ""
        return (
            meant if meant.startswith("did") else f"there is no folder `{folder}`: check the path"
        )
    names = _names(folder)
    near = [n for n in names if n.rpartition(".")[0] == path.name]
    stems = {name.rpartition(".")[0] or name: name for name in names}
    near = near or [stems[s] for s in get_close_matches(path.stem, stems, n=1, cutoff=0.6)]
    return f"did you mean `{folder / near[0]}`?" if near else ""


def listed(names: Sequence[str]) -> str:
    """A few of many.

    >>> listed(["a", "b"]), listed("abcde")
    ('a, b', 'a, b, c and 2 more')
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def not_ours(folder: Path) -> str:
    """What there is in a folder without files of align-dsl."""
    names = _names(folder)
    if other := next((n for n in names if n.endswith(".yml")), ""):
        return f"files of align-dsl end in .yaml: rename {other}"
    hint = "files of align-dsl end in .yaml, and have `program:`, `set:` or `decider:`"
    return f"{hint}; the folder holds {listed(names)}" if names else f"{hint}; the folder is empty"


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in islice(entries, MAX_LOOKED_AT) if e.name[0] != ".")
    except OSError:
        return []


def yaml_below(folder: Path) -> list[Path]:
    """Every YAML file of a folder and below, in order; what is hidden (`.git`) is left out."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(where) / n for n in names if n.endswith(".yaml") and n[0] != "."]
    return sorted(path for path in found if path.is_file())


_OURS = re.compile(
    rb"^['\"\s{]*(program|progam|set|decider|deciders|attributes|extends|targets)\b", re.M
)


def mentions_us(path: Path) -> bool:
    """Whether a file that cannot be parsed looks as if it was meant for align-dsl."""
    try:
        with path.open("rb") as stream:
            return _OURS.search(stream.read(1_000_000)) is not None
    except OSError:
        return True
