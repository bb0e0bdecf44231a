"""A program -> the text of a Python module: what one would have written by hand in DSPy.

The code of the algorithms that are used is copied, with what it needs and no more; the wiring of
each decider becomes straight code in its `forward`. Equal programs give equal text.
"""

from __future__ import annotations

import ast
import keyword
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from align_dsl import types
from align_dsl.language.program import AMBIENT, Decider, Model, Program, Step
from align_dsl.registry import ALGORITHMS, ALIGNERS
from align_dsl.types import Value

WIDTH = 100
TAKEN = frozenset({"scenario", "target", "attribute", "attributes", "choice", "weights", "self"})


def emit(program: Program, file: Path, written: str) -> str:
    """`file` is the program's; `written` is how the module shall name it."""
    return _Module(program, file, written).text()


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder; of one that lies elsewhere, only what names it."""
    seen = os.path.relpath(path.absolute(), folder.absolute())
    return path.name if seen.count("..") > 2 else PurePosixPath(*Path(seen).parts).as_posix()


class _Module:
    def __init__(self, program: Program, file: Path, written: str) -> None:
        self.program, self.file, self.written = program, file, written
        self.folder = file.parent
        self.imports = Imports()
        self.code = _Copied(self.imports)
        self.prompts: dict[tuple[str, str, str], str] = {}  # decider, step, parameter -> constant
        self.classes: dict[str, str] = {}

    def text(self) -> str:
        deciders = self.program.deciders
        for decider in deciders:
            for step in decider.steps:
                self.code.take(step.algorithm.name)
            self.imports.add(*_home(decider.decide.aligner.name))
        for line in _NEEDS:
            self.imports.add(*line)
        self._name_prompts()
        taken = {name for _, name in self.code.kept} | set(self.imports.all())
        taken |= set(re.findall(r"^(?:class|def) (\w+)", _RUNTIME, re.MULTILINE))
        for decider in deciders:
            name = _class(decider.name)
            while name in taken:
                name += "Decider"
            taken.add(name)
            self.classes[decider.name] = name
        body = [
            self._data(),
            self._prompts(),
            _RUNTIME,
            "# --- the steps " + "-" * 81,
            self.code.text(),
            "# --- the deciders " + "-" * 78,
            *(self._decider(d) for d in deciders),
            self._table(),
            _CHECK,
        ]
        whole = "\n\n\n".join(part for part in body if part)
        return f"{self._head()}\n\n{self.imports.text(whole)}\n\n{whole}\n"

    # --- what the program says, as constants ---------------------------------------------------

    def _head(self) -> str:
        name = self.classes[self.program.deciders[-1].name]
        return f'''\
# ruff: noqa: N801  (steps are named as in YAML)
"""{_doc(self.program.about) or _doc(self.program.name)}

Compiled from {_doc(self.written)} by align-dsl. Each decider is a dspy.Module:

    said = {name}()(scenario=Scenario(...), target=Target(...))
    said.choice, said.weights, said.ratings, said.why, said.status

