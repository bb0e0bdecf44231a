"""Three ways to a rating: said, drawn several times, or weighed by its probability."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from align_dsl.algorithms import rate_alone, rate_together
from align_dsl.algorithms.pick import INSTRUCTIONS as PICK
from align_dsl.algorithms.pick import Pick
from align_dsl.backends.gguf import Engine as InProcess
from align_dsl.engine.adapter import NoAnswer, NotNow, Trail, shape_of
from align_dsl.engine.expected import Token, Weigher
from align_dsl.engine.lm import Engine as OverHttp
from align_dsl.engine.prompt import Shape, messages, parse
from align_dsl.errors import CompileError
from align_dsl.language.program import Model
from align_dsl.pipeline import Loaded, Selection, load, open_backends, plan_run, run, select
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
from align_dsl.types import Attribute, Choice, Decision, Scale, Scenario
from tests.models import TRAINED, world
from tests.models.gguf_file import random_model
from tests.servers.real import Real, served_by
from tests.servers.recorder import Asked, Recorder, Reply
from tests.test_lm import answer as answered
from tests.test_wire import program as program_on

MERCY = Attribute(
    name="mercy",
    title="Mercy",
    about="Sparing people.",
    high="It spares.",
    low="It does not spare.",
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def trained() -> Iterator[Real]:
    with served_by(TRAINED) as server:
        yield server


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights over single bytes: `10` is two tokens to it."""
    return random_model(tmp_path_factory.mktemp("random") / "random.gguf")


def in_process(path: Path = TRAINED, **changes: Any) -> InProcess:
    said = {"max_tokens": 160, **changes}
    return InProcess(Model(name="tiny", backend="gguf", address=str(path), **said), 1)


def over_http(endpoint: str | tuple[str, ...], address: str = "openai/tiny") -> OverHttp:
    return OverHttp(Model(name="tiny", backend="litellm", address=address, endpoint=endpoint))


def alone(action: str, attribute: Attribute = MERCY) -> tuple[list[dict[str, str]], Shape]:
    """The question of `rate_alone` with `rating: expected`."""
    inputs = {
        "scenario": Scenario(id="", text=world.SCENARIOS[0], choices=()),
        "attribute": attribute,
        "choice": Choice(id="A", text=action),
    }
    shape = shape_of(rate_alone.WeighAlone, inputs)
    instructions = rate_alone.rate_alone(rating="expected").rate.signature.instructions
    return messages(instructions, shape, inputs), shape


# --- expected


def test_a_number_learnt_is_the_number_expected() -> None:
    engine = in_process()
    for action, (mercy, _) in world.ACTIONS.items():
        trail = Trail()
        weights = engine.weigh(*alone(action), trail)
        assert weights.mean == pytest.approx(mercy, abs=0.5), action
        assert sum(weights.values()) == pytest.approx(1)
        (note,) = trail.notes["expected"]
        assert note["mass"] > 0.95
    engine.close()


def test_who_is_undecided_is_seen_to_be() -> None:
    """Learnt as 2 or 8, each as often: a number said is one of them, the one expected neither."""
    engine = in_process()
    weights = engine.weigh(*alone(world.UNDECIDED), Trail())
    low, high = world.UNDECIDED_NUMBERS
    assert weights[low] + weights[high] > 0.9
    assert min(weights[low], weights[high]) > 0.2
    assert weights.mean == pytest.approx((low + high) / 2, abs=1.5)
    engine.close()


def test_both_doors_weigh_alike(trained: Real) -> None:
    near, far = in_process(), trained.engine()
    for action in world.ACTIONS:
        ours, theirs = (e.weigh(*alone(action), Trail()) for e in (near, far))
        assert ours == pytest.approx(theirs, abs=5e-3)  # vLLM does not round the weights
    near.close()
    far.close()


def test_one_question_is_enough_once_the_tokens_are_known() -> None:
    engine = in_process()
    calls = []
    for action in world.ACTIONS:
        trail = Trail()
        engine.weigh(*alone(action), trail)
        calls.append(trail.calls)
    assert calls == [2, 1, 1, 1, 1, 1, 1, 1]  # the second of the first: is `10` one token?
    engine.close()


