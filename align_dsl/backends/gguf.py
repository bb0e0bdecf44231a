"""A model in a file, run in this very process: `model: gguf:models/llama-3.2-3b.Q4_K_M.gguf`.

llama.cpp does it, through xllamacpp (`pip install 'align-dsl[gguf]'`). A path that is not absolute
is one from the folder in which align-dsl is started; `~` is the home directory. Answers are held
to a grammar. Prompts that begin alike are read once.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dspy
import orjson

from align_dsl.engine.adapter import TRAIL, NoAnswer, Said, Trail, TypedAdapter
from align_dsl.engine.expected import Token, Weigher, tokens
from align_dsl.engine.fork import outlives_forks
from align_dsl.engine.grammar import grammar, one_of
from align_dsl.engine.prompt import Message, Shape, sayable, schema, written
from align_dsl.engine.quirks import LLAMA_CPP
from align_dsl.engine.session import CLOSED
from align_dsl.engine.texts import Texts, response, talk
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.types import Failure, ScaleWeights, digest

WINDOW = 4096  # tokens of one question with its answer, where the program does not say `context:`
SLOTS = 4  # questions in work at once: each has a window in memory
HEAD = 2**20  # bytes of the file that are looked at to tell it from others
CONTEXT_FULL = "exceed_context_size_error"


class gguf:  # noqa: N801  (named as in YAML)
    """Runs one model in this process."""

    note = ""
    batches = LLAMA_CPP.batches
    waits_in_loop = False

    def __init__(self, model: Model) -> None:
        self.model = model
        self.concurrency = max(2, min(model.concurrency, SLOTS))  # 1 would block the caller
        self.engine = Engine(model, min(model.concurrency, SLOTS))

    @cached_property
    def lm(self) -> Any:
        address = f"gguf/{Path(self.model.address).stem}"
        return dspy.LM(address, engine=self.engine, cache=False, num_retries=0)

    @cached_property
    def adapter(self) -> Any:
        return TypedAdapter(self.model.retries)

    def fingerprint(self) -> str:
        """Of the file by its size, its age and its first megabyte; and of what runs it."""
        path = self.engine.path
        with path.open("rb") as file:
            head = hashlib.sha256(file.read(HEAD)).hexdigest()
        about = path.stat()
        return digest(f"{about.st_size} {about.st_mtime_ns} {head} {_version()}")

    def probe(self) -> None:
        self.engine.start()

    def close(self) -> None:
        self.engine.close()


class Engine(Texts):
    """What DSPy calls, and our adapter. The model is loaded when it is first asked."""

    def __init__(self, model: Model, slots: int) -> None:
        self.model, self.slots = model, slots
        self.path = Path(model.address).expanduser()
        _look(model.name, self.path)
        self.weigher = Weigher(masked=LLAMA_CPP.masked)
        self._lock = threading.Lock()
        self._server: Any = None
        self._closed = False
        outlives_forks(self)

    def begin_anew(self) -> None:
        """In the child of a fork, where nobody runs the model."""
        self._lock, self._server = threading.Lock(), None

    def start(self) -> Any:
        """The model, loaded. Raises BackendError where that cannot be."""
        with self._lock:
            if self._closed:
                raise NoAnswer(CLOSED)
            if self._server is None:
                self._server = _load(self.model, self.path, self.slots)
            return self._server

    def close(self) -> None:
        with self._lock:
            self._closed, self._server = True, None

    def ask(
        self, said: list[Message], shape: Shape, trail: Trail, temperature: float | None = None
    ) -> Said:
        """One answer of this shape. Raises NoAnswer."""
        rules = grammar(shape) or _grammar_of(schema(shape))
        trail.constrained = "grammar"
        warmth = self.model.temperature if temperature is None else temperature
        if warmth > 0:
            trail.notes["seed"] = trail.seed
        choice = self._complete(said, trail, seed=trail.seed, temperature=warmth, grammar=rules)
        return Said(_text(choice), choice["finish_reason"] == "length")

    def weigh(self, said: list[Message], shape: Shape, trail: Trail) -> ScaleWeights:
        """How probable each number of the scale is. Raises NoAnswer."""

        def tell(allowed: tuple[str, ...], most: int) -> tuple[Token, ...]:
            held = {"grammar": one_of(allowed), "logprobs": True, "top_logprobs": LLAMA_CPP.top}
            choice = self._complete(said, trail, temperature=0, max_tokens=most, **held)
            return tokens(choice.get("logprobs"))

        trail.constrained = "grammar"
        found = self.weigher.weigh(written(shape.scale), tell)
        trail.notes.setdefault("expected", []).append(found.note())
        return found.weights

    def complete(self, request: Any) -> Any:
        """The same for whoever comes through `dspy.LM`, such as optimizers that write prompts."""
        trail, config = TRAIL.get() or Trail(), request.config
        warmth = self.model.temperature if config.temperature is None else config.temperature
        options = {"temperature": warmth, "seed": config.seed}
        if config.max_tokens:
            options["max_tokens"] = config.max_tokens
        before = trail.prompt_tokens, trail.completion_tokens
        held = _format(config.response_format)
        choice = self._complete(talk(request), trail, **options, **held)
        counts = trail.prompt_tokens - before[0], trail.completion_tokens - before[1]
        return response(request.model, _text(choice), choice["finish_reason"], counts)

    def _complete(self, said: list[Message], trail: Trail, **options: Any) -> dict[str, Any]:
        """One choice of one completion, with its tokens counted."""
        body = {"messages": said, "max_tokens": self.model.max_tokens, "cache_prompt": True}
        body |= {"chat_template_kwargs": {"enable_thinking": False}}
        body |= {k: v for k, v in options.items() if v is not None}
        server = self.start()
        try:
            orjson.dumps(said)
        except orjson.JSONEncodeError:  # half a character has no bytes
            message = "the question holds text that is not valid Unicode, which nobody can be sent"
            raise NoAnswer(Failure(status="refused", message=message)) from None
        trail.calls += 1
        try:
            answer = server.handle_chat_completions(body)
        except RuntimeError as error:
            message = f"llama.cpp: {str(error)[:300]}"
            raise NoAnswer(Failure(status="refused", message=message)) from None
        if wrong := answer.get("error"):
            raise NoAnswer(_failure(wrong))
        usage = answer.get("usage") or {}
        trail.prompt_tokens += usage.get("prompt_tokens", 0)
        trail.completion_tokens += usage.get("completion_tokens", 0)
        choice: dict[str, Any] = answer["choices"][0]
        return choice


def _look(name: str, path: Path) -> None:
    """Raise BackendError where the file is none, or is something else."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        said = f"the model `{name}` cannot be read: {path}: {error.strerror or error}"
        where = "" if path.is_absolute() else " (a path from the folder align-dsl is started in)"
        raise BackendError(f"{said}{where}") from None
    if magic != b"GGUF":
        said = f"the model `{name}` cannot be read: {path} is no GGUF file"
        raise BackendError(f"{said}\n  = convert it with llama.cpp, or download it as GGUF")


