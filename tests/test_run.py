"""Whole runs: what must hold whatever the model, and what must survive."""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.engine.budget import Budget
from align_dsl.pipeline import Changes, Loaded, Outcome, Selection, load, run
from align_dsl.records.record import Result
from align_dsl.records.store import Store
from tests.servers.recorder import FAULTS, Recorder, Reply, obey
from tests.worlds import ATTRIBUTES, PROGRAM, ROOT, cases, perfect_script, shipped, write_world

CLI = [sys.executable, "-m", "align_dsl"]


def decide(loaded: Loaded, folder: Path, **options: object) -> Outcome:
    with Store.open(folder / "align.db") as store:
        return run(loaded, store, **options)  # type: ignore[arg-type]


def rows(outcome: Outcome, decider: str) -> dict[str, Result]:
    return {r.target: r for r in outcome.record.results if r.decider == decider}


def decisions(folder: Path, run_id: str) -> dict[tuple[str, str, str], tuple[str | None, str]]:
    with Store.open(folder / "align.db") as store:
        recorded = store.load(run_id)
    return {
        (j.decision.decider, j.decision.target, j.decision.scenario): (
            j.decision.choice,
            j.decision.status,
        )
        for j in recorded.judgements
    }


def perfect(path: Path, folder: Path) -> Loaded:
    script = perfect_script(load(path), folder / "script.jsonl")
    return load(path, Changes(model=f"scripted:{script}"))


# --- a perfect rater, and an ideal one


@pytest.mark.parametrize("program", ["mta", "preferences"])
def test_a_perfect_rater_is_always_right(program: str, tmp_path: Path) -> None:
    loaded = perfect(ROOT / "programs" / f"{program}.yaml", tmp_path)
    outcome = decide(
        loaded,
        tmp_path,
        selection=Selection(only=("zero_shot",))
        if program == "mta"
        else Selection(only=("regression",)),
    )
    for row in outcome.record.results:
        assert row.value == 1.0, row
        assert row.failed == 0


def test_high_and_low_disagree_for_an_ideal_rater(tmp_path: Path) -> None:
    loaded = perfect(write_world(tmp_path, cases(12)), tmp_path)
    outcome = decide(loaded, tmp_path, selection=Selection(only=("regression",)))
    made = decisions(tmp_path, outcome.record.id)
    for case in loaded.cases:
        if len(case.scenario.choices) != 2:
            continue
        for name in ("mercy", "order"):
            values = {c: by[name] for c, by in case.labels.items()}
            if len(set(values.values())) == 2:
                ends = [
                    made["regression", f"{name}_{e}", case.scenario.id][0] for e in ("low", "high")
                ]
                assert ends[0] != ends[1]


def test_low_and_high_add_up_to_100_for_who_ignores_the_target(tmp_path: Path) -> None:
    two = [c for c in cases(30) if len(c["choices"]) == 2]  # type: ignore[arg-type]
    attributes = ATTRIBUTES
    loaded = load(write_world(tmp_path, two, PROGRAM, attributes))
    script = tmp_path / "a.jsonl"
    script.write_text(json.dumps({"raw": '{"because": "x", "choice": "A"}'}) + "\n")
    loaded = load(tmp_path / "programs" / "small.yaml", Changes(model=f"scripted:{script}"))
    outcome = decide(loaded, tmp_path, selection=Selection(only=("baseline",)))
    found = rows(outcome, "baseline")
    for name in ("mercy", "order"):
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        assert low.value is not None
        assert high.value is not None
        assert low.value + high.value == pytest.approx(1.0)


# --- metamorphic: what must not matter


def test_permuting_choices_permutes_the_answer(tmp_path: Path) -> None:
    dice = random.Random(3)
    straight = [{**c} for c in cases(10)]
    turned = [{**c, "choices": dice.sample(c["choices"], len(c["choices"]))} for c in straight]  # type: ignore[arg-type,call-overload]
    results = []
    for i, world in enumerate((straight, turned)):
        folder = tmp_path / str(i)
        outcome = decide(load(write_world(folder, world)), folder)
        results.append(decisions(folder, outcome.record.id))
    assert results[0] == results[1]


