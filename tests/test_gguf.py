"""`gguf:` runs a real model in this process: what it answers, refuses and cannot be made to do."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

from align_dsl.backends.gguf import Engine, gguf
from align_dsl.engine.adapter import NoAnswer, Trail, request
from align_dsl.engine.prompt import Shape, messages, parse
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.pipeline import load, run
from align_dsl.records.store import Store
from align_dsl.types import Choice, Scenario
from tests.models import TRAINED, world
from tests.models.gguf_file import random_model

PICK = Shape((("because", "text"), ("choice", "label")), ("A", "B"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def model(path: Path, **changes: Any) -> Model:
    said = {"name": "tiny", "backend": "gguf", "address": str(path), "max_tokens": 200, **changes}
    return Model(**said)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(model(TRAINED), 2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def random_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("random") / "random.gguf")


def asked(text: str = "A boy has taken bread.") -> list[dict[str, str]]:
    shown = tuple(Choice(id=i, text=a) for i, a in zip("AB", world.ACTIONS, strict=False))
    return messages("Pick.", PICK, {"scenario": Scenario(id="", text=text, choices=shown)})


# --- what it is for


def test_a_whole_program_is_decided_as_the_closed_world_has_it(tmp_path: Path) -> None:
    path = world.write(tmp_path, f"gguf:{TRAINED}", 14)
    with Store.open(tmp_path / "align.db") as store:
        outcome = run(load(path), store)
        answers = store.known(list(_keys(tmp_path)))
    assert outcome.record.counts == {"ok": 3 * 4 * 14}
    found = {r.decider: r.value for r in outcome.record.results if r.target == "all"}
    assert found["together"] == found["alone"] == 1.0
    assert outcome.notes == {"tiny": ""}
    assert all(a.calls == 1 and a.retries == 0 for a in answers.values())
    assert {a.constrained for a in answers.values()} == {"grammar"}
    assert all(a.prompt_tokens > 100 and a.completion_tokens > 5 for a in answers.values())


def _keys(folder: Path) -> list[str]:
    from align_dsl.pipeline import open_backends, plan_run

    loaded = load(folder / "programs" / "small.yaml")
    return plan_run(loaded, open_backends(loaded.program)).model_jobs


def test_it_speaks_to_dspy_as_any_model_does(engine: Engine) -> None:
    lm = dspy.LM("gguf/tiny", engine=engine, cache=False)
    said = lm(request("gguf/tiny", PICK, asked(), seed=1, temperature=0.0))
    assert parse(PICK, said.message.text)
    assert (said.finish_reason, said.usage.input_tokens > 50) == ("stop", True)


# --- schema, seed, temperature


def test_the_layout_is_that_of_the_prompt(engine: Engine) -> None:
    text = engine.ask(asked(), PICK, Trail()).text
    assert text == json.dumps(json.loads(text), ensure_ascii=False)


def test_a_seed_repeats_an_answer_and_another_changes_it(random_file: Path) -> None:
    hot = Engine(model(random_file, temperature=1.0, max_tokens=3000), 2)
    texts = []
    for seed in (1, 1, 2, 3):
        trail = Trail(seed=seed)
        texts.append(hot.ask(asked(), PICK, trail).text)
        assert trail.notes == {"seed": seed}
        assert parse(PICK, texts[-1])
    hot.close()
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_what_prompts_have_in_common_is_read_once(engine: Engine) -> None:
    for text in ("A driver went too fast.", "Two friends came late."):
        body = {"messages": asked(text), "max_tokens": 1}
        usage = engine.start().handle_chat_completions(body)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 3


# --- what is no answer


def test_a_question_too_long_is_truncated_and_never_decided(engine: Engine) -> None:
    with pytest.raises(NoAnswer) as caught:
        engine.ask(asked("bread " * 9000), PICK, Trail())
    assert caught.value.failure.status == "truncated"
    assert "4096" in caught.value.failure.message
    assert "context:" in caught.value.failure.message


def test_an_answer_too_long_is_cut_off(random_file: Path) -> None:
    short = Engine(model(random_file, max_tokens=20), 1)
    assert short.ask(asked(), PICK, Trail()).cut_off
    short.close()


def test_half_a_character_is_refused(engine: Engine) -> None:
    with pytest.raises(NoAnswer) as caught:
        engine.ask(asked("half \ud800"), PICK, Trail())
    assert caught.value.failure.status == "refused"


def test_after_close_nothing_is_answered() -> None:
    closed = Engine(model(TRAINED), 1)
    closed.close()
    with pytest.raises(NoAnswer, match="closed"):
        closed.ask(asked(), PICK, Trail())


# --- files


def test_a_path_is_one_from_where_align_dsl_is_started(
    tmp_path: Path, random_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(random_file.parent)
    beside = gguf(model(Path("random.gguf")))
    assert beside.fingerprint() == gguf(model(random_file)).fingerprint()
    monkeypatch.setenv("HOME", str(random_file.parent))
    assert gguf(model(Path("~/random.gguf"))).fingerprint() == beside.fingerprint()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match="from the folder align-dsl is started in"):
        gguf(model(Path("random.gguf")))


def test_what_is_no_model_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_text("weights")
    with pytest.raises(BackendError, match="no GGUF file"):
        gguf(model(other))
    other.write_bytes(b"GGUF and then nothing of use")
    with pytest.raises(BackendError, match="cannot load"):
        gguf(model(other)).probe()


def test_another_file_is_another_model(random_file: Path, tmp_path: Path) -> None:
    before = gguf(model(random_file)).fingerprint()
    assert before == gguf(model(random_file)).fingerprint()
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(random_file.read_bytes()[:-4] + b"\0\0\0\0")
    assert gguf(model(copy)).fingerprint() != before


def test_without_the_extra_it_says_what_to_install(
    random_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align_dsl.backends.gguf.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'align-dsl\[gguf\]'"):
        gguf(model(random_file)).probe()
    assert importlib.util.find_spec("xllamacpp")


def test_nobody_else_can_use_the_port_it_opens(engine: Engine) -> None:
    import urllib.error
    import urllib.request

    address = f"{engine.start().listening_address}/v1/chat/completions"
    asks = urllib.request.Request(
        address, b'{"messages": []}', {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asks, timeout=10)
    assert caught.value.code == 401
    caught.value.close()
