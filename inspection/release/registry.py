"""Registry: MLflow runs, their evidence, registered versions and aliases, through one explicit server address.

Invariants: no global tracking address, no active-run stack: each call names its server and its run; models are stored as
ONNX with a signature and an input example, never as pickle; aliases are a projection of our promotions ledger; a server
that does not answer is a ServerError in words.
"""

import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import mlflow.onnx
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_GIT_COMMIT, MLFLOW_PARENT_RUN_ID
from requests.exceptions import RequestException
from sqlalchemy.orm import Session

from inspection.contracts import sha256_hex
from inspection.data.snapshot_record import Snapshot, Split
from inspection.errors import ServerError
from inspection.release.gate import GateAnswer
from inspection.release.promotions import challenger, champion
from inspection.release.provenance import environment, flatten
from inspection.release.scorecard import Scorecard

_DIGEST_DIGITS = 36  # MLflow's limit for a dataset's digest; the whole snapshot id is in the tag and the profile
_BATCH = 1000  # metrics of one request, MLflow's limit
_PARAM_BATCH = 100
_KEY_LENGTH = 250  # characters of a metric's or parameter's name, MLflow's limit
_KEY_SUFFIX = 6  # hexadecimal digits
_NO_KEY = re.compile(r"[^/\w.\- :]|(?<![^/])\.{0,2}(?![^/])|^\.\.")
"""What MLflow refuses in such a name: other characters; a part between slashes that is empty, ``.`` or ``..``; ``..`` in
front."""
_HEALTH_SECONDS = 10.0


def teacher_name(product: str) -> str:
    """Registered model of the float teachers."""
    return f"{product}-teacher"


def edge_name(product: str) -> str:
    """Registered model of what runs on devices."""
    return f"{product}-edge"


@contextmanager
def _in_words(url: str, doing: str) -> Iterator[None]:
    """Translate what MLflow and its transport raise, once."""
    try:
        yield
    except (MlflowException, RequestException) as error:
        raise ServerError(f"MLflow at {url} failed while {doing}: {error}. Look at its log, then run this again") from error


def key_of(name: str) -> str:
    """The name of a metric or parameter as MLflow takes it: what it refuses is ``_``, and a name that is longer is cut.

    Classes are named freely (``scratch (deep)``). What was changed ends with digits of the name itself, so that two names
    stay two, and one name is the same key in every run.
    """
    plain = _NO_KEY.sub("_", name)
    if plain == name and len(name) <= _KEY_LENGTH:
        return name
    suffix = f"-{sha256_hex(name.encode())[:_KEY_SUFFIX]}"
    return plain[: _KEY_LENGTH - len(suffix)] + suffix


