"""A private PostgreSQL cluster on a free loopback port, started for the tests and stopped after them."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.ports import free_port

_MEMORY = Path("/dev/shm")
_MEMORY_FREE_MIB = 1024


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, None when PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if found:
        return found[-1].parent
    on_path = shutil.which("pg_ctl")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def cluster(bin_folder: Path) -> Iterator[str]:
    """The URL of a running cluster's first database. As root, PostgreSQL runs as the user ``postgres``, as it insists."""
    place = Path(tempfile.mkdtemp(prefix="escapement-pg-", dir=_quick_folder()))
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        os.chown(place, pwd.getpwnam("postgres").pw_uid, -1)
    data = place / "data"
    port = free_port()
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {place} -c fsync=off -c max_wal_size=64MB"

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, cwd=place, stdout=subprocess.DEVNULL)

    try:
        run(str(bin_folder / "initdb"), "-D", str(data), "-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C")
        run(str(bin_folder / "pg_ctl"), "-D", str(data), "-o", options, "-l", str(place / "log"), "-w", "start")
        try:
            yield f"postgresql://tests@127.0.0.1:{port}/postgres"
        finally:
            run(str(bin_folder / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(place)


@contextmanager
def fresh_database(url: str, name: str, template: str | None = None) -> Iterator[str]:
    """The URL of a new database of the cluster, dropped afterwards: empty, or a copy of the database ``template``."""
    with psycopg.connect(url, autocommit=True) as connection:
        copied = f' TEMPLATE "{template}"' if template else ""
        if template and connection.info.server_version >= 150_000:
            copied += " STRATEGY file_copy"  # without fsync quicker than to log each page; older servers know no other
        connection.execute(f'CREATE DATABASE "{name}"{copied}')
    yield url.rpartition("/")[0] + "/" + name
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _quick_folder() -> Path | None:
    """Memory where there is room: a database is 300 files, which a disk takes six times as long to make."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_FREE_MIB * 2**20:
        return _MEMORY
    return None