def test_whole_programs_by_expectation(tmp_path: Path) -> None:
    program = world.PROGRAM.replace("alone: {use: direct_regression}", ALONE_EXPECTED)
    loaded = load(world.write(tmp_path, f"gguf:{TRAINED}", 10, program))
    answers = _run(loaded, tmp_path, "alone")
    assert answers
    for answer in answers:
        assert answer.ok
        (rating,) = answer.output
        assert not rating.get("why")
        (note,) = answer.notes["expected"]
        mean = sum(float(n) * w for n, w in note["weights"].items())
        assert rating["value"] == pytest.approx(mean / 10, abs=1e-4)


ALONE_EXPECTED = "alone: {use: direct_regression, with: {rating: expected}}"


def test_together_each_choice_is_weighed_beside_the_others(tmp_path: Path) -> None:
    program = world.PROGRAM.replace(
        "together: {use: comparative_regression}",
        "together: {use: comparative_regression, with: {rating: expected, shots: 1}}",
    )
    loaded = load(world.write(tmp_path, f"gguf:{TRAINED}", 4, program))
    answers = _run(loaded, tmp_path, "together")
    assert all(len(a.notes["expected"]) == len(a.output) == 2 for a in answers)
    assert all(a.calls in (2, 3) for a in answers)


def test_together_the_letter_is_said_last() -> None:
    shown = tuple(Choice(id=i, text=t) for i, t in zip("AB", world.ACTIONS, strict=False))
    scenario = Scenario(id="", text=world.SCENARIOS[0], choices=shown)
    inputs = {"scenario": scenario, "attribute": MERCY, "rate": "B"}
    shape = shape_of(rate_together.WeighOneOfSeveral, inputs)
    system, user = messages("Judge.", shape, inputs)
    assert system["content"].endswith(
        "the number of the choice that is named last and nothing else."
    )
    assert user["content"].endswith("Rate:\nB")


# --- numbers of several tokens


def test_a_number_of_two_tokens_is_dictated(byte_model: Path) -> None:
    """Held against the plain product of what the model thinks of each token."""
    engine = in_process(byte_model)
    said, shape = alone("Let them go.")
    trail = Trail()
    weights = engine.weigh(said, shape, trail)
    server = engine.start()

    def after(answer: str, text: str) -> float:
        prompt = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in said)
        body = {"prompt": f"{prompt}<|im_start|>assistant\n{answer}", "max_tokens": 1,
                "logprobs": 260, "temperature": 0}  # fmt: skip
        told = server.handle_completions(body)["choices"][0]["logprobs"]
        found = told["content"][0]["top_logprobs"]
        return next(math.exp(t["logprob"]) for t in found if t["token"] == text)

    ten = after("", "1") * after("1", "0")
    raw = {n: after("", str(n)) for n in range(10)} | {10: ten}
    raw[1] -= ten
    mass = sum(raw.values())
    assert weights == pytest.approx({n: p / mass for n, p in raw.items()}, rel=0.02)
    assert trail.notes["expected"][0]["mass"] == pytest.approx(mass, rel=0.02)
    engine.close()


def test_a_scale_of_too_many_tokens_is_refused_once_and_for_all(byte_model: Path) -> None:
    engine = in_process(byte_model)
    wide = MERCY.model_copy(update={"scale": Scale(low=0, high=100)})
    calls = []
    for _ in range(3):
        trail = Trail()
        with pytest.raises(NoAnswer, match="on the scale from 0 to 100") as caught:
            engine.weigh(*alone("Let them go.", wide), trail)
        assert caught.value.failure.status == "refused"
        assert "rating: verbal" in caught.value.failure.message
        calls.append(trail.calls)
    assert calls[1:] == [0, 0]
    engine.close()


