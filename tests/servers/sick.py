"""Servers gone wrong, on loopback: one illness each, of those that were met or are to be feared.

They speak OpenAI's dialect and pose as nobody known, or as whoever `owner` says; they run no model.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

from tests.servers.fake_ollama import Answer, draw


class Sick:
    """An OpenAI-compatible server with one illness, `wrong`. `owner` is who its list says it is."""

    def __init__(self, wrong: str = "", owner: str = "somebody", by_guidance: bool = False) -> None:
        self.wrong, self.owner, self.times, self.by_guidance = wrong, owner, 0, by_guidance
        self.constraints: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []

    def handle(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        self.headers.append(headers)
        if self.wrong == "html":
            return 200, "<!DOCTYPE html><html><title>my page</title></html>"
        if self.wrong == "mute":
            time.sleep(3)
        if self.wrong == "locked":
            return 401, {"error": {"message": f"wrong key {headers.get('authorization', '')}"}}
        if path == "/v1/models":
            data = [{"id": "good", "owned_by": self.owner, "max_model_len": 8192}]
            return 200, {"object": "list", "data": data}
        if path == "/version":
            return 200, {"version": "0.32.0"}
        if path == "/v1/chat/completions":
            return self._chat(body)
        return 404, {"detail": "Not Found"}

    def _chat(self, body: Any) -> Answer:
        self.times += 1
        if constraint := body.get("structured_outputs"):
            if "unknown" not in constraint.get("json", ""):
                self.constraints.append(constraint)
            elif self.by_guidance:
                said = "unknown field `unknown`, expected one of `item_separator`"
                return 400, {"error": {"message": said}}
        match self.wrong:
            case "hangs":
                time.sleep(3)
            case "hangs up":
                return 0, None
            case "says 200 and means an error":
                return 200, {"error": {"message": "CUDA out of memory", "code": 500}}
            case "sends something else":
                return 200, ["what", "is", "this"]
            case "refuses schemas" if "response_format" in body:
                return 500, {"error": "Input should be 'text' or 'json_object'"}
            case "has no such model":
                return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        dice = random.Random(f"{body.get('seed', self.times)} {body['messages']}")
        format_ = body.get("response_format")
        text = f"The sea is wide and {dice.random()}"
        if format_ and self.wrong != "ignores the schema":
            answer = draw(format_["json_schema"]["schema"], dice)
            if self.wrong == "control characters" and "because" in answer:
                answer["because"] = "tab"
            if self.wrong == "ranges" and "level" in answer:
                answer["level"] += 1000
            if self.wrong == "ranges" and "share" in answer:
                answer["share"] = 3e15
            text = json.dumps(answer).replace('"tab"', '"\t"')
            if self.wrong == "half obeys" and self.times % 2:
                text = "Sure! " + text
        if self.wrong == "random" and not format_:
            text = str(random.random())
        if self.wrong == "no sampling" and not format_:
            text = "always the same"
        count = min(len(json.dumps(body["messages"])) // 4, 8192 if self.wrong == "cuts" else 10**9)
        if count > 8192 and self.wrong != "swallows":
            return 400, {"error": {"message": "maximum context length is 8192 tokens"}}
        usage = {"prompt_tokens": count, "completion_tokens": 8}
        message = {"role": "assistant", "content": text}
        said = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        if self.wrong == "renames the model":
            said["model"] = "other-7b"
        said |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return 200, said | {"usage": {} if self.wrong == "counts nothing" else usage}


def spoilt(said: Any, dice: random.Random) -> Any:
    """The same, with something else in some places."""
    if dice.random() < 0.08:
        junk = (None, 7, -1.5, "", "x", [], [1], {}, {"x": None}, True, "\u202e\x1b[31m", 10**400)
        return dice.choice(junk)
    if isinstance(said, dict):
        return {k: spoilt(v, dice) for k, v in said.items() if dice.random() > 0.02}
    return [spoilt(v, dice) for v in said] if isinstance(said, list) else said
