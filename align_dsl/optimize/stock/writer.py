"""What an optimizer of DSPy wants written -> free text of a model.

DSPy asks for one text at a time: a description, an instruction. Whatever comes back is that text,
so no answer is of a wrong form, of however small a model. Where nothing comes, or it is cut off,
the instruction that there is stays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import dspy
from pydantic import BaseModel

from align_dsl.engine.module import reads_words
from align_dsl.errors import PlanError
from align_dsl.optimize.author import Author, author_of
from align_dsl.optimize.stock.memory import FORMAT, Memory
from align_dsl.optimize.task import Ready
from align_dsl.types import digest

NOW = ("current_instruction", "basic_instruction", "instruction")  # where the old one stands
LONGEST = 24_000  # characters of one input; examples of a data set can be any number of pages


def rewords(made: Ready) -> bool:
    """Whether instructions can matter: an embedded model reads none."""
    (backend,) = made.backends.values()
    return made.optimize.method != "bootstrap" and reads_words(backend.adapter)


def writer_of(made: Ready, memory: Memory) -> Writer:
    """Raises PlanError where nobody can write, or nobody would read it."""
    if rewords(made):
        return Writer(memory, author_of(made))
    if made.optimize.method == "gepa":
        raise PlanError(
            f"error: `method: gepa` writes instructions, and `{made.model.name}` reads none\n"
            "  = use `method: bootstrap` or `mipro`, or another model: --model NAME"
        )
    return Writer(memory, None)


class Writer(dspy.Adapter):
    """Asks a model for text. Without an author nothing is written, and every instruction stays."""

    def __init__(self, memory: Memory, author: Author | None) -> None:
        super().__init__()
        self.memory, self.author = memory, author
        self.times: Counter[str] = Counter()

    def __deepcopy__(self, memo: object) -> Writer:
        return self

    def close(self) -> None:
        if self.author is not None:
            self.author.close()

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Any,
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        now = next((str(inputs[name]) for name in NOW if inputs.get(name)), "")
        wished = {**getattr(lm, "kwargs", {}), **lm_kwargs}
        text = self._written(self.author, wished, signature, inputs) if self.author else ""
        return [dict.fromkeys(signature.output_fields, text or now or "(nothing)")]

    def _written(
        self, author: Author, wished: Mapping[str, Any], signature: Any, inputs: Mapping[str, Any]
    ) -> str:
        task, question = _task(signature), _question(signature, inputs)
        warmth = wished.get("temperature")
        said = json.dumps([FORMAT, author.who, task, question, warmth, wished.get("rollout_id")])
        # the same question again wants another answer, and the same one when all begins anew
        self.times[said] += 1
        key = digest(f"{said} {self.times[said]}")
        answer = self.memory.answer(key, lambda: author.text(key, task, question, warmth))
        return "" if answer.failure else str(answer.output)


def _task(signature: Any) -> str:
    (*_, (name, field)) = signature.output_fields.items()
    wanted = (field.json_schema_extra or {}).get("desc", "")
    wanted = name.replace("_", " ") if wanted.startswith("${") or not wanted else wanted
    return (
        f"{signature.instructions}\n\nWrite this: {wanted}\n"
        "Write nothing before it and nothing after it. Words in braces, such as {attribute}, are "
        "filled in later: keep them as they are."
    )


def _question(signature: Any, inputs: Mapping[str, Any]) -> str:
    parts = []
    for name in signature.input_fields:
        if inputs.get(name):
            parts.append(f"{name.replace('_', ' ').capitalize()}:\n{_text(inputs[name])}")
    return "\n\n".join(parts) or "Begin."


def _text(value: Any) -> str:
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, indent=1, default=_said)
    return value if len(value) <= LONGEST else f"{value[:LONGEST]} ..."


def _said(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