def test_a_scale_that_cannot_be_weighed_does_not_spoil_another(trained: Real) -> None:
    engine = trained.engine()
    step = 1 if trained.kind == "vLLM" else 10  # it asks how a number goes on, not for each
    wide = MERCY.model_copy(update={"scale": Scale(low=0, high=100, step=step)})
    for times in range(2):
        trail = Trail()
        with pytest.raises(NoAnswer, match="on the scale from 0 to 100"):
            engine.weigh(*alone("Let them go.", wide), trail)
        assert (trail.calls == 0) == bool(times)
        assert engine.weigh(*alone("Let them go."), Trail()).mean == pytest.approx(10, abs=0.5)
    engine.close()


def said(*tokens: tuple[str, dict[str, float]]) -> tuple[Token, ...]:
    return tuple(
        Token(text, math.log(others[text]), {t: math.log(p) for t, p in others.items()})
        for text, others in tokens
    )


class Masked:
    """A server that writes numbers digit by digit and names what it may still say, as vLLM does."""

    def __init__(self, likely: dict[str, float]) -> None:
        self.likely, self.asked = likely, 0  # number -> how probable it is

    def __call__(self, allowed: tuple[str, ...], most: int) -> tuple[Token, ...]:
        self.asked += 1
        told, text = [], ""
        while len(told) < most and not text.endswith("<end>"):
            goes_on: dict[str, float] = {"z": 0.0}
            for number in allowed:
                if number.startswith(text):
                    next_ = number[len(text) : len(text) + 1] or "<end>"
                    goes_on[next_] = goes_on.get(next_, 0.0) + self.likely[number]
            whole = sum(goes_on.values())
            best = max(goes_on, key=lambda t: goes_on[t])
            logs = {t: math.log(p / whole) if p else -9999.0 for t, p in goes_on.items()}
            told.append(Token(best, logs[best], logs))
            text += best
        return tuple(told)


TENS = {str(n): (n + 1) / 66 for n in range(0, 101, 10)}


@pytest.mark.parametrize(
    ("likely", "asked"),
    [
        ({str(n): (n + 1) / 66 for n in range(11)}, (3, 2)),  # is `10` one token? `1` or `10`?
        (TENS, (12, 2)),  # `10` or `100`? the other ones are told by how they begin
        ({str(n): p for n, p in zip(range(11), (0.5, 0, *[0] * 8, 0.5), strict=True)}, (3, 2)),
    ],
    ids=["0 to 10", "tens to 100", "nothing or all"],
)
def test_after_the_mask_what_begins_alike_is_asked_how_it_goes_on(
    likely: dict[str, float], asked: tuple[int, int]
) -> None:
    weigher, whole = Weigher(masked=True), sum(likely.values())
    for times in asked:
        server = Masked(likely)
        found = weigher.weigh(tuple(likely), server)
        assert found.weights == pytest.approx({float(n): p / whole for n, p in likely.items()})
        assert server.asked == times


def test_a_beginning_that_is_as_good_as_never_said_is_not_asked_about() -> None:
    likely = {str(n): 0.1 for n in range(11)} | {"1": 1e-6, "10": 1e-6}
    weigher = Weigher(masked=True)
    for times in (2, 1):
        server = Masked(likely)
        found = weigher.weigh(tuple(likely), server)
        assert server.asked == times
    assert found.weights.mean == pytest.approx(sum(n for n in range(2, 10)) / 9, abs=1e-3)


def test_too_many_beginnings_are_refused_once_and_for_all() -> None:
    likely = {str(n): 1 / 101 for n in range(101)}
    weigher = Weigher(masked=True)
    for times in (0, 1):
        server = Masked(likely)
        with pytest.raises(NoAnswer, match="begin several numbers; use `rating: verbal`"):
            weigher.weigh(tuple(likely), server)
        assert (server.asked == 0) == bool(times)


def test_a_server_that_stops_early_cannot_be_asked_how_it_goes_on() -> None:
    server = Masked({str(n): 1 / 11 for n in range(11)})

    def stops(allowed: tuple[str, ...], most: int) -> tuple[Token, ...]:
        told = server(allowed, most)
        return told if len(allowed) == 1 else told[:1]

    with pytest.raises(NoAnswer, match="how a number goes on after `1`"):
        Weigher(masked=True).weigh(tuple(server.likely), stops)


