"""Hub ingest: verdicts and pictures together, over real connections to a real hub process.

    python -m tests.benchmarks.hub_ingest [--seconds 15] [--verdicts 500] [--pictures 50] [--polls 20] [--json]

Offers the given rates (per second) and prints what was taken, with latencies from when a request was due: a queue that
grows means that the rate was not held. Target: 500 verdicts/s and 50 pictures/s on two cores, which the load generator
here shares with the hub. On a busy machine look at the processor time the hub spent instead.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil

from inspection.contracts import sha256_hex
from inspection.settings import load_settings, save_settings
from inspection.store.session import Store
from tests.hub.helpers import Line, body_of, enrol, seed_product, verdict
from tests.ports import free_port

BATCH = 50
WORKERS = 4


@dataclass
class Took:
    """Latencies of one kind of request, in milliseconds, and how many things they carried."""

    latencies_ms: list[float] = field(default_factory=list)
    things: int = 0
    refused: int = 0

    def row(self, seconds: float) -> dict[str, float]:
        """Per second, and quantiles."""
        middle, late, worst = np.percentile(self.latencies_ms or [0.0], (50, 99, 100))
        return {
            "per_second": round(self.things / seconds, 1),
            "p50_ms": round(float(middle), 1),
            "p99_ms": round(float(late), 1),
            "worst_ms": round(float(worst), 1),
            "refused": self.refused,
        }


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, Line, psutil.Process]]:
    """A hub process on a free port, with one enrolled device."""
    settings = load_settings(folder, {}, hub_url=f"http://127.0.0.1:{free_port()}")
    save_settings(settings)
    with Store.open(settings.database_url, settings.blob_url) as store, store.begin() as session:
        seed_product(session)
    with subprocess.Popen([sys.executable, "-m", "inspection.hub", "--state", str(folder)]) as process:
        client = httpx.Client(base_url=settings.hub_url, timeout=60)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.get("/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        try:
            token = enrol(client, settings, "cam-1", "press-1").token
            yield settings.hub_url, Line(client, token), psutil.Process(process.pid)
        finally:
            process.terminate()


def pictures(number: int) -> list[bytes]:
    """PNGs of 640 x 480 pixels with the grain of a real camera."""
    draw = np.random.default_rng(1)
    made = []
    for _ in range(number):
        base = np.clip(draw.normal(140, 12, (480, 640)), 0, 255).astype(np.uint8)
        made.append(cv2.imencode(".png", cv2.GaussianBlur(base, (5, 5), 0))[1].tobytes())
    return made


def offer(
    rate: float, until: float, work: Callable[[httpx.Client, int], tuple[int, int]], address: str, took: Took
) -> None:
    """Call ``work`` ``rate`` times a second over a few connections until ``until`` (monotonic seconds)."""
    turn, lock, start = itertools.count(), threading.Lock(), time.monotonic()

    def run() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while True:
                with lock:
                    number = next(turn)
                due = start + number / rate
                if due >= until:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                things, refused = work(client, number)
                with lock:
                    took.latencies_ms.append(1000 * (time.monotonic() - due))
                    took.things += things
                    took.refused += refused

    threads = [threading.Thread(target=run) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(seconds: float, verdict_rate: float, picture_rate: float, poll_rate: float) -> dict[str, dict[str, float]]:
    """Offer all three loads together; latencies count from when a request was due, so a queue shows."""
    with tempfile.TemporaryDirectory() as folder, hub(Path(folder)) as (address, line, process):
        bodies = [
            body_of(*(verdict(n) for n in range(s, s + BATCH))) for s in range(1, int(verdict_rate * seconds) + 1, BATCH)
        ]
        owners = [verdict(n, boot="b2", id=f"p-{n}") for n in range(1, int(picture_rate * seconds) + 2)]
        for start in range(0, len(owners), 500):
            line.send(*owners[start : start + 500])
        files = pictures(len(owners))

        def send(client: httpx.Client, number: int) -> tuple[int, int]:
            answer = client.post("/v1/verdicts", content=bodies[number % len(bodies)], headers=line.headers)
            return (BATCH, 0) if answer.is_success else (0, 1)

        def upload(client: httpx.Client, number: int) -> tuple[int, int]:
            data = files[number % len(files)]
            where, query = f"/v1/pictures/{sha256_hex(data)}", {"verdict": owners[number % len(owners)].id, "why": "ng"}
            answer = client.put(where, params=query, content=data, headers=line.headers)
            return (1, 0) if answer.is_success else (0, 1)

        def poll(client: httpx.Client, _number: int) -> tuple[int, int]:
            return (1, 0) if client.get("/v1/assignment", headers=line.headers).is_success else (0, 1)

        loads = {"verdicts": (verdict_rate / BATCH, send), "pictures": (picture_rate, upload), "polls": (poll_rate, poll)}
        took = {name: Took() for name in loads}
        started, before = time.monotonic(), sum(process.cpu_times()[:2])
        threads = [
            threading.Thread(target=offer, args=(rate, started + seconds, work, address, took[name]))
            for name, (rate, work) in loads.items()
            if rate > 0
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed, spent = time.monotonic() - started, sum(process.cpu_times()[:2]) - before
    rows = {name: one.row(elapsed) for name, one in took.items()}
    return rows | {"hub": {"cpu_seconds": round(spent, 2), "cores": round(spent / elapsed, 2)}}


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--verdicts", type=float, default=500)
    parser.add_argument("--pictures", type=float, default=50)
    parser.add_argument("--polls", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.seconds, args.verdicts, args.pictures, args.polls)
    if args.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    for name, row in found.items():
        sys.stdout.write(f"{name:9} " + "  ".join(f"{key} {value:g}" for key, value in row.items()) + "\n")


if __name__ == "__main__":
    main()
