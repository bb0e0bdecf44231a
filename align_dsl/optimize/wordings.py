"""What a model is asked for other wordings of instructions -> those of its texts that can be tried.

One request for one setting, held to a schema. What cannot be tried is refused, and counted by why.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy.lm15 import Config as LmConfig
from dspy.lm15 import Message, Request, TextPart

from align_dsl.backends import Backend
from align_dsl.engine.adapter import NoAnswer
from align_dsl.engine.prompt import sayable, tokens
from align_dsl.errors import CompileError
from align_dsl.language.program import Model
from align_dsl.language.space import WORDING
from align_dsl.language.tunable import Tunable
from align_dsl.language.wording import FIELDS, fields_in
from align_dsl.optimize.mistakes import LONGEST, Mistake
from align_dsl.optimize.stock.memory import asked
from align_dsl.optimize.task import Ready
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Failure, digest

FORMAT = 1  # counts up when other questions are asked
KEY = "wordings"  # under which a study keeps them
SHOWN = 6  # cases that were decided wrongly
LIVELY = 0.7  # temperature; the same question has one answer, whose texts are to differ
ROOM = 1.5  # how much longer a wording may be than the present one, in tokens that are allowed for
TOO_LONG = 4  # times the present length, and it is no wording any more
COPIED = 8  # words in a row that may not come from a case


@dataclass(frozen=True, slots=True)
class Wordings:
    """What a model came up with for one setting."""

    texts: tuple[str, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)  # why -> how many
    why: str = ""  # where it came up with nothing at all


@dataclass(frozen=True, slots=True)
class Heard:
    texts: tuple[str, ...]
    why: str  # where there are none
    shown: tuple[Mistake, ...]
    calls: int = 0  # that were paid just now
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """One request for wordings of one setting."""

    task: str
    question: str
    count: int
    room: int  # tokens of an answer
    shown: tuple[Mistake, ...]

    @classmethod
    def of(cls, made: Ready, t: Tunable, shown: Sequence[Mistake]) -> Question:
        assert made.optimize.propose is not None
        count = made.optimize.propose.count
        now = present(made, t)
        room = count * (ROOM * tokens(now) + 40) + 100
        return cls(_task(now, count), _question(made, now, shown), count, int(room), (*shown,))

    @property
    def schema(self) -> dict[str, Any]:
        texts = {"type": "array", "items": {"type": "string"}}
        return {
            "type": "object",
            "properties": {KEY: {**texts, "minItems": self.count, "maxItems": self.count}},
            "required": [KEY],
            "additionalProperties": False,
        }

    def ask(self, made: Ready, model: Model, backend: Backend) -> Heard:
        """What is said, from the store where it is known."""
        who = f"{model.identity()} {backend.fingerprint()}"
        key = digest(json.dumps([FORMAT, who, self.task, self.question, self.count]))
        store = made.train.store
        answer, is_new = store.known([key]).get(key), False
        if answer is None:
            is_new = True
            answer, _ = asked(key, lambda: {KEY: self._said(model, backend, int(key[:7], 16))})
            if answer.failure is None or answer.failure.status not in ("timeout", "unreachable"):
                store.put([answer])  # the rest says nothing of the question
        why = f"{answer.failure.status}: {answer.failure.message}" if answer.failure else ""
        texts = () if why else tuple(answer.output[KEY])
        read = answer.prompt_tokens + answer.completion_tokens
        return Heard(texts, why, self.shown, *((answer.calls, read) if is_new else ()))

    def _said(self, model: Model, backend: Backend, seed: int) -> list[str]:
        lm = backend.lm
        request = Request(
            model=lm.model,
            system=self.task,
            messages=(Message(role="user", parts=(TextPart(text=self.question),)),),
            config=LmConfig(
                seed=seed,
                temperature=max(LIVELY, model.temperature),
                max_tokens=max(model.max_tokens, self.room),
                response_format={
                    "type": "json_schema",
                    "name": "answer",
                    "strict": True,
                    "schema": self.schema,
                },
            ),
        )
        response = lm.engine.complete(request)
        text = sayable(response.message.text or "")
        if response.finish_reason == "length":
            said = "the answer was cut off at the token limit; raise `max_tokens`, or ask for fewer"
            raise NoAnswer(Failure(status="truncated", message=said, raw=text))
        return _read(text, self.count)


def _read(text: str, count: int) -> list[str]:
    """The texts of an answer. Raises NoAnswer where it is not what was asked for."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    texts = said.get(KEY) if isinstance(said, dict) and said.keys() == {KEY} else None
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        message = f'the answer is not JSON of the form {{"{KEY}": [...]}}'
    elif len(texts) != count:
        message = f"the answer has {len(texts)} wordings, and {count} were asked for"
    else:
        return [sayable(one) for one in texts]
    raise NoAnswer(Failure(status="invalid", message=message, raw=text))