def test_one_token_each_is_enough_after_the_mask() -> None:
    def tell(allowed: tuple[str, ...], most: int) -> tuple[Token, ...]:
        if allowed == ("10",):
            return said(("10", {"10": 1.0}))
        return said(("10", {"0": 0.1, "1": 0.3, "10": 0.6}))

    found = Weigher(masked=True).weigh(("0", "1", "10"), tell)
    assert found.weights == pytest.approx({0: 0.1, 1: 0.3, 10: 0.6})
    assert found.note()["named"] == pytest.approx(1)


def test_all_spellings_count_and_the_rest_is_left_out() -> None:
    others = {"3": 0.3, " 3": 0.1, "7": 0.2, "I": 0.4}
    found = Weigher(masked=False).weigh(("3", "7"), lambda allowed, most: said(("3", others)))
    assert found.weights == pytest.approx({3: 2 / 3, 7: 1 / 3})
    assert found.note()["mass"] == pytest.approx(0.6)


# --- where it is not possible


NO_LOGPROBS = "the server tells no log-probabilities"


@pytest.mark.parametrize("provider", ["openai/tiny", "hosted_vllm/tiny", "ollama_chat/tiny"])
def test_a_server_without_log_probabilities_is_asked_once(provider: str) -> None:
    with Recorder(lambda asked: Reply("7")) as server:
        endpoint = server.url if provider.startswith("ollama") else f"{server.url}/v1"
        engine = over_http(endpoint, provider)
        for _ in range(3):
            with pytest.raises(NoAnswer, match=NO_LOGPROBS) as caught:
                engine.weigh(*alone("Let them go."), Trail())
            assert caught.value.failure.status == "refused"
        (asked,) = server.asked
        assert asked.json["logprobs"] is True
        assert asked.schema == {"enum": list(range(11))}
        engine.close()


def told(logprobs: Any) -> Reply:
    choice = {"message": {"content": "7"}, "finish_reason": "length", "logprobs": logprobs}
    return Reply(body=json.dumps({"choices": [choice], "usage": {}}).encode())


LIKELY = [{"token": str(n), "logprob": -2.4} for n in (*range(10), "10")]
WELL_TOLD = told({"content": [{"token": "7", "logprob": -2.4, "top_logprobs": LIKELY}]})
BADLY_TOLD: dict[str, Any] = {
    "null": {"content": [{"token": "7", "logprob": None, "top_logprobs": LIKELY}]},
    "text": {"content": [{"token": "7", "logprob": "-1", "top_logprobs": LIKELY}]},
    "one of them null": {
        "content": [
            {"token": "7", "logprob": -1, "top_logprobs": [{"token": "x", "logprob": None}]}
        ]
    },
    "of no token": {"content": [{"logprob": -1, "top_logprobs": LIKELY}]},
    "alternatives that are none": {"content": [{"token": "7", "logprob": -1, "top_logprobs": 5}]},
    "no list": True,
    "a number": 7,
    "content that is no list": {"content": {"token": "7"}},
    "of old": [["7", -1.0]],
    "above certainty": {
        "content": [
            {"token": "7", "logprob": 1000.0, "top_logprobs": [{"token": "7", "logprob": 1000.0}]}
        ]
    },
}


@pytest.mark.parametrize("logprobs", BADLY_TOLD.values(), ids=BADLY_TOLD)
def test_log_probabilities_that_are_none_are_no_answer(logprobs: Any) -> None:
    """Nothing is learnt of the server from it: it is asked again."""
    with Recorder(lambda asked: WELL_TOLD) as server:
        server.answer(told(logprobs))
        engine = over_http(f"{server.url}/v1")
        with pytest.raises(NotNow, match=f"{server.url}/v1 sent log-prob") as caught:
            engine.weigh(*alone("Let them go."), Trail())
        assert caught.value.failure.status == "invalid"
        assert sum(engine.weigh(*alone("Let them go."), Trail()).values()) == pytest.approx(1)
        engine.close()


