"""Several machines on one study: a real PostgreSQL, started here and thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import pg8000.dbapi
import pytest

from align_dsl.engine.execute import Stop
from align_dsl.errors import StoreError
from align_dsl.optimize import claimant
from align_dsl.optimize.done import Done
from align_dsl.optimize.journal import open_storage
from align_dsl.optimize.run import begin, optimize
from align_dsl.optimize.space import written
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task, ready
from align_dsl.optimize.workers import search_of
from align_dsl.records.store import Store
from tests.test_optimize_study import CLI, WIDE, trials_of, world
from tests.test_optimize_workers import killed_in_a_trial


def _binaries() -> Path | None:
    """Where Debian puts them, which is not on the PATH; or wherever `initdb` is."""
    found = shutil.which("initdb")
    where = [Path(found).resolve().parent] if found else []
    where += sorted(Path(p).parent for p in glob("/usr/lib/postgresql/*/bin/initdb"))
    return next((w for w in reversed(where) if (w / "pg_ctl").exists()), None)


def _somebody() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    try:
        who = pwd.getpwnam("postgres")
    except KeyError:
        who = pwd.getpwnam("nobody")
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def _run(command: list[object], who: dict[str, object]) -> None:
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in command],
        stdout=subprocess.DEVNULL,  # the server keeps what it is given
        stderr=subprocess.DEVNULL,
        check=False,
        cwd="/",
        **who,
    )
    assert done.returncode == 0, f"{command[0]} failed"


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of our own; `control` starts and stops it."""

    port: int
    control: Callable[..., None]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that knows no database of ours yet."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: neither initdb nor /usr/lib/postgresql/*/bin")
    who = _somebody()
    folder = Path(tempfile.mkdtemp(prefix="align-pg-"))
    data = folder / "data"
    if who:
        os.chown(folder, int(str(who["user"])), int(str(who["group"])))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"-p {port} -F -c listen_addresses=127.0.0.1 -c unix_socket_directories="

    def control(*words: str) -> None:
        started = ["-l", folder / "log", "-o", settings] if words == ("start",) else []
        _run([binaries / "pg_ctl", "-D", data, "-w", *started, *words], who)

    try:
        _run([binaries / "initdb", "-D", data, "-U", "me", "-A", "trust", "--no-sync"], who)
        control("start")
        yield Server(port, control)
        control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """An empty database."""
    name = f"of_{abs(hash(request.node.name))}"
    made = pg8000.dbapi.connect(user="me", host="127.0.0.1", port=server.port, database="postgres")
    made.autocommit = True
    made.cursor().execute(f"CREATE DATABASE {name}")
    made.close()
    return f"postgresql+pg8000://me@127.0.0.1:{server.port}/{name}"


def plain(done: tuple[Done, ...]) -> list[tuple[object, ...]]:
    return [(d.slot, written(d.config), d.sat.marks, d.score, d.pruned) for d in done]


def alone(folder: Path, program: str) -> tuple[str, list[tuple[object, ...]]]:
    """What a single process comes to without a database: the study's name, and its trials."""
    outcome = optimize(Task(world(folder, program), store=folder / ".align" / "align.db"))
    return outcome.study, trials_of(folder)


