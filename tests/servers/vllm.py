"""The real vLLM, on loopback and on the CPU, as a process of its own.

    python -m tests.servers.vllm [--python .venv-vllm/bin/python] [PYTEST ARGUMENTS]

starts two, with the model that knows the closed world by heart and with random weights, runs the
tests that real servers have to pass, and stops them, whatever comes. It takes a minute or two until
they answer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.models import TRAINED
from tests.models.gguf_file import random_model
from tests.models.hf_folder import export
from tests.servers.real import VLLM, VLLM_RANDOM

PYTHON = Path(".venv-vllm/bin/python")
SECONDS = 600.0  # that a start may take
WINDOW = 4096
TESTS = ("test_real_server", "test_rating_modes", "test_doctor", "test_vllm")
# the CPU build dies of a request with a seed whose prompt is read in parts
WHOLE_PROMPTS = ("--no-enable-chunked-prefill", "--max-num-batched-tokens", "16384")
# xgrammar, the default, refuses a token of the trained model that the grammar allows
GUIDANCE = ("--structured-outputs-config", '{"backend":"guidance"}')
# engine and worker in one process: two of them wait for each other without sleeping
TOGETHER = ("--distributed-executor-backend", "uni")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else `uni` is not to be had on a CPU
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


class Vllm:
    """A server with one model, called `tiny`. The model is a folder as Hugging Face has it."""

    def __init__(self, model: Path, python: Path = PYTHON, more: tuple[str, ...] = ()) -> None:
        self.model, self.python, self.more = model, python, more
        self.port = _free_port()
        self.log = model / "vllm.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1"

    def start(self) -> None:
        # the module, not the command `vllm`, which wants a package of that very name
        said = {
            "--model": self.model, "--host": "127.0.0.1", "--port": self.port,
            "--served-model-name": "tiny", "--dtype": "float32", "--max-model-len": WINDOW,
            "--max-num-seqs": 32,
        }  # fmt: skip
        words = [str(word) for pair in said.items() for word in pair]
        words += ["--enforce-eager", "--enable-prompt-tokens-details"]
        words += [*WHOLE_PROMPTS, *TOGETHER, *GUIDANCE, *self.more]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self.python), "-m", "vllm.entrypoints.openai.api_server", *words],
                env={**os.environ, **ENVIRONMENT},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its workers can be stopped with it
            )

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError with the end of its log where it does not."""
        assert self._process is not None
        end = time.monotonic() + SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"vLLM did not start:\n{self._tail()}")
            time.sleep(1)

    def stop(self) -> None:
        if self._process is None:
            return
        if (code := self._process.poll()) is not None:
            print(f"vLLM ended by itself ({code}):\n{self._tail()}", file=sys.stderr)
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
        self._process = None

    def _tail(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-25:])

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def running(*servers: Vllm) -> Iterator[None]:
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


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _ended(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    wishes = argparse.ArgumentParser(description="Run the tests of real servers against vLLM.")
    wishes.add_argument("--python", type=Path, default=PYTHON, help="the Python that has vLLM")
    given, more = wishes.parse_known_args()
    signal.signal(signal.SIGTERM, _ended)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        byte_model = random_model(place / "random.gguf")
        trained = Vllm(export(TRAINED, place / "trained"), given.python)
        weightless = Vllm(export(byte_model, place / "random"), given.python)
        print("starting vLLM twice; it takes a minute or two", flush=True)
        with running(trained, weightless):
            named = {VLLM: trained.endpoint, VLLM_RANDOM: weightless.endpoint}
            here = Path(__file__).parents[1]
            words = [*(str(here / f"{name}.py") for name in TESTS), *(more or ["-q"])]
            tests = [sys.executable, "-m", "pytest", *words]
            return subprocess.run(tests, env={**os.environ, **named}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
