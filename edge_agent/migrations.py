"""How the journal file came to be what it is: the first schema, and each step from there on.

Invariants: all steps that a file lacks run in one transaction, so it is of one version or the next; `user_version` counts
the steps; a new file takes the same way as an old one; a file of a newer agent is refused, never guessed at.
"""

import sqlite3

from edge_agent.chain import cover_old
from edge_agent.errors import DeviceError, UsageError

_FIRST = (
    """CREATE TABLE IF NOT EXISTS verdicts (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        part TEXT NOT NULL,
        decision TEXT NOT NULL,
        body BLOB NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'sealed', 'uploaded', 'refused', 'evicted'))
    )""",
    "CREATE INDEX IF NOT EXISTS verdicts_by_state ON verdicts (state, row)",
    """CREATE TABLE IF NOT EXISTS pictures (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        verdict_id TEXT NOT NULL UNIQUE,
        sha256 TEXT NOT NULL,
        length INTEGER NOT NULL,
        why TEXT NOT NULL,
        priority INTEGER NOT NULL,
        refused INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX IF NOT EXISTS pictures_by_sha256 ON pictures (sha256)",
    """CREATE TABLE IF NOT EXISTS delivered (
        source TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (source, name)
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS by_digest (digest TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)

_PICTURES = (
    """CREATE TABLE pictures_new (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        verdict_id TEXT NOT NULL UNIQUE,
        sha256 TEXT NOT NULL,
        length INTEGER NOT NULL,
        why TEXT NOT NULL,
        rank INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'refused'))
    )""",
    """INSERT INTO pictures_new SELECT row, verdict_id, sha256, length, why,
        CASE WHEN refused THEN 1 ELSE CASE why WHEN 'near_threshold' THEN 3 WHEN 'audit' THEN 4 WHEN 'disagree' THEN 5
            WHEN 'inconclusive' THEN 6 WHEN 'ng' THEN 7 ELSE 2 END END,
        CASE WHEN refused THEN 'refused' ELSE 'pending' END FROM pictures""",
    "DROP TABLE pictures",
    "ALTER TABLE pictures_new RENAME TO pictures",
    "CREATE INDEX pictures_by_sha256 ON pictures (sha256)",
    "CREATE INDEX pictures_to_evict ON pictures (rank, row)",
    "CREATE INDEX pictures_to_send ON pictures (state, rank DESC, row)",
)

_ROWS = (
    "DELETE FROM verdicts WHERE state = 'evicted'",  # counted when they were; nobody asks for them
    "ALTER TABLE verdicts ADD COLUMN sample INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE verdicts ADD COLUMN n INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX verdicts_by_decision ON verdicts (decision, state)",
    "CREATE INDEX verdicts_by_part ON verdicts (part)",
    "CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL)",
    """CREATE TABLE boots (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        boot TEXT NOT NULL UNIQUE,
        started_at TEXT NOT NULL,
        agent_version TEXT NOT NULL,
        machine TEXT NOT NULL
    )""",
    """CREATE TABLE chain (
        n INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, link BLOB NOT NULL
    )""",
    "CREATE INDEX chain_trims ON chain (n) WHERE kind = 'trim'",
)

# Set-aside items were counted as evicted; now their rows are. Forgotten rows were not counted; now they are, by decision.
_COUNTERS = (
    """UPDATE counters SET value = value - (SELECT COUNT(*) FROM verdicts WHERE state = 'refused')
        - (SELECT COUNT(*) FROM pictures WHERE state = 'refused') WHERE name = 'evicted'""",
    """INSERT INTO counters SELECT 'gone_uploaded', value - (SELECT COUNT(*) FROM verdicts WHERE state = 'uploaded')
        FROM counters WHERE name = 'uploaded'""",
    "DELETE FROM counters WHERE name = 'uploaded'",
    """INSERT INTO counters SELECT 'gone_' || name, value - (SELECT COUNT(*) FROM verdicts WHERE decision = counters.name)
        FROM counters WHERE name IN ('OK', 'NG', 'INCONCLUSIVE', 'ERROR')""",
)


def _run(db: sqlite3.Connection, *statements: str) -> None:
    for statement in statements:
        db.execute(statement)


def _to_1(db: sqlite3.Connection) -> None:
    """The chain, packed bodies, pictures kept after their receipt, boots, counters that rows are compared with."""
    _run(db, *_PICTURES, *_ROWS, *_COUNTERS)
    cover_old(db)


_STEPS = (_to_1,)
VERSION = len(_STEPS)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a file to this agent's version. DeviceError when a newer agent wrote it."""
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    found = _version(db)  # again: another process may just have done it
    if found > VERSION:
        db.execute("ROLLBACK")
        raise _newer(found)
    if found == 0:
        _run(db, *_FIRST)
    for step in _STEPS[found:]:
        step(db)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def check_version(db: sqlite3.Connection) -> None:
    """For who only reads. UsageError when an older agent wrote the file, DeviceError when a newer one did."""
    found = _version(db)
    if found > VERSION:
        raise _newer(found)
    if found < VERSION:
        raise UsageError(
            f"the journal was written by an older agent (version {found}, this one reads {VERSION}): "
            "start `edge-agent run`, which takes it over, then ask again"
        )


def _newer(found: int) -> DeviceError:
    return DeviceError(
        f"the journal was written by a newer agent (version {found}, this one reads up to {VERSION});"
        " install that agent again, or move journal.db away to begin a new one"
    )


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
