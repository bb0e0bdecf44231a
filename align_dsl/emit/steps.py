"""The steps' algorithms -> their code, copied: each definition once, below what it builds on."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_dsl.emit.imports import Imports
from align_dsl.emit.literal import WIDTH, block, text
from align_dsl.registry import ALGORITHMS


@dataclass(slots=True)
class Piece:
    """One definition at the top of a file, and the names that it uses."""

    name: str
    text: str
    uses: frozenset[str]
    value: Any = None  # of a constant


class File:
    """A source file as pieces, and where the names come from that it imports."""

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.pieces: dict[str, Piece] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        for node in ast.parse(self.text).body:
            match node:
                case ast.ImportFrom(module=str(module), names=names):
                    self.imported |= {a.asname or a.name: (module, a.name) for a in names}
                case ast.Import(names=names):
                    self.imported |= {a.asname or a.name: (a.name, "") for a in names}
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    self._add(name, node)
                case (
                    ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    self._add(name, node)

    def _add(self, name: str, node: Any) -> None:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        code = "\n".join(self.text.splitlines()[first - 1 : node.end_lineno])
        uses = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        value = None
        if isinstance(node, ast.Assign):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                value = None
        if isinstance(value, str):
            short = len(name) + len(text(value)) + 3 <= WIDTH
            code = f"{name} = {text(value) if short else block(value)}"
        self.pieces[name] = Piece(name, code, frozenset(uses - {name}), value)


class Steps:
    """The pieces that some algorithms are made of. What their files import stays imported."""

    def __init__(self, imports: Imports) -> None:
        self.imports = imports
        self.files: dict[Path, File] = {}
        self.kept: dict[tuple[Path, str], Piece] = {}

    def take(self, algorithm: str) -> None:
        place = ALGORITHMS.place(algorithm)
        self._take(self._file(place.path), place.name)

    def _file(self, path: Path) -> File:
        if path not in self.files:
            self.files[path] = File(path)
        return self.files[path]

    def _take(self, file: File, name: str) -> None:
        if (file.path, name) in self.kept:
            return
        piece = _without_default(file.pieces[name])
        self.kept[file.path, name] = piece
        for used in sorted(piece.uses):
            if used in file.pieces:
                self._take(file, used)
            elif used in file.imported:
                module, original = file.imported[used]
                self.imports.add(module, original)
        self.kept[file.path, name] = self.kept.pop((file.path, name))  # now below what it uses

    def default(self, algorithm: str, param: str) -> str:
        """The text that a prompt parameter has when nothing is said: a constant of the file."""
        place = ALGORITHMS.place(algorithm)
        file = self._file(place.path)
        found = re.search(rf"\b{param}: Prompt = (\w+)", file.pieces[place.name].text)
        value = file.pieces[found.group(1)].value if found else None
        return value if isinstance(value, str) else ""

    def names(self) -> set[str]:
        return {name for _, name in self.kept}

    def text(self, taken: Collection[str]) -> str:
        """Names that mean something else elsewhere get their file's name in front."""
        homes: dict[str, set[str]] = {name: {""} for name in taken}
        for path, name in self.kept:
            homes.setdefault(name, set()).add(str(path))
        for name, module in self.imports.all():
            homes.setdefault(name, set()).add(module)
        parts = []
        for (path, _), piece in self.kept.items():
            code = piece.text
            doubtful = {n for n in self._file(path).pieces if len(homes.get(n, ())) > 1}
            for name in sorted(doubtful & (piece.uses | {piece.name})):
                code = re.sub(rf"(?<![\w.]){name}\b(?!=)", _renamed(name, path), code)
            parts.append(code)
        return "\n\n\n".join(parts)


def _without_default(piece: Piece) -> Piece:
    """An algorithm without its own prompt: every step is given one."""
    found = re.search(r"\(\s*self,\s*\w+: Prompt( = (\w+))", piece.text)
    if found is None:
        return piece
    return Piece(piece.name, piece.text.replace(found[1], "", 1), piece.uses - {found[2]})


def _renamed(name: str, path: Path) -> str:
    stem = path.stem.lstrip("_")
    return f"{stem.upper()}_{name}" if name.isupper() else f"_{stem}_{name.lstrip('_')}"
