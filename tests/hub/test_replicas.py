"""The hub as a program on PostgreSQL and S3, by its settings alone: what several replicas behind a proxy are."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inspection.contracts import sha256_hex
from inspection.settings import load_settings
from inspection.store.session import Store
from tests.hub.helpers import Line, enrol, png, seed_product, verdict
from tests.ports import free_port
from tests.store.object_store import ObjectStore
from tests.store.postgres import fresh_database

pytestmark = pytest.mark.service


@pytest.fixture
def environment(postgres_url: str, s3: ObjectStore) -> Iterator[dict[str, str]]:
    """Our variables in a deployment: an empty database and an empty bucket."""
    with fresh_database(postgres_url, "replicas") as url:
        yield {
            "ESCAPEMENT_DATABASE_URL": url.replace("postgresql://", "postgresql+psycopg://"),
            "ESCAPEMENT_BLOB_URL": f"{s3.new_bucket()}/escapement",
        }


@pytest.fixture
def replicas(tmp_path: Path, environment: dict[str, str]) -> Iterator[list[httpx.Client]]:
    """Two hubs that were started together, with the same secrets."""
    load_settings(tmp_path, {})  # makes the secrets
    ports = [free_port(), free_port()]
    command = [sys.executable, "-m", "inspection.hub", "--state", str(tmp_path), "--port"]
    programs = [subprocess.Popen([*command, str(port)], env=os.environ | environment) for port in ports]
    clients = [httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) for port in ports]
    try:
        for client, program in zip(clients, programs, strict=True):
            wait_for(client, program)
        yield clients
    finally:
        for client, program in zip(clients, programs, strict=True):
            client.close()
            program.kill()
            program.wait()


def wait_for(client: httpx.Client, program: subprocess.Popen[bytes]) -> None:
    """Until the program says that it is well."""
    deadline = time.monotonic() + 60
    while True:
        assert program.poll() is None, "the hub ended"
        assert time.monotonic() < deadline, "the hub was not well within 60 s"
        try:
            answer = client.get("/healthz")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            assert answer.status_code == 200, answer.text
            return


def test_what_one_replica_took_in_the_other_knows(
    tmp_path: Path, environment: dict[str, str], replicas: list[httpx.Client]
) -> None:
    """A verdict and its picture are stored once, wherever they are sent, and lie in PostgreSQL and S3."""
    settings = load_settings(tmp_path, environment)
    first, second = replicas
    sent, picture = verdict(1), png(1)
    with Store.open(settings.database_url, settings.blob_url, migrate=False) as store:
        with store.begin() as session:
            seed_product(session)
        token = enrol(first, settings, "cam-1", "press-1").token
        line, other = Line(first, token), Line(second, token)
        assert [receipt.new for receipt in line.send(sent)] == [True]
        assert [receipt.new for receipt in other.send(sent)] == [False]
        assert line.upload(sent, picture).json()["new"]
        assert not other.upload(sent, picture).json()["new"]
        assert store.blobs.get(f"pictures/{sha256_hex(picture)}") == picture
    assert not (tmp_path / "escapement.db").exists()
    assert not (tmp_path / "blobs").exists()
