"""A loopback server that writes down every request and answers as it is told.

It speaks just enough HTTP/1.1 to pose as an OpenAI-compatible server and as Ollama; it is neither.
`Recorder()` runs one in a thread for tests; `python tests/servers/recorder.py` one in a process of
its own, for benchmarks, and prints its URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def schema(self) -> dict[str, Any]:
        """The schema that the answer is held to, wherever the provider's dialect puts it."""
        said = self.json
        if "format" in said:
            found = said["format"]
        else:
            found = said["response_format"]["json_schema"]["schema"]
        assert isinstance(found, dict)
        return found

    @property
    def messages(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.json["messages"]
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send back. `content` is wrapped in the dialect asked; `body` is sent as it is."""

    content: Any = None
    finish: str = "stop"
    body: bytes | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None  # send so many bytes of the body, then hang up
    tokens: tuple[int, int] = (11, 7)
    model: str = "tiny"  # who it says has answered
    mute: bool = False  # hang up without a word


Script = Callable[[Asked], Reply]


def obey(asked: Asked) -> Reply:
    """The first answer that the schema allows."""
    return Reply(json.dumps(lowest(asked.schema)))


def lowest(schema: dict[str, Any]) -> Any:
    """The first value that a schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {k: lowest(v) for k, v in schema["properties"].items()}
        case "string":
            return "because"
        case "integer" | "number":
            return schema["minimum"]
    return None


BUSY_NOW = Reply(body=b'{"error": "busy"}', status=429)
BUSY_FOR = Reply(body=b'{"error": "busy"}', status=429, headers={"Retry-After": "0.2"})
FAULTS: dict[str, Reply] = {
    "429": BUSY_NOW,
    "429 with Retry-After": BUSY_FOR,
    "503": Reply(body=b"too many requests wait", status=503),
    "503 with Retry-After": Reply(body=b"full", status=503, headers={"Retry-After": "0.2"}),
    "loading": Reply(
        body=b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}',
        status=503,
    ),
    "500": Reply(body=b'{"error": "odd text"}', status=500),
    "401": Reply(body=b'{"error": "no such key"}', status=401),
    "404": Reply(body=b'{"error": "no such model"}', status=404),
    "405": Reply(body=b"Method Not Allowed", status=405),
    "429 for a minute": Reply(body=b"{}", status=429, headers={"Retry-After": "60"}),
    "hang": Reply(content="{}", delay=3600),
    "cut body": Reply(content='{"because": "it is cut", "choice": "A"}', cut=40),
    "hangs up": Reply(mute=True),
    "error body": Reply(body=b'{"error": {"message": "model not found", "code": 404}}'),
    "not JSON": Reply(body=b"<html>hello</html>"),
    "truncated": Reply('{"because": "and so on and', finish="length"),
    "ignores the schema": Reply("Sure! I would rather take A."),
    "control characters": Reply('{"because": "\x01\t", "choice": "A"}'),
    "redirect": Reply(body=b"", status=307, headers={"Location": "/elsewhere"}),
}
"""What servers do when they do not answer."""


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for all recorders, never closed: what is accepted late still comes to its end."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="recorder", daemon=True).start()
    return loop


class Recorder:
    """A server in a thread of its own. `script` says what to answer; replies queued go first."""

    def __init__(self, script: Script = obey, at: int = 0) -> None:
        self.script, self.at = script, at  # the port; 0 means any that is free
        self.replies: deque[Reply] = deque()
        self.asked: list[Asked] = []
        self.owner = ""  # who it says it is to those who look
        self.looks = 0
        self.shy = 0  # so many looks get no reply
        self.by_guidance = False  # as vLLM with that backend, to those who want to know:
        self.backends = 0  # so many did
        self.connections = 0
        self.together = 0  # requests in work now
        self.most_together = 0
        self.lost = 0  # connections that ended before their answer was sent
        self._loop = _loop()
        self._protocols: set[_Connection] = set()

    def __enter__(self) -> Recorder:
        self._server = self._do(_serve(self._loop, self._connection, self.at))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, *replies: Reply | str) -> None:
        """What to answer next, in this order."""
        self.replies.extend(r if isinstance(r, Reply) else Reply(r) for r in replies)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _connection(self) -> _Connection:
        self.connections += 1
        return _Connection(self)

    async def _end(self) -> None:
        # asyncio loses a socket that is accepted just before its server closes: accept no more,
        # let those that were accepted become connections, and only then close
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        await asyncio.sleep(0.002)
        self._server.close()
        for protocol in list(self._protocols):
            protocol.end()
        await asyncio.sleep(0)

    def take(self, asked: Asked) -> Reply:
        if not asked.body or asked.path == "/api/show":  # who looks around asks for no answer
            return self._looked_at()
        if b"unknown" in asked.body and b"x-guidance" in asked.body:
            self.backends += 1
            if self.by_guidance:
                said = {"message": "unknown field `unknown`, expected one of `item_separator`"}
                return Reply(body=json.dumps({"error": said}).encode(), status=400)
            return Reply("0")
        self.asked.append(asked)
        with contextlib.suppress(IndexError):
            return self.replies.popleft()
        return self.script(asked)

    def _looked_at(self) -> Reply:
        self.looks += 1
        if self.looks <= self.shy:
            return Reply(mute=True)
        if not self.owner:
            return Reply(body=b"{}", status=404)
        return Reply(body=json.dumps({"data": [{"id": "tiny", "owned_by": self.owner}]}).encode())