def test_the_scale_of_an_attribute_does_not_matter_to_labels_and_targets(tmp_path: Path) -> None:
    wide = ATTRIBUTES.replace("high: It spares.", "high: It spares., scale: {low: 0, high: 100}")
    plain = cases(10)
    stretched = json.loads(json.dumps(plain))
    for c in stretched:
        for choice in c["choices"]:
            choice["labels"]["mercy"] *= 10
    results = []
    for i, (world, attributes) in enumerate(((plain, ATTRIBUTES), (stretched, wide))):
        folder = tmp_path / str(i)
        loaded = load(write_world(folder, world, attributes=attributes))
        outcome = decide(loaded, folder, selection=Selection(only=("regression", "oracle")))
        results.append(decisions(folder, outcome.record.id))
    assert results[0] == results[1]


def test_an_attribute_outside_the_targets_changes_nothing(tmp_path: Path) -> None:
    narrow = PROGRAM.replace("{each: [low, high]}", "{each: [low, high], of: [mercy]}")
    alone = ATTRIBUTES[: ATTRIBUTES.index("  order:")]
    results = []
    for i, attributes in enumerate((ATTRIBUTES, alone)):
        folder = tmp_path / str(i)
        outcome = decide(load(write_world(folder, cases(10), narrow, attributes)), folder)
        results.append(decisions(folder, outcome.record.id))
    assert results[0] == results[1]


# --- labels stay out of prompts


def test_no_label_of_a_case_reaches_its_own_prompt(tmp_path: Path) -> None:
    """Canaries: each case's label is a number that no other case has; each appears in prompts of

    other cases as an exemplar, never in the case's own.
    """
    from align_dsl.engine.preview import look
    from align_dsl.pipeline import open_backends, plan_run

    attributes = ATTRIBUTES.replace(
        "high: It spares.", "high: It spares., scale: {low: 0, high: 99999}"
    )
    world = [
        {
            "id": f"c{i}",
            "scenario": f"situation {i}",
            "choices": [
                {"id": "a", "text": f"do {i}", "labels": {"mercy": 31_000 + 7 * i, "order": 3}},
                {"id": "b", "text": f"leave {i}", "labels": {"mercy": 52_000 + 7 * i, "order": 6}},
            ],
        }
        for i in range(8)
    ]
    world.append({**world[0], "id": "twin"})  # same text under another id
    loaded = load(
        write_world(tmp_path, world, PROGRAM.replace("shots: 4", "shots: 50"), attributes)
    )
    script = tmp_path / "s.jsonl"
    script.write_text("")
    loaded = load(tmp_path / "programs" / "small.yaml", Changes(model=f"scripted:{script}"))
    planned = plan_run(loaded, open_backends(loaded.program))
    seen_elsewhere = set()
    for question in planned.questions:
        number = question.case.scenario.text.split()[-1]
        own = {str(base + 7 * int(number)) for base in (31_000, 52_000)}
        for links in question.takes.values():
            for link in links:
                if not planned.jobs[link.key].step.algorithm.calls:
                    continue
                said = json.dumps(look(planned, "x", planned.jobs[link.key]).messages)
                assert not any(canary in said for canary in own)
                seen_elsewhere |= {
                    str(b + 7 * i)
                    for i in range(8)
                    for b in (31_000, 52_000)
                    if str(b + 7 * i) in said
                }
    assert len(seen_elsewhere) == 16  # they do appear, as exemplars of others


# --- failures are values


