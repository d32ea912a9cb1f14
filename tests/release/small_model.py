"""A small real model: an ONNX file whose defect score is a picture's mean brightness, and a bundle around it."""

from datetime import UTC, datetime

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from inspection.contracts import ONNXRUNTIME, InputDescription, Recipe
from inspection.release.bundle import choose_self_test, pack
from tests.release.making import recipe as make_recipe

SIDE = 8


def brightness_model() -> bytes:
    """uint8 frames [N, H, W, 3] -> scores [N, 2] (1 - brightness, brightness) and a defect map [N, H, W]."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "full"], ["unit"]),
        helper.make_node("ReduceMean", ["unit", "colour"], ["defect_map"], keepdims=0),
        helper.make_node("ReduceMean", ["unit", "all_axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["bad"]),
        helper.make_node("Sub", ["one", "bad"], ["fine"]),
        helper.make_node("Concat", ["fine", "bad"], ["scores"], axis=1),
    ]
    constants = [
        helper.make_tensor("full", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("colour", TensorProto.INT64, [1], [3]),
        helper.make_tensor("all_axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("defect_map", TensorProto.FLOAT, ["batch", "height", "width"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def picture(brightness: float) -> npt.NDArray[np.uint8]:
    """A frame of nearly one brightness (a flat one is a dead camera's), uint8 [SIDE, SIDE, 3]."""
    frame = np.full((SIDE, SIDE, 3), round(brightness * 255), dtype=np.uint8)
    frame[0, ::2] += 3
    return frame


def png(brightness: float) -> bytes:
    """That frame as a PNG file."""
    return cv2.imencode(".png", picture(brightness))[1].tobytes()


def brightness_bundle(recipe: Recipe | None = None, runtime: str = ONNXRUNTIME) -> bytes:
    """A bundle of that model for the product "plate" with classes good and dent."""
    used = recipe or make_recipe()
    levels = {"dark": 0.1, "light": 0.9}
    scores = {name: {"good": 1 - level, "dent": level} for name, level in levels.items()}
    cases = choose_self_test(scores, used)
    files = {"model.onnx": brightness_model(), "recipe.json": used.canonical()}
    return pack(
        files | {case.path: png(levels[key]) for key, case in cases.items()},
        name="plate-edge",
        version=1,
        product="plate",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        runtime=runtime,
        backbone="brightness",
        precision="float32",
        input=InputDescription(model_height=SIDE, model_width=SIDE),
        classes=["good", "dent"],
        good_class="good",
        self_test=list(cases.values()),
    )
