"""When a scheduled retrain looks once, and when again; what a look that finds nothing to do costs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspection.settings import load_settings
from inspection.stages.due import Due
from inspection.store.leases import hold
from inspection.store.session import Store
from pipelines.retrain import LOOK_AGAIN_SECONDS, LOOKS_AGAIN, until_labels_rest


def looked(newest: list[int], *, known: int, enough: int = 1000) -> tuple[Due, list[float]]:
    """The answer, and how long was waited before each further look, when the newest label is this at each look."""
    pauses: list[float] = []
    labels: Iterator[int] = iter(newest)

    def look() -> Due:
        label = next(labels)
        return Due(label >= enough, f"{label} labels", label)

    return until_labels_rest(look, known, pause=pauses.append), pauses


def test_where_nobody_answers_one_look_is_all() -> None:
    """Nothing new came: the schedule asks again."""
    assert looked([7], known=7) == (Due(False, "7 labels", 7), [])


def test_labels_that_are_enough_begin_at_once() -> None:
    """Nobody waits for more than the plan asks for."""
    assert looked([8], known=7, enough=8) == (Due(True, "8 labels", 8), [])


@pytest.mark.parametrize(("newest", "due"), [([8, 9, 12], True), ([8, 9, 9], False)])
def test_while_people_answer_it_looks_again(newest: list[int], due: bool) -> None:
    """Until their labels are enough, or they rest."""
    answer, pauses = looked(newest, known=7, enough=12)
    assert (answer.due, answer.newest_label, pauses) == (due, newest[-1], [LOOK_AGAIN_SECONDS] * 2)


def test_people_who_never_rest_keep_no_run_for_ever() -> None:
    """After a minute the schedule's next run goes on."""
    answer, pauses = looked(list(range(8, 100)), known=7)
    assert not answer.due
    assert len(pauses) == LOOKS_AGAIN


def test_a_run_that_leaves_has_loaded_no_statistics(tmp_path: Path) -> None:
    """One comes every minute while another trains, on the same processor."""
    environment = os.environ | {"ESCAPEMENT_STATE": str(tmp_path)}
    settings = load_settings(tmp_path, environment)
    code = (
        "import sys; from pipelines.retrain import retrain; name = retrain.fn('lid').name; "
        "print(name, [m for m in ('scipy', 'sklearn', 'pandas', 'torch', 'mlflow') if m in sys.modules])"
    )
    with (
        Store.open(settings.database_url, settings.blob_url) as store,
        hold(store, "retrain/lid", "another worker", ttl_seconds=60),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.stdout.strip() == "Skipped []", done.stdout + done.stderr
