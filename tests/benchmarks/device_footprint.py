"""What a device carries: a fresh environment with the base alone, its size, its wheels, its memory, its start.

    python -m tests.benchmarks.device_footprint

Targets (NUMBERS): at most 400 MB installed, 130 MB resident, 1 s from start to first verdict. Every package must come as a
wheel, on x86-64 and on ARM64, so that a device needs no compiler.
"""

import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_agent.config import write_config
from tests.benchmarks.agent_speed import make_bundle
from tests.edge_agent.helpers import PRODUCT, Authority, air_gap, config, write_picture
from tests.faults.sizes import memory_of

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "infra" / "constraints.txt"
ARM64 = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
STARTS, PARTS, FRAME = 7, 50, (480, 640, 3)
REST_SECONDS = 2.0
PATIENCE_SECONDS = 60.0


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _pip(*arguments: str | Path) -> str:
    return _run(sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "-q", *arguments)


def wheel(folder: Path) -> Path:
    """The distribution as one file, built from a copy: a build leaves its own folders where it works."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("inspection", "pipelines", "edge_agent"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _pip("wheel", "--no-deps", "-w", folder, source)
    (made,) = folder.glob("*.whl")
    return made


def packages_on_arm64(file: Path, folder: Path) -> int:
    """How many wheels a 64-bit ARM device installs; RuntimeError where one is missing, with pip's own words."""
    report = folder / "arm64.json"
    platforms = [f"--platform={name}" for name in ARM64]
    _pip(
        "install", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", folder / "none", *platforms,
        "--report", report, "-c", CONSTRAINTS, file,
    )  # fmt: skip
    return len(json.loads(report.read_text())["install"])


def device_environment(file: Path, folder: Path) -> Path:
    """The Python of a fresh environment with the base alone, from wheels only."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    _pip("--python", python, "install", "--only-binary=:all:", "-c", CONSTRAINTS, file)
    return python


def installed(folder: Path) -> tuple[int, int]:
    """Bytes of the files in an environment, and how many packages they belong to."""
    held = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return held, len(list(folder.glob("lib/python*/site-packages/*.dist-info")))


@dataclass
class Device:
    """A folder with an enrolled agent, its air gap, its camera's folder, and the file in which it tells the line."""

    python: Path
    folder: Path
    shown: int = 0
    draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def make(self) -> None:
        """Enrol it, with a bundle that waits to be fetched."""
        authority = Authority()
        bundle = make_bundle(self.folder, PRODUCT).read_bytes()
        air_gap(self.folder / "gap", authority, assignment=authority.assignment(1, bundle), data=bundle)
        settings = config(authority.root, f"dir:{self.folder / 'gap'}").overridden(signal_file=str(self.folder / "signal"))
        write_config(self.folder / "state", settings)
        (self.folder / "pictures").mkdir()

    def show(self) -> None:
        """One more picture before the camera, unlike the others."""
        self.shown += 1
        picture = self.draw.integers(0, 256, FRAME, dtype=np.uint8)
        write_picture(self.folder / "pictures", f"part-{self.shown:04}.png", picture)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The agent at work; told to stop at the end."""
        state, camera = self.folder / "state", f"folder:{self.folder / 'pictures'}"
        program = [str(self.python), "-I", "-m", "edge_agent", "run", "--state", str(state), "--camera", camera]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(program, stderr=log, cwd=self.folder)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

    def answers(self) -> list[dict[str, str]]:
        """What the line was told of parts."""
        file = self.folder / "signal"
        told = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [answer for answer in told if "part" in answer]

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until each picture that was shown has its verdict. RuntimeError when there is none, or an ERROR."""
        limit = time.perf_counter() + PATIENCE_SECONDS
        while len(self.answers()) < self.shown:
            if process.poll() is not None or time.perf_counter() > limit:
                raise RuntimeError(f"the agent gave no verdict: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.002)
        if any(answer["decision"] == "ERROR" for answer in self.answers()):
            raise RuntimeError(f"the agent could not judge: {(self.folder / 'log').read_text()[-2000:]}")


def at_work(device: Device) -> dict[str, float]:
    """Start to first verdict in seconds (median of `STARTS`, the bundle being there), and MB resident when `PARTS` that
    came at once, each picture kept, have been dealt with."""
    device.make()
    starts = []
    for turn in range(STARTS + 1):
        device.show()
        started = time.perf_counter()
        with device.running() as process:
            device.wait(process)
            starts.append(time.perf_counter() - started)
            if turn == STARTS:
                for _ in range(PARTS):
                    device.show()
                device.wait(process)
                time.sleep(REST_SECONDS)
                memory = memory_of(process.pid)
    return {
        "start to first verdict, s": round(statistics.median(starts[1:]), 2),
        "resident MB, at rest": round(memory["VmRSS"] * 1024 / 1e6),
        "resident MB, peak": round(memory["VmHWM"] * 1024 / 1e6),
    }


def measure() -> list[dict[str, str | float]]:
    """One row: this machine's device."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = wheel(folder / "wheel")
        arm64 = packages_on_arm64(file, folder)
        python = device_environment(file, folder / "venv")
        size, packages = installed(folder / "venv")
        (folder / "device").mkdir()
        working = at_work(Device(python, folder / "device"))
    return [{"machine": platform.machine(), "installed MB": round(size / 1e6), "packages": packages,
             "wheels for ARM64": arm64, **working}]  # fmt: skip


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=1)
