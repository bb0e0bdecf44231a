"""Windows of Ollama: no question that was cut is decided, and none that was whole is called cut."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from align_dsl.backends import litellm
from align_dsl.engine.adapter import NoAnswer, Trail
from align_dsl.engine.limiter import Endpoint
from align_dsl.engine.ollama import loaded_window, own_window
from align_dsl.engine.prompt import Message
from align_dsl.engine.reply import Heard
from align_dsl.engine.window import TooNarrow, hold, most
from align_dsl.language.program import Model
from align_dsl.servers.examine import examine
from align_dsl.servers.report import Finding
from align_dsl.servers.subject import subject_of
from align_dsl.types import Failure
from tests.servers.fake_ollama import Answer, FakeOllama, Installed, served
from tests.servers.recorder import Asked, Recorder, Reply, obey
from tests.test_lm import SHAPE

# --- a tokenizer and a window, without a server


@dataclass
class Reader:
    """Reads as Ollama does: drops the oldest messages, then keeps half a window of the last."""

    window: int
    density: float  # characters of a token
    frame: int = 20  # tokens around a question
    each: int = 4  # tokens around a message
    refuses: bool = False
    tells_all: bool = True  # it counts what is in its cache, too
    calls: int = 0
    cache: str = ""

    def long(self, said: list[Message]) -> int:
        parts = (math.ceil(len(m["content"]) / self.density) + self.each for m in said)
        return self.frame + sum(parts)

    def kept(self, said: list[Message]) -> list[Message]:
        left = list(said)
        while self.long(left) > self.window and len(left) > 2:
            left.pop(1)
        return left

    def read(self, said: list[Message]) -> int:
        kept = self.kept(said)
        count = self.long(kept)
        if self.refuses and self.long(said) > self.window:
            raise NoAnswer(Failure(status="truncated", message="the input is too long"))
        if count > self.window:
            count = self.window // 2
        text = json.dumps(kept)
        both = enumerate(zip(text, self.cache, strict=False))
        known = next((i for i, (a, b) in both if a != b), min(len(text), len(self.cache)))
        self.cache = text
        if not self.tells_all:
            count = max(1, round(count * (1 - known / len(text))))
        return count

    async def count(self, said: list[Message]) -> int:
        self.calls += 1
        return self.read(said)


def is_called_cut(reader: Reader, said: list[Message], window: int | None) -> bool:
    heard = Heard("{}", "stop", reader.read(said), 1)
    try:
        asyncio.run(hold(heard, said, window, Endpoint("http://x", 8), reader.count))
    except TooNarrow:
        return True
    return False


def talk(task: int, exemplars: int, long: int, case: int) -> list[Message]:
    def text(n: int) -> str:
        return ("the quick brown fox jumps over a lazy dog and on " * (n // 49 + 1))[:n]

    said = [{"role": "system", "content": text(task)}]
    for i in range(exemplars):
        said += [{"role": "user", "content": f"{i} {text(long)}"}]
        said += [{"role": "assistant", "content": text(long // 2)}]
    return [*said, {"role": "user", "content": text(case)}]


TALKS = st.builds(
    talk, st.integers(1, 3000), st.integers(0, 14), st.integers(1, 1500), st.integers(1, 20_000)
)


@given(
    said=TALKS,
    density=st.floats(3.0, 12.0),
    room=st.floats(1.0, 2.0),
    frame=st.integers(0, 300),
    each=st.integers(0, 12),
    tells_all=st.booleans(),
    cached=st.floats(0.0, 1.0),
    is_known=st.booleans(),
)
@example(talk(500, 14, 500, 900), 4.1, 1.01, 20, 4, False, 0.9, True)
def test_what_was_read_whole_is_never_called_cut(
    said: list[Message],
    density: float,
    room: float,
    frame: int,
    each: int,
    tells_all: bool,
    cached: float,
    is_known: bool,
) -> None:
    reader = Reader(0, density, frame, each, tells_all=tells_all)
    window = reader.window = max(2048, int((reader.long(said) + 2) * room) + frame)
    text = json.dumps(said)
    reader.cache = text[: int(len(text) * cached)]
    assert not is_called_cut(reader, said, window if is_known else None)


@given(said=TALKS, density=st.floats(3.0, 6.0), share=st.floats(0.1, 0.99), each=st.integers(0, 8))
def test_what_was_cut_is_called_so(
    said: list[Message], density: float, share: float, each: int
) -> None:
    """But for a few tokens, and for a text with more than anybody would think it has."""
    reader = Reader(0, density, each=each)
    whole = reader.long(said)
    window = reader.window = int(whole * share)
    lost = whole - min(window, reader.long(reader.kept(said)))
    few = 40 + len(said) * (each + 2) + 10 * most(said) / window
    if lost > few and most(said) > window > 512:
        assert is_called_cut(reader, said, window)


def test_a_server_that_refuses_is_asked_so_once_and_then_believed() -> None:
    reader, endpoint, said = (
        Reader(4096, 4.0, refuses=True),
        Endpoint("http://x", 8),
        talk(9, 0, 0, 15_000),
    )
    for _ in range(3):
        heard = Heard("{}", "stop", reader.read(said), 1)
        asyncio.run(hold(heard, said, 4096, endpoint, reader.count))
    assert (reader.calls, endpoint.refuses) == (1, True)


@pytest.mark.parametrize("said", [None, [], {"models": 3}, {"models": [3, {"name": "m"}]}, {}])
def test_who_tells_no_window_is_believed_to_have_none(said: Any) -> None:
    assert (own_window(said), loaded_window(said, "m")) == (None, None)


def test_the_window_a_model_was_loaded_with() -> None:
    running = {"models": [{"name": "m:latest", "context_length": 8192}]}
    assert loaded_window(running, "m") == 8192
    assert loaded_window(running, "n") is None


# --- over HTTP


@dataclass
class Cutting(FakeOllama):
    """An Ollama that counts tokens by `density` and knows nothing of `truncate: false`, unless
    `refuses`. Over /v1 its window is `default`."""

    models: list[Installed] = field(default_factory=lambda: [Installed("small:1b", context=4096)])
    density: float = 4.0
    refuses: bool = False
    default: int = 4096
    tells: bool = True
    windows: list[int] = field(default_factory=list)

    def handle(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        if path == "/api/ps" and self.tells:
            loaded = {"name": self.models[0].name, "context_length": self.default}
            return 200, {"models": [loaded]}
        if path != "/v1/chat/completions":
            return super().handle(method, path, body, headers)
        form = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        options = {"num_ctx": self.default, "num_predict": body["max_tokens"]}
        asked = {k: body[k] for k in ("model", "messages")}
        _, said = self._chat(asked | {"stream": False, "format": form, "options": options})
        choice = {"message": said["message"], "finish_reason": said["done_reason"]}
        counts = said["prompt_eval_count"], said["eval_count"]
        usage = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))
        return 200, {"model": body["model"], "choices": [choice], "usage": usage}

    def _chat(self, body: Any) -> Answer:
        window = min(body["options"]["num_ctx"], self.models[0].context)
        self.windows.append(window)
        reader = Reader(window, self.density, refuses=self.refuses)
        try:
            count = reader.read(body["messages"])
        except NoAnswer:
            return 400, {"error": "the input length exceeds the context length"}
        short = body | {"messages": [{"role": "user", "content": "x"}]}
        status, said = super()._chat(short)
        return status, said | {"prompt_eval_count": count}


def asked(fake: FakeOllama, said: list[Message], use: str = "ollama_chat", **options: Any) -> Trail:
    """Raises NoAnswer."""
    trail, given = Trail(), {"retries": 0, "timeout": 20.0, **options}
    with served(fake.handle) as url:
        model = Model(
            name="m",
            backend="litellm",
            address=f"{use}/small:1b",
            endpoint=url + ("/v1" if use == "openai" else ""),
            **given,
        )
        backend = litellm.litellm(model)
        try:
            backend.engine.look()
            backend.engine.ask(said, SHAPE, trail)
        finally:
            backend.close()
    return trail


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_a_context_longer_than_the_models_own_is_no_more_than_that() -> None:
    fake = Cutting()
    asked(fake, user("word " * 100), context=32_768)
    assert fake.windows == [4096]
    with pytest.raises(NoAnswer, match="at least 8,001 tokens, and the model reads 4,096"):
        asked(fake, user("word " * 8000), context=32_768)


CUT = {
    "the oldest exemplars": (talk(1000, 14, 700, 500), 3.5),
    "text without spaces": (user("\u4e2d" * 9000), 1.7),
    "half of the last message": (user("word " * 3600), 4.0),
}


@pytest.mark.parametrize("use", ["ollama_chat", "openai"])
@pytest.mark.parametrize("what", CUT)
def test_a_question_that_was_cut_is_no_decision(what: str, use: str) -> None:
    said, density = CUT[what]
    with pytest.raises(NoAnswer) as no:
        asked(Cutting(density=density), said, use)
    assert no.value.failure.status == "truncated"


def test_where_nobody_tells_the_window_the_words_do() -> None:
    with pytest.raises(NoAnswer) as no:
        asked(Cutting(tells=False), user("word " * 9000), "openai")
    assert no.value.failure.status == "truncated"
    assert asked(Cutting(tells=False), user("word " * 2500), "openai").calls == 1


@pytest.mark.parametrize("use", ["ollama_chat", "openai"])
def test_a_long_question_that_fits_is_answered(use: str) -> None:
    fake = Cutting(density=4.8)
    assert asked(fake, talk(1000, 14, 700, 500), use).prompt_tokens < 12_000


def test_a_count_without_what_was_cached_is_no_alarm() -> None:
    """1,800 words in a window that surely holds them, of which a hundred had been read before."""

    def script(a: Asked) -> Reply:
        return Reply(obey(a).content, tokens=(1700, 7))

    with Recorder(script) as server:
        model = Model(
            name="m", backend="litellm", address="ollama_chat/small:1b", endpoint=server.url
        )
        backend = litellm.litellm(model)
        backend.engine.ask(user("word " * 1800), SHAPE, Trail())
        backend.close()
        assert len(server.asked) == 1


# --- a longer window


DENSE = user("qx" * 3000)  # four characters for two tokens, say, and nothing that shows it


def test_a_window_that_was_too_short_is_doubled_and_kept() -> None:
    fake = Cutting(models=[Installed("small:1b", context=32_768)], density=1.2, refuses=True)
    trail = asked(fake, DENSE)
    assert fake.windows == [4096, 8192]
    assert trail.calls == 2


def test_a_window_that_a_question_has_filled_is_doubled() -> None:
    """An answer for which there is no room, or which pushes the question out."""
    fake = Cutting(models=[Installed("small:1b", context=32_768)], density=6000 / 4055)
    trail = asked(fake, DENSE)
    assert fake.windows == [4096, 8192]
    assert (trail.calls, trail.prompt_tokens) == (2, 2 * 4079)  # both are paid for


@pytest.mark.parametrize(("own", "context"), [(9000, None), (32_768, 4096)])
def test_no_window_is_longer_than_the_models_own_or_than_is_allowed(
    own: int, context: int | None
) -> None:
    fake = Cutting(models=[Installed("small:1b", context=own)], density=0.5, refuses=True)
    with pytest.raises(NoAnswer, match="exceeds the context length") as no:
        asked(fake, DENSE, context=context)
    assert no.value.failure.status == "truncated"
    assert fake.windows == ([4096] if context else [4096, 8192, 9000])


def test_numbers_and_codes_get_a_window_that_holds_them_at_once() -> None:
    fake = Cutting(models=[Installed("small:1b", context=32_768)], density=2.0, refuses=True)
    assert asked(fake, user("98.6 72 120/80 " * 1400)).calls == 1


# --- doctor, over /v1


def examined(fake: FakeOllama) -> dict[str, Finding]:
    with served(fake.handle) as url:
        model = Model(name="m", backend="litellm", address="openai/small:1b", endpoint=f"{url}/v1")
        report = asyncio.run(examine(subject_of(model), quick=True, patience=20))
    return {f.probe: f for f in report.findings}


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("default", [2048, 8192])
def test_over_v1_doctor_finds_the_window_that_decides(default: int, tells: bool) -> None:
    own = [Installed("small:1b", context=32_768)]
    found = examined(Cutting(own, default=default, tells=tells))
    assert "as much of it as each prompt needs" not in found["context"].said
    assert "OLLAMA_CONTEXT_LENGTH decides" in found["context"].said
    assert ("loaded with" in found["context"].said) == tells
    assert found["long prompts"].level == "warning"
    assert f"read {default // 2:,}" in found["long prompts"].said
    assert "OLLAMA_CONTEXT_LENGTH" in found["long prompts"].advice


def test_what_reads_all_that_was_tried_may_still_cut_what_is_longer() -> None:
    own = [Installed("small:1b", context=131_072)]
    found = examined(Cutting(own, default=131_072, tells=False))
    assert found["long prompts"].level == "unknown"
    assert "longer ones were not tried" in found["long prompts"].said
