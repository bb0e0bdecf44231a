"""Who writes instructions: the model of `propose:`, or the decider's own.

It is asked for one text at a time, and whatever it answers is that text. So no answer is of a wrong
form, of however small a model, and no server is asked to hold one to a form.
"""

from __future__ import annotations

from dataclasses import dataclass

from dspy.lm15 import Config, Message, Request, TextPart

from align_dsl.backends import Backend, open_backend
from align_dsl.engine.adapter import NoAnswer
from align_dsl.engine.prompt import sayable
from align_dsl.errors import PlanError, visible
from align_dsl.language.program import Model
from align_dsl.optimize.asking import asked
from align_dsl.optimize.task import Ready
from align_dsl.records.record import Answer
from align_dsl.types import Failure

TOKENS = 1024  # that a text may have, where the model's own limit is lower


@dataclass(frozen=True, slots=True)
class Author:
    """A model that writes."""

    model: Model
    backend: Backend
    is_own: bool  # the decider's own as well, which others close

    @property
    def who(self) -> str:
        """What stands behind its name: part of the key of all that it writes."""
        return f"{self.model.identity()} {self.backend.fingerprint()}"

    @property
    def tokens(self) -> int:
        return max(self.model.max_tokens, TOKENS)

    def text(self, key: str, task: str, question: str, warmth: float | None) -> Answer:
        """One text, or why there is none. The key is also its seed."""
        lm = self.backend.lm
        request = Request(
            model=lm.model,
            system=task,
            messages=(Message(role="user", parts=(TextPart(text=question),)),),
            config=Config(seed=int(key[:7], 16), temperature=warmth, max_tokens=self.tokens),
        )

        def ask() -> str:
            response = lm.engine.complete(request)
            text = sayable(response.message.text or "").strip()
            if response.finish_reason == "length":
                said = "the text was cut off at the token limit; raise `max_tokens`"
                raise NoAnswer(Failure(status="truncated", message=said, raw=text))
            return text

        return asked(key, ask)

    def close(self) -> None:
        if not self.is_own:
            self.backend.close()


def author_of(made: Ready) -> Author:
    """Open it. Raises PlanError where it does not write."""
    propose = made.optimize.propose
    model = made.loaded.program.model(propose.model) if propose else made.model
    own = made.backends.get(model.name)
    author = Author(model, own if own is not None else open_backend(model), own is not None)
    if not _writes(author.backend):
        author.close()
        who = "`propose`" if made.searches else f"`method: {made.optimize.method}`"
        raise PlanError(
            f"error: {who} needs a model that writes, and `{visible(model.name)}` does not\n"
            "  = name one: `propose: {model: ollama_chat/llama3.2:3b}` under `optimize:`"
        )
    return author


def _writes(backend: Backend) -> bool:
    """Whether a model can be asked for free text."""
    answers = hasattr(getattr(backend.lm, "engine", None), "complete")
    return answers and bool(getattr(backend, "writes", True))