def _load(model: Model, path: Path, slots: int) -> Any:
    if find_spec("xllamacpp") is None:
        raise BackendError(
            f"the model `{model.name}` is a GGUF file, and xllamacpp, which runs such, is not "
            "installed\n  = pip install 'align-dsl[gguf]'"
        )
    import xllamacpp

    wishes = xllamacpp.CommonParams()
    wishes.model.path = str(path)
    wishes.n_parallel = slots
    wishes.n_ctx = slots * (model.context or WINDOW)  # the server divides it by slots
    wishes.verbosity = -1
    wishes.ui = False
    # it opens a port on loopback all the same: behind a key, nobody else has a use for it
    wishes.hostnames, wishes.port, wishes.api_keys = ["127.0.0.1"], 0, [secrets.token_hex(16)]
    if threads := _threads():
        wishes.cpuparams.n_threads = wishes.cpuparams_batch.n_threads = threads
    try:
        return xllamacpp.Server(wishes)
    except RuntimeError as error:
        said = f"llama.cpp cannot load the model `{model.name}` from {path}: {error}"
        raise BackendError(said) from None


def _threads() -> int | None:
    """As many as the user allows; llama.cpp's own choice otherwise."""
    written = os.environ.get("OMP_NUM_THREADS", "")
    return int(written) if written.isdecimal() and int(written) > 0 else None


def _failure(wrong: Any) -> Failure:
    said = wrong if isinstance(wrong, dict) else {"message": str(wrong)}
    message = str(said.get("message", said))[:300]
    if said.get("type") == CONTEXT_FULL:
        return Failure(status="truncated", message=f"{message}: set `context:` under `models:`")
    return Failure(status="refused", message=f"llama.cpp: {message}")


def _grammar_of(schema: dict[str, Any]) -> str:
    """A schema in the layout of the prompt, for llama.cpp built as xllamacpp builds it."""
    import xllamacpp

    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    rules: str = xllamacpp.json_schema_to_grammar({**schema, "x-guidance": layout})
    return rules


def _format(wanted: Any) -> dict[str, Any]:
    if not wanted:
        return {}
    inner = {"name": "answer", "strict": True, "schema": wanted["schema"]}
    return {"response_format": {"type": "json_schema", "json_schema": inner}}


def _text(choice: dict[str, Any]) -> str:
    return sayable(choice["message"].get("content") or "")


def _version() -> str:
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return "absent"
