"""Decisions a second against a real server, and how much of its prefix cache is made use of.

    python benchmarks/throughput.py [--rounds 3] [--in-flight 1 8 32 128] [--quick]
    python benchmarks/throughput.py --vllm .venv-vllm/bin/python    the Python that has vLLM

The server is llama.cpp's (xllamacpp, one thread, eight slots), a new one for each measurement, or a
vLLM that is started once. Either has the model of `tests/models/trained.gguf`, which knows a closed
world by heart, so it is known which answers are right. Server and client have a core each: vLLM's
processes wait for each other without sleeping, and would keep a client from running for a second.

Everybody asks the same questions, attribute after attribute. Each measurement has attributes of its
own (a number in their definition), so nobody finds what another has left in a cache. Clients are
processes of their own, take turns, and are timed from a program in memory to the last decision:

* raw aiohttp: the bytes that ours sends, in its order, with nothing around them: the yardstick;
* litellm: `acompletion` with the same messages and a JSON schema;
* DSPy: `Evaluate` with as many threads as there may be in flight: of our messages, sent by
  `dspy.LM`; of a `Predict` with JSONAdapter that was told that the server takes a schema; with
  `--only` also of one as it comes;
* ours: `pipeline.run` with a new store: plan, ask, save, decide, judge, write the record.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.models import TRAINED, world  # noqa: E402

SLOTS = 8  # questions that llama.cpp answers at once; the others wait in its queue
MOST_TOKENS = 160  # as in the program
ATTRIBUTES = 4  # at least, though the model knows but two: of each there are as many as needed
CASES = len(world.cases())
DECISIONS = {1: 448, 8: 448, 32: 1792, 128: 1792}
ATTRIBUTE = {
    "mercy": "title: mercy, about: Sparing people SALT., high: It spares., low: It does not spare.",
    "order": "title: order, about: Keeping rules SALT., high: It keeps them., low: It breaks them.",
}
PROGRAM = """\
version: 1
program: throughput
about: Ratings of both choices of each scenario.
attributes:
ATTRIBUTES
data: {format: jsonl, path: cases.jsonl}
targets: {each: [high]}
deciders:
  rated: {use: comparative_regression}
models:
  server: {use: USE, endpoint: "ENDPOINT", concurrency: IN_FLIGHT, max_tokens: 160}
