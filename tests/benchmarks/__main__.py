"""`make bench`: the figures of the product side by side, as measured here and now; also written to ``bench.json``.

Absolute times on a shared machine mean little: read the ratios.
"""

import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import agent_speed, bundle_speed, device_footprint, hub_ingest, label_delta
from tests.labelling.live import find_label_studio

OUT = Path("bench.json")


def labels() -> list[dict[str, Any]]:
    """A pull of 100 changed tasks in a small and in a large project."""
    program = find_label_studio()
    if program is None:
        return [{"skipped": "no label-studio program: run `make label-studio`"}]
    with tempfile.TemporaryDirectory() as folder:
        subjects = label_delta.run([1_000, 100_000], 3, Path(folder), program)
    return [
        {
            "tasks": subject.size,
            "100 new answers, s": round(statistics.median(subject.new_seconds), 2),
            "same again, s": round(statistics.median(subject.again_seconds), 2),
        }
        for subject in subjects
    ]


def ingest() -> list[dict[str, Any]]:
    """What one hub takes in."""
    found = hub_ingest.measure(15, 500, 50, 20)
    return [{"load": name, **row} for name, row in found.items()]


BENCHES = {
    "bundle speed, one thread, batch 1": bundle_speed.measure,
    "agent, one thread: frame in memory to durable, signalled verdict": agent_speed.measure,
    "a device: the base alone, from wheels, in a fresh environment": device_footprint.measure,
    "label delta": labels,
    "hub ingest": ingest,
}


def main() -> None:
    """Run all, print tables, write the file."""
    console = Console()
    told: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    for title, bench in BENCHES.items():
        console.print(f"==> {title}")
        rows: list[dict[str, Any]] = bench()
        told[title] = rows
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = Table(*columns, show_edge=False)
        for row in rows:
            table.add_row(*(str(row.get(column, "")) for column in columns))
        console.print(table)
    OUT.write_text(json.dumps(told, indent=1) + "\n")
    console.print(f"written to {OUT}")


if __name__ == "__main__":
    main()
