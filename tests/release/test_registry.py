"""Runs, models and aliases on a real MLflow server, and numbers that come back out of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, path_not_unique, validate_param_and_metric_name
from sqlalchemy.orm import Session

from inspection.contracts import Costs, Limits
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.errors import ServerError
from inspection.release.gate import gate
from inspection.release.plots import confusion_figure, escape_overkill_figure
from inspection.release.promotions import promote
from inspection.release.provenance import environment, flatten
from inspection.release.registry import Registry, Run, edge_name, key_of, run_name, teacher_name
from inspection.release.scorecard import Scorecard
from inspection.store.session import Store
from tests.release.making import card, product
from tests.release.mlflow_server import running_mlflow
from tests.release.small_model import brightness_model, picture
from tests.release.test_promotions import Lease

LIMITS = Limits(escape_rate=0.05, overkill_rate=0.10)
_EXAMPLES = [
    Example(picture=format(i, "064x"), label="good", part=f"p{i}", group=f"p{i}", split=Split.TRAIN) for i in range(3)
]
SNAPSHOT = Snapshot(product="plate", good_class="good", classes=["good", "dent"], examples=_EXAMPLES)


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


def _evidence(run: Run, judged: Scorecard, latency: float) -> None:
    run.params({"train": product().train.model_dump(mode="json"), "seed": 7, "nothing": None})
    run.history([{"train/loss": 1.0 / e, "validation/balanced_accuracy": 1 - 0.5 / e} for e in range(1, 6)])
    run.metrics({"latency/int8_ms": latency, "latency/float_ms": 3 * latency, "size/int8_mb": 3.1})
    run.snapshot(SNAPSHOT, f"file:///blobs/snapshots/{SNAPSHOT.digest}.json")
    run.environment()
    run.scorecard("golden", judged)
    run.gate(1, gate(judged, None, LIMITS, Costs()))
    run.figure("plots/confusion.png", confusion_figure(judged))
    run.figure("plots/escape_overkill.png", escape_overkill_figure(judged, LIMITS))


def log_two(registry: Registry, folder: Path) -> list[tuple[str, str]]:
    """Two retrains with a teacher and a student each; returns (student run id, edge version) of both."""
    model = folder / "model.onnx"
    model.write_bytes(brightness_model())
    made = []
    for number, (judged, latency) in enumerate([(card(4, 60, 9, 100), 1.9), (card(0, 60, 2, 100), 1.8)], start=1):
        with registry.run("plate", run_name("retrain", number), kind="retrain", commit="c0ffee" * 6 + "c0ff") as parent:
            with registry.run("plate", run_name("teacher", number), kind="teacher", parent=parent) as teacher:
                _evidence(teacher, judged, 5 * latency)
                stored = teacher.onnx_model("teacher", model, picture(0.5)[None])
                registry.register(teacher_name("plate"), stored, run=teacher, tags={"snapshot": SNAPSHOT.digest})
            with registry.run("plate", run_name("student", number), kind="student", parent=parent) as student:
                _evidence(student, judged, latency)
                stored = student.onnx_model("student", model, picture(0.5)[None])
                tags = {"precision": "int8", "snapshot": SNAPSHOT.digest}
                version = registry.register(edge_name("plate"), stored, run=student, tags=tags)
            parent.snapshot(SNAPSHOT, "file:///blobs/snapshot.json")
            parent.scorecard("golden", judged)
        made.append((student.id, version))
    return made


@pytest.fixture(scope="module")
def logged(mlflow_url: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Two retrains on the server."""
    return log_two(Registry(mlflow_url), tmp_path_factory.mktemp("model"))