model: server
"""
SAID = json.dumps({"because": "", "ratings": {"A": 1, "B": 2}})
CANNED = json.dumps({"choices": [{"message": {"content": SAID}}]}).encode()

Numbers = Mapping[str, int] | None  # what was answered, by letter; None where that cannot be used


# --- what is asked ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement: so many decisions by one client, with so many in flight."""

    use: str  # the model, as litellm calls it
    endpoint: str
    in_flight: int
    decisions: int
    salt: str  # stands near the beginning of each prompt

    def write(self, folder: Path) -> Path:
        titles = world.NAMES * (max(ATTRIBUTES, -(-self.decisions // CASES)) // len(world.NAMES))
        names = [f"{title}_{i}" for i, title in enumerate(titles)]
        cases = world.cases(self.decisions // len(names))
        for case in cases:
            for choice in case["choices"]:  # type: ignore[attr-defined]
                known = choice["labels"]
                choice["labels"] = {name: known[name.partition("_")[0]] for name in names}
        (folder / "cases.jsonl").write_text("".join(world.line(case) + "\n" for case in cases))
        lines = [
            f"  {name}: {{{ATTRIBUTE[title].replace('SALT', f'({self.salt} {name})')}}}"
            for name, title in zip(names, titles, strict=True)
        ]
        text = PROGRAM.replace("ATTRIBUTES", "\n".join(lines))
        text = text.replace("USE", self.use).replace("ENDPOINT", self.endpoint)
        text = text.replace("IN_FLIGHT", str(self.in_flight))
        path = folder / "throughput.yaml"
        path.write_text(text)
        return path


class Asked:
    """The questions of a task: what ours would send, in its order, and what is true."""

    def __init__(self, task: Task) -> None:
        from align_dsl.pipeline import load, open_backends, plan_run

        self.task = task
        self.folder = tempfile.TemporaryDirectory()
        self.loaded = load(task.write(Path(self.folder.name)))
        self.backends = open_backends(self.loaded.program)
        self.plan = plan_run(self.loaded, self.backends)
        jobs = [self.plan.jobs[key] for key in self.plan.model_jobs]
        self.jobs = sorted(jobs, key=lambda job: job.inputs["attribute"].name)

    def bodies(self) -> list[tuple[str, bytes]]:
        """The requests of a run that is answered by nobody; `jobs` are in their order then."""
        from align_dsl.engine.execute import execute
        from align_dsl.engine.reply import Reply
        from align_dsl.records.store import Store

        sent: list[tuple[str, bytes]] = []

        async def post(_: Any, url: str, body: bytes) -> Reply:
            sent.append((url, body))
            return Reply(200, CANNED, None, "")

        (backend,) = self.backends.values()
        backend.probe()  # what kind of server it is decides what is sent
        backend.engine.wire.session.post = post  # type: ignore[attr-defined]
        with Store.open(Path(self.folder.name) / "none.db") as store:
            execute(self.plan, self.backends, store)
        by_seed: dict[int, list[Any]] = {}
        for job in self.jobs:
            by_seed.setdefault(int(job.key[:7], 16), []).append(job)
        self.jobs = [by_seed[json.loads(body)["seed"]].pop() for _, body in sent]
        assert not any(by_seed.values())
        return sent

    def right(self, index: int, said: Numbers) -> bool:
        job = self.jobs[index]
        at = world.NAMES.index(job.inputs["attribute"].title)
        shown = job.inputs["scenario"].choices
        return said == {c.id: world.ACTIONS[c.text][at] for c in shown}

    def close(self) -> None:
        for backend in self.backends.values():
            backend.close()
        self.folder.cleanup()


# --- who asks: each is made ready, and then timed ---------------------------------------------

Ready = Callable[[], Callable[[], list[Numbers]]]
"""Asks everything; then, no longer timed, what was answered."""


def raw(asked: Asked) -> Ready:
    import aiohttp
    import orjson

    sent, texts = asked.bodies(), [""] * len(asked.jobs)

    async def all_of_them() -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "application/json"}
        ) as session:

            async def post(url: str, body: bytes) -> bytes:
                async with session.post(url, data=body) as response:
                    return await response.read()

            async def one(index: int) -> None:
                try:
                    said = await post(*sent[index])
                except aiohttp.ServerDisconnectedError:  # the line was idle for too long
                    said = await post(*sent[index])
                texts[index] = orjson.loads(said)["choices"][0]["message"]["content"]
                read(texts[index])

            await bounded(one, len(sent), asked.task.in_flight)

    def go() -> Callable[[], list[Numbers]]:
        asyncio.run(all_of_them())
        return lambda: [read(text) for text in texts]

    return go


def litellm_loop(asked: Asked) -> Ready:
    import litellm

    from align_dsl.engine.mapping import format_of

    task, texts = asked.task, [""] * len(asked.jobs)
    said = [json.loads(body)["messages"] for _, body in asked.bodies()]
    format_ = json.loads(format_of(shape()))

    async def one(index: int) -> None:
        answer = await litellm.acompletion(
            model=task.use,
            api_base=task.endpoint,
            api_key="none",
            messages=said[index],
            response_format=format_,
            temperature=0,
            max_tokens=MOST_TOKENS,
        )
        texts[index] = answer.choices[0].message.content or ""
        read(texts[index])

    loop = asyncio.new_event_loop()

    def go() -> Callable[[], list[Numbers]]:
        loop.run_until_complete(bounded(one, len(said), task.in_flight))
        return lambda: [read(text) for text in texts]

    return go


def dspy_evaluate(asked: Asked, *, told: bool = False, chat: bool = False) -> Ready:
    """Of a `Predict` with the same task, which DSPy says in its own words."""
    import dspy
    from pydantic import Field, create_model

    from align_dsl.algorithms.rate_together import INSTRUCTIONS
    from align_dsl.engine.prompt import fields
    from align_dsl.language.wording import fill

    task = asked.task
    if told:
        import litellm

        provider = task.use.partition("/")[0]
        about = {"litellm_provider": provider, "mode": "chat", "supports_response_schema": True}
        litellm.register_model({task.use: about})
    number = (int, Field(ge=0, le=10))
    taken = {name: (kind, dspy.InputField()) for name, kind in SHOWN.items()}
    given = {"because": str, "ratings": create_model("Ratings", A=number, B=number)}
    signature = dspy.Signature(taken | {n: (k, dspy.OutputField()) for n, k in given.items()})
    attributes = {job.inputs["attribute"].name: job.inputs["attribute"] for job in asked.jobs}
    predicts = {
        name: dspy.Predict(signature.with_instructions(fill(INSTRUCTIONS, fields({"": attribute}))))
        for name, attribute in attributes.items()
    }

    def rate(example: Any) -> Any:
        shown = example.scenario
        choices = [f"{c.id}. {c.text}" for c in shown.choices]
        said = predicts[example.attribute.name](scenario=shown.text, choices=choices)
        return said.ratings.model_dump()

    return _evaluated(asked, rate, dspy.ChatAdapter() if chat else dspy.JSONAdapter())


SHOWN = {"scenario": str, "choices": list[str]}


def dspy_told(asked: Asked) -> Ready:
    return dspy_evaluate(asked, told=True)


def dspy_chat(asked: Asked) -> Ready:
    return dspy_evaluate(asked, chat=True)


def dspy_same(asked: Asked) -> Ready:
    """Of a module that has `dspy.LM` sent our very messages: the same work for the server."""
    import dspy

    from align_dsl.engine.adapter import request

    use, said = asked.task.use, [json.loads(body)["messages"] for _, body in asked.bodies()]

    def rate(example: Any) -> Any:
        answer = dspy.settings.lm(request(use, shape(), said[example.index], None, 0.0))
        return read(answer.message.text or "")

    return _evaluated(asked, rate, dspy.JSONAdapter())


def _evaluated(asked: Asked, rate: Callable[[Any], Any], adapter: Any) -> Ready:
    import dspy

    logging.disable(logging.ERROR)  # one line for each answer that cannot be read
    task = asked.task

    class Rate(dspy.Module):  # type: ignore[misc]
        def forward(self, **example: Any) -> Any:
            return dspy.Prediction(ratings=rate(dspy.Example(**example)))

    devset = [
        dspy.Example(index=i, **job.inputs).with_inputs("index", *job.inputs)
        for i, job in enumerate(asked.jobs)
    ]
    evaluate = dspy.Evaluate(
        devset=devset,
        metric=lambda example, said, trace=None: float(said.ratings is not None),
        num_threads=task.in_flight,
        max_errors=len(devset) + 1,
    )
    place = {"api_base": task.endpoint, "api_key": "none", "engine": "litellm", "cache": False}
    lm = dspy.LM(task.use, temperature=0, max_tokens=MOST_TOKENS, **place)

    def go() -> Callable[[], list[Numbers]]:
        with dspy.context(lm=lm, adapter=adapter, disable_history=True):
            found = evaluate(Rate()).results
        return lambda: [getattr(said, "ratings", None) for _, said, _ in found]

    return go


def ours(asked: Asked) -> Ready:
    from align_dsl.pipeline import run
    from align_dsl.records.store import Store

    def go() -> Callable[[], list[Numbers]]:
        with Store.open(Path(asked.folder.name) / "align.db") as store:
            run(asked.loaded, store)
        return answers

    def answers() -> list[Numbers]:
        with Store.open(Path(asked.folder.name) / "align.db") as store:
            known = store.known(asked.plan.model_jobs)
        return [read(known[job.key].raw) for job in asked.jobs]

    return go


CLIENTS: dict[str, Callable[[Asked], Ready]] = {
    "raw aiohttp": raw,
    "litellm, `acompletion`": litellm_loop,
    "DSPy `Evaluate`, our messages": dspy_same,
    "DSPy `Evaluate`, told of schemas": dspy_told,
    "DSPy `Evaluate`, JSONAdapter": dspy_evaluate,
    "DSPy `Evaluate`, ChatAdapter": dspy_chat,
    "ours": ours,
}
USUAL = [name for name in CLIENTS if "Adapter" not in name]


def shape() -> Any:
    from align_dsl.engine.prompt import Shape
    from align_dsl.types import Scale

    return Shape((("because", "text"), ("ratings", "numbers")), ("A", "B"), Scale())


def read(text: str) -> Numbers:
    from align_dsl.engine.prompt import Invalid, parse

    try:
        return dict(parse(shape(), text)["ratings"])
    except Invalid:
        return None


async def bounded(one: Callable[[int], Awaitable[None]], n: int, in_flight: int) -> None:
    numbers = iter(range(n))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(in_flight)))


