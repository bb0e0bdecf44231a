"""How `make test-ollama` makes its models, against an emulation of Ollama. It is not Ollama."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import TRAINED
from tests.servers.fake_ollama import FakeOllama, served
from tests.servers.ollama import address, create, version
from tests.worlds import ROOT


def test_a_file_is_sent_once_and_made_a_model() -> None:
    fake = FakeOllama()
    with served(fake.handle) as url:
        assert version(url) == fake.version
        for _ in range(2):
            create(url, "align-dsl-trained", TRAINED)
    assert list(fake.blobs.values()) == [TRAINED.stat().st_size]
    sent = [path for path, body in fake.asked if isinstance(body, bytes)]
    assert len(sent) == 1  # the second time it was there already
    (made,) = [m for m in fake.models if m.name == "align-dsl-trained:latest"]
    assert (made.context, made.template) == (4096, True)


def test_what_ollama_will_not_make_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    fake = FakeOllama()

    def refuses(method: str, path: str, body: object, headers: dict[str, str]) -> object:
        if path == "/api/create":
            return 200, {"error": "unsupported architecture"}
        return fake.handle(method, path, body, headers)

    with served(refuses) as url, pytest.raises(OSError, match="unsupported architecture"):  # type: ignore[arg-type]
        create(url, "x", file)


@pytest.mark.parametrize("said", ["127.0.0.1:4321", "http://127.0.0.1:4321", ":4321"])
def test_the_host_is_read_as_ollama_reads_it(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", said)
    assert address() == "http://localhost:4321"


def test_where_none_answers_it_says_that_it_skips() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.servers.ollama"],
        cwd=ROOT,
        env={**os.environ, "OLLAMA_HOST": "127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "skipped: no Ollama answers at http://localhost:9" in done.stdout
