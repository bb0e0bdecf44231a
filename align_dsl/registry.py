"""The doors' one mechanism: a thing is a file in a package, or an entry point elsewhere.

The name in YAML is the file's name, and the thing is the object of that name in the file. Nothing
is imported until it is asked for; `place` finds a thing's source without importing anything.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thing is written: a file, and the name it has there."""

    path: Path
    name: str


class Registry(Mapping[str, T], Generic[T]):
    """Name -> thing, for one door. `suffix` is `.py` for code and `.yaml` for deciders."""

    def __init__(self, package: str, suffix: str = ".py") -> None:
        self.package = package
        self.suffix = suffix

    def __getitem__(self, name: str) -> T:
        if name in self._inside:
            module = importlib.import_module(f"{self.package}.{name}")
            return cast(T, getattr(module, name))
        return cast(T, self._outside[name].load())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._inside, *self._outside}))

    def __len__(self) -> int:
        return len({*self._inside, *self._outside})

    def __contains__(self, name: object) -> bool:  # Mapping's own would import the thing
        return name in self._inside or name in self._outside

    def place(self, name: str) -> Place:
        if name in self._inside:
            return Place(self._inside[name], name)
        point = self._outside[name]
        module, _, attribute = point.value.partition(":")
        if self.suffix == ".yaml":
            return Place(_folder(module) / attribute, name)
        return Place(_file(module), attribute or name)

    def shipped(self, name: str) -> bool:
        return name in self._inside

    @cached_property
    def _inside(self) -> dict[str, Path]:
        folder = Path(str(_folder(self.package)))
        if self.suffix == ".yaml":
            return {p.stem: p for p in sorted(folder.glob("*.yaml"))}
        names = [m.name for m in pkgutil.iter_modules([str(folder)]) if m.name[0] != "_"]
        return {name: folder / f"{name}.py" for name in names}

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        return {e.name: e for e in entry_points(group=self.package) if e.name not in self._inside}


def _folder(package: str) -> Path:
    """The folder of a package, found without running its code."""
    top, *rest = package.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package named {package}")
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)


def _file(module: str) -> Path:
    top, *rest = module.split(".")
    if not rest:
        spec = find_spec(top)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no module named {module}")
        return Path(spec.origin)
    stem = _folder(top).joinpath(*rest)
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")


ALGORITHMS: Registry[Any] = Registry("align_dsl.algorithms")
ALIGNERS: Registry[Any] = Registry("align_dsl.aligners")
DATASETS: Registry[Any] = Registry("align_dsl.datasets")
BACKENDS: Registry[Any] = Registry("align_dsl.backends")
METRICS: Registry[Any] = Registry("align_dsl.metrics")
DECIDERS: Registry[Any] = Registry("align_dsl.deciders", suffix=".yaml")
