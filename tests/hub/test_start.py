"""The hub as a program: it starts light, says what is wrong, and stops when told."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port

HEAVY = ("torch", "mlflow", "prefect", "lightning", "timm", "label_studio_sdk", "matplotlib", "sklearn", "pandas")


def test_the_hub_loads_nothing_heavy() -> None:
    """A fresh process that builds the program has none of the training stack in memory."""
    code = f"import sys, inspection.hub.__main__; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_making_links_loads_no_web_framework() -> None:
    """Flows and the labelling side make links without the hub's own weight."""
    code = "import sys, inspection.hub.links; print('fastapi' in sys.modules or 'uvicorn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def port(tmp_path: Path) -> int:
    chosen = free_port()
    (tmp_path / "settings.json").write_text(json.dumps({"hub_url": f"http://127.0.0.1:{chosen}"}))
    return chosen


@pytest.fixture
def program(tmp_path: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "inspection.hub", "--state", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


def wait_for(port: int, program: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert program.poll() is None, program.stderr.read() if program.stderr else ""
        try:
            if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the hub did not answer within 60 s")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(program: subprocess.Popen[str], port: int, stop: signal.Signals) -> None:
    """At the address in settings.json, and a clean end within seconds."""
    wait_for(port, program)
    program.send_signal(stop)
    assert program.wait(15) == 0
    assert program.stderr is not None
    assert program.stderr.read() == ""


def test_a_taken_port_is_said_in_words(tmp_path: Path, port: int) -> None:
    """Exit 1 and the address, no traceback."""
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        command = [sys.executable, "-m", "inspection.hub", "--state", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_wrong_usage(tmp_path: Path) -> None:
    """Exit 2 and the name of the setting."""
    (tmp_path / "settings.json").write_text('{"hub_ulr": "x"}')
    command = [sys.executable, "-m", "inspection.hub", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "hub_ulr" in done.stderr