def test_what_is_certain_may_be_rounded_up() -> None:
    almost = [{"token": "7", "logprob": 1e-7}]
    with Recorder(
        lambda _: told({"content": [{"token": "7", "logprob": 1e-7, "top_logprobs": almost}]})
    ) as server:
        engine = over_http(f"{server.url}/v1")
        nine = MERCY.model_copy(update={"scale": Scale(low=0, high=9)})
        assert engine.weigh(*alone("Let them go.", nine), Trail()) == pytest.approx(
            {float(n): float(n == 7) for n in range(10)}
        )
        engine.close()


def test_another_server_is_asked_where_one_tells_badly() -> None:
    with Recorder(lambda asked: told(True)) as one, Recorder(lambda asked: WELL_TOLD) as other:
        engine, trail = over_http((f"{one.url}/v1", f"{other.url}/v1")), Trail()
        with pytest.raises(NotNow):
            engine.weigh(*alone("Let them go."), trail)
        engine.weigh(*alone("Let them go."), trail)
        assert (len(one.asked), len(other.asked)) == (1, 1)
        engine.close()


@pytest.mark.parametrize(("retries", "failed"), [(1, 0), (0, 1)])
def test_one_reply_that_tells_badly_costs_one_job_at_most(
    retries: int, failed: int, tmp_path: Path
) -> None:
    with Recorder(lambda asked: WELL_TOLD) as server:
        server.answer(*[WELL_TOLD] * 5, told(BADLY_TOLD["null"]))
        path = program_on(tmp_path, server, retries=retries)
        text = path.read_text().replace("{use: comparative_regression}", ALONE_EXPECTED[7:])
        path.write_text(text.replace("not.}", "not., scale: {low: 0, high: 9}}"))
        answers = _run(load(path), tmp_path, "rated")
    assert [a.failure.status for a in answers if a.failure] == ["invalid"] * failed


def test_a_provider_that_is_not_ours_is_refused() -> None:
    model = Model(name="m", backend="litellm", address="anthropic/claude")
    with pytest.raises(NoAnswer, match="servers that one runs oneself"):
        OverHttp(model).weigh(*alone("Let them go."), Trail())


def test_what_has_no_probabilities_says_so(tmp_path: Path) -> None:
    program = world.PROGRAM.replace("alone: {use: direct_regression}", ALONE_EXPECTED)
    script = tmp_path / "script.jsonl"
    script.write_text("{}\n")
    loaded = load(world.write(tmp_path, f"scripted:{script}", 2, program))
    answers = _run(loaded, tmp_path, "alone")
    assert {a.failure.status for a in answers if a.failure} == {"invalid"}
    loaded = load(world.write(tmp_path, "embedded", 2, program))
    with Store.open(tmp_path / "align.db") as store:
        outcome = run(loaded, store, Selection(only=("alone",)))
    assert "the embedded backend can rate and pick" in str(outcome.gone)


# --- sampled


def test_each_sample_is_a_draw_with_a_seed_of_its_own(byte_model: Path, tmp_path: Path) -> None:
    """Of random weights, as the trained model would draw the same number each time."""
    program = world.PROGRAM.replace(
        "alone: {use: direct_regression}",
        "alone: {use: direct_regression, with: {rating: sampled, samples: 5}}",
    ).replace("max_tokens: 160", "max_tokens: 900, temperature: 1.5")
    loaded = load(world.write(tmp_path, f"gguf:{byte_model}", 1, program))
    answers = _run(loaded, tmp_path, "alone")
    seeds = [a.notes["seed"] for a in answers]
    assert len(set(seeds)) == len(seeds)
    with Store.open(tmp_path / "align.db") as store:
        (record,) = store.runs()
        decisions = [j.decision for j in store.judgements(record.id, control=False)]
    assert decisions
    drawn = [draws(d) for d in decisions]
    assert {len(values) for each in drawn for values in each.values()} == {5}
    assert any(len(set(values)) > 1 for each in drawn for values in each.values())


def draws(decision: Decision) -> dict[tuple[str, str], list[float]]:
    """What was drawn for each choice and attribute."""
    found = defaultdict(list)
    for rating in decision.ratings:
        found[rating.choice, rating.attribute].append(rating.value)
    return found


