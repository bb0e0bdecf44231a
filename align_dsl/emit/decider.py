"""One decider -> a class: its steps in `__init__`, and its wiring as straight code in `forward`."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from align_dsl import types
from align_dsl.emit.constants import Prompts, said_of_model
from align_dsl.emit.demos import Demos
from align_dsl.emit.imports import Imports
from align_dsl.emit.literal import WIDTH, docstring, fitted, literal, text
from align_dsl.language.program import AMBIENT, Decider, Program, Step
from align_dsl.registry import ALIGNERS

TAKEN = frozenset(  # what the code of a decider already means by a name
    {
        *("scenario", "target", "attribute", "attributes", "choice", "weights", "self", "labels"),
        *("shown", "ways", "plainly", "lost", "decided", "undecided", "sum", "tuple", "dict"),
        *("a", "name"),
    }
)
NEEDS = {
    "typing": ["Any"],
    "dspy": [],
    "align_dsl.engine.lower": ["at_temperature"],
    "align_dsl.engine.shown": ["plainly", "ways"],
    "align_dsl.language.program": ["Model"],
    "align_dsl.types": ["Labels", "Pool", "Scenario", "Target"],
}


def class_name(name: str) -> str:
    made = "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", name) if part)
    return made if made.isidentifier() else f"Decider{made}"


def _variable(name: str) -> str:
    made = re.sub(r"\W", "_", name)
    taken = made in TAKEN or made in ALIGNERS or keyword.iskeyword(made)
    return f"{made}_" if taken else made


def _asks(step: Step) -> bool:
    """Whether what a step says is gathered from several calls of it, or is one plain value."""
    return bool(step.algorithm.calls) or "choice" in step.each


class Wiring:
    def __init__(self, decider: Decider, program: Program, prompts: Prompts, demos: Demos) -> None:
        self.decider, self.program, self.prompts, self.demos = decider, program, prompts, demos
        self.origins = {o for s in decider.steps for o in s.takes.values()}

    def text(self, name: str, imports: Imports) -> str:
        decider = self.decider
        return "\n".join(
            [
                f"class {name}(dspy.Module):",
                *docstring(decider.about or decider.name),
                "",
                *self._init(),
                "",
                *self._forward(imports),
            ]
        )

    def _init(self) -> Iterator[str]:
        used = self.program.model(self.decider.model or self.program.run_on[0])
        takes = [f"model: Model = MODELS[{text(said_of_model(used)['name'])}]"]
        pooled = "pool" in self.origins
        if pooled:
            takes.insert(0, "pool: Pool | None = None")
        yield from fitted(4, "def __init__(", ["self", *takes], ") -> None:")
        yield "        super().__init__()"
        yield "        self.model = model"
        if pooled:
            yield "        self.pool = exemplars() if pool is None else pool"
        if not self.decider.steps:
            yield "        self.steps: dict[str, Any] = {}"
            return
        yield "        self.steps: dict[str, Any] = {"
        for step in self.decider.steps:
            yield from self._made(step)
        yield "        }"
        for step in self.decider.steps:
            if name := self.demos.names.get((self.decider.name, step.name)):
                yield f"        taught(self.steps[{text(step.name)}], {name})"

    def _made(self, step: Step) -> list[str]:
        given = []
        for param in step.algorithm.params:
            constant = self.prompts.names.get((self.decider.name, step.name, param.name))
            if constant:
                given.append(f"{param.name}={constant}")
            elif param.name in step.params and step.params[param.name] != param.default:
                given.append(f"{param.name}={literal(step.params[param.name])}")
        head, tail = f"{text(step.name)}: {step.algorithm.name}(", "),"
        if step.temperature is not None:
            head = head.replace(": ", ": at_temperature(", 1)
            tail = f"), {step.temperature!r}),"
            line = f"{' ' * 12}{head}{', '.join(given)}{tail}"
            if len(line) > WIDTH:
                return self._warmed(step, given)
        return fitted(12, head, given, tail)

    @staticmethod
    def _warmed(step: Step, given: list[str]) -> list[str]:
        """A step with a temperature of its own, that takes more than a line."""
        return [
            f"{' ' * 12}{text(step.name)}: at_temperature(",
            *fitted(16, f"{step.algorithm.name}(", given, "),"),
            f"{' ' * 16}{step.temperature!r},",
            f"{' ' * 12}),",
        ]

    # --- forward -------------------------------------------------------------------------------

    def _forward(self, imports: Imports) -> Iterator[str]:
        steps = self.decider.steps
        takes = ["self", "scenario: Scenario", "target: Target"]
        if any(s.algorithm.learns for s in steps):
            takes.append("labels: Labels")
        yield from fitted(4, "def forward(", takes, ") -> dspy.Prediction:")
        if "attributes" in self.origins or any("attribute" in s.each for s in steps):
            yield "        attributes = tuple(ATTRIBUTES[name] for name in target.values)"
        for step in steps:
            yield from self._asked(step) if _asks(step) else self._called(step, imports)
        yield from self._decision()

    def _called(self, step: Step, imports: Imports) -> Iterator[str]:
        """A step without a model: one value, or one for each attribute."""
        name, kind = _variable(step.name), step.algorithm.output
        if kind in vars(types):
            imports.add("align_dsl.types", kind)
        else:
            kind = "Any"
        call = f"self.steps[{text(step.name)}]("
        if "attribute" in step.each:
            yield f"        {name}: dict[str, {kind}] = {{}}"
            yield from self._for_each(step)
            yield from fitted(12, f"{name}[attribute.name] = {call}", self._takes(step), ")")
        else:
            yield from fitted(8, f"{name}: {kind} = {call}", self._takes(step), ")")

    def _asked(self, step: Step) -> Iterator[str]:
        """A step within the loops of what it repeats over."""
        name, indent = _variable(step.name), 8
        each_choice = ", whole=False" if "choice" in step.each else ""
        yield f"        {name} = Gathered(self.steps[{text(step.name)}], self.model{each_choice})"
        if "attribute" in step.each:
            yield from self._for_each(step)
            indent += 4
        if "scenario" in step.takes.values() and step.algorithm.calls:
            samples = f", samples={step.samples}" if step.samples > 1 else ""
            seed = "" if step.order == "given" else ", seed=SEED"
            yield f"{' ' * indent}for shown in ways(scenario, {text(step.order)}{samples}{seed}):"
            indent += 4
        else:
            yield f"{' ' * indent}shown = plainly(scenario)"
        if "choice" in step.each:
            yield f"{' ' * indent}for choice in shown.scenario.choices:"
            indent += 4
        about = ["shown", "attribute"] if "attribute" in step.each else ["shown"]
        yield from fitted(indent, f"{name}.ask(", [*about, *self._takes(step)], ")")

    def _takes(self, step: Step) -> list[str]:
        return [f"{port}={self._given(step, origin)}" for port, origin in step.takes.items()]

    def _given(self, step: Step, origin: str) -> str:
        """What flows into a port, as an expression within the loops of its step."""
        match origin:
            case "scenario":
                return "shown.scenario" if _asks(step) else origin
            case "pool":
                return "self.pool"
            case "attributes" if told := self.prompts.told.get((self.decider.name, step.name)):
                return f"tuple({told}[a.name] for a in attributes)"
            case _ if origin in AMBIENT:
                return origin
        earlier, name = self.decider.step(origin), _variable(origin)
        each = "attribute" in step.each
        if _asks(earlier):
            return f"{name}.of(attribute)" if each else f"{name}.of()"
        return f"{name}[attribute.name]" if each and "attribute" in earlier.each else _all(earlier)

    def _for_each(self, step: Step) -> list[str]:
        line = f"        for attribute in {self._attributes(step)}:"
        if len(line) <= WIDTH:
            return [line]
        inside = self._attributes(step).removeprefix("(").removesuffix(")")
        return ["        for attribute in (", f"            {inside}", "        ):"]

    def _attributes(self, step: Step) -> str:
        """The attributes that a step goes through, as it is told of them."""
        told = self.prompts.told.get((self.decider.name, step.name))
        if told is None and step.only is None:
            return "attributes"
        one = f"{told}[a.name]" if told else "a"
        some = f" if a.name in {literal(step.only)}" if step.only is not None else ""
        return f"({one} for a in attributes{some})"

    def _decision(self) -> Iterator[str]:
        rule = self.decider.decide
        given, said, lost = [], [], []
        for port, origin in rule.takes.items():
            if origin in AMBIENT:
                given.append(f"{port}={origin}")
                continue
            step = self.decider.step(origin)
            given.append(f"{port}={_all(step)}")
            said.append(_all(step))
            if _asks(step):
                lost.append(f"{_variable(origin)}.lost")
        given += [f"{k}={literal(v)}" for k, v in rule.params.items()]
        if lost:
            yield f"        if lost := {' or '.join(lost)}:"
            yield "            return undecided(lost)"
        yield from fitted(8, f"weights = {rule.aligner.name}(", given, ")")
        whole = said[0] if len(said) == 1 else f"({', '.join(f'*{s}' for s in said)})"
        parts = [text(self.decider.name), "scenario", "weights", whole]
        yield from fitted(8, "return decided(", parts, ")")


def _all(step: Step) -> str:
    """Everything that a step has said."""
    name = _variable(step.name)
    if _asks(step):
        return f"{name}.all()"
    return f"sum({name}.values(), ())" if "attribute" in step.each else name
