"""CPU that a client spends per decision, on a server that answers at once.

    python benchmarks/overhead.py [--requests 2000] [--rounds 5] [--in-flight 16]
    python benchmarks/overhead.py --profile     where ours spends it

The server is a process of its own, and so is each client, so that none pays for what another has
imported or left behind. Rounds alternate between the clients; CPU is user and system time of the
client's process alone. On a busy machine compare ratios, never milliseconds.

"Ours, whole" is everything between a planned question and a decision in the store: the prompt, the
request, strict parsing, the record on disk, the decision. The others stop at the parsed answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "tests" / "servers" / "recorder.py"
ANSWER = json.dumps(
    {"because": "A shares the blankets by need, B by rank.", "ratings": {"A": 8, "B": 2}}
)
SCENARIO = (
    "A shelter has {n} blankets left and two families at the door. One family has an infant and has"
    " walked all night; the other runs the shop that supplies the shelter and was promised help."
)
CHOICES = (
    "Give the blankets to the family with the infant, because their need is greater.",
    "Give the blankets to the shop's family, because the promise was made to them first.",
)
PROGRAM = """\
version: 1
program: overhead
about: One rating of both choices for each scenario.
attributes:
  fairness:
    title: fairness
    about: Fairness is treating people alike where they are alike, whatever they can do in return.
    high: The choice gives by need or by an even rule.
    low: The choice favours some people for reasons that have nothing to do with need.
data: {format: jsonl, path: cases.jsonl}
targets: {each: [high]}
deciders:
  rated: {use: comparative_regression, with: {order: shuffle}}
models:
  server: {use: hosted_vllm/tiny, endpoint: URL, concurrency: IN_FLIGHT}
