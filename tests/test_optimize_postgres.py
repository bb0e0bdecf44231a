"""Several machines on one study: a real PostgreSQL, started here and thrown away."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest

from align_dsl.engine.execute import Stop
from align_dsl.errors import StoreError
from align_dsl.optimize import study as studies
from align_dsl.optimize.journal import open_storage
from align_dsl.optimize.run import begin, optimize, search_of
from align_dsl.optimize.space import written
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task, ready
from align_dsl.records.store import Store
from tests.test_optimize_study import WIDE, trials_of, world

DRIVERS = {"psycopg": "psycopg", "psycopg2": "psycopg2", "pg8000": "pg8000"}


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    where = [Path(found).resolve().parent] if found else []
    where += [Path(p).parent for p in sorted(glob("/usr/lib/postgresql/*/bin/initdb"))]
    return where[-1] if where else None


def _as_somebody() -> dict[str, int]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    try:
        who = pwd.getpwnam("postgres")
    except KeyError:
        who = pwd.getpwnam("nobody")
    return {"user": who.pw_uid, "group": who.pw_gid}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    binaries = _binaries()
    driver = next((d for d in DRIVERS if importlib.util.find_spec(d)), None)
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    if driver is None:
        pytest.skip("no driver for PostgreSQL is installed (pip install pg8000)")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    who = _as_somebody()
    if who:
        os.chown(folder, who["user"], who["group"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "me", "-A", "trust", "--no-sync"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/tmp",
        **who,  # type: ignore[call-overload]
    )
    assert made.returncode == 0, made.stderr
    words = [binaries / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder, "-F"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, cwd="/tmp", **who)  # type: ignore[call-overload]
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        time.sleep(0.5)  # it listens before it answers
        yield f"postgresql+{DRIVERS[driver]}://me@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for clients
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def test_two_machines_come_to_what_one_comes_to(url: str, tmp_path: Path) -> None:
    """Each with a store of its own, at work at the same time."""
    alone = tmp_path / "alone"
    path = world(alone, WIDE)
    optimize(Task(path, store=alone / ".align" / "align.db"))
    task = Task(path, store=tmp_path / "here" / ".align" / "align.db", storage=url, workers=2)
    outcome = optimize(task)
    found = [(d.slot, written(d.config), d.sat.marks, d.score, d.pruned) for d in outcome.done]
    assert found == trials_of(alone)


def test_who_is_silent_for_long_counts_as_dead(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / ".align" / "align.db"
    program = WIDE.replace("trials: 14", "trials: 14, seed: 5")
    with Store.open(store) as opened:
        made = ready(Task(world(tmp_path, program), store=store, storage=url), opened)
        study = Study(url, made.study)
        begin(made, study)
        search = search_of(made, study, Stop())
        search._prepare()
        assert study.claim() is not None
        assert study.fail_stale() == 0
        monkeypatch.setattr(studies, "STALE", 0.0)
        time.sleep(0.05)
        assert study.fail_stale() == 1
        monkeypatch.undo()
        search.work()
        assert len(study.done()) == 14
        study.close()
        made.close()


def test_a_database_that_is_not_there(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        open_storage(url.rpartition("/")[0] + "/nowhere")