It decides as `align-dsl run` does with the same program, but keeps no answers and sends no seeds.
It needs dspy, and of align_dsl the types, aligners, adapter and backends; to read the exemplars,
or to check() the YAML, also the data formats and the compiler.
"""'''

    def _data(self) -> str:
        program = self.program
        self.imports.add("align_dsl.language.program", "Split")
        place, split = program.data.exemplars or program.data.place, "None"
        if program.data.exemplars is None and program.data.cases == "test" and program.data.split:
            split = _pretty(Call("Split", program.data.split.model_dump()), 0, 28)
        path = _relative(Path(place.path), self.folder)
        return "\n".join(
            [
                f"PROGRAM = {_text(self.written)}",
                f"DIGEST = {_text(program.digest())}",
                f"SEED = {program.seed}",
                f"DATA = ({_text(place.format)}, {_text(path)})  # the exemplars: format, and path",
                f"SPLIT: Split | None = {split}",
                _by_name("ATTRIBUTES", "Attribute", map(_said_of, program.attributes)),
                _by_name("TARGETS", "Target", map(_said_of, program.targets)),
                _by_name("MODELS", "Model", map(_said_of_model, program.models)),
            ]
        )

    def _name_prompts(self) -> None:
        for decider in self.program.deciders:
            for step in decider.steps:
                for param in step.algorithm.params:
                    if param.type == "prompt":
                        name = f"{decider.name}_{step.name}"
                        name += "" if param.name == "instructions" else f"_{param.name}"
                        at = (decider.name, step.name, param.name)
                        self.prompts[at] = re.sub(r"\W", "_", name).upper()

    def _prompts(self) -> str:
        """The instructions of every step; texts that are equal are written once."""
        parts = [
            "# The adapter fills {attribute}, {definition} and so on from the attribute or target."
        ]
        names: dict[str, str] = {}
        for (decider_name, step_name, param_name), name in self.prompts.items():
            decider = next(d for d in self.program.deciders if d.name == decider_name)
            step = decider.step(step_name)
            text = step.params.get(param_name)
            if text is None:
                text = self.code.default(step.algorithm.name, param_name)
            if text in names:
                parts.append(f"{name} = {names[text]}")
            else:
                names[text] = name
                parts.append(f"{name} = {_block(text)}")
        return "\n".join(parts) if names else ""

    def _table(self) -> str:
        rows = "".join(f"\n    {_text(d)}: {name}," for d, name in self.classes.items())
        return f"DECIDERS: dict[str, type[dspy.Module]] = {{{rows}\n}}"

    # --- deciders ------------------------------------------------------------------------------

    def _decider(self, decider: Decider) -> str:
        learns = any(s.algorithm.learns for s in decider.steps)
        pooled = any("pool" in s.takes.values() for s in decider.steps)
        origins = {o for s in decider.steps for o in s.takes.values()}
        attributes = any("attribute" in s.each for s in decider.steps) or "attributes" in origins
        used = self.program.model(decider.model or self.program.run_on[0])
        model = _text(_said_of_model(used)["name"])
        ports = ["self", "pool: Pool | None = None"] if pooled else ["self"]
        lines = [
            f"class {self.classes[decider.name]}(dspy.Module):",
            *_docstring(decider.about or decider.name),
            "",
            *_fit(4, "def __init__(", [*ports, f"model: Model = MODELS[{model}]"], ") -> None:"),
            "        super().__init__()",
            "        self.model = model",
            *(["        self.pool = exemplars() if pool is None else pool"] if pooled else []),
            "        self.steps: dict[str, Any] = {",
            *(line for s in decider.steps for line in self._made(decider, s)),
            "        }",
            "",
            *_fit(
                4,
                "def forward(",
                [
                    "self",
                    "scenario: Scenario",
                    "target: Target",
                    *(["labels: Labels"] if learns else []),
                ],
                ") -> dspy.Prediction:",
            ),
        ]
        if not decider.steps:
            at = lines.index("        self.steps: dict[str, Any] = {")
            lines[at : at + 2] = ["        self.steps: dict[str, Any] = {}"]
        if attributes:
            lines.append("        attributes = tuple(ATTRIBUTES[name] for name in target.values)")
        for step in decider.steps:
            lines += self._step(decider, step)
        lines += self._decision(decider)
        return "\n".join(lines)

    def _made(self, decider: Decider, step: Step) -> list[str]:
        given = []
        for param in step.algorithm.params:
            constant = self.prompts.get((decider.name, step.name, param.name))
            if constant:
                given.append(f"{param.name}={constant}")
            elif param.name in step.params and step.params[param.name] != param.default:
                value = step.params[param.name]
                value = tuple(value) if isinstance(value, list) else value
                given.append(f"{param.name}={_value(value)}")
        return _fit(12, f"{_text(step.name)}: {step.algorithm.name}(", given, "),")

    def _step(self, decider: Decider, step: Step) -> Iterator[str]:
        """The code of one step: a loop over what it repeats over, or one call."""
        name, each = _variable(step.name), "attribute" in step.each
        over = "attributes"
        if step.only is not None:
            over = f"(a for a in attributes if a.name in {_value(tuple(step.only))})"
        takes = [f"{port}={self._given(decider, step, o)}" for port, o in step.takes.items()]
        call = f"self.steps[{_text(step.name)}]"
        if not step.algorithm.calls and "choice" not in step.each:
            kind = step.algorithm.output
            if kind in vars(types):
                self.imports.add("align_dsl.types", kind)
            else:
                kind = "Any"
            if each:
                yield f"        {name}: dict[str, {kind}] = {{}}"
                yield f"        for attribute in {over}:"
                yield from _fit(12, f"{name}[attribute.name] = {call}(", takes, ")")
            else:
                yield from _fit(8, f"{name}: {kind} = {call}(", takes, ")")
            return
        indent = 8
        whole = ", whole=False" if "choice" in step.each else ""
        yield f"        {name} = Gathered(self.model{whole})"
        if each:
            yield f"        for attribute in {over}:"
            indent += 4
        sees = "scenario" in step.takes.values() and step.algorithm.calls > 0
        how = (
            f'order="{step.order}", samples={step.samples}' if sees else 'order="given", samples=1'
        )
        yield f"{' ' * indent}for shown in ways(scenario, {how}):"
        indent += 4
        if "choice" in step.each:
            yield f"{' ' * indent}for choice in shown.scenario.choices:"
            indent += 4
        given = [call, "shown", "attribute" if each else "None"]
        yield from _fit(indent, f"{name}.ask(", [*given, *takes], ")")

    def _given(self, decider: Decider, step: Step, origin: str) -> str:
        """What flows into a port, as an expression within the loops of its step."""
        match origin:
            case "scenario":
                return "shown.scenario" if step.algorithm.calls or "choice" in step.each else origin
            case "pool":
                return "self.pool"
            case _ if origin in AMBIENT:
                return origin
        earlier = decider.step(origin)
        name = _variable(origin)
        inner, outer = "attribute" in earlier.each, "attribute" in step.each
        if earlier.algorithm.calls or "choice" in earlier.each:
            return f"{name}.of(attribute)" if outer else f"{name}.of()"
        if inner and outer:
            return f"{name}[attribute.name]"
        return f"sum({name}.values(), ())" if inner else name

    def _decision(self, decider: Decider) -> Iterator[str]:
        rule = decider.decide
        given, asked, direct = [], [], []
        for port, origin in rule.takes.items():
            if origin in AMBIENT:
                given.append(f"{port}={origin}")
                continue
            step, name = decider.step(origin), _variable(origin)
            if step.algorithm.calls or "choice" in step.each:
                asked.append(name)
                given.append(f"{port}={name}.all()")
            else:
                value = f"sum({name}.values(), ())" if "attribute" in step.each else name
                direct.append(value)
                given.append(f"{port}={value}")
        given += [f"{k}={_value(v)}" for k, v in rule.params.items()]
        if asked:
            lost = " or ".join(f"{name}.lost" for name in asked)
            yield f"        if lost := {lost}:"
            yield "            return undecided(lost)"
        yield from _fit(8, f"weights = {rule.aligner.name}(", given, ")")
        said = [*(f"*{n}.all()" for n in asked), *(f"*{v}" for v in direct)]
        parts = [_text(decider.name), "scenario", "weights", f"[{', '.join(said)}]"]
        yield from _fit(8, "return decided(", parts, ")")


# --- copied code -------------------------------------------------------------------------------


@dataclass(slots=True)
class Imports:
    """The import lines of the module, sorted as ruff sorts them."""

    names: dict[str, set[str]] = field(default_factory=dict)  # "" stands for the module itself

    def add(self, module: str, name: str = "") -> None:
        self.names.setdefault(module, set()).add(name)

    def all(self) -> Iterator[str]:
        for module, names in self.names.items():
            yield from (name or module for name in names)

    def text(self, body: str) -> str:
        """The lines for what a text uses."""
        groups: dict[int, list[str]] = {0: ["from __future__ import annotations"]}
        for module in sorted(self.names, key=lambda m: (bool(self.names[m] - {""}), m)):
            group = (
                1
                if module.split(".")[0] in sys.stdlib_module_names
                else 3
                if module[:5] == "align"
                else 2
            )
            lines = groups.setdefault(group, [])
            used = [n for n in self.names[module] if re.search(rf"\b{n or module}\b", body)]
            if "" in used:
                lines.append(f"import {module}")
            if named := sorted((n for n in used if n), key=_import_order):
                line = f"from {module} import {', '.join(named)}"
                if len(line) > WIDTH:
                    line = f"from {module} import (\n" + "".join(f"    {n},\n" for n in named) + ")"
                lines.append(line)
        return "\n\n".join("\n".join(groups[g]) for g in sorted(groups) if groups[g])


def _import_order(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


@dataclass(slots=True)
class _Piece:
    """One definition at the top of a file, and the names that it uses."""

    name: str
    text: str
    uses: frozenset[str]
    value: Any = None  # of a constant


class _File:
    """A source file as pieces, and where the names come from that it imports."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.pieces: dict[str, _Piece] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        for node in ast.parse(text).body:
            match node:
                case ast.ImportFrom(module=str(module), names=names):
                    self.imported |= {a.asname or a.name: (module, a.name) for a in names}
                case ast.Import(names=names):
                    self.imported |= {a.asname or a.name: (a.name, "") for a in names}
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    self._add(name, node, text)
                case (
                    ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    self._add(name, node, text)

    def _add(self, name: str, node: Any, text: str) -> None:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        lines = text.splitlines()[first - 1 : node.end_lineno]
        uses = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        value = None
        if isinstance(node, ast.Assign):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                value = None
        if isinstance(value, str):
            short = len(name) + len(_text(value)) + 3 <= WIDTH
            lines = [f"{name} = {_text(value) if short else _block(value)}"]
        self.pieces[name] = _Piece(name, "\n".join(lines), frozenset(uses - {name}), value)


class _Copied:
    """The algorithms' code, gathered: each definition once, below what it builds on."""

    def __init__(self, imports: Imports) -> None:
        self.imports = imports
        self.files: dict[Path, _File] = {}
        self.kept: dict[tuple[Path, str], _Piece] = {}

    def take(self, algorithm: str) -> None:
        path = ALGORITHMS.place(algorithm).path
        self._take(path, ALGORITHMS.place(algorithm).name)

    def _file(self, path: Path) -> _File:
        if path not in self.files:
            self.files[path] = _File(path)
        return self.files[path]

    def _take(self, path: Path, name: str) -> None:
        if (path, name) in self.kept:
            return
        file = self._file(path)
        piece = _without_default(file.pieces[name])
        self.kept[path, name] = piece
        for used in sorted(piece.uses):
            if used in file.pieces:
                self._take(path, used)
            elif used in file.imported:
                module, original = file.imported[used]
                beside = path.parent / f"{module.rpartition('.')[2]}.py"
                if module.startswith("align_dsl.algorithms.") and beside.is_file():
                    self._take(beside, original)
                else:
                    self.imports.add(module, original)
        self.kept[path, name] = self.kept.pop((path, name))  # now below what it uses

    def default(self, algorithm: str, param: str) -> str:
        """The text that a prompt parameter has when nothing is said: a constant of the file."""
        place = ALGORITHMS.place(algorithm)
        file = self._file(place.path)
        found = re.search(rf"\b{param}: Prompt = (\w+)", file.pieces[place.name].text)
        value = file.pieces[found.group(1)].value if found else None
        return value if isinstance(value, str) else ""

    def text(self) -> str:
        """Names that two files use for different things get their file's name in front."""
        homes: dict[str, set[Path]] = {}
        for path, name in self.kept:
            homes.setdefault(name, set()).add(path)
        parts = []
        for (path, _), piece in self.kept.items():
            text = piece.text
            names = {n for n in self._file(path).pieces if len(homes.get(n, ())) > 1}
            for name in sorted(names & (piece.uses | {piece.name})):
                text = re.sub(rf"(?<![\w.]){name}\b(?!=)", _renamed(name, path), text)
            parts.append(text)
        return "\n\n\n".join(parts)


def _without_default(piece: _Piece) -> _Piece:
    """An algorithm without its own prompt: every step is given one."""
    found = re.search(r"\(\s*self,\s*\w+: Prompt( = (\w+))", piece.text)
    if found is None:
        return piece
    text = piece.text.replace(found[1], "", 1)
    return _Piece(piece.name, text, piece.uses - {found[2]})


def _renamed(name: str, path: Path) -> str:
    stem = path.stem.lstrip("_")
    return f"{stem.upper()}_{name}" if name.isupper() else f"_{stem}_{name.lstrip('_')}"


def _home(aligner: str) -> tuple[str, str]:
    if ALIGNERS.shipped(aligner):
        return f"align_dsl.aligners.{aligner}", aligner
    module, _, name = ALIGNERS._outside[aligner].value.partition(":")
    return module, name or aligner


# --- text --------------------------------------------------------------------------------------


def _class(name: str) -> str:
    made = "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", name) if part)
    return made if made.isidentifier() else f"Decider{made}"


