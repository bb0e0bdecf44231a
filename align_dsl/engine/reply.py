"""What a server sent back -> an answer in canonical form, whatever the dialect it came in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from align_dsl.engine.adapter import NoAnswer
from align_dsl.types import Failure

LONGEST_WAIT = 60.0  # seconds, whatever a server's Retry-After says


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent back, before anybody has looked at it."""

    status: int
    body: bytes
    retry_after: float | None = None
    server: str = ""  # what it calls itself


BROKEN_OFF = "broken off"


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer in canonical form, whatever the dialect it came in."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: Any = None  # as they came
    by: str = ""  # the model that answered, as the server calls it


class Complaint(Exception):
    """A server that says 200 and means an error."""


def read(data: Any, scrubbed: Callable[[str], str]) -> Heard:
    """What a server said, in OpenAI's dialect or in Ollama's. Raises what a wrong form raises."""
    if isinstance(data, dict) and (wrong := data.get("error")):
        said = wrong.get("message", wrong) if isinstance(wrong, dict) else wrong
        raise Complaint(scrubbed(str(said)))
    if "choices" in data:
        choice, usage = data["choices"][0], data.get("usage") or {}
        message, finish = choice["message"], str(choice.get("finish_reason") or "stop")
        logprobs = choice.get("logprobs")
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    else:
        message, finish = data["message"], str(data.get("done_reason") or "stop")
        logprobs = data.get("logprobs")
        counts = data.get("prompt_eval_count"), data.get("eval_count")
        if not data.get("done", False):
            finish = BROKEN_OFF
    tokens = _count(counts[0]), _count(counts[1])
    content = message.get("content")
    if content is None and (refusal := message.get("refusal")):
        raw = scrubbed(str(refusal))
        said = f"the model refused: {raw[:300]}"
        raise NoAnswer(Failure(status="refused", message=said, raw=raw), tokens)
    if content is not None and not isinstance(content, str):
        raise TypeError("the content is not text")
    text = scrubbed(content or "")
    if finish == "content_filter":
        said = "the provider's content filter ended the answer"
        raise NoAnswer(Failure(status="refused", message=said, raw=text), tokens)
    if finish == BROKEN_OFF:
        said = "the server broke the answer off: Ollama does so where a model repeats itself"
        raise NoAnswer(Failure(status="truncated", message=said, raw=text), tokens)
    by = data.get("model")
    return Heard(
        text,
        finish,
        *tokens,
        logprobs,
        scrubbed(by)[:200] if isinstance(by, str) else "",
    )


def plain(answer: Any) -> dict[str, Any]:
    """What litellm's answer says that `read` asks for; to dump all of it may warn."""
    choice, usage = answer.choices[0], getattr(answer, "usage", None)
    message = {
        "content": choice.message.content,
        "refusal": getattr(choice.message, "refusal", None),
    }
    names = ("prompt_tokens", "completion_tokens")
    return {
        "choices": [{"message": message, "finish_reason": choice.finish_reason}],
        "usage": {name: getattr(usage, name, None) for name in names},
    }


def _count(said: Any) -> int:
    return said if isinstance(said, int) and said > 0 else 0


def seconds_of(written: str | None) -> float | None:
    """Retry-After, which is seconds or a date."""
    if not written:
        return None
    try:
        seconds = float(written)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(written).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(LONGEST_WAIT, max(0.0, seconds)) if seconds == seconds else None


def header_of(error: Exception, name: str) -> str | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return headers.get(name)
