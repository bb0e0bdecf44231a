"""The store: nothing that was kept is lost, whatever happens to process, file or disk."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_dsl.errors import PlanError, StoreError
from align_dsl.records import migrations
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
from align_dsl.types import Failure
from tests.records.build import PROGRAM, V1_ANSWERS, V1_RUN, case, judgement, keep, record, recorded

V1 = Path(__file__).parent / "records" / "v1" / "align.db"


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".align" / "align.db"


@pytest.fixture
def store(path):
    with Store.open(path) as opened:
        yield opened


def ok(key, **said):
    return Answer(key=key, output={"A": 1.0}, **said)


def failed(key, status="timeout"):
    return Answer(key=key, failure=Failure(status=status, message="no"))


# --- answers ---


def test_answers_come_back_as_they_were(store):
    store.put([ok("a", raw="text"), failed("b")])
    assert store.known(["a", "b", "c"]) == {"a": ok("a", raw="text"), "b": failed("b")}


def test_an_ok_answer_stays_and_a_failure_gives_way(store):
    store.put([ok("a"), failed("b"), failed("c")])
    store.put([failed("a"), failed("b", "refused"), ok("c")])
    store.put([ok("a", raw="later")])
    assert store.known("abc") == {"a": ok("a"), "b": failed("b", "refused"), "c": ok("c")}


def test_failures_are_forgotten_and_only_they(store):
    store.put([ok("a"), failed("b"), failed("c")])
    store.forget_failures(["a", "b"])
    assert set(store.known("abc")) == {"a", "c"}


def test_many_keys(store):
    keys = [f"{i:024x}" for i in range(5_000)]
    store.put([ok(k) for k in keys])
    assert set(store.known(iter([*keys, "unknown"]))) == set(keys)


ODD = [
    "\0",
    "a\0b",
    "\ud800",
    "x\udfffy",
    "\u202eevil\u202c",
    "\U0001f468\u200d\U0001f469",
    "x" * 10**6,
]
texts = st.one_of(st.sampled_from(ODD), st.text(st.characters(codec=None, exclude_categories=())))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
often = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@often
@given(raw=texts, output=plain, message=texts)
def test_any_text_survives_in_an_answer(store, raw, output, message):
    answers = [
        Answer(key="a", output=output, raw=raw, notes={"n": output}),
        Answer(key="b", failure=Failure(status="invalid", message=message, raw=raw)),
    ]
    store.forget_failures(["b"])
    with store._database.writing() as db:
        db.execute("DELETE FROM answers")
    store.put(answers)
    assert list(store.known("ab").values()) == answers


@often
@given(text=texts)
def test_any_text_survives_in_a_run(store, text):
    odd = case(1, text=text).model_copy(update={"group": text})
    judged = judgement(1, decider=text, model=text, why=text)
    run = recorded([judged], [odd], source=text, selection={"only": [text]})
    keep(store, run)
    assert store.load(run.record.id) == run
    assert store.judgements(run.record.id, decider=text, model=text) == [judged]
    store.remove(run.record.id)


def test_numbers_that_are_none(store):
    store.put([Answer(key="a", output=[float("inf"), -0.0, 10**30, 0.1 + 0.2])])
    assert store.known("a")["a"].output == [float("inf"), -0.0, 10**30, 0.1 + 0.2]
    store.put([Answer(key="b", output=float("nan"))])
    assert str(store.known("b")["b"].output) == "nan"


# --- claims ---


def test_a_key_is_claimed_once(store):
    store.put([ok("known"), failed("failed")])
    assert store.claim(["known", "failed", "new"], "me", 60) == {"new"}
    assert store.claim(["failed", "new", "newer"], "you", 60) == {"newer"}
    assert store.claim(["new"], "me", 60) == {"new"}  # asking again is no harm
    store.release("me")
    assert store.claim(["failed", "new"], "you", 60) == {"new"}


def test_what_failed_is_asked_again_by_nobody_who_was_not_told_to(store):
    """Not even by a run that had wanted it before it failed in another."""
    store.claim(["k"], "other", 60)
    store.put([failed("k")])
    store.release("other")
    assert store.claim(["k"], "me", 60) == set()
    store.forget_failures(["k"])
    assert store.claim(["k"], "me", 60) == {"k"}


@pytest.mark.parametrize(("passed", "free"), [(59, False), (61, True), (-59, False), (-61, True)])
def test_a_dead_owner_s_claims_lapse_and_no_clock_jump_keeps_them(store, monkeypatch, passed, free):
    monkeypatch.setattr("align_dsl.records.store.time", lambda: 1e9)
    store.claim(["k"], "dead", 60)
    monkeypatch.setattr("align_dsl.records.store.time", lambda: 1e9 + passed)
    assert store.claim(["k"], "me", 60) == ({"k"} if free else set())


def test_renewed_claims_hold_but_for_what_was_taken(store, monkeypatch):
    monkeypatch.setattr("align_dsl.records.store.time", lambda: 0.0)
    store.claim(["j", "k"], "slow", 60)
    monkeypatch.setattr("align_dsl.records.store.time", lambda: 100.0)
    assert store.claim(["k"], "me", 60) == {"k"}
    store.renew("slow", 60)
    assert store.claim(["j"], "me", 60) == set()
    assert store.claim(["k"], "slow", 60) == set()
    store.renew("never claimed", 60)


CLAIMER = """
import sys, time
from pathlib import Path
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
owner, keys = sys.argv[2], [f"{i:024x}" for i in range(2000)]
done = 0
with Store.open(Path(sys.argv[1])) as store:
    while len(known := store.known(keys)) < len(keys):
        left = [k for k in keys if k not in known]
        for i in range(0, len(left), 50):
            won = store.claim(left[i : i + 50], owner, 60)
            store.put([Answer(key=k, output=owner) for k in won])
            done += len(won)
    store.release(owner)
