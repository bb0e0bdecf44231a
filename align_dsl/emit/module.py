"""The whole module: what stands where, and what its head says of it."""

from __future__ import annotations

from pathlib import Path

from align_dsl.emit.constants import Prompts, constants
from align_dsl.emit.decider import NEEDS, Wiring, class_name
from align_dsl.emit.demos import Demos
from align_dsl.emit.imports import Imports
from align_dsl.emit.literal import in_docstring, text
from align_dsl.emit.steps import File, Steps
from align_dsl.language.program import Program
from align_dsl.registry import ALIGNERS

TEMPLATE = Path(__file__).with_name("template.py")
USED_FOR = {  # what a compiled module has of align_dsl, as its head says
    "algorithms._demos": "how exemplars are shown to a model",
    "algorithms._similarity": "which exemplars are alike",
    "aligners": "ratings or votes -> a weight for each choice",
    "backends": "what answers for a model",
    "datasets": "the files that exemplars are read from",
    "engine.adapter": "what a model is sent, and how its answer is read",
    "engine.decide": "which choice has the most weight, and how a tie is broken",
    "engine.lower": "for steps with a temperature or worked examples of their own",
    "engine.shown": "the orders in which choices are shown",
    "engine.split": "which cases are exemplars",
    "language.library": "where the programs lie that align-dsl ships",
    "language.program": "Model and Split, as a program says them",
    "pipeline": "the compiler, for check()",
    "types": "Scenario, Target, Rating and all other nouns",
}


class Module:
    def __init__(self, program: Program, file: Path, written: str, filled: Program) -> None:
        self.program, self.written = program, written
        self.imports = Imports()
        self.steps = Steps(self.imports)
        for decider in program.deciders:
            for step in decider.steps:
                self.steps.take(step.algorithm.name)
            self.imports.add(*_home(decider.decide.aligner.name))
        self.template = File(TEMPLATE)
        for module, name in self.template.imported.values():
            self.imports.add(module, *([name] if name else []))
        for module, names in NEEDS.items():
            self.imports.add(module, *names)
        self.constants = constants(program, file.parent, written, self.imports)
        self.prompts = Prompts(program, self.steps)
        self.demos = Demos(filled, self.imports)
        self.others = {*self.template.pieces, "TARGETS", "MODELS", "DECIDERS"}
        self.others |= {*self.prompts.texts, *self.demos.texts, *self.prompts.told.values()}
        self.classes = self._classes()

    def _classes(self) -> dict[str, str]:
        """Decider -> the name of its class, which nothing else has."""
        taken = self.steps.names() | {name for name, _ in self.imports.all()}
        taken |= self.others
        made: dict[str, str] = {}
        for decider in self.program.deciders:
            name = class_name(decider.name)
            while name in taken:
                name += "Decider"
            taken.add(name)
            made[decider.name] = name
        return made

    def text(self) -> str:
        rows = "".join(f"\n    {text(d)}: {name}," for d, name in self.classes.items())
        deciders = [
            Wiring(d, self.program, self.prompts, self.demos).text(
                self.classes[d.name], self.imports
            )
            for d in self.program.deciders
        ]
        parts = [
            self.constants,
            self.prompts.text(),
            self.demos.text(),
            _heading("the steps"),
            self.steps.text(self.others),
            _heading("the deciders"),
            *deciders,
            f"DECIDERS: dict[str, type[dspy.Module]] = {{{rows}\n}}",
            self.template.text[self.template.text.index("# --- ") :].rstrip(),
        ]
        body = "\n\n\n".join(part for part in parts if part)
        used = self.imports.used(body)
        return f"{self._head(used)}\n\n{used.text()}\n\n{body}\n"

    def _head(self, imports: Imports) -> str:
        plain = [d for d in self.program.deciders if not any(s.algorithm.learns for s in d.steps)]
        shown = (plain or list(self.program.deciders))[-1]
        return f'''\
# ruff: noqa: N801  (steps are named as in YAML)
"""{in_docstring(self.program.about) or in_docstring(self.program.name)}

Compiled from {in_docstring(self.written)} by align-dsl. Each decider is a dspy.Module:

    said = {self.classes[shown.name]}()(scenario=Scenario(...), target=Target(...))
    said.choice, said.weights, said.ratings, said.why, said.status

It decides as `align-dsl run` does with the same program, but it keeps no answers. Nor does it send
seeds to models, as a run does: so where answers are sampled, they differ from those of a run.

{_needs(imports)}
"""'''


def _needs(imports: Imports) -> str:
    """Every import that is not Python's own, and what it is for."""
    used: dict[str, str] = {}
    others: list[str] = []
    for module in imports.modules():
        top, _, rest = module.partition(".")
        if top != "align_dsl":
            others.append(top)
            continue
        for name in [rest] if rest else sorted(imports.names[module]):
            name = "aligners" if name.startswith("aligners.") else name
            used[name] = USED_FOR.get(name, "what a copied step uses")
    width = max(map(len, used))
    rows = [f"    {name:{width}}  {used[name]}" for name in sorted(used)]
    return "\n".join([f"It imports {', '.join(dict.fromkeys(others))}, and of align_dsl:", *rows])


def _heading(said: str) -> str:
    return f"# --- {said} ".ljust(97, "-")


def _home(aligner: str) -> tuple[str, str]:
    """Where an aligner is imported from, and its name there."""
    if ALIGNERS.shipped(aligner):
        return f"align_dsl.aligners.{aligner}", aligner
    module, _, name = ALIGNERS._outside[aligner].value.partition(":")
    return module, name or aligner
