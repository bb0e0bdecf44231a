"""An emulation of `transformers serve` on loopback. It is not transformers, and runs no model.

Routes, statuses and words are those that the real one (5.19.0) gave to the same requests:
`response_format` and log-probabilities are taken and ignored, fields that OpenAI does not have are
refused, temperature alone draws nothing, and its list of models is the Hugging Face cache.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.servers.fake_ollama import Answer

PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/audio/transcriptions",
    "/load_model", "/reset", "/v1/models", "/health",
)  # fmt: skip
FIELDS = frozenset({  # that it takes, and does something with or nothing
    "model", "messages", "temperature", "max_tokens", "seed", "top_p", "stop", "stream", "n",
    "response_format", "logprobs", "top_logprobs", "max_completion_tokens", "tools",
    "generation_config", "chat_template_kwargs",
})  # fmt: skip
SAYINGS = (
    ". A 8Higheeeeeeeee A 8",
    '{"because": "B"}',
    '{"because": "So it is.", "rating": 5}',
    '{"because": "So it is.", "choice": "A"}',
)
BROKEN: Answer = (500, "Internal Server Error")


@dataclass
class FakeTransformers:
    """What it was started with, and all that it was asked."""

    pinned: str = ""  # the model that it was started with; else it loads what it is asked for
    cached: tuple[str, ...] | None = None  # None: there is no Hugging Face cache
    babbles: bool = False  # until its tokens are spent
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def handle(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        self.asked.append((path, body))
        match method, path:
            case "GET", "/openapi.json":
                about = {"title": "FastAPI", "version": "0.1.0"}
                return 200, {"openapi": "3.1.0", "info": about, "paths": {p: {} for p in PATHS}}
            case "GET", "/v1/models":
                if self.cached is None:
                    return BROKEN
                data = [
                    {"owned_by": n.partition("/")[0], "id": n, "object": "model", "created": 1.5}
                    for n in self.cached
                ]
                return 200, {"object": "list", "data": data}
            case "POST", "/v1/chat/completions":
                return self._chat(body)
        return 404, {"detail": "Not Found"}

    def _chat(self, body: Any) -> Answer:
        if unknown := set(body) - FIELDS:
            return 422, {"detail": f"Unexpected fields in the request: {unknown}"}
        name = body["model"]
        if self.pinned and name != self.pinned:
            said = f"Server is pinned to '{self.pinned}'; requested '{name}'."
            return 400, {"detail": said}
        if not self.pinned and name not in (self.cached or ()):
            return BROKEN
        asked = json.dumps(body["messages"])
        text = "f" * 3000 if self.babbles else SAYINGS[zlib.crc32(asked.encode()) % len(SAYINGS)]
        limit = body.get("max_tokens", 1024)
        reason = "length" if len(text) >= limit else "stop"
        message = {"content": text[:limit], "role": "assistant"}
        choice = {"finish_reason": reason, "index": 0, "message": message}
        written, read = min(len(text), limit), len(asked) // 4
        usage = {"completion_tokens": written, "prompt_tokens": read}
        usage["total_tokens"] = written + read
        said = {"id": "x", "choices": [choice], "created": 1, "model": f"{name}@main"}
        return 200, said | {"object": "chat.completion", "usage": usage}