def _variable(name: str) -> str:
    made = re.sub(r"\W", "_", name)
    taken = made in TAKEN or keyword.iskeyword(made)
    return f"{made}_" if taken else made


def _doc(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "'").replace("\n", " ").strip()


def _text(value: str) -> str:
    """A string as the formatter would have it: in double quotes, if that takes fewer escapes."""
    quote = "'" if value.count('"') > value.count("'") else '"'
    shown = "".join(
        c if c.isprintable() and c not in "\\" else c.encode("unicode_escape").decode()
        for c in value
    )
    return quote + shown.replace(quote, "\\" + quote) + quote


def _value(value: Any) -> str:
    match value:
        case str():
            return _text(value)
        case tuple() | list():
            items = ", ".join(map(_value, value))
            return f"({items},)" if len(value) == 1 else f"({items})"
        case dict():
            return f"{{{', '.join(f'{_value(k)}: {_value(v)}' for k, v in value.items())}}}"
        case Call():
            given = ", ".join(f"{k}={_value(v)}" for k, v in value.given.items())
            return f"{value.name}({given})"
        case _:
            return repr(value)


def _fit(indent: int, head: str, items: list[str], tail: str) -> list[str]:
    """A call on one line, or where that is too long, an argument a line."""
    space = " " * indent
    line = f"{space}{head}{', '.join(items)}{tail}"
    if len(line) <= WIDTH and "\n" not in line:
        return [line]
    return [f"{space}{head}", *(f"{space}    {item}," for item in items), f"{space}{tail}"]


