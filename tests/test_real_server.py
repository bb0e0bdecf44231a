"""Whole programs against a real server, over HTTP, and in this process.

The server is llama.cpp's, or that which `make test-vllm` or `make test-ollama` names.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from align_dsl.backends.gguf import Engine as InProcess
from align_dsl.engine.adapter import NoAnswer, Trail
from align_dsl.engine.grammar import grammar
from align_dsl.engine.lm import Engine as OverHttp
from align_dsl.engine.prompt import Shape, messages, parse, schema
from align_dsl.engine.quirks import LLAMA_CPP, PLAIN, table
from align_dsl.language.program import Model
from align_dsl.pipeline import load, run
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
from align_dsl.types import Choice, Scale, Scenario
from tests.models import TRAINED, world
from tests.models.gguf_file import random_model
from tests.servers.real import Real, served_by
from tests.worlds import ROOT

LONG = 2500  # tokens that the longest text may take where each is one byte

BECAUSE, ALONE = ("because", "text"), ("rating", "number")
PICKED, RATED = ("choice", "label"), ("ratings", "numbers")
SHAPES = {
    "pick of two": Shape((BECAUSE, PICKED), ("A", "B")),
    "pick of nine": Shape((PICKED,), tuple("ABCDEFGHI")),
    "together": Shape((BECAUSE, RATED), ("A", "B", "C"), Scale()),
    "together, 0 to 100": Shape((RATED,), ("A", "B"), Scale(high=100)),
    "together, below zero": Shape((RATED,), ("A",), Scale(low=-3, high=3)),
    "alone": Shape((ALONE,), (), Scale()),
    "alone, in halves": Shape((BECAUSE, ALONE), (), Scale(low=0, high=2, step=0.5)),
    "alone, in tenths": Shape((ALONE,), (), Scale(low=0, high=1, step=0.1)),
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def trained() -> Iterator[Real]:
    with served_by(TRAINED) as server:
        yield server


@pytest.fixture(scope="module")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """Random weights: only the constraint makes it say anything that can be used."""
    with served_by(random_model(tmp_path_factory.mktemp("random") / "random.gguf")) as server:
        yield server


def over_http(server: Real, **changes: Any) -> Any:
    return server.engine(**{"max_tokens": LONG, "retries": 0, **changes})


def in_process(server: Real, **changes: Any) -> InProcess:
    said = {"max_tokens": LONG, "retries": 0, **changes}
    return InProcess(Model(name="tiny", backend="gguf", address=str(server.model), **said), 2)


WAYS = {"over HTTP": over_http, "gguf:": in_process}


def held(server: Real, way: str = "over HTTP") -> str:
    """How an answer is held to its form there."""
    return "grammar" if server.by_grammar or way == "gguf:" else "format"


# --- the server is known for what it is


def test_the_server_is_told_by_what_it_says_of_itself(trained: Real) -> None:
    engine = over_http(trained)
    assert engine.wire.endpoints[0].dialect.server == trained.kind
    engine.close()


def test_who_did_not_look_learns_it_from_the_first_reply(trained: Real) -> None:
    if trained.kind != "llama.cpp":
        pytest.skip("only llama.cpp says who it is with each reply")
    said = {"name": "t", "backend": "litellm", "address": "openai/tiny"}
    engine = OverHttp(Model(**said, endpoint=trained.endpoint))
    (endpoint,) = engine.wire.endpoints if engine.wire else ()
    assert endpoint.dialect is PLAIN
    engine.ask(_question(SHAPES["alone"]), SHAPES["alone"], Trail())
    assert endpoint.dialect is LLAMA_CPP
    engine.close()


def test_the_table_of_quirks_is_that_of_the_code() -> None:
    assert table() in (ROOT / "docs" / "servers.md").read_text()


# --- whole programs


def test_both_doors_decide_alike(trained: Real, tmp_path: Path) -> None:
    """The same weights, once over HTTP and once in this process, at temperature 0."""
    made = {}
    for way, use in (("http", trained.use), ("gguf", f"'gguf:{TRAINED}'")):
        folder = tmp_path / way
        folder.mkdir()
        path = world.write(folder, use, 8)
        with Store.open(folder / "align.db") as store:
            outcome = run(load(path), store)
            recorded = store.load(outcome.record.id)
        assert outcome.record.counts == {"ok": 3 * 4 * 8}
        assert outcome.spent.calls == outcome.record.jobs
        made[way] = [
            (d.decider, d.target, d.scenario, d.choice, d.ratings, d.votes)
            for d in (j.decision for j in recorded.judgements)
        ]
    if trained.kind == "llama.cpp":
        assert made["http"] == made["gguf"]
    # others do not round the numbers in between, so a letter that is a toss-up may fall otherwise
    pairs = list(zip(made["http"], made["gguf"], strict=True))
    assert [a for a, b in pairs if a != b and a[0] != "prompt"] == []
    assert sum(a == b for a, b in pairs) >= 0.95 * len(pairs)


# --- nothing but the constraint helps


def _babble(real: Real, engine: Any, shape: Shape, trail: Trail) -> Any:
    """An answer; None where Ollama broke it off, as it does where a model repeats itself."""
    try:
        return engine.ask(_question(shape), shape, trail)
    except NoAnswer as none:
        if real.kind == "Ollama" and "broke the answer off" in none.failure.message:
            return None
        raise


@pytest.mark.parametrize("way", WAYS)
def test_random_weights_answer_every_question_as_asked(weightless: Real, way: str) -> None:
    """Every answer has the schema, the range and the letters, at temperature 1, and at once."""
    engine = WAYS[way](weightless, temperature=1.0)

    def ask(seed: int, name: str) -> str:
        shape, trail = SHAPES[name], Trail(seed=seed)
        heard = _babble(weightless, engine, shape, trail)
        if heard is None:
            return ""
        assert not heard.cut_off, (name, seed)
        values = parse(shape, heard.text)
        if held(weightless, way) == "format":
            assert (trail.calls, trail.retries) == (1, 0)
            return heard.text  # a schema says nothing of layout and steps
        assert heard.text == json.dumps(json.loads(heard.text), ensure_ascii=False), "the layout"
        if "rating" in values and shape.scale:
            steps = (values["rating"] - shape.scale.low) / shape.scale.step
            assert steps == pytest.approx(round(steps))
        assert (trail.calls, trail.retries, trail.constrained) == (1, 0, held(weightless, way))
        assert trail.notes == {"seed": seed}
        return heard.text

    questions = list(itertools.product(range(13), SHAPES))
    with ThreadPoolExecutor(4) as pool:
        texts = list(filter(None, pool.map(lambda question: ask(*question), questions)))
    assert len(texts) >= (50 if weightless.kind == "Ollama" else 100)
    long = [t for t in texts if "because" in t]
    few = 0.7 if weightless.kind == "Ollama" else 0.9  # short ones are left, and more alike
    assert len(set(long)) > few * len(long)  # drawn, not dictated
    engine.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_scale_of_thousands_goes_by_its_schema(weightless: Real, way: str) -> None:
    shape = Shape((ALONE,), (), Scale(low=0, high=99_999))
    assert grammar(shape) is None
    if weightless.kind == "vLLM" and way != "gguf:":
        pytest.skip("vLLM lets random weights flood a schema with white space")
    engine = WAYS[way](weightless, temperature=1.0)
    by_schema = "format" if weightless.kind == "Ollama" else "json_schema"
    for seed in range(5):
        trail = Trail(seed=seed)
        assert parse(shape, engine.ask(_question(shape), shape, trail).text)
        assert trail.constrained == ("grammar" if way == "gguf:" else by_schema)
    engine.close()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("way", WAYS)
def test_what_the_grammar_allows_the_schema_allows(
    shape: Shape, weightless: Real, way: str
) -> None:
    import jsonschema

    engine = WAYS[way](weightless, temperature=1.0)
    heard = (_babble(weightless, engine, shape, Trail(seed=seed)) for seed in range(3))
    for one in filter(None, heard):
        jsonschema.validate(json.loads(one.text), schema(shape))
    engine.close()


# --- what is no answer


@pytest.mark.parametrize("way", WAYS)
def test_a_question_too_long_is_truncated(trained: Real, way: str) -> None:
    engine = WAYS[way](trained)
    shape = SHAPES["pick of two"]
    with pytest.raises(NoAnswer) as caught:
        engine.ask(_question(shape, "bread " * 9000), shape, Trail())
    assert caught.value.failure.status == "truncated"
    engine.close()


def test_answers_are_kept_with_how_they_were_had(trained: Real, tmp_path: Path) -> None:
    program = world.PROGRAM.replace("max_tokens: 160", "max_tokens: 160, temperature: 0.7")
    path = world.write(tmp_path, trained.use, 2, program)
    kept = _answers(path, tmp_path)
    assert {a.constrained for a in kept} == {held(trained)}
    assert len({a.notes["seed"] for a in kept}) == len(kept)


def _answers(path: Path, folder: Path) -> list[Answer]:
    from align_dsl.pipeline import open_backends, plan_run

    loaded = load(path)
    with Store.open(folder / "align.db") as store:
        run(loaded, store)
        plan = plan_run(loaded, open_backends(loaded.program))
        return list(store.known(plan.model_jobs).values())


def _question(shape: Shape, text: str = "A boy has taken bread.") -> list[dict[str, str]]:
    shown = tuple(Choice(id=label, text=f"Do as {label} says.") for label in shape.labels)
    scenario = Scenario(id="", text=text, choices=shown)
    return messages("Judge.", shape, {"scenario": scenario})
