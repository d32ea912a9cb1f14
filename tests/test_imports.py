"""What must not be imported, asserted in fresh processes (import-linter reads imports, this runs them)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    *("torch", "torchvision", "lightning", "timm", "mlflow", "prefect", "sqlalchemy", "fastapi"),
    *("pandas", "sklearn", "scipy", "cv2", "numpy"),
)

ALLOWED = [
    ("inspection", ()),
    ("edge_agent", ()),
    ("pipelines", ()),
    ("inspection.contracts", ()),
    ("inspection.settings", ()),
    ("inspection.cli", ()),
    ("inspection.models.families", ()),
    ("edge_agent.loop", ("cv2", "numpy")),
    ("inspection.hub.app", ("sqlalchemy", "fastapi", "scipy", "cv2", "numpy")),
    ("inspection.stages.due", ("sqlalchemy", "cv2", "numpy")),
    ("pipelines.retrain", ("prefect", "sqlalchemy", "fastapi", "cv2", "numpy")),
    ("pipelines.sync_labels", ("prefect", "sqlalchemy", "fastapi", "cv2", "numpy")),
]


@pytest.mark.parametrize(("module", "allowed"), ALLOWED, ids=[module for module, _ in ALLOWED])
def test_a_light_module_loads_nothing_heavy(module: str, allowed: tuple[str, ...]) -> None:
    """Devices, commands' help and flows asked every minute must not wait for, or need, what only training needs."""
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules and m not in {allowed!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("package", ["inspection", "edge_agent", "pipelines"])
def test_a_package_root_imports_nothing_but_os(package: str) -> None:
    """Import-linter does not see a heavy import placed there."""
    text = (Path(__file__).parents[1] / package / "__init__.py").read_text()
    assert text.startswith('"""')
    imports = [line.strip() for line in text.split('"""')[2].splitlines() if line.strip().startswith(("import ", "from "))]
    assert set(imports) <= {"import os"}


@pytest.mark.parametrize("package", ["inspection", "edge_agent"])
def test_libraries_are_told_to_report_nothing(package: str) -> None:
    """ONNX Runtime reads it when it is loaded; what a person has set stands."""
    code = f"import os, {package}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    for given, wanted in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[1], env=environment | given,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == wanted
