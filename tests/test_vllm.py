"""What only the real vLLM can show. Skipped unless `make test-vllm` has started it."""

from __future__ import annotations

import itertools
import json
import os
import urllib.request
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from align_dsl.algorithms import rate_alone, rate_together
from align_dsl.algorithms.pick import INSTRUCTIONS as PICK
from align_dsl.algorithms.pick import Pick
from align_dsl.commands.models import command as models
from align_dsl.engine.adapter import Trail, shape_of
from align_dsl.engine.grammar import held
from align_dsl.engine.prompt import Shape, messages, parse
from align_dsl.engine.quirks import GUIDANCE
from align_dsl.engine.quirks import VLLM as VLLM_KIND
from align_dsl.types import Attribute, Choice, Scale, Scenario
from tests.models import TRAINED, world
from tests.models.gguf_file import random_model
from tests.servers.real import VLLM, Real, served_by

pytestmark = pytest.mark.skipif(VLLM not in os.environ, reason="`make test-vllm` starts a vLLM")

MERCY = Attribute(
    name="mercy", title="Mercy", about="Sparing people.", high="It spares.",
    low="It does not spare.",
)  # fmt: skip
LONG = Shape((("because", "text"), ("rating", "number")), (), Scale(low=0, high=1, step=0.1))


@pytest.fixture(scope="module")
def trained() -> Iterator[Real]:
    with served_by(TRAINED) as server:
        yield server


@pytest.fixture(scope="module")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with served_by(random_model(tmp_path_factory.mktemp("random") / "random.gguf")) as server:
        yield server


def asked(server: Real, **body: Any) -> Any:
    """One completion, as vLLM is asked for it without us."""
    said = {"model": "tiny", "temperature": 0, "max_tokens": 160, **body}
    request = urllib.request.Request(
        f"{server.endpoint}/chat/completions",
        json.dumps(said).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]


def question(text: str, actions: tuple[str, ...]) -> tuple[list[dict[str, str]], Shape]:
    shown = tuple(Choice(id=i, text=a) for i, a in zip("ABC", actions, strict=False))
    inputs = {"scenario": Scenario(id="", text=text, choices=shown), "attribute": MERCY}
    shape = shape_of(rate_together.RateTogether, inputs)
    return messages(rate_together.rate_together().rate.signature.instructions, shape, inputs), shape


def weighed(action: str) -> tuple[list[dict[str, str]], Shape]:
    inputs = {
        "scenario": Scenario(id="", text=world.SCENARIOS[0], choices=()),
        "attribute": MERCY,
        "choice": Choice(id="A", text=action),
    }
    shape = shape_of(rate_alone.WeighAlone, inputs)
    instructions = rate_alone.rate_alone(rating="expected").rate.signature.instructions
    return messages(instructions, shape, inputs), shape


@pytest.mark.parametrize("what", ["rate", "pick"])
def test_held_and_free_answers_are_the_same_word_by_word(trained: Real, what: str) -> None:
    """With xgrammar, whose mask lacks a token, half of the picks would be others than free."""
    engine = trained.engine(max_tokens=160)
    for actions in itertools.permutations(world.ACTIONS, 2):
        said, shape = question(world.SCENARIOS[0], actions)
        mercies = {i: world.ACTIONS[a][0] for i, a in zip("AB", actions, strict=True)}
        if what == "pick":
            shown = tuple(Choice(id=i, text=a) for i, a in zip("AB", actions, strict=True))
            inputs = {"scenario": Scenario(id="", text=world.SCENARIOS[0], choices=shown)}
            shape = shape_of(Pick, inputs)
            said = messages(PICK, shape, inputs)
        trail = Trail()
        kept = engine.ask(said, shape, trail).text
        assert kept == asked(trained, messages=said)["message"]["content"]
        if what == "rate":
            assert parse(shape, kept)["ratings"] == mercies
        else:
            assert parse(shape, kept)["choice"] == max(mercies, key=lambda i: mercies[i])
        assert trail.constrained == "grammar"
    engine.close()


def test_a_number_of_two_tokens_is_had_by_asking_how_it_goes_on(weightless: Real) -> None:
    """Held against what vLLM says of each token where nothing holds it."""
    engine = weightless.engine()
    said, shape = weighed("Let them go.")
    trail = Trail()
    weights = engine.weigh(said, shape, trail)
    ids = {t: 4 + ord(t) for t in "0123456789"} | {"end": 2}  # of the byte model

    def after(answer: str) -> dict[str, float]:
        body: dict[str, Any] = {"logprobs": True, "logprob_token_ids": list(ids.values())}
        body |= {"max_tokens": 1, "messages": said}
        if answer:
            body["messages"] = [*said, {"role": "assistant", "content": answer}]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        told = asked(weightless, **body)["logprobs"]["content"][0]["top_logprobs"]
        return {t["token"]: 2.718281828459045 ** t["logprob"] for t in told}

    first, second = after(""), after("1")
    ten = second["0"] / (second["0"] + second["<|im_end|>"])
    mass = sum(first[str(n)] for n in range(10))
    expected = {n: first[str(n)] / mass for n in range(10)} | {10: first["1"] * ten / mass}
    expected[1] = first["1"] * (1 - ten) / mass
    assert weights == pytest.approx(expected, rel=0.01)
    assert trail.calls == 3  # the numbers; is `10` one token? `1` or `10`?
    again = Trail()
    assert engine.weigh(said, shape, again) == pytest.approx(weights)
    assert again.calls == 2
    assert again.notes["expected"][0]["named"] == pytest.approx(1)
    engine.close()


def test_what_layout_is_for(weightless: Real) -> None:
    """What is held by a schema alone is mostly white space here; and `guided_json` by nothing."""
    from align_dsl.engine.mapping import format_of

    said, good = (
        messages("Judge.", LONG, {"scenario": Scenario(id="", text="Bread.", choices=())}),
        0,
    )
    by_schema = {"response_format": json.loads(format_of(LONG))}
    for seed in range(4):
        warm = {"messages": said, "temperature": 1, "seed": seed, "max_tokens": 1500}
        for kind in (VLLM_KIND, GUIDANCE):
            fields = json.loads(orjson.dumps(dict(held(LONG, kind))))
            assert parse(LONG, asked(weightless, **warm, **fields)["message"]["content"])
        good += asked(weightless, **warm, **by_schema)["finish_reason"] == "stop"
    assert good < 4
    guided = {"guided_json": by_schema["response_format"]["json_schema"]["schema"]}
    free = asked(weightless, messages=said, max_tokens=5, **guided)["message"]["content"]
    assert not free.startswith("{")


def test_guidance_is_known_by_what_it_refuses(trained: Real) -> None:
    engine = trained.engine()
    assert engine.wire is not None
    assert [e.dialect for e in engine.wire.endpoints] == [GUIDANCE]
    engine.close()


def test_what_is_offered_is_said_as_it_is_written(trained: Real) -> None:
    result = CliRunner().invoke(models, ["--endpoint", trained.endpoint])
    assert result.exit_code == 0
    assert "hosted_vllm/tiny" in result.stdout
    assert f"tiny: {{use: hosted_vllm/tiny, endpoint: {trained.endpoint}}}" in result.stdout
