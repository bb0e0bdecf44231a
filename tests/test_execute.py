"""Plans carried out: who is asked at once, who waits for the disk, and what is no failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align_dsl.algorithms.recall import recall
from align_dsl.engine.adapter import Trail
from align_dsl.engine.budget import Budget
from align_dsl.engine.execute import Answered, Gone, execute
from align_dsl.engine.hearing import LONG, PATIENCE, SILENCE, Hearing
from align_dsl.engine.inputs import Inputs
from align_dsl.engine.jobs import Jobs
from align_dsl.engine.plan import Job, Link, Plan, Question
from align_dsl.engine.spending import Spending
from align_dsl.engine.stop import Stop
from align_dsl.errors import PlanError
from align_dsl.pipeline import Changes, load, open_backends, plan_run, run
from align_dsl.records.store import Store
from align_dsl.registry import Registry
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply, obey
from tests.test_lm import Memory
from tests.worlds import cases, perfect_script, write_world

TWO = """version: 1
program: small
about: Two models at once.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high]}
deciders:
  alone: {use: direct_regression, model: a}
  other: {use: direct_regression, model: b}
  few: {use: comparative_regression, model: a, with: {shots: 2}}
model: a
models:
  a: {use: openai/a, endpoint: "URL/v1", concurrency: 3, retries: 0, timeout: 5}
  b: {use: openai/b, endpoint: "URL/v1", concurrency: 3, retries: 0, timeout: 5}
"""


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def asked(path: Path, *only: str, **options: Any) -> Answered:
    """Carry out the plan of some deciders of a program, without a store."""
    loaded = load(path)
    chosen = tuple(d for d in loaded.program.deciders if d.name in only)
    program = loaded.program.model_copy(update={"deciders": chosen})
    checked = replace(loaded.checked, program=program)
    backends = open_backends(program)
    plan = plan_run(replace(loaded, checked=checked), backends)
    try:
        return execute(plan, backends, options.pop("store", Memory()), **options)
    finally:
        for backend in backends.values():
            backend.close()


def two_models(folder: Path, url: str, n: int = 6) -> Path:
    return write_world(folder, cases(n), TWO.replace("URL", url))


def model_of(one: Asked) -> str:
    return str(one.json["model"])


# --- several models ------------------------------------------------------------------------------


def test_several_models_are_asked_at_once(server: Recorder, tmp_path: Path) -> None:
    """All that is asked of one is held back until the other has been asked too."""
    both = threading.Event()

    def script(one: Asked) -> Reply:
        seen = {model_of(a) for a in server.asked}
        if len(seen) == 2:
            both.set()
        return obey(one) if both.is_set() else FAULTS["hang"]

    server.script = script
    answers = asked(two_models(tmp_path, server.url), "alone", "other").answers
    assert sum(not a.ok for a in answers.values()) <= 3  # the first few, that were let hang
    assert both.is_set()


def test_no_model_is_asked_more_at_once_than_it_may_be(server: Recorder, tmp_path: Path) -> None:
    server.script = lambda one: replace(obey(one), delay=0.01)
    asked(two_models(tmp_path, server.url), "alone", "other")
    assert server.most_together <= 6


def test_a_model_that_is_gone_ends_the_run_though_another_answers(
    server: Recorder, tmp_path: Path
) -> None:
    def script(one: Asked) -> Reply:
        return FAULTS["hangs up"] if model_of(one) == "a" else replace(obey(one), delay=0.02)

    server.script = script
    with pytest.raises(Gone, match="the model `a` answers no more") as caught:
        asked(two_models(tmp_path, server.url, 60), "alone", "other")
    kept = caught.value.answered
    assert kept.answers
    assert all(a.ok for a in kept.answers.values())  # of the other model
    assert kept.spent.calls == len(server.asked)


# --- the disk ------------------------------------------------------------------------------------


class Slow(Memory):
    """A store that notes who waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def claim(self, keys: Any, owner: str, seconds: float) -> set[str]:
        self.threads.add(threading.current_thread().name)
        return super().claim(keys, owner, seconds)

    def put(self, answers: Any) -> None:
        self.threads.add(threading.current_thread().name)
        super().put(answers)


def test_nobody_waits_for_the_disk_where_servers_are_read(server: Recorder, tmp_path: Path) -> None:
    store = Slow()
    answers = asked(two_models(tmp_path, server.url, 40), "alone", "other", store=store).answers
    assert all(a.ok for a in answers.values())
    assert store.threads == {threading.current_thread().name}