async def _serve(
    loop: asyncio.AbstractEventLoop, make: Callable[[], _Connection], port: int
) -> asyncio.Server:
    return await loop.create_server(make, "127.0.0.1", port, backlog=512)


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it are answered one after the other."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.waiting = bytearray()
        self.later: asyncio.TimerHandle | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.recorder._protocols.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.recorder._protocols.discard(self)
        if self.busy:
            self.recorder.lost += 1
            self._done()
        if self.later:
            self.later.cancel()

    def end(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        if self.busy:
            return
        asked = _request(self.waiting)
        if asked is None:
            return
        self.busy = True
        recorder = self.recorder
        recorder.together += 1
        recorder.most_together = max(recorder.most_together, recorder.together)
        reply = recorder.take(asked)
        if reply.delay:
            loop = asyncio.get_running_loop()
            self.later = loop.call_later(reply.delay, self._send, asked, reply)
        else:
            self._send(asked, reply)

    def _send(self, asked: Asked, reply: Reply) -> None:
        self._done()
        if reply.mute:
            self.transport.abort()
            return
        body = reply.body if reply.body is not None else wrapped(asked.path, reply)
        self.transport.write(_head(reply, len(body)) + body[: reply.cut])
        if reply.cut is not None:
            self.transport.close()

    def _done(self) -> None:
        self.busy = False
        self.recorder.together -= 1


def _request(waiting: bytearray) -> Asked | None:
    """Take one whole request off what has come in so far."""
    end = waiting.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = waiting[:end].decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
    length = int(headers.get("content-length", 0))
    if len(waiting) < end + 4 + length:
        return None
    asked = Asked(first.split(" ")[1], headers, bytes(waiting[end + 4 : end + 4 + length]))
    del waiting[: end + 4 + length]
    return asked


def _head(reply: Reply, length: int) -> bytes:
    headers = {"Content-Type": "application/json", "Content-Length": str(length), **reply.headers}
    lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    return f"HTTP/1.1 {reply.status} Said\r\n{lines}\r\n".encode()


def wrapped(path: str, reply: Reply) -> bytes:
    """A reply as the server of this path would put it."""
    message = {"role": "assistant", "content": reply.content}
    prompt, completion = reply.tokens
    said: dict[str, Any]
    if path.endswith("/api/chat"):
        said = {
            "model": reply.model,
            "created_at": "2026-01-01T00:00:00Z",
            "message": message,
            "done": True,
            "done_reason": reply.finish,
            "prompt_eval_count": prompt,
            "eval_count": completion,
        }
    else:
        said = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": reply.model,
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }
    return json.dumps(said).encode()


def constantly(content: str, paths: Iterable[str]) -> Script:
    """The same answer to everything, made beforehand: for benchmarks."""
    made = {path: Reply(body=wrapped(path, Reply(content))) for path in paths}
    return lambda asked: made[asked.path]


if __name__ == "__main__":
    recorder = Recorder(constantly(sys.argv[1], ("/v1/chat/completions", "/api/chat")))
    recorder.asked = deque(maxlen=1)  # type: ignore[assignment]
    with recorder:
        print(recorder.url, flush=True)
        sys.stdin.read()  # until whoever started it is gone
