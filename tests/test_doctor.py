"""`align-dsl doctor`: against a real llama.cpp, an emulated Ollama, and servers gone wrong."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from align_dsl.commands.doctor import command
from align_dsl.errors import AlignError
from align_dsl.language.program import Model
from align_dsl.servers.bench import Bench
from align_dsl.servers.chat import Chat, Token
from align_dsl.servers.examine import examine
from align_dsl.servers.likelihood import mask
from align_dsl.servers.line import Line
from align_dsl.servers.report import Finding, Report
from align_dsl.servers.server import identify, places
from align_dsl.servers.subject import BadEndpoint, checked, subject_of
from align_dsl.servers.throughput import probe_throughput
from tests.servers.fake_ollama import Answer, FakeOllama, Installed, served
from tests.servers.real import Real, served_by
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply
from tests.servers.sick import Sick, spoilt

HERE = Path(__file__).parent
PROGRAM = """version: 1
program: small
about: A small program for tests.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high]}
deciders: {alone: {use: direct_regression}}
model: mine
models:
  mine: {use: "ollama_chat/llama3.2:3b", endpoint: "URL", key: DOCTOR_TEST_KEY}
  other: {use: "ollama_chat/llama3.2:3b", endpoint: "URL"}
"""


def look(use: str, endpoint: str, quick: bool = True, patience: float = 10, **more: Any) -> Report:
    model = Model(name=use, backend="litellm", address=use, endpoint=endpoint, **more)
    return asyncio.run(examine(subject_of(model), quick=quick, patience=patience))


def by_probe(report: Report) -> dict[str, Finding]:
    return {f.probe: f for f in report.findings}


def levels(report: Report) -> dict[str, str]:
    return {f.probe: f.level for f in report.findings}


def doctor(*args: str) -> Result:
    return CliRunner().invoke(command, args)


@pytest.fixture
def ollama() -> Iterator[tuple[FakeOllama, str]]:
    fake = FakeOllama()
    with served(fake.handle) as url:
        yield fake, url


# --- a real server


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """Random weights on llama.cpp, or on the server that the environment names."""
    pytest.importorskip("xllamacpp", reason="needs the real llama.cpp: xllamacpp")
    from tests.models.gguf_file import random_model

    with served_by(random_model(tmp_path_factory.mktemp("llama") / "tiny.gguf")) as server:
        yield server


def test_a_real_server_is_usable(real: Real) -> None:
    report = look(real.address, real.endpoint, patience=60)
    found = by_probe(report)
    assert report.usable, report
    assert report.server == real.kind
    assert real.kind == "Ollama" or report.context == 4096
    typed = ["schema", "integer ranges", "number ranges", "order", "logprobs"]
    if real.kind != "Ollama":  # which breaks off what repeats itself, as weak models do
        typed.append("text")
    assert {p: found[p].level for p in typed} == dict.fromkeys(typed, "ok")
    assert found["schema"].figures["valid"] == 10
    assert found["logprobs"].figures["mask"] == ("after" if real.kind == "vLLM" else "before")
    assert found["seed, alone"].level == "ok"
    assert found["sampling"].level == "ok"
    if real.kind != "Ollama":  # which cuts what is too long, and does not tell of its cache
        assert found["long prompts"].figures["refused"] is True
        assert found["prefix cache"].figures["cached_tokens"] > 0


def test_a_name_that_is_not_served(real: Real) -> None:
    """llama.cpp answers to any name; others do not, and are asked nothing more."""
    report = look(f"{real.address[:-1]}x", real.endpoint, patience=60)
    assert report.usable == (real.kind == "llama.cpp")
    said = by_probe(report)["model"]
    assert f"`{real.name}" in said.said + said.advice


def test_a_model_file_is_served_and_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp", reason="needs the real llama.cpp: xllamacpp")
    from tests.models.gguf_file import random_model

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = random_model(tmp_path / "tiny.gguf")
    model = Model(name="m", backend="gguf", address=str(file), context=2048)
    report = asyncio.run(examine(subject_of(model), quick=True, patience=60))
    assert report.usable, report
    assert (report.server, report.context, report.endpoint) == ("llama.cpp", 2048, "")


@pytest.mark.parametrize("what", ["missing", "no model"])
def test_what_is_no_model_file_is_said_to_be_none(what: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    if what == "no model":
        file.write_bytes(b"hello")
    result = doctor(f"gguf:{file}")
    assert result.exit_code == 4
    assert ("no GGUF file" if what == "no model" else "cannot be read") in result.stdout


# --- the emulated Ollama


def test_an_ollama_is_usable(ollama: tuple[FakeOllama, str]) -> None:
    fake, url = ollama
    report = look("ollama_chat/llama3.2:3b", url)
    found = by_probe(report)
    assert report.usable, report
    assert (report.server, report.version, report.context) == ("Ollama", "0.33.0", 32768)
    assert report.digest == fake.models[0].digest
    assert found["long prompts"].level == "warning"
    assert found["long prompts"].figures["refuses_if_asked"] is True
    assert found["logprobs"].figures["mask"] == "before"
    chats = [body for path, body in fake.asked if path == "/api/chat"]
    assert {c["options"]["num_ctx"] for c in chats} == {4096}  # another would reload the model
    assert {c["think"] for c in chats} == {False}
    assert {c["stream"] for c in chats} == {False}


def paced(url: str) -> Finding:
    async def pace() -> list[Finding]:
        name = "ollama_chat/llama3.2:3b"
        model = Model(name=name, backend="litellm", address=name, endpoint=url)
        async with Line() as line:
            server = await identify(line, url)
            return await probe_throughput(Bench(Chat(subject_of(model), line, 5), server), 3)

    (finding,) = asyncio.run(pace())
    return finding


def test_an_ollama_that_answers_one_at_a_time_is_told_of() -> None:
    fake = FakeOllama(parallel=1, seconds=0.25)
    with served(fake.handle) as url:
        found = paced(url)
    assert found.level == "warning"
    assert "OLLAMA_NUM_PARALLEL" in found.advice
    assert [p["at_once"] for p in found.figures["levels"]][:2] == [1, 2]


def test_an_ollama_that_answers_several_at_once_is_faster() -> None:
    fake = FakeOllama(parallel=8, seconds=0.05)
    with served(fake.handle) as url:
        found = paced(url)
    assert found.level == "ok"


def test_keys_in_alphabetical_order_are_seen() -> None:
    fake = FakeOllama([Installed("imported:latest", template=False)])
    with served(fake.handle) as url:
        report = look("ollama_chat/imported", url)  # `:latest` goes without saying
    found = by_probe(report)
    assert report.usable
    assert found["order"].figures == {"alphabetical": True}
    assert found["text"].level == "ok"  # `because` sorts before `choice`


def test_without_logprobs_only_a_warning() -> None:
    fake = FakeOllama(logprobs=False)
    with served(fake.handle) as url:
        report = look("ollama_chat/llama3.2:3b", url)
    assert report.usable
    assert levels(report)["logprobs"] == "warning"


@pytest.mark.parametrize(
    ("use", "path", "probe", "says"),
    [
        ("ollama_chat/llama3.2:3", "", "model", "did you mean `llama3.2:3b`?"),
        ("ollama_chat/embedder", "", "kind", "it is for embedding"),
        ("ollama_chat/llama3.2:3b", "/v1", "endpoint", "not under /v1"),
        ("openai/llama3.2:3b", "", "endpoint", "OpenAI dialect is at"),
    ],
)
def test_what_is_asked_for_wrongly(use: str, path: str, probe: str, says: str) -> None:
    embedder = Installed("embedder:latest", capabilities=("embedding",))
    fake = FakeOllama([Installed("llama3.2:3b"), embedder])
    with served(fake.handle) as url:
        report = look(use, url + path)
    assert not report.usable
    found = by_probe(report)[probe]
    assert found.level == "fatal"
    assert says in found.said + found.advice
    assert not any(p == "/api/chat" for p, _ in fake.asked)


# --- servers gone wrong


@pytest.mark.parametrize(
    ("wrong", "probe", "says"),
    [
        ("html", "reachable", "an HTML page answers here"),
        ("mute", "reachable", "no answer within 1.5 s"),
        ("locked", "reachable", "wants a key"),
        ("hangs", "answers", "no answer within 1.5 s"),
        ("hangs up", "answers", "hung up"),
        ("says 200 and means an error", "answers", "CUDA out of memory"),
        ("sends something else", "answers", "an answer that is none"),
        ("has no such model", "answers", "does not exist"),
        ("ignores the schema", "schema", "the schema is ignored: 0 of 10"),
        ("half obeys", "schema", "the schema is not enforced: 5 of 10"),
        ("refuses schemas", "schema", "HTTP 500: Input should be"),
    ],
)
def test_an_unusable_server(wrong: str, probe: str, says: str) -> None:
    patience = 1.5 if wrong in {"mute", "hangs"} else 10
    with served(Sick(wrong).handle) as url:
        report = look("hosted_vllm/good", f"{url}/v1", patience=patience)
    assert not report.usable
    assert [f.probe for f in report.findings if f.level == "fatal"] == [probe]
    assert says in by_probe(report)[probe].said


@pytest.mark.parametrize(
    ("reply", "says", "advice"),
    [
        (FAULTS["429"], "HTTP 429: busy", "try again when the server has room"),
        (FAULTS["503"], "HTTP 503: too many requests wait", "try again when the server has room"),
        (FAULTS["hang"], "no answer within 0.3 s", "raise --timeout"),
        (FAULTS["hangs up"], "hung up before its answer was complete", "see the log"),
        (FAULTS["error body"], "HTTP 200: model not found", "see the log"),
        (FAULTS["not JSON"], "an HTML page", "see the log"),
        (Reply('{"zone": "', finish="length"), "every answer ran into the token limit", "not use"),
    ],
)
def test_a_server_that_never_gives_a_typed_answer(reply: Reply, says: str, advice: str) -> None:
    """It answers plain questions well."""

    def script(asked: Asked) -> Reply:
        return reply if "response_format" in asked.json else Reply("The sea.")

    with Recorder(script) as server:
        server.owner = "somebody"
        report = look("openai/tiny", f"{server.url}/v1", patience=0.3)
    assert not report.usable
    found = by_probe(report)["schema"]
    assert [f for f in report.findings if f.level == "fatal"] == [found]
    assert found.said.startswith("no typed answer came: ")
    assert says in found.said
    assert advice in found.advice


@pytest.mark.parametrize(
    ("wrong", "probe", "level", "says"),
    [
        ("", "long prompts", "ok", "refused, not cut"),
        ("cuts", "long prompts", "warning", "silently cut"),
        ("swallows", "long prompts", "ok", "were read"),
        ("counts nothing", "long prompts", "unknown", "does not count"),
        ("ranges", "integer ranges", "warning", "0 of 10"),
        ("ranges", "number ranges", "warning", "0 of 4"),
        ("control characters", "text", "warning", "raw control characters"),
        ("random", "seed, alone", "warning", "1 of 8 are the same"),
        ("random", "seed, at once", "warning", "1 of 8 are the same"),
        ("no sampling", "sampling", "warning", "the same answer at temperature 1"),
        ("", "logprobs", "warning", "none"),
        ("", "prefix cache", "unknown", "does not tell"),
    ],
)
def test_a_server_with_a_drawback(wrong: str, probe: str, level: str, says: str) -> None:
    with served(Sick(wrong).handle) as url:
        report = look("hosted_vllm/good", f"{url}/v1", patience=5)
    found = by_probe(report)[probe]
    assert report.usable
    assert (found.level, says in found.said) == (level, True), found


def test_vllm_is_told_by_its_list_of_models() -> None:
    with served(Sick(owner="vllm").handle) as url:
        report = look("hosted_vllm/goood", f"{url}/v1")
    assert (report.server, report.version) == ("vLLM", "0.32.0")
    assert by_probe(report)["model"].advice == "did you mean `good`?"


def test_vllm_without_v1_is_told_where_it_is() -> None:
    with served(Sick().handle) as url:
        report = look("hosted_vllm/good", url)
    assert by_probe(report)["endpoint"].advice == f"write `endpoint: {url}/v1`"


def test_an_ollama_string_for_another_server() -> None:
    with served(Sick(owner="vllm").handle) as url:
        report = look("ollama_chat/good", url)
    assert "write `hosted_vllm/good`" in by_probe(report)["endpoint"].advice


def test_an_unknown_server_may_have_models_that_it_does_not_list() -> None:
    with served(Sick(owner="somebody").handle) as url:
        report = look("openai/secret", f"{url}/v1")
    assert report.usable
    assert levels(report)["model"] == "warning"
    assert report.server == "OpenAI-compatible"


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        report = look("ollama_chat/x", endpoint)
    (finding,) = report.findings
    assert (finding.probe, finding.level) == ("reachable", "fatal")
    assert finding.said == f"{endpoint}: connection refused"
    assert "ollama serve" in finding.advice


def test_what_drips_for_ever_is_given_up() -> None:
    """A server that sends a byte now and then never lets a read run out of time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        over = threading.Event()

        def drip() -> None:
            line, _ = listener.accept()
            with line:
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not over.wait(0.1):
                    line.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            report = look("openai/x", f"http://127.0.0.1:{port}/v1", patience=0.5)
        finally:
            over.set()
            thread.join()
    assert "no answer within 0.5 s" in report.findings[0].said


