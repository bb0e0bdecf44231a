"""The window of a question that Ollama is asked: how long it must be, and whether it was enough."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterator

from align_dsl.engine.adapter import NoAnswer
from align_dsl.engine.limiter import Endpoint
from align_dsl.engine.prompt import CHARACTERS_PER_TOKEN, Message, tokens
from align_dsl.engine.reply import Heard
from align_dsl.language.program import Model
from align_dsl.types import Failure

STEP = 2048  # tokens: with steps, Ollama seldom has to load a model anew
ALLOWANCE = 1.3  # tokenizers differ
FRAME = 64  # tokens that a template may put around a question
LONGEST_FRAME = 512  # whatever a server says of that
SLACK = 8  # tokens more that a text may have for each part that it is cut into, and each message 1

_DENSE = re.compile(r"[!-`{-~]")  # digits, signs, capitals: often a token each

Count = Callable[[list[Message]], Awaitable[int]]
"""Asks how many tokens the server reads of a question."""


class TooNarrow(NoAnswer):
    """A question that was cut, or whose answer had no room: in a wider window it might not be."""


def window_for(said: list[Message], max_tokens: int, endpoint: Endpoint, model: Model) -> int:
    """A window that holds prompt and answer, no longer than the model's own. Raises NoAnswer."""
    least = _words(said) + 1
    own = [w for w in (model.context, endpoint.window) if w is not None]
    window = min(own, default=None)
    if window is not None and least > window:
        message = f"the question has at least {least:,} tokens, and the model reads {window:,}"
        raise NoAnswer(Failure(status="truncated", message=message))
    if model.context is not None:
        return min(own)
    steps = int(STEP * -(-(most(said) + max_tokens + FRAME) // STEP))
    endpoint.context = max(endpoint.context, min(steps, window or steps))
    return endpoint.context


def widen(endpoint: Endpoint, model: Model, context: int) -> bool:
    """Have twice the window asked for from now on, where the model has more; whether it has."""
    own = endpoint.window
    if model.context is not None or own is None or context >= own:
        return False
    endpoint.context = max(endpoint.context, min(2 * context, own))
    return True


async def hold(
    heard: Heard, said: list[Message], context: int | None, endpoint: Endpoint, count: Count
) -> None:
    """Raises TooNarrow where a question was cut. `context` is the window, where it is known.

    Ollama before `truncate: false` cuts what is too long for its window, and says nothing: it
    drops the oldest messages, or keeps about half of the last. What is left may be any number of
    tokens, and a tokenizer may need half of what was guessed. So where there is doubt, the server
    is first asked what it would have to refuse. If it does not, it counts the question part by
    part: together they have more tokens than it has read only if it was cut. Or if it leaves out
    what is in its cache, as some versions do: then a part counts for less when asked at once again.
    """
    read = heard.prompt_tokens
    if not read:
        return
    if context and read + heard.completion_tokens >= context:
        raise _cut(heard, f"which fills its window of {context:,}")
    if (most(said) <= context) if context else (read >= _words(said) and read >= _fair(said)):
        return
    if context and endpoint.refuses is None:
        endpoint.refuses = await _refuses(context, count)
    if endpoint.refuses:
        return
    frame = min(await count(_asking(".")), LONGEST_FRAME)
    whole, slack = frame, SLACK + len(said)
    for part in _parts(said, context or max(read, STEP // 2)):
        counted = await count(part)
        whole, slack = whole + counted - frame, slack + SLACK
        if whole > read + slack:
            if await count(part) > counted / 2:
                raise _cut(heard, f"of a question that has {whole:,} or more")
            return


async def _refuses(context: int, count: Count) -> bool:
    """Whether a server refuses what does not fit, rather than cut it."""
    try:
        await count(_asking("word," * context))
    except NoAnswer as no:
        return no.failure.status == "truncated"
    return False


def _cut(heard: Heard, why: str) -> TooNarrow:
    message = (
        f"the server read {heard.prompt_tokens:,} tokens, {why}; show fewer exemplars, or give the"
        " model a longer window"
    )
    return TooNarrow(Failure(status="truncated", message=message, raw=heard.text))


def most(said: list[Message]) -> float:
    """More tokens than a text of any kind is likely to have."""
    return sum(max(ALLOWANCE * tokens(m["content"]), _dense(m["content"])) for m in said)


def _dense(text: str) -> float:
    return tokens(text) + (1 - 1 / CHARACTERS_PER_TOKEN) * len(_DENSE.findall(text))


def _fair(said: list[Message]) -> float:
    """Fewer tokens than most texts have; other scripts than ASCII are guessed very high."""
    return sum(tokens(m["content"]) for m in said) / 3


def _words(said: list[Message]) -> int:
    """Fewer tokens than this a text seldom has: no token goes over the end of a word."""
    return sum(len(m["content"].split()) for m in said)


def _parts(said: list[Message], room: int) -> Iterator[list[Message]]:
    """What is asked, in questions that fit."""
    text = "\n".join(m["content"] for m in said)
    long = math.ceil(len(text) / math.ceil(most(said) / room))
    for start in range(0, len(text), long):
        yield _asking(text[start : start + long])


def _asking(text: str) -> list[Message]:
    """A question with a message of the system, in place of one that a model may bring along."""
    return [{"role": "system", "content": "."}, {"role": "user", "content": text}]