def test_failures_are_counted_and_replaced_by_nothing(tmp_path: Path) -> None:
    path = write_world(tmp_path, cases(6))
    loaded = load(path)
    script = perfect_script(loaded, tmp_path / "s.jsonl")
    lines = script.read_text().splitlines()
    bad = json.dumps(
        {"scenario": "situation number 1", "raw": '{"because": "cut', "finish": "length"}
    )
    late = json.dumps({"scenario": "situation number 2", "fail": "timeout"})
    script.write_text("\n".join([bad, late, *lines]))
    loaded = load(path, Changes(model=f"scripted:{script}"))
    outcome = decide(loaded, tmp_path, selection=Selection(only=("regression",)))
    assert outcome.record.counts["truncated"] == 4
    assert outcome.record.counts["timeout"] == 4
    made = decisions(tmp_path, outcome.record.id)
    assert made["regression", "mercy_low", "c1"] == (None, "truncated")
    found = rows(outcome, "regression")["all"]
    assert found.failed == 8
    assert found.value == 1.0  # of those that were decided

    script.write_text("\n".join(lines))  # the same answers are kept, unless asked again
    again = decide(
        load(path, Changes(model=f"scripted:{script}")),
        tmp_path,
        selection=Selection(only=("regression",)),
        retry_failed=True,
    )
    assert rows(again, "regression")["all"].failed == 0


def test_the_budget_ends_a_run_and_the_next_goes_on(tmp_path: Path) -> None:
    from align_dsl.engine.execute import Stop

    loaded = perfect(write_world(tmp_path, cases(8)), tmp_path)
    stop = Stop()
    first = decide(
        loaded, tmp_path, selection=Selection(only=("regression",)), budget=Budget(5), stop=stop
    )
    assert (stop.reason, first.spent.calls, first.record.status) == ("budget", 5, "interrupted")
    second = decide(loaded, tmp_path, selection=Selection(only=("regression",)))
    assert second.record.status == "ok"
    assert first.spent.calls + second.spent.calls == second.record.jobs
    third = decide(loaded, tmp_path, selection=Selection(only=("regression",)))
    assert third.spent.calls == 0
    assert third.record.results == second.record.results


# --- survival


def slow_world(folder: Path, n: int = 40, seconds: float = 0.01) -> Path:
    path = write_world(folder, cases(n), PROGRAM.replace("shots: 4", "shots: 2"))
    perfect_script(load(path), folder / "programs" / "script.jsonl", seconds)
    return path


def command(path: Path, store: Path, *more: str) -> list[str]:
    only = ["--only", "regression", "--only", "alone"]
    model = f"scripted:{path.parent / 'script.jsonl'}"
    return [*CLI, "run", str(path), "--model", model, "--store", str(store), *only, *more]