def _by_name(constant: str, kind: str, things: Iterable[dict[str, Any]]) -> str:
    rows = ""
    for thing in things:
        name = _text(thing["name"])
        rows += f"\n    {name}: {_pretty(Call(kind, thing), 4, len(name) + 2)},"
    return f"{constant} = {{{rows}\n}}" if rows else f"{constant}: dict[str, {kind}] = {{}}"


def _said_of(value: Value) -> dict[str, Any]:
    said = value.model_dump(exclude_defaults=True)
    if "scale" in said:
        said["scale"] = Call("Scale", said["scale"])
    return said


def _said_of_model(model: Model) -> dict[str, Any]:
    """A model without a path of this machine."""
    said = _said_of(model)
    if os.path.isabs(model.address):
        said["address"] = Path(model.address).name
        said["name"] = model.name.replace(model.address, said["address"])
    return said


def _docstring(text: str) -> list[str]:
    lines = textwrap.wrap(_doc(text), WIDTH - 8)
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return [f'    """{lines[0]}', *(f"    {line}" for line in lines[1:]), '    """']


@dataclass(frozen=True, slots=True)
class Call:
    """A call with keyword arguments, to be written out."""

    name: str
    given: Mapping[str, Any]


def _pretty(value: Any, indent: int, before: int) -> str:
    """A value as code that begins `before` characters into a line, and ends with a comma."""
    line = _value(value)
    if indent + before + len(line) < WIDTH:
        return line
    space = " " * (indent + 4)
    match value:
        case str():
            pieces = _pieces(value, WIDTH - indent - 4)
            if len(pieces) == 1:
                return line
            rows = [f"{space}{_text(piece)}" for piece in pieces]
            return "(\n" + "\n".join(rows) + f"\n{' ' * indent})"
        case tuple() | list():
            rows = [f"{space}{_pretty(v, indent + 4, 0)}," for v in value]
            return "(\n" + "\n".join(rows) + f"\n{' ' * indent})"
        case dict():
            heads = [(f"{_value(k)}: ", v) for k, v in value.items()]
            rows = [f"{space}{h}{_pretty(v, indent + 4, len(h))}," for h, v in heads]
            return "{\n" + "\n".join(rows) + f"\n{' ' * indent}}}"
        case Call():
            heads = [(f"{k}=", v) for k, v in value.given.items()]
            rows = [f"{space}{h}{_pretty(v, indent + 4, len(h))}," for h, v in heads]
            return f"{value.name}(\n" + "\n".join(rows) + f"\n{' ' * indent})"
    return line