def test_the_mean_of_the_draws_decides(tmp_path: Path) -> None:
    """Not the first of them, nor the most frequent: `a` is 0 four times of five, and 10 once."""
    seen: Counter[str] = Counter()

    def script(asked: Asked) -> Reply:
        choice = asked.messages[-1]["content"][-2]  # of `Do a.`
        seen[choice] += 1
        rating = 1 if choice == "b" else 10 if seen["a"] == 3 else 0
        return Reply(json.dumps({"because": "so", "rating": rating}))

    with Recorder(script) as server:
        path = program_on(tmp_path, server, temperature=1)
        drawn = "{use: direct_regression, with: {rating: sampled, samples: 5}}"
        path.write_text(path.read_text().replace("{use: comparative_regression}", drawn))
        cases = tmp_path / "cases.jsonl"
        cases.write_text(cases.read_text().splitlines()[0])
        with Store.open(tmp_path / "align.db") as store:
            record = run(load(path), store).record
            decisions = [j.decision for j in store.judgements(record.id, control=False)]
    assert {d.target: d.choice for d in decisions} == {"mercy_low": "b", "mercy_high": "a"}
    for decision in decisions:
        found = {choice: sorted(values) for (choice, _), values in draws(decision).items()}
        assert found == {"a": [0, 0, 0, 0, 1], "b": [0.1] * 5}


@pytest.mark.parametrize(("provider", "sent"), [("openrouter", True), ("deepinfra", False)])
def test_a_seed_is_kept_only_where_it_was_sent(
    provider: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    with Recorder() as server:
        got = answered(server, provider, key="SOME_KEY", temperature=0.7)
        (asked,) = server.asked
    assert got.ok
    assert ("seed" in asked.json, "seed" in got.notes) == (sent, sent)


def test_one_draw_is_no_mean(tmp_path: Path) -> None:
    program = world.PROGRAM.replace(
        "alone: {use: direct_regression}",
        "alone: {use: direct_regression, with: {rating: sampled}}",
    )
    with pytest.raises(CompileError, match="the mean of several samples"):
        load(world.write(tmp_path, "embedded", 2, program))


# --- constrained or not


PAIRS = tuple(itertools.product(world.SCENARIOS[:2], itertools.combinations(world.ACTIONS, 2)))


@pytest.mark.parametrize("what", ["rate", "pick"])
def test_the_constraint_does_not_change_what_is_said(what: str) -> None:
    """All the world's pairs rated and picked from, held to the grammar and free: word by word.

    Only so can a constraint be trusted: one in another layout (compact JSON, say) may be valid
    every time and change what a model means.
    """
    engine = in_process()
    alike = right = 0
    for text, actions in PAIRS:
        shown = tuple(Choice(id=i, text=a) for i, a in zip("AB", actions, strict=True))
        mercies = {i: world.ACTIONS[a][0] for i, a in zip("AB", actions, strict=True)}
        scenario = Scenario(id="", text=text, choices=shown)
        if what == "rate":
            inputs = {"scenario": scenario, "attribute": MERCY}
            signature: Any = rate_together.RateTogether
            instructions = rate_together.rate_together().rate.signature.instructions
            field, wanted = "ratings", mercies
        else:
            inputs, signature, instructions = {"scenario": scenario}, Pick, PICK
            field, wanted = "choice", max(mercies, key=lambda i: mercies[i])  # type: ignore[assignment]
        shape = shape_of(signature, inputs)
        question = messages(instructions, shape, inputs)
        held = engine.ask(question, shape, Trail()).text
        body = {"messages": question, "temperature": 0, "max_tokens": 160}
        free = engine.start().handle_chat_completions(body)["choices"][0]["message"]["content"]
        alike += held == free
        right += parse(shape, held)[field] == wanted
    assert alike / len(PAIRS) > 0.98
    assert right / len(PAIRS) > 0.98
    engine.close()


def _run(loaded: Loaded, folder: Path, decider: str) -> list[Answer]:
    chosen = Selection(only=(decider,))
    with Store.open(folder / "align.db") as store:
        run(loaded, store, chosen)
        loaded = select(loaded, chosen)
        plan = plan_run(loaded, open_backends(loaded.program))
        return list(store.known(plan.model_jobs).values())
