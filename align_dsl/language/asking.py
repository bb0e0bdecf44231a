"""What a step says of how it asks -> its temperature, its scale, its definitions, each checked.

They change a question and not what it is about; so they are fields of any step that asks a model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from align_dsl.language.attributes import sound_scale
from align_dsl.language.complaint import described
from align_dsl.language.program import Step
from align_dsl.language.schema import ScaleDeclaration, StepDeclaration
from align_dsl.language.settings import fits
from align_dsl.language.signature import Param, Signature
from align_dsl.language.source import Path
from align_dsl.language.work import Given, Work
from align_dsl.types import Scale

OWN = "own"  # the scale that each attribute has by itself
WARMTH = Param(name="temperature", type="float", low=0, high=2)


def asking(
    work: Work, step: StepDeclaration, at: Path, algorithm: Signature, takes: Mapping[str, str]
) -> dict[str, Any]:
    """The fields of a `Step` of which it says something."""
    said: dict[str, Any] = {}
    for name, given in (
        ("temperature", step.temperature),
        ("scale", step.scale),
        ("definitions", step.definitions),
    ):
        place = (*at, name)
        if place not in work.source.values or given is None:
            continue
        if does_nothing := _why_not(name, algorithm, takes.values()):
            work.found.error(work.source.key(place), does_nothing, f"delete `{name}`")
        elif (one := work.follow(given, work.source.at(place))) is not None:
            work.note(f"{step.name}.{name}", one.span)
            said[name] = _READ[name](work, one, place)
    return {name: value for name, value in said.items() if value is not None}


def can_say(step: Step) -> tuple[str, ...]:
    """What there is to say of how a step asks."""
    names = ("temperature", "scale", "definitions")
    return tuple(n for n in names if not _why_not(n, step.algorithm, step.takes.values()))


def _why_not(name: str, algorithm: Signature, sees: Collection[str]) -> str:
    """Why it would do nothing to say this of a step that uses this algorithm."""
    if not algorithm.calls:
        return f"`{algorithm.name}` asks no model, so `{name}` does nothing"
    if name == "scale" and "attribute" not in sees:
        return f"`{algorithm.name}` rates no single attribute, so `scale` does nothing"
    if name == "definitions" and not {"attribute", "attributes"} & {*sees}:
        return f"`{algorithm.name}` sees no attribute, so `definitions` does nothing"
    return ""


def _temperature(work: Work, given: Given, at: Path) -> float | None:
    return float(given.value) if fits(work, WARMTH, given) else None


def _scale(work: Work, given: Given, at: Path) -> Scale | None:
    if given.value == OWN:
        return None
    try:
        declared = ScaleDeclaration.model_validate(given.value)
    except ValidationError:  # a parameter's value: of what stands here, the shape was checked
        said = f"`{given.name or 'scale'}` is no scale: {described(given.value)}"
        work.found.error(given.span, said, "write `own`, or for instance {low: 1, high: 5}")
        return None
    return sound_scale(declared, lambda key: work.value_of(given, at, key), work.found)


def _definitions(work: Work, given: Given, at: Path) -> dict[str, str] | None:
    if not isinstance(given.value, dict):
        said = f"`{given.name or 'definitions'}` must be a mapping, not {described(given.value)}"
        work.found.error(given.span, said, "write `ATTRIBUTE: what it is, in other words`")
        return None
    found = {}
    for name, one in work.follow_each(given, at).items():
        sound = work.is_attribute(name, work.key_of(given, at, name))
        if fits(work, Param(name=one.name or name, type="str"), one) and sound:
            found[name] = one.value
            if not one.value.strip():
                said = f"`{one.name or name}` is empty"
                work.found.error(one.span, said, "write a few words")
    return found


_READ = {"temperature": _temperature, "scale": _scale, "definitions": _definitions}


def written(scale: Scale | None) -> Any:
    """A scale as a file says it, always alike.

    >>> written(Scale(low=1, high=5)), written(None)
    ({'low': 1, 'high': 5}, 'own')
    """
    if scale is None:
        return OWN
    said = {"low": scale.low, "high": scale.high, "step": scale.step}
    plain = {k: int(v) if v == int(v) else v for k, v in said.items()}
    return {k: v for k, v in plain.items() if (k, v) != ("step", 1)}
