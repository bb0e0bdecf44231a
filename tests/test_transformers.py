"""A server that ignores schemas: an emulation of `transformers serve`, or the real one.

`make test-transformers` starts the real one; what it gave, the emulation gives as well.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from align_dsl.commands.doctor import command as doctor
from align_dsl.commands.models import command as models
from align_dsl.engine.adapter import NoAnswer, Trail
from align_dsl.engine.lm import Engine
from align_dsl.engine.prompt import Shape, messages
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.pipeline import Outcome, load, open_backends, plan_run, run
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
from align_dsl.records.table import caption
from align_dsl.servers.line import Line
from align_dsl.servers.server import Server, identify
from align_dsl.types import Scale, Scenario
from tests.models import world
from tests.servers.fake_ollama import served
from tests.servers.fake_transformers import FakeTransformers
from tests.servers.transformers import FREE, KNOWN, PINNED, RANDOM
from tests.worlds import write_world

NUMBER = Shape((("rating", "number"),), (), Scale())
CASES: list[
    dict[str, object]
] = [  # of which the trained model knows nothing, so it says one thing or another
    {
        "id": f"s{i}",
        "scenario": text,
        "choices": [
            {"id": "a", "text": f"{a}.", "labels": {"mercy": 10, "order": 3}},
            {"id": "b", "text": f"{b}.", "labels": {"mercy": 2, "order": 8}},
        ],
    }
    for i, (text, a, b) in enumerate(
        [
            ("Two ships are sinking in the wide ocean.", "Save the small ship", "Save the big one"),
            ("Many people wait for one train.", "Let the old go first", "Make them pay"),
            ("Who may eat first?", "Tell their family", "The strongest"),
        ]
    )
]


@pytest.fixture(scope="module")
def pinned() -> Iterator[str]:
    """Started with the model `trained`, and without a Hugging Face cache."""
    with served(FakeTransformers(pinned="trained").handle) as url:
        yield os.environ.get(PINNED, f"{url}/v1")


@pytest.fixture(scope="module")
def free() -> Iterator[str]:
    """Started without a model, with a cache of two: the other one babbles without end."""
    fake = FakeTransformers(cached=(KNOWN, RANDOM))
    babbling = FakeTransformers(cached=(KNOWN, RANDOM), babbles=True)

    def handle(method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        said = babbling if body and body.get("model") == RANDOM else fake
        return said.handle(method, path, body, headers)

    with served(handle) as url:
        yield os.environ.get(FREE, f"{url}/v1")


def asked(command: Any, *words: str) -> Result:
    return CliRunner().invoke(command, words)


def identified(endpoint: str) -> Server:
    async def look() -> Server:
        async with Line() as line:
            return await identify(line, endpoint)

    return asyncio.run(look())


def engine(endpoint: str, name: str = "trained", **more: Any) -> Engine:
    said = {"name": "m", "backend": "litellm", "address": f"openai/{name}", "retries": 0, **more}
    made = Engine(Model(**said, endpoint=endpoint))
    made.look()
    return made


def question() -> list[dict[str, str]]:
    scenario = Scenario(id="", text="A boy has taken bread.", choices=())
    return messages("Judge.", NUMBER, {"scenario": scenario})


def ran(folder: Path, name: str, endpoint: str) -> tuple[Outcome, list[Answer]]:
    """A program of three deciders, and each answer as it was kept."""
    program = world.PROGRAM.replace("MODEL", f"openai/{name}, endpoint: '{endpoint}'")
    loaded = load(write_world(folder, CASES, program, world.ATTRIBUTES))
    with Store.open(folder / "align.db") as store:
        outcome = run(loaded, store)
        plan = plan_run(loaded, open_backends(loaded.program))
        return outcome, list(store.known(plan.model_jobs).values())


# --- doctor and models


@pytest.mark.parametrize("place", ["pinned", "free"])
def test_it_is_known_and_not_usable(place: str, request: pytest.FixtureRequest) -> None:
    endpoint = request.getfixturevalue(place)
    name = "trained" if place == "pinned" else KNOWN
    text = asked(doctor, f"openai/{name}", "--endpoint", endpoint)
    assert text.exit_code == 4
    assert "unusable for programs" in text.stdout
    said = asked(doctor, f"openai/{name}", "--endpoint", endpoint, "--json")
    assert said.exit_code == 4
    report = json.loads(said.stdout)
    assert (report["server"], report["usable"]) == ("transformers serve", False)
    (fatal,) = (f for f in report["findings"] if f["level"] == "fatal")
    assert fatal["probe"] == "schema"
    assert fatal["said"].startswith("the schema is ignored: 0 of 10 answers obey")
    assert fatal["advice"].startswith("transformers serve ignores schemas")


def test_a_model_that_babbles_shows_it_too(free: str) -> None:
    """Every answer is cut off, but none has begun as one that is held would."""
    report = asked(doctor, f"openai/{RANDOM}", "--endpoint", free, "--json")
    assert report.exit_code == 4
    (fatal,) = (f for f in json.loads(report.stdout)["findings"] if f["level"] == "fatal")
    assert fatal["said"].startswith("the schema is ignored: 0 of 10 answers obey")


def test_a_list_that_cannot_be_read_is_explained(pinned: str) -> None:
    server = identified(pinned)
    assert (server.kind, server.listed) == ("transformers serve", ())
    assert server.problem.startswith("HTTP 500: Internal Server Error, as where there is no")
    result = asked(models, "--endpoint", pinned)
    assert isinstance(result.exception, BackendError)
    assert "no Hugging Face cache" in str(result.exception)


def test_models_says_what_they_are_good_for(free: str) -> None:
    result = asked(models, "--endpoint", free, "--json")
    assert result.exit_code == 0
    offers = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(o["name"] for o in offers) == sorted((KNOWN, RANDOM))
    assert {(o["server"], o["about"]) for o in offers} == {
        ("transformers serve", "ignores schemas")
    }


def test_an_author_called_vllm_makes_no_vllm() -> None:
    """Its owners are the authors of what is in the cache."""
    with served(FakeTransformers(cached=("vllm/tiny",)).handle) as url:
        assert identified(f"{url}/v1").kind == "transformers serve"


def test_a_name_that_it_was_not_started_with(pinned: str) -> None:
    result = asked(doctor, "openai/another", "--endpoint", pinned, "--json")
    assert result.exit_code == 4
    (fatal,) = (f for f in json.loads(result.stdout)["findings"] if f["level"] == "fatal")
    assert (fatal["probe"], "pinned to 'trained'" in fatal["said"]) == ("answers", True)
    assert fatal["advice"] == "write the name that it was started with"


# --- programs


def test_no_question_follows_on_the_line_that_told_who_answers() -> None:
    """The real one hangs up after the 500 that its list of models is, without saying so."""
    fake, sent = FakeTransformers(pinned="trained"), []

    def handle(method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        sent.append((method, headers.get("connection")))
        return fake.handle(method, path, body, headers)

    with served(handle) as url:
        asking = engine(f"{url}/v1")
        asking.ask(question(), NUMBER, Trail())
        asking.close()
    # looked at before the first question, and once more as nothing was learnt
    assert sent == [("GET", "close"), ("GET", "close"), ("POST", None)]


def test_an_answer_is_valid_or_a_failure(pinned: str, tmp_path: Path) -> None:
    outcome, kept = ran(tmp_path, "trained", pinned)
    assert {a.failure.status for a in kept if a.failure} == {"invalid"}
    assert not any("answered_by" in a.notes for a in kept)  # `trained@main` is `trained`
    good = [json.loads(a.raw) for a in kept if a.failure is None]
    for said in good:
        assert isinstance(said.pop("because"), str)
        ((key, value),) = said.items()
        numbers = list(value.values()) if key == "ratings" else [value]
        assert key == "choice" or all(0 <= n <= 10 for n in numbers)
        assert key != "choice" or value in {"A", "B"}
    assert outcome.record.counts["invalid"] > 0
    lines = caption(outcome.record, outcome.notes, outcome.reasons)
    assert "`align-dsl doctor` tells" in lines[-1]


def test_babble_is_never_a_decision(free: str, tmp_path: Path) -> None:
    outcome, kept = ran(tmp_path, RANDOM, free)
    assert {a.failure.status if a.failure else "ok" for a in kept} <= {"truncated", "invalid"}
    assert "ok" not in outcome.record.counts


def test_another_name_is_a_refusal_that_says_so(pinned: str) -> None:
    asking = engine(pinned, "another")
    with pytest.raises(NoAnswer) as caught:
        asking.ask(question(), NUMBER, Trail())
    assert caught.value.failure.status == "refused"
    assert "Server is pinned to 'trained'" in caught.value.failure.message
    asking.close()


def test_what_cannot_be_weighed_says_what_to_use(pinned: str) -> None:
    asking = engine(pinned)
    with pytest.raises(NoAnswer) as caught:
        asking.weigh(question(), NUMBER, Trail())
    assert caught.value.failure.status == "refused"
    assert "the server tells no log-probabilities" in caught.value.failure.message
    asking.close()


def test_temperature_alone_draws_nothing(pinned: str) -> None:
    """It samples where the model's own `generation_config.json` says so, and nowhere else."""
    asking = engine(pinned, temperature=1.0, max_tokens=40)
    texts = {asking.ask(question(), NUMBER, Trail(seed=seed)).text for seed in range(6)}
    assert len(texts) == 1
    asking.close()