def test_what_another_has_claimed_is_waited_for(server: Recorder, tmp_path: Path) -> None:
    """Claimed by one that gives it back, without an answer, at the second look."""

    class Taken(Memory):
        looks = 0

        def claim(self, keys: Any, owner: str, seconds: float) -> set[str]:
            self.looks += 1
            return super().claim(keys, owner, seconds) if self.looks > 4 else set()

    answers = asked(two_models(tmp_path, server.url), "alone", "other", store=Taken()).answers
    assert answers
    assert all(a.ok for a in answers.values())


# --- steps without a model -----------------------------------------------------------------------


def foreign(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on, this algorithm is somebody else's."""
    ours = Registry.shipped
    monkeypatch.setattr(Registry, "shipped", lambda self, n: n != name and ours(self, n))


def test_a_step_without_a_model_that_goes_wrong_is_blamed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forward(self: Any, **_: Any) -> Any:
        raise ZeroDivisionError("so few")

    foreign(monkeypatch, "recall")
    monkeypatch.setattr(recall, "forward", forward)
    path = write_world(tmp_path, cases(4))
    with pytest.raises(PlanError, match="the algorithm `recall` failed: ZeroDivisionError: so few"):
        asked(path, "regression")


def test_somebody_elses_step_is_not_done_where_servers_are_read(
    monkeypatch: pytest.MonkeyPatch, server: Recorder, tmp_path: Path
) -> None:
    seen: set[str] = set()
    ours: Callable[..., Any] = recall.forward

    def forward(self: Any, *given: Any, **named: Any) -> Any:
        seen.add(threading.current_thread().name)
        return ours(self, *given, **named)

    monkeypatch.setattr(recall, "forward", forward)
    path = two_models(tmp_path, server.url)
    asked(path, "few")
    assert "wire" in seen  # ours is known to take no time
    seen.clear()
    foreign(monkeypatch, "recall")
    asked(path, "few")
    assert seen
    assert "wire" not in seen


def test_what_was_never_asked_is_no_failure_of_the_step_above(tmp_path: Path) -> None:
    """A step without a model takes what a model was not asked for any more."""
    loaded = load(write_world(tmp_path, cases(2)))
    backends = open_backends(loaded.program)
    plan = plan_run(loaded, backends)
    question = next(q for q in plan.questions if q.decider.name == "regression")
    (below,) = (link for link in question.links)
    plain = next(j.step for j in plan.jobs.values() if not j.step.algorithm.calls)
    above = Job("above", plain, question.model, {"ratings": (below.key,)}, 0)
    made = Question(
        question.decider,
        question.model,
        question.case,
        question.target,
        {"ratings": (Link("above", below.choices, below.attribute),)},
    )
    stop = Stop()
    stop.now("interrupted")
    answered = execute(Plan({**plan.jobs, "above": above}, [made]), backends, Memory(), stop=stop)
    assert answered.lacks(made)
    assert not answered.answers


# --- a model that is heard no more ---------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def hearing(at_once: int, timeout: float = 10.0) -> tuple[Hearing, Clock]:
    clock = Clock()
    return Hearing(at_once, timeout, clock), clock


def ended(one: Hearing, unheard: int, calls: int = 1) -> None:
    trail = Trail(calls=calls)
    one.begin(trail)
    trail.unheard = unheard
    one.end(trail)


def test_requests_of_jobs_in_flight_count() -> None:
    """No job has ended yet: each has retries left."""
    one, _ = hearing(4)
    trails = [Trail(calls=3) for _ in range(8)]
    for trail in trails:
        one.begin(trail)
    assert not one.is_gone()
    for trail in trails:
        trail.unheard = SILENCE // 8
    assert one.unheard() == SILENCE
    assert one.is_gone()


def test_of_an_answer_that_took_several_requests_only_the_silent_ones_count() -> None:
    """Two replied and three hung, as with a rating by expectation."""
    one, _ = hearing(4)
    ended(one, 3, calls=5)
    assert one.unheard() == 3


def test_any_reply_ends_a_silence() -> None:
    one, _ = hearing(4)
    for _ in range(SILENCE - 1):
        ended(one, 1)
    ended(one, 0)
    for _ in range(SILENCE - 1):
        ended(one, 1)
    assert not one.is_gone()


def test_a_reply_to_a_job_in_flight_ends_a_silence() -> None:
    one, _ = hearing(4)
    trail = Trail(calls=3)
    one.begin(trail)
    trail.unheard = 3
    for _ in range(SILENCE - 4):
        ended(one, 1)
    assert one.unheard() == SILENCE - 1
    trail.unheard = 0  # and on it goes
    assert one.unheard() == 0
    ended(one, 1)
    assert not one.is_gone()


def test_where_many_are_asked_at_once_a_hanging_server_is_known_by_the_time() -> None:
    """256 requests that time out, then half of them again, are not hours of waiting."""
    one, clock = hearing(256)
    ended(one, 0)
    for _ in range(256):
        ended(one, 1)
    clock.now = 10.0
    assert not one.is_gone()  # a busy one may have let all of them wait too long
    clock.now = PATIENCE * 10.0
    assert one.is_gone()


def test_fewer_silences_are_enough_where_they_have_taken_long() -> None:
    """One that hangs from its first request on is soon asked one question at a time."""
    one, clock = hearing(256)
    for _ in range(2):
        ended(one, 1)
    clock.now = LONG * 10.0 - 1
    assert not one.is_gone()
    clock.now = LONG * 10.0
    assert one.is_gone()


def test_one_job_in_vain_is_chance_however_long_it_takes() -> None:
    one, clock = hearing(256)
    ended(one, SILENCE - 1)
    clock.now = 1e6
    assert not one.is_gone()


def test_no_silence_is_long_in_which_a_job_in_flight_was_told_to_wait() -> None:
    one, clock = hearing(4)
    ended(one, 1)
    ended(one, 1)
    told = Trail(calls=1, replies=1)
    one.begin(told)
    clock.now = 30.0
    assert not one.is_gone()
    clock.now = LONG * 10.0
    assert not one.is_gone()
    clock.now = 30.0 + LONG * 10.0
    assert one.is_gone()


def test_who_was_not_asked_was_not_silent() -> None:
    one, clock = hearing(4)
    clock.now = 1e6
    for _ in range(2):
        ended(one, 1)
    assert not one.is_gone()


def test_what_was_let_go_has_been_sent() -> None:
    spending = Spending(Budget(), Stop())
    trail = Trail()
    spending.begin("m", trail)
    trail.calls, trail.prompt_tokens = 2, 11
    spending.end("m", trail)
    assert (spending.cost.calls, spending.cost.prompt_tokens, spending.in_flight) == (2, 11, 0)


@pytest.mark.parametrize("before", ["", "interrupted"])
def test_a_model_is_gone_only_where_nobody_has_stopped_before(before: str, tmp_path: Path) -> None:
    stop = Stop()
    spending = Spending(Budget(), stop)
    spending.listen(load(write_world(tmp_path, cases(2))).program.models[0], 4)
    if before:
        stop.now(before)
    for _ in range(SILENCE):
        trail = Trail(calls=1, unheard=1)
        spending.begin("embedded", trail)
        spending.end("embedded", trail)
    assert stop.reason == (before or "gone")
    assert spending.gone == ("" if before else "embedded")
    assert not spending.may_ask()


@pytest.mark.parametrize(
    ("budget", "may"),
    [
        (Budget(), True),
        (Budget(calls=3), True),
        (Budget(calls=2), False),
        (Budget(tokens=20), True),
        (Budget(tokens=18), False),
        (Budget(seconds=1000), True),
        (Budget(seconds=0), False),
    ],
)
def test_what_is_spent_is_not_spent_again(budget: Budget, may: bool) -> None:
    stop = Stop()
    spending = Spending(budget, stop)
    trail = Trail(calls=2, prompt_tokens=11, completion_tokens=7)
    spending.begin("m", trail)
    spending.end("m", trail)
    assert spending.may_ask() == may
    assert stop.reason == ("" if may else "budget")


def test_each_job_in_flight_will_take_a_call() -> None:
    stop = Stop()
    spending = Spending(Budget(calls=2), stop)
    for _ in range(2):
        spending.begin("m", Trail())
    assert not spending.may_ask()
    assert not stop.asked  # they may come to less


def test_a_retry_is_promised_before_it_is_sent() -> None:
    """Or all that wait to ask again would find the same call left."""
    spending = Spending(Budget(calls=4), Stop())
    trails = [Trail() for _ in range(3)]
    for trail in trails:
        spending.begin("m", trail)
        trail.calls = 1
    assert [spending.may_go_on(trail) for trail in trails] == [True, False, False]
    assert spending.may_go_on(trails[0])  # it has not sent it yet
    assert not spending.may_ask()
    trails[0].calls = 2
    assert not spending.may_go_on(trails[0])


@pytest.mark.parametrize("budget", [Budget(tokens=18), Budget(seconds=0)])
def test_what_was_promised_is_not_sent_where_all_is_spent(budget: Budget) -> None:
    spending = Spending(budget, Stop())
    trail = Trail()
    spending.begin("m", trail)
    trail.spend(11, 7)  # of a job that has not ended
    assert spending.is_over()
    assert not spending.may_go_on(trail)


def test_a_budget_of_calls_holds_where_a_server_is_busy(server: Recorder, tmp_path: Path) -> None:
    """Each of those in flight would ask ten times more. None has failed: nobody knows yet."""
    server.script = lambda one: FAULTS["429 with Retry-After"]
    path = two_models(tmp_path, server.url, 20)
    text = path.read_text().replace("retries: 0", "retries: 10")
    path.write_text(text.replace("concurrency: 3", "concurrency: 16"))
    stop = Stop()
    done = asked(path, "alone", budget=Budget(calls=20), stop=stop)
    assert len(server.asked) == done.spent.calls == 20
    assert stop.reason == "budget"
    assert not done.answers


def test_a_budget_of_tokens_holds_where_no_answer_can_be_used(
    server: Recorder, tmp_path: Path
) -> None:
    server.script = lambda one: Reply("x", finish="content_filter", tokens=(900, 100))
    done = asked(two_models(tmp_path, server.url, 20), "alone", budget=Budget(tokens=5000))
    assert done.spent.prompt_tokens == 900 * len(server.asked)
    assert done.spent.completion_tokens == 100 * len(server.asked)
    assert 5 <= len(server.asked) <= 8


def test_steps_of_two_deciders_are_told_apart(tmp_path: Path) -> None:
    """Both call it `rate`, and ask otherwise: what one has warmed is of no use to the other."""
    plan = plan_run(load(two_models(tmp_path, "http://none")), {})
    jobs = Jobs(plan, Inputs(plan, {}), {}, Spending(Budget(), Stop()))
    by_prefix: dict[Any, set[str]] = {}
    for key in plan.model_jobs:
        step = plan.jobs[key].step
        by_prefix.setdefault(jobs.prefix(key)[:2], set()).add(step.algorithm.name)
    assert all(len(names) == 1 for names in by_prefix.values())
    assert {"rate_alone"} in by_prefix.values()
    assert {"rate_together"} in by_prefix.values()
    again = plan_run(load(two_models(tmp_path, "http://none")), {})
    other = Jobs(again, Inputs(again, {}), {}, Spending(Budget(), Stop()))
    assert [other.prefix(k) for k in again.jobs] == [jobs.prefix(k) for k in plan.jobs]


# --- what stands after failures were asked again -------------------------------------------------


def test_a_table_is_made_anew_where_something_was_asked(tmp_path: Path) -> None:
    """As after `--retry-failed` that was killed: the failures are forgotten, and not the table."""
    path = write_world(tmp_path, cases(4))
    script = perfect_script(load(path), tmp_path / "s.jsonl")
    bad = json.dumps({"scenario": "situation number 1", "fail": "timeout"})
    good = script.read_text()
    script.write_text(f"{bad}\n{good}")
    model = Changes(model=f"scripted:{script}")
    path.write_text(path.read_text().replace("  prompt:", "  #").replace("  baseline:", "  #"))
    text = path.read_text().replace("  consistent:", "  #")
    path.write_text(text)
    with Store.open(tmp_path / "a.db") as store:
        first = run(load(path, model), store)
        assert first.record.counts["timeout"]
        loaded = load(path, model)
        backends = open_backends(loaded.program)
        store.forget_failures(plan_run(loaded, backends).model_jobs)
        with store._database.reading() as db:
            left = {key for (key,) in db.execute("SELECT key FROM answers")}
        assert left
        again = run(loaded, store)
        assert again.spent.calls > 0
        assert store.record(again.record.id) == again.record
        assert again.record.created == first.record.created


def test_inputs_know_the_steps_below(tmp_path: Path) -> None:
    loaded = load(write_world(tmp_path, cases(2)))
    plan = plan_run(loaded, open_backends(loaded.program))
    inputs = Inputs(plan, {})
    rate = next(k for k in plan.model_jobs if plan.jobs[k].step.algorithm.name == "rate_together")
    assert {step.name for step in inputs.plain_below(rate)} == {"recall"}
