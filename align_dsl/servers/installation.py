"""What can be told without asking any model: versions, plug-ins, and the folder of the store."""

from __future__ import annotations

import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

from align_dsl import __version__
from align_dsl.errors import StoreError, visible
from align_dsl.records.database import Database
from align_dsl.servers.report import Finding, Installation, fatal, ok, unknown, warning

NEEDED = ("dspy", "litellm", "ollama", "aiohttp")
EXTRAS = {"xllamacpp": "gguf"}
DOORS = ("algorithms", "aligners", "backends", "datasets", "deciders", "metrics")


def installation(store: Path) -> Installation:
    findings = [_versions(), *_extras(), _plugins(), _store(store)]
    return Installation(findings=tuple(findings))


def _versions() -> Finding:
    found = {"align-dsl": __version__, "python": platform.python_version()}
    missing = []
    for name in NEEDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    said = ", ".join(f"{k} {v}" for k, v in found.items())
    if missing:
        return fatal("versions", f"{said}; missing: {', '.join(missing)}", "install align-dsl anew")
    return ok("versions", said, **found)


def _extras() -> list[Finding]:
    out = []
    for name, extra in EXTRAS.items():
        try:
            out.append(ok(f"[{extra}]", f"{name} {version(name)}"))
        except PackageNotFoundError:
            said = f"{name} is not installed; it is needed for models of files, `{extra}:PATH`"
            out.append(unknown(f"[{extra}]", said, f'pip install "align-dsl[{extra}]"'))
    return out


def _plugins() -> Finding:
    """Plug-ins are named, not imported: their code is not ours to run for a question."""
    found = {
        f"{door}.{point.name}": point.dist.name if point.dist else ""
        for door in DOORS
        for point in entry_points(group=f"align_dsl.{door}")
    }
    said = ", ".join(f"{k} ({v})" if v else k for k, v in sorted(found.items()))
    return ok("plug-ins", visible(said) or "none", **found)


def _store(path: Path) -> Finding:
    """Opens a scratch store in the folder where the store is or would be, and removes it."""
    folder = path.absolute().parent
    shown = visible(os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder))
    here = folder
    while not here.exists() and here != here.parent:
        here = here.parent
    advice = "name a file elsewhere with --store or ALIGN_STORE"
    try:
        with tempfile.TemporaryDirectory(prefix=".align-doctor-", dir=here) as scratch:
            database = Database(Path(scratch) / "align.db")
            try:
                mode = str(database.connection.execute("PRAGMA journal_mode").fetchone()[0])
            finally:
                database.close()
    except OSError as error:
        return fatal("store", f"{shown} cannot be written: {error.strerror}", advice)
    except StoreError as error:
        return fatal("store", visible(str(error)), advice)
    size = f"{path.stat().st_size / 1e6:.1f} MB" if path.exists() else "nothing stored yet"
    if mode != "wal":
        said = f"{shown}, {size}; write-ahead logging does not work there: one writer at a time"
        return warning("store", said, f"keep the store on a local disk: {advice}", journal=mode)
    return ok("store", f"{shown}, {size}; write-ahead logging works", journal=mode)
