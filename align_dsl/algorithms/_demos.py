"""An exemplar -> what it looks like as a worked example of one question.

The answer is in the very form that the question asks for. Choices without a label are left out of
the example rather than given a number that nobody wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align_dsl.language.wording import letter
from align_dsl.types import Attribute, Attributes, Choice, Exemplar, Scenario, Target


@dataclass(frozen=True, slots=True)
class _Shown:
    """One choice of an exemplar: its letter there, its labels, and the reasons given for them."""

    choice: Choice
    labels: dict[str, float]
    reasons: dict[str, str]

    def because(self, attribute: Attribute, subject: str) -> str:
        own = self.reasons.get(attribute.name)
        return own or f"{subject} is {degree(self.labels[attribute.name])}."


def ratings_demo(exemplar: Exemplar, attribute: Attribute) -> dict[str, Any]:
    shown = _labelled(exemplar, (attribute.name,))
    said = " ".join(s.because(attribute, s.choice.id) for s in shown)
    return {
        "scenario": _scenario(exemplar, shown),
        "attribute": attribute,
        "because": f"On {attribute.title}: {said}",
        "ratings": {s.choice.id: _number(s, attribute) for s in shown},
    }


def weighing_demos(exemplar: Exemplar, attribute: Attribute) -> list[dict[str, Any]]:
    shown = _labelled(exemplar, (attribute.name,))
    scenario = _scenario(exemplar, shown)
    return [
        {
            "scenario": scenario,
            "attribute": attribute,
            "rate": s.choice.id,
            "rating": _number(s, attribute),
        }
        for s in shown
    ]


def rating_demos(exemplar: Exemplar, attribute: Attribute) -> list[dict[str, Any]]:
    return [
        {
            "scenario": _scenario(exemplar, []),
            "attribute": attribute,
            "choice": s.choice,
            "because": s.because(attribute, f"On {attribute.title} this choice"),
            "rating": _number(s, attribute),
        }
        for s in _labelled(exemplar, (attribute.name,))
    ]


def pick_demo(exemplar: Exemplar, target: Target, attributes: Attributes) -> dict[str, Any] | None:
    """The choice that the labels put nearest to the target; None where they cannot tell."""
    shown = _labelled(exemplar, tuple(target.values))
    if len(shown) < 2:
        return None
    far = [sum((s.labels[n] - v) ** 2 for n, v in target.values.items()) for s in shown]
    best = [s for s, distance in zip(shown, far, strict=True) if distance <= min(far) + 1e-9]
    if len(best) != 1:
        return None
    because = " ".join(best[0].because(a, f"On {a.title} {best[0].choice.id}") for a in attributes)
    because += " Of all the choices it comes nearest to where this person stands."
    return {
        "scenario": _scenario(exemplar, shown),
        "target": target,
        "attributes": attributes,
        "because": because,
        "choice": best[0].choice.id,
    }


def degree(value: float) -> str:
    for limit, word in ((0.1, "very low"), (0.4, "low"), (0.6, "in the middle"), (0.9, "high")):
        if value <= limit:
            return word
    return "very high"


def _labelled(exemplar: Exemplar, names: tuple[str, ...]) -> list[_Shown]:
    """The choices that are labelled on all of these attributes, under fresh letters."""
    kept = [
        c
        for c in exemplar.scenario.choices
        if all(n in exemplar.labels.get(c.id, {}) for n in names)
    ]
    return [
        _Shown(
            Choice(id=letter(i), text=c.text), exemplar.labels[c.id], exemplar.reasons.get(c.id, {})
        )
        for i, c in enumerate(kept)
    ]


def _scenario(exemplar: Exemplar, shown: list[_Shown]) -> Scenario:
    return Scenario(id="", text=exemplar.scenario.text, choices=tuple(s.choice for s in shown))


def _number(shown: _Shown, attribute: Attribute) -> float:
    return attribute.scale.written(shown.labels[attribute.name])
