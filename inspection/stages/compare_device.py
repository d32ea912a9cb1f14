"""What a compared network costs on a device: its float and its int8 file, and whether both answer alike."""

import logging
from pathlib import Path

import numpy as np

from inspection.errors import BundleError, EnvironmentTroubleError
from inspection.release.comparison import Device
from inspection.release.export import export_onnx
from inspection.release.measure import compare_latency, latency, scores_of
from inspection.release.quantize import QUANTIZER_REFUSALS, first_line, quantize_int8
from inspection.stages.material import Frames
from inspection.training.record import Trained

log = logging.getLogger(__name__)

_TIMING_RUNS = 50


def timed(trained: Trained, calibration: Frames, answered: Frames, least: float, folder: Path) -> Device:
    """Float and int8 file, timed in turns on frames of the network's own size.

    ``answered``: frames of which the int8 file must name a share ``least`` as the float file does.
    """
    exact, small = folder / "float.onnx", folder / "int8.onnx"
    export_onnx(trained.deploy_graph(), exact)
    shape = (trained.height, trained.width, 3)
    try:
        quantize_int8(exact, (frame[None] for frame in calibration), small, float_stem=True)
        both = compare_latency(exact, small, shape, runs=_TIMING_RUNS)
        equal = float(np.mean(scores_of(exact, answered).argmax(1) == scores_of(small, answered).argmax(1)))
    except (BundleError, EnvironmentTroubleError, *QUANTIZER_REFUSALS) as error:
        log.warning("%s cannot be made int8: %s", trained.backbone, error)
        alone = latency(exact, shape, runs=_TIMING_RUNS)
        return Device(
            backbone=trained.backbone,
            float_ms=alone.p50_ms,
            float_bytes=exact.stat().st_size,
            why=f"it cannot be made: {first_line(error)}",
        )
    return Device(
        backbone=trained.backbone,
        float_ms=both.float_model.p50_ms,
        float_bytes=exact.stat().st_size,
        int8_ms=both.int8_model.p50_ms,
        int8_bytes=small.stat().st_size,
        int8_equal=equal,
        why="" if equal >= least else f"{equal:.1%} of its answers are those in float, and {least:.1%} are asked for",
    )
