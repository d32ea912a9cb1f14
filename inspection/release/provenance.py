"""Provenance of a run: settings as flat text, and the programs and processor that produced its numbers.

Invariants: nothing here contacts anything; a package that is missing is named as such and never left out.
"""

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "timm", "lightning", "onnx", "onnxruntime", "openvino", "numpy", "opencv-python-headless", "mlflow")
_VALUE_LENGTH = 6000  # characters, the limit of MLflow for a parameter


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as ``train.augment.blur_noise`` -> text; None is left out, lists are written as they are."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        elif value is not None:
            flat[name] = str(value)[:_VALUE_LENGTH]
    return flat


def environment() -> dict[str, str]:
    """Python, platform, processor, and the versions of the packages that decide results."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _processor()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
