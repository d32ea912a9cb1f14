"""What every fault test stands on: the real agent on a folder, parts that keep coming, and what must hold at the end.

Invariants: the agent is the program itself, started on the same folder again and again as systemd would; its log goes to
a file, so that nobody holds it up; whatever was started is ended.
"""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_agent.config import load_config, write_config
from edge_agent.database import DATABASE_NAME, Database, looking_into
from edge_agent.status import status
from edge_agent.verifying import verify
from inspection.contracts import Decision, sha256_hex
from tests.edge_agent.helpers import Authority, config, picture, png
from tests.faults.hubs import HubServer

T = TypeVar("T")
PATIENCE_SECONDS = 90.0
"""How long a condition is waited for that a quiet machine reaches in a second or two."""


def until(reached: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS, *, every: float = 0.02) -> float:
    """Wait for a condition. Returns how many seconds it took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(every)
    return time.monotonic() - began


# -- the agent ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One verdict as it lies in the journal."""

    part: str
    decision: Decision
    state: str


class Device:
    """An enrolled agent: its state folder, the folder its camera watches, the file it signals to, its log."""

    def __init__(self, root: Path, authority: Authority, hub: str, *, state: Path | None = None, **limits: Any) -> None:
        self.root = root
        self.state = state or root / "state"
        self.pictures = root / "pictures"
        self.told = root / "told.jsonl"
        self.log = root / "log.jsonl"
        self.process: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}
        self.pictures.mkdir(exist_ok=True)
        write_config(self.state, config(authority.root, hub, **limits))

    def set(self, **settings: Any) -> None:
        """Change settings, in force at the next start."""
        write_config(self.state, load_config(self.state).overridden(**settings))

    def start(self, *more: str, camera: str | None = None) -> "subprocess.Popen[bytes]":
        """The agent, as it is started on a device."""
        command = [sys.executable, "-m", "edge_agent", "run", "--state", str(self.state), "--poll", "0.2"]
        command += ["--camera", camera or f"folder:{self.pictures}", "--signal-file", str(self.told), *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=os.environ | self.env)
        return self.process

    def stop(self) -> None:
        """As systemd stops it: it must leave with 0."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(300) == 0, self.tail()

    def kill(self) -> None:
        """As nobody should stop it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)

    @property
    def pid(self) -> int:
        """Of the agent that was started last."""
        assert self.process is not None
        return self.process.pid

    @property
    def logged_bytes(self) -> int:
        """How long its log is."""
        return self.log.stat().st_size if self.log.exists() else 0

    def messages(self, since_bytes: int = 0) -> list[dict[str, Any]]:
        """What it logged. A line that a kill cut off is none."""
        found = []
        for line in self._lines(since_bytes):
            if line.startswith("{") and line.endswith("}"):
                found.append(json.loads(line))
        return found

    def has_said(self, message: str, since_bytes: int = 0) -> bool:
        """Whether its log has a line with this message."""
        return any(line["message"] == message for line in self.messages(since_bytes))

    def words(self) -> str:
        """What it said outside of its log: the last sentence of a failed start, or a traceback."""
        return "\n".join(line for line in self._lines() if not line.startswith("{"))

    def tail(self, lines: int = 15) -> str:
        """The end of its log, for a test that fails."""
        return "\n".join(self._lines()[-lines:])

    def _lines(self, since_bytes: int = 0) -> list[str]:
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(since_bytes)
            return log.read().decode(errors="replace").splitlines()

    def outputs(self) -> list[dict[str, str]]:
        """What the line was told."""
        return [json.loads(line) for line in self.told.read_text().splitlines()] if self.told.exists() else []

    def status(self) -> dict[str, Any]:
        """As `edge-agent status --json` says it."""
        return status(self.state, load_config(self.state))

    def rows(self) -> list[Row]:
        """All verdicts here; none while there is no journal."""
        found = self._query("SELECT part, decision, state FROM verdicts ORDER BY row")
        return [Row(part, Decision(decision), state) for part, decision, state in found]

    def count(self) -> int:
        """How many verdicts are here."""
        return int((self._query("SELECT COUNT(*) FROM verdicts") or [(0,)])[0][0])

    def goes_on(self, parts: int = 1, *, every: float = 0.02) -> None:
        """Wait until so many more parts are judged."""
        enough = self.count() + parts
        until(lambda: self.count() >= enough, f"{parts} more parts, beside {enough - parts}", every=every)

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        path = self.state / DATABASE_NAME
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as journal:
            try:
                return journal.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # it is being made
                    return []
                raise


