"""An emulation of Ollama's documented API on loopback. It is not Ollama, and runs no model.

Shapes and quirks are those of Ollama's documentation and source (v0.33): silent truncation,
`format` honoured, keys in alphabetical order where a model has no template, few requests at once,
errors as `{"error": ...}`. Every request is written down.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]  # status, and an object, a list of objects to stream, or text as it is
Handle = Callable[[str, str, Any, dict[str, str]], Answer]  # method, path, body, headers


@contextlib.contextmanager
def served(handle: Handle) -> Iterator[str]:
    """Serve HTTP on loopback for as long as the block runs; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # head and body are two writes, 40 ms apart with it

        def do_GET(self) -> None:
            self._answer("GET", None)

        def do_HEAD(self) -> None:
            self._answer("HEAD", None)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("content-type") == "application/octet-stream":
                self._answer("POST", raw)
            else:
                self._answer("POST", json.loads(raw) if raw else None)

        def _answer(self, method: str, body: Any) -> None:
            headers = {k.lower(): v for k, v in self.headers.items()}
            with contextlib.suppress(ConnectionError):
                status, said = handle(method, self.path, body, headers)
                if status == 0:
                    return  # hang up without a word
                self.send_response(status)
                kind = "text/html" if isinstance(said, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.end_headers()
                lines = said if isinstance(said, list) else [said] if method != "HEAD" else []
                for line in lines:
                    text = line if isinstance(line, str) else json.dumps(line)
                    self.wfile.write(text.encode() + (b"\n" if isinstance(said, list) else b""))

        def log_message(self, format: str, *args: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # more than 5 at once would wait a second for the next try
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Installed:
    """A model as `ollama list` would show it."""

    name: str
    context: int = 32768
    template: bool = True
    capabilities: tuple[str, ...] = ("completion",)
    size: int = 2_019_393_189
    parameters: str = "3.2B"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def listed(self) -> dict[str, Any]:
        details = {
            "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
            "parameter_size": self.parameters, "quantization_level": "Q4_K_M",
        }  # fmt: skip
        return {
            "name": self.name, "model": self.name, "modified_at": "2026-09-01T10:00:00.000000001Z",
            "size": self.size, "digest": self.digest, "details": details,
        }  # fmt: skip


@dataclass
class FakeOllama:
    """What it has, how it was set up, and all that it was asked."""

    models: list[Installed] = field(default_factory=lambda: [Installed("llama3.2:3b")])
    version: str = "0.33.0"
    parallel: int = 4  # OLLAMA_NUM_PARALLEL
    seconds: float = 0.003  # that an answer takes
    logprobs: bool = True
    library: tuple[str, ...] = ("qwen3:0.6b",)  # what can be pulled
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    break_off: bool = False  # a pull ends half-way
    blobs: dict[str, int] = field(default_factory=dict)  # digest -> bytes
    refuses_when_asked: bool = True  # knows of `truncate: false`; older ones do not

    def __post_init__(self) -> None:
        self.slots = threading.BoundedSemaphore(self.parallel)

    def handle(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        self.asked.append((path, body))
        self.headers.append(headers)
        match method, path:
            case "GET", "/":
                return 200, "Ollama is running"
            case "GET", "/api/version":
                return 200, {"version": self.version}
            case "GET", "/api/tags":
                return 200, {"models": [m.listed for m in self.models]}
            case "GET", "/api/ps":
                return 200, {"models": []}
            case "GET", "/v1/models":
                data = [
                    {"id": m.name, "object": "model", "owned_by": "library"} for m in self.models
                ]
                return 200, {"object": "list", "data": data}
            case "POST", "/api/show":
                return self._show(body)
            case "POST", "/api/pull":
                return self._pull(body)
            case "POST", "/api/chat":
                return self._chat(body)
            case "POST", "/api/create":
                return self._create(body)
            case _, _ if path.startswith("/api/blobs/"):
                return self._blob(method, path.removeprefix("/api/blobs/"), body)
        return 404, "404 page not found"

    def _find(self, name: str) -> Installed | None:
        full = name if ":" in name else f"{name}:latest"
        return next((m for m in self.models if m.name == full), None)

    def _show(self, body: Any) -> Answer:
        model = self._find(body["model"])
        if model is None:
            return 404, {"error": f"model '{body['model']}' not found"}
        info = {"general.architecture": "llama", "llama.context_length": model.context}
        said = {"details": model.listed["details"], "model_info": info}
        return 200, said | {"capabilities": list(model.capabilities), "template": "{{ .Prompt }}"}

    def _pull(self, body: Any) -> Answer:
        name = body["model"]
        start: list[Any] = [{"status": "pulling manifest"}]
        if name not in self.library:
            return 200, [*start, {"error": "pull model manifest: file does not exist"}]
        layer, total = "sha256:" + "ab" * 32, 1000
        for done in (0, 400, 1000):
            status = f"pulling {layer[7:19]}"
            start.append({"status": status, "digest": layer, "total": total, "completed": done})
        if self.break_off:
            return 200, start
        self.models.append(Installed(name))
        end = ["verifying sha256 digest", "writing manifest", "success"]
        return 200, [*start, *({"status": s} for s in end)]

    def _blob(self, method: str, digest: str, body: Any) -> Answer:
        if method == "HEAD":
            return (200 if digest in self.blobs else 404), ""
        if digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
            return 400, {"error": "digest mismatch"}
        self.blobs[digest] = len(body)
        return 201, ""

    def _create(self, body: Any) -> Answer:
        if missing := [d for d in body["files"].values() if d not in self.blobs]:
            return 400, {"error": f"blob {missing[0]} is not there"}
        context = body.get("parameters", {}).get("num_ctx", 4096)
        name = body["model"] if ":" in body["model"] else f"{body['model']}:latest"
        self.models = [m for m in self.models if m.name != name]
        self.models.append(Installed(name, context, "template" in body))
        said = {"status": "success"}
        return 200, said if body.get("stream") is False else [{"status": "writing manifest"}, said]

    def _chat(self, body: Any) -> Answer:
        model = self._find(body["model"])
        if model is None:
            return 404, {"error": f"model '{body['model']}' not found"}
        if "completion" not in model.capabilities:
            return 400, {"error": f'"{model.name}" does not support chat'}
        options = body.get("options") or {}
        window = min(options.get("num_ctx", 4096), model.context)
        prompt = json.dumps(body["messages"])
        count = len(prompt) // 4 + 10
        if count > window:
            if body.get("truncate") is False and self.refuses_when_asked:
                return 400, {"error": "the input length exceeds the context length"}
            count = window // 2  # as if nothing had happened
        with self.slots:
            time.sleep(self.seconds)
        dice = random.Random(f"{options.get('seed', time.monotonic())} {prompt}")
        limit = options.get("num_predict", -1)
        text, reason = self._text(model, body.get("format"), dice), "stop"
        if 0 <= limit < len(text) // 3:
            text, reason = text[: 3 * limit], "length"
        said = {
            "model": model.name, "created_at": "2026-09-01T10:00:00Z",
            "message": {"role": "assistant", "content": text}, "done": True,
            "done_reason": reason, "total_duration": int(self.seconds * 1e9), "load_duration": 0,
            "prompt_eval_count": count, "prompt_eval_duration": 1,
            "eval_count": len(text) // 3 + 1, "eval_duration": 1,
        }  # fmt: skip
        if body.get("logprobs") and self.logprobs:
            said["logprobs"] = [self._token(text[i : i + 3], dice) for i in range(0, len(text), 3)]
        if body.get("stream", True):
            return 200, [said | {"done": False}, said | {"message": {"content": ""}}]
        return 200, said

    def _text(self, model: Installed, format_: Any, dice: random.Random) -> str:
        if format_ is None:
            words = ("the", "sea", "is", "wide", "and", "cold", "mountain", "old", "wind", "over")
            return " ".join(dice.choice(words) for _ in range(12))
        return json.dumps(draw(format_, dice, alphabetical=not model.template))

    @staticmethod
    def _token(text: str, dice: random.Random) -> dict[str, Any]:
        """As llama.cpp tells them: of before the constraint."""
        others = [{"token": "The", "logprob": -0.4}, {"token": " sea", "logprob": -1.9}]
        return {"token": text, "logprob": -4 - dice.random(), "top_logprobs": others}


def draw(schema: dict[str, Any], dice: random.Random, alphabetical: bool = False) -> Any:
    """Any value that a schema allows."""
    if "enum" in schema:
        return dice.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            parts = schema["properties"].items()
            ordered = sorted(parts) if alphabetical else parts
            return {k: draw(v, dice, alphabetical) for k, v in ordered}
        case "integer":
            return dice.randint(schema["minimum"], schema["maximum"])
        case "number":
            return round(dice.uniform(schema["minimum"], schema["maximum"]), 3)
    return "because it is so"