print(done)
"""


def test_four_processes_answer_each_key_once(path):
    command = [sys.executable, "-c", CLAIMER, str(path)]
    running = [
        subprocess.Popen([*command, f"o{i}"], stdout=subprocess.PIPE, text=True) for i in range(4)
    ]
    counts = [int(p.communicate(timeout=120)[0]) for p in running]
    assert all(p.returncode == 0 for p in running)
    assert sum(counts) == 2000
    with Store.open(path) as store, store._database.reading() as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (2000,)
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM owners").fetchone() == (0,)


def test_threads_share_a_store(store):
    def work(i):
        store.put([ok(f"{i}-{j}") for j in range(20)])
        return len(store.known(f"{i}-{j}" for j in range(20)))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(50))) == [20] * 50


# --- runs ---


def test_a_run_comes_back_whole(store):
    run = recorded([judgement(1), judgement(2, correct=False), judgement(3, correct=None)])
    keep(store, run)
    assert store.load(run.record.id) == run
    assert store.load("last", judgements=False) == run.model_copy(update={"judgements": ()})
    assert store.record(run.record.id) == run.record
    assert store.record("mta") is None


def test_starting_again_goes_on_and_keeps_the_date(store):
    first = record(status="running", created="2025-01-01T00:00:00+00:00")
    again = record(status="running", created="2025-02-02T00:00:00+00:00")
    store.start(first, PROGRAM, [case(1)])
    assert store.start(again, PROGRAM, [case(1)]) == first
    stopped = store.finish(record(status="interrupted"), [judgement(1)])
    assert stopped.created == first.created
    assert store.start(again, PROGRAM, [case(1)]).status == "running"
    done = store.finish(record(), [judgement(1), judgement(1, target="desert_low")])
    assert done.status == "ok"
    assert len(store.judgements(done.id)) == 2
    assert len(store.load(done.id).cases) == 1


def test_a_run_that_ended_well_does_not_change_unless_told(store):
    run = recorded([judgement(1)])
    keep(store, run)
    other = run.record.model_copy(update={"jobs": 99})
    assert store.start(other, PROGRAM, []) == run.record
    assert store.finish(other, []) == run.record
    assert store.load("last") == run
    assert store.finish(other, [judgement(1, correct=False)], replace=True) == other
    assert store.load("last").judgements == (judgement(1, correct=False),)


def test_finishing_a_run_that_was_removed(store):
    with pytest.raises(StoreError, match="removed"):
        store.finish(record(), [])


def test_runs_are_found(store):
    for i, name in enumerate(("mta-aaa", "mta-abb", "opinions-ccc")):
        store.start(record(name, f"2025-01-0{i + 1}T00:00:00+00:00"), PROGRAM, [])
    assert [r.id for r in store.runs()] == ["opinions-ccc", "mta-abb", "mta-aaa"]
    assert store.find("last").id == "opinions-ccc"
    assert store.find("mta-ab").id == "mta-abb"
    assert store.find("mta-aaa").id == "mta-aaa"
    for asked, said in [
        ("mta", "may be any of these runs: mta-abb, mta-aaa"),
        ("mta-aab", "did you mean `mta-a"),
        ("%", "no run `%`"),
        ("", "no run ``"),
        ("\ud800\0", "no run"),
    ]:
        with pytest.raises(PlanError, match=said):
            store.load(asked)


def test_an_empty_store_has_no_last_run(store):
    assert store.runs() == []
    with pytest.raises(PlanError, match="no run `last`\n  = there are none"):
        store.load("last")


def test_cases_are_kept_once_and_go_with_the_last_run(store):
    def cases():
        with store._database.reading() as db:
            return db.execute("SELECT count(*) FROM cases").fetchone()[0]

    keep(store, recorded([judgement(i) for i in range(5)], id="one"))
    keep(store, recorded([judgement(i) for i in range(3, 8)], id="two"))
    assert cases() == 8
    store.remove("one")
    assert cases() == 5
    assert store.load("two").judgements == tuple(judgement(i) for i in range(3, 8))
    store.remove("two")
    assert cases() == 0
    assert store.runs() == []


def test_a_case_may_stand_in_a_run_twice(store):
    run = recorded([judgement(1)], [case(1), case(1)])
    keep(store, run)
    assert store.load("last") == run
    store.remove("last")


def test_a_hundred_thousand_decisions_are_written_and_paged(store):
    judged = [
        judgement(i // 8, decider=f"d{i % 4}", target=("desert_low", "desert_high")[i // 4 % 2])
        for i in range(100_000)
    ]
    store.start(record(status="running"), PROGRAM, [])
    store.finish(record(), judged)
    began = time.monotonic()
    assert store.judgements("last", limit=3) == judged[:3]
    assert store.judgements("last", offset=99_998, limit=50) == judged[99_998:]
    some = [j for j in judged if j.decision.decider == "d1" and j.target == "desert_low"]
    asked = {"decider": "d1", "target": "desert_low"}
    assert store.judgements("last", **asked, offset=12_000, limit=9) == some[12_000:12_009]
    assert len(store.judgements("last", scenario="s77")) == 8
    assert store.judgements("last", status="timeout") == []
    assert time.monotonic() - began < 5


def test_judgements_are_filtered(store):
    rows = [judgement(1), judgement(2, correct=False), judgement(3, correct=None)]
    rows.append(judgement(1, control=True))
    keep(store, recorded(rows))
    assert store.judgements("last", correct=False) == rows[1:2]
    assert store.judgements("last", status="timeout") == rows[2:3]
    assert store.judgements("last", control=False) == rows[:3]
    assert store.judgements("last", control=True, target="desert_high") == rows[3:]


# --- versions ---


def test_version_1_opens_for_ever(tmp_path):
    copy = tmp_path / "align.db"
    shutil.copy(V1, copy)
    with Store.open(copy) as store:
        assert store.load("mta") == V1_RUN
        assert list(store.known(["k1", "k2"]).values()) == V1_ANSWERS
        assert store.claim(["k3"], "me", 60) == {"k3"}
        with store._database.reading() as db:
            assert migrations.version_of(db) == len(migrations.MIGRATIONS)


def test_migrations_run_once_and_all_or_nothing(tmp_path, monkeypatch):
    copy = tmp_path / "align.db"
    shutil.copy(V1, copy)

    def m002(db):
        db.execute("CREATE TABLE added (x)")
        if broken:
            raise sqlite3.OperationalError("torn")

    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m002])
    broken = True
    with pytest.raises(StoreError, match="torn"):
        Store.open(copy)
    broken = False
    for _ in range(2):
        with Store.open(copy) as store, store._database.reading() as db:
            assert migrations.version_of(db) == 2
            assert db.execute("SELECT * FROM added").fetchall() == []


def test_a_newer_version_is_refused(path):
    Store.open(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 77")
    db.close()
    with pytest.raises(StoreError, match=r"version 77.*up to 1"):
        Store.open(path)


def test_another_program_s_database_is_left_alone(path):
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE precious (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store.open(path)
    assert path.read_bytes() == before


# --- accidents ---

WRITER = """
import sys
from pathlib import Path
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
with Store.open(Path(sys.argv[1])) as store:
    n = 0
    while True:
        store.put([Answer(key=f"{sys.argv[2]}-{n + i}", raw="x" * 500) for i in range(7)])
        n += 7
        print(n, flush=True)
