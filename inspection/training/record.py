"""What a training leaves behind: a folder with ``weights.safetensors`` and ``trained.json``. Never a pickle."""

import json
from pathlib import Path
from typing import ClassVar

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from inspection.contracts import Contract, Sha256
from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph
from inspection.models.network import InspectionNet
from inspection.models.preprocess import Preprocess

WEIGHTS_FILE = "weights.safetensors"
RECORD_FILE = "trained.json"


class Trained(Contract):
    """A trained network on disk. ``history`` has one entry per epoch, counted from 0; ``best_epoch`` is the one kept.

    ``mean`` and ``std`` are the normalization (RGB, scale [0, 1]); ``started_from`` says in words where the first
    weights came from; ``seconds`` is wall time, decoding of the pictures included; where a training went on after a
    kill, of all its processes but what was lost.
    """

    SCHEMA: ClassVar[str] = "escapement.trained/1.0"

    folder: Path = Field(exclude=True)
    backbone: str
    classes: list[str] = Field(min_length=2)
    good_class: str
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    snapshot: Sha256
    started_from: str
    precision: str
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float

    @property
    def weights(self) -> Path:
        """The checkpoint."""
        return self.folder / WEIGHTS_FILE

    @property
    def good_index(self) -> int:
        """Index of the good class among the scores."""
        return self.classes.index(self.good_class)

    @property
    def best(self) -> dict[str, float]:
        """Metrics of the epoch that was kept."""
        return self.history[self.best_epoch]

    def network(self) -> InspectionNet:
        """The network with its weights, in evaluation mode. Raises UsageError when the files do not fit together."""
        net = catalogue.build(
            self.backbone,
            len(self.classes),
            pretrained="none",
            height=self.height,
            width=self.width,
            good_index=self.good_index,
        )
        try:
            net.load_state_dict(load_file(self.weights))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UsageError(f"{self.weights} does not hold the network {RECORD_FILE} describes: {error}") from error
        return net.eval()

    def preprocess(self) -> Preprocess:
        """The preprocessing this network was trained with."""
        return Preprocess(self.height, self.width, self.mean, self.std)

    def deploy_graph(self) -> DeployGraph:
        """What is exported for a device: frame -> scores, defect map."""
        return DeployGraph(self.network(), self.preprocess())


def save_trained(trained: Trained, state: dict[str, Tensor]) -> Trained:
    """Write weights first and the record last, so that a folder with a record is complete."""
    trained.folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in state.items()}, trained.weights)
    temporary = trained.folder / f".{RECORD_FILE}.tmp"
    temporary.write_bytes(trained.canonical())
    temporary.replace(trained.folder / RECORD_FILE)
    return trained


def load_trained(folder: Path) -> Trained:
    """Read a folder written by `save_trained`. Raises UsageError when there is none, or it is unreadable."""
    path = folder / RECORD_FILE
    try:
        content = json.loads(path.read_bytes())
        return Trained.model_validate(content | {"folder": folder})
    except FileNotFoundError as error:
        raise UsageError(f"no trained network in {folder}: {RECORD_FILE} is missing") from error
    except (ValidationError, json.JSONDecodeError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