class Run:
    """One MLflow run. Every method sends at once, so that what was reached is visible while the run goes on."""

    def __init__(self, client: MlflowClient, url: str, run_id: str, experiment_id: str) -> None:
        self._client, self._url, self._experiment = client, url, experiment_id
        self.id = run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters, nested ones by dotted names (`key_of`)."""
        params = [Param(key_of(key), value) for key, value in flatten(values).items()]
        with _in_words(self._url, "writing parameters"):
            for start in range(0, len(params), _PARAM_BATCH):
                self._client.log_batch(self.id, params=params[start : start + _PARAM_BATCH])

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Metrics at one step; names (`key_of`) like ``golden/escape_rate`` group in the comparison."""
        self.history([values], first_step=step)

    def history(self, epochs: Sequence[Mapping[str, float]], *, first_step: int = 0) -> None:
        """Curves: one mapping of metrics per epoch."""
        now = int(time.time() * 1000)
        sent = [
            Metric(key_of(key), float(value), now, first_step + step)
            for step, row in enumerate(epochs)
            for key, value in row.items()
        ]
        with _in_words(self._url, "writing metrics"):
            for start in range(0, len(sent), _BATCH):
                self._client.log_batch(self.id, metrics=sent[start : start + _BATCH])

    def tags(self, values: Mapping[str, str]) -> None:
        """Tags of the run."""
        with _in_words(self._url, "writing tags"):
            self._client.log_batch(self.id, tags=[RunTag(key, value) for key, value in values.items()])

    def snapshot(self, snapshot: Snapshot, source: str) -> None:
        """The snapshot as the run's dataset; ``source`` is the URL of its JSON. Its digest is the beginning of the id."""
        counts = {split.value: len(snapshot.of(split)) for split in Split}
        profile = counts | {"snapshot": snapshot.digest, "classes": len(snapshot.classes), "refused": len(snapshot.refused)}
        entity = DatasetEntity(
            name=f"{snapshot.product}-{snapshot.digest[:8]}",
            digest=snapshot.digest[:_DIGEST_DIGITS],
            source_type="local",
            source=_json({"uri": source}),
            profile=_json(profile),
        )
        inputs = [DatasetInput(entity, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])]
        with _in_words(self._url, "writing the dataset"):
            self._client.log_inputs(self.id, datasets=inputs)
        self.tags({"snapshot": snapshot.digest})
        self.params({f"snapshot.{split}": number for split, number in counts.items()})

    def environment(self) -> None:
        """What this ran on: an artefact with everything, tags with what is compared."""
        found = environment()
        self.json("environment.json", found)
        self.tags({f"env.{name}": found[name] for name in ("python", "cpu", "torch", "onnxruntime")})

    def scorecard(self, name: str, card: Scorecard) -> None:
        """A scorecard as metrics ``<name>/...``, as JSON and as a page to read."""
        self.metrics(card.metrics(name))
        self.json(f"scorecards/{name}.json", card.model_dump(mode="json"))
        self.text(f"scorecards/{name}.md", card.to_markdown())

    def gate(self, number: int, answer: GateAnswer) -> None:
        """A gate's decision: tag ``gate1`` or ``gate2``, the paragraph, and the whole answer."""
        self.tags({f"gate{number}": answer.answer.value, f"gate{number}.why": answer.why})
        self.json(f"gates/gate{number}.json", answer.body())

    def figure(self, path: str, figure: Figure) -> None:
        """A picture of a figure (``plots/confusion.png``)."""
        with _in_words(self._url, f"storing {path}"):
            self._client.log_figure(self.id, figure, path)

    def text(self, path: str, text: str) -> None:
        """A text artefact."""
        with _in_words(self._url, f"storing {path}"):
            self._client.log_text(self.id, text, path)

    def json(self, path: str, value: Any) -> None:
        """A JSON artefact."""
        with _in_words(self._url, f"storing {path}"):
            self._client.log_dict(self.id, value, path)

    def onnx_model(self, name: str, path: Path, example: npt.NDArray[np.uint8]) -> str:
        """Store the ONNX file at ``path`` as a model that MLflow can serve; returns its id.

        ``example``: uint8 frames ``[N, H, W, 3]`` (keep them small: they are written as JSON too). The outputs they give
        make the signature, so a file that does not run is not stored (onnxruntime's error).
        """
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: example}
        outputs = session.run(None, feed)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), name) for name in feed]),
            outputs=Schema(
                [
                    TensorSpec(value.dtype, (-1, *value.shape[1:]), info.name)
                    for info, value in zip(session.get_outputs(), outputs, strict=True)
                ]
            ),
        )
        with _in_words(self._url, f"storing the model {name}"):
            return self._store_model(name, path, feed, signature)

    def _store_model(self, name: str, path: Path, feed: dict[str, npt.NDArray[np.uint8]], signature: ModelSignature) -> str:
        logged = self._client.create_logged_model(self._experiment, name=name, source_run_id=self.id, model_type="onnx")
        described = Model(
            artifact_path=logged.artifact_location,
            run_id=self.id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        )
        with tempfile.TemporaryDirectory(prefix="escapement-model-") as folder:
            target = str(Path(folder, "model"))
            _save(path, target, described, feed, signature)
            self._client.log_model_artifacts(logged.model_id, target)
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(self.id, [LoggedModelOutput(logged.model_id, step=0)])
        return str(logged.model_id)


