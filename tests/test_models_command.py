"""`align-dsl models`: what servers offer, and fetching a model; against an emulated Ollama."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from align_dsl.commands.models import command
from align_dsl.errors import AlignError
from align_dsl.servers import search
from align_dsl.servers.pull import Progress, pull
from tests.servers.fake_ollama import Answer, FakeOllama, Installed, served
from tests.servers.sick import Sick


def models(*args: str) -> Result:
    return CliRunner().invoke(command, args)


@pytest.fixture
def ollama() -> Iterator[tuple[FakeOllama, str]]:
    fake = FakeOllama([Installed("llama3.2:3b"), Installed("odd[name]:1b")])
    with served(fake.handle) as url:
        yield fake, url


def vllm(method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
    if path == "/v1/models":
        one = {"id": "Qwen/Qwen3-8B", "owned_by": "vllm", "max_model_len": 32768}
        return 200, {"object": "list", "data": [one]}
    return (200, {"version": "0.32.0"}) if path == "/version" else (404, {"detail": "Not Found"})


def test_what_two_servers_offer(ollama: tuple[FakeOllama, str]) -> None:
    with served(vllm) as other:
        result = models("--endpoint", ollama[1], "--endpoint", f"{other}/v1", "--json")
    assert result.exit_code == 0, result.output
    offers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(o["model"], o["server"]) for o in offers] == [
        ("ollama_chat/llama3.2:3b", "Ollama"),
        ("ollama_chat/odd[name]:1b", "Ollama"),
        ("hosted_vllm/Qwen/Qwen3-8B", "vLLM"),
    ]
    assert offers[0]["digest"] == Installed("llama3.2:3b").digest
    assert (offers[2]["endpoint"], offers[2]["context"]) == (f"{other}/v1", 32768)


def test_the_table_says_what_to_write(ollama: tuple[FakeOllama, str]) -> None:
    result = models("--endpoint", ollama[1])
    assert result.exit_code == 0, result.output
    assert "ollama_chat/odd[name]:1b" in result.stdout
    written = yaml.safe_load(result.stdout[result.stdout.index("  models:") :])
    use = {"use": "ollama_chat/llama3.2:3b", "endpoint": ollama[1]}
    assert written == {"models": {"llama3_2_3b": use}, "model": "llama3_2_3b"}


def test_the_usual_ports(ollama: tuple[FakeOllama, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "places", lambda: ("http://127.0.0.1:9", ollama[1]))
    result = models("--json")
    assert len(result.stdout.splitlines()) == 2


def test_nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "places", lambda: ("http://127.0.0.1:9", "http://127.0.0.1:1"))
    result = models()
    assert isinstance(result.exception, AlignError)
    assert result.exception.exit_code == 4
    assert "tried http://127.0.0.1:9: connection" in str(result.exception)
    assert "http://127.0.0.1:1: connection" in str(result.exception)


def test_a_server_that_wants_a_key() -> None:
    with served(Sick("locked").handle) as url:
        result = models("--endpoint", f"{url}/v1")
    said, _, advice = str(result.exception).partition("\n  = ")
    assert said.endswith("HTTP 401: the server wants a key, or another one")
    assert advice == "name the variable that holds it: `key:` in a program, or --key"


def test_a_key_is_of_no_use_where_no_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Sick("locked").handle) as url:
        monkeypatch.setattr(search, "places", lambda: (url,))
        result = models()
    advice = str(result.exception).partition("\n  = ")[2]
    assert advice == "start a server, or name it with --endpoint, and its key with --key"


def test_nothing_offered() -> None:
    with served(FakeOllama([]).handle) as url:
        result = models("--endpoint", url)
    assert isinstance(result.exception, AlignError)
    assert f"{url} (Ollama): offers no model\n  = give the server a model" in str(result.exception)


def test_a_key_goes_to_named_endpoints_only(
    ollama: tuple[FakeOllama, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = ollama
    monkeypatch.setenv("OLLAMA_API_KEY", "not-for-you")
    monkeypatch.setenv("MODELS_TEST_KEY", "for-the-named")
    monkeypatch.setattr(search, "places", lambda: (url,))
    assert models("--key", "MODELS_TEST_KEY").exit_code == 0
    sent = {h.get("authorization", "") for h in fake.headers}
    assert not any("not-for-you" in s or "for-the-named" in s for s in sent)
    assert models("--key", "MODELS_TEST_KEY", "--endpoint", url).exit_code == 0
    assert "Bearer for-the-named" in {h.get("authorization", "") for h in fake.headers}


# --- pull


def test_a_pull_tells_how_far_it_is(ollama: tuple[FakeOllama, str]) -> None:
    steps = list(pull("qwen3:0.6b", ollama[1]))
    assert Progress("pulling abababababab", "abababababab", 400, 1000) in steps
    assert steps[-1].status == "success"


def test_what_was_pulled_is_listed(ollama: tuple[FakeOllama, str]) -> None:
    result = models("--pull", "ollama_chat/qwen3:0.6b", "--endpoint", ollama[1], "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        "pulling manifest", "pulling abababababab 0 %", "verifying sha256 digest",
        "writing manifest", "success", "pulled qwen3:0.6b",
    ]  # fmt: skip
    assert '"ollama_chat/qwen3:0.6b"' in result.stdout


def test_a_name_that_nobody_has(ollama: tuple[FakeOllama, str]) -> None:
    result = models("--pull", "qwen33", "--endpoint", ollama[1])
    assert isinstance(result.exception, AlignError)
    assert str(result.exception).startswith(
        "Ollama cannot pull `qwen33`: pull model manifest: file does not exist\n  = see that"
    )


def test_a_pull_that_breaks_off(ollama: tuple[FakeOllama, str]) -> None:
    ollama[0].break_off = True
    result = models("--pull", "qwen3:0.6b", "--endpoint", ollama[1])
    assert isinstance(result.exception, AlignError)
    assert "ended before it was done" in str(result.exception)


def test_no_ollama_to_pull_with() -> None:
    result = models("--pull", "x", "--endpoint", "http://127.0.0.1:9")
    assert isinstance(result.exception, AlignError)
    assert "no Ollama answers at http://127.0.0.1:9" in str(result.exception)


def test_another_server_cannot_pull() -> None:
    with served(vllm) as url:
        result = models("--pull", "x", "--endpoint", f"{url}/v1")
    assert isinstance(result.exception, AlignError)
    assert result.exception.exit_code == 4


# --- the whole command


def test_it_is_a_command_and_imports_no_model_library() -> None:
    code = (
        "import sys; from align_dsl.commands import main\n"
        "sys.argv = ['align-dsl', 'models', '--endpoint', 'http://127.0.0.1:9']\n"
        "try: main()\n"
        "except SystemExit as e: print(e.code, {'dspy', 'litellm', 'ollama'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "4 set()\n", done
    assert done.stderr.startswith("error: no server offers a model; tried http://127.0.0.1:9")
