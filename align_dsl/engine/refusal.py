"""What a server says instead of an answer: how it is with it, and what becomes of the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from align_dsl.engine.adapter import NoAnswer, NotNow
from align_dsl.engine.limiter import Endpoint, How
from align_dsl.engine.quirks import is_too_long
from align_dsl.engine.reply import Reply
from align_dsl.types import Failure

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
TOO_MUCH = frozenset({408, 429, 503, 504})  # of these it is said: fewer at once
AT_ONCE = frozenset({429, 503})  # said sooner than any answer: who says it would get all the work
UNHEARD = frozenset({502, 504})  # said by somebody in between, of a server that says nothing
TURNED_AWAY = frozenset({401, 403, 404, 405})  # whatever is asked: no fault of the question
LOADING = b"loading"  # as in "Loading model", which llama.cpp says with a 503


def is_loading(reply: Reply) -> bool:
    """Whether a server will answer, once it has loaded its model."""
    return reply.status == 503 and LOADING in reply.body.lower()


def is_a_no(reply: Reply) -> bool:
    """Whether a server turns away whatever it is asked."""
    return reply.status in TURNED_AWAY or 300 <= reply.status < 400


def mood(
    reply: Reply, text: str, endpoint: Endpoint, all_: Sequence[Endpoint]
) -> tuple[How, float | None]:
    """How it is with a server, and how long it wants to be left alone. Where others can be asked,
    one that refuses rests: it would be free again sooner than any other, and get all the work."""
    others = [e for e in all_ if e is not endpoint]
    if is_a_no(reply):
        return ("unsaid" if all(e.gone for e in others) else "down"), None
    if reply.status in TOO_MUCH:
        if reply.status in AT_ONCE and reply.retry_after is None:
            return ("down" if others else "full"), None
        return "busy", reply.retry_after
    if reply.status < 500 or is_too_long(text):
        return "ok", None
    return ("down" if others else "unsaid"), None  # perhaps it is the question


def refusal(
    reply: Reply, text: str, url: str, how: How, is_one: bool, hint: str = ""
) -> NotNow | NoAnswer:
    """What becomes of the question. `hint` is what may be wrong where nothing is there."""
    message = f"{url} answered {reply.status}: {text[:300]}"
    if is_too_long(text):
        return NoAnswer(Failure(status="truncated", message=message, raw=text))
    if reply.status in BUSY:
        # a 500 that stays is about the question: it was read, and could not be answered
        status: Literal["refused", "unreachable"]
        status = "refused" if reply.status == 500 else "unreachable"
        wait = reply.retry_after if is_one else None  # else it is the server that rests
        return NotNow(Failure(status=status, message=message, raw=text), wait)
    if 300 <= reply.status < 400:
        message = f"{url} answered {reply.status}: redirects are not followed"
    elif reply.status == 404:
        message += hint
    failure = Failure(status="refused", message=message, raw=text)
    return NotNow(failure, 0.0) if how == "down" else NoAnswer(failure)