def present(made: Ready, t: Tunable) -> str:
    """The present wording, where the file leaves it to the algorithm as well."""
    if t.default is not None:
        return str(t.default)
    name = made.space.decider.step(t.places[0].partition(".")[0]).algorithm.name
    return str(inspect.signature(ALGORITHMS[name].__init__).parameters[WORDING].default)


def _needed(text: str) -> list[str]:
    """The fields of a wording, each once."""
    return [name for name in dict.fromkeys(fields_in(text)) if name in FIELDS]


def _task(now: str, count: int) -> str:
    fields = ", ".join(f"{{{name}}}" for name in _needed(now))
    kept = (
        f"Words in braces are filled in later. Every wording holds each of these, written exactly "
        f"so: {fields}. Nothing else stands in braces.\n"
        if fields
        else "Nothing stands in braces.\n"
    )
    return (
        "A language model is given instructions for one step of deciding as a certain person "
        f"would. Write {count} other wordings of these instructions, with which it would make "
        "fewer mistakes. Each asks for the same in the same form, and is complete, as it stands "
        "in place of the present one. Let them differ in what they explain, in what they warn of "
        "and in length.\n"
        f"{kept}"
        "Speak of no single situation: all will be decided with the same words.\n\n"
        "Answer with JSON of this form and nothing else:\n"
        f'{{"{KEY}": ["...", "...", ...]}}\n'
        f"There are exactly {count} texts."
    )


def _question(made: Ready, now: str, shown: Sequence[Mistake]) -> str:
    program = made.loaded.program
    used = {name for target in program.targets for name in target.values}
    attributes = [a for a in program.attributes if a.name in used]
    parts = [f"Present instructions:\n{now}"]
    about = "\n".join(
        f"- {a.title}: {a.about}\n  Low end: {a.low}\n  High end: {a.high}" for a in attributes
    )
    parts.append(f"What is to be judged with them:\n{about}")
    if shown:
        told = "\n\n".join(f"{i}. {m.told(attributes)}" for i, m in enumerate(shown, start=1))
        parts.append(f"What went wrong with them (numbers from 0, low, to 1, high):\n\n{told}")
    else:
        parts.append("Nothing went wrong with them so far.")
    return "\n\n".join(parts)


# --- what is kept of it ---------------------------------------------------------------------------


def sifted(made: Ready, t: Tunable, heard: Heard) -> Wordings:
    if heard.why:
        return Wordings(why=heard.why)
    known = next((d.values or () for d in made.space.dimensions if d.name == t.name), ())
    now = present(made, t)
    taken = {_plain(text) for text in (now, *(one for one in known if one is not None))}
    texts, refused = [], Counter[str]()
    for said in heard.texts:
        text = "".join(c for c in said if c.isprintable() or c in "\n\t").strip()
        why = _wrong(made, (t.name, now), text, taken, heard.shown)
        if why:
            refused[why] += 1
        else:
            texts.append(text)
            taken.add(_plain(text))
    return Wordings(tuple(texts), dict(refused))


def _wrong(
    made: Ready, setting: tuple[str, str], text: str, taken: set[str], shown: Sequence[Mistake]
) -> str:
    """Why a wording cannot be tried; empty where it can."""
    name, now = setting
    if not text:
        return "empty"
    if _plain(text) in taken:
        return "said before"
    if lost := [f"{{{one}}}" for one in _needed(now) if one not in fields_in(text)]:
        return f"without {', '.join(lost)}"
    if len(text) > TOO_LONG * max(LONGEST, len(now)):
        return "far too long"
    if _copies(text, now, shown):
        return "with the words of a case"
    try:
        made.space.program({**made.space.default, name: text})
    except CompileError as error:
        wrong = next(d for d in error.diagnostics if d.severity == "error")
        return f"that would not compile ({wrong.message})"
    return ""


def _copies(text: str, now: str, shown: Sequence[Mistake]) -> bool:
    """Whether a case is quoted: it would be recognised, rather than judged."""
    cases = (m.case.scenario for m in shown)
    theirs = (said for c in cases for said in (c.text, *(one.text for one in c.choices)))
    return bool({r for said in theirs for r in _runs(said)} & (_runs(text) - _runs(now)))


def _runs(text: str) -> set[str]:
    words = _plain(text).split()
    return {" ".join(words[i : i + COPIED]) for i in range(len(words) - COPIED + 1)}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
