"""What can be found by name: attributes, deciders and programs as files, the rest as signatures.

A name is looked up beside the file that says it, then beside its folder, in the working folder,
in the folders of ALIGN_PATH, and last among what align-dsl ships.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from align_dsl.errors import CompileError, Diagnostic, Span, nearest
from align_dsl.language.signature import Signature, Unreadable, signature
from align_dsl.language.source import Source, read_source
from align_dsl.registry import ALGORITHMS, ALIGNERS, BACKENDS, DATASETS, DECIDERS, METRICS, Registry


def shipped_folder() -> Path:
    """Where attributes/ and programs/ lie: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "_library"
    return inside if inside.is_dir() else package.parent


class Library:
    """Names -> things, for one program file. Reads what is asked for, and only once."""

    algorithms: Registry[Any] = ALGORITHMS
    aligners: Registry[Any] = ALIGNERS
    datasets: Registry[Any] = DATASETS
    backends: Registry[Any] = BACKENDS
    metrics: Registry[Any] = METRICS
    deciders: Registry[Any] = DECIDERS

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(dict.fromkeys(Path(r) for r in roots))
        self._read: dict[Path, Source] = {}

    @classmethod
    def beside(cls, file: Path) -> Library:
        extra = [Path(p) for p in os.environ.get("ALIGN_PATH", "").split(os.pathsep) if p]
        folder = file.parent
        # what lies above `.` is not its `parent`, which is `.` again
        above = folder.parent if folder.parts else Path("..")
        return cls([folder, above, Path("."), *extra, shipped_folder()])

    def source(self, kind: str, name: str) -> Source:
        """The file of that name. Raises CompileError without texts where there is none."""
        path = self.path(kind, name)
        if path not in self._read:
            self._read[path] = read_source(path, shown(path))
        return self._read[path]

    def path(self, kind: str, name: str) -> Path:
        """Where the file of that name lies. Raises CompileError where there is none."""
        for path in self._candidates(kind, name):
            if os.path.isfile(path):
                return path
        what = {"attributes": "attribute set", "deciders": "decider"}.get(kind, "program")
        hint = nearest(name, self.names(kind))
        raise CompileError([Diagnostic(Span(name), f"no {what} named `{name}`", hint)], {})

    def names(self, kind: str) -> list[str]:
        found = {p.stem for root in self.roots for p in (root / kind).glob("*.yaml")}
        return sorted(found | set(self.deciders) if kind == "deciders" else found)

    def signature(self, registry: Registry[Any], name: str) -> Signature:
        """Raises KeyError where the name is unknown, Unreadable where its file is broken."""
        if name not in registry:
            raise KeyError(name)
        return signature(registry, name)

    def _candidates(self, kind: str, name: str) -> Iterator[Path]:
        if "/" in name or name.endswith(".yaml"):
            # a path may lead around inside the project, not out of it
            for root in self.roots[:2]:
                path = root / name
                if path.resolve().is_relative_to(self.roots[min(1, len(self.roots) - 1)].resolve()):
                    yield path
            return
        for root in self.roots:
            yield root / kind / f"{name}.yaml"
            if kind == "programs":
                yield root / f"{name}.yaml"
        if kind == "deciders" and name in self.deciders:
            yield self.deciders.place(name).path


def shown(path: Path) -> str:
    """A path as messages show it: relative where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return str(path)
    return relative if not relative.startswith(os.pardir + os.sep + os.pardir) else str(path)


__all__ = ["Library", "Unreadable", "shipped_folder", "shown"]
