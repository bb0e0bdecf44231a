"""The studies that are kept in one place, by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align_dsl.errors import PlanError, nearest, visible
from align_dsl.optimize.journal import close_storage, open_storage
from align_dsl.optimize.study import Study


def studies(where: Path | str) -> list[tuple[str, dict[str, Any]]]:
    """Every study that is kept there: its name and its facts."""
    if isinstance(where, Path) and not where.exists():
        return []
    storage = open_storage(where)
    try:
        return [(s.study_name, dict(s.user_attrs)) for s in storage.get_all_studies()]
    finally:
        close_storage(storage)


def find(where: Path | str, name: str) -> str:
    """The study of this name, or the only one that begins so, or for `last` the newest of which
    something has come."""
    known = studies(where)
    names = [n for n, _ in known]
    if name == "last" and known:
        newest = sorted(known, key=lambda s: str(s[1].get("created", "")), reverse=True)
        return _last(where, [n for n, _ in newest])
    begins = [n for n in names if n.startswith(name)] if name not in names else [name]
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise PlanError(f"`{visible(name)}` may be any of: {', '.join(map(visible, begins))}")
    raise PlanError(f"no study `{visible(name)}`\n  = {visible(nearest(name, names))}")


def _last(where: Path | str, newest: list[str]) -> str:
    storage = open_storage(where)
    try:
        for name in newest:
            if not Study(where, name, seen_in=storage).is_empty:
                return name
    finally:
        close_storage(storage)
    names = ", ".join(map(visible, newest))
    raise PlanError(f"nothing has come of any study yet\n  = begun, but with no trial: {names}")
