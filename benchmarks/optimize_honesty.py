"""Does `optimize` find what is there, and does it say so when nothing is?

The shipped triage cases, the embedded backend, and a poor default (one random exemplar). As they
are, exemplars help, and the winner must beat the default on the test cases. With the labels of
each case dealt out anew among its choices nothing can help, and it must say "not better".

    python benchmarks/optimize_honesty.py            5 seeds as they are, 20 with shuffled labels
    python benchmarks/optimize_honesty.py 1 3        fewer
    python benchmarks/optimize_honesty.py 5 0 0.3    with three tenths of the cases to train on
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.task import Task
from align_dsl.pipeline import Changes

ROOT = Path(__file__).parents[1]
PROGRAM = """version: 1
program: poor
about: Triage from a poor start.
attributes: mta
data: {{format: jsonl, path: {data}, split: {{train: {train:g}, test: {test:g}, seed: {seed}}}}}
targets: {{each: [low, high]}}
deciders:
  regression: {{use: comparative_regression, with: {{shots: 1, select: random}}}}
optimize:
  decider: regression
  trials: {trials}
  seed: {seed}
  space: {{shots: {{low: 0, high: 16}}, select: [similar, stratified, random]}}
"""


def shuffled(lines: list[str], seed: int) -> list[str]:
    """The labels of each case dealt out anew among its choices."""
    dice, made = random.Random(seed), []
    for line in lines:
        case = json.loads(line)
        labels = [c.get("labels", {}) for c in case["choices"]]
        dice.shuffle(labels)
        for choice, dealt in zip(case["choices"], labels, strict=True):
            choice["labels"] = dealt
        made.append(json.dumps(case))
    return made


def one(
    seed: int,
    *,
    shuffle: bool,
    trials: int = 60,
    cases: int | None = None,
    train: float = 0.5,
) -> Outcome:
    """A whole optimization in a project of its own."""
    lines = (ROOT / "programs" / "data" / "triage.jsonl").read_text().splitlines()[:cases]
    with tempfile.TemporaryDirectory() as folder:
        data, program = Path(folder) / "cases.jsonl", Path(folder) / "poor.yaml"
        data.write_text("\n".join(shuffled(lines, seed) if shuffle else lines) + "\n")
        share = {"train": train, "test": round(1 - train, 6)}
        program.write_text(PROGRAM.format(data=data, seed=seed, trials=trials, **share))
        return optimize(Task(program, Changes(), store=Path(folder) / ".align" / "align.db"))


def said(outcome: Outcome) -> str:
    chosen, verdict = outcome.chosen, outcome.verdict
    assert chosen is not None
    line = f"train {chosen.default.score:.3f} -> {chosen.done.score:.3f} (unseen blocks "
    line += f"{chosen.checked:+.3f})"
    if verdict is None:
        return f"{line}, kept the default"
    value, low, high = verdict.gain
    line += f", test {verdict.default:.3f} -> {verdict.winner:.3f}"
    word = "BETTER" if outcome.is_better else "not better"
    line += f" {value:+.3f} [{low:+.3f}, {high:+.3f}] p {verdict.p:.4f} {word}"
    return f"{line}, {json.dumps(chosen.done.config)}"


def main(real: int = 5, null: int = 20, train: float = 0.5) -> None:
    for name, seeds, shuffle in (("as it is", real, False), ("labels shuffled", null, True)):
        better = 0
        for seed in range(seeds):
            began = time.monotonic()
            outcome = one(seed, shuffle=shuffle, train=train)
            better += outcome.is_better
            print(
                f"{name}, train {train:g}, seed {seed}: {said(outcome)}"
                f"  {time.monotonic() - began:.0f} s",
                flush=True,
            )
        print(f"{name}: better in {better} of {seeds}\n", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *map(float, sys.argv[3:]))
