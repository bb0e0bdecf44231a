"""A path -> an open database; what SQLite complains of -> what a person can do about it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from align_dsl.errors import StoreError, visible
from align_dsl.records.body import DamagedError
from align_dsl.records.migrations import migrate, refuse_strangers

PATIENCE = 30.0  # seconds to wait for another process that writes

REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs"}
REMOTE |= {"fuse.sshfs", "fuse.glusterfs", "beegfs", "gpfs"}
"""File systems where WAL goes wrong silently: its index is memory, which two hosts cannot share."""

REMEDIES = {
    "NOTADB": "is no SQLite database; move it away to start afresh, or name another with --store",
    "CORRUPT": "is damaged; move it away to start afresh, or save what can be read with"
    " `sqlite3 FILE .recover`",
    "FULL": "cannot grow, the disk is full; what was stored before is safe: free some space and run"
    " the same command again",
    "READONLY": "cannot be written; copy it to a folder you may write to and name that with"
    " --store",
    "CANTOPEN": "cannot be opened; see that its folder is there and yours to write to, or name"
    " another with --store",
    "PERM": "cannot be opened; see that the file is yours to read and write",
    "BUSY": f"has been locked by another process for {PATIENCE:g} s; see what else uses it",
    "LOCKED": f"has been locked by another process for {PATIENCE:g} s; see what else uses it",
    "IOERR": "cannot be read or written, the disk is full or fails; what was stored before is safe",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what SQLite and the system say of this file into a StoreError."""
    name = visible(str(path))
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # our mistake, not the file's
    except sqlite3.DatabaseError as error:
        kind = _kind(error)
        said = REMEDIES.get(kind, "cannot be used")
        raise StoreError(f"the store {name} {said} (SQLite says: {error})") from error
    except DamagedError as error:
        said = f"holds a {error} that is damaged, or from a newer align-dsl"
        raise StoreError(f"the store {name} {said} ({error.__cause__})") from error
    except OSError as error:
        raise StoreError(
            f"the store {name} cannot be opened: {error.strerror or error}; see that its folder is"
            " yours to write to, or name another with --store"
        ) from error


class Database:
    """One connection, used by one thread at a time, and its transactions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = _connect(path)
        self._lock = RLock()

    def close(self) -> None:
        with self._lock:
            self.connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """All that is read inside is of one moment, whatever other processes write meanwhile."""
        with self._lock, explained(self.path):
            if self.connection.in_transaction:
                yield self.connection
                return
            with self._transaction("BEGIN"):
                yield self.connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside is kept, or nothing. Waits for other writers at the start, so
        that it cannot fail half-way for having read first."""
        with self._lock, explained(self.path), self._transaction("BEGIN IMMEDIATE"):
            yield self.connection

    @contextmanager
    def writing_for_good(self) -> Iterator[sqlite3.Connection]:
        """As `writing`, and with all before it safe from a power cut once it is over."""
        with self._lock, explained(self.path):
            (before,) = self.connection.execute("PRAGMA synchronous").fetchone()
            self.connection.execute("PRAGMA synchronous = FULL")
            try:
                with self._transaction("BEGIN IMMEDIATE"):
                    yield self.connection
                self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                self.connection.execute(f"PRAGMA synchronous = {before}")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self.connection.execute(begin)
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # a full disk has ended it already
                self.connection.execute("ROLLBACK")
            raise


def _connect(path: Path) -> sqlite3.Connection:
    """Open, create or migrate. WAL where it works: readers and a writer do not wait for each other;
    elsewhere SQLite's first journal, which is slower."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = "DELETE" if _is_remote(path.parent) else "WAL"
        try:
            return _connection(path, journal)
        except sqlite3.OperationalError as error:
            if journal == "DELETE" or _kind(error) not in {"IOERR", "CANTOPEN", "PROTOCOL"}:
                raise
            return _connection(path, "DELETE")


def _connection(path: Path, journal: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        refuse_strangers(db, visible(str(path)))
        mode = _journal(db, journal)
        # Under WAL, NORMAL loses nothing when a process dies, and the newest commits (not the file)
        # when the power does; without WAL it could lose the file.
        db.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
        migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _journal(db: sqlite3.Connection, journal: str) -> str:
    """SQLite does not wait when two processes change the mode of a new file at once, so we do."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return str(db.execute(f"PRAGMA journal_mode = {journal}").fetchone()[0])
        except sqlite3.OperationalError as error:
            if _kind(error) not in {"BUSY", "LOCKED"} or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _kind(error: sqlite3.Error) -> str:
    """`SQLITE_IOERR_WRITE` -> `IOERR`; empty where the error is Python's own."""
    return (getattr(error, "sqlite_errorname", "") or "").removeprefix("SQLITE_").split("_")[0]


def _is_remote(folder: Path) -> bool:
    """Whether the folder lies on a network file system, as far as the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return False
    at, kind = "", ""
    here = os.path.realpath(folder)
    for mount in mounts:
        fields = mount.split(" ")
        point = fields[1].replace("\\040", " ")
        inside = here == point or here.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(at):
            at, kind = point, fields[2]
    return kind in REMOTE