def _pieces(text: str, width: int) -> list[str]:
    pieces, rest = [], text
    while len(_text(rest)) > width and (at := rest.rfind(" ", 1, width - 4)) > 0:
        pieces.append(rest[: at + 1])
        rest = rest[at + 1 :]
    return [*pieces, rest]


def _block(text: str) -> str:
    """A text in triple quotes, its long lines broken where they were."""
    if not all(c.isprintable() or c == "\n" for c in text):
        return ascii(text)
    lines = []
    for line in text.replace("\\", "\\\\").replace('"""', '\\"""').split("\n"):
        while len(line) > WIDTH - 2 and (at := line.rfind(" ", 0, WIDTH - 2)) > 0:
            lines.append(line[: at + 1] + "\\")
            line = line[at + 1 :]
        lines.append(line)
    end = "\\\n" if lines[-1].endswith('"') else ""
    return '"""\\\n' + "\n".join(lines) + end + '"""'


_NEEDS = (
    ("random",),
    ("warnings",),
    ("collections.abc", "Iterator"),
    ("dataclasses", "dataclass"),
    ("functools", "cache"),
    ("itertools", "permutations"),
    ("pathlib", "Path"),
    ("typing", "Any"),
    ("dspy",),
    ("align_dsl.backends", "Backend"),
    ("align_dsl.backends", "open_backend"),
    ("align_dsl.engine.adapter", "NoAnswer"),
    ("align_dsl.engine.adapter", "TypedAdapter"),
    ("align_dsl.language.program", "Model"),
    ("align_dsl.language.wording", "letter"),
    *(
        ("align_dsl.types", name)
        for name in (
            "Attribute",
            "Choice",
            "Failure",
            "Labels",
            "Pool",
            "Scale",
            "Scenario",
            "Target",
            "digest",
        )
    ),
)

