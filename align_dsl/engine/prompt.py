"""A question in typed values -> messages and a JSON schema; an answer in text -> typed values.

Pure, and ignorant of DSPy and of servers. Stable text comes first (the task, then the exemplars),
the scenario last, so that servers can reuse what they have read. Schema and layout depend only on
the `Shape` of a question: one schema for each number of choices, built once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from align_dsl.language.wording import fill, stance
from align_dsl.types import Attribute, Choice, Scale, Scenario, Target

MOST_LISTED = 500  # numbers of a scale that a schema names one by one
UNIT = Scale(low=0, high=1, step=0.01)
"""What numbers are asked for where no attribute gives a scale."""

Kind = Literal["text", "label", "numbers", "number", "weights", "json"]
Message = dict[str, str]

CHARACTERS_PER_TOKEN = 3.6  # English prose with today's tokenizers; within a fifth of the truth
LONGEST_TEXT = 600  # characters of reasoning that a model may write before it must answer


def tokens(text: str) -> float:
    """How many tokens a text is likely to have; rather too many than too few.

    Other scripts than ASCII cost a token for each one or two characters.

    >>> round(tokens("a" * 360)), round(tokens("\u4e2d" * 100))
    (100, 178)
    """
    beyond = 0 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - len(text)
    return len(text) / CHARACTERS_PER_TOKEN + 0.75 * beyond


@dataclass(frozen=True, slots=True)
class Shape:
    """All that schema and layout of an answer depend on."""

    outputs: tuple[tuple[str, Kind], ...]
    labels: tuple[str, ...] = ()
    scale: Scale | None = None

    @property
    def weighs(self) -> bool:
        """Whether how probable each number is, is asked for, rather than for a number."""
        return len(self.outputs) == 1 and self.outputs[0][1] == "weights"


class Invalid(Exception):
    """An answer that is not what was asked for. The message is fit to be shown to the model."""


@lru_cache(maxsize=4096)
def schema(shape: Shape) -> dict[str, Any]:
    """JSON Schema of an answer; reasoning stands before what is reasoned about."""
    if shape.weighs:
        return _property("weights", shape)
    properties = {name: _property(kind, shape) for name, kind in shape.outputs}
    return closed(properties)


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _property(kind: Kind, shape: Shape) -> dict[str, Any]:
    match kind:
        case "text":
            return {"type": "string", "maxLength": LONGEST_TEXT}
        case "label":
            return {"type": "string", "enum": list(shape.labels)}
        case "numbers":
            return closed({label: _number(shape.scale) for label in shape.labels})
        case "number":
            return _number(shape.scale)
        case "weights":
            return {"enum": [_written(float(w), shape.scale) for w in written(shape.scale)]}
        case "json":
            return {}


def written(scale: Scale | None) -> tuple[str, ...]:
    """Every number of a scale as a model writes it, ascending.

    >>> written(Scale(low=0, high=1, step=0.5))
    ('0', '0.5', '1')
    """
    scale = scale or UNIT
    steps = round((scale.high - scale.low) / scale.step)
    numbers = (min(scale.high, scale.low + i * scale.step) for i in range(steps + 1))
    # sums of fractions miss 0 by a hair, which nobody could write
    return tuple(f"{0 if abs(n) < 1e-9 * scale.step else n:.10g}" for n in numbers)


def _number(scale: Scale | None) -> dict[str, Any]:
    scale = scale or UNIT
    # llama.cpp, and so Ollama, holds no fraction to a range; and a range says nothing of steps
    if not _takes_every_whole(scale) and len(numbers := written(scale)) <= MOST_LISTED:
        return {"enum": [json.loads(number) for number in numbers]}
    if scale.whole:
        return {"type": "integer", "minimum": int(scale.low), "maximum": int(scale.high)}
    return {"type": "number", "minimum": scale.low, "maximum": scale.high}


def _takes_every_whole(scale: Scale) -> bool:
    return scale.whole and scale.step == 1


def messages(
    instructions: str,
    shape: Shape,
    inputs: Mapping[str, Any],
    demos: Sequence[Mapping[str, Any]] = (),
) -> list[Message]:
    """The whole conversation that asks one question."""
    out: list[Message] = [{"role": "system", "content": system(instructions, shape, inputs)}]
    for demo in demos:
        out.append({"role": "user", "content": user(demo)})
        out.append({"role": "assistant", "content": answer(shape, demo)})
    out.append({"role": "user", "content": user(inputs)})
    return out


def system(instructions: str, shape: Shape, inputs: Mapping[str, Any]) -> str:
    """The task. Says nothing of the scenario, so it is the same for all scenarios of a step."""
    match [v for v in inputs.values() if isinstance(v, Attribute | Target)]:
        case []:
            return _task(instructions, shape, None)
        case [Attribute() as attribute]:
            return _task(instructions, shape, attribute)
    return f"{fill(instructions, fields(inputs))}\n\n{layout(shape)}"


@lru_cache(maxsize=512)
def _task(instructions: str, shape: Shape, attribute: Attribute | None) -> str:
    inputs = {"attribute": attribute} if attribute else {}
    return f"{fill(instructions, fields(inputs))}\n\n{layout(shape)}"


def layout(shape: Shape) -> str:
    """The form of the answer, in the order and spacing in which the schema will have it."""
    if shape.weighs:
        which = " of the choice that is named last" if shape.labels else ""
        return f"Answer with the number{which} and nothing else."
    parts = []
    for name, kind in shape.outputs:
        match kind:
            case "text":
                said = '"..."'
            case "label":
                said = '"LETTER"'
            case "numbers":
                said = '{"A": NUMBER, "B": NUMBER, ...}'
            case _:
                said = "NUMBER" if kind == "number" else "..."
        parts.append(f'"{name}": {said}')
    form = f"Answer with JSON of this form and nothing else:\n{{{', '.join(parts)}}}"
    kinds = {kind for _, kind in shape.outputs}
    if "label" in kinds:
        form += "\nLETTER is the letter of one choice."
    if kinds & {"numbers", "number"}:
        scale = shape.scale or UNIT
        whole = "a whole number" if scale.whole else "a number"
        by_one = shape.scale is None or _takes_every_whole(scale)
        steps = "" if by_one else f" in steps of {scale.step:g}"
        form += f"\nNUMBER is {whole} from {scale.low:g} to {scale.high:g}{steps}"
        form += "; every choice gets one." if "numbers" in kinds else "."
    return form


def fields(inputs: Mapping[str, Any]) -> dict[str, str]:
    """What the fields of a prompt stand for in this question."""
    filled: dict[str, str] = {}
    for value in inputs.values():
        if isinstance(value, Attribute):
            filled.update(_of_attribute(value))
        elif isinstance(value, Target):
            attributes = inputs.get("attributes") or ()
            filled["stance"] = "\n".join(_stance(a, value) for a in attributes)
    return filled


def _of_attribute(attribute: Attribute) -> dict[str, str]:
    scale = attribute.scale
    anchors = "\n".join(f"{number:g}: {said}" for number, said in attribute.anchors)
    return {
        "attribute": attribute.title,
        "definition": _definition(attribute),
        "high": attribute.high,
        "low": attribute.low,
        "includes": "; ".join(attribute.includes),
        "excludes": "; ".join(attribute.excludes),
        "anchors": f"{anchors}\n" if anchors else "",
        "lowest": f"{scale.low:g}",
        "highest": f"{scale.high:g}",
    }


def _definition(attribute: Attribute) -> str:
    said = attribute.about
    if attribute.includes:
        said += f"\nThis counts: {'; '.join(attribute.includes)}."
    if attribute.excludes:
        said += f"\nThis does not count: {'; '.join(attribute.excludes)}."
    return said


def _stance(attribute: Attribute, target: Target) -> str:
    """Where the target stands on one attribute. Both ends are shown whatever the value is."""
    value = target.values[attribute.name]
    if attribute.kind == "group":
        belongs = "belongs" if value >= 0.5 else "does not belong"
        return f"- {attribute.title}: the person {belongs} to this group. {attribute.about}"
    between = "This person stands between the two ends."
    leans = f"This person leans to the {'high' if value >= 0.5 else 'low'} end."
    lines = [
        f"- {attribute.title}: {stance(value)}, "
        f"{value:g} on a scale from 0 (low end) to 1 (high end)",
        attribute.about,
        f"Low end: {attribute.low}",
        f"High end: {attribute.high}",
        between if 0.4 < value <= 0.6 else leans,
    ]
    if len(set(target.weights.values()) | {1.0}) > 1:
        lines.append(
            f"Weight beside the other attributes: {target.weights.get(attribute.name, 1):g}"
        )
    return "\n  ".join(lines)


def user(inputs: Mapping[str, Any]) -> str:
    """The varying part: the scenario and its choices, exactly as written."""
    parts = []
    for name, value in inputs.items():
        match value:
            case Scenario():
                parts.append(f"Situation:\n{value.text}")
                if value.choices:
                    shown = "\n".join(f"{c.id}. {c.text}" for c in value.choices)
                    parts.append(f"Choices:\n{shown}")
            case Choice():
                parts.append(f"Choice:\n{value.text}")
            case Attribute() | Target():
                pass  # said in the task
            case str():
                if name not in OUTPUT_NAMES:
                    parts.append(f"{name.capitalize()}:\n{value}")
    return "\n\n".join(parts)


OUTPUT_NAMES = frozenset({"because", "choice", "rating", "ratings"})


def answer(shape: Shape, demo: Mapping[str, Any]) -> str:
    """An exemplar's answer, as valid JSON of the very schema that the question asks for."""
    scale = shape.scale
    if shape.weighs:
        return f"{demo[shape.outputs[0][0]]:.10g}"
    said: dict[str, Any] = {}
    for name, kind in shape.outputs:
        value = demo[name]
        if kind == "text":
            value = str(value)[:LONGEST_TEXT]
        elif kind == "numbers":
            value = {label: _written(number, scale) for label, number in value.items()}
        elif kind == "number":
            value = _written(value, scale)
        said[name] = value
    return json.dumps(said, ensure_ascii=False)


