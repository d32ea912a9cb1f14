"""Rendered parts for the training tests: a flat surface, a dark pit, a bright scratch."""

import cv2
import numpy as np

from inspection.contracts import Box, Limits, sha256_hex
from inspection.data.product import AugmentPlan, Product, StudentPlan, TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split

CLASSES = ["good", "pit", "scratch"]


def picture(label: str, rng: np.random.Generator, side: int = 40) -> bytes:
    """A PNG of one part."""
    return drawn(label, rng, side)[0]


def drawn(label: str, rng: np.random.Generator, side: int) -> tuple[bytes, Box]:
    """A PNG of one part, and the box round where its defect is, if it has one."""
    image = np.full((side, side, 3), 128, np.uint8)
    x, y = (int(v) for v in rng.integers(10, side - 10, 2))
    if label == "pit":
        cv2.circle(image, (x, y), 5, (20, 20, 20), -1)
    if label == "scratch":
        cv2.line(image, (x - 8, y), (x + 8, y + 3), (250, 250, 250), 2)
    noisy = image + rng.normal(0, 4, image.shape)
    box = Box(x=x - 5, y=y - 5, width=11, height=11, label=label)
    if label == "scratch":
        box = Box(x=x - 9, y=y - 1, width=19, height=6, label=label)
    return cv2.imencode(".png", np.clip(noisy, 0, 255).astype(np.uint8))[1].tobytes(), box


def parts(
    count: int, classes: list[str] = CLASSES, seed: int = 0, *, side: int = 40, boxed: bool = False
) -> tuple[Snapshot, dict[str, bytes]]:
    """A snapshot of ``count`` parts, classes in turn, every fourth part on the validation side."""
    rng = np.random.default_rng(seed)
    files: dict[str, bytes] = {}
    examples = []
    for n in range(count):
        label = classes[n % len(classes)]
        data, box = drawn(label, rng, side)
        digest = sha256_hex(data)
        files[digest] = data
        split = Split.VALIDATION if n % 4 == 3 else Split.TRAIN
        boxes = [box] if boxed and label != "good" else []
        examples.append(Example(picture=digest, label=label, part=f"p{n}", group=f"p{n}", split=split, boxes=boxes))
    return Snapshot(product="plate", good_class="good", classes=classes, examples=examples), files


def product(classes: list[str] = CLASSES, **train: object) -> Product:
    """A product with a tiny, quick plan."""
    plan = {"backbone": "test_resnet", "pretrained": "none", "height": 32, "width": 32, "epochs": 2,
            "batch_size": 8, "learning_rate": 4e-3, "augment": AugmentPlan(blur_noise=False)}  # fmt: skip
    return Product(
        name="plate",
        good_class="good",
        classes=classes,
        limits=Limits(escape_rate=0.05, overkill_rate=0.05),
        train=TrainPlan.model_validate(plan | train),
        student=StudentPlan(backbone="test_efficientnet", epochs=2),
    )