# --- keys


def test_a_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_TEST_KEY", "s3cret-of-mine")
    sick = Sick("locked")
    with served(sick.handle) as url:
        report = look("hosted_vllm/good", f"{url}/v1", key="DOCTOR_TEST_KEY")
    assert "Bearer s3cret-of-mine" in {h.get("authorization") for h in sick.headers}
    assert "s3cret" not in report.model_dump_json()
    assert by_probe(report)["key"].said == "the environment variable DOCTOR_TEST_KEY is set"


def test_a_key_that_is_not_set_is_fatal_and_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DOCTOR_TEST_KEY", raising=False)
    sick = Sick()
    with served(sick.handle) as url:
        report = look("hosted_vllm/good", f"{url}/v1", key="DOCTOR_TEST_KEY")
    assert (levels(report), sick.headers) == ({"key": "fatal"}, [])


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_TEST_KEY", "two\nlines")
    with served(Sick().handle) as url:
        report = look("hosted_vllm/good", f"{url}/v1", key="DOCTOR_TEST_KEY")
    assert "cannot be asked (ValueError)" in report.findings[-1].said
    assert "lines" not in report.model_dump_json()


@pytest.mark.parametrize("host", ["exa mple", "no-such-host.invalid", "[::1]:9"])
def test_a_host_that_is_none(host: str) -> None:
    report = look("openai/x", f"http://{host}/v1")
    assert levels(report) == {"reachable": "fatal"}