# --- processes --------------------------------------------------------------------------------


def client(name: str) -> None:
    """Does each task that a line of stdin describes, and says what that took."""
    from align_dsl.engine.mapping import whole_litellm

    whole_litellm()
    for line in sys.stdin:
        with closing(Asked(Task(**json.loads(line)))) as asked:
            go = CLIENTS[name](asked)
            print("ready", flush=True)
            sys.stdin.readline()
            before, begun = _cpu(), time.perf_counter()
            answered = go()
            told = {"seconds": time.perf_counter() - begun, "cpu": _cpu() - before}
            numbers = answered()
            told["valid"] = sum(n is not None for n in numbers)
            told["right"] = sum(asked.right(i, n) for i, n in enumerate(numbers))
        print(json.dumps(told), flush=True)


def serve(vllm: Path | None) -> None:
    from tests.models.hf_folder import export
    from tests.servers.llama import Llama
    from tests.servers.vllm import Vllm, running

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or a vLLM would outlive this
    if vllm is None:
        with Llama(TRAINED, SLOTS) as server:
            print(server.endpoint, flush=True)
            sys.stdin.read()
        return
    with tempfile.TemporaryDirectory() as folder:
        real = Vllm(export(TRAINED, Path(folder) / "trained"), vllm)
        with running(real):
            print(real.endpoint, flush=True)
            sys.stdin.read()