@contextmanager
def ending(device: Device) -> Iterator[Device]:
    """Whatever happens, its agent is ended."""
    try:
        yield device
    finally:
        device.kill()


# -- parts --------------------------------------------------------------------------------------------------------


def is_bad(part: str) -> bool:
    """Every third part has a scratch."""
    return int(part.rpartition("-")[2]) % 3 == 0


class Feeder:
    """Writes pictures of parts into the watched folder, one every ``every`` seconds, write-then-rename.

    ``ahead``: so many more than were judged at most, for a line that waits. ``keep``: how many stay lying there.
    """

    def __init__(self, device: Device, *, every: float, ahead: int | None = None, keep: int | None = None) -> None:
        self._device = device
        self._every = every
        self._ahead = ahead
        self._keep = keep
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder")
        self.parts: list[str] = []

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """The line stands still."""
        self._stop.set()
        self._thread.join()

    def write(self, count: int) -> None:
        """So many parts at once."""
        for _ in range(count):
            number = len(self.parts) + 1
            name = f"part-{number:07}"
            put(self._device.pictures, f"{name}.png", png(picture(number, scratch=255 if is_bad(name) else 0)))
            self.parts.append(name)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._every, time.monotonic())
            if self._ahead is None or len(self.parts) - self._device.count() < self._ahead:
                self.write(1)
            if self._keep is not None and len(self.parts) > 2 * self._keep:
                self._tidy()

    def _tidy(self) -> None:
        """What was judged long ago is taken away, as whoever owns the folder does."""
        judged = {row.part for row in self._device.rows()}
        for path in sorted(self._device.pictures.glob("part-*.png"))[: -self._keep if self._keep else None]:
            if path.stem in judged:
                path.unlink()


def put(folder: Path, name: str, data: bytes) -> None:
    """Write-then-rename, as a polite writer does."""
    (folder / f".{name}").write_bytes(data)
    (folder / f".{name}").rename(folder / name)


# -- years in minutes ---------------------------------------------------------------------------------------------


class Hasty(Database):
    """Does not wait for the disk: three days' rows in minutes."""

    def commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same transaction, not synced."""
        with self.write(durable=False) as db:
            return work(db)


# -- what must hold -----------------------------------------------------------------------------------------------


def settle(device: Device, parts: list[str], seconds: float = PATIENCE_SECONDS) -> None:
    """Until every part is judged and everything has left the device."""

    def done() -> bool:
        assert device.process is not None
        assert device.process.poll() is None, f"the agent ended by itself:\n{device.tail()}"
        return device.count() >= len(parts) and device.status()["ledger"]["pending"] == 0  # type: ignore[no-any-return]

    until(done, "everything judged and uploaded", seconds, every=0.1)


def must_be_whole(device: Device) -> dict[str, int]:
    """The ledger closes, and the hash chain fits every row. Returns the ledger."""
    found = device.status()
    assert found["ledger_closes"], found["ledger"]
    with looking_into(device.state / DATABASE_NAME) as database:
        chain = verify(database)
    assert chain.ok, chain
    ledger: dict[str, int] = found["ledger"]
    return ledger


def must_hold(device: Device, parts: list[str], *, evicted: int = 0, told_again: int = 0) -> Counter[Decision]:
    """On a device that has sent everything: it is whole, each part has one verdict, and no bad one was passed.

    ``told_again``: so many parts may have been passed twice. Returns how many parts got which decision.
    """
    ledger = must_be_whole(device)
    assert (ledger["pending"], ledger["evicted"]) == (0, evicted), ledger
    rows = device.rows()
    assert sorted(row.part for row in rows) == sorted(parts)
    assert [row.part for row in rows if row.decision is Decision.OK and is_bad(row.part)] == []
    passed = [line["part"] for line in device.outputs() if line["output"] == "OK"]
    assert [part for part in passed if is_bad(part)] == []
    assert len(passed) - len(set(passed)) <= told_again
    return Counter(row.decision for row in rows)


def hub_holds(server: HubServer, parts: list[str], *, told_again: int = 0) -> None:
    """At the hub: each verdict exactly once, the pictures that verdicts name, and not one answer that failed in here.

    ``told_again``: so many parts may have two verdicts.
    """
    assert server.errors == []
    held = server.hub.verdicts.values()
    assert {verdict.part for verdict in held} == set(parts)
    assert len({(verdict.boot, verdict.sequence) for verdict in held}) == len(held) <= len(parts) + told_again
    assert {verdict.frame_sha256 for verdict in held if verdict.frame_sha256} <= server.hub.pictures.keys()
    assert all(sha256_hex(data) == digest for digest, data in server.hub.pictures.items())
