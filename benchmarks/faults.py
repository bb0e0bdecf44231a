"""Ten thousand decisions on a server of which one request in seven goes wrong. What is left?

    python benchmarks/faults.py [--decisions 10000] [--rate 0.15] [--seed 0] [--two]

The server (`tests/servers/faulty.py`) and each `align-dsl run` are processes of their own, and
speak HTTP. Right answers and mishaps are drawn from the text of the question, so a retry, another
order and a restart meet the same. Six runs:

1. clean: nothing goes wrong
2. faulty: 429 and 503 with and without Retry-After, 500, hangs, hung up, cut bodies, no JSON, an
   error with status 200, cut off, wrong types, no schema, control characters; loading at first
3. healed: the faulty one again with `--retry-failed`, on the server made well
4. killed: as the second, killed with -9 again and again, and given again until it ends
5. crashed: the server answers nothing but 503 "Loading model" for a while in the middle
6. two: two servers of one model; the one is the faulty one, the other is killed in the middle and
   comes back after five seconds. `--two` runs this one alone, after the clean run

Each claim is printed with what it rests on. Exits 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from align_dsl.records.record import Answer, Judgement, Recorded  # noqa: E402
from align_dsl.records.results import results  # noqa: E402
from align_dsl.records.store import Store  # noqa: E402
from tests.servers.faulty import MISHAPS, RIGHT, differences, program  # noqa: E402
from tests.worlds import write_world  # noqa: E402

IN_FLIGHT = 32
PER_CASE = 8  # decisions: four deciders, two targets
LIVE = "/proc/{}/statm"


class Server:
    """The server's process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._start("0")

    def _start(self, port: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "servers" / "faulty.py"), port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = str(self._heard()["url"])

    def die(self, seconds: float) -> None:
        """Killed, and again there after a while, at the same address, knowing nothing."""
        with self.lock:
            self.process.kill()
            self.process.wait()
            time.sleep(seconds)
            self._start(self.url.rpartition(":")[2])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)

    def tell(self, **what: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        with self.lock:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
            return self._heard()

    def begin(self, **settings: Any) -> None:
        self.tell(begin=settings)

    def sent(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.tell(look=True)["sent"]
        return found

    def requests(self) -> int:
        return int(self.tell()["requests"])

    def _heard(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@dataclass
class Sample:
    requests: int  # that the server has had until now
    megabytes: float


@dataclass
class Ran:
    """One `align-dsl run` and what was seen of it."""

    code: int
    seconds: float
    asking: float  # seconds from the first request to the last
    said: str
    end: dict[str, Any]
    memory: list[Sample] = field(default_factory=list)


def run(server: Server, path: Path, store: Path, *more: str, kill_at: int = 0) -> Ran:
    """`kill_at`: kill it when the server has had so many requests more."""
    command = [sys.executable, "-m", "align_dsl", "run", str(path), "--store", str(store), "--json"]
    began, before = time.monotonic(), server.requests()
    memory: list[Sample] = []
    changed: list[float] = []  # when the server had got something new
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(
            [*command, *more], cwd=path.parents[1], stdout=out, stderr=err, text=True
        )
        had = before
        while child.poll() is None:
            asked, used = server.requests(), _megabytes(child.pid)
            if asked > had:
                had = asked
                changed.append(time.monotonic())
                memory += [Sample(asked - before, used)] if used else []
            if kill_at and asked - before >= kill_at:
                child.kill()
            time.sleep(0.1)
        out.seek(0)
        err.seek(0)
        lines = out.read().splitlines()
        end = json.loads(lines[-1]) if lines else {}
        asking = changed[-1] - changed[0] if changed else 0.0
        return Ran(child.returncode, time.monotonic() - began, asking, err.read(), end, memory)


def _megabytes(pid: int) -> float:
    """What a process holds in memory; 0 where nobody tells."""
    try:
        pages = int(Path(LIVE.format(pid)).read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Kept:
    """What a store holds in the end."""

    recorded: Recorded
    answers: dict[str, Answer]

    @classmethod
    def of(cls, store: Path) -> Kept:
        with Store.open(store) as opened:
            with opened._database.reading() as db:
                keys = [key for (key,) in db.execute("SELECT key FROM answers")]
            return cls(opened.load("last"), opened.known(keys))

    @cached_property
    def judged(self) -> dict[tuple[str, str, str], Judgement]:
        return {
            (j.decision.decider, j.decision.target, j.decision.scenario): j
            for j in self.recorded.judgements
        }

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(j.decision.status for j in self.recorded.judgements)

    @property
    def calls(self) -> int:
        return sum(a.calls for a in self.answers.values())


@dataclass
class Claims:
    """What is claimed, and whether it held."""

    broken: int = 0

    def say(self, holds: bool, claim: str, rests_on: str) -> None:
        self.broken += not holds
        print(f"  {'ok    ' if holds else 'BROKEN'} {claim}: {rests_on}", flush=True)


def world(folder: Path, cases: int, *urls: str) -> Path:
    rows: list[dict[str, object]] = [
        {
            "id": f"c{i}",
            "scenario": f"situation number {i}",
            "choices": [
                {"id": c, "text": f"choice {c} of {i}", "labels": {"mercy": m, "order": 10 - m}}
                for c, m in (("a", i % 11), ("b", (3 * i + 5) % 11))
            ],
        }
        for i in range(cases)
    ]
    return write_world(folder, rows, program(*urls, concurrency=IN_FLIGHT, timeout=10))


# --- what is claimed -------------------------------------------------------------------------


def whole(claims: Claims, kept: Kept, decisions: int) -> None:
    counts = kept.counts
    claims.say(
        sum(counts.values()) == decisions == len(kept.judged),
        "every decision is there once",
        ", ".join(f"{n:,} {status}" for status, n in counts.most_common()),
    )
    odd = [
        j
        for j in kept.recorded.judgements
        if (j.decision.choice is None) == (j.decision.status in ("ok", "tied"))
        or (j.decision.choice is None and not j.decision.failures)
    ]
    claims.say(not odd, "ok with a choice, or failed with a reason", f"{len(odd)} otherwise")


def accounted(claims: Claims, kept: Kept, sent: dict[str, list[str]]) -> None:
    """Every request is an answer's, and every answer is what the server did last."""
    requests = sum(map(len, sent.values()))
    claims.say(requests == kept.calls, "requests = calls kept", f"{requests:,} and {kept.calls:,}")
    twice = [s for s in sent.values() if s.count(RIGHT) > 1 or RIGHT in s[:-1]]
    claims.say(not twice, "nobody was asked after a right answer", f"{len(twice)} were")
    wrong = differences(sent, kept.answers.values())
    claims.say(not wrong, "each job is kept as it went on the wire", f"{len(wrong)} are not")
    for line in wrong[:5]:
        print(f"         {line}")
    silent = [
        a
        for a in kept.answers.values()
        if a.failure and not any(m.said in a.failure.message for m in MISHAPS.values())
    ]
    claims.say(not silent, "each failure says what happened", f"{len(silent)} do not")


def agree(claims: Claims, clean: Kept, other: Kept, what: str) -> None:
    """Decisions that came in both are the same, to their ratings; so is the table over them."""
    both = [
        key
        for key, j in clean.judged.items()
        if j.decision.choice is not None and other.judged[key].decision.choice is not None
    ]
    differ = [k for k in both if _substance(clean.judged[k]) != _substance(other.judged[k])]
    claims.say(
        not differ, f"{what}: decisions that came in both agree", f"{len(differ)} of {len(both):,}"
    )
    tables = [_table(kept, [kept.judged[k] for k in both]) for kept in (clean, other)]
    equal = tables[0] == tables[1]
    means = ", ".join(
        f"{r.decider} {100 * r.value:.2f}" for r in tables[0] if r.target == "both" and r.value
    )
    claims.say(equal, f"{what}: so the table over these is the same", means)


def _substance(j: Judgement) -> tuple[Any, ...]:
    d = j.decision
    return d.choice, d.status, d.weights, d.ratings, d.votes, j.correct


def _table(kept: Kept, judged: Sequence[Judgement]) -> tuple[Any, ...]:
    by_id = {c.scenario.id: c for c in kept.recorded.cases}
    return results(judged, by_id, kept.recorded.record.targets)


def flat(claims: Claims, ran: Ran, kept: Kept, what: str) -> None:
    """What is in memory grows by the answers, which are kept until the table is made."""
    total = max((m.requests for m in ran.memory), default=0)
    quarters = [
        [m.megabytes for m in ran.memory if low * total < m.requests <= high * total]
        for low, high in ((0.02, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1))
    ]
    if not all(quarters):
        print(f"  ?      {what}: memory was not told, or the run was too short to look at")
        return
    means = [statistics.mean(q) for q in quarters]
    half = 0.5 * len(kept.answers) * _weight(list(kept.answers.values())) / 1e6
    shown = ", ".join(f"{m:.0f}" for m in means)
    claims.say(
        means[3] - means[1] < 1.5 * half + 4,
        f"{what}: memory is flat but for answers",
        f"{shown} MB in the quarters of the run; half of the answers weigh {half:.0f} MB",
    )


def _weight(answers: Sequence[Answer]) -> float:
    """Bytes that an answer takes as it lies in memory."""
    some = [a.model_dump_json() for a in answers[:1000]]
    tracemalloc.start()
    alive = [Answer.model_validate_json(said) for said in some]
    bytes_, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return bytes_ / len(alive)


# --- the runs --------------------------------------------------------------------------------


def main() -> None:
    wishes = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    wishes.add_argument("--decisions", type=int, default=10_000)
    wishes.add_argument("--rate", type=float, default=0.15)
    wishes.add_argument("--seed", type=int, default=0)
    wishes.add_argument("--kills", type=int, default=3)
    wishes.add_argument("--two", action="store_true", help="that with two servers alone")
    given = wishes.parse_args()
    claims, cases = Claims(), -(-given.decisions // PER_CASE)
    decisions = cases * PER_CASE
    ill = {"rate": given.rate, "seed": given.seed, "loading": 1.0}
    with tempfile.TemporaryDirectory() as base, Server() as server:
        folder = Path(base)
        path = world(folder, cases, server.url)

        server.begin()
        ran = run(server, path, folder / "clean.db")
        clean = Kept.of(folder / "clean.db")
        heading("clean", ran, server)
        whole(claims, clean, decisions)
        accounted(claims, clean, server.sent())
        flat(claims, ran, clean, "clean")
        calm = ran
        two(claims, server, folder / "two", clean, cases, ill)
        if given.two:
            done(claims)

        server.begin(**ill)
        ran = run(server, path, folder / "ill.db")
        kept = Kept.of(folder / "ill.db")
        heading("faulty", ran, server)
        sent = server.sent()
        mishaps = Counter(w for tries in sent.values() for w in tries if w != RIGHT)
        print("  sent:", ", ".join(f"{n} x {what}" for what, n in mishaps.most_common()))
        whole(claims, kept, decisions)
        accounted(claims, kept, sent)
        agree(claims, clean, kept, "faulty")
        flat(claims, ran, kept, "faulty")
        peaks = [max((s.megabytes for s in r.memory), default=0) for r in (calm, ran)]
        claims.say(
            peaks[1] < 1.1 * peaks[0] + 4,
            "faults take no memory",
            f"at most {peaks[1]:.0f} MB, {peaks[0]:.0f} MB in the clean run",
        )

        failed = sum(not a.ok for a in kept.answers.values())
        server.begin()
        ran = run(server, path, folder / "ill.db", "--retry-failed")
        healed = Kept.of(folder / "ill.db")
        heading("healed", ran, server)
        asked = server.requests()
        claims.say(asked == failed, "only what failed is asked again", f"{asked:,} of {failed:,}")
        whole(claims, healed, decisions)
        same = healed.recorded.record.results == clean.recorded.record.results
        claims.say(
            _numbers(healed) == _numbers(clean),
            "the whole table is that of the clean run",
            "but for calls and tokens" if not same else "to the last cell",
        )

        killed(claims, server, path, folder / "killed.db", ill, given.kills, len(clean.answers))
        agree(claims, clean, Kept.of(folder / "killed.db"), "killed")
        crashed(claims, server, path, folder / "crashed.db", decisions, len(clean.answers))
    done(claims)


def done(claims: Claims) -> NoReturn:
    print(f"\n{claims.broken} claims do not hold" if claims.broken else "\nall claims hold")
    raise SystemExit(1 if claims.broken else 0)


def heading(name: str, ran: Ran, server: Server) -> None:
    print(
        f"\n{name}: {server.requests():,} requests in {ran.asking:.1f} s,"
        f" {ran.seconds:.1f} s in all; exit {ran.code}",
        flush=True,
    )
    if ran.code not in (0, -9):
        print(ran.said)


def _numbers(kept: Kept) -> list[Any]:
    found = kept.recorded.record.results
    return [r.model_copy(update={"calls": 0, "tokens": 0}) for r in found]


def _requests(sent: dict[str, list[str]]) -> Counter[str]:
    """By the seed of the job."""
    found: Counter[str] = Counter()
    for question, tries in sent.items():
        found[question.partition(" ")[0]] += len(tries)
    return found


def killed(
    claims: Claims,
    server: Server,
    path: Path,
    store: Path,
    ill: dict[str, Any],
    kills: int,
    jobs: int,
) -> None:
    server.begin(**ill)
    settled: dict[str, int] = {}  # seeds of jobs that were answered by a kill: their requests
    for _ in range(kills):
        run(server, path, store, kill_at=jobs // (kills + 1))
        with Store.open(store) as opened, opened._database.reading() as db:
            rows = db.execute("SELECT key FROM answers WHERE status = 'ok'").fetchall()
        had = _requests(server.sent())
        for (key,) in rows:
            seed = str(int(key[:7], 16))
            settled.setdefault(seed, had[seed])
    ran = run(server, path, store)
    heading(f"killed {kills} times", ran, server)
    kept, sent = Kept.of(store), server.sent()
    had = _requests(sent)
    again = [seed for seed, n in settled.items() if had[seed] > n]
    claims.say(
        not again,
        "nothing that was answered before a kill is asked again",
        f"{len(again)} of {len(settled):,}",
    )
    claims.say(len(kept.answers) == jobs, "every job is answered", f"{len(kept.answers):,}")
    twice = sum(max(0, tries.count(RIGHT) - 1) for tries in sent.values())
    claims.say(
        twice <= kills * 2 * IN_FLIGHT,
        "paid twice is only what a kill found on its way",
        f"{twice} right answers in {kills} kills with {IN_FLIGHT} in flight",
    )
    lost = [a for a in kept.answers.values() if a.failure and a.failure.status == "unreachable"]
    print(f"  unreachable in the end: {len(lost)}")


def crashed(
    claims: Claims, server: Server, path: Path, store: Path, decisions: int, jobs: int
) -> None:
    """The server goes away for five seconds in the middle, as one that is restarted does."""
    server.begin(delay=0.02)
    down = threading.Thread(target=_away, args=(server, jobs // 2), daemon=True)
    down.start()
    ran = run(server, path, store)
    down.join()
    heading("crashed", ran, server)
    kept = Kept.of(store)
    whole(claims, kept, decisions)
    failed = sum(not a.ok for a in kept.answers.values())
    claims.say(failed == 0, "a server that is loading is waited for", f"{failed:,} jobs failed")


def two(
    claims: Claims, faulty: Server, folder: Path, clean: Kept, cases: int, ill: dict[str, Any]
) -> None:
    """Two servers of one model: the one often goes wrong, the other is killed and comes back."""
    with Server() as other:
        faulty.begin(**ill)
        other.begin(delay=0.02)
        path = world(folder, cases, faulty.url, other.url)
        seen = [0]
        dying = threading.Thread(
            target=_dies, args=(other, len(clean.answers) // 4, seen), daemon=True
        )
        dying.start()
        ran = run(faulty, path, folder / "two.db")
        dying.join()
        heading("two", ran, faulty)
        kept, back = Kept.of(folder / "two.db"), other.requests()
        claims.say(ran.code == 0, "it comes to its end", f"exit {ran.code}")
        whole(claims, kept, cases * PER_CASE)
        agree(claims, clean, kept, "two")
        claims.say(back > 0, "who comes back is asked again", f"{seen[0]:,} before, {back:,} after")
        gone = sum("cannot be reached" in a.failure.message for a in failures(kept) if a.failure)
        claims.say(gone == 0, "no job fails for the one that was away", f"{gone} do")
        sent = faulty.requests() + seen[0] + back
        print(f"  requests {sent:,} and what was on its way to the dead; calls kept {kept.calls:,}")


def failures(kept: Kept) -> list[Answer]:
    return [a for a in kept.answers.values() if not a.ok]


def _dies(server: Server, after: int, seen: list[int]) -> None:
    while (had := server.requests()) < after:
        time.sleep(0.05)
    seen[0] = had
    server.die(5.0)
    server.begin(delay=0.02)


def _away(server: Server, after: int) -> None:
    while server.requests() < after:
        time.sleep(0.05)
    server.tell(change={"loading": 5.0, "_since": time.monotonic()})


if __name__ == "__main__":
    main()
