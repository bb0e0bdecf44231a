"""The real `transformers serve`, on loopback and on the CPU, as a process of its own.

    python -m tests.servers.transformers [--python .venv-vllm/bin/python] [PYTEST ARGUMENTS]

starts two and runs the tests of a server that holds no answer to its form: one was started with the
model that knows the closed world by heart, and has no Hugging Face cache; the other with none, and
has a cache with that model and one of random weights. Needs `accelerate` beside what vLLM brings.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.models import TRAINED
from tests.models.gguf_file import random_model
from tests.models.hf_folder import export
from tests.servers.vllm import PYTHON, _free_port

PINNED, FREE = "ALIGN_DSL_TRANSFORMERS", "ALIGN_DSL_TRANSFORMERS_FREE"
KNOWN, RANDOM = "tests/trained", "tests/random"
"""What the models are called where they are in the cache; the pinned one is `trained` alone."""
SECONDS = 300.0  # that a start may take
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


class Transformers:
    """A server that was started in `folder`, with the model `pinned` of that folder or with none.

    `home` is its Hugging Face cache.
    """

    def __init__(self, folder: Path, home: Path, python: Path, pinned: str = "") -> None:
        self.folder, self.home, self.pinned = folder, home, pinned
        self.python = python.absolute()  # a link, whose folder says what is installed
        self.port = _free_port()
        self.log = folder / f"serve-{pinned or 'free'}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1"

    def start(self) -> None:
        more = self.python.parents[1] / "serving"  # where `make test-transformers` puts accelerate
        said = {"HF_HOME": str(self.home), "PYTHONPATH": str(more), **ENVIRONMENT}
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--device", "cpu"]
        model = [self.pinned] if self.pinned else []
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [self.python, "-m", "transformers.cli.transformers", "serve", *model, *words],
                cwd=self.folder,
                env={**os.environ, **said},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError with the end of its log where it does not."""
        assert self._process is not None
        end = time.monotonic() + SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                last = "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-25:])
                raise RuntimeError(f"transformers serve did not start:\n{last}")
            time.sleep(0.5)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def running(*servers: Transformers) -> Iterator[None]:
    """All of them, started together; stopped on an error and on Ctrl-C as well."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield
    finally:
        for server in servers:
            server.stop()


def cached(model: Path, name: str, home: Path) -> None:
    """Put a model into a Hugging Face cache, as if it had been fetched."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    build = "0" * 40
    shutil.copytree(model, place / "snapshots" / build)
    for empty in ("refs", "blobs"):
        (place / empty).mkdir()
    (place / "refs" / "main").write_text(build)


def _ended(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    wishes = argparse.ArgumentParser(description="Run the tests of `transformers serve` on it.")
    wishes.add_argument("--python", type=Path, default=PYTHON, help="the Python that has it")
    given, more = wishes.parse_known_args()
    signal.signal(signal.SIGTERM, _ended)
    with tempfile.TemporaryDirectory() as folder:
        place, full, empty = Path(folder), Path(folder) / "full", Path(folder) / "empty"
        trained = export(TRAINED, place / "trained")
        weightless = export(random_model(place / "random.gguf"), place / "random")
        cached(trained, KNOWN, full)
        cached(weightless, RANDOM, full)
        pinned = Transformers(place, empty, given.python, "trained")
        free = Transformers(place, full, given.python)
        print("starting transformers serve twice", flush=True)
        with running(pinned, free):
            named = {PINNED: pinned.endpoint, FREE: free.endpoint}
            here = Path(__file__).parents[1] / "test_transformers.py"
            tests = [sys.executable, "-m", "pytest", str(here), *(more or ["-q"])]
            return subprocess.run(tests, env={**os.environ, **named}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
