"""Label delta: what a pull of 100 changed tasks costs in a small and in a large Label Studio project.

    python -m tests.benchmarks.label_delta [--sizes 1000,100000] [--rounds 3]

Starts a real Label Studio (SQLite, its own development server) and a store in a temporary folder. Figures are medians;
the ratio is taken in one run, rounds of the sizes in turn. Nothing is asserted. The overlap is five seconds instead of two
minutes, so that a pull reads the 100 tasks and not those of the round before.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import insert

from inspection.data.product import Product
from inspection.data.products import save_product
from inspection.labelling.port import LabelStudio, NewTask, task_key
from inspection.labelling.project import ensure_project
from inspection.labelling.pull import pull_labels
from inspection.labelling.studio import connect
from inspection.store.session import Store
from inspection.store.tables import PictureRow, TaskRow
from tests.labelling.conftest import make_product
from tests.labelling.helpers import answer, choice
from tests.labelling.live import RunningServer, find_label_studio, running_label_studio

OVERLAP_SECONDS = 5.0
CHANGED = 100


@dataclass
class Subject:
    """A project of one size, and what its pulls took: with 100 new answers, and again with nothing new."""

    product: Product
    project: int
    size: int
    tasks: list[int]
    new_seconds: list[float] = field(default_factory=list)
    again_seconds: list[float] = field(default_factory=list)


def make_subject(store: Store, studio: LabelStudio, size: int) -> Subject:
    """A project of ``size`` tasks without predictions, all of them in the store."""
    product = make_product(f"size-{size}")
    with store.begin() as session:
        save_product(session, product)
    project = ensure_project(studio, product)
    pictures = [f"{size:032x}{n:032x}" for n in range(size)]
    data = [
        {"image": f"http://127.0.0.1:9/p/{p}", "about": "Part", "escapement_key": task_key("label", p)} for p in pictures
    ]
    ids = studio.create_tasks(project, [NewTask(data=d) for d in data])
    fixed = {"length": 1, "media_type": "image/png", "width": 200, "height": 100, "phash": "0" * 16, "source": "import"}
    rows = [{"sha256": p, "product": product.name, "part": p, "group": p, **fixed} for p in pictures]
    asked = {"product": product.name, "purpose": "label", "why": "audit", "project_id": project}
    tasks = [{**asked, "picture": p, "label_studio_id": i} for p, i in zip(pictures, ids, strict=True)]
    with store.begin() as session:
        session.execute(insert(PictureRow), rows)
        session.execute(insert(TaskRow), tasks)
    return Subject(product, project, size, ids)


def answer_some(server: RunningServer, tasks: Sequence[int]) -> None:
    """Answer tasks, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda task: answer(server, task, [choice("dent")]), tasks))


def timed_pull(store: Store, studio: LabelStudio, subject: Subject) -> tuple[float, int]:
    """Seconds of one pull, and how many answers it brought."""
    start = time.perf_counter()
    report = pull_labels(store, studio, subject.product, subject.project, overlap_seconds=OVERLAP_SECONDS)
    return time.perf_counter() - start, report.merged.answered


def settle(store: Store, studio: LabelStudio, server: RunningServer, subject: Subject) -> None:
    """Put the watermark so far on that only what comes now is read."""
    time.sleep(OVERLAP_SECONDS + 1)
    answer_some(server, [subject.tasks.pop()])
    pull_labels(store, studio, subject.product, subject.project, overlap_seconds=OVERLAP_SECONDS)


def measure(store: Store, studio: LabelStudio, server: RunningServer, subject: Subject, round_: int) -> None:
    """One round: 100 new answers spread over the project, a pull, and the same pull once more."""
    settle(store, studio, server, subject)
    step = subject.size // (CHANGED + 1)
    answer_some(server, subject.tasks[round_::step][:CHANGED])
    seconds, answered = timed_pull(store, studio, subject)
    if answered != CHANGED:
        sys.exit(f"{subject.product.name}: the pull brought {answered} answers instead of {CHANGED}")
    subject.new_seconds.append(seconds)
    subject.again_seconds.append(timed_pull(store, studio, subject)[0])


def run(sizes: Sequence[int], rounds: int, folder: Path, program: str) -> list[Subject]:
    """Set up, then measure in turn."""
    with (
        running_label_studio(program, folder) as server,
        connect(server.url, server.token) as studio,
        Store.open(f"sqlite:///{folder / 'store.db'}", f"file://{folder / 'blobs'}") as store,
    ):
        subjects = [make_subject(store, studio, size) for size in sizes]
        sys.stderr.write(f"projects of {', '.join(map(str, sizes))} tasks are there\n")
        for round_ in range(rounds):
            for subject in subjects:
                measure(store, studio, server, subject, round_)
        return subjects


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    program = find_label_studio()
    if program is None:
        sys.exit("no label-studio program: make its environment, or set ESCAPEMENT_LABEL_STUDIO")
    with tempfile.TemporaryDirectory() as folder:
        subjects = run([int(s) for s in given.sizes.split(",")], given.rounds, Path(folder), program)
    sys.stdout.write(f"{'tasks':>10} {'100 new, s':>12} {'again, s':>10} {'ratio':>7}\n")
    first = statistics.median(subjects[0].new_seconds)
    for subject in subjects:
        new, again = statistics.median(subject.new_seconds), statistics.median(subject.again_seconds)
        sys.stdout.write(f"{subject.size:>10} {new:>12.2f} {again:>10.2f} {new / first:>7.2f}\n")


if __name__ == "__main__":
    main()