"""


def test_kill_9_loses_nothing_that_was_kept(path):
    kept = {}
    for round_ in range(20):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(round_)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        said = writer.stdout.readline()
        time.sleep(random.uniform(0, 0.1))
        writer.kill()
        said += writer.communicate(timeout=30)[0]
        kept[round_] = int(said[: said.rfind("\n")].splitlines()[-1])
        with Store.open(path) as store:
            wanted = [f"{r}-{i}" for r, n in kept.items() for i in range(n)]
            assert len(store.known(wanted)) == len(wanted)
    with Store.open(path) as store, store._database.reading() as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_run_killed_while_it_is_finished_is_whole_or_running(path):
    code = f"""
import os, sys, threading
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from tests.records.build import judgement, record
from align_dsl.records.store import Store
store = Store.open(Path(sys.argv[1]))
judged = [judgement(i) for i in range(3000)]
store.start(record(status="running"), {{}}, [])
print("ready", flush=True)
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), {signal.SIGKILL})).start()
while True:
    store.finish(record(), judged, replace=True)
"""
    for _ in range(4):
        wait = str(random.uniform(0.01, 0.3))
        subprocess.run([sys.executable, "-c", code, str(path), wait], capture_output=True)
        with Store.open(path) as store, store._database.reading() as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            whole = store.find("last").status == "ok"
            assert len(store.judgements("last")) == (3000 if whole else 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a database at all, but text that goes on for a while" * 50, "is no SQLite database"),
        (V1.read_bytes()[:20_000], "damaged"),
        (V1.read_bytes()[:50], "is no SQLite database|damaged"),
        (V1.read_bytes()[:4096] + b"\xff" * 8192 + V1.read_bytes()[12288:], "damaged"),
    ],
)
def test_a_torn_file_says_so(path, content, said):
    path.parent.mkdir()
    path.write_bytes(content)

    def read():
        with Store.open(path) as store:
            store.known(["k1"])
            store.load("last")

    with pytest.raises(StoreError, match=said) as caught:
        read()
    assert str(path) in str(caught.value)


def test_a_torn_body_says_so(path, store):
    keep(store, V1_RUN)
    with store._database.writing() as db:
        db.execute("UPDATE judgements SET body = x'00'")
    with pytest.raises(StoreError, match="holds a Judgement that is damaged"):
        store.load("last")
    assert store.find("last") == V1_RUN.record


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "align.db").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(tmp_path / "align.db")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(tmp_path / "file" / "align.db")


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 256 KB of our own, which only root may have."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("no mount of our own")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(store):
    """Writes until there is no room, and says how many answers were kept."""
    kept = itertools.count()

    def write():
        for i in kept:
            store.put([ok(f"{i}", raw=os.urandom(2000).hex())])

    with pytest.raises(StoreError, match="disk is full"):
        write()
    return next(kept) - 1


def test_a_full_disk_loses_nothing(tiny_disk):
    path = tiny_disk / "align.db"
    with Store.open(path) as store:
        kept = fill(store)
        assert kept > 5
        assert len(store.known(map(str, range(kept + 1)))) == kept
    with Store.open(path) as store:
        assert len(store.known(map(str, range(kept + 1)))) == kept


def test_a_database_that_may_not_grow_loses_nothing(store):
    with store._database.reading() as db:
        db.execute("PRAGMA max_page_count = 40")
    kept = fill(store)
    assert len(store.known(map(str, range(kept + 1)))) == kept


def test_a_folder_that_may_not_be_written(tmp_path):
    folder = tmp_path / "shut"
    folder.mkdir()
    if os.geteuid() == 0:  # whom no permission stops, but a read-only disk does
        mounts = [["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder]]
        if any(subprocess.run(mount).returncode for mount in mounts):
            pytest.skip("no mount of our own")
    else:
        folder.chmod(0o500)
    try:
        for path in (folder / "align.db", folder / ".align" / "align.db"):
            with pytest.raises(StoreError, match=r"cannot be (opened|written)"):
                Store.open(path)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.chmod(0o700)


def test_where_wal_cannot_work_the_old_journal_does(path, monkeypatch):
    monkeypatch.setattr("align_dsl.records.database._is_remote", lambda folder: True)
    with Store.open(path) as store:
        with store._database.reading() as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
            assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        keep(store, V1_RUN)
        assert store.load("last") == V1_RUN


def test_wal_and_its_durability(store):
    def level():
        with store._database.reading() as db:
            return db.execute("PRAGMA synchronous").fetchone()[0]

    with store._database.reading() as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert level() == 1
    keep(store, V1_RUN)
    assert level() == 1


def test_two_processes_may_create_a_store_at_once(path):
    code = "import sys, pathlib; from align_dsl.records.store import Store\n"
    code += "Store.open(pathlib.Path(sys.argv[1])).close()"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(6)]
    assert [p.wait(timeout=60) for p in running] == [0] * 6
