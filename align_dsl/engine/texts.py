"""What DSPy asks of an engine, and what it gets: texts alone, whatever stands behind them."""

from __future__ import annotations

from typing import Any

from dspy.lm15 import Message as LmMessage
from dspy.lm15 import Response, TextPart, Usage

from align_dsl.engine.prompt import Message


class Texts:
    """What DSPy may ask of an engine of ours."""

    supports_response_schema = True
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("response_format", "temperature", "max_tokens", "seed")


def talk(request: Any) -> list[Message]:
    """DSPy's request as a server is sent it."""
    said = [{"role": "system", "content": request.system}] if request.system else []
    return said + [{"role": m.role, "content": m.text} for m in request.messages]


def response(model: str, text: str, finish: str, tokens: tuple[int, int]) -> Any:
    """What a model said, as DSPy wants it: with how many tokens were read and written."""
    return Response(
        id=None,
        model=model,
        message=LmMessage(role="assistant", parts=(TextPart(text=text),)),
        finish_reason="length" if finish == "length" else "stop",
        usage=Usage(input_tokens=tokens[0], output_tokens=tokens[1]),
    )
