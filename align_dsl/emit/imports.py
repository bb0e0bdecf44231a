"""The import lines of a module, sorted as ruff sorts them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from align_dsl.emit.literal import WIDTH


@dataclass(slots=True)
class Imports:
    """What may be needed; only what is used is written."""

    names: dict[str, set[str]] = field(default_factory=dict)  # "" stands for the module itself

    def add(self, module: str, *names: str) -> None:
        self.names.setdefault(module, set()).update(names or [""])

    def all(self) -> Iterator[tuple[str, str]]:
        """Every name that is brought in, and the module it is from."""
        for module, names in self.names.items():
            yield from ((name or module, module) for name in names)

    def used(self, body: str) -> Imports:
        said = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
        kept = {
            module: {n for n in names if (n or module.partition(".")[0]) in said}
            for module, names in self.names.items()
        }
        return Imports({module: names for module, names in kept.items() if names})

    def modules(self) -> list[str]:
        """Those of other packages than Python's own."""
        return sorted(m for m in self.names if _group(m) > 1)

    def text(self) -> str:
        groups: dict[int, list[str]] = {0: ["from __future__ import annotations"]}
        for module in sorted(self.names, key=lambda m: (bool(self.names[m] - {""}), m)):
            lines = groups.setdefault(_group(module), [])
            if "" in self.names[module]:
                lines.append(f"import {module}")
            if named := sorted(self.names[module] - {""}, key=_order):
                line = f"from {module} import {', '.join(named)}"
                if len(line) > WIDTH:
                    line = f"from {module} import (\n" + "".join(f"    {n},\n" for n in named) + ")"
                lines.append(line)
        return "\n\n".join("\n".join(groups[g]) for g in sorted(groups))


def _group(module: str) -> int:
    top = module.partition(".")[0]
    return 1 if top in sys.stdlib_module_names else 3 if top == "align_dsl" else 2


def _order(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name
