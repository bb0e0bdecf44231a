"""A database of any earlier version -> the same database, of the version this code writes.

The version is the number of migrations a file has been through. A migration that has been released
is never edited: a file of every released version lies in tests/records/ and must open for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from align_dsl.errors import StoreError

APPLICATION = 0x416C676E  # "Algn" in the file's header: tells our files from other programs'


def m001_initial(db: sqlite3.Connection) -> None:
    for statement in (
        "CREATE TABLE answers (key TEXT NOT NULL UNIQUE, status TEXT NOT NULL, body BLOB NOT NULL)",
        # Wall-clock seconds. A lease holds while now is less than `seconds` away from `since`.
        "CREATE TABLE owners (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
        " since REAL NOT NULL, seconds REAL NOT NULL)",
        "CREATE TABLE claims (key TEXT PRIMARY KEY, owner INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX claims_by_owner ON claims (owner)",
        "CREATE TABLE runs (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created TEXT NOT NULL,"
        " record BLOB NOT NULL, program BLOB NOT NULL)",
        "CREATE TABLE cases (n INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE,"
        " body BLOB NOT NULL)",
        "CREATE TABLE run_cases (run INTEGER NOT NULL, position INTEGER NOT NULL,"
        " case_n INTEGER NOT NULL, PRIMARY KEY (run, position)) WITHOUT ROWID",
        "CREATE INDEX run_cases_by_case ON run_cases (case_n)",
        # A run's judgements are written at once, so their order is that of n.
        "CREATE TABLE judgements (n INTEGER PRIMARY KEY, run INTEGER NOT NULL,"
        " decider TEXT NOT NULL, model TEXT NOT NULL, target TEXT NOT NULL,"
        " scenario TEXT NOT NULL, status TEXT NOT NULL, correct INTEGER, control INTEGER NOT NULL,"
        " body BLOB NOT NULL)",
        "CREATE INDEX judgements_by_run ON judgements (run)",
        "CREATE INDEX judgements_by_decider ON judgements (run, decider, target)",
        "CREATE INDEX judgements_by_scenario ON judgements (run, scenario)",
    ):
        db.execute(statement)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [m001_initial]


def refuse_strangers(db: sqlite3.Connection, name: str) -> None:
    """StoreError unless the file is new, or ours and of a version we know. Writes nothing."""
    # in this order: who makes the file this very moment writes both at once, between the two looks
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION and (application or tables):
        raise StoreError(
            f"{name} is a database of another program; name a file of your own with --store"
        )
    version = version_of(db)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{name} is a store of version {version}, and this align-dsl knows versions up to "
            f"{len(MIGRATIONS)}; upgrade align-dsl, or name another file with --store"
        )


def migrate(db: sqlite3.Connection) -> None:
    """All that is missing, in one transaction: a file is never left between two versions."""
    if version_of(db) == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have been faster.
        for migration in MIGRATIONS[version_of(db) :]:
            migration(db)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def version_of(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)
