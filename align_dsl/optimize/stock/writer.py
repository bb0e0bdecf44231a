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
from dspy.lm15 import Config, Request, TextPart
from dspy.lm15 import Message as LmMessage
from pydantic import BaseModel

from align_dsl.engine.adapter import NoAnswer
from align_dsl.engine.prompt import sayable
from align_dsl.optimize.stock.memory import FORMAT, Memory, asked
from align_dsl.records.record import Answer
from align_dsl.types import Failure, digest

NOW = ("current_instruction", "basic_instruction", "instruction")  # where the old one stands
TOKENS = 1024  # that a text may have, where the model's own limit is lower
LONGEST = 24_000  # characters of one input; examples of a data set can be any number of pages


class Writer(dspy.Adapter):
    """Asks a model for text. A `mute` one writes nothing, and every instruction stays."""

    def __init__(
        self, memory: Memory, who: str, *, mute: bool = False, tokens: int = TOKENS
    ) -> None:
        super().__init__()
        self.memory, self.who, self.mute, self.tokens = memory, who, mute, max(tokens, TOKENS)
        self.times: Counter[str] = Counter()

    def __deepcopy__(self, memo: object) -> Writer:
        return self

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Any,
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        now = next((str(inputs[name]) for name in NOW if inputs.get(name)), "")
        text = "" if self.mute else self._written(lm, lm_kwargs, signature, inputs)
        return [dict.fromkeys(signature.output_fields, text or now or "(nothing)")]

    def _written(
        self, lm: Any, lm_kwargs: Mapping[str, Any], signature: Any, inputs: Mapping[str, Any]
    ) -> str:
        wished = {**getattr(lm, "kwargs", {}), **lm_kwargs}
        task, question = _task(signature), _question(signature, inputs)
        warmth = wished.get("temperature")
        said = json.dumps([FORMAT, self.who, task, question, warmth, wished.get("rollout_id")])
        # the same question again wants another answer, and the same one when all begins anew
        self.times[said] += 1
        key = digest(f"{said} {self.times[said]}")
        request = Request(
            model=lm.model,
            system=task,
            messages=(LmMessage(role="user", parts=(TextPart(text=question),)),),
            config=Config(seed=int(key[:7], 16), temperature=warmth, max_tokens=self.tokens),
        )

        def ask() -> str:
            response = lm.engine.complete(request)
            if response.finish_reason == "length":
                said = "the text was cut off at the token limit; raise `max_tokens`"
                raise NoAnswer(Failure(status="truncated", message=said))
            return sayable(response.message.text or "").strip()

        def answered() -> Answer:
            return asked(key, ask)[0]

        answer = self.memory.answer(key, answered)
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
