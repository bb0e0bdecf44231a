"""A plug-in's source -> its ports and parameters, read without running it.

Importing an algorithm would import DSPy; `check` must stay light, and code of a plug-in has no
business running while a file is being checked. So the signature is read off the syntax tree.

For a class, ports are the arguments of `forward` and parameters those of `__init__`; for a
function, ports are the positional arguments and parameters the keyword-only ones.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Any

from align_dsl.registry import Place, Registry
from align_dsl.types import Value, digest


class Port(Value):
    """One named, typed opening: what flows in comes from a step, or from the question itself."""

    name: str
    type: str
    optional: bool = False


class Param(Value):
    """One setting: its type, its default, and the values it may take."""

    name: str
    type: str  # int, float, str, bool, prompt, names, weights, any; of a step also scale
    default: Any = None
    required: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None


class Signature(Value):
    """All that the compiler knows of a plug-in."""

    name: str
    about: str
    ports: tuple[Port, ...]
    params: tuple[Param, ...]
    output: str
    version: str  # changes with the file, so that no stale answer is taken for a fresh one
    calls: int = 1  # model calls per job; 0 for what needs no model
    learns: bool = False  # whether it asks for labels: only the oracle does

    def param(self, name: str) -> Param | None:
        return next((p for p in self.params if p.name == name), None)


class Unreadable(Exception):
    """The plug-in's file does not hold what its name promises."""


def signature(registry: Registry[Any], name: str) -> Signature:
    return _read(registry.place(name))


@lru_cache(maxsize=256)
def _read(place: Place) -> Signature:
    try:
        text = place.path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable(f"{place.path}: {error}") from None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == place.name:
            return _of_class(node, _version(place, text))
        if isinstance(node, ast.FunctionDef) and node.name == place.name:
            return _of_function(node, _version(place, text))
    raise Unreadable(f"{place.path} defines no `{place.name}`")


def _version(place: Place, text: str) -> str:
    shared = sorted(place.path.parent.glob("_[a-z]*.py"))
    return digest("".join([text, *(p.read_text(encoding="utf-8") for p in shared)]))[:12]


def _of_class(node: ast.ClassDef, version: str) -> Signature:
    methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    if "forward" not in methods:
        raise Unreadable(f"the class `{node.name}` has no method `forward`")
    forward, init = methods["forward"], methods.get("__init__")
    calls = 1
    for item in node.body:
        match item:
            case ast.AnnAssign(target=ast.Name(id="calls"), value=ast.Constant(value=int(n))):
                calls = n
            case ast.Assign(targets=[ast.Name(id="calls")], value=ast.Constant(value=int(n))):
                calls = n
    ports = tuple(_port(a, d) for a, d in _arguments(forward)[1:])
    params = tuple(_param(a, d) for a, d in _arguments(init)[1:]) if init else ()
    return Signature(
        name=node.name,
        about=_first_line(node),
        ports=ports,
        params=params,
        output=_name(forward.returns),
        version=version,
        calls=calls,
        learns=any(p.type == "Labels" for p in ports),
    )


def _of_function(node: ast.FunctionDef, version: str) -> Signature:
    positional = [*node.args.posonlyargs, *node.args.args]
    missing = len(positional) - len(node.args.defaults)
    defaults = [None] * missing + list(node.args.defaults)
    return Signature(
        name=node.name,
        about=_first_line(node),
        ports=tuple(_port(a, d) for a, d in zip(positional, defaults, strict=True)),
        params=tuple(
            _param(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        ),
        output=_name(node.returns),
        version=version,
        calls=0,
    )


def _first_line(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _arguments(node: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    positional = [*node.args.posonlyargs, *node.args.args]
    missing = len(positional) - len(node.args.defaults)
    pairs = list(zip(positional, [None] * missing + list(node.args.defaults), strict=True))
    return pairs + list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))


def _port(argument: ast.arg, default: ast.expr | None) -> Port:
    return Port(name=argument.arg, type=_name(argument.annotation), optional=default is not None)


def _name(annotation: ast.expr | None) -> str:
    match annotation:
        case None:
            return "any"
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Constant(value=str(name)):
            return name
        case ast.BinOp(left=left):  # `Target | None`: what matters is what comes when it comes
            return _name(left)
        case _:
            return ast.unparse(annotation)


def _param(argument: ast.arg, default: ast.expr | None) -> Param:
    kind, low, high, choices = _constraint(argument.annotation)
    value: Any = None
    if default is not None:
        try:
            value = ast.literal_eval(default)
        except ValueError:
            value = None  # a constant of the file, such as a default prompt: its own business
        value = list(value) if isinstance(value, tuple) else value
    return Param(
        name=argument.arg,
        type=kind,
        default=value,
        required=default is None,
        low=low,
        high=high,
        choices=choices,
    )


_PLAIN = {
    "int": "int",
    "float": "float",
    "str": "str",
    "bool": "bool",
    "Prompt": "prompt",
    "AttributeWeights": "weights",
}


def _constraint(
    annotation: ast.expr | None,
) -> tuple[str, float | None, float | None, tuple[Any, ...] | None]:
    match annotation:
        case ast.Name(id=name) if name in _PLAIN:
            return _PLAIN[name], None, None, None
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            options = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return "str", None, None, tuple(ast.literal_eval(o) for o in options)
        case ast.Subscript(value=ast.Name(id="tuple")):
            return "names", None, None, None
        case ast.Subscript(
            value=ast.Name(id="Annotated"),
            slice=ast.Tuple(elts=[inner, ast.Call(func=ast.Name(id="Range"), args=bounds)]),
        ):
            kind, *_ = _constraint(inner)
            low, high = (ast.literal_eval(b) for b in bounds)
            return kind, low, high, None
        case ast.BinOp(left=inner, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _constraint(inner)
    return "any", None, None, None
