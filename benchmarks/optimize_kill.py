"""What is left of a study whose workers are killed with -9, again and again?

A server in this process answers; four workers optimize against it. Twenty times, at a random
moment, one worker is killed, or all of them and their parent, and the command is given again. In
the end every trial must be there once, the result must be that of one worker left alone, and no
answer that had come back may have been asked for again.

    python benchmarks/optimize_kill.py [kills]
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from align_dsl.optimize.studies import studies  # noqa: E402
from align_dsl.optimize.study import Study  # noqa: E402
from align_dsl.records.store import Store  # noqa: E402
from tests.servers.recorder import Asked, Recorder, Reply  # noqa: E402
from tests.worlds import cases, write_world  # noqa: E402

PROGRAM = """version: 1
program: small
about: A small program to be killed.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.6, test: 0.4}}
targets: {each: [low, high]}
deciders:
  mine: {use: comparative_regression}
model: here
models:
  here: {use: hosted_vllm/nobody, endpoint: URL/v1, concurrency: 4, context: 100000}
optimize:
  decider: mine
  trials: 40
  space: {shots: {low: 0, high: 12}, select: [similar, stratified, random], order: [shuffle, both]}
"""


def answer(asked: Asked) -> Reply:
    """Ratings drawn from the prompt: the same prompt, the same answer."""
    ratings = asked.schema["properties"]["ratings"]["properties"]
    dice = random.Random(hashlib.sha256(asked.body).digest())
    said = {"because": "so", "ratings": {letter: dice.randrange(11) for letter in ratings}}
    return Reply(json.dumps(said), delay=0.03)


def begin(folder: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "align_dsl", "optimize", "programs/small.yaml"]
    with (folder / "said.txt").open("ab") as out:
        return subprocess.Popen(
            [*command, "--workers", str(workers)],
            cwd=folder,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def members(group: int) -> list[int]:
    """The processes of a session that run Python workers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != group:
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] != "Z" and b"spawn_main" in line:
                found.append(int(entry.name))
    return found


def trials(folder: Path) -> dict[tuple[int, int], tuple[str, str]]:
    where = folder / ".align" / "study.log"
    ((name, _),) = studies(where)
    return {
        d.slot: (json.dumps(d.config, sort_keys=True), d.sat.marks)
        for d in Study(where, name).done()
    }


def world(folder: Path, url: str) -> Path:
    folder.mkdir()
    write_world(folder, cases(40), PROGRAM.replace("URL", url))
    return folder


def main(kills: int = 20) -> None:
    dice = random.Random(0)
    with tempfile.TemporaryDirectory() as base, Recorder(answer) as server:
        quiet = world(Path(base) / "quiet", server.url)
        assert begin(quiet, 1).wait() == 0, (quiet / "said.txt").read_text()
        alone, wanted = len(server.asked), trials(quiet)
        server.asked.clear()

        torn = world(Path(base) / "torn", server.url)
        done, ended = 0, False
        running = begin(torn, 4)
        while done < kills and not ended:
            before = len(server.asked)
            # until it is at work, and a while longer
            while len(server.asked) < before + 5 and running.poll() is None:
                time.sleep(0.02)
            time.sleep(dice.uniform(0, 0.6))
            ended = running.poll() is not None
            if ended:
                break
            workers = members(running.pid)
            if done % 2 and workers:
                os.kill(dice.choice(workers), signal.SIGKILL)
            else:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                running = begin(torn, 4)
            done += 1
            print(f"kill {done}: {len(server.asked):,} requests so far", flush=True)
        running.wait()
        code = begin(torn, 4).wait() if running.returncode else running.returncode
        found = trials(torn)
        with Store.open(torn / ".align" / "align.db") as store, store._database.reading() as db:
            (kept,) = db.execute("SELECT count(*) FROM answers").fetchone()
        asked = len(server.asked)
        print(f"killed {done} times; exit {code}")
        print(f"trials: {len(found)} of {len(wanted)}; the same as undisturbed: {found == wanted}")
        print(f"requests: {alone:,} undisturbed, {asked:,} now; answers kept {kept:,}")
        print(f"asked again, lost in flight: {asked - kept:,} (connections cut: {server.lost:,})")
        last = [p.read_text().splitlines()[-1] for p in (quiet / "said.txt", torn / "said.txt")]
        print(*last, sep="\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