_RUNTIME = '''\
# --- how a scenario is shown, and what comes back -----------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A scenario as a model sees it: choices under letters, in some order."""

    scenario: Scenario
    means: dict[str, str]  # letter -> choice id


def ways(scenario: Scenario, order: str, samples: int) -> Iterator[Shown]:
    """Every way in which a step sees a scenario. Orders are drawn from what the choices say."""
    for sample in range(samples):
        choices = list(scenario.choices)
        orders = [choices]
        if order != "given" and len(choices) > 1:
            choices.sort(key=lambda c: c.text)
            if order == "all" and len(choices) <= 4:
                orders = [list(one) for one in permutations(choices)]
            else:
                turn = sample if order == "shuffle" else 0
                random.Random(digest(f"{SEED}/{turn}/{scenario.content()}")).shuffle(choices)
                orders = [choices] if order == "shuffle" else [choices, choices[::-1]]
        for one in orders:
            letters = [letter(i) for i in range(len(one))]
            offered = tuple(Choice(id=i, text=c.text) for i, c in zip(letters, one, strict=True))
            means = {i: c.id for i, c in zip(letters, one, strict=True)}
            yield Shown(Scenario(id="", text=scenario.text, choices=offered), means)


class Gathered:
    """What a step has said of a scenario: ratings or votes, and what failed.

    Only where one answer speaks of all choices (`whole`) can another of its kind stand in for it.
    """

    def __init__(self, model: Model, whole: bool = True) -> None:
        self.model, self.whole = model, whole
        self.said: list[tuple[str | None, Shown, Any]] = []  # attribute, as seen, what was said
        self.heard: set[str | None] = set()
        self.failures: list[tuple[str | None, Failure]] = []

    def ask(self, step: Any, shown: Shown, about: Attribute | None, /, **takes: Any) -> None:
        name = about.name if about else None
        failed = next((v for v in takes.values() if isinstance(v, Failure)), None)
        try:
            if failed is not None:
                raise NoAnswer(failed)
            with answering(self.model):
                self.said += [(name, shown, one) for one in step(**takes)]
            self.heard.add(name)
        except NoAnswer as no:
            self.failures.append((name, no.failure))

    def of(self, attribute: Attribute | None = None) -> Any:
        """What was said of one attribute, in letters, for a step that builds on it."""
        near = {attribute.name, None} if attribute else {name for name, _, _ in self.said} | {None}
        failed = [f for name, f in self.failures if attribute is None or name in near]
        return failed[0] if failed else tuple(one for name, _, one in self.said if name in near)

    def all(self) -> tuple[Any, ...]:
        """Everything that was said, in terms of the scenario's own choices."""
        return tuple(
            one.model_copy(update={"choice": shown.means[one.choice], "shown": one.choice})
            for _, shown, one in self.said
        )

    @property
    def lost(self) -> Failure | None:
        """Why there is no decision, where an attribute has no whole answer."""
        covered = self.heard if self.whole else set()
        return next((f for name, f in self.failures if name not in covered), None)


def decided(
    decider: str, scenario: Scenario, weights: dict[str, float], said: list[Any]
) -> dspy.Prediction:
    """The choice with the most weight; seed, decider and scenario break a tie."""
    most = max(weights.values(), default=0.0)
    if most <= 0:
        return undecided(Failure(status="invalid", message="no choice has any weight"))
    texts = {c.id: c.text for c in scenario.choices}
    best = [c.id for c in scenario.choices if weights[c.id] >= most - 1e-12]
    dice = random.Random(digest(repr([SEED, decider, scenario.content()])))
    tied = len(best) > 1
    choice = dice.choice(sorted(best, key=lambda c: (texts[c], c))) if tied else best[0]
    why = next((one.why for one in said if one.choice == choice and one.why), "")
    status = "tied" if tied else "ok"
    return dspy.Prediction(choice=choice, weights=weights, ratings=said, why=why, status=status)


def undecided(failure: Failure) -> dspy.Prediction:
    return dspy.Prediction(
        choice=None, weights={}, ratings=[], why=failure.message, status=failure.status
    )


@cache
def backend(model: Model) -> Backend:
    """What answers for a model; paths are seen from the program's folder."""
    beside = home() / model.address
    if model.address and beside.exists():
        model = model.model_copy(update={"address": str(beside)})
    return open_backend(model)


def answering(model: Model) -> Any:
    """The model and the adapter to ask it with; an LM that the caller has configured goes first."""
    if dspy.settings.lm is not None:
        return dspy.context(adapter=TypedAdapter())
    opened = backend(model)
    return dspy.context(lm=opened.lm, adapter=opened.adapter)


@cache
def exemplars() -> Pool:
    """The program's pool of exemplars."""
    from align_dsl import datasets
    from align_dsl.engine.split import part

    form, path = DATA
    cases = datasets.load(form, home() / path, ATTRIBUTES)
    return datasets.pool_of(part(cases, SPLIT, "train") if SPLIT else cases)


@cache
def home() -> Path:
    """The program's folder: from here, from beside this file, or among what align-dsl ships."""
    from align_dsl.language.library import shipped_folder

    here = Path(__file__).resolve().parent
    for folder in (Path(), here, *here.parents, shipped_folder()):
        if (folder / PROGRAM).is_file():
            return (folder / PROGRAM).parent
    return here'''

_CHECK = '''\
def check() -> bool:
    """Whether the YAML still says what this module does; warns where it does not.

    True where the YAML is out of reach: then there is nothing to differ from.
    """
    from align_dsl.pipeline import compile

    file = home() / Path(PROGRAM).name
    if not file.is_file() or compile(file).program.digest() == DIGEST:
        return True
    warnings.warn(f"{PROGRAM} has changed since it was compiled to {__name__}", stacklevel=2)
    return False'''
