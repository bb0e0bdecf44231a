"""Answers every question with its first choice and the middle of the scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from align_dsl.language.program import Model
from align_dsl.types import Label, LabelledNumbers, ScaleNumber, Scenario


class parrot(dspy.Adapter):
    """A model without a mind; `model: parrot:WORDS`, whatever it is asked."""

    note = "parrot: no LLM"
    concurrency = 1

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.words = model.address
        self.lm = dspy.utils.DummyLM([])

    @property
    def adapter(self) -> parrot:
        return self

    def fingerprint(self) -> str:
        return f"parrot 1 {self.words}"

    def probe(self) -> None: ...

    def close(self) -> None: ...

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Sequence[Mapping[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        scenario = next((v for v in inputs.values() if isinstance(v, Scenario)), None)
        letters = [c.id for c in scenario.choices] if scenario else []
        answers = {
            Label: letters[0] if letters else "A",
            LabelledNumbers: dict.fromkeys(letters, 5.0),
            ScaleNumber: 5.0,
        }
        fields = signature.output_fields
        return [{n: answers.get(f.annotation, self.words) for n, f in fields.items()}]
