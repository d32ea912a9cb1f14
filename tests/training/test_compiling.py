"""A plan may ask for compiled steps."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inspection.data.product import StudentPlan
from inspection.training.distil import distil
from inspection.training.engine import Compute
from inspection.training.fit import train
from tests.training.pictures import parts, product
from tests.training.test_going_on import PowerCutError

_PROGRAM = """
import sys
from pathlib import Path
from inspection.errors import EnvironmentTroubleError
from inspection.training.fit import train
from tests.training.pictures import parts, product
snapshot, files = parts(32)
try:
    train(snapshot, product(compile_network=True), files.__getitem__, Path(sys.argv[1]))
except EnvironmentTroubleError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # the compiler uses what Python and PyTorch are about to drop
def test_compiled_steps_teach_the_same(tmp_path: Path) -> None:
    """Nearly the weights of the plain network, bit for bit again after a kill, under the same names; a student and averaged
    weights as well."""
    snapshot, files = parts(32)
    found: dict[str, dict[str, torch.Tensor]] = {}

    def taught(name: str, bookmarks: Path | None = None, dies_after: int | None = None, **plan: Any) -> None:
        def told(epoch: int, _: dict[str, float]) -> None:
            if epoch == dies_after:
                raise PowerCutError

        asked = product(average_share=0.2, epochs=3, patience=3, precision="32", **plan)
        asked = asked.model_copy(update={"student": StudentPlan(backbone=asked.train.backbone, epochs=2)})
        compute = Compute(bookmark_seconds=0.0)
        folder = tmp_path / name
        teacher = train(
            snapshot, asked, files.__getitem__, folder, compute=compute, bookmarks=bookmarks, on_epoch=told, keep_last=True
        )
        found[name] = load_file(teacher.weights)
        if name == "compiled":
            student = distil(teacher, snapshot, asked, files.__getitem__, tmp_path / "student", compute=compute)
            assert student.history[-1]["loss"] < student.history[0]["loss"]
            assert student.network().state_dict().keys() == load_file(student.weights).keys()

    taught("plain")
    taught("compiled", compile_network=True)
    with pytest.raises(PowerCutError):
        taught("killed", tmp_path, dies_after=1, compile_network=True)
    assert list(tmp_path.glob("bookmark-*.ckpt"))
    taught("again", tmp_path, compile_network=True)
    assert found["compiled"].keys() == found["plain"].keys()
    assert all(torch.equal(found["again"][name], value) for name, value in found["compiled"].items())
    plain, compiled = (
        torch.cat([value.flatten().float() for value in found[name].values()]) for name in ("plain", "compiled")
    )
    assert torch.linalg.norm(compiled - plain) / torch.linalg.norm(plain) < 1e-3


@pytest.mark.slow
def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    """Before anything is trained."""
    missing = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        env=os.environ | missing,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "install a C++ compiler" in said.stdout
    assert "`compile_network`" in said.stdout