def test_two_machines_at_once_come_to_what_one_comes_to(url: str, tmp_path: Path) -> None:
    """Each has a folder and a store of its own."""
    name, wanted = alone(tmp_path / "alone", WIDE)
    machines = []
    for machine in ("one", "two"):
        world(tmp_path / machine, WIDE)
        command = [*CLI, "optimize", "programs/small.yaml", "--storage", url]
        machines.append(
            subprocess.Popen(
                command, cwd=tmp_path / machine, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    for process in machines:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    with Study(url, name) as study:
        assert plain(tuple(study.done())) == wanted
    stores = [tmp_path / machine / ".align" / "align.db" for machine in ("one", "two")]
    assert all(store.exists() for store in stores)


def test_what_a_machine_that_died_was_at_is_tried_by_another(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in the middle of a trial. From elsewhere, only its silence tells."""
    name, wanted = alone(tmp_path / "alone", WIDE)
    there, here = (world(tmp_path / where, WIDE) for where in ("there", "here"))
    command = [*CLI, "optimize", "programs/small.yaml", "--storage", url]
    process = subprocess.Popen(
        command, cwd=there.parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with Study(url, name) as study:
        lost = killed_in_a_trial(study, process.pid, after=2)
        process.wait()
        monkeypatch.setattr(claimant, "_host", lambda: "elsewhere")
        monkeypatch.setattr(claimant, "STALE", 1.0)
        outcome = optimize(Task(here, store=here.parents[1] / ".align" / "align.db", storage=url))
        assert plain(outcome.done) == wanted
        trials = study.trials()
    (dead,) = [t for t in trials if t.number == lost]
    assert (dead.state.name, dead.user_attrs["given_back"]) == ("FAIL", "its worker died")
    again = [t for t in trials if t.user_attrs["slot"] == dead.user_attrs["slot"]]
    assert [t.state.name for t in again] == ["FAIL", "COMPLETE"]
    assert again[1].user_attrs["worker"]["host"] == "elsewhere"


def test_on_one_machine_nobody_waits_for_silence(url: str, tmp_path: Path) -> None:
    """The system tells at once that a process is gone, whatever the study is kept in."""
    name, wanted = alone(tmp_path / "alone", WIDE)
    path = world(tmp_path / "here", WIDE)
    command = [*CLI, "optimize", "programs/small.yaml", "--storage", url]
    process = subprocess.Popen(
        command, cwd=path.parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with Study(url, name) as study:
        killed_in_a_trial(study, process.pid)
        process.wait()
        assert study.fail_stale() == 1
        assert claimant.STALE > 60  # or nothing would be shown
        store = path.parents[1] / ".align" / "align.db"
        assert plain(optimize(Task(path, store=store, storage=url)).done) == wanted


def test_who_gives_signs_of_life_is_left_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world(tmp_path, WIDE)
    store = tmp_path / ".align" / "align.db"
    with Store.open(store) as opened:
        made = ready(Task(path, store=store, storage=url), opened)
        study = Study(url, made.study)
        begin(made, study)
        search_of(made, study, Stop())._prepare()
        trial = study.claim()
        assert trial is not None
        now = time.time()
        for seconds, beats, stale in (
            (100, False, 0),
            (100, True, 0),
            (200, False, 0),
            (230, False, 1),
        ):
            monkeypatch.setattr(claimant.time, "time", lambda at=now + seconds: at)
            if beats:
                study.alive(trial)
            with monkeypatch.context() as other:
                other.setattr(claimant, "_host", lambda: "elsewhere")
                assert study.fail_stale() == stale
        monkeypatch.undo()
        study.close()
        made.close()


def test_a_database_that_goes_away_and_comes_back(server: Server, url: str, tmp_path: Path) -> None:
    """It says so in a few words, and the same command goes on."""
    name, wanted = alone(tmp_path / "alone", WIDE)
    path = world(tmp_path / "here", WIDE)
    command = [*CLI, "optimize", "programs/small.yaml", "--storage", url]
    with subprocess.Popen(
        command, cwd=path.parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        with Study(url, name) as study:
            end = time.monotonic() + 60
            while len(study.done()) < 2 and time.monotonic() < end:
                time.sleep(0.01)
        server.control("-m", "immediate", "stop")
        _, said = process.communicate()
    server.control("start")
    assert process.returncode == 6, said
    assert "error: the storage can no longer be reached: " in said
    assert "Traceback" not in said
    store = path.parents[1] / ".align" / "align.db"
    assert plain(optimize(Task(path, store=store, storage=url)).done) == wanted


def test_a_database_that_is_not_there(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        open_storage(url.rpartition("/")[0] + "/nowhere")
