"""Preprocessing: the same numbers in torch and in ONNX Runtime."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inspection.models.preprocess import Preprocess, halved
from inspection.release.halving import prepend_halving

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEIGHT, WIDTH = 48, 40


class _Fitting(Preprocess):
    """What torch exports: all behind the halving."""

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        return self.normalize(self.fit(frame))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """The preprocessing alone, in ONNX Runtime."""
    path: Path = tmp_path_factory.mktemp("preprocess") / "preprocess.onnx"
    free = {"frame": {0: torch.export.Dim("N"), 1: torch.export.Dim("H"), 2: torch.export.Dim("W")}}
    frame = torch.zeros((2, 50, 60, 3), dtype=torch.uint8)
    torch.onnx.export(
        _Fitting(HEIGHT, WIDTH, MEAN, STD).eval(), (frame,), path, dynamo=True, external_data=False, verbose=False,
        opset_version=18, input_names=["frame"], output_names=["input"], dynamic_shapes=free,
    )  # fmt: skip
    model = onnx.load(path)
    prepend_halving(model, HEIGHT, WIDTH)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), height=st.integers(1, 900), width=st.integers(1, 900), seed=st.integers(0, 2**32 - 1))
@example(batch=2, height=2 * HEIGHT, width=2 * WIDTH - 1, seed=1)
@example(batch=1, height=17 * HEIGHT, width=4 * WIDTH + 3, seed=2)
def test_torch_and_onnx_runtime_agree_at_any_size(
    exported: onnxruntime.InferenceSession, batch: int, height: int, width: int, seed: int
) -> None:
    """Shrunk, enlarged or both: less than a hundredth of a gray level between training and device."""
    frame = np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    ours = Preprocess(HEIGHT, WIDTH, MEAN, STD)(torch.from_numpy(frame)).numpy()
    (theirs,) = exported.run(None, {"frame": frame})
    assert ours.shape == theirs.shape == (batch, 3, HEIGHT, WIDTH)
    assert float(np.abs(ours - theirs).max()) < 0.01 / (255 * min(STD))


def test_a_frame_of_the_working_size_is_only_normalized() -> None:
    """BGR becomes RGB, scaled by mean and deviation, and nothing else happens to it."""
    frame = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    wanted = (frame[..., ::-1] / 255.0 - MEAN) / STD
    given_ = Preprocess(HEIGHT, WIDTH, MEAN, STD)(torch.from_numpy(frame)).permute(0, 2, 3, 1).numpy()
    assert np.allclose(given_, wanted, atol=1e-5)


@given(length=st.integers(1, 200), target=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_halving_is_the_mean_of_neighbours(length: int, target: int, seed: int) -> None:
    """While twice too long, three times at most; rounded half to even; an odd last value is left out."""
    wanted = np.random.default_rng(seed).integers(0, 256, length).astype(np.float64)
    given_ = halved(torch.from_numpy(wanted.astype(np.uint8))[None, :, None], 1, target)
    for _ in range(3):
        if len(wanted) >= 2 * target:
            wanted = np.round(wanted[: len(wanted) // 2 * 2].reshape(-1, 2).mean(axis=1))
    assert given_.dtype == torch.uint8
    assert given_[0, :, 0].tolist() == wanted.tolist()


def test_shrinking_averages_instead_of_skipping() -> None:
    """A one-pixel line in a frame eight times too large leaves its share of gray behind, wherever it lies."""
    sums = []
    for row in range(100, 116):
        frame = np.zeros((1, 8 * HEIGHT, 8 * WIDTH, 3), np.uint8)
        cv2.line(frame[0], (0, row), (8 * WIDTH, row), (255, 255, 255), 1)
        planes = Preprocess(HEIGHT, WIDTH, MEAN, STD).resize(torch.from_numpy(frame))
        sums.append(float(planes[0, 0].sum()))
    assert max(sums) / min(sums) == pytest.approx(1, abs=0.01)
    assert sums[0] == pytest.approx(255 * WIDTH / 8, rel=0.01)
