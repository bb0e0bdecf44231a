"""Answers from a file, for tests and demonstrations: `model: scripted:answers.jsonl`.

Each line is one answer; the first that matches is given. What a line leaves out matches anything:

{"scenario": "exact text", "attribute": "fairness",
 "ratings": {"text of a choice": 7}}        numbers on the attribute's scale
{"choice": "text of a choice"}              for steps that pick
{"raw": "anything at all", "finish": "length"}
{"fail": "timeout", "message": "..."}

`"seconds": 0.2` makes an answer take its time; `"told": "be brief"` is matched only where the
instructions hold these words, so that a wording can matter.

{"says": "any text", "asked": "part of the question"}

is for whoever wants free text, such as an optimizer that has instructions written. Of several that
match, the question and its seed decide which is said.

Answers are written out as JSON and read back as strictly as those of a model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import dspy
from dspy.lm15 import Message, Response, TextPart, Usage
from pydantic import BaseModel, ConfigDict, ValidationError

from align_dsl.engine.adapter import TRAIL, NoAnswer, Trail, shape_of
from align_dsl.engine.prompt import Invalid, Shape, parse
from align_dsl.engine.silent import silent
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.types import Attribute, Choice, Failure, Scenario, digest


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    scenario: str | None = None
    attribute: str | None = None
    ratings: dict[str, float] | None = None
    choice: str | None = None
    because: str = ""
    raw: str | None = None
    finish: str = "stop"
    fail: str | None = None
    message: str = ""
    seconds: float = 0.0
    told: str | None = None
    says: str | None = None
    asked: str = ""


class scripted(dspy.Adapter):  # noqa: N801
    """Gives the answers of a file; a question without one is refused."""

    note = "scripted answers"
    concurrency = 1

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        try:
            self.script = Path(model.address).read_text(encoding="utf-8")
        except OSError as error:
            raise BackendError(f"{model.address} cannot be read: {error.strerror}") from None
        self.by_scenario: dict[str | None, list[Line]] = {}
        self.texts: list[Line] = []
        for number, line in enumerate(self.script.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                one = Line.model_validate_json(line)
            except ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"]
                raise BackendError(f"{model.address}:{number}: {said}") from None
            if one.says is not None:
                self.texts.append(one)
            else:
                self.by_scenario.setdefault(one.scenario, []).append(one)

    @property
    def reads_words(self) -> bool:
        """Whether it makes a difference how a question is put."""
        return any(one.told for lines in self.by_scenario.values() for one in lines)

    @property
    def writes(self) -> bool:
        """Whether it can be asked for free text."""
        return bool(self.texts)

    @property
    def adapter(self) -> Any:
        return self

    @cached_property
    def lm(self) -> Any:
        if self.writes:
            return dspy.LM("scripted/texts", engine=_Writer(self), cache=False, num_retries=0)
        return silent("scripted", "a scripted model answers typed questions only")

    def fingerprint(self) -> str:
        return digest(self.script)

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
        trail = TRAIL.get() or Trail()
        trail.calls += 1
        trail.constrained = "scripted"
        shape = shape_of(signature, inputs)
        line = self._find(inputs, signature.instructions)
        if line is None:
            raise NoAnswer(Failure(status="refused", message="no scripted answer matches"))
        time.sleep(line.seconds)
        if line.fail is not None:
            raise NoAnswer(
                Failure.model_validate({"status": line.fail, "message": line.message or line.fail})
            )
        trail.raw = line.raw if line.raw is not None else _written(line, shape, inputs)
        if line.finish == "length":
            said = "the answer was cut off at the token limit"
            raise NoAnswer(Failure(status="truncated", message=said, raw=trail.raw))
        try:
            return [parse(shape, trail.raw)]
        except Invalid as wrong:
            raise NoAnswer(Failure(status="invalid", message=str(wrong), raw=trail.raw)) from None

    def text(self, question: str, seed: int | None) -> str:
        """What is said to a question that asks for free text; nothing where no line matches."""
        fits = [one for one in self.texts if one.asked in question]
        fits = [one for one in fits if one.asked] or fits
        if not fits:
            return ""
        return fits[int(digest(f"{seed} {question}"), 16) % len(fits)].says or ""

    def _find(self, inputs: Mapping[str, Any], instructions: str = "") -> Line | None:
        scenario = next((v for v in inputs.values() if isinstance(v, Scenario)), None)
        attribute = next((v for v in inputs.values() if isinstance(v, Attribute)), None)
        text = scenario.text if scenario else None
        lines: list[Line] = [*self.by_scenario.get(text, []), *self.by_scenario.get(None, [])]
        for line in lines:
            names = (attribute.name, attribute.title) if attribute else ()
            if line.told is not None and line.told not in instructions:
                continue
            if line.attribute is None or line.attribute in names:
                return line
        return None


class _Writer:
    """What DSPy calls for free text."""

    supports_response_schema = False
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("temperature", "seed")

    def __init__(self, script: scripted) -> None:
        self.script = script

    def complete(self, request: Any) -> Any:
        if trail := TRAIL.get():
            trail.calls += 1
        question = "\n".join([request.system or "", *(m.text for m in request.messages)])
        said = self.script.text(question, request.config.seed)
        return Response(
            id=None,
            model=request.model,
            message=Message(role="assistant", parts=(TextPart(text=said),)),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0),
        )


def _written(line: Line, shape: Shape, inputs: Mapping[str, Any]) -> str:
    """The answer of a line as a model would have to write it."""
    texts: dict[str, str] = {}
    single = None
    for value in inputs.values():
        if isinstance(value, Scenario):
            texts = {c.id: c.text for c in value.choices}
        elif isinstance(value, Choice):
            single = value.text
    rated = line.ratings or {}
    said: dict[str, Any] = {}
    for name, kind in shape.outputs:
        match kind:
            case "text":
                said[name] = line.because
            case "label":
                said[name] = next((i for i, t in texts.items() if t == line.choice), line.choice)
            case "numbers":
                said[name] = {i: rated[t] for i, t in texts.items() if t in rated}
            case "number":
                said[name] = rated.get(single or "")
            case _:
                said[name] = None
    return json.dumps(said)