class Child:
    """This file as a process of its own, spoken to by lines, and kept to one core."""

    def __init__(self, *words: str, core: int = 0) -> None:
        cores = sorted(os.sched_getaffinity(0))
        pinned = ["taskset", "-c", str(cores[core % len(cores)])]
        self.process = subprocess.Popen(
            [*pinned, sys.executable, __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        )

    def says(self, line: str | None = None) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if line is not None:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise SystemExit(f"{self.process.args!r} ended early")
        return said.strip()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- what the server says of itself -----------------------------------------------------------

METRICS = {  # what is counted -> under which names; several of one name are added up
    "read": ("llamacpp:prompt_tokens_total", "vllm:prompt_tokens_total"),
    "cached": ("llamacpp:prompt_tokens_cached_total", "vllm:prefix_cache_hits_total"),
    "written": ("llamacpp:tokens_predicted_total", "vllm:generation_tokens_total"),
    "steps": ("llamacpp:n_decode_total", "vllm:iteration_tokens_total_count"),
    "answers": ("vllm:request_success_total",),
}


def counted(endpoint: str) -> dict[str, float]:
    with urllib.request.urlopen(endpoint.removesuffix("/v1") + "/metrics", timeout=60) as told:
        text = told.read().decode()
    found = re.findall(r"^([\w:]+)(?:\{.*\})? ([\d.e+]+)$", text, re.MULTILINE)
    sums = {
        what: sum(float(n) for name, n in found if name in names) for what, names in METRICS.items()
    }
    if "llamacpp:" in text:  # it counts what it has cached apart
        sums["read"] += sums["cached"]
    return sums


@contextmanager
def server(endpoint: str) -> Iterator[tuple[str, str]]:
    """The vLLM that runs at an endpoint, or a new llama.cpp."""
    if endpoint:
        yield "hosted_vllm/tiny", endpoint
        return
    with closing(Child("--serve", core=1)) as child:
        yield "openai/tiny", child.says()


# --- measuring --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement."""

    decisions: int
    seconds: float
    cpu: float
    valid: int
    right: int
    read: float
    cached: float
    written: float
    steps: float
    answers: float

    @property
    def rate(self) -> float:
        return self.decisions / self.seconds


def measure_one(child: Child, vllm: str, in_flight: int, decisions: int) -> Cell:
    with server(vllm) as (use, endpoint):
        salt = os.urandom(3).hex()
        task = {"use": use, "endpoint": endpoint, "in_flight": in_flight}
        child.says(json.dumps({**task, "decisions": decisions, "salt": salt}))
        before = counted(endpoint)
        told = json.loads(child.says(""))
        after = counted(endpoint)
    return Cell(decisions, **told, **{what: after[what] - before[what] for what in before})


def measure(given: argparse.Namespace) -> None:
    children = {name: Child("--client", name) for name in given.only or USUAL}
    real = Child("--serve", "--vllm", str(given.vllm), core=1) if given.vllm else None
    vllm = real.says() if real else ""
    try:
        for child in children.values():  # imports, and what is made once
            measure_one(child, vllm, 4, 16)
        for in_flight in given.in_flight:
            n = given.decisions or DECISIONS.get(in_flight, 1792) // (4 if given.quick else 1)
            seen: dict[str, list[Cell]] = {name: [] for name in children}
            for at in range(given.rounds):
                turns = list(children.items())
                for name, child in turns[at % len(turns) :] + turns[: at % len(turns)]:
                    seen[name].append(measure_one(child, vllm, in_flight, n))
            print(table(seen, in_flight, n, given.rounds), flush=True)
    finally:
        for child in (*children.values(), *([real] if real else [])):
            child.close()


def table(seen: Mapping[str, list[Cell]], in_flight: int, n: int, rounds: int) -> str:
    """Ratios are of the same round, and so are their medians of like with like."""
    load = os.getloadavg()[0]
    lines = [
        f"\n{in_flight} in flight, {n} decisions x {rounds} rounds, load {load:.0f}\n",
        "| client | decisions/s | of raw aiohttp | range | valid | right | tokens read "
        "| from cache | written | server steps | client CPU ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    yardstick = seen.get("raw aiohttp")
    for name, cells in seen.items():
        rates = [c.rate for c in cells]
        ratios = [c.rate / y.rate for c, y in zip(cells, yardstick or cells, strict=True)]
        asked = n * len(cells)
        whole = sum(c.read for c in cells)
        told = [
            name,
            f"{statistics.median(rates):.1f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            f"{100 * sum(c.valid for c in cells) / asked:.0f} %",
            f"{100 * sum(c.right for c in cells) / asked:.0f} %",
            f"{whole / asked:.0f}",
            f"{100 * sum(c.cached for c in cells) / max(1, whole):.0f} %",
            f"{sum(c.written for c in cells) / asked:.0f}",
            f"{sum(c.steps for c in cells) / asked:.2f}",
            f"{1000 * statistics.median(c.cpu for c in cells) / n:.1f}",
        ]
        answers = sum(c.answers for c in cells)
        if answers > asked:
            told[0] += f" ({answers / asked:.2f} answers each)"
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)


def main() -> None:
    wishes = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    wishes.add_argument("--in-flight", type=int, nargs="+", default=list(DECISIONS))
    wishes.add_argument("--rounds", type=int, default=3)
    wishes.add_argument("--decisions", type=int, help="in each measurement")
    wishes.add_argument("--quick", action="store_true", help="a quarter of the decisions")
    wishes.add_argument("--vllm", metavar="PYTHON", type=Path, help="vLLM instead of llama.cpp")
    wishes.add_argument("--only", action="append", choices=CLIENTS)
    wishes.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    wishes.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = wishes.parse_args()
    if given.serve:
        serve(given.vllm)
    elif given.client:
        client(given.client)
    else:
        measure(given)


if __name__ == "__main__":
    main()
