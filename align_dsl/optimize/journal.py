"""Where studies are kept: Optuna's journal in a file of the project, or a database by URL.

The journal is a file of JSON lines, 6 ms of CPU a trial where Optuna's SQLite takes 40 to 70. Its
one weakness is healed here: a process that dies while it writes leaves half a line, and whoever
appends to that makes the file unreadable for ever. Under our lock the half line is cut off first;
and the lock is one that the system takes back from the dead.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from align_dsl.errors import StoreError, visible

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


COMING_AT_ONCE = 10  # times that the tables of a new database may be in the making by another


class Lock:
    """A lock as Optuna wants them: held by one process at a time, and never by a dead one.

    It heals the journal as it is taken.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._file = -1

    def acquire(self) -> bool:
        self._file = os.open(f"{self.journal}.lock", os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        heal(self.journal)
        return True

    def release(self) -> None:
        os.close(self._file)  # and the lock with it


def heal(journal: Path) -> int:
    """Cut off what follows the last whole line; how many bytes that was."""
    try:
        with journal.open("r+b") as file:
            keep = size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read(1) == b"\n":
                return 0  # nearly always
            while keep:  # from the end, in pieces: a journal may be long
                start = max(0, keep - 65536)
                file.seek(start)
                at = file.read(keep - start).rfind(b"\n")
                if at >= 0:
                    keep = start + at + 1
                    break
                keep = start
            if keep < size:
                file.truncate(keep)
            return size - keep
    except FileNotFoundError:
        return 0


@contextmanager
def turn(path: Path | None) -> Iterator[None]:
    """One process at a time decides what to try next; for a database, whoever comes first does."""
    if path is None or fcntl is None:
        yield
        return
    file = os.open(f"{path}.turn", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def open_storage(where: Path | str) -> Any:
    """A journal by its path, or a database by its URL."""
    with quiet():
        if isinstance(where, str):
            try:
                return _database(where)
            except ImportError as error:
                name = visible(str(error.name or error))
                raise StoreError(
                    f"a driver for this database is not installed ({name}): for PostgreSQL,"
                    " pip install pg8000 and write --storage postgresql+pg8000://..."
                ) from None
            except Exception as error:  # drivers raise what they like
                first = visible(str(error).strip().split("\n")[0])
                raise StoreError(f"the storage cannot be opened: {first}") from None
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(where) if fcntl else JournalFileOpenLock(str(where))
            lock.acquire()  # heals, before the first look
            lock.release()
            backend = JournalFileBackend(str(where), lock_obj=lock)
            return optuna.storages.JournalStorage(backend)
        except OSError as error:
            said = f"{visible(str(where))} cannot be used: {error.strerror or error}"
            raise StoreError(said) from error
        except ValueError as error:  # half a line, with whole ones behind it
            raise StoreError(
                f"{visible(str(where))} is damaged ({error}); move it away to start the studies"
                " afresh: the answers are kept elsewhere, so that costs no call"
            ) from error


def _database(url: str) -> Any:
    """The tables are made by whoever comes first; of two that come at once, one finds them there
    when it is about to make them, and looks again."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for talks in ("optuna.storages._rdb.storage", "sqlalchemy.pool"):
        # of errors that are raised as well, and these we tell of: see `lost`
        logging.getLogger(talks).setLevel(logging.CRITICAL)
    for _ in range(COMING_AT_ONCE):
        try:
            return optuna.storages.get_storage(url)
        except (IntegrityError, ProgrammingError):
            time.sleep(0.2)
    return optuna.storages.get_storage(url)


def lost(error: BaseException | None) -> StoreError | None:
    """What to say where an error is that of a database that has gone away."""
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, SQLAlchemyError | optuna.exceptions.StorageInternalError):
        return None
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    first = visible(str(cause or error).strip().split("\n")[0])
    return StoreError(
        f"the storage can no longer be reached: {first}\n"
        "  = all that was answered is kept; the same command goes on once it is there again"
    )


def close_storage(storage: Any) -> None:
    """Let go of a database. A journal holds nothing open."""
    storage.remove_session()
    engine = getattr(getattr(storage, "_backend", storage), "engine", None)
    if engine is not None:
        engine.dispose()


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna tells the world of each study and each experimental class; here nobody has asked."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