def _written(value: float, scale: Scale | None) -> int | float:
    return int(value) if scale is None or scale.whole else value


def sayable(text: str) -> str:
    """Text of a server as it can be written down: half a character has no bytes, so it is spelt."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def parse(shape: Shape, text: str) -> dict[str, Any]:
    """Read an answer strictly: the whole text, every key, every range. Raises Invalid."""
    if not text.strip():
        raise Invalid("the answer is empty")
    try:
        said = _decode(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the answer is not one JSON object: {_shown(error)}") from None
    if not isinstance(said, dict):
        raise Invalid("the answer is not a JSON object")
    expected = [name for name, _ in shape.outputs]
    if missing := [n for n in expected if n not in said]:
        raise Invalid(f"the answer lacks {', '.join(missing)}")
    if extra := sorted(said.keys() - set(expected)):
        known = ", ".join(expected)
        raise Invalid(f"the answer has {_shown(extra[0])}, but only {known} was asked for")
    return {name: _value(kind, name, said[name], shape) for name, kind in shape.outputs}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice, and Python would keep the last; which one was meant is unknown."""
    said = dict(pairs)
    if len(said) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{_shown(next(k for k in keys if keys.count(k) > 1))} is there twice")
    return said


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


_decode = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number).decode


def _shown(value: Any) -> str:
    """A value of a model's making, short and in characters that can be written down."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text[:80].encode("ascii", "backslashreplace").decode()


def _value(kind: Kind, name: str, value: Any, shape: Shape) -> Any:
    match kind:
        case "text":
            if not isinstance(value, str):
                raise Invalid(f"`{name}` is not text")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Invalid(f"`{name}` holds half a character, \\ud800 or the like") from None
            return value
        case "label":
            if value not in shape.labels:
                known = ", ".join(shape.labels)
                raise Invalid(f"`{name}` is {_shown(value)}, not one of {known}")
            return value
        case "number":
            return _on_scale(name, value, shape.scale)
        case "numbers":
            if not isinstance(value, dict) or value.keys() != set(shape.labels):
                raise Invalid(f"`{name}` must rate each of {', '.join(shape.labels)}, and no other")
            return {
                label: _on_scale(f"{name}.{label}", value[label], shape.scale)
                for label in shape.labels
            }
        case "weights":
            raise Invalid(f"`{name}` is asked for as probabilities, which no text can give")
        case "json":
            return value


def _on_scale(name: str, value: Any, scale: Scale | None) -> float:
    """A number as JSON Schema sees it: 7.0 is an integer, true is no number."""
    given, scale = scale, scale or UNIT
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"`{name}` is not a number")
    if not scale.low <= value <= scale.high:
        raise Invalid(f"`{name}` is {_shown(value)}, not from {scale.low:g} to {scale.high:g}")
    if scale.whole and float(value) != int(value):
        raise Invalid(f"`{name}` is {_shown(value)}, not a whole number")
    if given is None:
        return float(value)
    nearest = scale.low + round((value - scale.low) / scale.step) * scale.step
    if not math.isclose(value, nearest, rel_tol=1e-9, abs_tol=1e-9 * scale.step):  # ten digits
        steps = f"from {scale.low:g} to {scale.high:g} in steps of {scale.step:g}"
        raise Invalid(f"`{name}` is {_shown(value)}, not {steps}")
    return float(value)
