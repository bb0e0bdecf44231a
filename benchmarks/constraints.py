"""How many answers are what was asked for, where nothing but the constraint helps: random weights.

    python benchmarks/constraints.py [--ours 2000] [--plain 200] [--dspy 2000] [--vllm PYTHON]

Starts the real llama.cpp server (xllamacpp, loopback, one thread) on a model of random weights that
speaks single bytes, and asks it at temperature 1, each question with a seed of its own:

* align-dsl over HTTP and in process, without retries;
* align-dsl over HTTP without what it knows of the server, so by `response_format` alone;
* stock DSPy: `Predict` of the same question with `JSONAdapter`, as DSPy ships it.

With `--vllm .venv-vllm/bin/python` (which `make test-vllm` makes) it starts a real vLLM instead,
with the backend guidance, or another that `--backend` names. A row of 0 questions is left out.

An answer is good where it is complete JSON of the form asked for, every number within its range and
every letter one of those shown. Calls are what the server was asked for per question.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.models.gguf_file import random_model
from tests.models.hf_folder import export
from tests.servers.llama import SLOTS, Llama
from tests.servers.vllm import Vllm, running

LONG = 2500  # tokens: the longest reason there may be, in bytes
WHY: Counter[str] = Counter()  # why answers were not good
AT_ONCE = 32  # of vLLM, which reads and writes for all of them together
HEAD = "| | questions | good | calls each | time each |\n|---|---|---|---|---|"
Ask = Callable[[int], tuple[bool, int]]  # seed -> was it good, and how many calls it took


@dataclass(frozen=True, slots=True)
class Row:
    who: str
    asked: int
    good: int
    calls: int
    seconds: float

    def __str__(self) -> str:
        share, calls = 100 * self.good / self.asked, self.calls / self.asked
        each = 1000 * self.seconds / self.asked
        return f"| {self.who} | {self.asked:,} | {share:.1f} % | {calls:.2f} | {each:.0f} ms |"


def measure(who: str, n: int, ask: Ask, at_once: int = SLOTS) -> None:
    if not n:
        return
    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        said = list(pool.map(ask, range(n)))
    seconds = time.monotonic() - began
    row = Row(who, n, sum(good for good, _ in said), sum(calls for _, calls in said), seconds)
    print(row, flush=True)
    for why, times in WHY.most_common(4):
        print(f"    {times} times {why!r}", file=sys.stderr, flush=True)
    WHY.clear()


def ours(engine: Any) -> Ask:
    from align_dsl.engine.adapter import NoAnswer, NotNow, Trail
    from align_dsl.engine.prompt import Invalid, Shape, messages, parse
    from align_dsl.types import Choice, Scale, Scenario

    because = ("because", "text")
    shapes = (
        Shape((because, ("ratings", "numbers")), ("A", "B", "C"), Scale()),
        Shape((because, ("rating", "number")), (), Scale()),
        Shape((because, ("rating", "number")), (), Scale(low=0, high=1, step=0.1)),
        Shape((because, ("choice", "label")), ("A", "B")),
    )

    def ask(seed: int) -> tuple[bool, int]:
        shape, trail = shapes[seed % len(shapes)], Trail(seed=seed)
        shown = tuple(Choice(id=label, text=f"Do {label}.") for label in shape.labels)
        scenario = Scenario(id="", text="A boy has taken bread.", choices=shown)
        try:
            heard = engine.ask(messages("Judge.", shape, {"scenario": scenario}), shape, trail)
            parse(shape, heard.text)
        except (NoAnswer, NotNow, Invalid) as why:
            WHY[f"{type(why).__name__}: {str(why)[:70]}"] += 1
            return False, trail.calls
        return not heard.cut_off, trail.calls

    return ask


def stock(address: str, endpoint: str) -> Ask:
    import dspy
    import pydantic

    logging.getLogger("dspy").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    class Counting(dspy.LM):  # type: ignore[misc]
        calls = 0

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().forward(*args, **kwargs)

    whole = pydantic.conint(ge=0, le=10)
    part = pydantic.confloat(ge=0, le=1)
    together = pydantic.create_model("Ratings", A=(whole, ...), B=(whole, ...), C=(whole, ...))
    kinds: Sequence[tuple[str, Any]] = (
        ("ratings", together),
        ("rating", whole),
        ("rating", part),
        ("choice", Literal["A", "B"]),
    )

    def signature(name: str, kind: Any) -> Any:
        fields = {
            "scenario": (str, dspy.InputField()),
            "because": (str, dspy.OutputField()),
            name: (kind, dspy.OutputField()),
        }
        return dspy.Signature(fields, "Judge.")

    asked = [(name, dspy.Predict(signature(name, kind))) for name, kind in kinds]

    def ask(seed: int) -> tuple[bool, int]:
        name, predict = asked[seed % len(asked)]
        lm = Counting(
            address, api_base=endpoint, api_key="none", temperature=1.0, max_tokens=LONG,
            seed=seed, cache=False, num_retries=0,
        )  # fmt: skip
        try:
            with dspy.context(lm=lm, adapter=dspy.JSONAdapter(), disable_history=True):
                said = predict(scenario="A boy has taken bread. Choices: A. Do A. B. Do B.")
            value = getattr(said, name)
        except Exception as why:
            WHY[f"{type(why).__name__}: {str(why)[:70]}"] += 1
            return False, lm.calls
        return _in_range(value, kinds[seed % len(kinds)][1]), lm.calls

    def _in_range(value: Any, kind: Any) -> bool:
        try:
            pydantic.TypeAdapter(kind).validate_python(value, strict=False)
        except pydantic.ValidationError:
            return False
        return True

    return ask


def main() -> None:
    wishes = argparse.ArgumentParser(description=__doc__)
    wishes.add_argument("--ours", type=int, default=2000)
    wishes.add_argument("--plain", type=int, default=200)
    wishes.add_argument("--dspy", type=int, default=2000)
    wishes.add_argument("--vllm", type=Path, help="the Python that has vLLM")
    wishes.add_argument("--backend", default="guidance", help="of vLLM, such as xgrammar")
    given = wishes.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or a vLLM would outlive this
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(Path(folder) / "random.gguf")
        if given.vllm:
            holding = ("--structured-outputs-config", f'{{"backend":"{given.backend}"}}')
            vllm = Vllm(export(path, Path(folder) / "random"), given.vllm, holding)
            with running(vllm):
                print(HEAD, flush=True)
                over_http(
                    f"vLLM, {given.backend}", "hosted_vllm/tiny", vllm.endpoint, given, AT_ONCE
                )
        else:
            with Llama(path) as llama:
                print(HEAD, flush=True)
                over_http("llama.cpp", "openai/tiny", llama.endpoint, given, SLOTS)
            in_process(path, given)


SAID: dict[str, Any] = {"temperature": 1.0, "max_tokens": LONG, "retries": 0, "timeout": 600}


def over_http(server: str, address: str, endpoint: str, given: Any, at_once: int) -> None:
    from align_dsl.engine.lm import Engine
    from align_dsl.engine.quirks import Dialect
    from align_dsl.language.program import Model

    model = Model(name="m", backend="litellm", address=address, endpoint=endpoint, **SAID)
    model = model.model_copy(update={"concurrency": at_once})
    known, plain = Engine(model), Engine(model)
    known.look()
    measure(f"align-dsl on {server}", given.ours, ours(known), at_once)
    known.close()
    for place in plain.wire.endpoints if plain.wire else ():
        place.dialect, place.looked = Dialect("nobody knows"), True
    measure("the same, by `response_format`", given.plain, ours(plain), at_once)
    plain.close()
    measure("stock DSPy, JSONAdapter", given.dspy, stock(address, endpoint), at_once)


def in_process(path: Path, given: Any) -> None:
    from align_dsl.backends.gguf import Engine
    from align_dsl.language.program import Model

    engine = Engine(Model(name="m", backend="gguf", address=str(path), **SAID), SLOTS)
    measure("align-dsl, `gguf:`", given.ours, ours(engine))
    engine.close()


if __name__ == "__main__":
    main()