def test_redirects_are_not_followed() -> None:
    def elsewhere(method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        return 302, {"go": "elsewhere"}

    with served(elsewhere) as url:
        report = look("openai/x", f"{url}/v1")
    assert "redirects elsewhere" in report.findings[0].said


@pytest.mark.parametrize(
    "endpoint", ["localhost:8000", "ftp://x/v1", "http://", "http://me:pw@x/v1", "http://x:port/v1"]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(BadEndpoint) as wrong:
        checked(endpoint)
    assert "pw" not in str(wrong.value)


# --- small parts


@pytest.mark.parametrize(
    ("named", "first"),
    [
        ("", "http://localhost:11434"),
        ("0.0.0.0", "http://localhost:11434"),
        ("gpu-box:8888", "http://gpu-box:8888"),
        ("https://ollama.example", "https://ollama.example:443"),
        ("http://me:pw@x", "http://localhost:11434"),
    ],
)
def test_where_ollama_is(named: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", named)
    assert places()[0] == first


@pytest.mark.parametrize(
    ("tokens", "when"),
    [
        ((Token("{", -3.0, (("The", -0.1),)),), "before"),
        ((Token("{", -0.0, (("{", -0.0),)), Token('"z', -0.001), Token("one", -0.0)), "after"),
        ((Token("{", -0.2, (("{", -0.2),)), Token('"z', -0.6)), ""),
    ],
)
def test_before_or_after_the_mask(tokens: tuple[Token, ...], when: str) -> None:
    assert mask(tokens) == when


# --- the command


def project(folder: Path, url: str) -> Path:
    from tests.worlds import cases, write_world

    return write_world(folder, cases(), PROGRAM.replace("URL", url))


def test_the_models_of_a_program(
    ollama: tuple[FakeOllama, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = ollama
    monkeypatch.setenv("DOCTOR_TEST_KEY", "k")
    program = str(project(tmp_path, url))
    store = ["--store", str(tmp_path / "s" / "align.db")]
    result = doctor("--program", program, "--quick", "--json", *store)
    assert result.exit_code == 0, result.output
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["kind"] == "installation"
    assert {f["probe"]: f["level"] for f in first["findings"]}["store"] == "ok"
    assert Report.model_validate(second).model == "mine"
    assert not (tmp_path / "s").exists()  # looking leaves nothing behind
    named = doctor("other", "--program", program, "--quick", "--json", *store)
    assert [json.loads(line)["model"] for line in named.stdout.splitlines()] == ["other"]


def test_a_name_that_no_program_has(ollama: tuple[FakeOllama, str], tmp_path: Path) -> None:
    program = project(tmp_path, ollama[1])
    for args in (["othr", "--program", str(program)], ["othr"]):
        result = doctor(*args)
        assert isinstance(result.exception, AlignError)
        assert result.exception.exit_code == 2


def test_without_a_model_one_of_each_server_is_probed(ollama: tuple[FakeOllama, str]) -> None:
    fake, url = ollama
    fake.models.append(Installed("second:latest"))
    result = doctor("--endpoint", f"{url}/v1", "--quick", "--json")
    assert result.exit_code == 0, result.output
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r.get("model") for r in reports] == [None, "ollama_chat/llama3.2:3b"]
    assert "ollama_chat/second:latest" in result.stderr


def test_nothing_on_the_usual_ports_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from align_dsl.servers import search

    monkeypatch.setattr(search, "places", lambda: ("http://127.0.0.1:9",))
    result = doctor()
    assert result.exit_code == 0
    assert "tried http://127.0.0.1:9: connection" in " ".join(result.stdout.split())


def test_a_store_that_cannot_be(tmp_path: Path) -> None:
    from align_dsl.servers.installation import installation

    (tmp_path / "file").write_text("")
    found = installation(tmp_path / "file" / "align.db").findings
    assert [f.level for f in found if f.probe == "store"] == ["fatal"]


def test_scripted_and_embedded_need_no_server() -> None:
    result = doctor("embedded", "--json")
    (report,) = map(json.loads, result.stdout.splitlines())
    assert (result.exit_code, report["usable"]) == (0, True)


def test_through_litellm() -> None:
    """A provider that litellm alone can talk to, with its address turned to loopback."""
    sick = Sick()
    with served(sick.handle) as url:
        report = look("together_ai/good", f"{url}/v1", patience=30)
    found = levels(report)
    assert (report.usable, found["schema"], found["text"]) == (True, "ok", "ok"), report
    assert found["throughput"] == "unknown"  # every request is billed


def test_every_probe_is_documented(ollama: tuple[FakeOllama, str], tmp_path: Path) -> None:
    from align_dsl.servers.installation import installation

    report = look("ollama_chat/llama3.2:3b", ollama[1])
    found = {f.probe for f in (*report.findings, *installation(tmp_path / "a.db").findings)}
    text = (HERE.parent / "docs" / "doctor.md").read_text()
    found |= {"key", "endpoint", "kind", "throughput"}
    assert [p for p in sorted(found) if f"`{p}`" not in text] == []


# --- what a person reads


def steady(text: str) -> str:
    """The same, but for ports and times."""
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    text = re.sub(r"\d+ ms\b", "N ms", text)
    text = re.sub(r"after [\d.]+ s", "after N s", text)
    text = re.sub(r"at once:\s[\d.,\s]*?(?=\n\S)", "at once: RATES", text)
    return re.sub(r", \d+ s\)", ", N s)", text)


@pytest.mark.parametrize("name", ["healthy", "sick"])
def test_the_text(name: str) -> None:
    fake = FakeOllama(parallel=8, seconds=0.02)
    handle = fake.handle if name == "healthy" else Sick("ignores the schema", "vllm").handle
    with served(handle) as url:
        if name == "healthy":
            result = doctor("ollama_chat/llama3.2:3b", "--endpoint", url)
        else:
            result = doctor("hosted_vllm/good", "--endpoint", f"{url}/v1")
    assert result.exit_code == (0 if name == "healthy" else 4)
    assert max(map(len, result.stdout.splitlines())) <= 80
    file = HERE / "doctor" / f"{name}.txt"
    if os.environ.get("UPDATE_EXPECT"):
        file.write_text(steady(result.stdout))
    assert steady(result.stdout) == file.read_text()


# --- nonsense


@pytest.mark.parametrize("seed", range(24))
def test_nonsense_is_no_reason_to_stumble(seed: int) -> None:
    dice = random.Random(seed)
    llama = {"build_info": "b1", "total_slots": 2, "default_generation_settings": {"n_ctx": 2048}}
    healthy = FakeOllama().handle if seed % 3 == 0 else Sick(owner="llamacpp").handle

    def handle(method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        if path == "/props":
            return 200, spoilt(llama, dice)
        status, said = healthy(method, path, body, headers)
        kept = dice.random() < (0.4 if "chat" in path else 0.85) or isinstance(said, str)
        return status, said if kept else spoilt(said, dice)

    use = "ollama_chat/llama3.2:3b" if seed % 3 == 0 else "openai/good"
    with served(handle) as url:
        report = look(use, url if seed % 3 == 0 else f"{url}/v1", patience=2)
    assert report.findings
    assert json.loads(report.model_dump_json())["usable"] == report.usable
    assert "\x1b" not in "".join(f.said + f.advice for f in report.findings)
