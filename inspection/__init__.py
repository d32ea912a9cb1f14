"""Escapement: visual inspection that closes the loop. Nothing is imported here but `os` (a rule that CI asserts)."""

import os

# What libraries tell their makers unasked: usage (ONNX Runtime, MLflow), or that they were loaded (albumentations looks for
# updates). Read when they are loaded; child processes inherit it. Whoever wants one sets it.
for _name in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE"):
    os.environ.setdefault(_name, "1")
