"""A private S3 (moto's server) on a free loopback port, started for the tests and stopped after them."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.ports import free_port


@dataclass(frozen=True)
class ObjectStore:
    """A running S3."""

    address: str

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program needs to reach it, and nothing of the person who runs the tests."""
        return {
            "AWS_ENDPOINT_URL_S3": self.address,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "nothing-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def new_bucket(self) -> str:
        """The URL of an empty bucket."""
        name = f"tests-{uuid.uuid4().hex}"
        httpx.put(f"{self.address}/{name}").raise_for_status()
        return f"s3://{name}"


@contextmanager
def running(folder: Path) -> Iterator[ObjectStore]:
    """The server, until the block ends; what it says lies in ``folder``."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        (folder / "moto.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT) as server,
    ):
        try:
            _wait(server, address, folder / "moto.log")
            yield ObjectStore(address)
        finally:
            server.kill()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no S3 at {address} within 60 s: {log.read_text()}"
        try:
            httpx.get(address).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
