"""The window of a question that Ollama is asked: how long it must be, and whether it was enough."""

from __future__ import annotations

from typing import Any

from align_dsl.engine.adapter import NoAnswer
from align_dsl.engine.limiter import Endpoint
from align_dsl.engine.prompt import Message, tokens
from align_dsl.engine.reply import Heard
from align_dsl.language.program import Model
from align_dsl.types import Failure

STEP = 2048  # tokens: with steps, Ollama seldom has to load a model anew


def window_for(said: list[Message], max_tokens: int, endpoint: Endpoint, model: Model) -> int:
    """A window that holds prompt and answer, no longer than the model's own. Raises NoAnswer."""
    least = _words(said) + 1
    need = sum(tokens(m["content"]) for m in said) * 1.3 + max_tokens + 64
    window = model.context or endpoint.window
    if window is not None and least > window:
        message = f"the question has at least {least:,} tokens, and the model reads {window:,}"
        raise NoAnswer(Failure(status="truncated", message=message))
    if model.context is not None:
        return model.context
    steps = int(STEP * -(-need // STEP))
    endpoint.context = max(endpoint.context, min(steps, window or steps))
    return endpoint.context


def is_whole(heard: Heard, said: list[Message], context: int) -> None:
    """Raises NoAnswer where a question was cut.

    Ollama before `truncate: false` cuts what is too long for its window, and says nothing. It keeps
    what fills the window, or about half of it. A count far below that is one of the tokens that
    were not in its cache, and tells nothing.
    """
    read = heard.prompt_tokens
    if read and (read >= context or 0.4 * context <= read < _words(said)):
        message = (
            f"the server read {read:,} tokens of a question that has at least {_words(said):,},"
            f" in a window of {context:,}; raise `context:` of the model, or show fewer exemplars"
        )
        raise NoAnswer(Failure(status="truncated", message=message, raw=heard.text))


def own_window(shown: Any) -> int | None:
    """The longest window that a model has, by what `/api/show` says of it."""
    about = shown.get("model_info") if isinstance(shown, dict) else None
    for name, value in about.items() if isinstance(about, dict) else ():
        if name.endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None


def _words(said: list[Message]) -> int:
    """Fewer tokens than this a text cannot have: no token goes over the end of a word."""
    return sum(len(m["content"].split()) for m in said)