@pytest.mark.service
def test_a_run_keeps_its_evidence(mlflow_url: str, logged: list[tuple[str, str]]) -> None:
    """Parameters, curves, scorecard metrics, dataset, tags, plots and nesting are there to be read."""
    client = MlflowClient(mlflow_url, mlflow_url)
    run = client.get_run(logged[1][0])
    assert run.data.params["train.augment.blur_noise"] == "True"
    assert "nothing" not in run.data.params
    assert (run.data.metrics["golden/escape_rate"], run.data.metrics["golden/overkill_rate"]) == (0.0, 0.02)
    assert [m.value for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert (run.data.tags["gate1"], run.data.tags["snapshot"]) == ("PASS", SNAPSHOT.digest)
    assert run.data.tags["gate1.why"].startswith("PASS: escape 0 of 60")
    dataset = run.inputs.dataset_inputs[0].dataset
    assert SNAPSHOT.digest.startswith(dataset.digest)
    assert json.loads(dataset.profile)["snapshot"] == SNAPSHOT.digest
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (parent.data.tags["kind"], parent.info.status) == ("retrain", "FINISHED")
    found = {f.path for folder in ("plots", "gates", "scorecards") for f in client.list_artifacts(run.info.run_id, folder)}
    assert found == {
        "plots/confusion.png",
        "plots/escape_overkill.png",
        "gates/gate1.json",
        "scorecards/golden.json",
        "scorecards/golden.md",
    }


@pytest.mark.service
def test_versions_rise_and_carry_their_tags(mlflow_url: str, logged: list[tuple[str, str]]) -> None:
    """Two retrains made versions 1 and 2 of teacher and edge model; tags may follow later."""
    registry = Registry(mlflow_url)
    assert [version for _, version in logged] == ["1", "2"]
    assert registry.versions(edge_name("plate")) == registry.versions(teacher_name("plate")) == ["1", "2"]
    registry.tag_version(edge_name("plate"), "2", {"bundle": "b" * 64, "gate2": "PASS"})
    version = MlflowClient(mlflow_url, mlflow_url).get_model_version(edge_name("plate"), "2")
    assert (version.tags["precision"], version.tags["gate2"], version.run_id) == ("int8", "PASS", logged[1][0])


def write_down(
    session: Session, product: str, role: str, version: str, run: str, teacher_version: str | None = None
) -> None:
    """Into the ledger of promotions."""
    promote(
        session, product, role, model_version=version, teacher_version=teacher_version, run_id=run,
        snapshot=SNAPSHOT.digest, bundle="b" * 64, recipe="c" * 64, who="test", why="gates passed", lease=Lease(),
    )  # fmt: skip


@pytest.mark.service
def test_aliases_follow_the_ledger(mlflow_url: str, logged: list[tuple[str, str]], store: Store) -> None:
    """Challenger, then champion; an alias moved by hand is put back; nothing else is touched."""
    registry, client = Registry(mlflow_url), MlflowClient(mlflow_url, mlflow_url)

    def write(role: str, version: str) -> None:
        with store.begin() as session:
            write_down(session, "plate", role, version, logged[int(version) - 1][0], teacher_version=version)
            registry.project_aliases(session, "plate")

    write("challenger", "1")
    assert registry.aliases(edge_name("plate")) == {"challenger": "1"}
    write("champion", "1")
    assert registry.aliases(edge_name("plate")) == {"champion": "1"}
    write("challenger", "2")
    client.set_registered_model_alias(edge_name("plate"), "champion", "2")
    client.set_registered_model_alias(edge_name("plate"), "mine", "1")
    with store.begin(read_only=True) as session:
        registry.project_aliases(session, "plate")
    assert registry.aliases(edge_name("plate")) == {"champion": "1", "challenger": "2", "mine": "1"}
    assert registry.aliases(teacher_name("plate")) == {"champion": "1", "challenger": "2"}
    assert registry.aliases("nobody") == {}
    client.delete_registered_model_alias(edge_name("plate"), "mine")  # this runs once per database, on one MLflow


@pytest.mark.service
def test_a_promotion_of_a_model_that_was_never_registered_has_no_alias(mlflow_url: str, store: Store) -> None:
    """There is no version to point to, and asking for it would be refused at every look."""
    with store.begin() as session:
        write_down(session, "cup", "champion", "", "r1")
        assert Registry(mlflow_url).project_aliases(session, "cup") == {edge_name("cup"): {}, teacher_name("cup"): {}}


@pytest.mark.service
@pytest.mark.slow
def test_mlflow_serves_the_registered_model(mlflow_url: str, logged: list[tuple[str, str]], tmp_path: Path) -> None:
    """`mlflow models predict` on the registered version gives ONNX Runtime's own numbers."""
    frames = np.stack([picture(0.2), picture(0.7)])
    asked = tmp_path / "frames.json"
    asked.write_text(json.dumps({"inputs": {"frame": frames.tolist()}}))
    answered = tmp_path / "answer.json"
    uri = f"models:/{edge_name('plate')}/{logged[0][1]}"
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", uri, "--env-manager", "local"]
    subprocess.run(
        [*command, "-i", str(asked), "-t", "json", "-o", str(answered)],
        env=os.environ | {"MLFLOW_TRACKING_URI": mlflow_url, "MLFLOW_DISABLE_TELEMETRY": "true"},
        check=True,
        timeout=200,
    )
    predictions = json.loads(answered.read_text())["predictions"]
    session = onnxruntime.InferenceSession(brightness_model(), providers=["CPUExecutionProvider"])
    scores, maps = session.run(["scores", "defect_map"], {"frame": frames})
    np.testing.assert_allclose(predictions["scores"], scores, rtol=1e-6)
    np.testing.assert_allclose(predictions["defect_map"], maps, rtol=1e-6)


@pytest.mark.service
def test_no_pickle_is_stored(
    mlflow_url: str, logged: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored model is an ONNX file with descriptions, a signature and an input example."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    folder = Path(download_artifacts(f"models:/{edge_name('plate')}/1", dst_path=str(tmp_path)))
    names = {p.name for p in folder.rglob("*") if p.is_file()}
    assert {"model.onnx", "MLmodel", "input_example.json"} <= names
    assert not {n for n in names if n.endswith((".pkl", ".pickle", ".pt", ".pth"))}
    assert "signature" in (folder / "MLmodel").read_text()


@pytest.mark.service
def test_a_run_whose_work_fails_is_marked_failed(mlflow_url: str) -> None:
    """The error goes on, and MLflow shows it."""
    registry = Registry(mlflow_url)
    with pytest.raises(ZeroDivisionError), registry.run("plate", "broken", kind="teacher") as run:
        _ = 1 / 0
    assert MlflowClient(mlflow_url, mlflow_url).get_run(run.id).info.status == "FAILED"


@pytest.mark.service
def test_links_lead_to_pages_about_training(mlflow_url: str, logged: list[tuple[str, str]]) -> None:
    """Links name the experiment and its runs, and ask for the training pages."""
    runs = [run for run, _ in logged]
    assert Registry(mlflow_url).experiment_page("plate").endswith("workflowType=machine_learning&compareRunsMode=CHART")
    page = unquote(Registry(mlflow_url).comparison_page("plate", runs))
    assert json.dumps(runs) in page
    assert "workflowType=machine_learning" in page


@pytest.mark.service
def test_classes_of_any_name_end_no_training(mlflow_url: str) -> None:
    """What MLflow refuses in a name is replaced; two classes stay two, and one curve stays one."""
    classes = ["scratch (deep)", "scratch [deep]", "..", "dent"]
    with Registry(mlflow_url).run("plate", "odd names", kind="teacher") as run:
        for step in range(2):
            run.metrics({f"golden/recall_{name}": place + step for place, name in enumerate(classes)}, step=step)
        run.params({"retrain": {"may_shrink_to": {name: place for place, name in enumerate(classes)}}})
    client = MlflowClient(mlflow_url, mlflow_url)
    kept = client.get_run(run.id).data
    assert sorted(kept.metrics.values()) == [1, 2, 3, 4]
    assert kept.metrics["golden/recall_dent"] == 4
    assert sorted(kept.params.values()) == ["0", "1", "2", "3"]
    first = next(name for name in kept.metrics if kept.metrics[name] == 1)
    assert first.startswith("golden/recall_scratch _deep_-")
    assert [m.value for m in client.get_metric_history(run.id, first)] == [0, 1]


@given(st.one_of(st.text(max_size=300), st.text("a./: (-", max_size=12)))
def test_every_name_makes_a_key_that_mlflow_takes(name: str) -> None:
    """By its own rules; what it takes already stays as it is."""
    key = key_of(name)
    assert validate_param_and_metric_name(key)
    assert not path_not_unique(key)
    assert 0 < len(key) <= MAX_ENTITY_KEY_LENGTH
    assert key_of(key) == key


@pytest.mark.service
def test_a_server_that_says_no_is_quoted(mlflow_url: str) -> None:
    """A refused request names the server, what was tried, and what it said."""
    registry = Registry(mlflow_url)
    with pytest.raises(ServerError, match="tagging version 99 of nobody"):
        registry.tag_version("nobody", "99", {"a": "b"})


def test_a_dead_server_is_said_in_words_and_soon() -> None:
    """Nobody waits minutes for a refused connection."""
    started, nobody = time.monotonic(), Registry("http://127.0.0.1:9")
    with pytest.raises(ServerError, match="inspection up"), nobody.run("plate", "x", kind="teacher"):
        pass
    assert time.monotonic() - started < 15


def test_parameters_are_flattened() -> None:
    """Nested settings get dotted names; what is not set is left out."""
    assert flatten({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": "1", "d": "[1, 2]"}


def test_the_environment_names_what_decides_results() -> None:
    """Python, processor and the libraries that compute."""
    found = environment()
    assert found["onnxruntime"] == onnxruntime.__version__
    assert "openvino" in found
    assert found["cpu"]
