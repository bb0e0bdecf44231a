"""Runs to test with. `python tests/records/build.py` writes v1/align.db: only while version 1 is
unreleased; after that the file is what users have, and stays."""

from __future__ import annotations

from pathlib import Path

from align_dsl.records.record import Answer, Cost, Judgement, Recorded, Result, RunRecord
from align_dsl.records.store import Store
from align_dsl.types import Case, Choice, Decision, Failure, Rating, Scenario, Target, Vote

TARGETS = (
    Target(name="desert_low", values={"desert": 0.0}),
    Target(name="desert_high", values={"desert": 1.0}),
)
PROGRAM = {"name": "mta", "models": [{"name": "embedded", "backend": "embedded"}]}


def case(i: int, text: str = "", group: str = "") -> Case:
    return Case(
        scenario=Scenario(
            id=f"s{i}",
            text=text or f"Two patients, scene {i}.",
            choices=(Choice(id="a", text=f"Treat A{i}"), Choice(id="b", text=f"Treat B{i}")),
        ),
        labels={"a": {"desert": 0.25}, "b": {"desert": 0.75}},
        group=group,
    )


def judgement(
    i: int,
    *,
    correct: bool | None = True,
    decider: str = "regression",
    target: str = "desert_high",
    left_out: bool = False,
    group: str = "",
    why: str = "because",
    model: str = "embedded",
    scenario: str = "",
    control: bool = False,
) -> Judgement:
    right = "b" if target == "desert_high" else "a"
    chosen = right if correct else {"a": "b", "b": "a"}[right]
    failed = correct is None and not left_out
    return Judgement(
        decision=Decision(
            decider=decider,
            model=model,
            target="desert_low" if control else target,
            scenario=scenario or f"s{i}",
            status="timeout" if failed else "ok",
            choice=None if failed else chosen,
            weights={} if failed else {"a": 0.25, "b": 0.75},
            ratings=()
            if failed
            else tuple(
                Rating(choice=c, attribute="desert", value=v, why=why)
                for c, v in (("a", 0.2), ("b", 0.9))
            ),
            votes=() if failed else (Vote(choice=chosen, why=why),),
            failures=(Failure(status="timeout", message="no answer in 60 s"),) if failed else (),
        ),
        index=None if failed else "ab".index(chosen),
        correct=None if left_out else correct,
        left_out=left_out,
        right=1,
        choices=2,
        group=group or f"g{i}",
        target=target,
        control=control,
    )


def result(
    decider: str = "regression", value: float | None = 0.8, model: str = "embedded"
) -> Result:
    return Result(
        decider=decider, model=model, target="both", attribute="desert", metric="accuracy",
        value=value, low=0.7, high=0.9, n=10, left_out=0, failed=0, chance=0.5,
    )  # fmt: skip


def record(
    id: str = "mta-0123456789", created: str = "2025-01-02T03:04:05+00:00", **said
) -> RunRecord:
    given = {
        "program": "mta", "program_digest": "d1", "source": "programs/mta.yaml", "status": "ok",
        "seed": 0, "models": {"embedded": "embedded@1"}, "deciders": ("regression",),
        "targets": TARGETS, "results": (result(),), "counts": {"ok": 10}, "cost": Cost(calls=7),
    }  # fmt: skip
    return RunRecord(id=id, created=created, **{**given, **said})


def recorded(judgements: list[Judgement], cases: list[Case] | None = None, **said) -> Recorded:
    ids = dict.fromkeys(j.decision.scenario for j in judgements)
    found = cases if cases is not None else [case(int(i[1:])) for i in ids]
    deciders = dict.fromkeys((j.decision.decider, j.decision.model) for j in judgements)
    said.setdefault("results", tuple(result(d, model=m) for d, m in deciders))
    said.setdefault("deciders", tuple(d for d, _ in deciders))
    return Recorded(
        record=record(**said), program=PROGRAM, cases=tuple(found), judgements=tuple(judgements)
    )


def keep(store: Store, run: Recorded) -> None:
    store.start(run.record.model_copy(update={"status": "running"}), run.program, run.cases)
    store.finish(run.record, run.judgements)


V1_RUN = recorded([judgement(1), judgement(2, correct=False), judgement(3, correct=None)])
V1_ANSWERS = [
    Answer(key="k1", output={"A": 3.0, "B": 7.0}, raw='{"A": 3, "B": 7}', calls=1),
    Answer(key="k2", failure=Failure(status="refused", message="no", raw="I cannot"), calls=2),
]


if __name__ == "__main__":
    path = Path(__file__).parent / "v1" / "align.db"
    path.unlink(missing_ok=True)
    with Store.open(path) as store:
        store.put(V1_ANSWERS)
        store.claim(["k3"], "nobody", 0)
        keep(store, V1_RUN)
