"""Worked examples of steps -> constants: demos as one would have written them for DSPy."""

from __future__ import annotations

import re
from typing import Any

from align_dsl.emit.constants import said_of
from align_dsl.emit.imports import Imports
from align_dsl.emit.literal import Call, laid_out
from align_dsl.engine.demos import shown
from align_dsl.engine.lower import lower
from align_dsl.language.program import Decider, Program, Step
from align_dsl.types import Attribute, Value


class Demos:
    """The worked examples of every step that has some, under a name of their own.

    The program must be one whose demos know their cases.
    """

    def __init__(self, program: Program, imports: Imports) -> None:
        self.imports = imports
        self.names: dict[tuple[str, str], str] = {}  # decider, step -> constant
        self.texts: dict[str, str] = {}
        for decider in program.deciders:
            for step in decider.steps:
                if step.demos:
                    self._add(decider, step)

    def _add(self, decider: Decider, step: Step) -> None:
        name = re.sub(r"\W", "_", f"{decider.name}_{step.name}_DEMOS").upper()
        while name in self.texts:
            name += "_"
        self.names[decider.name, step.name] = name
        (predictor,) = lower(step.model_copy(update={"demos": ()})).predictors()
        rows = [one for d in step.demos for one in shown(d, predictor.signature)]
        said = tuple({key: self._plain(value) for key, value in row.items()} for row in rows)
        head = f"{name}: tuple[dict[str, Any], ...] = "
        self.texts[name] = f"{head}{laid_out(said, 0, len(head))}"
        self.imports.add("align_dsl.engine.lower", "taught")

    def _plain(self, value: Any) -> Any:
        match value:
            case Attribute():
                return Call("Attribute", said_of(value))
            case Value():
                kind = type(value)
                kept = {
                    name: self._plain(getattr(value, name))
                    for name, f in kind.model_fields.items()
                    if getattr(value, name) != f.get_default(call_default_factory=True)
                }
                self.imports.add("align_dsl.types", kind.__name__)
                return Call(kind.__name__, kept)
            case tuple() | list():
                return tuple(map(self._plain, value))
            case dict():
                return {str(k): self._plain(v) for k, v in value.items()}
            case str():
                return str(value)
            case int() | float():
                return int(value) if float(value).is_integer() else float(value)
        return value

    def text(self) -> str:
        return "\n".join(self.texts.values())