def final(path: Path, store: Path) -> dict[str, object]:
    done = subprocess.run(
        command(path, store, "--json"), capture_output=True, text=True, check=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "done"
    return dict(events[-1])


def test_killed_at_random_points_it_ends_as_if_never_killed(tmp_path: Path) -> None:
    path = slow_world(tmp_path)
    whole = final(path, tmp_path / "whole.db")
    store = tmp_path / "killed.db"
    dice = random.Random(7)
    for _ in range(20):
        child = subprocess.Popen(
            command(path, store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert child.stderr is not None
        while child.poll() is None and not child.stderr.readline().startswith("run small-"):
            pass
        time.sleep(dice.random() * 0.3)
        child.kill()
        child.communicate()
    done = final(path, store)
    assert done["results"] == whole["results"]
    assert done["run"] == whole["run"]


def test_what_was_answered_before_a_kill_is_not_asked_again(tmp_path: Path) -> None:
    """A server counts: a request comes twice only where a kill found it on its way."""
    kills, at_once = 4, 4
    with Recorder(lambda asked: replace(obey(asked), delay=0.05)) as server:
        program = PROGRAM.replace("model: embedded", "model: m") + (
            "models:\n  m: {use: hosted_vllm/tiny, "
            f"endpoint: {server.url}/v1, concurrency: {at_once}}}\n"
        )
        path = write_world(tmp_path, cases(60), program)
        line = [*CLI, "run", str(path), "--store", str(tmp_path / "a.db")]
        line += ["--only", "regression", "--only", "alone"]
        for _ in range(kills):
            child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seen = len(server.asked)
            while len(server.asked) < seen + 10 and child.poll() is None:
                time.sleep(0.01)
            child.kill()
            child.wait()
        done = subprocess.run([*line, "--json"], capture_output=True, text=True, check=True)
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["status"] == "ok"
    assert end["cost"]["cached"] > 0
    bodies = [a.body for a in server.asked if a.path.endswith("/chat/completions")]
    jobs = end["cost"]["calls"] + end["cost"]["cached"]
    assert len(set(bodies)) == jobs
    assert len(bodies) - jobs <= kills * at_once * 2


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    path = slow_world(tmp_path, 30)
    both = [
        subprocess.Popen(
            command(path, tmp_path / "a.db", "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ends = []
    for child in both:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        ends.append(json.loads(out.splitlines()[-1]))
    starts = final(path, tmp_path / "b.db")
    assert ends[0]["results"] == ends[1]["results"] == starts["results"]
    calls = sum(e["cost"]["calls"] for e in ends)
    assert calls == starts["cost"]["calls"]  # type: ignore[index]


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = slow_world(tmp_path, 60, 0.05)
    child = subprocess.Popen(
        command(path, tmp_path / "a.db"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    while not child.stderr.readline().startswith("run small-"):
        assert child.poll() is None
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "to go on: align-dsl run" in err
    with Store.open(tmp_path / "a.db") as store:
        assert [r.status for r in store.runs()] == ["interrupted"]
    assert final(path, tmp_path / "a.db")["status"] == "ok"


# --- the shipped data, on the embedded backend


def test_examples_make_the_difference_on_the_shipped_data(tmp_path: Path) -> None:
    """Baseline and zero-shot are at chance; exemplars lift clearly above both and the control."""
    from align_dsl.records.stats import paired_bootstrap

    loaded = shipped("mta")
    outcome = decide(loaded, tmp_path, selection=Selection(control=True))
    found = {(r.decider, r.target): r for r in outcome.record.results}
    base, zero, few = (found[d, "all"] for d in ("baseline", "zero_shot", "regression"))
    for row in (base, zero):
        assert row.low is not None
        assert row.high is not None
        assert row.chance is not None
        assert row.low <= row.chance <= row.high
    with Store.open(tmp_path / "align.db") as store:
        judged = store.load(outcome.record.id).judgements
    right = {
        (j.decision.decider, j.control, j.target, j.decision.scenario): float(j.correct or 0)
        for j in judged
    }
    groups = {j.decision.scenario: j.group for j in judged}
    keys = [(t, s) for d, control, t, s in right if d == "regression" and not control]
    for other in (("baseline", False), ("zero_shot", False), ("regression", True)):
        interval = paired_bootstrap(
            [right["regression", False, t, s] for t, s in keys],
            [right[(*other, t, s)] for t, s in keys],
            [groups[s] for _, s in keys],
        )
        assert interval is not None
        assert interval.low > 0.05, other
    assert few.value is not None
    assert found["oracle", "all"].value == 1.0


# --- how a run stands


def test_a_run_whose_process_is_no_more_has_stopped(tmp_path: Path) -> None:
    """Killed, it could write nothing down. What says that it is running has its owner's name."""
    path = slow_world(tmp_path, 40, 0.1)
    store = ["--store", str(tmp_path / "a.db")]
    child = subprocess.Popen(
        command(path, tmp_path / "a.db"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    while not child.stderr.readline().startswith("run small-"):
        assert child.poll() is None
    with Store.open(tmp_path / "a.db") as opened:
        (record,) = opened.runs()
    assert (record.status, record.stands) == ("running", "running")
    child.kill()
    child.communicate()
    assert record.stands == "stopped"
    for line in (["runs", *store], ["runs", "show", "last", *store]):
        said = CliRunner().invoke(cli, line).output
        assert "stopped" in said
        assert "running" not in said


def test_a_run_that_is_not_there_is_a_wrong_request(tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "a.db")]
    path = slow_world(tmp_path, 1, 0)
    end = final(path, tmp_path / "a.db")
    near = f"{str(end['run'])[:-1]}_"
    done = subprocess.run(
        [*CLI, "runs", "show", near, *store], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"error: no run `{near}`\n  = did you mean `{end['run']}`?\n"


def test_how_to_go_on_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    from align_dsl.commands.run import _resume

    line = ["run", "my programs/it's.yaml", "--set", "deciders.a.shots=$many"]
    monkeypatch.setattr(sys, "argv", ["align-dsl", *line])
    assert shlex.split(_resume()) == ["align-dsl", *line]


@pytest.mark.parametrize(
    ("said", "budget"),
    [
        ("500", Budget(500)),
        ("calls=500,tokens=1e6", Budget(500, 1_000_000)),
        ("tokens=0", Budget(tokens=0)),
        (" calls = 5 , seconds=60", Budget(5, seconds=60)),
        ("calls=-1", None),
        ("calls=0.5", None),
        ("calls=nan", None),
        ("tokens=1e999", None),
        ("trials=3", None),
        ("=5", None),
        ("calls", None),
        ("", None),
    ],
)
def test_a_budget_is_read_strictly(said: str, budget: Budget | None) -> None:
    if budget is None:
        with pytest.raises(ValueError, match="as in calls=500"):
            Budget.parse(said)
    else:
        assert Budget.parse(said) == budget


# --- what it took


def called(text: str, said: str) -> int:
    found = re.search(rf"{said} ([\d,]+)", text)
    assert found is not None, text
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("ends", [(0,), (30,), (20, 45)])
def test_runs_counts_the_calls_that_run_counts(
    ends: tuple[int, ...], retries: int, tmp_path: Path
) -> None:
    """Also those to a server that was gone: nothing came of them, but they were made."""
    store = ["--store", str(tmp_path / "a.db")]
    model = f"hosted_vllm/tiny, retries: {retries}, concurrency: 4"
    with Recorder() as server:
        program = PROGRAM.replace("model: embedded", "model: m") + (
            f"models:\n  m: {{use: {model}, endpoint: {server.url}/v1}}\n"
        )
        path = str(write_world(tmp_path, cases(12), program))
        line = ["run", path, "--only", "regression", "--only", "alone", *store]
        paid = 0
        for end in (*ends, None, None):
            server.script = lambda asked, end=end: (  # type: ignore[misc]
                obey(asked) if end is None or len(server.asked) <= end else FAULTS["hangs up"]
            )
            done = CliRunner().invoke(cli, line)
            said = done.stdout.splitlines()[-1]
            spent = called(said.replace(" calls", "").replace(":", ""), r"^run small-\w+")
            paid += spent
            listed = CliRunner().invoke(cli, ["runs", *store]).stdout.splitlines()
            at = listed[1].index("calls") + len("calls")
            assert listed[3][:at].split()[-1] == f"{paid:,}", listed
            shown = CliRunner().invoke(cli, ["runs", "show", "last", *store]).stdout
            assert called(shown, "\ncalls   ") == paid
            assert (f"{paid:,} calls in all" in said) == (paid != spent)
    assert spent == 0  # the last time all was known
    assert "of them for no answer" in shown


def test_what_failures_took_is_counted_when_they_are_asked_again(tmp_path: Path) -> None:
    with Recorder(lambda asked: Reply(body=b"no", status=500)) as server:
        program = PROGRAM.replace("model: embedded", "model: m") + (
            f"models:\n  m: {{use: openai/tiny, retries: 0, endpoint: {server.url}/v1}}\n"
        )
        loaded = load(write_world(tmp_path, cases(3), program))
        only = Selection(only=("regression",))
        ill = decide(loaded, tmp_path, selection=only)
        server.script = obey
        healed = decide(loaded, tmp_path, selection=only, retry_failed=True)
    assert ill.record.cost.calls == ill.spent.calls > 0
    assert healed.record.lost.calls == ill.spent.calls
    assert healed.record.cost.calls == len(server.asked) == ill.spent.calls + healed.spent.calls
    tokens = [o.prompt_tokens + o.completion_tokens for o in (healed.record.cost, healed.spent)]
    assert tokens[0] == tokens[1] > 0
