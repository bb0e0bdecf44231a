"""Replies that say one thing by their status and another by what they hold."""

from __future__ import annotations

import json

import pytest

from tests.servers.recorder import Recorder, Reply
from tests.test_lm import answer

TOO_LONG = "This model's maximum context length is 4096 tokens"


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "ollama_chat"])
@pytest.mark.parametrize(
    "error",
    [{"message": TOO_LONG}, TOO_LONG, {"message": "no", "code": "context_length_exceeded"}],
    ids=["a message", "plain text", "a code"],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_too_long_is_too_long_with_any_status(provider: str, error: object, status: int) -> None:
    body = json.dumps({"error": error}).encode()
    with Recorder(lambda asked: Reply(body=body, status=status)) as server:
        got = answer(server, provider, retries=2)
    assert got.failure is not None
    assert (got.failure.status, got.calls) == ("truncated", 1)


def test_any_other_error_with_200_is_asked_again() -> None:
    body = json.dumps({"error": {"message": "out of memory"}}).encode()
    with Recorder(lambda asked: Reply(body=body)) as server:
        got = answer(server, "openai", retries=1)
    assert got.failure is not None
    assert (got.failure.status, got.calls) == ("refused", 2)
