"""The Ollama that answers at OLLAMA_HOST, if one does: its models are made, and the tests run.

    python -m tests.servers.ollama [PYTEST ARGUMENTS]

The two models of the tests are imported as files, `align-dsl-trained` and `align-dsl-random`, and
stay (`ollama rm` removes them). With ALIGN_DSL_OLLAMA_MODEL=llama3.2:3b that one is asked instead,
and only what any model has to keep is tested. Written from Ollama's documentation; no real Ollama
has run it yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.models import TRAINED
from tests.models.gguf_file import SPECIAL, random_model
from tests.servers.real import OLLAMA, OLLAMA_MODEL, OLLAMA_MODELS

TEMPLATE = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
SECONDS = 60.0
TESTS = ("test_real_server", "test_rating_modes", "test_doctor")
ANY_MODEL = "as_asked or thousands or real_server_is_usable"


def address() -> str:
    """Where Ollama is, as its own commands understand OLLAMA_HOST."""
    from align_dsl.servers.server import places

    return next(p for p in places() if p.endswith(":11434") or os.environ.get("OLLAMA_HOST"))


def version(url: str) -> str:
    """Empty where none answers."""
    try:
        said = _ask("GET", f"{url}/api/version")
    except (OSError, ValueError):
        return ""
    return str(said.get("version", "")) if isinstance(said, dict) else ""


def create(url: str, name: str, file: Path) -> None:
    """Have Ollama make a model of a GGUF file. Raises OSError where it will not."""
    raw = file.read_bytes()
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    try:
        _ask("HEAD", f"{url}/api/blobs/{digest}")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 404:
            raise
        _ask("POST", f"{url}/api/blobs/{digest}", raw, "application/octet-stream")
    wanted = {
        "model": name,
        "files": {file.name: digest},
        "template": TEMPLATE,
        "parameters": {"stop": [SPECIAL[2]], "num_ctx": 4096},
        "stream": False,
    }
    said = _ask("POST", f"{url}/api/create", json.dumps(wanted).encode(), "application/json")
    if not isinstance(said, dict) or said.get("status") != "success":
        raise OSError(f"Ollama did not make {name}: {said}")


def _ask(method: str, url: str, body: bytes | None = None, kind: str = "") -> Any:
    headers = {"Content-Type": kind} if kind else {}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        raw = answer.read()
        return json.loads(raw) if raw else None


def main() -> int:
    url = address()
    found = version(url)
    if not found:
        print(f"skipped: no Ollama answers at {url}; start `ollama serve`, or set OLLAMA_HOST")
        return 0
    print(f"Ollama {found} at {url}", flush=True)
    named = {OLLAMA: url}
    chosen: list[str] = []
    if name := os.environ.get(OLLAMA_MODEL):
        print(f"asking {name}: only what any model has to keep is tested", flush=True)
        chosen = ["-k", ANY_MODEL]
    else:
        with tempfile.TemporaryDirectory() as folder:
            create(url, OLLAMA_MODELS[0], TRAINED)
            create(url, OLLAMA_MODELS[1], random_model(Path(folder) / "random.gguf"))
    here = Path(__file__).parents[1]
    words = [*(str(here / f"{name}.py") for name in TESTS), *chosen, *(sys.argv[1:] or ["-q"])]
    tests = [sys.executable, "-m", "pytest", *words]
    return subprocess.run(tests, env={**os.environ, **named}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
