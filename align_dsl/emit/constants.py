"""What a program says -> constants: where it and its data lie, its nouns, its instructions."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from align_dsl.emit.imports import Imports
from align_dsl.emit.literal import WIDTH, Call, block, laid_out, literal, text
from align_dsl.emit.steps import Steps
from align_dsl.language.program import Model, Program, Step
from align_dsl.types import Value


def constants(program: Program, folder: Path, written: str, imports: Imports) -> str:
    imports.add("align_dsl.language.program", "Model", "Split")
    imports.add("align_dsl.types", "Attribute", "Scale", "Target")
    place, split = program.data.exemplars or program.data.place, "None"
    if program.data.exemplars is None and program.data.cases == "test" and program.data.split:
        split = laid_out(Call("Split", program.data.split.model_dump()), 0, 28)
    return "\n".join(
        [
            f"PROGRAM = {text(written)}",
            f"DIGEST = {text(program.digest())}  # of what it said when this was written",
            f"SEED = {program.seed}",
            f"DATA = ({text(place.format)}, {text(_relative(Path(place.path), folder))})"
            "  # the exemplars: format, and path",
            f"SPLIT: Split | None = {split}",
            _by_name("ATTRIBUTES", "Attribute", map(said_of, program.attributes)),
            _by_name("TARGETS", "Target", map(said_of, program.targets)),
            _by_name("MODELS", "Model", map(said_of_model, program.models)),
        ]
    )


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder; of one that lies elsewhere, only what names it."""
    seen = os.path.relpath(path.absolute(), folder.absolute())
    return path.name if seen.count("..") > 2 else PurePosixPath(*Path(seen).parts).as_posix()


def _by_name(constant: str, kind: str, things: Iterable[dict[str, Any]]) -> str:
    rows = ""
    for thing in things:
        name = text(thing["name"])
        rows += f"\n    {name}: {laid_out(Call(kind, thing), 4, len(name) + 2)},"
    return f"{constant} = {{{rows}\n}}" if rows else f"{constant}: dict[str, {kind}] = {{}}"


def said_of(value: Value) -> dict[str, Any]:
    said = value.model_dump(exclude_defaults=True)
    if "scale" in said:
        said["scale"] = Call("Scale", said["scale"])
    return said


def said_of_model(model: Model) -> dict[str, Any]:
    """A model without a path of this machine."""
    said = said_of(model)
    if os.path.isabs(model.address):
        said["address"] = Path(model.address).name
        said["name"] = model.name.replace(model.address, said["address"])
    return said


class Prompts:
    """What every step says to a model in words of its own, each under a name of its own."""

    def __init__(self, program: Program, steps: Steps) -> None:
        self.names: dict[tuple[str, str, str], str] = {}  # decider, step, parameter -> constant
        self.texts: dict[str, str] = {}  # constant -> what it says
        self.told: dict[tuple[str, str], str] = {}  # decider, step -> constant: attributes
        self.views: dict[str, str] = {}  # constant -> the line that makes it
        for decider in program.deciders:
            for step in decider.steps:
                if step.scale is not None or step.definitions:
                    name = _constant(f"{decider.name}_{step.name}_ATTRIBUTES", self.views)
                    self.told[decider.name, step.name] = name
                    self.views[name] = _view(name, step)
                for param in step.algorithm.params:
                    if param.type != "prompt":
                        continue
                    parts = [decider.name, step.name, param.name]
                    name = _constant("_".join(parts).removesuffix("_instructions"), self.texts)
                    said = step.params.get(param.name)
                    if said is None:
                        said = steps.default(step.algorithm.name, param.name)
                    self.names[decider.name, step.name, param.name] = name
                    self.texts[name] = said

    def text(self) -> str:
        """Texts that are equal are written once."""
        parts = []
        if self.texts:
            parts.append(
                "# {attribute}, {definition} and so on are filled in from attribute or target."
            )
        first: dict[str, str] = {}
        for name, said in self.texts.items():
            known = first.setdefault(said, name)
            parts.append(f"{name} = {block(said) if known == name else known}")
        return "\n".join([*parts, *self.views.values()])


def _constant(name: str, taken: Collection[str]) -> str:
    name = re.sub(r"\W", "_", name).upper()
    while name in taken:
        name += "_"
    return name


def _view(name: str, step: Step) -> str:
    """The attributes as one step is told of them."""
    given, lines = [], []
    if step.scale is not None:
        given.append(literal(Call("Scale", step.scale.model_dump(exclude_defaults=True))))
    if step.definitions:
        words = name.removesuffix("_ATTRIBUTES") + "_WORDS"
        given.append(f"{'about=' if step.scale is None else ''}{words}.get(name)")
        lines.append(f"{words} = {laid_out(step.definitions, 0, len(words) + 3)}")
    one, each = f"name: a.told({', '.join(given)})", "for name, a in ATTRIBUTES.items()"
    inner = f"{one} {each}" if len(one) + len(each) + 5 <= WIDTH else f"{one}\n    {each}"
    line = f"{name} = {{{inner}}}"
    lines.append(line if len(line) <= WIDTH else f"{name} = {{\n    {inner}\n}}")
    return "\n".join(lines)