class Registry:
    """An MLflow server. Making one contacts nobody; every method raises ServerError when the server fails."""

    def __init__(self, mlflow_url: str) -> None:
        self.url = mlflow_url.rstrip("/")
        self._client = MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    def check(self) -> None:
        """Ask for the server's health within seconds, before MLflow's own client tries for minutes."""
        try:
            httpx.get(f"{self.url}/health", timeout=_HEALTH_SECONDS).raise_for_status()
        except httpx.HTTPError as error:
            raise ServerError(f"MLflow at {self.url} does not answer ({error}): start it with `inspection up`") from error

    @contextmanager
    def run(
        self,
        product: str,
        name: str,
        *,
        kind: str,
        parent: Run | None = None,
        commit: str | None = None,
    ) -> Iterator[Run]:
        """A run in the product's experiment; ``kind`` ("retrain", "teacher", "student") is a tag, ``parent`` nests it.

        It ends FINISHED, or FAILED when the block raises (the error goes on).
        """
        self.check()
        given = {"kind": kind, "product": product}
        given |= {MLFLOW_PARENT_RUN_ID: parent.id} if parent else {}
        given |= {MLFLOW_GIT_COMMIT: commit} if commit else {}
        with _in_words(self.url, f"starting run {name!r}"):
            experiment = self._experiment(product)
            run_id = self._client.create_run(experiment, tags=given, run_name=name).info.run_id
        try:
            yield Run(self._client, self.url, run_id, experiment)
        except BaseException:
            self._end_failed(run_id)
            raise
        with _in_words(self.url, f"ending run {name!r}"):
            self._end(run_id, RunStatus.FINISHED)

    def _end(self, run_id: str, status: int) -> None:
        with redirect_stdout(sys.stderr):  # MLflow prints the run's address; standard output is for --json
            self._client.set_terminated(run_id, RunStatus.to_string(status))

    def reopen(self, run_id: str) -> Run:
        """A run that was begun elsewhere, to add what later stages found. Its status stays as it is."""
        self.check()
        with _in_words(self.url, f"reading run {run_id}"):
            return Run(self._client, self.url, run_id, self._client.get_run(run_id).info.experiment_id)

    def _end_failed(self, run_id: str) -> None:
        """Mark a run FAILED; a server that is gone must not hide the error that ended the run."""
        try:
            self.check()
            with _in_words(self.url, "marking a run as failed"):
                self._end(run_id, RunStatus.FAILED)
        except ServerError:
            return  # the run stays RUNNING in MLflow; the caller gets the first error, which is the one that matters

    def _experiment(self, product: str) -> str:
        """The id of the product's experiment, made if needed; when another process was first, its experiment."""
        for _ in range(2):
            if (found := self._client.get_experiment_by_name(product)) is not None:
                return str(found.experiment_id)
            try:
                return str(self._client.create_experiment(product))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise ServerError(f"experiment {product!r} was deleted in MLflow at {self.url}: restore it there and run again")

    def experiment_page(self, product: str) -> str:
        """Address of the product's runs as charts. Without the workflow in it MLflow opens an empty page about traces."""
        self.check()
        with _in_words(self.url, f"finding experiment {product!r}"):
            experiment = self._experiment(product)
        return f"{self.url}/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART"

    def comparison_page(self, product: str, run_ids: Sequence[str]) -> str:
        """Address of the comparison of these runs of one product."""
        self.check()
        with _in_words(self.url, f"finding experiment {product!r}"):
            experiment = self._experiment(product)
        runs, experiments = (quote(json.dumps(ids)) for ids in (list(run_ids), [experiment]))
        return f"{self.url}/#/compare-runs?runs={runs}&experiments={experiments}&workflowType=machine_learning"

    def register(self, model: str, model_id: str, *, run: Run, tags: Mapping[str, str], description: str = "") -> str:
        """A new version of the registered model ``model`` (`teacher_name`, `edge_name`); returns its number as text."""
        with _in_words(self.url, f"registering {model}"):
            self._ensure_model(model)
            made = self._client.create_model_version(
                model, f"models:/{model_id}", run_id=run.id, tags=dict(tags), description=description, model_id=model_id
            )
        return str(made.version)

    def _ensure_model(self, model: str) -> None:
        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def tag_version(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a registered version (``bundle``, ``gate2``) once they are known."""
        with _in_words(self.url, f"tagging version {version} of {model}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(model, version, key, value)

    def aliases(self, model: str) -> dict[str, str]:
        """Alias -> version of a registered model; empty when there is no such model."""
        self.check()
        with _in_words(self.url, f"reading {model}"):
            try:
                return dict(self._client.get_registered_model(model).aliases)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}

    def versions(self, model: str) -> list[str]:
        """Version numbers of a registered model, oldest first."""
        self.check()
        with _in_words(self.url, f"listing versions of {model}"):
            found = self._client.search_model_versions(f"name = '{model}'")
        return sorted((str(v.version) for v in found), key=int)

    def project_aliases(self, session: Session, product: str) -> dict[str, dict[str, str]]:
        """Make the aliases ``champion`` and ``challenger`` say what the ledger says; returns model -> alias -> version.

        Idempotent, so it mends aliases that were moved by hand. A promotion whose model was never registered has no alias.
        """
        rows = {"champion": champion(session, product), "challenger": challenger(session, product)}
        edge = {alias: row.model_version for alias, row in rows.items() if row and row.model_version}
        teacher = {alias: row.teacher_version for alias, row in rows.items() if row and row.teacher_version}
        wanted = {edge_name(product): edge, teacher_name(product): teacher}
        for model, aliases in wanted.items():
            self._set_aliases(model, aliases)
        return wanted

    def _set_aliases(self, model: str, wanted: Mapping[str, str]) -> None:
        present = self.aliases(model)
        with _in_words(self.url, f"setting aliases of {model}"):
            for alias, version in wanted.items():
                if present.get(alias) != version:
                    self._client.set_registered_model_alias(model, alias, version)
            for alias in {"champion", "challenger"} & (present.keys() - wanted.keys()):
                self._client.delete_registered_model_alias(model, alias)


def _save(
    path: Path, target: str, described: Model, feed: dict[str, npt.NDArray[np.uint8]], signature: ModelSignature
) -> None:
    needs = [f"{name}=={metadata.version(name)}" for name in ("mlflow", "onnx", "onnxruntime", "numpy")]
    with warnings.catch_warnings():
        # MLflow warns about type hints in its own modules when it first loads them, here.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        mlflow.onnx.save_model(
            onnx.load(path),
            target,
            mlflow_model=described,
            signature=signature,
            input_example=feed,
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=needs,
            save_as_external_data=False,
        )


def run_name(kind: str, number: int) -> str:
    """A run name short enough for a list, which shows the time beside it: ``teacher 12``."""
    return f"{kind} {number}"


def _json(value: Any) -> str:

    return json.dumps(value)