model: server
metrics: [accuracy]
"""

Round = Callable[[int], None]  # asks so many questions


def aiohttp_alone(url: str, in_flight: int) -> Round:
    """The same bytes as ours, sent and read with nothing around them."""
    import aiohttp
    import orjson

    body = _our_body()
    loop = asyncio.new_event_loop()

    async def many(n: int) -> None:
        async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:

            async def one(n: int) -> None:
                said = orjson.dumps({**body, "seed": n})
                async with session.post(f"{url}/v1/chat/completions", data=said) as response:
                    answer = orjson.loads(await response.read())
                    orjson.loads(answer["choices"][0]["message"]["content"])

            await _bounded(one, n, in_flight)

    return lambda n: loop.run_until_complete(many(n))


def litellm_alone(url: str, in_flight: int) -> Round:
    import litellm

    body = _our_body()
    loop = asyncio.new_event_loop()

    async def one(n: int) -> None:
        said = await litellm.acompletion(
            model="hosted_vllm/tiny",
            api_base=f"{url}/v1",
            messages=body["messages"],
            response_format=body["response_format"],
            temperature=0,
            max_tokens=512,
            seed=n,
        )
        json.loads(said.choices[0].message.content)

    return lambda n: loop.run_until_complete(_bounded(one, n, in_flight))


def _dspy(url: str) -> tuple[Any, Any, dict[str, Any]]:
    """Stock DSPy, told that the server takes a schema; cache and history off in its favour."""
    import dspy
    import litellm
    from pydantic import Field, create_model

    litellm.register_model(
        {
            "hosted_vllm/tiny": {
                "litellm_provider": "hosted_vllm",
                "mode": "chat",
                "supports_response_schema": True,
            }
        }
    )

    number = (int, Field(ge=0, le=10))
    ratings = create_model("Ratings", A=number, B=number)
    rate = dspy.Signature(
        {
            "scenario": (str, dspy.InputField()),
            "choices": (list[str], dspy.InputField()),
            "because": (str, dspy.OutputField()),
            "ratings": (ratings, dspy.OutputField()),
        },
        "Rate how strongly each choice shows fairness, from 0 to 10.",
    )
    lm = dspy.LM(
        "hosted_vllm/tiny",
        engine="litellm",
        api_base=f"{url}/v1",
        api_key="none",
        cache=False,
        temperature=0,
        max_tokens=512,
    )
    settings = {"lm": lm, "adapter": dspy.JSONAdapter(), "disable_history": True}
    return dspy.Predict(rate), dspy, settings


def dspy_threads(url: str, in_flight: int) -> Round:
    predict, dspy, settings = _dspy(url)

    def one(n: int) -> None:
        with dspy.context(**settings):
            predict(scenario=SCENARIO.format(n=n), choices=list(CHOICES))

    def many(n: int) -> None:
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(one, range(n)))

    return many


def dspy_async(url: str, in_flight: int) -> Round:
    predict, dspy, settings = _dspy(url)
    loop = asyncio.new_event_loop()

    async def one(n: int) -> None:
        await predict.acall(scenario=SCENARIO.format(n=n), choices=list(CHOICES))

    def many(n: int) -> None:
        with dspy.context(**settings):
            loop.run_until_complete(_bounded(one, n, in_flight))

    return many


def ours(url: str, in_flight: int) -> Round:
    from align_dsl.engine.decide import decide
    from align_dsl.engine.execute import execute
    from align_dsl.pipeline import load, open_backends, plan_run
    from align_dsl.records.store import Store

    folder = Path(tempfile.mkdtemp())
    fresh = count()

    def many(n: int) -> None:
        at = next(fresh)
        here = folder / str(at)
        here.mkdir()
        text = PROGRAM.replace("URL", f"{url}/v1").replace("IN_FLIGHT", str(in_flight))
        (here / "overhead.yaml").write_text(text)
        rows = [
            {
                "id": str(i),
                "scenario": SCENARIO.format(n=i),
                "choices": [
                    {"id": "a", "text": CHOICES[0], "labels": {"fairness": 9}},
                    {"id": "b", "text": CHOICES[1], "labels": {"fairness": 2}},
                ],
            }
            for i in range(n)
        ]
        (here / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        loaded = load(here / "overhead.yaml")
        backends = open_backends(loaded.program)
        todo = plan_run(loaded, backends)
        begun = time.process_time()
        with Store.open(here / "align.db") as store:
            answered = execute(todo, backends, store)
            decided = list(decide(todo, answered.answers, seed=0))
        assert {d.status for d in decided} == {"ok"}, decided[0]
        assert len(decided) == n
        many.spent = time.process_time() - begun  # type: ignore[attr-defined]
        for backend in backends.values():
            backend.close()

    return many


CLIENTS = {
    "raw aiohttp": aiohttp_alone,
    "litellm.acompletion": litellm_alone,
    "dspy.Predict + litellm, threads": dspy_threads,
    "dspy.Predict + litellm, acall": dspy_async,
    "ours, whole": ours,
}


def _our_body() -> dict[str, Any]:
    """The request that ours sends for one such question."""
    from align_dsl.algorithms.rate_together import INSTRUCTIONS
    from align_dsl.engine.prompt import Shape, messages, schema
    from align_dsl.types import Attribute, Choice, Scale, Scenario

    shape = Shape((("because", "text"), ("ratings", "numbers")), ("A", "B"), Scale())
    attribute = Attribute(
        name="fairness",
        title="fairness",
        about="Fairness is treating people alike where they are alike.",
        high="The choice gives by need or by an even rule.",
        low="The choice favours some people for reasons that have nothing to do with need.",
    )
    choices = tuple(Choice(id=i, text=t) for i, t in zip("AB", CHOICES, strict=True))
    scenario = Scenario(id="", text=SCENARIO.format(n=1), choices=choices)
    inputs = {"scenario": scenario, "attribute": attribute}
    format_ = {"name": "answer", "schema": schema(shape), "strict": True}
    return {
        "model": "tiny",
        "messages": messages(INSTRUCTIONS, shape, inputs),
        "temperature": 0.0,
        "max_tokens": 512,
        "response_format": {"type": "json_schema", "json_schema": format_},
    }


async def _bounded(one: Callable[[int], Awaitable[None]], n: int, in_flight: int) -> None:
    numbers = iter(range(n))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(in_flight)))


def child(name: str, url: str, in_flight: int) -> None:
    """Asks as many questions as each line of stdin says, and reports what that took."""
    from align_dsl.engine.mapping import litellm_module

    litellm_module()
    ask = CLIENTS[name](url, in_flight)
    for line in sys.stdin:
        before, begun = _cpu(), time.perf_counter()
        ask(int(line))
        spent = getattr(ask, "spent", _cpu() - before)
        print(json.dumps([spent, time.perf_counter() - begun]), flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _start(command: list[str], **kwargs: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        **kwargs,
    )


def _says(process: subprocess.Popen[str], line: str | None = None) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if line is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    said = process.stdout.readline()
    if not said:
        raise SystemExit(f"{process.args!r} ended early")
    return said.strip()


def measure(requests: int, rounds: int, in_flight: int, names: list[str]) -> None:
    server = _start([str(SERVER), ANSWER])
    url = _says(server)
    here = str(Path(__file__))
    clients = {
        n: _start([here, "--client", n, "--url", url, "--in-flight", str(in_flight)]) for n in names
    }
    seen: dict[str, list[tuple[float, float]]] = {n: [] for n in names}
    try:
        for client in clients.values():
            _says(client, "200")  # unmeasured: imports, caches, connections
        for _ in range(rounds):
            for name, client in clients.items():
                cpu, wall = json.loads(_says(client, str(requests)))
                seen[name].append((1000 * cpu / requests, requests / wall))
    finally:
        for process in (*clients.values(), server):
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
    _table(seen, requests, rounds, in_flight)


def _table(
    seen: dict[str, list[tuple[float, float]]], requests: int, rounds: int, in_flight: int
) -> None:
    version = sys.version.split()[0]
    print(f"{requests} requests x {rounds} rounds, {in_flight} in flight, Python {version}\n")
    unit = {n: statistics.median(c for c, _ in found) for n, found in seen.items()}
    raw = unit.get("raw aiohttp", 0)
    stock = min((c for n, c in unit.items() if n.startswith("dspy")), default=0)
    print("| client | CPU ms | range | calls/s | x raw aiohttp | share of DSPy + litellm |")
    print("|---|---|---|---|---|---|")
    for name, found in seen.items():
        cpus = [c for c, _ in found]
        rate = statistics.median(r for _, r in found)
        print(
            f"| {name} | {unit[name]:.2f} | {min(cpus):.2f}-{max(cpus):.2f} | {rate:,.0f} |"
            f" {unit[name] / raw if raw else 0:.1f} |"
            f" 1/{stock / unit[name] if stock else 0:.1f} |"
        )


def profile(requests: int, in_flight: int) -> None:
    """cProfile of every thread that ours uses."""
    import cProfile
    import pstats
    import threading

    server = _start([str(SERVER), ANSWER])
    found: list[cProfile.Profile] = []
    plain = threading.Thread.run

    def profiled(self: threading.Thread) -> None:
        one = cProfile.Profile(time.thread_time)
        found.append(one)
        one.enable()
        try:
            plain(self)
        finally:
            one.disable()

    from align_dsl.engine.mapping import litellm_module

    litellm_module()
    ask = ours(_says(server), in_flight)
    ask(100)
    from align_dsl.engine.loop import Loop

    loop_profile = cProfile.Profile(time.thread_time)
    Loop.shared().loop.call_soon_threadsafe(loop_profile.enable)
    threading.Thread.run = profiled  # type: ignore[method-assign]
    main = cProfile.Profile(time.thread_time)
    main.enable()
    ask(requests)
    main.disable()
    Loop.shared().loop.call_soon_threadsafe(loop_profile.disable)
    time.sleep(0.1)
    for title, some in (("jobs", found), ("event loop", [loop_profile]), ("main thread", [main])):
        print(f"\n=== {title}")
        stats = pstats.Stats(*some)
        stats.sort_stats("cumulative").print_stats(45)
        stats.sort_stats("tottime").print_stats(25)
    assert server.stdin is not None
    server.stdin.close()
    server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", action="append", choices=CLIENTS)
    parser.add_argument("--client", choices=CLIENTS)
    parser.add_argument("--url")
    given = parser.parse_args()
    if given.client:
        child(given.client, given.url, given.in_flight)
    elif given.profile:
        profile(given.requests, given.in_flight)
    else:
        names = given.only or list(CLIENTS)
        measure(given.requests, given.rounds, given.in_flight, names)


if __name__ == "__main__":
    main()
