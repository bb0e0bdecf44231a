"""A server behind https: whose certificate nobody trusts, that is trusted, or that speaks no TLS.

The certificate is for `localhost`, signed by itself, and made anew by `openssl` for these tests.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.errors import AlignError

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="`openssl` makes them")


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    key = path.with_name("key.pem")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made, "-keyout", key, "-out", path], check=True, capture_output=True)
    path.write_text(path.read_text() + key.read_text())
    return path


class _Lists(BaseHTTPRequestHandler):
    """Offers one model."""

    def do_GET(self) -> None:
        listed = {"object": "list", "data": [{"id": "tiny", "owned_by": "somebody"}]}
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(listed if self.path == "/v1/models" else {}).encode())

    def log_message(self, format: str, *said: object) -> None: ...


def _server(pem: Path | None) -> Iterator[int]:
    server = ThreadingHTTPServer(("localhost", 0), _Lists)
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def encrypted(pem: Path) -> Iterator[int]:
    yield from _server(pem)


@pytest.fixture
def plain() -> Iterator[int]:
    yield from _server(None)


def doctor(endpoint: str) -> str:
    result = CliRunner().invoke(cli, ["doctor", "openai/tiny", "--endpoint", endpoint])
    assert result.exit_code == 4
    return " ".join(result.output.split())


def models(endpoint: str) -> str:
    error = CliRunner().invoke(cli, ["models", "--endpoint", endpoint]).exception
    assert isinstance(error, AlignError)
    return str(error)


@pytest.mark.parametrize("command", [doctor, models])
def test_a_certificate_that_nobody_knows(command: Callable[[str], str], encrypted: int) -> None:
    said = command(f"https://localhost:{encrypted}/v1")
    assert "its certificate is not trusted (self-signed certificate)" in said
    assert "set SSL_CERT_FILE" in said
    assert "start the server" not in said


@pytest.mark.parametrize("command", [doctor, models])
def test_a_server_without_tls(command: Callable[[str], str], plain: int) -> None:
    said = command(f"https://localhost:{plain}/v1")
    assert "no encrypted connection could be made (" in said
    assert "begins with http://, not https://" in said


def test_a_certificate_that_is_named_is_trusted(encrypted: int, pem: Path) -> None:
    """So the advice is good."""
    command = ["-m", "align_dsl", "models", "--endpoint", f"https://localhost:{encrypted}/v1"]
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "SSL_CERT_FILE": str(pem)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "openai/tiny" in done.stdout
