"""Answers, claims and runs in, the same out: one SQLite file per project, `.align/align.db`.

An answer is kept by its key for every run that will ask for it; a run is kept as it came out, with
its cases and judgements. Whatever a method has returned from is safe from a kill -9; a run that is
finished, also from a power cut. A store may be shared by threads and by processes, not by forks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from sqlite3 import Connection
from time import time
from typing import Any

from align_dsl.errors import PlanError, StoreError, nearest, visible
from align_dsl.records.body import column, compressed, decompressed, pack, unpack
from align_dsl.records.database import Database
from align_dsl.records.record import Answer, Cost, Judgement, Recorded, RunRecord
from align_dsl.types import Case

CHUNK = 900  # keys per statement: SQLite may be built to take no more than 999


class Store:
    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open the file, creating it and its folder where there is none."""
        return cls(Database(path))

    @property
    def path(self) -> Path:
        return self._database.path

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- answers -------------------------------------------------------------------------------

    def known(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers there are, failures included."""
        found: dict[str, Answer] = {}
        with self._database.reading() as db:
            for some, marks in _chunks(keys):
                query = f"SELECT key, body FROM answers WHERE key IN ({marks})"
                for key, body in db.execute(query, some):
                    found[key] = unpack(Answer, body)
        return found

    def put(self, answers: Sequence[Answer]) -> None:
        """Keep all of them, or none. What is known to be ok stays as it is; a failure gives way."""
        rows = [(a.key, a.failure.status if a.failure else "ok", pack(a)) for a in answers]
        with self._database.writing() as db:
            db.executemany(
                "INSERT INTO answers (key, status, body) VALUES (?, ?, ?) ON CONFLICT (key) DO"
                " UPDATE SET status = excluded.status, body = excluded.body WHERE status <> 'ok'",
                rows,
            )
            db.executemany("DELETE FROM claims WHERE key = ?", [(a.key,) for a in answers])

    def forget_failures(self, keys: Iterable[str]) -> Cost:
        """So that they are asked again. Returns what they have cost."""
        cost = Cost()
        with self._database.writing() as db:
            for some, marks in _chunks(keys):
                failed = f"FROM answers WHERE status <> 'ok' AND key IN ({marks})"
                for (body,) in db.execute(f"SELECT body {failed}", some):
                    cost += unpack(Answer, body).cost
                db.execute(f"DELETE {failed}", some)
        return cost

    # --- claims --------------------------------------------------------------------------------

    def claim(self, keys: Iterable[str], owner: str, seconds: float) -> set[str]:
        """The keys that are now the owner's to answer: without any answer, and of no other owner
        whose lease holds. One lease of `seconds` from now covers all that the owner has claimed.

        A lease is broken when the clock moves by more than its length, either way. Then a job may
        run twice, which costs a call and changes nothing.
        """
        won: set[str] = set()
        with self._database.writing() as db:
            now = time()  # not before: the lock may have taken a while
            db.execute(
                "INSERT INTO owners (name, since, seconds) VALUES (?, ?, ?) ON CONFLICT (name) DO"
                " UPDATE SET since = excluded.since, seconds = excluded.seconds",
                (owner, now, seconds),
            )
            (n,) = db.execute("SELECT n FROM owners WHERE name = ?", (owner,)).fetchone()
            for some, marks in _chunks(dict.fromkeys(keys)):
                answered = db.execute(f"SELECT key FROM answers WHERE key IN ({marks})", some)
                free = set(some).difference(key for (key,) in answered)
                claimed = db.execute(
                    f"SELECT key FROM claims JOIN owners ON owner = n WHERE key IN ({marks})"
                    " AND n <> ? AND abs(? - since) < seconds",
                    (*some, n, now),
                )
                free.difference_update(key for (key,) in claimed)
                db.executemany(
                    "INSERT OR REPLACE INTO claims (key, owner) VALUES (?, ?)",
                    [(key, n) for key in free],
                )
                won |= free
        return won

    def renew(self, owner: str, seconds: float) -> None:
        """Prolong the lease. Keys that another took when it had lapsed stay with the other."""
        with self._database.writing() as db:
            db.execute(
                "UPDATE owners SET since = ?, seconds = ? WHERE name = ?", (time(), seconds, owner)
            )

    def release(self, owner: str) -> None:
        """Give back what is claimed, and sweep up after owners that died."""
        with self._database.writing() as db:
            asked = (owner, time())
            gone = "SELECT n FROM owners WHERE name = ? OR abs(? - since) >= seconds"
            db.execute(f"DELETE FROM claims WHERE owner IN ({gone})", asked)
            db.execute(f"DELETE FROM owners WHERE n IN ({gone})", asked)

    def bury(self, is_dead: Callable[[str], bool]) -> None:
        """Give back what dead owners had claimed, without waiting for their leases to lapse."""
        with self._database.reading() as db:
            owners = db.execute("SELECT n, name FROM owners").fetchall()
        gone = [(n,) for n, name in owners if is_dead(name)]
        if gone:
            with self._database.writing() as db:
                db.executemany("DELETE FROM claims WHERE owner = ?", gone)
                db.executemany("DELETE FROM owners WHERE n = ?", gone)

    # --- runs ----------------------------------------------------------------------------------

    def start(self, record: RunRecord, program: dict[str, Any], cases: Sequence[Case]) -> RunRecord:
        """Note that a run has begun. The same id again goes on with it: what stands is returned,
        as it was if it had come to its end, else as given but for the date."""
        packed = [(case.digest(), pack(case)) for case in cases]
        with self._database.writing() as db:
            standing = _standing(db, record.id)
            if standing:
                if standing.status == "ok":
                    return standing
                return _update(db, record, standing)
            db.executemany(
                "INSERT INTO cases (digest, body) VALUES (?, ?) ON CONFLICT DO NOTHING", packed
            )
            n = db.execute(
                "INSERT INTO runs (id, created, record, program) VALUES (?, ?, ?, ?)",
                (record.id, record.created, pack(record), compressed(program)),
            ).lastrowid
            db.executemany(
                "INSERT INTO run_cases SELECT ?, ?, n FROM cases WHERE digest = ?",
                [(n, position, digest) for position, (digest, _) in enumerate(packed)],
            )
        return record

    def finish(
        self, record: RunRecord, judgements: Sequence[Judgement], *, replace: bool = False
    ) -> RunRecord:
        """Write down how a run came out, safe from a power cut, and return what stands. A run that
        has ended ok does not change, except with `replace`, as after failures were retried."""
        rows = [_row(judgement) for judgement in judgements]  # before the lock: it takes a while
        with self._database.writing_for_good() as db:
            standing = _standing(db, record.id)
            if standing is None:
                raise StoreError(
                    f"the run {visible(record.id)} has been removed from {visible(str(self.path))}"
                    " while it ran; the same command again makes it anew, from the answers kept"
                )
            if standing.status == "ok" and not replace:
                return standing
            record = _update(db, record, standing)
            (n,) = db.execute("SELECT n FROM runs WHERE id = ?", (record.id,)).fetchone()
            db.execute("DELETE FROM judgements WHERE run = ?", (n,))
            db.executemany(
                "INSERT INTO judgements (run, decider, model, target, scenario, status, correct,"
                f" control, body) VALUES ({n}, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        return record

    def record(self, run_id: str) -> RunRecord | None:
        """The record of exactly this id."""
        with self._database.reading() as db:
            return _standing(db, run_id)

    def runs(self) -> list[RunRecord]:
        """Every run, the newest first."""
        with self._database.reading() as db:
            rows = db.execute("SELECT record FROM runs ORDER BY created DESC, n DESC")
            return [unpack(RunRecord, body) for (body,) in rows.fetchall()]

    def find(self, run: str) -> RunRecord:
        """The run of this id, or of the only id that begins so, or the newest for `last`."""
        with self._database.reading() as db:
            return unpack(RunRecord, _found(db, run)[1])

    def load(self, run: str, *, judgements: bool = True) -> Recorded:
        """A whole run, found as by `find`; or, for who pages through them, without judgements."""
        with self._database.reading() as db:
            n, record, program = _found(db, run)
            cases = db.execute(
                "SELECT body FROM run_cases JOIN cases ON case_n = n WHERE run = ?"
                " ORDER BY position",
                (n,),
            )
            return Recorded(
                record=unpack(RunRecord, record),
                program=decompressed(program),
                cases=tuple(unpack(Case, body) for (body,) in cases),
                judgements=tuple(self.judgements(run)) if judgements else (),
            )

    def judgements(
        self,
        run: str,
        *,
        decider: str | None = None,
        model: str | None = None,
        target: str | None = None,
        scenario: str | None = None,
        status: str | None = None,
        correct: bool | None = None,
        control: bool | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> list[Judgement]:
        """A page of a run's judgements, in the order they were written. `target` is what they are
        judged by; without `control`, those aimed elsewhere on purpose are among them."""
        given = {"decider": decider, "model": model, "target": target, "scenario": scenario}
        asked = {k: column(v) for k, v in {**given, "status": status}.items() if v is not None}
        values: dict[str, str | int] = {**asked}
        flags = {"correct": correct, "control": control}
        values |= {name: int(flag) for name, flag in flags.items() if flag is not None}
        where = "".join(f" AND {name} = ?" for name in values)
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT body FROM judgements WHERE run = ?{where} ORDER BY n LIMIT ? OFFSET ?",
                (_found(db, run)[0], *values.values(), -1 if limit is None else limit, offset),
            )
            return [unpack(Judgement, body) for (body,) in rows]

    def remove(self, run: str) -> None:
        """Forget a run. The answers stay, so making it again calls no model."""
        with self._database.writing() as db:
            n = _found(db, run)[0]
            cases = db.execute("SELECT case_n FROM run_cases WHERE run = ?", (n,)).fetchall()
            for table in ("judgements WHERE run", "run_cases WHERE run", "runs WHERE n"):
                db.execute(f"DELETE FROM {table} = ?", (n,))
            db.executemany(
                "DELETE FROM cases WHERE n = ?1 AND NOT EXISTS"
                " (SELECT 1 FROM run_cases WHERE case_n = ?1)",
                cases,
            )


def _standing(db: Connection, run_id: str) -> RunRecord | None:
    row = db.execute("SELECT record FROM runs WHERE id = ?", (run_id,)).fetchone()
    return unpack(RunRecord, row[0]) if row else None


def _update(db: Connection, record: RunRecord, standing: RunRecord) -> RunRecord:
    """A run keeps the date on which it was first asked for."""
    record = record.model_copy(update={"created": standing.created})
    db.execute("UPDATE runs SET record = ? WHERE id = ?", (pack(record), record.id))
    return record


def _found(db: Connection, run: str) -> tuple[int, bytes, bytes]:
    """Number, record and program of the run that is meant."""
    select = "SELECT n, record, program, id FROM runs"
    newest = "ORDER BY created DESC, n DESC LIMIT"
    rows = db.execute(f"{select} WHERE id = ?", (column(run),)).fetchall()
    if not rows and run == "last":
        rows = db.execute(f"{select} {newest} 1").fetchall()
    elif not rows and run:
        begins = "WHERE substr(id, 1, length(?1)) = ?1"
        rows = db.execute(f"{select} {begins} {newest} 9", (column(run),)).fetchall()
    if len(rows) == 1:
        return rows[0][0], rows[0][1], rows[0][2]
    if rows:
        several = ", ".join(visible(row[3]) for row in rows[:8]) + (" ..." if len(rows) > 8 else "")
        raise PlanError(f"`{visible(run)}` may be any of these runs: {several}")
    ids = [name for (name,) in db.execute(f"SELECT id FROM runs {newest} 1000")]
    raise PlanError(f"no run `{visible(run)}`\n  = {visible(nearest(run, ids))}")


def _row(judgement: Judgement) -> tuple[str | int | bytes | None, ...]:
    d = judgement.decision
    names = (column(s) for s in (d.decider, d.model, judgement.target, d.scenario, d.status))
    return (*names, judgement.correct, judgement.control, pack(judgement))


def _chunks(keys: Iterable[str]) -> Iterator[tuple[list[str], str]]:
    """Keys in handfuls, each with the marks that stand for them in a statement."""
    rest = iter(keys)
    while some := list(islice(rest, CHUNK)):
        yield some, ",".join("?" * len(some))
